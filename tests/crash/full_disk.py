"""A full disk: a real coordinator on an ext4 of 32 MiB that is filled to the last block under load.
Commits are refused with an error that says so, what is decided is finished, it starts again on the
full disk, and serves within 2 s of there being room; nothing is lost (world.py). Used through
tests/crash/full_disk.
"""

import argparse
import pathlib
import shutil
import sys
import tempfile
import time

import disks
import world

MEGABYTES = 32
FLAGS = ("--wal_segment_bytes", str(512 << 10))  # docs/operations.md, "Disk space"
UNDELIVERED = 200
RESUME_LIMIT_S = 2.0
PATIENCE_S = 120
REFUSED_FOR_S = 1.5  # thrice the time after which the log asks for space again


class Failed(Exception):
    """A step did not go as it must; the text says how."""


class Test:
    def __init__(self, options, scratch):
        self.disk = disks.Disk(f"{scratch}/image", f"{scratch}/disk", MEGABYTES)
        self.world = world.World(options.bin / "troth-coordinator", self.disk.path / "wal", scratch,
                                 FLAGS)
        self.refused = 0
        self.resumed_s = -1.0
        self.restarted = False
        self.lost = 0
        self.keys = 0  # long ones: they fill the log's reserve sooner

    @property
    def west(self):
        return self.world.participants[1]

    def try_commit(self, client, wait=world.Wait.APPLIED):
        """True: committed; False: refused for want of room."""
        try:
            self.keys += 1
            outcome = client.commit(wait, f"order {self.keys} ".ljust(128, "."))
        except world.Refused as refused:
            if not world.is_no_room(refused):
                raise Failed(f"refused, and not for want of room: {refused.message}") from refused
            self.refused += 1
            return False
        if outcome.message and "no room" in outcome.message:
            self.refused += 1
            return False
        if outcome.message:
            raise Failed(f"not committed: {outcome.message}")
        return True

    def commit_until_refused(self, client, wait):
        """Until all are refused for a while (compaction makes a little room now and then); how
        many were committed."""
        committed = 0
        refused_since = None
        end = time.monotonic() + PATIENCE_S
        while refused_since is None or time.monotonic() - refused_since < REFUSED_FOR_S:
            if self.try_commit(client, wait):
                committed, refused_since = committed + 1, None
            else:
                refused_since = refused_since or time.monotonic()
                time.sleep(0.05)
            if time.monotonic() > end:
                raise Failed(f"{committed} commits on a full disk, and none was refused")
        return committed

    def await_status(self, wanted, what):
        end = time.monotonic() + 10
        while not wanted(self.world.coordinator.status()):
            if time.monotonic() > end:
                raise Failed(f"not within 10 s: {what}; {self.world.coordinator.status()}")
            time.sleep(0.01)

    def step(self, text):
        print(text, flush=True)

    def run(self):
        w = self.world
        code, words = w.coordinator.init()
        if code != 0:
            raise Failed(words)
        w.coordinator.start()
        w.enroll()
        client = world.Client(w)
        for _ in range(50):
            if not self.try_commit(client):
                raise Failed("refused before the disk was full")
        self.west.hold = True
        for _ in range(UNDELIVERED):
            if not self.try_commit(client, world.Wait.DECIDED):
                raise Failed("refused before the disk was full")
        self.step(f"the disk is filled: {self.disk.fill() >> 10} KiB")
        committed = self.commit_until_refused(client, world.Wait.DECIDED)
        self.await_status(lambda s: s.state == "log-full", "the status says log-full")
        self.step(f"{committed} more commits, then refused; the status says log-full")
        self.finish_what_is_decided()
        self.restart_when_full()
        self.resume()
        client.close()

    def finish_what_is_decided(self):
        left = self.world.coordinator.status().unacknowledged
        if left < UNDELIVERED:
            raise Failed(f"only {left} decided transactions were left to finish")
        self.west.hold = False
        self.await_status(lambda s: s.unacknowledged == 0, "decided transactions are finished")
        self.step(f"{left} decided transactions are finished on the full disk")

    def restart_when_full(self):
        """Three times, each after a kill, with what can be committed in between."""
        for number in range(3):
            self.world.coordinator.kill()
            self.world.coordinator.start()
            self.world.enroll()
            client = world.Client(self.world)
            committed = self.commit_until_refused(client, world.Wait.APPLIED)
            client.close()
            self.step(f"restart {number + 1} on the full disk, {committed} commits, then refused")
        self.restarted = True

    def resume(self):
        client = world.Client(self.world)
        self.disk.empty()
        began = time.monotonic()
        while not self.try_commit(client):
            if time.monotonic() - began > 30:
                raise Failed("service does not resume within 30 s of room")
            time.sleep(0.01)
        self.resumed_s = time.monotonic() - began
        for _ in range(500):
            if not self.try_commit(client):
                raise Failed("refused again, with room on the disk")
        client.close()

    def audit(self):
        found = self.world.audit()
        self.world.coordinator.kill()
        self.world.coordinator.start()
        found += self.world.audit()
        for problem in found[:20]:
            print(problem, file=sys.stderr)
        self.lost = len(found)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--bin", type=pathlib.Path, required=True)
    options = parser.parse_args()
    disks.enter("full_disk")
    scratch = tempfile.mkdtemp(prefix="troth-full-disk-")
    test, failed = None, False
    try:
        test = Test(options, scratch)
        try:
            test.run()
            test.audit()
        except (Failed, RuntimeError, *world.LOST) as error:
            failed = True
            print(f"full_disk: {type(error).__name__}: {error}\n{test.world.coordinator.words()}",
                  file=sys.stderr)
    finally:
        if test is not None:
            test.world.close()
            test.disk.unmount()
        shutil.rmtree(scratch)
    print(f"full_disk: refused={test.refused} resumed_s={test.resumed_s:.2f} "
          f"restarted_when_full={str(test.restarted).lower()} lost={test.lost}")
    good = (not failed and test.refused > 0 and 0 <= test.resumed_s <= RESUME_LIMIT_S
            and test.restarted and test.lost == 0)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
