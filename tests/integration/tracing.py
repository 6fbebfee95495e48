#!/usr/bin/python3
"""A trace on its way: what an application gives as traceparent is the name of the branch's session
in PostgreSQL, in C++ and in Python, and gone with the branch; what is no traceparent changes
nothing. And what is slow is told, by whom it was slow at: coordinator, participants, client.
TROTH_BIN names the programs. docs/operations.md, "Tracing"."""

import logging
import pathlib
import re
import sys
import tempfile
import threading
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "sdk_python"))

import harness  # noqa: E402
import psycopg2  # noqa: E402
from harness import troth, until  # noqa: E402
from troth.sql import Statement, run_all  # noqa: E402
from troth_bank import BankBranch  # noqa: E402
from troth_bank.ttypes import Leg  # noqa: E402

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
SLEEP = 1.1  # above the default of --slow_ms
SLOW_ROWS = f"""
CREATE TABLE thing (number bigint);
CREATE TABLE late (number bigint);
CREATE FUNCTION dawdle() RETURNS trigger LANGUAGE plpgsql AS
  $$ BEGIN PERFORM pg_sleep({SLEEP}); RETURN NULL; END $$;
CREATE CONSTRAINT TRIGGER dawdle AFTER INSERT ON late DEFERRABLE INITIALLY DEFERRED
  FOR EACH ROW EXECUTE FUNCTION dawdle();
"""


class Tracing(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.directory = tempfile.TemporaryDirectory(prefix="troth-tracing-")
        cls.addClassCleanup(cls.directory.cleanup)
        cls.cluster = harness.private_cluster.Cluster("tracing",
                                                      max_prepared_transactions=600).start()
        cls.addClassCleanup(cls.cluster.stop)
        cls.coordinator = harness.start_coordinator(cls.directory.name)
        cls.addClassCleanup(cls.coordinator.kill)
        peer = f"127.0.0.1:{cls.coordinator.ports['peer_port']}"
        cls.cluster.psql("CREATE DATABASE things")
        cls.cluster.psql(SLOW_ROWS, "things")
        cls.native = harness.Process(
            [harness.find_program("troth-participant"), "--name", "native", "--free_sql",
             "--conninfo", cls.cluster.conninfo("things"), "--coordinators", peer],
            cls.directory.name)
        cls.addClassCleanup(cls.native.kill)
        cls.python = harness.python_branch("python", harness.make_bank(cls.cluster, "python"), peer,
                                           cls.directory.name)
        cls.addClassCleanup(cls.python.kill)
        cls.client = troth.Client([f"127.0.0.1:{cls.coordinator.ports['client_port']}"])
        cls.addClassCleanup(cls.client.close)
        until(lambda: sum(place.up for place in cls.client.resolve()) == 2, 20, "both are up")

    def names(self, database):
        """Names of the sessions of `database` that have a block open, and no statement under way: the
        participant's own looks at it come and go."""
        return self.cluster.psql("SELECT application_name FROM pg_stat_activity WHERE datname = "
                                 f"'{database}' AND state = 'idle in transaction'"
                                 ).strip().split("\n")

    def work(self, tx, *statements):
        return run_all(tx, "native", [Statement(sql=sql) for sql in statements])

    def open_both(self, **options):
        """What the sessions of both branches are called while they are open."""
        tx = self.client.transaction(**options)
        self.work(tx, "INSERT INTO thing VALUES (1)")
        tx.call("python", BankBranch, "apply", [Leg(1, 1)], "")
        seen = self.names("things"), self.names("python")
        self.assertTrue(tx.commit().committed)
        return seen

    def test_a_trace_is_the_name_of_both_sessions_and_leaves_with_them(self):
        untraced = self.open_both()
        self.assertNotIn("4bf92f", str(untraced))
        self.assertEqual(self.open_both(traceparent=TRACE), ([f"troth:{TRACE}"],) * 2)
        # The connections are the same ones, and read-only branches are named too.
        self.assertEqual(self.open_both(), untraced)
        with self.client.transaction(traceparent=TRACE, read_only=True) as tx:
            self.work(tx, "SELECT 1")
            self.assertEqual(self.names("things"), [f"troth:{TRACE}"])

    def test_what_is_no_traceparent_changes_nothing(self):
        untraced = self.open_both()
        for wrong in ("x", "00-x", TRACE.upper(), TRACE[:-1], "'; DROP TABLE thing; --",
                      TRACE[:3] + "'" + TRACE[4:]):
            self.assertEqual(self.open_both(traceparent=wrong), untraced, wrong)

    def told(self, process, pattern):
        return until(lambda: re.search(pattern, process.log()), 5, f"{pattern} in the log").groups()

    def test_slow_work_is_told_by_the_participant_and_the_client(self):
        with self.assertLogs("troth", logging.WARNING) as logs:
            with self.client.transaction(traceparent=TRACE) as tx:
                self.work(tx, f"SELECT pg_sleep({SLEEP})")
        opening, work, ending = map(int, self.told(
            self.native, f"slow work 0 of {tx.id}: [0-9]+ ms: opening ([0-9]+), work ([0-9]+), "
            f"ending ([0-9]+); traceparent {TRACE}"))
        self.assertGreaterEqual(work, 1_000)
        self.assertLess(opening + ending, work)
        line = logs.output[0]
        self.assertRegex(line, f"slow transaction {tx.id}: committed after [0-9]{{4,}} ms")
        self.assertGreaterEqual(int(re.search("work at native ([0-9]+),", line)[1]), 1_000)
        self.assertIn(f"; traceparent {TRACE}", line)

    def test_slow_work_is_told_by_a_participant_in_python(self):
        # It waits for the row that another session holds.
        holder = psycopg2.connect(self.cluster.conninfo("python"))
        holder.cursor().execute("UPDATE account SET balance = balance WHERE number = 2")
        releasing = threading.Timer(SLEEP, holder.close)
        tx = self.client.transaction(traceparent=TRACE)
        releasing.start()
        tx.call("python", BankBranch, "apply", [Leg(2, 1)], "")
        releasing.join()
        self.assertTrue(tx.commit().committed)
        opening, work, ending = map(int, self.told(
            self.python, f"slow work 0 of {tx.id}: [0-9]+ ms: opening ([0-9]+), work ([0-9]+), "
            f"ending ([0-9]+); traceparent {TRACE}"))
        self.assertGreaterEqual(work, 1_000)
        self.assertLess(opening + ending, work)

    def test_a_slow_prepare_is_told_by_the_coordinator(self):
        with self.client.transaction(traceparent=TRACE) as tx:
            self.work(tx, "INSERT INTO late VALUES (1)")  # its trigger dawdles at prepare
            tx.call("python", BankBranch, "apply", [Leg(3, 1)], "")
        prepare, votes = self.told(
            self.coordinator, f"slow transaction {tx.id}: committed after [0-9]+ ms: prepare "
            r"([0-9]+) \(([^)]*)\), log [0-9]+, finish [0-9]+ \([^)]*\), answer [0-9]+; "
            f"traceparent {TRACE}")
        took = dict(vote.split() for vote in votes.split(", "))
        self.assertEqual(sorted(took), ["native", "python"])
        self.assertGreaterEqual(int(prepare), 1_000)
        self.assertGreaterEqual(int(took["native"]), 1_000)
        self.assertLess(int(took["python"]), int(took["native"]))

    def test_a_quick_transaction_is_not_told(self):
        def quick():
            """The id of one, unless the machine took its time."""
            began = time.monotonic()
            with self.client.transaction() as tx:
                self.work(tx, "INSERT INTO thing VALUES (2)")
            return tx.id if time.monotonic() - began < 0.5 else None

        told = f"slow transaction {until(quick, 30, 'a transaction is quick')}"
        self.assertNotIn(told, self.coordinator.log())


if __name__ == "__main__":
    unittest.main()
