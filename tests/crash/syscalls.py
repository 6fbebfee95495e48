"""Crash points by system call: a real coordinator under a fixed load of one connection is killed at
its n-th open, write, sync, rename, truncate, allocation or unlink in its log, or gets EIO or
ENOSPC there; then it is started again and the audit must hold (world.py). The calls are counted
over all threads of the process by a preloaded library (call_shim.c), in the making of a log and in
a life that begins with what a killed one left and ends by SIGTERM. Used through tests/crash/syscalls.
"""

import argparse
import mmap
import pathlib
import shutil
import struct
import sys
import tempfile
import time

import world

FAULTS = ("kill", "EIO", "ENOSPC")
FLAGS = ("--wal_segment_bytes", "131072")  # 31 commits fill a segment
COMMITS = 75                               # two compactions
SETTLE_AT = (0, 35, 66)  # after opening, and each new segment: the same calls in each run
BOARD = struct.Struct("LL64s")
OPENING_FAILED, LOG_FAILED = 1, 3
WORDS = {"EIO": "Input/output error", "ENOSPC": "No space left on device"}


class Board:
    """What call_shim.c writes: calls seen, whether the one wished for came, its name."""

    def __init__(self, path, library):
        self.path, self.library = path, library
        path.write_bytes(bytes(BOARD.size))
        with open(path, "r+b") as file:
            self.memory = mmap.mmap(file.fileno(), BOARD.size)

    def environment(self, directory, at, fault):
        self.memory[:] = bytes(BOARD.size)
        return {"LD_PRELOAD": str(self.library), "CALL_SHIM_DIR": str(directory),
                "CALL_SHIM_BOARD": str(self.path), "CALL_SHIM_AT": str(at), "CALL_SHIM_DO": fault}

    @property
    def seen(self):
        return BOARD.unpack(self.memory)[0]

    @property
    def hit(self):
        return bool(BOARD.unpack(self.memory)[1])

    @property
    def name(self):
        return BOARD.unpack(self.memory)[2].split(b"\0")[0].decode()


class Rig:
    """Runs lives over copies of one log."""

    def __init__(self, options, scratch):
        self.scratch = pathlib.Path(scratch)
        self.wal, self.template = self.scratch / "wal", self.scratch / "template"
        self.board = Board(self.scratch / "board", options.library)
        self.world = world.World(options.bin / "troth-coordinator", self.wal, scratch, FLAGS)
        self.memories, self.answered = None, None
        self.make_template()

    def make_template(self):
        """A log whose owner was killed: transactions delivered, decided and undelivered, undecided
        at the coordinator and prepared at the participants."""
        w = self.world
        code, words = w.coordinator.init()
        assert code == 0, words
        w.coordinator.start()
        w.enroll()
        client = world.Client(w)
        for _ in range(35):
            client.commit()
        w.participants[1].hold = True
        for _ in range(3):
            client.commit(world.Wait.DECIDED)
        w.coordinator.kill()
        client.close()
        for number, participant in enumerate(w.participants):  # voted, and never heard of again
            lost = f"{client.lease.prefix}{client.next + number}"
            participant.xid += 1
            participant.prepared[lost] = participant.xid
            w.asked.append(lost)
        self.wal.rename(self.template)
        self.memories = [p.memory() for p in w.participants]
        self.asked, self.answered = list(w.asked), dict(w.answered)

    def reset(self):
        shutil.rmtree(self.wal, ignore_errors=True)
        shutil.copytree(self.template, self.wal)
        for participant, memory in zip(self.world.participants, self.memories):
            participant.remember(memory)
        self.world.asked, self.world.answered = list(self.asked), dict(self.answered)

    # One life with a call that is hit ------------------------------------------------------

    def making(self, at, fault):
        """`--init`, hit; then again, which makes the log or finds one, and it opens."""
        shutil.rmtree(self.wal, ignore_errors=True)
        for participant in self.world.participants:
            participant.remember((1000, {}, {}, None, None))
        self.world.asked, self.world.answered = [], {}
        code, words = self.world.coordinator.init(self.board.environment(self.wal, at, fault))
        found = self.judge_end(code, words, fault)
        again, words = self.world.coordinator.init()
        if again != 0 and "holds a log already" not in words:
            found.append(f"--init again ended with {again}: {words}")
        return found + self.check_after(commits=3)

    def serving(self, at, fault):
        """A life over the template, hit; then another, with the audit."""
        self.reset()
        coordinator = self.world.coordinator
        coordinator.launch(self.board.environment(self.wal, at, fault))
        if coordinator.wait_ready():
            self.load()
            if coordinator.alive():
                self.let_it_settle()
        code = coordinator.stop()
        return self.judge_end(code, coordinator.words(), fault) + self.check_after(commits=1)

    def load(self):
        """One connection; ends early when the coordinator does."""
        client = None
        try:
            self.world.enroll()
            client = world.Client(self.world)
            done, end = 0, time.monotonic() + 20
            while done < COMMITS:
                if done in SETTLE_AT:
                    self.let_it_settle()
                try:
                    outcome = client.commit()
                    done += outcome.reason is None or "no room" not in outcome.message
                except world.Refused as refused:
                    if not world.is_no_room(refused) or time.monotonic() > end:
                        self.world.violations.append(f"a commit was refused: {refused}")
                        return
                    time.sleep(0.01)
        except world.LOST:
            self.world.coordinator.process.wait(20)
        finally:
            if client is not None:
                client.close()

    def let_it_settle(self):
        """Until maintenance, which looks each 100 ms, has found nothing to do."""
        seen, quiet_since = self.board.seen, time.monotonic()
        while time.monotonic() - quiet_since < 0.15 and self.world.coordinator.alive():
            time.sleep(0.01)
            if self.board.seen != seen:
                seen, quiet_since = self.board.seen, time.monotonic()

    # Judgements ----------------------------------------------------------------------------

    def judge_end(self, code, words, fault):
        """What is wrong with how the process ended."""
        if not self.board.hit or fault == "kill":
            wanted = -9 if self.board.hit else 0
            return [] if code == wanted else [f"it ended with {code}, not {wanted}: {words}"]
        if code == 0:  # it may go on without space, and without its pid in LOCK
            harmless = fault == "ENOSPC" or self.board.name == "write LOCK"
            return [] if harmless else [f"it went on after {fault}: {words[-300:]}"]
        if code not in (OPENING_FAILED, LOG_FAILED):
            return [f"it ended with {code}: {words}"]
        if WORDS[fault] not in words or str(self.wal) not in words:
            return [f"it does not say why it ended: {words}"]
        return []

    def check_after(self, commits):
        """The next life, with no fault: it opens, goes on, and the audit holds."""
        coordinator = self.world.coordinator
        coordinator.launch()
        if not coordinator.wait_ready():
            return [f"it does not start again: {coordinator.words()}"]
        try:
            found = self.world.audit()
            client = world.Client(self.world)
            for _ in range(commits):
                client.commit()
            client.close()
        except (*world.LOST, RuntimeError) as error:
            found = [f"{type(error).__name__}: {error}; {coordinator.words()}"]
        coordinator.kill()
        return found


def sweep(run, rig, fault, every, first):
    """Hits calls first, first + every, ... until runs end before theirs comes. Runs differ by a
    call or two (maintenance, a mark): all that each of two runs without a fault sees are to be hit.
    Returns (calls, calls hit, violations)."""
    violations = []

    def attempt(n):
        found = run(n, fault if n else "kill")
        violations.extend(f"{run.__name__}, call {n} ({rig.board.name or 'none'}), {fault}: {text}"
                          for text in found)
        return rig.board.hit

    calls = None
    for _ in range(2):
        attempt(0)
        calls = min(calls or rig.board.seen, rig.board.seen)
    hit, n = 0, first
    while any(attempt(n) for _ in range(10 if n <= calls else 2)):
        calls = max(calls, n)
        hit, n = hit + 1, n + every
    for text in violations:
        print(text, file=sys.stderr)
    return len(range(first, calls + 1, every)), hit, len(violations)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--bin", type=pathlib.Path, required=True)
    parser.add_argument("--library", type=pathlib.Path, required=True)
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--only", choices=FAULTS)
    options = parser.parse_args()
    if options.every < 1:
        parser.error("--every is at least 1")
    calls = hit = violations = 0
    with tempfile.TemporaryDirectory(prefix="troth-syscalls-") as scratch:
        rig = Rig(options, scratch)
        try:
            for number, fault in enumerate(FAULTS):
                if options.only not in (None, fault):
                    continue
                first = 1 + number * options.every // len(FAULTS)
                for run in (rig.making, rig.serving):
                    began = time.monotonic()
                    c, h, v = sweep(run, rig, fault, options.every, first)
                    print(f"{run.__name__}, {fault}: {c} calls, {h} hit, {v} violations "
                          f"({time.monotonic() - began:.0f} s)", flush=True)
                    calls, hit, violations = calls + c, hit + h, violations + v
        finally:
            rig.world.close()
    print(f"syscalls: calls={calls} hit={hit} violations={violations}")
    return 0 if calls == hit > 0 and violations == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
