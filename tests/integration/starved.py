#!/usr/bin/python3
"""A bank whose processes can have no thread for a while: nobody dies, those who are connected are
served, the others once there are some again.

    starved.py --bin build/release/bin --library build/release/lib/troth_thread_shim.so
"""

import os
import pathlib
import socket
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import prologue  # noqa: E402  pylint: disable=wrong-import-position
from stuck_bank import StuckBank, until  # noqa: E402  pylint: disable=wrong-import-position
import transfer  # noqa: E402  pylint: disable=wrong-import-position

BIN = LIBRARY = None


class StarvedTest(unittest.TestCase):
    """One bank for all cases."""

    @classmethod
    def setUpClass(cls):
        directory = tempfile.TemporaryDirectory(prefix="troth-starved-")
        cls.addClassCleanup(directory.cleanup)
        cls.no_threads = pathlib.Path(directory.name) / "no-threads"
        cls.stuck = StuckBank(BIN)
        cls.addClassCleanup(cls.stuck.stop)
        os.environ.update(LD_PRELOAD=str(pathlib.Path(LIBRARY).resolve()),
                          THREAD_SHIM=str(cls.no_threads))
        cls.addClassCleanup(os.environ.pop, "LD_PRELOAD")
        cls.stuck.start()

    def tearDown(self):
        self.no_threads.unlink(missing_ok=True)

    def ports(self):
        """(process, port) of every listener of Thrift."""
        bank = self.stuck.bank
        coordinator, east = bank.coordinator, bank.branches["east"]
        return [(coordinator, coordinator.ports[name])
                for name in ("client_port", "peer_port", "admin_port")] + [
                    (east, east.ports[name]) for name in ("port", "peer_port")]

    def assert_closed(self, port):
        """A connection is."""
        with socket.create_connection(("127.0.0.1", port), timeout=20) as sock:
            sock.sendall(b"\0")  # a connection is accepted when there is something to read
            try:
                self.assertEqual(sock.recv(1), b"")
            except ConnectionResetError:
                pass  # closed before that was read

    def healthy(self):
        """Everybody lives, and serves who comes anew."""
        self.stuck.ctl("status")
        identity, claims = self.stuck.begin(account=20)
        self.stuck.decide(identity, claims)
        until("it is applied", lambda: not self.stuck.bank.prepared()[0])
        for process, _ in self.ports():
            self.assertTrue(process.running(), process.tail())

    def test_no_thread(self):
        """A connection is closed for which there is none; questions are asked without."""
        from troth.wire.coordinator import CoordinatorAdmin
        from troth.wire.coordinator.ttypes import InDoubtFilter
        stuck = self.stuck
        identity, claims = stuck.begin(account=21)
        admin = transfer.call_service(CoordinatorAdmin.Client, "127.0.0.1",
                                      stuck.bank.coordinator.ports["admin_port"], 20)
        client = stuck.connect()
        for connected in (admin.heuristics, lambda: client.lease(1)):  # each has its thread by now
            connected()
        self.no_threads.touch()
        for process, port in self.ports():
            for _ in range(3):
                self.assert_closed(port)
            self.assertTrue(process.running(), process.tail())
        self.assertIn("there is no thread for it", stuck.bank.coordinator.log.read_text())
        # The participants are asked by connections that these cannot serve: that is told.
        self.assertEqual(admin.inspect(identity).state, "pending")
        unasked, = admin.in_doubt(InDoubtFilter())
        self.assertEqual((unasked.transaction_id, unasked.state), ("", "unknown"))
        self.assertEqual([b.participant for b in unasked.branches], ["east", "west"])
        found = {d.process: d.findings for d in admin.diagnose()}
        self.assertIn("does not answer", found["participant east"][0].what)
        self.assertIn("one after the other", stuck.bank.coordinator.log.read_text())
        self.assertGreater(client.lease(1).count, 0)
        self.no_threads.unlink()
        stuck.decide(identity, claims)
        self.assertEqual({d.process: d.findings[0].verdict for d in admin.diagnose()}
                         ["participant east"], "good")
        self.healthy()

    def test_ends_as_ever(self):
        """A connection without a thread holds up no stop."""
        process = self.stuck.bank.branches["west"]
        self.no_threads.touch()
        self.assert_closed(process.ports["port"])
        self.no_threads.unlink()
        self.assertEqual(process.stop(), 0)
        process.start()
        self.healthy()


if __name__ == "__main__":
    prologue.main(globals(), ("bin", "library"))
