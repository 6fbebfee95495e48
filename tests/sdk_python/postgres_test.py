#!/usr/bin/python3
"""The Python participant's edge to PostgreSQL, trap by trap, on a private cluster: what application
code can do to its block, what PREPARE can answer, what a pooled connection remembers."""

import collections
import contextlib
import datetime
import os
import signal
import threading
import time
import unittest
from unittest import mock

import psycopg2

import harness
from harness import troth, until
from troth.participant.branch_table import BranchTable
from troth.participant.connections import BranchCursor, DatabaseConnector
from troth.participant.evidence import parse_lsn
from troth.participant.postgres import PostgresResourceManager
from troth.participant.values import (
    BeginOptions, Evidence, FinishKind, FinishOrder, FinishRequest, Isolation, LogPoint,
    PrepareKind, Refusal, Refused, SeenCoordinator, Unavailable, WorkRequest)

SEEN = SeenCoordinator("c-0123456789ab", 1, 2, 3)


class Deaf(list):
    """Keeps nothing."""

    def append(self, _):
        pass


# An application's own operators, functions and types under PostgreSQL's names: each raises.
ANGRY = """
CREATE SCHEMA angry;
DO $do$ DECLARE one record; BEGIN
 FOR one IN SELECT proname, pg_get_function_identity_arguments(p.oid) AS arguments,
  prorettype::regtype AS result FROM pg_proc p
  WHERE pronamespace = 'pg_catalog'::regnamespace AND prokind = 'f' AND NOT proretset
  AND provariadic = 0 AND NOT EXISTS (SELECT FROM pg_type t
   WHERE t.oid = ANY (proargtypes::oid[] || prorettype) AND typtype = 'p')
 LOOP EXECUTE format('CREATE FUNCTION angry.%I(%s) RETURNS %s LANGUAGE plpgsql AS '
  '$$BEGIN RAISE ''an application''''s %s''; END$$',
  one.proname, one.arguments, one.result, one.proname); END LOOP;
 FOR one IN SELECT oprname, oprleft::regtype AS l, oprright::regtype AS r,
  oprresult::regtype AS result, row_number() OVER () AS n FROM pg_operator o
  WHERE oprnamespace = 'pg_catalog'::regnamespace AND oprleft <> 0 AND NOT EXISTS
  (SELECT FROM pg_type t WHERE t.oid IN (oprleft, oprright, oprresult) AND typtype = 'p')
 LOOP EXECUTE format('CREATE FUNCTION angry.no%s(%s, %s) RETURNS %s LANGUAGE plpgsql AS '
  '$$BEGIN RAISE ''an application''''s %s''; END$$', one.n, one.l, one.r, one.result,
  replace(one.oprname, '%', '%%'));
  EXECUTE format('CREATE OPERATOR angry.%s (LEFTARG = %s, RIGHTARG = %s, FUNCTION = angry.no%s)',
  one.oprname, one.l, one.r, one.n); END LOOP;
 CREATE FUNCTION angry.no(numeric, integer) RETURNS numeric LANGUAGE plpgsql AS
  $$BEGIN RAISE 'an application''s *'; END$$;
 CREATE OPERATOR angry.* (LEFTARG = numeric, RIGHTARG = integer, FUNCTION = angry.no);
 FOR one IN SELECT unnest('{text,name,oid,xid,xid8,pg_lsn}'::text[]) AS name
 LOOP EXECUTE format('CREATE DOMAIN angry.%I AS int', one.name); END LOOP;
END $do$"""


class Postgres(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.cluster = harness.private_cluster.Cluster("edge", max_prepared_transactions=10).start()
        cls.cluster.psql("CREATE TABLE t (n int PRIMARY KEY, v int);"
                         "CREATE TABLE child (n int REFERENCES t DEFERRABLE INITIALLY DEFERRED);"
                         "CREATE ROLE other; GRANT ALL ON t TO other")

    @classmethod
    def tearDownClass(cls):
        cls.cluster.stop()

    def setUp(self):
        self.cluster.psql("TRUNCATE t, child; INSERT INTO t VALUES (1, 0)")
        self.rm = self.manager()
        self.count = 0

    def tearDown(self):
        self.rm.close()
        for gid in self.prepared():
            self.cluster.psql(f"ROLLBACK PREPARED '{gid}'")

    def manager(self, conninfo=None, **options):
        return PostgresResourceManager(conninfo or self.cluster.conninfo(), "edge",
                                       **{"pool_size": 2, "max_in_doubt": 10, **options})

    @contextlib.contextmanager
    def configured(self, setting, value):
        """The server has the setting meanwhile, with no restart."""
        def show():
            return self.cluster.psql(f"SHOW {setting}").strip()

        before = show()
        try:
            self.cluster.psql(f"ALTER SYSTEM SET {setting} = '{value}'")
            self.cluster.psql("SELECT pg_reload_conf()")
            until(lambda: show() == value)
            yield
        finally:
            self.cluster.psql(f"ALTER SYSTEM RESET {setting}")
            self.cluster.psql("SELECT pg_reload_conf()")
            until(lambda: show() == before)

    @staticmethod
    @contextlib.contextmanager
    def standing_still(pid):
        """That process of the server does nothing meanwhile, at most 5 s."""
        os.kill(pid, signal.SIGSTOP)
        timer = threading.Timer(5, os.kill, (pid, signal.SIGCONT))
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            timer.join()
            os.kill(pid, signal.SIGCONT)

    def prepared(self):
        return self.cluster.psql("SELECT gid FROM pg_prepared_xacts").split()

    def begin(self, left=5_000, read_only=False, gid=None):
        self.count += 1
        self.gid = gid or f"troth:edge:c-0123456789ab.1-0000abcd.{self.count}"
        return self.rm.begin(BeginOptions(self.gid, f"{self.count:016x}", Isolation.DEFAULT,
                                          read_only, left))

    @staticmethod
    def sql(session, text):
        cursor = session.connection.cursor()
        cursor.execute(text)
        return cursor

    def wait(self, start, *arguments):
        results = []
        start(*arguments, results.append)
        return until(lambda: results, 15, "an answer")[0]

    def prepare(self, session):
        return self.wait(self.rm.start_prepare, session)

    def finish(self, **order):
        return self.wait(self.rm.start_finish, FinishOrder(self.gid, **order))

    def refused(self, *statements, reason=Refused.INVALID, state=None, swallow=False):
        """What is prepared after these statements is refused, and nothing is prepared."""
        session = self.begin()
        for statement in statements:
            try:
                self.sql(session, statement)
            except psycopg2.Error:
                if not swallow:
                    raise
        result = self.prepare(session)
        self.assertEqual((result.kind, result.refusal.reason), (PrepareKind.REFUSED, reason),
                         result)
        if state is not None:
            self.assertEqual(result.refusal.sqlstate, state)
        self.assertNotIn(self.gid, self.prepared())

    # What work may not do ---------------------------------------------------------------------

    def test_commit(self):
        self.refused("UPDATE t SET v = 1", "COMMIT")

    def test_commit_and_chain(self):
        self.refused("UPDATE t SET v = 1", "COMMIT AND CHAIN", "UPDATE t SET v = 2")

    def test_commit_hidden_among_statements(self):
        self.refused("UPDATE t SET v = 1; COMMIT; BEGIN; UPDATE t SET v = 2", state="22012")

    def test_rollback_hidden_among_statements(self):
        self.refused("UPDATE t SET v = 1; ROLLBACK; BEGIN; UPDATE t SET v = 2", state="22012")

    def test_rollback(self):
        self.refused("UPDATE t SET v = 1", "ROLLBACK")

    def test_the_mark_overwritten(self):
        self.refused("SET LOCAL troth.mark = 'x'", state="22012")

    def test_psycopgs_own_commit_is_refused(self):
        session = self.begin()
        for name in ("commit", "rollback", "reset"):
            self.assertRaises(psycopg2.ProgrammingError, getattr(session.connection, name))
        with self.assertRaises(psycopg2.ProgrammingError):
            session.connection.autocommit = False
        self.assertEqual(self.prepare(session).kind, PrepareKind.PREPARED)

    def test_an_error_swallowed(self):
        self.refused("SELECT 1 / 0", reason=Refused.DATABASE, state="25P02", swallow=True)

    def test_things_that_cannot_be_prepared(self):
        for statement in ("CREATE TEMPORARY TABLE x ()", "LISTEN x",
                          "DECLARE c CURSOR WITH HOLD FOR SELECT 1", "SELECT pg_export_snapshot()"):
            self.refused(statement, reason=Refused.DATABASE, state="0A000")

    def test_a_deferred_constraint_is_a_refused_vote(self):
        self.refused("INSERT INTO child VALUES (99)", reason=Refused.DATABASE, state="23503")

    @contextlib.contextmanager
    def deferred(self, body):
        """A change of t fires a deferred trigger meanwhile, which does that."""
        self.cluster.psql("CREATE FUNCTION late() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
                          f"{body}; RETURN NULL; END $$;"
                          "CREATE CONSTRAINT TRIGGER late AFTER UPDATE ON t "
                          "DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION late()")
        try:
            yield
        finally:
            for gid in self.prepared():
                self.cluster.psql(f"ROLLBACK PREPARED '{gid}'")
            self.cluster.psql("DROP FUNCTION late CASCADE")

    # Regression: deferred triggers were fired inside PREPARE, behind the guard; no role of ours
    # could finish the branch.
    def test_a_deferred_trigger_does_not_change_the_owner(self):
        with self.deferred("SET LOCAL ROLE other"):
            self.voted()
            self.assertEqual(self.cluster.psql("SELECT owner FROM pg_prepared_xacts").strip(),
                             "postgres")

    def test_a_deferred_trigger_does_not_spare_the_standby(self):
        with self.deferred("SET LOCAL synchronous_commit = local"), \
                self.configured("synchronous_standby_names", "nobody"):
            session = self.begin()
            self.sql(session, "UPDATE t SET v = 1")
            results = []
            self.rm.start_prepare(session, results.append)
            waits = "FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
            until(lambda: results or self.cluster.psql(f"SELECT 1 {waits}").strip(), 10)
            self.assertEqual(results, [])
            self.cluster.psql(f"SELECT pg_cancel_backend(pid) {waits}")
            self.assertEqual(until(lambda: results, 10)[0].kind, PrepareKind.UNKNOWN)

    # Regression: such work was aborted, and to be repeated, for ever.
    def test_a_deferred_triggers_warning_is_not_that_of_prepare(self):
        with self.deferred("RAISE WARNING 'low'"):
            session = self.begin()
            self.sql(session, "UPDATE t SET v = 1")
            result = self.prepare(session)
            self.assertEqual(result.kind, PrepareKind.PREPARED, result)

    def test_a_deferred_triggers_error_is_its_own(self):
        for state, reason, retryable in (("40001", Refused.CONFLICT, True),
                                         ("22012", Refused.DATABASE, False)):
            with self.deferred(f"RAISE EXCEPTION 'too low' USING ERRCODE = '{state}'"):
                session = self.begin()
                self.sql(session, "UPDATE t SET v = 1")
                refusal = self.prepare(session).refusal
                self.assertEqual((refusal.reason, refusal.message, refusal.retryable,
                                  refusal.sqlstate), (reason, "too low", retryable, state))
                self.assertEqual(self.prepared(), [])

    def test_a_deferred_trigger_that_loses_the_connection_leaves_no_doubt(self):
        with self.deferred("PERFORM pg_terminate_backend(pg_backend_pid())"):
            session = self.begin()
            self.sql(session, "UPDATE t SET v = 1")
            result = self.prepare(session)
            self.assertEqual((result.kind, result.refusal.reason),
                             (PrepareKind.REFUSED, Refused.DATABASE_UNAVAILABLE), result)

    def test_a_backend_that_dies_and_an_application_that_goes_on(self):
        session = self.begin()
        self.cluster.psql(f"SELECT pg_terminate_backend({session.connection.info.backend_pid}, 5000)")
        for _ in range(3):
            with self.assertRaises(psycopg2.Error):
                self.sql(session, "UPDATE t SET v = 9")
        self.assertEqual(session.broken().reason, Refused.DATABASE_UNAVAILABLE)
        self.assertEqual(self.prepare(session).kind, PrepareKind.REFUSED)
        self.assertEqual(self.cluster.psql("SELECT v FROM t").strip(), "0")

    # PREPARE ----------------------------------------------------------------------------------

    def test_a_vote_is_what_pg_prepared_xacts_says(self):
        session = self.begin()
        self.sql(session, "UPDATE t SET v = 1")
        result = self.prepare(session)
        self.assertEqual(self.cluster.psql("SELECT transaction FROM pg_prepared_xacts").strip(),
                         str(result.evidence.xid & 0xFFFFFFFF))
        self.assertEqual(self.finish(commit=True, evidence=result.evidence).kind, FinishKind.DONE)
        self.assertEqual(self.cluster.psql("SELECT v FROM t").strip(), "1")

    def test_set_role_does_not_change_the_owner(self):
        session = self.begin()
        self.sql(session, "SET LOCAL ROLE other")
        self.sql(session, "UPDATE t SET v = 1")
        self.assertEqual(self.prepare(session).kind, PrepareKind.PREPARED)
        self.assertEqual(self.cluster.psql("SELECT owner FROM pg_prepared_xacts").strip(), "postgres")

    def test_gid_in_use(self):
        first = self.begin()
        self.assertEqual(self.prepare(first).kind, PrepareKind.PREPARED)
        result = self.prepare(self.begin(gid=self.gid))
        self.assertEqual((result.kind, result.refusal.sqlstate), (PrepareKind.REFUSED, "42710"))

    def test_no_slot(self):
        for n in range(10):
            self.cluster.psql(f"BEGIN; UPDATE t SET v = 1 WHERE n = -1; PREPARE TRANSACTION 'x{n}'")
        self.refused("SELECT 1", reason=Refused.OVERLOADED, state="53200")

    def test_a_cancelled_wait_for_a_standby_is_no_vote(self):
        with self.configured("synchronous_standby_names", "nobody"):
            session = self.begin()
            self.sql(session, "SET client_min_messages = error")
            session.connection.notices = Deaf()
            pid = session.connection.info.backend_pid
            results = []
            self.rm.start_prepare(session, results.append)
            waits = f"SELECT 1 FROM pg_stat_activity WHERE pid = {pid} AND wait_event = 'SyncRep'"
            until(lambda: self.cluster.psql(waits).strip(), 5, "it waits for the standby")
            self.cluster.psql(f"SELECT pg_cancel_backend({pid})")
            result = until(lambda: results, 10)[0]
            self.assertEqual(result.kind, PrepareKind.UNKNOWN, result)
            self.assertEqual(self.cluster.psql("SELECT transaction FROM pg_prepared_xacts").strip(),
                             str(result.evidence.xid & 0xFFFFFFFF))

    # The other instance rolled the branch back that had voted.
    def test_a_lost_prepare_of_a_late_duplicate_leaves_the_vote_alone(self):
        other = self.manager()
        self.addCleanup(other.close)
        id_ = "c-0123456789ab.1-0000abcd.1"
        ours, theirs = BranchTable("edge", "one", self.rm), BranchTable("edge", "two", other)
        work = ours.start_work(WorkRequest(id_, 0, 10_000))
        self.sql(work.session, "UPDATE t SET v = v + 1")
        vote = ours.end_work(work, None, True).vote
        late = theirs.start_work(WorkRequest(id_, 0, 10_000))
        with mock.patch("troth.participant.postgres._GUARD",
                        "SELECT pg_terminate_backend(pg_backend_pid())"), \
                self.assertRaises(Refusal) as caught:
            theirs.end_work(late, None, True)
        self.assertIn("being prepared", caught.exception.message)
        until(lambda: not theirs.looks_after(id_, 0), what="its roll-back is over")
        self.assertEqual(self.prepared(), [f"troth:edge:{id_}"])
        (result,) = ours.finish([FinishRequest(id_, True, vote.evidence)], 10_000)
        self.assertEqual(result.kind, FinishKind.DONE, result)
        self.assertEqual(self.cluster.psql("SELECT v FROM t").strip(), "1")

    def test_read_only_is_kept(self):
        session = self.begin(read_only=True)
        self.sql(session, "SELECT * FROM t")
        self.assertEqual(self.prepare(session).kind, PrepareKind.READ_ONLY)
        session = self.begin(read_only=True)
        self.sql(session, "SELECT pg_current_xact_id()")
        self.assertEqual(self.prepare(session).refusal.sqlstate, "22012")

    # Connections ------------------------------------------------------------------------------

    def test_a_connection_comes_back_clean(self):
        session = self.begin()
        pid = session.connection.info.backend_pid
        for statement in ("SET work_mem = '1MB'", "SELECT pg_advisory_lock(7)", "SET ROLE other",
                          "SET search_path = pg_temp", "PREPARE p AS SELECT 1",
                          "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY"):
            self.sql(session, statement)
        self.assertEqual(self.prepare(session).kind, PrepareKind.PREPARED)
        session = self.begin()
        self.assertEqual(session.connection.info.backend_pid, pid)
        row = self.sql(session, "SELECT current_setting('work_mem'), current_user,"
                       " current_setting('search_path'), (SELECT count(*) FROM pg_locks WHERE"
                       " locktype = 'advisory'), (SELECT count(*) FROM pg_prepared_statements),"
                       " current_setting('default_transaction_read_only'),"
                       " current_setting('troth.mark')").fetchone()
        self.assertEqual(row[:6], ("4MB", "postgres", '"$user", public', 0, 0, "off"))
        self.assertEqual(row[6], f"{self.count:016x}")
        session.rollback()

    # Regression: the next branch read the first one's temporary table.
    def test_what_was_made_outside_the_block_meets_no_other_branch(self):
        table = "CREATE TEMPORARY TABLE t AS SELECT 1 AS n, 99 AS v"
        for end, makes in (("prepare", ("ROLLBACK", table)), ("rollback", ("ROLLBACK", table)),
                           ("rollback", (f"ROLLBACK; {table}; COMMIT; BEGIN; SELECT 1",))):
            with self.subTest(end=end, makes=makes):
                session = self.begin()
                for statement in makes:
                    self.sql(session, statement)
                if end == "prepare":
                    self.assertEqual(self.prepare(session).kind, PrepareKind.REFUSED)
                else:
                    session.rollback()
                session = self.begin(read_only=True)
                self.assertEqual(self.sql(session, "SELECT v FROM t").fetchall(), [(0,)])
                session.rollback()

    # Regression: the next branch misread what the database sent in its own encoding; a caster for
    # text lost the branch its vote.
    def test_what_work_changes_in_psycopg2_meets_no_other_branch(self):
        def years(session):
            psycopg2.extensions.register_type(psycopg2.extensions.new_type(
                (1082,), "YEAR", lambda value, cursor: value[:4]), session.connection)

        def texts(session):
            psycopg2.extensions.register_type(psycopg2.extensions.BYTES, session.connection)

        for change in (lambda session: session.connection.set_client_encoding("LATIN1"), years, texts,
                       lambda session: setattr(session.connection, "cursor_factory", None)):
            session = self.begin()
            change(session)
            result = self.prepare(session)
            self.assertEqual(result.kind, PrepareKind.PREPARED, result)
            session = self.begin(read_only=True)
            self.assertEqual(self.sql(session, "SELECT chr(233), date '2001-02-03'").fetchone(),
                             ("\u00e9", datetime.date(2001, 2, 3)))
            self.assertIs(type(session.connection.cursor()), BranchCursor)
            session.rollback()

    # Regression: the next branch's vote was lost.
    def test_notices_that_work_keeps_its_own_way_meet_no_other_branch(self):
        session = self.begin()
        pid, own = session.connection.info.backend_pid, collections.deque(maxlen=50)
        session.connection.notices = own
        session.rollback()
        session = self.begin()
        self.assertEqual(session.connection.info.backend_pid, pid)
        self.assertEqual(session.connection.notices, [])
        session.connection.notices = own
        result = self.prepare(session)
        self.assertEqual(result.kind, PrepareKind.PREPARED, result)

    # Regression: they were counted as taken, and every later branch was refused for want of them.
    def test_a_connection_that_cannot_be_cleaned_keeps_no_place(self):
        for _ in range(2):
            session = self.begin()
            session.connection.cursor = None
            session.rollback()
        with mock.patch("troth.participant.postgres._CLEAN", "SELECT 0, 0, 0, 0, 0 AS no_text"), \
                self.assertLogs("troth"):
            for _ in range(2):
                self.begin().rollback()
                result = self.prepare(self.begin())
                self.assertEqual(result.kind, PrepareKind.UNKNOWN, result)
        self.begin().rollback()

    def test_a_cancelled_connection_is_closed(self):
        session = self.begin()
        pid = session.connection.info.backend_pid
        session.cancel()
        session.rollback()
        session = self.begin()
        self.assertNotEqual(session.connection.info.backend_pid, pid)
        session.rollback()

    def test_first_work_waits_a_tenth_of_a_second_for_a_connection(self):
        held = [self.begin(), self.begin()]
        started = time.monotonic()
        with self.assertRaises(Refusal) as caught:
            self.begin()
        self.assertEqual(caught.exception.reason, Refused.OVERLOADED)
        self.assertLess(time.monotonic() - started, 1)
        for session in held:
            session.rollback()
        self.begin().rollback()

    def test_an_idle_connection_that_was_lost_is_replaced(self):
        session = self.begin()
        pid = session.connection.info.backend_pid
        session.rollback()
        self.cluster.psql(f"SELECT pg_terminate_backend({pid}, 5000)")
        self.begin().rollback()

    # Regression: one server process that stood still held up all deadlines, and the forgetting.
    def test_a_connection_that_stands_still_holds_nobody_up(self):
        now = [0]
        table = BranchTable("edge", "one", self.rm, now_ms=lambda: now[0])
        ids = [f"c-0123456789ab.1-0000abcd.{n}" for n in (1, 2)]
        works = [table.start_work(WorkRequest(id_, 0, 10_000)) for id_ in ids]
        pids = [work.session.connection.info.backend_pid for work in works]
        for work in works:
            self.sql(work.session, "SELECT 1")
            table.end_work(work, None, False)
        now[0] = 10_000
        with self.standing_still(pids[0]):
            tick = threading.Thread(target=table.tick)
            tick.start()
            tick.join(3)
            self.assertFalse(tick.is_alive())
            self.assertEqual(self.cluster.psql("SELECT state FROM pg_stat_activity"
                                               f" WHERE pid = {pids[1]}").strip(), "idle")
            for session in (self.begin(), self.begin()):  # the places are free
                session.rollback()

    def test_an_idle_connection_that_stands_still_is_replaced(self):
        session = self.begin()
        pid = session.connection.info.backend_pid
        session.rollback()
        with self.standing_still(pid):
            session = self.begin()
            self.assertNotEqual(session.connection.info.backend_pid, pid)
            session.rollback()

    def test_cleaning_has_an_end(self):
        with mock.patch("troth.participant.postgres._CLEAN", "SELECT pg_sleep(20), 0, 0, 0, '0/1'"), \
                mock.patch("troth.participant.connections._ANSWER_S", 0.3):
            started = time.monotonic()
            self.begin().rollback()
            result = self.prepare(self.begin())
            self.assertEqual(result.kind, PrepareKind.UNKNOWN, result)
            self.assertLess(time.monotonic() - started, 10)

    def test_deadlines_reach_the_server(self):
        holder = self.begin()
        self.sql(holder, "UPDATE t SET v = 1")
        waiter = self.begin(left=200)
        with self.assertRaises(psycopg2.errors.LockNotAvailable):
            self.sql(waiter, "UPDATE t SET v = 2")
        waiter.rollback()
        holder.rollback()

    # Regression: each branch set its own, longer ones over those of the role.
    def test_the_roles_shorter_limits_hold(self):
        def limits(left, **options):
            rm, self.rm = self.rm, self.manager(**options)
            session = self.begin(left)
            rows = self.sql(session, "SELECT current_setting('lock_timeout'),"
                            " current_setting('idle_in_transaction_session_timeout')").fetchall()
            session.rollback()
            self.rm.close()
            self.rm = rm
            return rows[0]

        self.addCleanup(self.cluster.psql, "ALTER ROLE postgres RESET ALL")
        self.cluster.psql("ALTER ROLE postgres SET lock_timeout = '2s';"
                          "ALTER ROLE postgres SET idle_in_transaction_session_timeout = '4s'")
        self.assertEqual(limits(5_000), ("2s", "4s"))
        self.assertEqual(limits(1_000), ("1s", "2s"))
        self.cluster.psql("ALTER ROLE postgres RESET ALL")
        own = self.cluster.conninfo(options="'-c lock_timeout=2s'")
        self.assertEqual(limits(5_000, conninfo=own), ("2s", "6s"))
        with self.configured("lock_timeout", "2s"):  # it may be longer a moment later
            self.assertEqual(limits(5_000), ("5s", "6s"))

    def test_cancel_ends_a_statement(self):
        session = self.begin()
        pid = session.connection.info.backend_pid

        def cancel():
            until(lambda: self.cluster.psql("SELECT 1 FROM pg_stat_activity WHERE state = 'active' AND "
                                            f"query = 'SELECT pg_sleep(20)' AND pid = {pid}"), 20)
            session.cancel()

        canceller = threading.Thread(target=cancel)
        canceller.start()
        with self.assertRaises(psycopg2.errors.QueryCanceled):
            self.sql(session, "SELECT pg_sleep(20)")
        canceller.join()
        self.assertEqual(session.broken().reason, Refused.ENDED)
        session.rollback()

    # Phase two --------------------------------------------------------------------------------

    def voted(self):
        session = self.begin()
        self.sql(session, "UPDATE t SET v = v + 1")
        return self.prepare(session).evidence

    def test_not_found_proves_nothing(self):
        evidence = self.voted()
        self.cluster.psql(f"ROLLBACK PREPARED '{self.gid}'")
        self.assertEqual(self.finish(commit=True, evidence=evidence).kind, FinishKind.HEURISTIC)
        future = Evidence(evidence.xid + 10**6, evidence.point)
        self.assertEqual(self.finish(commit=True, evidence=future).kind, FinishKind.HAZARD)
        elsewhere = Evidence(evidence.xid, LogPoint(9, 1))
        self.assertEqual(self.finish(commit=True, evidence=elsewhere).kind, FinishKind.HAZARD)

    # A hazard is for good: what passes must not make one.
    def test_a_history_that_cannot_be_read_now(self):
        evidence = self.voted()
        self.cluster.psql(f"COMMIT PREPARED '{self.gid}'")
        elsewhere = Evidence(evidence.xid, LogPoint(9, 1))
        history = self.cluster.data / "pg_wal" / "00000001.history"
        history.mkdir()
        try:
            result = self.finish(commit=True, evidence=elsewhere)
            self.assertEqual(result.kind, FinishKind.WORKING, result)
        finally:
            history.rmdir()
        result = self.finish(commit=True, evidence=elsewhere)
        self.assertEqual(result.kind, FinishKind.HAZARD, result)  # there is none

    def test_a_history_that_the_role_may_not_read_is_a_hazard(self):
        evidence = self.voted()
        self.cluster.psql(f"COMMIT PREPARED '{self.gid}'")
        self.cluster.psql("ALTER ROLE other LOGIN;"
                          "GRANT SELECT, INSERT, UPDATE ON troth_seen TO other")
        rm, self.rm = self.rm, self.manager(self.cluster.conninfo(user="other"))
        self.addCleanup(rm.close)
        result = self.finish(commit=True, evidence=Evidence(evidence.xid, LogPoint(9, 1)))
        self.assertEqual(result.kind, FinishKind.HAZARD, result)
        self.assertIn("permission denied", result.message)

    def test_committed_by_hand_is_done(self):
        evidence = self.voted()
        self.cluster.psql(f"COMMIT PREPARED '{self.gid}'")
        self.assertEqual(self.finish(commit=True, evidence=evidence).kind, FinishKind.DONE)
        self.assertEqual(self.finish(commit=False, evidence=evidence).kind, FinishKind.HEURISTIC)

    def test_another_database_is_not_touched(self):
        self.cluster.psql("CREATE DATABASE second")
        evidence = self.voted()
        rm, self.rm = self.rm, self.manager(self.cluster.conninfo("second"))
        result = self.finish(commit=True, evidence=evidence)
        self.assertNotEqual(result.kind, FinishKind.DONE, result)
        self.assertEqual(self.prepared(), [self.gid])
        self.assertEqual(self.rm.list_prepared("troth:edge:"), [])
        self.rm.close()
        self.rm = rm

    def test_postgres_killed_and_back(self):
        evidence = self.voted()
        self.cluster.kill()
        self.assertEqual(self.finish(commit=True, evidence=evidence).kind, FinishKind.WORKING)
        self.cluster.start()
        time.sleep(0.25)  # orders so soon after a failed connection do not try again
        self.assertEqual(self.finish(commit=True, evidence=evidence).kind, FinishKind.DONE)

    def test_the_wrong_server_is_refused_by_name(self):
        with self.assertRaises(troth.ServerUnfit) as caught:
            self.manager(max_in_doubt=11)
        self.assertIn("ALTER SYSTEM SET max_prepared_transactions = 11", str(caught.exception))
        for setting in ("fsync", "full_page_writes"):
            with self.configured(setting, "off"):
                with self.assertRaises(troth.ServerUnfit) as caught:
                    self.manager()
                self.assertIn(f"ALTER SYSTEM SET {setting} = on", str(caught.exception))

    # The start has looked, and the server was restarted or set otherwise since.
    def test_a_server_that_became_unfit_gets_no_branch_and_is_finished_on(self):
        evidence, gid = self.voted(), self.gid
        held = self.begin()
        with self.configured("fsync", "off"):
            with self.assertRaises(Refusal) as caught:
                self.begin()
            refusal = caught.exception
            self.assertEqual((refusal.reason, refusal.retryable),
                             (Refused.DATABASE_UNAVAILABLE, True))
            self.assertIn("ALTER SYSTEM SET fsync = on", str(refusal))
            self.gid = gid
            self.assertEqual(self.finish(commit=True, evidence=evidence).kind, FinishKind.DONE)
        self.begin().rollback()  # the refused one kept no place
        held.rollback()

    # It held up recovery, enrolment and status as long as that one process stood still.
    def test_a_desk_that_stands_still_is_given_up(self):
        (pid,) = self.cluster.psql("SELECT pid FROM pg_stat_activity WHERE application_name ="
                                   " 'troth edge'").split()
        with self.standing_still(int(pid)):
            with mock.patch("troth.participant.connections._ANSWER_S", 0.3), \
                    self.assertRaises(Unavailable) as caught:
                self.rm.look()
            self.assertIn("did not answer within", str(caught.exception))
            self.rm.look()

    # Recovery's thread ends with any other error.
    def test_a_desk_that_nobody_can_watch_is_unavailable(self):
        with mock.patch("threading.Timer.start", side_effect=RuntimeError("can't start new thread")):
            self.assertRaises(Unavailable, self.rm.look)
            self.assertFalse(self.rm.hold_sweep("edge"))
        self.assertTrue(self.rm.hold_sweep("edge"))

    # What is acknowledged is soon forgotten by its coordinator: a standby that has it prepared
    # still, once promoted, would ask in vain.
    def test_a_cancelled_wait_for_a_standby_is_no_commit(self):
        hidden = "'-c client_min_messages=error -c statement_timeout=500'"
        rm = self.manager(self.cluster.conninfo(options=hidden))
        self.addCleanup(rm.close)
        evidence = self.voted()
        order = FinishOrder(self.gid, commit=True, evidence=evidence)
        waits = "FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
        with self.configured("synchronous_standby_names", "nobody"):
            for statement in ("COMMIT PREPARED", "SELECT pg_catalog.pg_logical_emit_message"):
                results = []
                rm.start_finish(order, results.append)
                until(lambda: self.cluster.psql(f"SELECT query {waits}").startswith(statement), 10,
                      "it waits for the standby")
                time.sleep(0.7)  # longer than a statement may take
                self.assertEqual(results, [])
                self.cluster.psql(f"SELECT pg_cancel_backend(pid) {waits}")
                until(lambda: results, 10, "an answer")
                self.assertEqual(results[0].kind, FinishKind.WORKING, results)
        self.assertEqual(self.wait(rm.start_finish, order).kind, FinishKind.DONE)

    # Regression: what is written and not flushed is lost with the machine's power; the database would
    # seem to have gone back in time, and votes above that point would be void.
    def test_a_greeting_tells_a_durable_position(self):
        connector = DatabaseConnector(self.cluster.conninfo(), "edge")
        with self.configured("wal_writer_delay", "10s"):
            writer = psycopg2.connect(self.cluster.conninfo())
            self.addCleanup(writer.close)
            for _ in range(5):
                writer.cursor().execute("CREATE TABLE IF NOT EXISTS noise (text text);"
                                        "INSERT INTO noise SELECT repeat(md5(i::text), 60)"
                                        " FROM generate_series(1, 20000) i")
                connection = connector.open()
                self.addCleanup(connection.drop)
                flushed, written = (parse_lsn(lsn) for lsn in connection.run(
                    "SELECT pg_current_wal_flush_lsn()::text, pg_current_wal_lsn()::text").fetchone())
                self.assertLessEqual(connection.point.position, flushed)
                if written > flushed:
                    return
            self.fail("nothing was written that was not durable")

    # Regression: the connection that recovery lives on was refused too.
    def test_recovery_goes_on_at_a_server_that_came_back_unfit(self):
        self.voted()
        with self.configured("full_page_writes", "off"):
            self.cluster.psql("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
                              "WHERE application_name LIKE 'troth %'")
            self.assertEqual([branch.gid for branch in self.rm.list_prepared("troth:")], [self.gid])
            self.rm.look()

    # Regression: a multiplication of an application's own, nearer to numeric * integer than
    # PostgreSQL's, and nothing that is prepared was found any more.
    def test_nothing_of_an_applications_is_taken_for_postgresqls(self):
        self.cluster.psql("CREATE DATABASE angry")
        self.cluster.psql(ANGRY, "angry")
        self.cluster.psql("CREATE TABLE public.t (v int)", "angry")
        rm, self.rm = self.rm, self.manager(self.cluster.conninfo(
            "angry", options="'-c search_path=angry,pg_catalog,public'"))
        self.addCleanup(rm.close)
        session = self.begin()
        self.sql(session, "INSERT INTO t VALUES (1)")
        result = self.prepare(session)
        self.assertEqual(result.kind, PrepareKind.PREPARED, result)
        evidence = result.evidence
        self.assertEqual([one.gid for one in self.rm.list_prepared("troth:edge:")], [self.gid])
        self.assertTrue(self.rm.hold_sweep("edge"))
        self.rm.look()
        for position in (1, 2):
            seen = SeenCoordinator("c-0123456789ab", 1, 2, position)
            self.rm.store_seen(seen)
            self.assertEqual(self.rm.load_seen(), [seen])
        for _ in ("by comparing xids", "by evidence"):
            result = self.finish(commit=True, evidence=evidence)
            self.assertEqual(result.kind, FinishKind.DONE, result)
        elsewhere = Evidence(evidence.xid, LogPoint(9, 1))
        self.assertEqual(self.finish(commit=True, evidence=elsewhere).kind, FinishKind.HAZARD)
        session = self.begin(read_only=True)
        result = self.prepare(session)
        self.assertEqual(result.kind, PrepareKind.READ_ONLY, result)

    # Notes ------------------------------------------------------------------------------------

    def test_a_role_that_writes_nothing_by_default_keeps_notes(self):
        self.cluster.psql("DROP TABLE troth_seen")
        rm = self.manager(self.cluster.conninfo(options="'-c default_transaction_read_only=on'"))
        self.addCleanup(rm.close)
        rm.store_seen(SEEN)
        self.assertEqual(self.rm.load_seen(), [SEEN])

    def test_notes_do_not_wait_for_a_standby(self):
        self.cluster.psql("TRUNCATE troth_seen")
        with self.configured("synchronous_standby_names", "nobody"):
            note = threading.Thread(target=self.rm.store_seen, args=(SEEN,))
            note.start()
            note.join(5)
            waited = note.is_alive()
        note.join()
        self.assertFalse(waited)

    def test_notes_do_not_wait_for_a_lock(self):
        holder = psycopg2.connect(self.cluster.conninfo())
        holder.cursor().execute("LOCK TABLE troth_seen")
        timer = threading.Timer(5, holder.close)
        timer.start()
        try:
            self.assertRaises(Unavailable, self.rm.store_seen, SEEN)
        finally:
            timer.cancel()
            timer.join()
            holder.close()
        self.rm.store_seen(SEEN)


if __name__ == "__main__":
    harness.private_cluster.stop_on_signals()
    unittest.main()
