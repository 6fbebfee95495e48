"""Phase two on PostgreSQL: COMMIT PREPARED and ROLLBACK PREPARED on connections of their own, the
comparing of xids (L13d), and the evidence when a GID is gone (L13). By SQLSTATE only.
The steps are those of participant/postgres_finisher.cc."""

from __future__ import annotations

import logging
import queue
import threading
import time
from typing import Any, Callable

import psycopg2

from troth import failpoint
from troth.participant.connections import DatabaseConnector, PgConnection, message_of, sqlstate_of
from troth.participant.evidence import (
    Findings, XidStatus, judge, parse_lsn, parse_timeline_history)
from troth.participant.values import (
    FinishKind, FinishOrder, FinishResult, LogPoint, Unavailable)

log = logging.getLogger("troth")

_XID_OF = (
    "SELECT transaction::pg_catalog.text::bigint FROM pg_catalog.pg_prepared_xacts"
    " WHERE gid OPERATOR(pg_catalog.=) %s"
    " AND database OPERATOR(pg_catalog.=) pg_catalog.current_database()")
# Position first: the status is then of a moment at or after it.
_FATE = ("SELECT pg_catalog.pg_current_wal_lsn()::pg_catalog.text,"
         " pg_catalog.pg_xact_status(%s::pg_catalog.text::pg_catalog.xid8),"
         " pg_catalog.current_setting('synchronous_standby_names') OPERATOR(pg_catalog.<>) ''")
# Takes an xid and writes, so that its commit waits for a standby as any does. Standbys get commits
# in their order: what was committed before has arrived too.
_AWAIT_STANDBY = "SELECT pg_catalog.pg_logical_emit_message(true, 'troth', '')"
# A role's statement_timeout would cut the wait of COMMIT PREPARED for a standby short, and all that
# tells is a warning.
_LANE_SETTINGS = ("SELECT pg_catalog.set_config('statement_timeout', '0', false),"
                  " pg_catalog.set_config('client_min_messages', 'warning', false)")
_RETRY_OPEN_S = 0.2  # orders that come so soon after a connection failed do not try again

_Task = tuple[FinishOrder, Callable[[FinishResult], None]]


class Finisher:
    """Thread-safe. At most `lanes` threads, each with a connection, made when needed."""

    def __init__(self, connector: DatabaseConnector, lanes: int) -> None:
        self._connector = connector
        self._limit = lanes
        self._tasks: queue.SimpleQueue[_Task | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._lanes = 0
        self._waiting = 0  # idle lanes less orders that wait
        self._failed_at = float("-inf")
        self._failure = ""

    def start(self, order: FinishOrder, done: Callable[[FinishResult], None]) -> None:
        with self._lock:
            self._waiting -= 1
            if self._waiting < 0 and self._lanes < self._limit:
                self._lanes += 1
                self._waiting += 1
                threading.Thread(target=self._run, name="troth finish", daemon=True).start()
        self._tasks.put((order, done))

    def stop(self) -> None:
        """Lanes end when what was ordered is done. Does not wait."""
        for _ in range(self._limit):
            self._tasks.put(None)

    def _run(self) -> None:
        connection: PgConnection | None = None
        while (task := self._tasks.get()) is not None:
            order, done = task
            if connection is not None and not connection.still_alive():
                connection.drop()
                connection = None
                self._connector.interrupted()
            try:
                connection = connection or self._open()
                result = self._settle(connection, order)
            except Unavailable as error:
                result = FinishResult(FinishKind.WORKING, str(error), "08006")
            except psycopg2.Error as error:
                # 55000: another session is at it. 42501, 0A000 and all else: an operator's
                # matter; the branch stays in doubt and is asked for again.
                result = FinishResult(FinishKind.WORKING, message_of(error), sqlstate_of(error))
            except Exception as error:  # pylint: disable=broad-except
                log.exception("finishing %s", order.gid)  # a mistake of ours: stays in doubt
                result = FinishResult(FinishKind.WORKING, f"{type(error).__name__}: {error}")
            if connection is not None and not connection.alive:
                connection.drop()
                connection = None
                self._connector.interrupted()
            done(result)
            with self._lock:
                self._waiting += 1
        if connection is not None:
            connection.drop()

    def _open(self) -> PgConnection:
        with self._lock:
            if time.monotonic() - self._failed_at < _RETRY_OPEN_S:
                raise Unavailable(self._failure)
        try:
            connection = self._connector.open()
            connection.run(_LANE_SETTINGS)
            return connection
        except Unavailable as error:
            with self._lock:
                self._failed_at, self._failure = time.monotonic(), str(error)
            raise

    # One order ------------------------------------------------------------------------------

    def _settle(self, connection: PgConnection, order: FinishOrder) -> FinishResult:
        """Raises psycopg2.Error for what is to be ordered again."""
        trusted = order.generation == self._connector.generation
        if (order.commit and not trusted) or order.only_xid is not None:
            rows = connection.run(_XID_OF, (order.gid,)).fetchall()
            if not rows:
                return self._fate(connection, order)
            if not order.commit and rows[0][0] != order.only_xid:
                return FinishResult(FinishKind.DONE)
            if order.commit and order.evidence is not None and \
                    rows[0][0] != order.evidence.xid & 0xFFFFFFFF:
                # What sits under the GID never voted (L13d).
                self._try(connection, f"ROLLBACK PREPARED '{order.gid}'")
                return self._fate(connection, order)
        # A crash here leaves the branch prepared; the coordinator sends its decision again.
        failpoint.passing("before-commit-prepared")
        verb = "COMMIT PREPARED" if order.commit else "ROLLBACK PREPARED"
        if not self._try(connection, f"{verb} '{order.gid}'"):
            return self._fate(connection, order)
        # A crash here leaves the branch finished, the coordinator untold; it asks again, and the
        # evidence answers.
        failpoint.passing("after-commit-prepared")
        # A roll-back needs no standby: the standby would ask again.
        return self._committed(connection) if order.commit else FinishResult(FinishKind.DONE)

    @staticmethod
    def _committed(connection: PgConnection) -> FinishResult:
        """Its last statement was a commit: done, unless its wait for a standby was cut short."""
        # INFO is sent whatever client_min_messages says.
        if any(not text.startswith("INFO:") for text in connection.notices):
            return FinishResult(FinishKind.WORKING, "committed; its wait for a standby was cut "
                                "short, and is made up for")
        return FinishResult(FinishKind.DONE)

    @staticmethod
    def _try(connection: PgConnection, sql: str) -> bool:
        """False: there is nothing under that GID."""
        connection.notices = []
        try:
            connection.run(sql)
            return True
        except psycopg2.Error as error:
            if sqlstate_of(error) != "42704":
                raise
            return False

    def _fate(self, connection: PgConnection, order: FinishOrder) -> FinishResult:
        """The GID is gone, or was another's: what the database remembers of the xid."""
        vote = order.evidence
        if vote is None:
            return FinishResult(FinishKind.DONE)  # a roll-back, and there is nothing
        greeted, standby = connection.point, False
        try:
            row = connection.run(_FATE, (str(vote.xid),)).fetchone()
            findings = Findings(LogPoint(greeted.timeline, parse_lsn(row[0])),
                                XidStatus(row[1] or ""))
            standby = row[2]
        except psycopg2.Error as error:
            if sqlstate_of(error) != "22023":
                raise
            # The log only grows while the server lives; the vote's own point decides by itself.
            findings = Findings(LogPoint(greeted.timeline,
                                         max(greeted.position, vote.point.position)),
                                XidStatus.FUTURE)
        findings.went_back = self._connector.memory.void(vote.point)
        if vote.point.timeline != greeted.timeline and not findings.went_back:
            self._read_history(connection, greeted.timeline, findings)
        verdict = judge(order.commit, vote, findings)
        if not order.commit or not standby or verdict.kind != FinishKind.DONE:
            return verdict
        # Whoever committed it may not have waited for a standby.
        connection.notices = []
        connection.run(_AWAIT_STANDBY)
        return self._committed(connection)

    @staticmethod
    def _read_history(connection: PgConnection, timeline: int, findings: Findings) -> None:
        file = f"pg_wal/{timeline:08X}.history"
        try:
            text: Any = connection.run("SELECT pg_catalog.pg_read_file(%s)", (file,)).fetchone()[0]
            findings.history = parse_timeline_history(text)
        except psycopg2.Error as error:
            # The role may not read it, or it is not there: asked again, the answer is the same.
            if sqlstate_of(error) not in ("42501", "58P01"):
                raise
            findings.unreadable = message_of(error)
