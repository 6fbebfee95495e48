"""Connections to one PostgreSQL database: how they are opened, what is learnt from them, and a
bounded set of them. A connection never reconnects. Knows no branch."""

from __future__ import annotations

import contextlib
import hashlib
import os
import select
import socket
import threading
import time
import weakref
from typing import Any, Callable, Iterator

import psycopg2
import psycopg2.extensions

from troth.participant.evidence import LogMemory, parse_lsn
from troth.participant.values import (
    DatabaseIdentity, LogPoint, Refusal, Refused, ServerUnfit, Unavailable)
from troth.security import is_loopback

_Connection = psycopg2.extensions.connection
_OPEN_TIMEOUT_S = 2  # libpq's smallest
_ANSWER_S = 10.0
_DEFAULTS = {"connect_timeout": _OPEN_TIMEOUT_S, "keepalives_idle": 5, "keepalives_interval": 5,
             "keepalives_count": 3, "tcp_user_timeout": 10_000}

# The control file lags after a promotion; the name of the present WAL file does not. The position
# is a durable one: the machine's power may take what is behind it, which is no going back (L13b).
# What a reload of the server's configuration may change is no limit to count on.
_GREETING = """
SELECT (SELECT system_identifier FROM pg_catalog.pg_control_system())::pg_catalog.text,
 (SELECT oid FROM pg_catalog.pg_database
  WHERE datname OPERATOR(pg_catalog.=) pg_catalog.current_database())::bigint,
 pg_catalog.pg_is_in_recovery(),
 CASE WHEN NOT pg_catalog.pg_is_in_recovery() THEN
  pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()) END,
 CASE WHEN NOT pg_catalog.pg_is_in_recovery() THEN
  pg_catalog.pg_current_wal_flush_lsn()::pg_catalog.text END,
 (SELECT setting::int FROM pg_catalog.pg_settings
  WHERE name OPERATOR(pg_catalog.=) 'lock_timeout' AND source OPERATOR(pg_catalog.=)
  ANY ('{global,database,user,database user,client}'::pg_catalog.text[])),
 (SELECT setting::int FROM pg_catalog.pg_settings
  WHERE name OPERATOR(pg_catalog.=) 'idle_in_transaction_session_timeout'
  AND source OPERATOR(pg_catalog.=)
  ANY ('{global,database,user,database user,client}'::pg_catalog.text[])),
 pg_catalog.host(pg_catalog.inet_server_addr())"""
_BOUNDARIES = frozenset(("BEGIN", "START TRANSACTION", "COMMIT", "PREPARE TRANSACTION",
                         "COMMIT PREPARED", "ROLLBACK PREPARED"))


def connection_lost(sqlstate: str) -> bool:
    """57P01-05: shutdown, crash, starting up, database dropped, idle session; 25P03: idle in
    transaction; all end the session. Empty: libpq's own word, which at a statement of ours is
    taken for the worst."""
    return (not sqlstate or sqlstate.startswith("08") or
            sqlstate in ("25P03", "57P01", "57P02", "57P03", "57P04", "57P05"))


def refusal_of(sqlstate: str, message: str) -> Refusal:
    """Decided by SQLSTATE; the message is only passed on."""
    message = message.strip()
    if connection_lost(sqlstate) or sqlstate == "53300":
        return Refusal(Refused.DATABASE_UNAVAILABLE,
                       message or "the connection to the database was lost", True, sqlstate)
    if sqlstate in ("40001", "40P01", "55P03", "57014"):
        return Refusal(Refused.CONFLICT, message, True, sqlstate)
    if sqlstate.startswith("53"):
        # 53200 at PREPARE: no free slot among max_prepared_transactions; disk full, memory.
        return Refusal(Refused.OVERLOADED, message, True, sqlstate)
    return Refusal(Refused.DATABASE, message, False, sqlstate)


def sqlstate_of(error: psycopg2.Error) -> str:
    return error.pgcode or ""


def message_of(error: psycopg2.Error) -> str:
    primary = error.diag.message_primary if error.diag is not None else None
    return (primary or str(error)).strip()


class BranchCursor(psycopg2.extensions.cursor):
    """Notes what the application's statements said they were."""

    def execute(self, query: Any, vars: Any = None) -> None:  # pylint: disable=redefined-builtin
        try:
            super().execute(query, vars)
        finally:
            self.connection.note(self.statusmessage)

    def executemany(self, query: Any, vars_list: Any) -> None:
        try:
            super().executemany(query, vars_list)
        finally:
            self.connection.note(self.statusmessage)


def _not_yours(*_: Any, **__: Any) -> Any:
    raise psycopg2.ProgrammingError(
        "the boundaries of a branch belong to its coordinator, not to its work")


class PgConnection(_Connection):
    """A connection as application code sees it: no commit, no rollback, no reset."""

    commit = rollback = reset = set_session = set_isolation_level = _not_yours
    tpc_begin = tpc_prepare = tpc_commit = tpc_rollback = tpc_recover = _not_yours
    autocommit = property(lambda self: True, _not_yours)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._line_lock = threading.Lock()
        try:
            self._line = socket.socket(fileno=os.dup(self.fileno()))  # libpq closes its own any time
        except OSError as error:  # no descriptor is to be had
            raise psycopg2.OperationalError(str(error)) from None
        self.boundary_tag = ""
        self.point = LogPoint()
        self.identity = DatabaseIdentity("", 0)
        self.address = ""
        self.machine = ""
        # What the role, the database or the connection string sets; zero: no limit.
        self.lock_timeout_ms = 0
        self.idle_timeout_ms = 0
        self.used = False
        self.cursor_factory = BranchCursor
        self._met_encoding = self.encoding

    def note(self, tag: str | None) -> None:
        if tag in _BOUNDARIES and not self.boundary_tag:
            self.boundary_tag = tag

    def run(self, sql: str, parameters: tuple | None = None) -> psycopg2.extensions.cursor:
        """One statement of ours; the cursor has its rows and its command tag."""
        cursor = self.cursor(cursor_factory=psycopg2.extensions.cursor)
        cursor.execute(sql, parameters)
        return cursor

    @contextlib.contextmanager
    def limited(self, seconds: float | None = None) -> Iterator[None]:
        """Statements meanwhile end after that, or _ANSWER_S, and the connection with them: for a
        server that stands still libpq waits for ever, and the server's own time limits stand still
        too."""
        seconds = _ANSWER_S if seconds is None else seconds
        late = threading.Event()

        def end() -> None:
            late.set()
            self.cut()

        timer = threading.Timer(seconds, end)
        timer.daemon = True
        try:
            timer.start()
        except RuntimeError as error:  # no thread is to be had
            raise psycopg2.OperationalError(str(error)) from None
        try:
            yield
        except psycopg2.Error:
            if not late.is_set():
                raise
            raise psycopg2.OperationalError(
                f"the database did not answer within {seconds:g} s") from None
        finally:
            timer.cancel()
            timer.join()

    def cut(self) -> None:
        """The connection is lost from now on, to whoever uses it too. From any thread."""
        with self._line_lock, contextlib.suppress(OSError):  # it has ended by itself, or was dropped
            self._line.shutdown(socket.SHUT_RDWR)

    @property
    def altered(self) -> bool:
        """Work changed what psycopg2 keeps of it: no RESET reaches that."""
        return (self.encoding != self._met_encoding or self.cursor_factory is not BranchCursor
                or bool(self.string_types or self.binary_types))

    @property
    def alive(self) -> bool:
        return not self.closed

    def still_alive(self) -> bool:
        """As alive, after a look at the socket: what waits there on an idle connection is its
        end, or a reason to take another."""
        if self.closed:
            return False
        poller = select.poll()
        poller.register(self.fileno(), select.POLLIN | select.POLLRDHUP)
        return not poller.poll(0)

    def drop(self) -> None:
        """Ends it. The server rolls back what was open when it notices."""
        with self._line_lock:
            self._line.close()
        _Connection.close(self)


def machine_of(host: str, server: str) -> str:
    """Of which machine an address is, as participant/conninfo.h has it: `host` as libpq names it,
    `server` its inet_server_addr(), empty for a socket."""
    if not host.startswith(("/", "@")) and not is_loopback(host):
        return ""
    if server and not is_loopback(server):
        return ""
    try:
        with open("/etc/machine-id", encoding="ascii", errors="replace") as file:
            identity = file.readline().rstrip("\n")
    except OSError:
        return ""
    if len(identity) != 32:  # machine-id(5)
        return ""
    return hashlib.sha256(f"troth {identity}".encode()).hexdigest()[:12]


class DatabaseConnector:
    """What all connections of one database share: how they are opened, what was learnt from
    them, and the generation of them: whether any was lost since. Thread-safe."""

    def __init__(self, conninfo: str, application_name: str) -> None:
        self._options = {**_DEFAULTS, "fallback_application_name": application_name,
                         **psycopg2.extensions.parse_dsn(conninfo)}
        self._lock = threading.Lock()
        self._generation = 1
        self._timeline = 0  # of the last greeting
        self._identity: DatabaseIdentity | None = None
        self._greeted: weakref.WeakSet[PgConnection] = weakref.WeakSet()
        self.memory = LogMemory()

    @property
    def generation(self) -> int:
        """Of connections: grows with each interruption."""
        with self._lock:
            return self._generation

    @property
    def identity(self) -> DatabaseIdentity | None:
        with self._lock:
            return self._identity

    def interrupted(self) -> None:
        """A connection was lost: the database may have restarted, or be another one."""
        with self._lock:
            self._generation += 1

    def open(self) -> PgConnection:
        """A new connection that has greeted. Raises Unavailable: also for a standby, and for a
        database other than the first one met. On a newer timeline those of older ones are lost,
        also those that are being opened."""
        known = self.memory.snapshot()
        with self._lock:
            before = self._timeline
        try:
            connection = psycopg2.connect(connection_factory=PgConnection, **self._options)
            _Connection.autocommit.__set__(connection, True)
            with connection.limited():
                row = connection.run(_GREETING).fetchone()
        except psycopg2.Error as error:
            self.interrupted()
            raise Unavailable(message_of(error)) from None
        connection.address = f"{connection.info.host}:{connection.info.port}"
        connection.machine = machine_of(connection.info.host, row[7] or "")
        connection.identity = DatabaseIdentity(row[0], row[1])
        connection.lock_timeout_ms, connection.idle_timeout_ms = row[5] or 0, row[6] or 0
        if row[2]:
            connection.drop()
            self.interrupted()
            raise Unavailable(
                f"the database at {connection.address} is a standby: it can neither work nor "
                "prepare. Point the participant at the primary, or promote this one "
                "(SELECT pg_promote())")
        connection.point = LogPoint(int(row[3][:8], 16), parse_lsn(row[4]))
        with self._lock:
            first = self._identity = self._identity or connection.identity
        if first != connection.identity:
            connection.drop()
            raise Unavailable(f"the database at {connection.address} is another one now: "
                              f"{connection.identity}; it was {first}")
        timeline, left = connection.point.timeline, []
        with self._lock:
            newest = self._timeline
            # Met meanwhile; if it was known before, the database was restored to an older one.
            overtaken = newest > before and newest > timeline
            if not overtaken:
                self._timeline = timeline
                left = [one for one in self._greeted if one.point.timeline < timeline]
                self._greeted.difference_update(left)
                self._greeted.add(connection)
        if overtaken:
            connection.drop()
            self.interrupted()
            raise Unavailable(
                f"the database at {connection.address} was left behind: it is on timeline "
                f"{timeline}, and timeline {newest} was met while it was being connected to. Point "
                "the participant at the promoted server")
        if not self.memory.observe(connection.point, known):
            self.interrupted()
        if left:
            # They lead to a primary that was left behind, or nowhere: a proxy may keep them open.
            self.interrupted()
        for one in left:
            one.cut()
        return connection


class ConnectionPool:
    """Thread-safe."""

    def __init__(self, connector: DatabaseConnector, limit: int,
                 check: Callable[[PgConnection], None]) -> None:
        """`check` looks at each new connection; raises ServerUnfit or Unavailable."""
        self._connector = connector
        self._limit = limit
        self._check = check
        self._returned = threading.Condition()
        self._idle: list[PgConnection] = []
        self._taken = 0
        self._closed = False

    def take(self, wait_ms: int) -> PgConnection:
        """An idle connection or a new one. Raises Refusal: OVERLOADED when all are out for
        `wait_ms`, DATABASE_UNAVAILABLE when none can be made."""
        until = time.monotonic() + wait_ms / 1000
        with self._returned:
            while True:
                while self._idle:
                    connection = self._idle.pop()
                    if connection.still_alive():
                        self._taken += 1
                        return connection
                    connection.drop()
                    self._connector.interrupted()
                if self._taken < self._limit:
                    break
                left = until - time.monotonic()
                if left <= 0:
                    raise Refusal(Refused.OVERLOADED, f"all {self._limit} connections to the "
                                  "database are in use (pool_size)", True)
                self._returned.wait(left)
            self._taken += 1
        connection = None
        try:
            connection = self._connector.open()
            self._check(connection)
            return connection
        except BaseException as error:
            if connection is not None:
                connection.drop()
            self.give_back(None)
            if isinstance(error, (ServerUnfit, Unavailable)):
                raise Refusal(Refused.DATABASE_UNAVAILABLE, str(error), True) from None
            raise

    def give_back(self, connection: PgConnection | None) -> None:
        """None gives back the place of a connection that is gone."""
        with self._returned:
            self._taken -= 1
            if connection is not None:
                if self._closed:
                    connection.drop()
                else:
                    self._idle.append(connection)
            self._returned.notify()

    @property
    def taken(self) -> int:
        with self._returned:
            return self._taken

    def close(self) -> None:
        """Idle connections end now, the others when they come back."""
        with self._returned:
            self._closed = True
            while self._idle:
                self._idle.pop().drop()
