#!/usr/bin/python3
"""What trothctl makes of a coordinator's answers, and of none: a listener in this process that loses
replies, fails, or is another service. Quick.

    admin_call_test.py --bin build/release/bin [unittest's arguments]
"""

import json
import logging
import pathlib
import socket
import subprocess
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "sdk_python"))
import harness  # noqa: E402,F401  pylint: disable=wrong-import-position,unused-import
from thrift.transport.TTransport import TTransportException  # noqa: E402  pylint: disable=wrong-import-position
from troth.transport import Listener  # noqa: E402  pylint: disable=wrong-import-position
from troth.wire.coordinator import Coordinator, CoordinatorAdmin  # noqa: E402  pylint: disable=wrong-import-position
from troth.wire.coordinator.ttypes import TransactionStatus  # noqa: E402  pylint: disable=wrong-import-position

BIN = None
ID = "bank-0123456789ab.1-00000001."


class FakeAdmin:
    """An administrators' service. Fault model: `fails` is raised by `forget` when it has forgotten."""

    def __init__(self):
        self.forgotten = []
        self.fails = None
        self.in_hand = []  # oldest first

    def forget(self, participant):
        self.forgotten.append(participant)
        if self.fails is not None:
            raise self.fails

    def transactions(self, limit):
        return self.in_hand[:limit]


class AdminCall(unittest.TestCase):
    def setUp(self):
        logging.disable(logging.CRITICAL)  # Thrift tells of exceptions that are meant
        self.addCleanup(logging.disable, logging.NOTSET)
        self.admin = FakeAdmin()

    def serve(self, processor):
        """The address of a listener with that service."""
        listener = Listener("administrators", "127.0.0.1", 0, processor)
        listener.start()
        self.addCleanup(listener.stop, 0)
        return f"127.0.0.1:{listener.port}"

    def ctl(self, address, *arguments):
        """Exit code, stdout, stderr."""
        done = subprocess.run([BIN / "trothctl", "--coordinator", address, *arguments], text=True,
                              capture_output=True, timeout=30, check=False)
        return done.returncode, done.stdout, done.stderr

    def test_an_order_whose_answer_is_lost(self):
        """It was told as "no coordinator answers", and was carried out."""
        address = self.serve(CoordinatorAdmin.Processor(self.admin))
        for fails, said in ((TTransportException(message="the reply is lost"), "no answer came"),
                            (RuntimeError("a bug"), "failed at the call")):
            self.admin.fails = fails
            code, out, err = self.ctl(address, "participants", "forget", "east")
            self.assertEqual((code, out), (4, ""), err)
            self.assertIn(said, err)
            self.assertIn("may have been done", err)
            self.assertNotIn("no coordinator answers", err)
            self.assertNotIn("serves no administrators", err)
        self.assertEqual(self.admin.forgotten, ["east", "east"])

    def test_nobody_to_order(self):
        """Nothing listens, or another service: nothing was done."""
        with socket.create_server(("127.0.0.1", 0)) as unused:
            nowhere = f"127.0.0.1:{unused.getsockname()[1]}"
        applications = self.serve(Coordinator.Processor(self.admin))
        for address, said in ((nowhere, "no coordinator answers"),
                              (applications, "serves no administrators")):
            code, out, err = self.ctl(address, "participants", "forget", "east")
            self.assertEqual((code, out), (3, ""), err)
            self.assertIn(said, err)
            self.assertNotIn("may have been done", err)
        self.assertEqual(self.admin.forgotten, [])

    def test_the_limit_is_of_what_was_asked_for(self):
        """The oldest 100 were taken, and of these the ones that wait for the participant."""
        address = self.serve(CoordinatorAdmin.Processor(self.admin))
        self.admin.in_hand = [
            TransactionStatus(ID + str(i), "committed", ["west" if i > 150 else "east"], 1000 - i)
            for i in range(200)]

        def listed(*arguments):
            code, out, err = self.ctl(address, "list", "--json", *arguments)
            self.assertEqual((code, err), (0, ""))
            return [int(row["transaction_id"].rpartition(".")[2]) for row in json.loads(out)]
        self.assertEqual(listed(), list(range(100)))
        self.assertEqual(listed("--participant", "west"), list(range(151, 200)))
        self.assertEqual(listed("--participant", "east"), list(range(100)))
        self.assertEqual(listed("--participant", "west", "--limit", "2"), [151, 152])
        self.admin.in_hand *= 6
        code, out, err = self.ctl(address, "list", "--participant", "nobody")
        self.assertEqual(code, 0)
        self.assertIn("only the 1000 oldest", err)


if __name__ == "__main__":
    if "--bin" not in sys.argv:
        sys.exit("usage: admin_call_test.py --bin DIR [unittest's arguments]")
    at = sys.argv.index("--bin")
    BIN = pathlib.Path(sys.argv[at + 1]).resolve()
    unittest.main(argv=[sys.argv[0], *sys.argv[at + 2:]], warnings="ignore")
