#!/usr/bin/python3
"""Branches in C++ and in Python in one transaction under the real coordinator, which is killed, and
so is the Python branch, while transfers run: the books of both banks agree afterwards. Needs the
programs built (TROTH_BIN or build/release/bin); skipped, and says so, when there are none."""

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import unittest

import harness
from harness import troth, until
from thrift.Thrift import TApplicationException
from troth.connection import Connection, NotSent, Unanswered
from troth.wire.values.ttypes import Reason, Refused
from troth_bank import BankBranch
from troth_bank.ttypes import Leg

SECONDS = float(os.environ.get("TROTH_TOGETHER_SECONDS", "8"))
ACCOUNTS = 8


@unittest.skipUnless(harness.find_program("troth-coordinator") and
                     harness.find_program("bank-branch"), "the C++ programs are not built")
class Together(unittest.TestCase):
    tls = False

    def setUp(self):
        self.directory = tempfile.TemporaryDirectory(prefix="troth-together-")
        self.certificates = None
        if self.tls:
            self.certificates = f"{self.directory.name}/certificates"
            harness.make_certificates(self.certificates, "--participant", "python", "--participant",
                                      "cpp")
        self.cluster = harness.private_cluster.Cluster(
            "together", max_prepared_transactions=600).start()
        self.banks = {name: harness.make_bank(self.cluster, name, ACCOUNTS)
                      for name in ("python", "cpp")}
        self.processes = {}
        self.processes["coordinator"] = harness.start_coordinator(
            self.directory.name, **harness.tls_flags(self.certificates, "coordinator"))
        ports = self.processes["coordinator"].ports
        self.ports = {"client_port": ports["client_port"], "peer_port": ports["peer_port"]}
        self.start("python")
        self.start("cpp")
        self.client = self.client_of("teller")
        until(lambda: sum(place.up for place in self.client.resolve()) == 2, 20, "both are up")

    def tearDown(self):
        for process in self.processes.values():
            process.kill()
        self.cluster.stop()
        self.directory.cleanup()

    def client_of(self, name):
        files = None if self.certificates is None else troth.TlsFiles(
            f"{self.certificates}/{name}.pem", f"{self.certificates}/{name}.key",
            f"{self.certificates}/ca.pem")
        return troth.Client([f"127.0.0.1:{self.ports['client_port']}"], tls=files)

    def start(self, name):
        flags = harness.tls_flags(self.certificates, name)
        peer = f"127.0.0.1:{self.ports['peer_port']}"
        if name == "coordinator":
            process = harness.restart_coordinator(self.directory.name, "", **self.ports, **flags)
        elif name == "python":
            process = harness.python_branch(name, self.banks[name], peer, self.directory.name, **flags)
        else:
            process = harness.Process([
                harness.find_program("bank-branch"), "--name", name, "--conninfo",
                self.banks[name], "--coordinators", peer,
                *(f"--{flag}={value}" for flag, value in flags.items())], self.directory.name)
        self.processes[name] = process

    def books(self, name):
        """What each transaction did, by id."""
        rows = self.cluster.psql("SELECT transaction_id, sum(amount) FROM entry GROUP BY 1", name)
        return dict(line.split("|") for line in rows.split())

    def transfer(self, account, last=False, **options):
        transaction = self.client.transaction(4_000, **options)
        try:
            transaction.call("python", BankBranch, "apply", [Leg(account, -1)], "t", last=last)
            transaction.call("cpp", BankBranch, "apply", [Leg(account, +1)], "t", last=last)
        except troth.WorkFailed:
            transaction.abort()
            return transaction.outcome
        return transaction.commit()

    def check(self, outcomes):
        until(lambda: not self.cluster.psql("SELECT gid FROM pg_prepared_xacts").strip(), 45,
              "nothing is left prepared")
        python, cpp = self.books("python"), self.books("cpp")
        self.assertEqual(set(python), set(cpp), "a transaction took effect at one bank only")
        for outcome in outcomes:
            there = outcome.transaction_id in python
            if outcome.kind is troth.Kind.COMMITTED:
                self.assertTrue(there, outcome)
            elif outcome.kind is troth.Kind.ABORTED:
                self.assertFalse(there, outcome)
            else:
                told = self.client.outcome(outcome.transaction_id, 10_000)
                self.assertEqual(told.committed, there, f"{outcome}; now {told}")

    def test_standard_and_early_prepare(self):
        outcomes = [self.transfer(1 + i % ACCOUNTS, last=i % 2 == 1) for i in range(40)]
        self.assertEqual({outcome.kind for outcome in outcomes}, {troth.Kind.COMMITTED})
        self.check(outcomes)

    def test_an_operator_cannot_ask_python(self):
        """That is told: an order ended with "nothing to do", while it held locks."""
        if self.tls:
            self.skipTest("the same over TLS")
        identity = "gone-0123456789ab.1-00000001.1"
        gid = f"troth:python:{identity}"
        self.cluster.psql(f"BEGIN; INSERT INTO entry SELECT * FROM entry; PREPARE TRANSACTION '{gid}'",
                          "python")

        def ctl(*arguments, codes=(1,)):
            done = subprocess.run(
                [harness.find_program("trothctl"), "--coordinator",
                 f"127.0.0.1:{self.processes['coordinator'].ports['admin_port']}", *arguments],
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60, check=False)
            self.assertIn(done.returncode, codes, done.stdout)
            return done.stdout
        said = ctl("resolve", identity, "--abort", "--decision_lost", "--reason", "test", "--yes")
        self.assertIn("nobody knows what is held by python (python is a participant in Python", said)
        self.assertIn("python could not be asked what it holds", ctl("list", "--in_doubt"))
        self.assertRegex(ctl("doctor", codes=(0, 1)),
                         "participant python\n +WARNING +participant: python is a participant in Python")
        self.cluster.psql(f"ROLLBACK PREPARED '{gid}'", "python")

    def test_a_hang_up_ends_nobody(self):
        """It is ignored: files are read when they change."""
        for server in self.processes.values():
            server.process.send_signal(signal.SIGHUP)
        self.assertTrue(self.transfer(1).committed)
        for name, server in self.processes.items():
            self.assertIsNone(server.process.poll(), name)

    def test_read_only_and_mixed(self):
        with self.client.transaction(read_only=True) as tx:
            for name in self.banks:
                tx.call(name, BankBranch, "balances", [1, 2])
        self.assertEqual(tx.outcome.kind, troth.Kind.READ_ONLY)
        with self.client.transaction() as tx:
            tx.call("python", BankBranch, "balances", [1], read_only=True)
            tx.call("cpp", BankBranch, "apply", [Leg(1, 1)], "one")
            tx.call("python", BankBranch, "balances", [2])
        self.assertTrue(tx.outcome.committed)

    def test_refused_at_one_is_done_at_none(self):
        with self.assertRaises(troth.Aborted) as caught:
            with self.client.transaction() as tx:
                tx.call("cpp", BankBranch, "apply", [Leg(1, 5)], "x")
                tx.call("python", BankBranch, "apply", [Leg(1, -10**9)], "x")
        self.assertEqual(caught.exception.outcome.failure.participant, "python")
        self.check([caught.exception.outcome])

    def test_kills(self):
        outcomes, stop = [], threading.Event()

        def load(account):
            while not stop.is_set():
                try:
                    outcomes.append(self.transfer(account))
                except troth.NotAnswered:
                    continue
                if not outcomes[-1].committed:
                    stop.wait(0.02)  # something is down: no need to hurry

        workers = [threading.Thread(target=load, args=(n + 1,)) for n in range(4)]
        for worker in workers:
            worker.start()
        end, kills = time.monotonic() + SECONDS, 0
        while time.monotonic() < end:
            name = ("python", "coordinator", "python", "cpp")[kills % 4]
            committed = sum(outcome.committed for outcome in list(outcomes))
            until(lambda: sum(o.committed for o in list(outcomes)) > committed + 4, 40,
                  f"transfers go on after {kills} kills")
            self.processes[name].kill()
            self.start(name)
            kills += 1
        stop.set()
        for worker in workers:
            worker.join(60)
        kinds = {kind.value: sum(o.kind is kind for o in outcomes) for kind in troth.Kind}
        print(f"together: kills={kills} {kinds}", file=sys.stderr)
        self.assertGreater(kinds["committed"], 10)
        self.check(outcomes)


class TogetherOverTls(Together):
    """The same with certificates; and the Python branch refuses the wrong ones."""

    tls = True

    def test_certificates_of_other_roles_are_refused(self):
        self.assertTrue(self.transfer(1).committed)
        places = {place.participant: place for place in self.client.resolve()}
        for name in self.banks:
            address = (places[name].host, places[name].port)
            for role in ("admin", "coordinator", "cpp" if name == "python" else "python"):
                connection = Connection(address, 5_000, self.client_of(role)._tls)  # pylint: disable=protected-access
                with self.assertRaises(Refused) as caught:
                    connection.call(5_000, lambda protocol: BankBranch.Client(protocol).hello(1))
                self.assertEqual(caught.exception.reason, Reason.FORBIDDEN)
                with self.assertRaises(TApplicationException) as caught:
                    connection.call(5_000, lambda protocol: BankBranch.Client(protocol).accounts(0, 1))
                self.assertIn("forbidden", str(caught.exception))
        plain = Connection(address, 5_000)
        with self.assertRaises((Unanswered, NotSent)):
            plain.call(5_000, lambda protocol: BankBranch.Client(protocol).hello(1))
        with self.assertRaises(troth.NotAnswered) as caught:
            self.client_of("admin").transaction()
        self.assertIn("has not the role client", str(caught.exception))


if __name__ == "__main__":
    harness.private_cluster.stop_on_signals()
    unittest.main()
