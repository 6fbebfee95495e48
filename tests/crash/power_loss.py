"""Power loss under load: a real coordinator on a loop-mounted ext4 that is shut down without a flush
of its journal, so that what was not synced is gone; then it is mounted and started again. Every
answered commit is there, and no branch was finished on the word of a record that was lost
(world.py). Used through tests/crash/power_loss.

Rounds take turns: power lost under load; the process killed first, and power lost before it is
started; killed, started, and power lost while it opens; killed, started, and power lost under the
load that follows.
"""

import argparse
import collections
import pathlib
import random
import shutil
import sys
import tempfile
import threading
import time

import disks
import world

KINDS = ("loaded", "killed", "killed-opening", "killed-loaded")
CLIENTS = 6
FLAGS = ("--wal_segment_bytes", "262144")  # compacted several times a round


class Load:
    """Clients that commit until the coordinator is gone."""

    def __init__(self, w):
        self.world, self.others = w, []
        self.threads = [threading.Thread(target=self._run, args=(i,)) for i in range(CLIENTS)]
        for thread in self.threads:
            thread.start()

    def _run(self, number):
        wait = world.Wait.DECIDED if number % 2 else world.Wait.APPLIED
        client = None
        try:
            client = world.Client(self.world)
            while True:
                try:
                    client.commit(wait)
                except world.Refused as refused:
                    if not refused.retryable:
                        self.others.append(f"a commit was refused: {refused.message}")
                        return
                    time.sleep(0.002)
        except world.LOST:
            pass  # the process or its disk is gone
        finally:
            if client is not None:
                client.close()

    def join(self):
        for thread in self.threads:
            thread.join(60)
        return self.others


class Test:
    """One disk, one log, many ends of it."""

    def __init__(self, options, scratch):
        self.random = random.Random(options.seed)
        self.disk = disks.Disk(f"{scratch}/image", f"{scratch}/disk", 64)
        # What people read of it must outlive its disk.
        self.world = world.World(options.bin / "troth-coordinator", self.disk.path / "wal", scratch,
                                 FLAGS)
        self.lost = 0
        self.answered = 0
        self.rounds = collections.Counter()
        self.cut = 0

    def make(self):
        code, words = self.world.coordinator.init()
        if code != 0:
            raise RuntimeError(words)
        self.world.coordinator.start()

    def cut_power(self):
        self.disk.lose_power()
        time.sleep(self.random.uniform(0, 0.05))
        self.world.coordinator.kill()

    def loaded(self, seconds):
        """Load for that long; then whatever `end` is told to do; the load ends with it."""
        self.world.enroll()
        load = Load(self.world)
        time.sleep(seconds)
        return load

    def round(self, kind):
        """Ends with the disk dark. Needs a coordinator that serves."""
        coordinator = self.world.coordinator
        load = self.loaded(self.random.uniform(0.1, 0.5))
        problems = []
        if kind == "loaded":
            self.cut_power()
            return load.join()
        coordinator.kill()
        problems += load.join()
        if kind == "killed":
            self.disk.lose_power()
        elif kind == "killed-opening":
            coordinator.launch()
            time.sleep(self.random.uniform(0, 0.03))
            self.cut_power()
        else:
            coordinator.start()
            load = self.loaded(self.random.uniform(0, 0.3))
            self.cut_power()
            problems += load.join()
        return problems

    def run(self, number, kind):
        began = len(self.world.asked)
        problems = self.round(kind)
        self.disk.power_on()
        self.world.coordinator.start()
        self.cut += "is torn" in self.world.coordinator.words()
        fresh = self.world.asked[began:]
        problems += self.world.audit(fresh)
        self.answered += sum(i in self.world.answered for i in dict.fromkeys(fresh))
        self.rounds[kind] += 1
        self.report(f"round {number} ({kind})", problems)

    def report(self, where, problems):
        self.lost += len(problems)
        for problem in problems[:20]:
            print(f"{where}: {problem}", file=sys.stderr)

    def run_all(self, rounds):
        self.make()
        for number in range(1, rounds + 1):
            try:
                self.run(number, KINDS[(number - 1) % len(KINDS)])
            except RuntimeError as error:  # it does not open any more: all is lost
                self.report(f"round {number}", [str(error)])
                return
        everything = self.world.audit()
        self.report("at the end", everything)
        self.world.coordinator.stop()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--bin", type=pathlib.Path, required=True)
    parser.add_argument("--rounds", type=int, default=28)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    if options.rounds < 1:
        parser.error("--rounds is at least 1")
    disks.enter("power_loss")
    scratch = tempfile.mkdtemp(prefix="troth-power-loss-")
    test = None
    try:
        test = Test(options, scratch)
        test.run_all(options.rounds)
    finally:
        if test is not None:
            test.world.close()
            test.disk.unmount()
        shutil.rmtree(scratch)
    print(", ".join(f"{kind}: {count}" for kind, count in sorted(test.rounds.items()))
          + f"; torn ends cut: {test.cut}; asked in all: {len(set(test.world.asked))}")
    print(f"power_loss: rounds={sum(test.rounds.values())} answered={test.answered} "
          f"lost={test.lost}")
    return 0 if test.answered > 0 and test.lost == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
