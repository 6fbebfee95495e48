#!/usr/bin/python3
"""What bad input gets, on a real bank: two PostgreSQL servers, coordinator, two branches.

Each case: an error that names the thing, a non-zero exit, and nothing half done: afterwards both
ledgers agree, nothing is prepared, and a good transfer goes through (checked after every case).

    bank_bad_input.py --bin build/release/bin [unittest's arguments]
"""

import contextlib
import os
import pathlib
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import unittest

import psycopg2

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "examples" / "bank"))
import prologue  # noqa: E402  pylint: disable=wrong-import-position
from stuck_bank import StuckBank  # noqa: E402  pylint: disable=wrong-import-position
import transfer  # noqa: E402  pylint: disable=wrong-import-position

BIN = None
OK, ABORTED, WRONG, UNKNOWN, UNREACHABLE = range(5)
ID = r"bank-[0-9a-f]{12}\.[0-9]+-[0-9a-f]{8}\.[0-9]+"


class BankTest(unittest.TestCase):
    """One bank for all cases; a case leaves it as it found it."""

    @classmethod
    def setUpClass(cls):
        stuck = StuckBank(BIN)
        cls.bank = stuck.bank
        cls.addClassCleanup(stuck.stop)
        stuck.start()

    def tearDown(self):
        """Nothing half done, and the bank goes on."""
        for process in (self.bank.coordinator, *self.bank.branches.values()):
            self.assertTrue(process.running(), f"{process.name} has died: {process.tail()}")
        code, out, err = self.run_bank("transfer", "east/40=-1", "west/40=1")
        self.assertEqual(code, OK, out + err)
        code, out, err = self.run_bank("audit", "--settle_ms", "8000")
        self.assertEqual(code, OK, out + err)
        self.assertIn("money=conserved", out)

    # A small language.

    def run_bank(self, *arguments, timeout=30):
        """Exit code, stdout, stderr of `bank`."""
        done = subprocess.run(self.bank.client(*arguments), stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True, timeout=timeout, check=False)
        return done.returncode, done.stdout, done.stderr

    def refuse(self, code, pattern, *arguments):
        """`bank` ends with this code, and its error says this; the balances are as before."""
        before = self.balances()
        got, out, err = self.run_bank(*arguments)
        self.assertEqual(got, code, out + err)
        self.assertRegex(err, pattern)
        self.assertEqual(self.balances(), before)
        return err

    def balances(self):
        """Of all accounts, as the databases have them."""
        return {name: self.bank.sql(name, "SELECT number, balance FROM account ORDER BY number")
                for name in self.bank.names}

    def move(self, amount=5, **flags):
        """A transfer from east/17 to west/9."""
        more = [f"--{key}={value}" for key, value in flags.items()]
        return ["transfer", "--from", "east/17", "--to", "west/9", "--amount", str(amount), *more]

    def coordinator(self):
        """A generated client of the coordinator."""
        port = self.bank.coordinator.ports["client_port"]
        return transfer.connect_coordinator(f"127.0.0.1:{port}", 10)

    def lease(self, coordinator):
        """A fresh transaction id."""
        lease = coordinator.lease(1)
        return f"{lease.prefix}{lease.first}"

    def branch(self, name):
        """A generated client of a branch."""
        from troth_bank import BankBranch
        client = transfer.call_service(BankBranch.Client, "127.0.0.1",
                                       self.bank.branches[name].ports["port"], 10)
        client.hello(1)
        return client

    def work(self, branch, transaction_id, account, amount, number=0, mark=None):
        """One piece of work; returns its troth.Branch."""
        from troth.wire.values.ttypes import Context
        from troth_bank.ttypes import Leg
        context = Context(transaction_id=transaction_id, work=number, deadline_ms=5000, mark=mark)
        return branch.apply(context, [Leg(account=account, amount=amount)], "test").branch

    def claim(self, done):
        """A branch as it is named in commit."""
        from troth.wire.coordinator.ttypes import BranchClaim
        return BranchClaim(participant=done.participant, mark=done.mark, works=done.works,
                           instance=done.instance)

    def commit(self, coordinator, transaction_id, claims):
        """Asks to commit; returns the outcome."""
        from troth.wire.coordinator.ttypes import CommitRequest, Wait
        return coordinator.commit(CommitRequest(transaction_id=transaction_id, branches=claims,
                                                deadline_ms=5000, wait=Wait.APPLIED))

    def refused(self, reason, call, *arguments):
        """The call is refused for this reason (its name)."""
        from troth.wire.values.ttypes import Reason, Refused
        with self.assertRaises(Refused) as caught:
            call(*arguments)
        self.assertEqual(Reason._VALUES_TO_NAMES[caught.exception.reason], reason,
                         caught.exception.message)
        return caught.exception.message

    def entries(self, transaction_id):
        """How many entries the transaction has, in both ledgers."""
        return sum(self.bank.sql(n, f"SELECT count(*) FROM entry WHERE transaction_id = "
                                    f"'{transaction_id}'")[0][0] for n in self.bank.names)

    def outcome_kind(self, coordinator, transaction_id):
        """What the coordinator tells of it, by name. A restarted one may say PENDING until every
        participant has spoken, 10 s at most."""
        from troth.wire.coordinator.ttypes import OutcomeKind
        end = time.monotonic() + 12
        while True:
            kind = coordinator.outcome(transaction_id, 1000).kind
            if kind != OutcomeKind.PENDING or time.monotonic() > end:
                return OutcomeKind._VALUES_TO_NAMES[kind]
            time.sleep(0.05)

    # What a customer types.

    def test_asked_wrongly(self):
        """Each is told what is wrong, and nothing is tried."""
        ends = ["--from", "east/17", "--to", "west/9"]
        for pattern, arguments in [
                ("amount 0", [*ends, "--amount", "0"]),
                ("negative", [*ends, "--amount", "-5"]),
                ("'five' is no whole number", [*ends, "--amount", "five"]),
                ("'5.5' is no whole number", [*ends, "--amount", "5.5"]),
                ("too large", [*ends, "--amount", "9" * 30]),
                ("same account, east/17", ["--from", "east/17", "--to", "east/17", "--amount", "5"]),
                ("east/17 stands in the transfer twice", ["east/17=-5", "east/17=5"]),
                ("'east17' is no account", ["--from", "east17", "--to", "west/9", "--amount", "5"]),
                ("add up to 1", ["east/17=-5", "west/9=6"]),
                ("unknown flag", [*ends, "--amount", "5", "--amuont", "5"])]:
            with self.subTest(pattern):
                self.refuse(WRONG, pattern, "transfer", *arguments)

    def test_unknown_account(self):
        """Aborted everywhere, also where the account exists."""
        self.refuse(ABORTED, f"aborted {ID}: .*no account west/999",
                    "transfer", "--from", "east/17", "--to", "west/999", "--amount", "5")

    def test_insufficient_funds(self):
        """Whichever side refuses."""
        self.refuse(ABORTED, f"aborted {ID}: .*insufficient funds: account east/17",
                    *self.move(1_000_000))
        self.refuse(ABORTED, "insufficient funds: account west/9", "transfer", "--from", "west/9",
                    "--to", "east/17", "--amount", "1000000")
        self.refuse(ABORTED, "insufficient funds", *self.move(1_000_000, early=True))

    def test_unknown_bank(self):
        """Named in the error; the bank that exists is released."""
        self.refuse(ABORTED, "no participant.* 'nowhere'",
                    "transfer", "--from", "east/17", "--to", "nowhere/9", "--amount", "5")

    def test_business_key_twice(self):
        """A second transfer with a key changes nothing, and tells what became of the first."""
        code, first, _ = self.run_bank(*self.move(key="order-1"))
        self.assertEqual(code, OK)
        before = self.balances()
        code, again, err = self.run_bank(*self.move(key="order-1"))
        self.assertEqual((code, again), (OK, first), err)
        self.assertRegex(err, rf"'order-1' belongs to transaction {ID}")
        self.assertEqual(self.balances(), before)
        self.assertEqual(self.run_bank("outcome", "--key", "order-1")[:2], (OK, first))

    def test_dead_addresses_make_way(self):
        """A participant whose earlier processes could not be reached is, at its next address."""
        from troth.wire.coordinator import CoordinatorPeer
        from troth.wire.coordinator.ttypes import Enrolment
        from troth.wire.participant import ParticipantPeer
        from troth.wire.values.ttypes import Sender
        west = self.bank.branches["west"]
        peer = transfer.call_service(ParticipantPeer.Client, "127.0.0.1", west.ports["peer_port"], 5)
        hello = peer.hello(1, Sender("nobody-000000000000", 1, 1, 0))
        west.kill()
        west.ports.pop("peer_port")  # it comes back at another
        try:
            enroll = transfer.call_service(
                CoordinatorPeer.Client, "127.0.0.1",
                self.bank.coordinator.ports["peer_port"], 5).enroll
            for number in range(70):
                enroll(Enrolment(1, "west", f"dead-{number}", hello.system_identifier,
                                 hello.database_oid, hello.database_address, "127.0.1.1", 1,
                                 peer_port=20_000 + number))
        finally:
            west.start()
        code, out, err = self.run_bank(*self.move())
        self.assertEqual(code, OK, out + err)

    def test_longest_deadline(self):
        """As long as a lease, whatever the time between its grant and the reply."""
        coordinator = self.coordinator()
        self.assertEqual({coordinator.lease(1).ends_in_ms for _ in range(3000)}, {30_000})
        code, out, err = self.run_bank(*self.move(deadline_ms=30_000))
        self.assertEqual(code, OK, out + err)
        self.refuse(WRONG, "longer than the coordinator's leases", *self.move(deadline_ms=30_500))

    def test_outcome_asked_for(self):
        """Its exit code says what became of the transaction; what cannot be told is unknown."""
        refused = self.refuse(ABORTED, "insufficient funds", *self.move(1_000_000))
        transaction_id = re.search(ID, refused)[0]
        self.refuse(ABORTED, rf"aborted {transaction_id}", "outcome", transaction_id)
        self.refuse(UNKNOWN, "other-0123456789ab", "outcome", "other-0123456789ab.1-00000001.1")
        self.refuse(UNKNOWN, "pending.*\n.*bank outcome --key 'nobody'", "outcome", "--key", "nobody")
        self.refuse(WRONG, "not a transaction id", "outcome", "nonsense")
        self.refuse(WRONG, "outcome of which", "outcome")
        self.refuse(WRONG, "outcome of which", "outcome", transaction_id, "--key", "nobody")
        self.bank.coordinator.kill()
        try:
            self.refuse(UNKNOWN, "no connection", "outcome", transaction_id, "--deadline_ms=1200")
        finally:
            self.bank.coordinator.start()

    def test_transfer_py(self):
        """The same without the library."""
        port = self.bank.coordinator.ports["client_port"]
        for amount, code, word in (("5", OK, "committed"), ("1000000", ABORTED, "insufficient")):
            done = subprocess.run([str(ROOT / "examples/bank/transfer.py"), "--from", "east/17",
                                   "--to", "west/9", "--amount", amount, "--coordinator",
                                   f"127.0.0.1:{port}"], stdout=subprocess.PIPE,
                                  stderr=subprocess.STDOUT, text=True, check=False)
            self.assertEqual(done.returncode, code, done.stdout)
            self.assertIn(word, done.stdout)

    # Processes that are away.

    def test_participant_down(self):
        """Aborted within the deadline; the other bank's rows are free at once."""
        west = self.bank.branches["west"]
        west.kill()
        try:
            # The words are those of the last attempt, which may have too little time left to come as
            # far as west; were east's row not free, none but the first would.
            for _ in range(5):
                began = time.monotonic()
                said = self.refuse(ABORTED, f"aborted {ID}", *self.move(deadline_ms=2000))
                self.assertLess(time.monotonic() - began, 5)
                if re.search("west.*cannot be reached", said):
                    break
            else:
                self.fail(said)
            # One attempt, with a deadline that comes too late to free the row.
            port = self.bank.coordinator.ports["client_port"]
            code, said = transfer.transfer(f"127.0.0.1:{port}", ("east", 17), ("west", 9), 5, 25)
            self.assertEqual(code, ABORTED, said)
            self.await_sql("east", "SELECT 1 FROM account WHERE number = 17 FOR UPDATE SKIP LOCKED")
        finally:
            west.start()

    def test_participant_stopped(self):
        """One that neither works nor dies holds nobody longer than the deadline."""
        west = self.bank.branches["west"]
        west.signal(signal.SIGSTOP)
        try:
            began = time.monotonic()
            self.refuse(ABORTED, "west", *self.move(deadline_ms=1500))
            self.assertLess(time.monotonic() - began, 6)
        finally:
            west.signal(signal.SIGCONT)

    def test_coordinator_down(self):
        """Nothing is begun, and that is said."""
        self.bank.coordinator.kill()
        try:
            self.refuse(UNREACHABLE, "nothing was begun", *self.move(deadline_ms=700))
        finally:
            self.bank.coordinator.start()

    def test_coordinator_lost_before_commit(self):
        """The work is done, the commit is sent to one that is silent: unknown, with the id to ask
        about; or finds nobody to be sent to: aborted."""
        with self.subTest("silent"):
            code, err = self.lose_before_commit(
                signal.SIGSTOP, lambda: self.bank.coordinator.signal(signal.SIGCONT))
            self.assertEqual(code, UNKNOWN, err)
            self.assertRegex(err, rf"unknown {ID}.*\n.*bank outcome {ID}")
            transaction_id = re.search(ID, err)[0]
            kind = self.outcome_kind(self.coordinator(), transaction_id)
            self.assertIn(kind, ("ABORTED", "COMMITTED"))
            self.assertEqual(self.entries(transaction_id), 2 if kind == "COMMITTED" else 0)
        with self.subTest("gone"):
            code, err = self.lose_before_commit(signal.SIGKILL, self.bank.coordinator.start)
            self.assertEqual(code, ABORTED, err)
            transaction_id = re.search(ID, err)[0]
            self.assertEqual(self.outcome_kind(self.coordinator(), transaction_id), "ABORTED")
            self.assertEqual(self.entries(transaction_id), 0)

    def lose_before_commit(self, number, back):
        """Holds the row that the transfer's last work needs until the coordinator is gone. How the
        transfer ended, and what it said."""
        holder = psycopg2.connect(self.bank.clusters["west"].conninfo("bank"))
        with contextlib.closing(holder):
            holder.cursor().execute("SELECT 1 FROM account WHERE number = 9 FOR UPDATE")
            command = subprocess.Popen(self.bank.client(*self.move(deadline_ms=3000)),
                                       stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            self.await_sql("west", "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
            self.bank.coordinator.signal(number)
            if number == signal.SIGKILL:
                self.bank.coordinator.kill()
            holder.rollback()
        try:
            _, err = command.communicate(timeout=20)
        finally:
            back()
        return command.returncode, err

    def await_sql(self, name, query):
        """Until the query gives a row."""
        end = time.monotonic() + 10
        while not self.bank.sql(name, query):
            self.assertLess(time.monotonic(), end, query)
            time.sleep(0.01)

    def test_database_connection_lost_in_a_branch(self):
        """The second piece of work must not run on a new connection in autocommit."""
        coordinator, east = self.coordinator(), self.branch("east")
        transaction_id = self.lease(coordinator)
        done = self.work(east, transaction_id, 20, -5)
        self.assertEqual(self.bank.sql(
            "east", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE state = 'idle in transaction'"), [(True,)])
        self.await_sql("east", "SELECT 1 WHERE NOT EXISTS (SELECT 1 FROM pg_stat_activity "
                               "WHERE state = 'idle in transaction')")
        from troth.wire.values.ttypes import Refused
        with self.assertRaises(Refused):
            self.work(east, transaction_id, 21, 5, number=1, mark=done.mark)
        outcome = self.commit(coordinator, transaction_id, [self.claim(done)])
        self.assertEqual(self.outcome_kind(coordinator, transaction_id), "ABORTED", outcome)
        self.assertEqual(self.entries(transaction_id), 0)

    # Clients that do not keep to the contract.

    def test_commit_twice(self):
        """The same answer; with another list refused, and nothing changed."""
        coordinator, east, west = self.coordinator(), self.branch("east"), self.branch("west")
        transaction_id = self.lease(coordinator)
        claims = [self.claim(self.work(east, transaction_id, 20, -5)),
                  self.claim(self.work(west, transaction_id, 20, 5))]
        first = self.commit(coordinator, transaction_id, claims)
        again = self.commit(coordinator, transaction_id, claims)
        self.assertEqual((first.kind, first.transaction_id), (again.kind, again.transaction_id))
        self.refused("OTHER_PARTICIPANTS", self.commit, coordinator, transaction_id, claims[:1])
        self.assertEqual(self.outcome_kind(coordinator, transaction_id), "COMMITTED")
        self.assertEqual(self.entries(transaction_id), 2)

    def test_numbers_at_the_end_of_their_range(self):
        """Nothing is computed beyond 64 bits."""
        from troth.wire.values.ttypes import Context
        coordinator, east = self.coordinator(), self.branch("east")
        context = Context(transaction_id=self.lease(coordinator), work=0, deadline_ms=5000)
        self.refused("INVALID", east.open, context, 2**63 - 1, 2, 0)
        self.refused("INVALID", self.work, east, self.lease(coordinator), 20, -2**63)

    def test_commit_of_an_id_never_leased(self):
        """Refused; so is one of another coordinator."""
        from troth.wire.coordinator.ttypes import AbortRequest
        coordinator = self.coordinator()
        transaction_id = self.lease(coordinator)
        done = self.work(self.branch("east"), transaction_id, 20, -5)
        prefix = self.lease(coordinator).rpartition(".")[0]
        self.refused("NOT_LEASED", self.commit, coordinator, f"{prefix}.99999999",
                     [self.claim(done)])
        self.refused("NOT_MINE", self.commit, coordinator,
                     "bank-000000000000.1-00000001.5", [self.claim(done)])
        coordinator.abort(AbortRequest(transaction_id=transaction_id, branches=[self.claim(done)]))
        self.await_sql("east", "SELECT 1 FROM account WHERE number = 20 FOR UPDATE SKIP LOCKED")

    def test_lost_first_half(self):
        """Work 1 without work 0, another mark, another total: half a branch never commits."""
        coordinator, east = self.coordinator(), self.branch("east")
        transaction_id = self.lease(coordinator)
        self.refused("NO_SUCH_BRANCH", self.work, east, transaction_id, 20, -5, 1, "0" * 16)
        transaction_id = self.lease(coordinator)
        done = self.work(east, transaction_id, 20, -5)
        self.refused("OUT_OF_NUMBER", self.work, east, transaction_id, 21, -5, 2, done.mark)
        self.refused("OUT_OF_NUMBER", self.work, east, transaction_id, 21, -5, 1, "0" * 16)
        done.works = 2
        self.commit(coordinator, transaction_id, [self.claim(done)])
        self.assertEqual(self.outcome_kind(coordinator, transaction_id), "ABORTED")
        self.assertEqual(self.entries(transaction_id), 0)

    def test_work_after_abort(self):
        """An abort binds, at the participant too."""
        from troth.wire.coordinator.ttypes import AbortRequest
        coordinator, east = self.coordinator(), self.branch("east")
        transaction_id = self.lease(coordinator)
        done = self.work(east, transaction_id, 20, -5)
        coordinator.abort(AbortRequest(transaction_id=transaction_id, branches=[self.claim(done)]))
        self.await_sql("east", "SELECT 1 FROM account WHERE number = 20 FOR UPDATE SKIP LOCKED")
        self.refused("ENDED", self.work, east, transaction_id, 21, 5, 1, done.mark)
        self.refused("ENDED", self.work, east, transaction_id, 21, 5)
        self.commit(coordinator, transaction_id, [self.claim(done)])
        self.assertEqual(self.outcome_kind(coordinator, transaction_id), "ABORTED")
        self.assertEqual(self.entries(transaction_id), 0)

    def test_garbage_on_every_port(self):
        """The connection is closed, memory stays flat, others are served."""
        processes = [self.bank.coordinator, *self.bank.branches.values()]
        before = {p.name: self.resident_kib(p.pid) for p in processes}
        frames = {"garbage": os.urandom(4096), "http": b"GET / HTTP/1.0\r\n\r\n",
                  "huge frame": struct.pack(">i", 2**31 - 1) + b"x" * 65536,
                  "above 1 MiB": struct.pack(">i", 2**20 + 1) + b"x" * (2**20 + 1),
                  "negative": struct.pack(">i", -5) + b"x" * 64,
                  "empty": struct.pack(">i", 0),
                  "garbage in a frame": struct.pack(">i", 64) + os.urandom(64)}
        for process in processes:
            for port in process.ports.values():
                for name, data in frames.items():
                    with self.subTest(process=process.name, port=port, sent=name):
                        self.assert_closed(port, data)
        for process in processes:
            grown = self.resident_kib(process.pid) - before[process.name]
            self.assertLess(grown, 16 * 1024, f"{process.name} grew by {grown} KiB")

    def assert_closed(self, port, data):
        """Sent `data`, the server ends the connection (and may answer an exception first)."""
        with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
            try:
                connection.sendall(data)
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(4096):
                    pass
            except TimeoutError:
                raise
            except OSError:
                pass  # closed, reset, or no longer connected: all the same

    @staticmethod
    def resident_kib(pid):
        """Resident memory."""
        text = pathlib.Path(f"/proc/{pid}/status").read_text(encoding="ascii")
        return int(re.search(r"VmRSS:\s+(\d+)", text)[1])

    # Processes started wrongly.

    def start_wrongly(self, code, pattern, *command):
        """The program ends by itself, with this code, saying this."""
        done = subprocess.run([str(c) for c in command], stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, timeout=20, check=False)
        self.assertEqual(done.returncode, code, done.stdout)
        self.assertRegex(done.stdout, pattern)

    def test_told_to_stop(self):
        """A branch says good-bye: the signal finds no thread that would die of it."""
        branch = self.bank.branches["east"]
        self.assertEqual(branch.stop(), 0)
        branch.start()

    def test_port_taken(self):
        """Of a coordinator, of a branch."""
        taken = self.bank.coordinator.ports["client_port"]
        with tempfile.TemporaryDirectory() as wal:
            program = self.bank.bin / "troth-coordinator"
            subprocess.run([program, "--init", "--wal_dir", wal], check=True,
                           stdout=subprocess.DEVNULL)
            self.start_wrongly(1, rf"\b{taken}\b", program, "--wal_dir", wal, "--client_port",
                               taken, "--peer_port", 0, "--admin_port", 0)
        self.start_wrongly(1, rf"\b{taken}\b", self.bank.bin / "bank-branch", "--name", "east",
                           "--conninfo", self.bank.clusters["east"].conninfo("bank"), "--port",
                           taken)

    def test_log_held_by_another(self):
        """Two coordinators never write one log; the error names the holder."""
        self.start_wrongly(1, rf"\b{self.bank.coordinator.pid}\b", self.bank.bin / "troth-coordinator",
                           "--wal_dir", self.bank.dir / "wal", "--client_port", 0, "--peer_port", 0,
                           "--admin_port", 0)

    def test_log_directory_wrong(self):
        """Missing, empty (an unmounted volume looks so), or full of something else."""
        program = self.bank.bin / "troth-coordinator"
        with tempfile.TemporaryDirectory() as wal:
            self.start_wrongly(1, re.escape(wal), program, "--wal_dir", wal)
            self.start_wrongly(1, "nowhere", program, "--wal_dir", f"{wal}/nowhere")
            (pathlib.Path(wal) / "diary").write_text("x")
            self.start_wrongly(1, re.escape(wal), program, "--init", "--wal_dir", wal)
        self.start_wrongly(1, re.escape(str(self.bank.dir / "wal")), program, "--init", "--wal_dir",
                           self.bank.dir / "wal")

    def test_branch_started_wrongly(self):
        """Flags missing or unknown; a database that is away."""
        program = self.bank.bin / "bank-branch"
        self.start_wrongly(2, "--conninfo is required", program, "--name", "south")
        self.start_wrongly(2, "--name is required", program, "--conninfo", "x=y")
        self.start_wrongly(2, "unknown flag --nmae", program, "--nmae", "south")
        self.start_wrongly(1, "127.0.0.1", program, "--name", "south", "--conninfo",
                           "host=127.0.0.1 port=1 dbname=bank")

    def test_help(self):
        """Every program answers --help, and exits 0."""
        for name in ("troth-coordinator", "bank-branch", "bank"):
            self.start_wrongly(0, "--help", self.bank.bin / name, "--help")

    # Logs that are not the one they should be.

    def with_another_log(self, prepare, check):
        """Runs `check` with the coordinator on a log that `prepare(directory)` replaced; then
        the true one is back."""
        wal, kept = self.bank.dir / "wal", self.bank.dir / "wal.kept"
        self.bank.coordinator.kill()
        shutil.copytree(wal, kept)
        try:
            prepare(wal)
            self.bank.coordinator.start()
            check()
        finally:
            self.bank.coordinator.kill()
            shutil.rmtree(wal)
            kept.rename(wal)
            self.bank.coordinator.start()

    def test_log_made_anew(self):
        """Another log under the old name says *not mine*, never *aborted*."""
        code, out, _ = self.run_bank(*self.move())
        self.assertEqual(code, OK)
        transaction_id = re.search(ID, out)[0]

        def make_anew(wal):
            shutil.rmtree(wal)
            wal.mkdir()
            subprocess.run([str(self.bank.bin / "troth-coordinator"), "--init", "--wal_dir",
                            str(wal), "--name", "bank"], check=True, stdout=subprocess.DEVNULL)

        def check():
            self.refused("NOT_MINE", self.coordinator().outcome, transaction_id, 0)
        self.with_another_log(make_anew, check)
        self.assertEqual(self.outcome_kind(self.coordinator(), transaction_id), "COMMITTED")

    def test_log_restored_from_a_copy(self):
        """Refuses to serve, says why; with the true log back it serves again."""
        old = self.bank.dir / "wal.old"
        self.bank.coordinator.kill()
        shutil.copytree(self.bank.dir / "wal", old)
        self.bank.coordinator.start()
        transaction_id = None
        for _ in range(20):
            code, out, err = self.run_bank(*self.move(1))
            self.assertEqual(code, OK, err)
            transaction_id = re.search(ID, out)[0]
        time.sleep(1.2)  # participants write down what they saw of a coordinator once a second

        def restore(wal):
            shutil.rmtree(wal)
            shutil.copytree(old, wal)

        def check():
            # It may serve until the first participant has told it: no guess about the last ids.
            end = time.monotonic() + 15
            while True:
                code, _, err = self.run_bank(*self.move(1, deadline_ms=1000))
                if code != OK and re.search("log", err):
                    break
                self.assertLess(time.monotonic(), end, "the coordinator serves on an old log: " + err)
            from troth.wire.coordinator.ttypes import OutcomeKind
            from troth.wire.values.ttypes import Refused
            try:
                kind = self.coordinator().outcome(transaction_id, 0).kind
                self.assertNotIn(kind, (OutcomeKind.ABORTED, OutcomeKind.COMMITTED))
            except Refused:
                pass
        self.with_another_log(restore, check)
        shutil.rmtree(old)
        self.assertEqual(self.outcome_kind(self.coordinator(), transaction_id), "COMMITTED")


if __name__ == "__main__":
    prologue.main(globals())
