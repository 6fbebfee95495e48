"""The database behind a participant: PostgreSQL 15 through psycopg2. Opens, guards, prepares and
rolls back blocks, keeps the notes, lists what is prepared; phase two is finisher.py's.
docs/participants.md says what it asks of a server."""

from __future__ import annotations

import logging
import queue
import threading
from typing import Any, Callable

import psycopg2
import psycopg2.extensions

from troth import failpoint
from troth.clock import Deadline
from troth.ids import gid_prefix
from troth.participant.connections import (
    DatabaseConnector, ConnectionPool, PgConnection, connection_lost, message_of, refusal_of,
    sqlstate_of)
from troth.participant.evidence import parse_lsn
from troth.participant.finisher import Finisher
from troth.participant.values import (
    BeginOptions, DatabaseState, Evidence, FinishOrder, FinishResult, LogPoint, PreparedBranch,
    PrepareKind, PrepareResult, Refusal, Refused, SeenCoordinator, ServerUnfit, Session,
    Unavailable)

log = logging.getLogger("troth")

_CONNECTION_WAIT_MS = 100
_SHORT_S = 1.0  # what takes no time; for who must not wait, as the thread that keeps deadlines
_SERVER_GRACE_MS = 1_000  # the server's own end of an abandoned block comes after ours

# Names are qualified, operators and types too: application code may change search_path, and its own
# may fit better than PostgreSQL's.
_OPEN = ("BEGIN{isolation}{access}; SELECT pg_catalog.set_config('troth.mark', '{mark}', true),"
         " pg_catalog.set_config('lock_timeout', '{lock_ms}', true),"
         " pg_catalog.set_config('idle_in_transaction_session_timeout', '{idle_ms}', true){xid}{label}")
_LABEL = ", pg_catalog.set_config('application_name', '{label}', true)"
# Else PostgreSQL fires deferred triggers inside PREPARE, where what they set undoes the guard. By
# itself: their warnings are not those of PREPARE.
_CONSTRAINTS = "SET CONSTRAINTS ALL IMMEDIATE"
# role: SET ROLE inside the block would change the owner of the prepared transaction, and then
# nobody of ours could finish it. client_min_messages: no warning may be kept from us, and
# nothing less than a warning is sent then, in whatever language (law L12a).
_GUARD = (
    "SELECT 1 OPERATOR(pg_catalog./) CASE WHEN"
    " pg_catalog.pg_current_xact_id_if_assigned() OPERATOR(pg_catalog.=) '{xid}'::pg_catalog.xid8"
    " AND pg_catalog.current_setting('troth.mark', true) OPERATOR(pg_catalog.=) '{mark}'"
    " THEN 1 ELSE 0 END,"
    " pg_catalog.set_config('role', 'none', true),"
    " pg_catalog.set_config('client_min_messages', 'warning', true),"
    " pg_catalog.set_config('synchronous_commit',"
    "  CASE WHEN pg_catalog.current_setting('synchronous_commit')"
    "  OPERATOR(pg_catalog.=) 'remote_apply' THEN 'remote_apply' ELSE 'on' END, true);"
    " PREPARE TRANSACTION '{gid}'")
_GUARD_READ_ONLY = (
    "SELECT 1 OPERATOR(pg_catalog./) CASE WHEN"
    " pg_catalog.pg_current_xact_id_if_assigned() IS NULL"
    " AND pg_catalog.current_setting('transaction_read_only') OPERATOR(pg_catalog.=) 'on'"
    " AND pg_catalog.current_setting('troth.mark', true) OPERATOR(pg_catalog.=) '{mark}'"
    " THEN 1 ELSE 0 END; ROLLBACK")
# What neither PREPARE nor ROLLBACK ends, and the durable position behind PREPARE: what is written
# beyond it may be lost with the machine's power, and the vote is not (L13b).
_CLEAN = (
    "RESET ALL; CLOSE ALL; DEALLOCATE ALL; UNLISTEN *; DISCARD SEQUENCES; DISCARD TEMP;"
    " SELECT pg_catalog.set_config('session_authorization', NULL, false),"
    " pg_catalog.set_config('role', 'none', false),"
    " pg_catalog.set_config('DateStyle', 'ISO', false),"
    " pg_catalog.pg_advisory_unlock_all(), pg_catalog.pg_current_wal_flush_lsn()::pg_catalog.text")
# Notes may be lost with a primary, and must not wait: not for a standby, not for a lock.
_SET_UP_DESK = ("SET synchronous_commit = local; SET lock_timeout = '1s';"
                " SET default_transaction_read_only = off")
_MAKE_NOTES = (
    "CREATE TABLE public.troth_seen (coordinator pg_catalog.text PRIMARY KEY,"
    " epoch bigint NOT NULL, epoch_random bigint NOT NULL, position bigint NOT NULL)")
_HAVE_NOTES = (
    "SELECT pg_catalog.to_regclass('public.troth_seen') IS NOT NULL AND"
    " pg_catalog.has_table_privilege('public.troth_seen', 'SELECT, INSERT, UPDATE')")
_STORE_SEEN = (
    "INSERT INTO public.troth_seen AS s VALUES (%s, %s, %s, %s)"
    " ON CONFLICT (coordinator) DO UPDATE SET epoch = excluded.epoch,"
    "  epoch_random = excluded.epoch_random, position = excluded.position"
    " WHERE (s.epoch, s.position) OPERATOR(pg_catalog.<) (excluded.epoch, excluded.position)")
_LIST = (
    "SELECT gid, transaction::pg_catalog.text::bigint, (extract(epoch FROM"
    " pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) prepared)"
    " OPERATOR(pg_catalog.*) 1000)::bigint"
    " FROM pg_catalog.pg_prepared_xacts WHERE pg_catalog.starts_with(gid, %s)"
    " AND database OPERATOR(pg_catalog.=) pg_catalog.current_database()")
_CHECK = """
SELECT pg_catalog.current_setting('max_prepared_transactions')::int,
 pg_catalog.current_setting('fsync'), pg_catalog.current_setting('full_page_writes'),
 pg_catalog.current_setting('synchronous_commit'),
 pg_catalog.current_setting('synchronous_standby_names'),
 session_user::pg_catalog.text, current_user::pg_catalog.text,
 (SELECT owner::pg_catalog.text FROM pg_catalog.pg_prepared_xacts
  WHERE pg_catalog.starts_with(gid, %s)
  AND database OPERATOR(pg_catalog.=) pg_catalog.current_database()
  AND owner OPERATOR(pg_catalog.<>) session_user AND NOT
  (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname OPERATOR(pg_catalog.=) session_user)
  LIMIT 1)"""


def _shorter(standing_ms: int, own_ms: int) -> int:
    """Zero is no limit."""
    return min(standing_ms or own_ms, own_ms)


class Crew:
    """Threads that do what they are given, made when none is idle, at most `limit`."""

    def __init__(self, name: str, limit: int) -> None:
        self._name = name
        self._limit = limit
        self._tasks: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._threads = 0
        self._waiting = 0  # idle threads less tasks that wait

    def give(self, task: Callable[[], None]) -> None:
        with self._lock:
            self._waiting -= 1
            if self._waiting < 0 and self._threads < self._limit:
                self._threads += 1
                self._waiting += 1
                threading.Thread(target=self._work, name=self._name, daemon=True).start()
        self._tasks.put(task)

    def stop(self) -> None:
        """Threads end when what was given is done. Does not wait."""
        for _ in range(self._limit):
            self._tasks.put(None)

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            task()
            with self._lock:
                self._waiting += 1


class PostgresSession:
    """One open block. One thread at a time, but for cancel()."""

    def __init__(self, options: BeginOptions, pool: ConnectionPool, connector: DatabaseConnector,
                 connection: PgConnection) -> None:
        self._options = options
        self._pool = pool
        self._connector = connector
        self._generation = connector.generation
        self._connection: PgConnection | None = connection
        self._cancelled = False
        self._xid = 0

    def open_block(self) -> None:
        """Raises psycopg2.Error."""
        options, connection = self._options, self._connection
        assert connection is not None
        connection.boundary_tag = ""
        sql = _OPEN.format(
            isolation=options.isolation.value,
            access=" READ ONLY" if options.read_only else " READ WRITE",
            mark=options.mark,
            lock_ms=_shorter(connection.lock_timeout_ms, max(1, options.time_left_ms)),
            idle_ms=_shorter(connection.idle_timeout_ms, options.time_left_ms + _SERVER_GRACE_MS),
            xid="" if options.read_only else ", pg_catalog.pg_current_xact_id()::pg_catalog.text",
            label=_LABEL.format(label=options.label) if options.label else "")
        with connection.limited(_SHORT_S):
            row = connection.run(sql).fetchone()
        if not options.read_only:
            self._xid = int(row[3])

    @property
    def gid(self) -> str:
        return self._options.gid

    @property
    def read_only(self) -> bool:
        return self._options.read_only

    @property
    def connection(self) -> PgConnection:
        """What application code works on. Raises Refusal when it is gone."""
        if self._connection is None:
            raise Refusal(Refused.ENDED, "the branch is over")
        return self._connection

    def broken(self) -> Refusal | None:
        connection = self._connection
        if self._cancelled:
            return Refusal(Refused.ENDED, "the work was cancelled", True, "57014")
        if connection is None or not connection.alive:
            return Refusal(Refused.DATABASE_UNAVAILABLE, "the branch's connection to the database "
                           "was lost, and with it the branch", True)
        if connection.boundary_tag:
            return Refusal(Refused.INVALID, f"the work executed {connection.boundary_tag}: the "
                           "boundaries of a branch belong to its coordinator; what the work "
                           "committed itself stays committed")
        status = connection.info.transaction_status
        if status == psycopg2.extensions.TRANSACTION_STATUS_INTRANS:
            return None
        if status == psycopg2.extensions.TRANSACTION_STATUS_INERROR:
            return Refusal(Refused.DATABASE, "a statement of the work failed and the work went on "
                           "as if it had not; use a savepoint around what may fail", False, "25P02")
        if status == psycopg2.extensions.TRANSACTION_STATUS_IDLE:
            return Refusal(Refused.INVALID, "the work ended the branch's block (ROLLBACK)")
        return Refusal(Refused.DATABASE, "the work left a statement unfinished")

    def cancel(self) -> None:
        self._cancelled = True
        try:
            if self._connection is not None:
                self._connection.cancel()
        except psycopg2.Error:
            pass  # if it fails, the statement just goes on

    def drop(self) -> None:
        """Closes the connection: a block that is open there is rolled back by the server."""
        connection, self._connection = self._connection, None
        if connection is not None:
            if not connection.alive:
                self._connector.interrupted()
            connection.drop()
            self._pool.give_back(None)

    def rollback(self) -> None:
        connection = self._connection
        if connection is None:
            return
        status = connection.info.transaction_status
        if self._cancelled or connection.boundary_tag or status not in (
                psycopg2.extensions.TRANSACTION_STATUS_INTRANS,
                psycopg2.extensions.TRANSACTION_STATUS_INERROR):
            self.drop()  # lost, or what was done outside the block stays done in the session
            return
        try:
            with connection.limited(_SHORT_S):
                connection.run("ROLLBACK")
        except Exception:  # pylint: disable=broad-except  # whatever work made of the connection
            self.drop()
            return
        self._clean(_SHORT_S)

    def _clean(self, seconds: float | None = None) -> int | None:
        """Gives the connection back if it is as new; the WAL position, or None: it was lost."""
        connection, self._connection = self._connection, None
        assert connection is not None
        position, as_new = None, False
        try:
            altered = connection.altered
            for casters in (connection.string_types, connection.binary_types):
                casters.clear()  # work's would read our row
            with connection.limited(seconds):
                row = connection.run(_CLEAN).fetchone()
            position = parse_lsn(row[4])
            connection.notices = []
            idle = psycopg2.extensions.TRANSACTION_STATUS_IDLE
            as_new = (connection.info.transaction_status == idle and not connection.boundary_tag
                      and not altered)
        except Exception as error:  # pylint: disable=broad-except
            if not isinstance(error, psycopg2.Error):
                log.exception("cleaning the connection of %s", self.gid)
            if not connection.alive:
                self._connector.interrupted()
        finally:
            if as_new:
                connection.used = True
                self._pool.give_back(connection)
            else:
                connection.drop()
                self._pool.give_back(None)
        return position

    # Prepare --------------------------------------------------------------------------------

    def prepare(self) -> PrepareResult:
        """Deferred constraints; then guard and PREPARE in one message. The session is over
        afterwards."""
        refusal = self.broken()
        if refusal is None and failpoint.passing("before-prepare"):
            refusal = Refusal(Refused.DATABASE_UNAVAILABLE, "failpoint before-prepare", True)
        if refusal is not None:
            self.rollback()
            return PrepareResult(PrepareKind.REFUSED, refusal=refusal)
        options, connection = self._options, self._connection
        assert connection is not None
        if not options.read_only:
            try:
                connection.run(_CONSTRAINTS)
            except psycopg2.Error as error:
                self.rollback()
                return PrepareResult(PrepareKind.REFUSED,
                                     refusal=refusal_of(sqlstate_of(error), message_of(error)))
        sql = (_GUARD_READ_ONLY if options.read_only else _GUARD).format(
            mark=options.mark, xid=self._xid, gid=options.gid)
        connection.notices = []  # work may have put something there that keeps no warning
        try:
            tag = connection.run(sql).statusmessage
        except psycopg2.Error as error:
            return self._prepare_failed(error)
        # A crash here leaves the branch prepared, its vote unheard; the sweep asks for it.
        failpoint.passing("after-prepare")
        # INFO is sent whatever client_min_messages says, and is not translated into a warning.
        warnings = [text.strip() for text in connection.notices if not text.startswith("INFO:")]
        return self._judge(tag, warnings)

    def prepare_broke(self, error: Exception) -> PrepareResult:
        """After an exception out of prepare(): what came of it nobody knows."""
        self.drop()
        return self._unknown(Refusal(
            Refused.DATABASE, f"prepare failed: {type(error).__name__}: {error}", True))

    def _unknown(self, refusal: Refusal) -> PrepareResult:
        return PrepareResult(PrepareKind.UNKNOWN, Evidence(self._xid, LogPoint()), refusal=refusal)

    def _prepare_failed(self, error: psycopg2.Error) -> PrepareResult:
        state, message = sqlstate_of(error), message_of(error)
        in_code = error.diag is not None and error.diag.context
        # The block that was worked in is still open, or is not ours: this connection is done for.
        self.drop()
        if connection_lost(state):
            if self._options.read_only:
                return PrepareResult(PrepareKind.REFUSED, refusal=Refusal(
                    Refused.DATABASE_UNAVAILABLE, "the connection was lost at prepare", True, state))
            return self._unknown(Refusal(
                Refused.DATABASE_UNAVAILABLE,
                "the connection was lost while the branch was being prepared", True, state))
        if state == "22012" and not in_code:
            message = ("the branch was declared read only and did not keep to it"
                       if self._options.read_only else
                       "the block that is open is not the one the branch was begun in: the work "
                       "ended it (COMMIT, COMMIT AND CHAIN, ROLLBACK) and went on in another")
            return PrepareResult(PrepareKind.REFUSED,
                                 refusal=Refusal(Refused.INVALID, message, False, state))
        return PrepareResult(PrepareKind.REFUSED, refusal=refusal_of(state, message))

    def _judge(self, tag: str, warnings: list[str]) -> PrepareResult:
        """Law L12a: prepared is what PostgreSQL called so, without a warning."""
        assert self._connection is not None
        timeline = self._connection.point.timeline
        if self._options.read_only:
            self._clean()
            if tag == "ROLLBACK":
                return PrepareResult(PrepareKind.READ_ONLY)
            return PrepareResult(PrepareKind.REFUSED, refusal=Refusal(
                Refused.DATABASE, f"the end of a read-only branch answered {tag}"))
        if tag != "PREPARE TRANSACTION":
            self.drop()
            return PrepareResult(PrepareKind.REFUSED, refusal=Refusal(
                Refused.DATABASE, f"the block had failed: PREPARE TRANSACTION answered {tag}"))
        position = self._clean()
        if warnings:
            return self._unknown(Refusal(
                Refused.DATABASE, "PREPARE TRANSACTION came with a warning, it may not be as "
                f"durable as asked for: {warnings[0]}", True))
        if position is None:
            return self._unknown(Refusal(
                Refused.DATABASE_UNAVAILABLE, "the connection was lost after PREPARE", True))
        evidence = Evidence(self._xid, LogPoint(timeline, position))
        self._connector.memory.remember(evidence.point)
        return PrepareResult(PrepareKind.PREPARED, evidence, self._generation)


class PostgresResourceManager:
    """Thread-safe. Connections: pool_size for branches, finish_connections for phase two, one
    for the rest (lists, notes, the sweep's lock)."""

    def __init__(self, conninfo: str, participant: str, *, pool_size: int = 32,
                 finish_connections: int = 8, max_in_doubt: int = 200) -> None:
        """Connects and checks the server; makes the table of notes if it may. Raises ServerUnfit
        or Unavailable."""
        self._participant = participant
        self._max_in_doubt = max_in_doubt
        self._connector = DatabaseConnector(conninfo, f"troth {participant}")
        # It may have restarted since the desk looked: nothing is voted on one that is unfit.
        self._pool = ConnectionPool(self._connector, pool_size, self._check_server)
        self._crew = Crew("troth prepare", pool_size)
        self._finisher = Finisher(self._connector, finish_connections)
        self._desk_lock = threading.RLock()
        self._desk: PgConnection | None = None
        self._holds_sweep = False
        self._started = False  # the server was found fit once
        if not self._ask(_HAVE_NOTES)[0][0]:
            self._make_notes()
        self._started = True

    def close(self) -> None:
        self._crew.stop()
        self._finisher.stop()
        self._pool.close()
        with self._desk_lock:
            if self._desk is not None:
                self._desk.drop()
                self._desk = None

    # Branches -------------------------------------------------------------------------------

    def begin(self, options: BeginOptions) -> PostgresSession:
        deadline = Deadline.after(options.time_left_ms)
        while True:
            connection = self._pool.take(min(_CONNECTION_WAIT_MS, options.time_left_ms))
            session = PostgresSession(options, self._pool, self._connector, connection)
            if deadline.passed():
                session.drop()
                raise Refusal(Refused.DEADLINE,
                              "the deadline passed before the branch was opened", True)
            used = connection.used
            try:
                session.open_block()
                return session
            except psycopg2.Error as error:
                state = sqlstate_of(error)
                session.drop()
                # One that lay idle may have been lost meanwhile; nothing has been done on it
                # yet, so the next one is tried, in the end a new one.
                if not (used and connection_lost(state)):
                    raise refusal_of(state, message_of(error)) from None

    def start_prepare(self, session: Session, done: Callable[[PrepareResult], None]) -> None:
        assert isinstance(session, PostgresSession)

        def prepare() -> None:
            try:
                result = session.prepare()
            except Exception as error:  # pylint: disable=broad-except
                # A mistake of ours must not leave the branch hanging: no vote.
                log.exception("preparing %s", session.gid)
                result = session.prepare_broke(error)
            done(result)

        self._crew.give(prepare)

    def start_finish(self, order: FinishOrder, done: Callable[[FinishResult], None]) -> None:
        self._finisher.start(order, done)

    # The desk -------------------------------------------------------------------------------

    def list_prepared(self, prefix: str) -> list[PreparedBranch]:
        return [PreparedBranch(*row) for row in self._ask(_LIST, (prefix,))]

    def look(self) -> DatabaseState:
        with self._desk_lock:
            position = self._ask("SELECT pg_catalog.pg_current_wal_flush_lsn()::pg_catalog.text")[0][0]
            desk = self._desk
            assert desk is not None
            point = LogPoint(desk.point.timeline, parse_lsn(position))
            self._connector.memory.remember(point)
            return DatabaseState(desk.identity, point, desk.address, desk.machine)

    def load_seen(self) -> list[SeenCoordinator]:
        return [SeenCoordinator(*row) for row in self._ask(
            "SELECT coordinator, epoch, epoch_random, position FROM public.troth_seen")]

    def store_seen(self, seen: SeenCoordinator) -> None:
        self._ask(_STORE_SEEN, (seen.coordinator, seen.epoch, seen.epoch_random, seen.position))

    def hold_sweep(self, participant: str) -> bool:
        with self._desk_lock:
            if self._holds_sweep and self._desk is not None and self._desk.still_alive():
                return True
            try:
                # A desk made anew forgets the lock first.
                self._holds_sweep = self._ask(
                    "SELECT pg_catalog.pg_try_advisory_lock(pg_catalog.hashtextextended(%s, 0))",
                    ("troth sweep " + participant,))[0][0]
            except (Unavailable, ServerUnfit):
                self._holds_sweep = False
            return self._holds_sweep

    def _ask(self, sql: str, parameters: tuple | None = None) -> list[tuple[Any, ...]]:
        """All rows. Raises Unavailable or ServerUnfit."""
        with self._desk_lock:
            desk = self._open_desk()
            try:
                with desk.limited():
                    cursor = desk.run(sql, parameters)
                return cursor.fetchall() if cursor.description else []
            except psycopg2.Error as error:
                raise Unavailable(message_of(error)) from None

    def _open_desk(self) -> PgConnection:
        if self._desk is not None and self._desk.still_alive():
            return self._desk
        if self._desk is not None:
            self._connector.interrupted()
            self._desk.drop()
        self._desk, self._holds_sweep = None, False
        desk = self._connector.open()
        try:
            try:
                self._check_server(desk)
            except ServerUnfit as unfit:
                if not self._started:
                    raise
                # Without the desk nobody would ask what became of the branches prepared there.
                log.warning("no branch is begun, recovery goes on: %s", unfit)
            with desk.limited():
                desk.run(_SET_UP_DESK)
        except psycopg2.Error as error:
            desk.drop()
            raise Unavailable(message_of(error)) from None
        except BaseException:
            desk.drop()
            raise
        self._desk = desk
        return desk

    def _make_notes(self) -> None:
        with self._desk_lock:
            desk = self._open_desk()
            try:
                with desk.limited():
                    desk.run(_MAKE_NOTES)
                return
            except psycopg2.Error as error:
                # 42P07: another instance has just made it; 23505: is making it.
                if sqlstate_of(error) not in ("42P07", "23505", "42501"):
                    raise Unavailable(
                        f"making table public.troth_seen: {message_of(error)}") from None
            if self._ask(_HAVE_NOTES)[0][0]:
                return
        raise ServerUnfit("the participant's role may neither make nor use the table of notes. Run: "
                          f"{_MAKE_NOTES}; GRANT SELECT, INSERT, UPDATE ON public.troth_seen TO the role")

    def _check_server(self, connection: PgConnection) -> None:
        """Raises ServerUnfit or Unavailable."""
        try:
            with connection.limited():
                row = connection.run(_CHECK, (gid_prefix(self._participant),)).fetchone()
        except psycopg2.Error as error:
            raise Unavailable(message_of(error)) from None
        slots, fsync, full_page_writes, synchronous, standbys, login, role, owner = row
        most, reload = self._max_in_doubt, "SELECT pg_reload_conf();"
        wrong = None
        if slots < most:
            wrong = (f"max_prepared_transactions is {slots}, and up to {most} branches may be in doubt "
                     "(max_in_doubt; of all participants of this server together). Run: ALTER SYSTEM "
                     f"SET max_prepared_transactions = {most}; and restart the server")
        elif fsync != "on":
            wrong = ("fsync is off, so that a vote may be lost in a crash. Run: ALTER SYSTEM SET "
                     f"fsync = on; {reload}")
        elif full_page_writes != "on":
            wrong = ("full_page_writes is off, so that a crash may damage data. Run: ALTER SYSTEM "
                     f"SET full_page_writes = on; {reload}")
        elif synchronous == "off" and standbys:
            wrong = (f"synchronous_commit is off although there are synchronous standbys ({standbys}): "
                     "a commit may be lost in a failover. Run: ALTER SYSTEM SET synchronous_commit = "
                     f"on; {reload}")
        elif login != role:
            wrong = (f"role {login} becomes {role} at login and could not finish what it prepares. "
                     f"Run: ALTER ROLE {login} RESET role;")
        elif owner is not None:
            wrong = (f"there are prepared branches of this participant that belong to role {owner}, "
                     f"which {login} may not finish. Connect as {owner}, or run as a superuser: "
                     f"ALTER ROLE {login} SUPERUSER;")
        if wrong is not None:
            raise ServerUnfit(f"the server at {connection.address}: {wrong}")
