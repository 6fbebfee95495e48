#!/usr/bin/python3
"""trothctl wal on real directories: of a live coordinator under load, of a dead one, of another one,
of a newer format, damaged. It changes nothing, refuses with the reason, and never cries wolf.

    wal_commands_test.py --bin build/release/bin [unittest's arguments]
"""

import hashlib
import itertools
import json
import pathlib
import subprocess
import sys
import tempfile
import threading
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "crash"))
import world  # noqa: E402  pylint: disable=wrong-import-position

BIN = None
FLAGS = ("--wal_segment_bytes", "131072")
VERSION_AT = 8  # in a file's header (docs/wal_format.md)


def contents(directory):
    """Names, lengths, digests, times of change."""
    return {p.name: (p.stat().st_size, p.stat().st_mtime_ns, hashlib.sha256(p.read_bytes()).digest())
            for p in sorted(directory.iterdir())}


class WalCommands(unittest.TestCase):
    def setUp(self):
        scratch = tempfile.TemporaryDirectory(prefix="troth-wal-commands-")
        self.addCleanup(scratch.cleanup)
        self.wal = pathlib.Path(scratch.name) / "wal"
        self.world = world.World(BIN / "troth-coordinator", self.wal, scratch.name, FLAGS)
        self.addCleanup(self.world.close)
        code, self.id = self.world.coordinator.init()
        self.assertEqual(code, 0, self.id)
        self.id = self.id.strip()

    def serve(self, commits):
        self.world.coordinator.start()
        self.world.enroll()
        client = world.Client(self.world)
        for _ in range(commits):
            client.commit()
        client.close()

    def wal_command(self, *arguments):
        """Exit code, stdout, stderr."""
        done = subprocess.run([BIN / "trothctl", "wal", *map(str, arguments)], text=True,
                              capture_output=True, timeout=60, check=False)
        return done.returncode, done.stdout, done.stderr

    def refuse(self, pattern, *arguments):
        """Exit 1, the reason on stderr, nothing on stdout, nothing changed."""
        before = contents(self.wal)
        code, out, err = self.wal_command(*arguments)
        self.assertEqual((code, out), (1, ""), err)
        self.assertRegex(err, pattern)
        self.assertEqual(contents(self.wal), before)

    def test_shows_what_is_there(self):
        """All three, on a dead directory, which stays as it was."""
        self.serve(40)
        self.world.coordinator.kill()
        before = contents(self.wal)
        code, out, _ = self.wal_command("verify", self.wal)
        self.assertEqual(code, 0)
        self.assertRegex(out, rf"coordinator {self.id}: intact")
        code, out, _ = self.wal_command("stats", self.wal, "--json")
        self.assertEqual(code, 0)
        self.assertEqual(json.loads(out)["coordinator"], self.id)
        one = self.world.asked[7]
        code, out, _ = self.wal_command("dump", self.wal, "--transaction", one)
        self.assertEqual(code, 0)
        self.assertIn("commit " + one.split(".", 1)[1], out)
        self.assertEqual(self.wal_command("dump", self.wal, "--transaction", "troth:east:" + one),
                         (0, out, ""))
        self.assertEqual(self.wal_command("dump", self.wal, "--transaction", "east:" + one)[0], 2)
        code, out, _ = self.wal_command("dump", self.wal, "--json")
        self.assertEqual(code, 0)
        records = [json.loads(line) for line in out.splitlines()]
        self.assertEqual(len({r["record"].split(" [")[0] for r in records if r["kind"] == "commit"}),
                         40)
        self.assertEqual(contents(self.wal), before)

    def test_live_directory(self):
        """Under load and compaction: always intact, and the owner notices nothing."""
        self.serve(1)
        stop = threading.Event()

        def load():
            client = world.Client(self.world)
            while not stop.is_set():
                try:
                    client.commit()
                except world.Refused:  # a small log is full for a moment
                    stop.wait(0.01)
            client.close()
        threads = [threading.Thread(target=load) for _ in range(4)]
        for thread in threads:
            thread.start()
        checkpoints = set()
        end = time.monotonic() + 60
        try:
            for number in itertools.count():
                if number >= 30 and (len(checkpoints) > 1 or time.monotonic() > end):
                    break
                command = ("verify", "stats", "dump")[number % 3]
                code, out, err = self.wal_command(command, self.wal)
                self.assertEqual(code, 0, err)
                checkpoints |= {p.name for p in self.wal.glob("checkpoint-*") if p.suffix != ".tmp"}
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        self.assertGreater(len(checkpoints), 1, "nothing was compacted meanwhile")
        self.assertTrue(self.world.coordinator.alive())
        self.assertEqual(self.world.audit(), [])

    def test_of_another_coordinator(self):
        """By name, by id, by a transaction's id; the right ones are accepted."""
        self.serve(3)
        self.world.coordinator.kill()
        mine, other = self.id, "test-0123456789ab"
        for command in ("verify", "stats", "dump"):
            for name in (mine, "test"):
                self.assertEqual(self.wal_command(command, self.wal, "--name", name)[0], 0)
            for name in (other, "bank", "te"):
                self.refuse(f"log of coordinator {mine}, not of {name}", command, self.wal,
                            "--name", name)
        foreign = other + "." + self.world.asked[0].split(".", 1)[1]
        self.refuse(f"log of coordinator {mine}, not of {other}", "dump", self.wal,
                    "--transaction", foreign)

    def test_owner_of_another_name(self):
        """The coordinator itself: told whose log it must be, it opens no other's."""
        before = contents(self.wal)
        wrong = world.CoordinatorProcess(BIN / "troth-coordinator", self.wal, self.wal.parent,
                                         ("--name", "bank"))
        wrong.launch()
        self.assertEqual(wrong.process.wait(30), 1)
        self.assertIn(f"log of coordinator {self.id}, not of bank", wrong.words())
        after = contents(self.wal)
        after.pop("LOCK")
        before.pop("LOCK", None)
        self.assertEqual(after, before)
        right = world.CoordinatorProcess(BIN / "troth-coordinator", self.wal, self.wal.parent,
                                         ("--name", "test"))
        right.start()
        right.kill()

    def test_held_by_a_live_process(self):
        """Whoever would write is refused, and told who holds it; whoever reads is not."""
        self.serve(1)
        pid = self.world.coordinator.process.pid
        for flag in ([], ["--init"]):
            done = subprocess.run([BIN / "troth-coordinator", "--wal_dir", self.wal, *flag],
                                  text=True, stderr=subprocess.PIPE, timeout=30, check=False)
            self.assertEqual(done.returncode, 1)
            self.assertRegex(done.stderr, rf"live process \(pid {pid}\)|holds a log already")
        self.assertEqual(self.wal_command("verify", self.wal)[0], 0)

    def test_newer_format(self):
        """Named, with both versions; the coordinator refuses it too."""
        self.serve(3)
        self.world.coordinator.kill()
        for pattern in ("segment-*", "checkpoint-*"):
            path = sorted(self.wal.glob(pattern))[-1]
            whole = path.read_bytes()
            path.write_bytes(whole[:VERSION_AT] + b"\x07\0\0\0" + whole[VERSION_AT + 4:])
            for command in ("verify", "stats"):
                self.refuse(f"{path.name}.*newer Troth: format 7.*1", command, self.wal)
            code, _, err = self.wal_command("dump", self.wal)
            self.assertEqual(code, 1)
            self.assertRegex(err, "newer Troth: format 7")
            before = contents(self.wal)
            self.world.coordinator.launch()
            self.assertEqual(self.world.coordinator.process.wait(30), 1)
            self.assertIn("newer Troth: format 7", self.world.coordinator.words())
            after = contents(self.wal)
            self.assertEqual({k: v for k, v in after.items() if k != "LOCK"},
                             {k: v for k, v in before.items() if k != "LOCK"})
            path.write_bytes(whole)

    def test_damaged(self):
        """File, offset and cause; dump still shows what precedes the damage."""
        self.serve(20)
        self.world.coordinator.kill()
        path = next(p for p in sorted(self.wal.glob("segment-*")) if any(p.read_bytes()[4096:]))
        whole = bytearray(path.read_bytes())
        whole[5 * 4096 + 100] ^= 1
        path.write_bytes(whole)
        self.refuse(rf"{path.name}, offset {5 * 4096}: .*durable", "verify", self.wal)
        code, out, err = self.wal_command("dump", self.wal)
        self.assertEqual(code, 1)
        self.assertIn("commit ", out)
        self.assertRegex(err, f"offset {5 * 4096}")

    def test_no_log(self):
        """An empty directory, and none."""
        with tempfile.TemporaryDirectory() as empty:
            for command in ("verify", "stats", "dump"):
                code, out, err = self.wal_command(command, empty)
                self.assertEqual((code, out), (1, ""))
                self.assertIn("holds no log", err)
        code, _, err = self.wal_command("verify", self.wal / "nowhere")
        self.assertEqual(code, 1)
        self.assertRegex(err, "there is no .*nowhere.*Is the volume mounted.*--init")


if __name__ == "__main__":
    if "--bin" not in sys.argv:
        sys.exit("usage: wal_commands_test.py --bin DIR [unittest's arguments]")
    at = sys.argv.index("--bin")
    BIN = pathlib.Path(sys.argv[at + 1]).resolve()
    unittest.main(argv=[sys.argv[0], *sys.argv[at + 2:]])
