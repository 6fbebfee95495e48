#!/usr/bin/python3
"""troth-participant on a real server: values of all kinds there and back, limits, rules of the file,
refusals with their reasons, and what it says to a wrong file. TROTH_BIN names the programs."""

import math
import pathlib
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "sdk_python"))

import harness  # noqa: E402
from harness import troth, until  # noqa: E402
from troth.sql import Statement, run, run_all  # noqa: E402
from troth.wire.sql import SqlParticipant  # noqa: E402
from troth.wire.values.ttypes import Reason  # noqa: E402

STATEMENTS = """
-- name: put
-- Puts one thing.
-- rows: 1
INSERT INTO thing (number, label, weight, good, raw) VALUES ($1, $2, $3, $4, $5)
RETURNING *;

-- name: things
SELECT * FROM thing ORDER BY number;

-- name: one
-- rows: 1
-- message: there is no such thing
SELECT label FROM thing WHERE number = $1;

-- name: grow
UPDATE thing SET number = number + $1;

-- name: big
SELECT repeat('x', 1000) FROM generate_series(1, $1::int);

-- name: huge
SELECT repeat('x', 1000000) FROM generate_series(1, $1::int);

-- name: hundred
-- rows: 100
SELECT * FROM generate_series(1, $1::int);
"""
SCHEMA = """CREATE TABLE thing (number bigint CHECK (number < 1000000), label text,
  weight double precision, good boolean, raw bytea, price numeric(8,2) DEFAULT 12.50,
  small smallint DEFAULT 7, single real DEFAULT 0.5)"""


class SqlParticipantTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.directory = tempfile.TemporaryDirectory(prefix="troth-sql-")
        cls.addClassCleanup(cls.directory.cleanup)
        cls.cluster = harness.private_cluster.Cluster("sql", max_prepared_transactions=300).start()
        cls.addClassCleanup(cls.cluster.stop)
        cls.file = pathlib.Path(cls.directory.name) / "statements.sql"
        cls.file.write_text(STATEMENTS)
        cls.cluster.psql("CREATE DATABASE things")
        cls.cluster.psql(SCHEMA, "things")
        cls.conninfo = cls.cluster.conninfo("things")
        cls.coordinator = harness.start_coordinator(cls.directory.name)
        cls.addClassCleanup(cls.coordinator.kill)
        for name, flags in (("named", ["--statements", cls.file]), ("free", ["--free_sql"])):
            process = cls.participant("--name", name, "--max_rows", 50, *flags)
            cls.addClassCleanup(process.kill)
        cls.client = troth.Client([f"127.0.0.1:{cls.coordinator.ports['client_port']}"])
        cls.addClassCleanup(cls.client.close)
        until(lambda: sum(place.up for place in cls.client.resolve()) == 2, 20, "both are up")

    @classmethod
    def participant(cls, *flags):
        return harness.Process(
            [harness.find_program("troth-participant"), "--conninfo", cls.conninfo, "--coordinators",
             f"127.0.0.1:{cls.coordinator.ports['peer_port']}", *flags], cls.directory.name)

    def setUp(self):
        self.cluster.psql("DELETE FROM thing", "things")

    def refused(self, reason, *statements, at="named", sqlstate=""):
        """The failure of work that must be refused so."""
        tx = self.client.transaction()
        with self.assertRaises(troth.WorkFailed) as caught:
            run_all(tx, at, statements)
        tx.abort()
        failure = caught.exception.failure
        self.assertEqual(failure.reason, reason, failure)
        self.assertEqual(failure.sqlstate, sqlstate, failure)
        return failure

    def test_values_of_all_kinds_there_and_back(self):
        given = (5, "J\u00fcrgen's \u20ac", 2.5, True, b"\x00\xff\\x")
        with self.client.transaction() as tx:
            put = run(tx, "named", "put", *given)
            nothing = run(tx, "named", "put", None, None, None, None, None)
            text = run(tx, "named", "put", "6", "", math.inf, "no", "\\x00")
        self.assertEqual(put.columns, ("number", "label", "weight", "good", "raw", "price", "small",
                                       "single"))
        self.assertEqual(put.rows, [(*given, "12.50", 7, 0.5)])
        self.assertEqual(put.affected, 1)
        self.assertEqual(nothing.rows[0][:5], (None,) * 5)
        self.assertEqual(text.rows[0][:5], (6, "", math.inf, False, b"\x00"))
        self.assertEqual(self.cluster.psql("SELECT count(*) FROM thing", "things").strip(), "3")

    def test_what_is_aborted_is_not_there(self):
        tx = self.client.transaction()
        run(tx, "named", "put", 1, "a", 1.0, True, b"")
        tx.abort()
        self.assertEqual(self.cluster.psql("SELECT count(*) FROM thing", "things").strip(), "0")

    def test_rows_are_limited(self):
        self.cluster.psql("INSERT INTO thing SELECT n FROM generate_series(1, 60) n", "things")
        with self.client.transaction(read_only=True) as tx:
            all_, five, none = run_all(tx, "named", [
                Statement("things"), Statement("things", max_rows=5),
                Statement("things", max_rows=0)])
        self.assertEqual((len(all_.rows), all_.more, all_.affected), (50, True, 50))
        self.assertEqual(([row[0] for row in five.rows], five.more), ([1, 2, 3, 4, 5], True))
        self.assertEqual((none.rows, none.more), ([], True))
        with self.client.transaction() as tx:
            grown = run(tx, "named", "grow", 100)
        self.assertEqual((grown.affected, grown.rows, grown.more), (60, [], False))

    def test_a_reply_that_fits_no_frame_is_refused(self):
        process = self.participant("--name", "wide", "--statements", self.file, "--max_rows", 2000)
        self.addCleanup(process.kill)
        until(lambda: any(p.participant == "wide" and p.up for p in self.client.resolve()), 20, "up")
        with self.client.transaction() as tx:
            self.assertEqual(len(run(tx, "wide", "big", 800).rows), 800)
        self.assertIn("max_rows", self.refused(
            Reason.INVALID, Statement("big", (1000,)), at="wide").message)

    def test_rows_too_wide_for_a_reply_do_not_fill_the_memory(self):
        """Once all of max_rows were fetched first, whatever they bore: here 400 MB."""
        process = self.participant("--name", "huge", "--statements", self.file, "--max_rows", 2000)
        self.addCleanup(process.kill)
        until(lambda: any(p.participant == "huge" and p.up for p in self.client.resolve()), 20, "up")
        self.refused(Reason.INVALID, Statement("huge", (400,)), at="huge")
        status = pathlib.Path(f"/proc/{process.process.pid}/status").read_text()
        self.assertLess(int(status.split("VmHWM:")[1].split()[0]), 150_000, "kB at most, ever")

    def test_all_rows_count_also_those_that_do_not_come_back(self):
        with self.client.transaction() as tx:
            for most in (0, 9, 10, 11, 49, 50, 51, 100):
                (told,) = run_all(tx, "named", [Statement("hundred", (100,), max_rows=most)])
                self.assertEqual([row[0] for row in told.rows], [*range(1, min(most, 50) + 1)])
                self.assertTrue(told.more)
                self.assertEqual(told.columns, ("generate_series",))
        for count in (99, 101):
            self.refused(Reason.APPLICATION, Statement("hundred", (count,)))

    def test_rules_of_the_file(self):
        self.assertEqual(self.refused(Reason.APPLICATION, Statement("one", (9,))).message,
                         "there is no such thing")
        with self.client.transaction() as tx:
            run(tx, "named", "put", 9, "nine", 1.0, True, b"")
            self.assertEqual(run(tx, "named", "one", 9).rows, [("nine",)])

    def test_wrong_requests_change_nothing(self):
        for statement, word in ((Statement("nothing"), "no statement 'nothing'"),
                                (Statement("put", (1,)), "takes 5 parameters, not 1"),
                                (Statement(sql="SELECT 1"), "takes no SQL"),
                                (Statement("one", (1,), sql="SELECT 1"), "either a name or SQL"),
                                (Statement("one", ("1\0",)), "byte of zero"),
                                (Statement("one", (1,), max_rows=-1), "negative")):
            self.assertIn(word, self.refused(Reason.INVALID, statement).message)
        self.refused(Reason.INVALID)
        self.refused(Reason.INVALID, *[Statement("grow", (0,))] * 101)

    def test_what_the_database_refuses_says_why(self):
        self.refused(Reason.DATABASE, Statement("put", (2000000, None, None, None, None)),
                     sqlstate="23514")
        self.refused(Reason.DATABASE, Statement("one", ("x",)), sqlstate="22P02")

    def test_free_sql_where_it_is_allowed(self):
        with self.client.transaction() as tx:
            made, told, gone = run_all(tx, "free", [
                Statement(sql="INSERT INTO thing (number) VALUES ($1), ($2) RETURNING number",
                          parameters=(1, 2)),
                Statement(sql="SELECT count(*), $1::text FROM thing", parameters=("x",)),
                Statement(sql="DELETE FROM thing")])
        self.assertEqual((made.rows, told.rows, gone.affected), ([(1,), (2,)], [(2, "x")], 2))
        for sql in ("COMMIT", "/* */ rollback", "PREPARE TRANSACTION 'x'", "COPY thing TO STDOUT"):
            self.refused(Reason.INVALID, Statement(sql=sql), at="free")
        self.refused(Reason.DATABASE, Statement(sql="SELECT 1; COMMIT"), at="free", sqlstate="42601")
        self.refused(Reason.DATABASE, Statement(sql="SELECT 1/0"), at="free", sqlstate="22012")

    def test_it_tells_its_statements(self):
        known = {one.name: one for one in self.client.call("named", SqlParticipant, "statements")}
        self.assertEqual(sorted(known), ["big", "grow", "huge", "hundred", "one", "put", "things"])
        self.assertEqual(known["put"].parameter_types,
                         ["bigint", "text", "double precision", "boolean", "bytea"])
        self.assertEqual(known["put"].description, "Puts one thing.")
        self.assertEqual(known["one"].columns, ["label"])

    def test_wrong_files_are_found_at_the_start(self):
        program = str(harness.find_program("troth-participant"))
        wrong = pathlib.Path(self.directory.name) / "wrong.sql"
        for text, word in (("-- name: a\nSELECT nothing FROM nowhere", "statement 'a'"),
                           ("-- name: a\nSELECT 1; SELECT 2", "statement 'a'"),
                           ("SELECT 1", "line 1")):
            wrong.write_text(text)
            done = subprocess.run([program, "--name", "x", "--conninfo", self.conninfo,
                                   "--statements", str(wrong)], capture_output=True, text=True,
                                  check=False, timeout=20)
            self.assertEqual(done.returncode, 1)
            self.assertIn(word, done.stderr)
        done = subprocess.run([program, "--conninfo", self.conninfo, "--statements", str(self.file),
                               "--check"], capture_output=True, text=True, check=False, timeout=20)
        self.assertEqual((done.returncode, done.stdout.splitlines()[4]),
                         (0, "one(bigint) -> label"))
        done = subprocess.run([program, "--name", "x", "--conninfo", self.conninfo],
                              capture_output=True, text=True, check=False, timeout=20)
        self.assertEqual(done.returncode, 2)


if __name__ == "__main__":
    unittest.main()
