#!/usr/bin/python3
"""A log that ends too early, and one made anew, on a real coordinator: it learns from its participants
(world.py) that its log was cut, refuses to serve naming both positions and what to do, still
delivers what is recorded, and goes on as an operator says. docs/operations.md, "A log cut short"
and "A log lost".

    restored_log.py --bin build/release/bin [unittest's arguments]
"""

import pathlib
import shutil
import subprocess
import sys
import tempfile
import time
import unittest

import world
from troth.wire.coordinator import Coordinator, CoordinatorPeer
from troth.wire.coordinator.ttypes import ClientHello, Inquiry, OutcomeKind, Seen, Verdict
from troth.wire.values.ttypes import Reason

BIN = None


class RestoredLog(unittest.TestCase):
    def setUp(self):
        scratch = tempfile.TemporaryDirectory(prefix="troth-restored-log-")
        self.addCleanup(scratch.cleanup)
        self.wal, self.copy = pathlib.Path(scratch.name) / "wal", pathlib.Path(scratch.name) / "copy"
        self.world = world.World(BIN / "troth-coordinator", self.wal, scratch.name,
                                 ("--wal_segment_bytes", "131072"))
        self.addCleanup(self.world.close)
        self.assertEqual(self.world.coordinator.init()[0], 0)
        self.start()

    @property
    def coordinator(self):
        return self.world.coordinator

    @property
    def west(self):
        return self.world.participants[1]

    def start(self):
        self.coordinator.start()
        self.world.enroll()

    def commit(self, count, wait=world.Wait.APPLIED):
        """Their ids."""
        client = world.Client(self.world)
        begun = len(self.world.asked)
        for _ in range(count):
            client.commit(wait)
        client.close()
        return self.world.asked[begun:]

    def report(self):
        """All participants enroll; one whose report contradicts the log is told so."""
        for participant in self.world.participants:
            with self.assertRaises(world.Refused) as caught:
                participant.enroll(self.coordinator)
            self.assertEqual(caught.exception.reason, Reason.NOT_SERVING)
            self.assertIn("was cut or restored", caught.exception.message)

    def back_up(self):
        """A copy of the log as it is at this moment, of a stopped owner."""
        self.coordinator.kill()
        shutil.copytree(self.wal, self.copy)

    def restore(self):
        self.coordinator.kill()
        shutil.rmtree(self.wal)
        shutil.copytree(self.copy, self.wal)
        self.coordinator.start()
        self.west.hold = False  # not before: a call of the old life may still be read
        self.report()

    def control(self, *arguments):
        """trothctl on this coordinator; exit code and what it said."""
        done = subprocess.run(
            [BIN / "trothctl", "--coordinator", f"127.0.0.1:{self.coordinator.ports['admin_port']}",
             *arguments], text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=30,
            check=False)
        return done.returncode, done.stdout

    def outcome(self, id_):
        with self.coordinator.connection("client", Coordinator) as rpc:
            rpc.hello(ClientHello(1, "test"))
            return rpc.outcome(id_, 0).kind

    def expect_suspect(self, *words):
        """It serves nobody, and says why, what to do, and both positions."""
        end = time.monotonic() + 10
        while self.coordinator.status().state != "log-suspect":
            self.assertLess(time.monotonic(), end, self.coordinator.status())
            time.sleep(0.01)
        code, said = self.control("status")
        self.assertEqual(code, 0, said)
        with self.assertRaises(world.Refused) as caught:
            self.commit(1)
        self.assertEqual(caught.exception.reason, Reason.NOT_SERVING)
        for text in (said, caught.exception.message):
            for word in (*words, "accept-gap", "discard-report", "newest log"):
                self.assertIn(word, " ".join(text.split()))

    def expect_serving(self):
        end = time.monotonic() + 10
        while self.coordinator.status().state != "serving":
            self.assertLess(time.monotonic(), end, self.coordinator.status())
            time.sleep(0.01)
        self.commit(3)

    def lost_branch(self):
        """Commits that the copy lacks; one of them is still prepared at west."""
        self.west.hold = True
        lost = self.commit(5, world.Wait.DECIDED)
        self.coordinator.kill()
        self.assertIn(lost[-1], self.west.prepared)
        return lost[-1]

    def asked_about(self, id_):
        """What west hears about its prepared branch."""
        with self.coordinator.connection("peer", CoordinatorPeer) as peer:
            return peer.inquire("west", [Inquiry(id_, self.west.prepared[id_] & 0xffffffff)],
                                Seen(*self.west.seen))[0].verdict

    def test_restored_in_the_same_epoch(self):
        """A copy of the epoch in which commits went on."""
        self.west.hold = True
        kept = self.commit(3, world.Wait.DECIDED)
        # The owner lives on behind the copy: killed, copied, and its commits of the same epoch
        # come from a log that the copy does not have.
        shutil.copytree(self.wal, self.copy)
        lost = self.lost_branch()
        self.restore()
        epoch, _, position, _ = self.world.participants[0].told()  # the first to speak
        self.expect_suspect(f"epoch {epoch}-", f"batch {position}", "ends that epoch at batch")
        # What is recorded is delivered; the rest is answered by nobody.
        self.world.participants[0].settle(self.coordinator)
        end = time.monotonic() + 10
        while any(id_ in self.west.prepared for id_ in kept):
            self.assertLess(time.monotonic(), end)
            time.sleep(0.01)
        self.assertEqual(self.outcome(kept[0]), OutcomeKind.COMMITTED)
        self.assertIn(self.asked_about(lost), (Verdict.PENDING, Verdict.NOT_MINE))
        self.accept_the_gap(lost)

    def test_restored_across_a_restart(self):
        """A copy of the epoch before; the lost one has the number of the new."""
        self.commit(3)
        self.back_up()
        self.start()
        lost = self.lost_branch()
        self.restore()
        epoch, random, position, _ = self.world.participants[0].told()
        self.expect_suspect(f"epoch {epoch}-{random & 0xffffffff:08x}", f"batch {position}",
                            "never began that epoch")
        self.assertIn(self.asked_about(lost), (Verdict.PENDING, Verdict.NOT_MINE))
        self.accept_the_gap(lost)

    def accept_the_gap(self, lost):
        """The operator's way on; the lost id is nobody's for ever."""
        code, said = self.control("accept-gap", "--reason", "the disk is gone")
        self.assertEqual(code, 0, said)
        for _ in range(2):
            self.coordinator.kill()
            self.start()
            self.expect_serving()
            self.assertEqual(self.asked_about(lost), Verdict.NOT_MINE)
        del self.west.prepared[lost]  # settled by hand

    def test_the_newest_log_put_back(self):
        """The other way on: nothing is lost."""
        self.commit(3)
        self.back_up()
        self.start()
        self.lost_branch()
        newest = self.wal.with_name("newest")
        shutil.copytree(self.wal, newest)
        self.restore()
        self.expect_suspect()
        self.coordinator.kill()
        shutil.rmtree(self.wal)
        newest.rename(self.wal)
        self.start()
        self.expect_serving()
        self.assertEqual(self.world.audit(), [])

    def test_a_report_discarded(self):
        """A participant that is wrong; what the operator said holds over restarts."""
        self.commit(3)
        seen = self.west.seen
        self.west.seen = (seen[0], seen[1], seen[2] + 1_000_000, seen[3])
        with self.assertRaises(world.Refused):
            self.west.enroll(self.coordinator)
        self.expect_suspect("'west'")
        code, said = self.control("discard-report", "west", "--reason", "restored from elsewhere")
        self.assertEqual(code, 0, said)
        self.assertIn("ordered to discard the report of participant west: restored from elsewhere",
                      self.coordinator.log.read_text(encoding="utf-8"))
        self.expect_serving()
        for _ in range(2):
            self.coordinator.kill()
            self.start()
            self.expect_serving()

    def test_lost_and_made_anew(self):
        """Another coordinator under the same name: it answers for none of the old one's."""
        done = self.commit(2)[0]
        lost = self.lost_branch()
        shutil.rmtree(self.wal)
        self.coordinator.launch()
        self.assertEqual(self.coordinator.process.wait(30), 1)  # nothing is made by itself
        code, anew = self.coordinator.init()
        self.assertEqual(code, 0)
        self.assertNotEqual(anew.strip(), done.split(".")[0])
        self.start()
        self.assertEqual(self.asked_about(lost), Verdict.NOT_MINE)
        with self.assertRaises(world.Refused) as caught:
            self.outcome(done)
        self.assertEqual(caught.exception.reason, Reason.NOT_MINE)
        self.commit(3)


def main():
    if "--bin" not in sys.argv:
        sys.exit("usage: restored_log.py --bin DIR [unittest's arguments]")
    global BIN  # pylint: disable=global-statement
    at = sys.argv.index("--bin")
    BIN = pathlib.Path(sys.argv[at + 1]).resolve()
    unittest.main(argv=[sys.argv[0], *sys.argv[at + 2:]])


if __name__ == "__main__":
    main()
