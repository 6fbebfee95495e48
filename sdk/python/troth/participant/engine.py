"""Participant: all that a service needs to let others' transactions into its PostgreSQL database.
It owns the connections, the branches, both listeners, recovery and the bond to the coordinators;
the service writes handlers. docs/participants.md, "Python"."""

from __future__ import annotations

import logging
import secrets
import signal
import threading
import time
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Callable

import psycopg2
import psycopg2.extensions

from troth import failpoint
from troth.ids import TransactionId, gid_prefix, is_participant_name
from troth.participant import values
from troth.participant.branch_table import BranchTable
from troth.participant.connections import message_of, refusal_of, sqlstate_of
from troth.participant.fence import EpochFence
from troth.participant.link import CoordinatorLink, SelfDescription
from troth.participant.postgres import PostgresResourceManager
from troth.participant.service import (
    PeerHandler, PeerProcessor, check_version, guard_application, refused, wire_vote, work_request)
from troth.participant.sweep import Inquiry, Sweep
from troth.participant.values import (
    BranchCounts, Refusal, Refused, Unavailable)
from troth.security import Security, SecurityOptions
from troth.traceparent import is_traceparent
from troth.transport import Listener
from troth.vote_mac import make_vote_mac
from troth.wire.participant import ttypes as participant_types
from troth.wire.values import ttypes as wire
from troth.wire.values.constants import PROTOCOL_VERSION

log = logging.getLogger("troth")

_TICK_S = 0.2
_SWEEP_EVERY_S = 0.5
_SWEEP_WAIT_MS = 2_000
_SWEEP_BATCH = 1_000
# The sweep's lock saves work only: without it for so long, others recover too.
_SWEEP_ALONE_S = 10.0
_LEAVE_S = 5.0


class ApplicationRefusal(Exception):
    """Raised by work: the application's own rule says no. The branch is rolled back, the caller
    gets Refused(APPLICATION) with this message."""

    def __init__(self, message: str, retryable: bool = False) -> None:
        super().__init__(message)
        self.retryable = retryable


@dataclass
class ParticipantOptions:
    """What a participant process is told at its start."""

    name: str  # [a-z0-9-], in GIDs and commit lists
    conninfo: str  # libpq connection string of the database
    coordinators: list[str] = field(default_factory=list)  # peer addresses, "host:port"
    host: str = "127.0.0.1"  # where applications and the coordinator reach it
    port: int = 0  # for applications; 0: any free one
    peer_port: int = 0  # for the coordinator
    bind: str = "127.0.0.1"
    pool_size: int = 32  # connections for branches
    finish_connections: int = 8
    max_in_doubt: int = 200  # max_prepared_transactions must be at least this
    max_work_connections: int = 256
    max_peer_connections: int = 32
    idle_connection_ms: int = 300_000
    slow_ms: int = 1_000  # work that takes so long is logged, with where the time went; 0: none
    security: SecurityOptions = SecurityOptions()  # TLS, who may do what


class WorkScope:
    """One piece of work: `with participant.work(context) as work: work.execute(...)`. Leaving it
    without an exception counts the piece, and `branch` is what the handler returns to its caller.
    An exception ends the branch and becomes the wire's Refused. The work must not begin, commit
    or roll back; savepoints are its own."""

    def __init__(self, participant: "Participant", context: Any) -> None:
        self._participant = participant
        self._context = context
        self._work: values.Work | None = None
        self._times: list[float] = []  # when it was asked for, let in, done
        self.branch: Any = None

    @property
    def connection(self) -> psycopg2.extensions.connection:
        """psycopg2's, without commit and its kin."""
        assert self._work is not None, "outside `with`"
        return self._work.session.connection  # type: ignore[attr-defined]

    @property
    def read_only(self) -> bool:
        """The branch was opened read-only; the context says so at its first work only."""
        assert self._work is not None, "outside `with`"
        return self._work.session.read_only  # type: ignore[attr-defined]

    def cursor(self, **options: Any) -> psycopg2.extensions.cursor:
        return self.connection.cursor(**options)

    def execute(self, sql: Any, parameters: Any = None) -> psycopg2.extensions.cursor:
        """One statement; the cursor has its rows."""
        cursor = self.cursor()
        cursor.execute(sql, parameters)
        return cursor

    def __enter__(self) -> "WorkScope":
        self._times = [time.monotonic()]
        try:
            self._work = self._participant.start_work(self._context)
        except Refusal as refusal:
            self._participant.tell_if_slow(self._context, self._times)
            raise refused(refusal) from None
        self._times.append(time.monotonic())
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> bool:
        assert self._work is not None
        failure = None
        if error is not None:
            try:
                failure = _failure_of(error, self._work.session)
            except Exception:  # pylint: disable=broad-except
                # One that can't even be told must not leave the branch at work for ever.
                failure = Refusal(Refused.APPLICATION, f"the work failed: {type(error).__name__}")
        self._times.append(time.monotonic())
        try:
            self.branch = self._participant.end_work(self._context, self._work, failure)
        except Refusal as refusal:
            raise refused(refusal) from error
        finally:
            self._work = None
            self._participant.tell_if_slow(self._context, self._times)
        return False


def _failure_of(error: BaseException, session: Any) -> Refusal:
    if isinstance(error, ApplicationRefusal):
        return Refusal(Refused.APPLICATION, str(error), error.retryable)
    # Without a SQLSTATE it is libpq's word of a lost connection, or psycopg2's own of a mistake (a
    # closed cursor, commit()), which no repeating mends.
    if isinstance(error, psycopg2.Error) and (
            error.pgcode or isinstance(error, psycopg2.OperationalError)
            or not session.connection.alive):
        return refusal_of(sqlstate_of(error), message_of(error))
    if isinstance(error, wire.Refused):
        known = error.reason in Refused._value2member_map_  # not those that only coordinators give
        return Refusal(Refused(error.reason) if known else Refused.APPLICATION,
                       str(error.message or ""), bool(error.retryable), error.sqlstate or "")
    if isinstance(error, Refusal):
        return error
    log.error("work failed", exc_info=error)
    return Refusal(Refused.APPLICATION, f"the work failed: {type(error).__name__}: {error}")


class Participant:
    """Thread-safe."""

    def __init__(self, options: ParticipantOptions) -> None:
        """Connects to the database and checks it; starts nothing yet. Raises ServerUnfit (names
        the setting that is wrong and the statement that mends it), Unavailable, ValueError."""
        if not is_participant_name(options.name):
            raise ValueError(f"'{options.name}' is no name of a participant: [a-z0-9-], at most 120")
        if not options.coordinators:
            raise ValueError("a participant needs the peer address of its coordinator")
        self._security = Security(options.security)
        failpoint.enable_from_environment()
        self.options = options
        self.instance = secrets.token_hex(8)
        self._rm = PostgresResourceManager(
            options.conninfo, options.name, pool_size=options.pool_size,
            finish_connections=options.finish_connections, max_in_doubt=options.max_in_doubt)
        self._table = BranchTable(options.name, self.instance, self._rm,
                                  max_in_doubt=options.max_in_doubt)
        self._fence = EpochFence(self._rm)
        self._fence.load()
        self._sweep = Sweep(options.name, self._rm, self._table)
        self._state = self._rm.look()
        self._identity = self._state.identity
        self._self = SelfDescription(options.name, self.instance, options.host)
        self._wake = threading.Event()
        self._links = [CoordinatorLink(address, self._self, self._rm, self._fence, self._enrolled,
                                       self._security)
                       for address in options.coordinators]
        self._stop = threading.Event()
        self._serving = threading.Event()
        self._listeners: list[Listener] = []

    # For handlers -----------------------------------------------------------------------------

    def work(self, context: Any) -> WorkScope:
        """One piece of work of the context's transaction, on the caller's thread."""
        return WorkScope(self, context)

    def hello(self, version: int) -> Any:
        """Answers Participant.hello. Raises the wire's Refused(VERSION_MISMATCH)."""
        check_version(version)
        return participant_types.ParticipantHello(PROTOCOL_VERSION, self.options.name, self.instance)

    def start_work(self, context: Any) -> values.Work:
        """What WorkScope does at its beginning. Raises Refusal."""
        return self._table.start_work(work_request(context))

    def end_work(self, context: Any, work: values.Work, failure: Refusal | None) -> Any:
        """What WorkScope does at its end; the wire's Branch. Raises Refusal."""
        reply = self._table.end_work(work, failure, bool(context.last))
        vote = None
        if reply.vote is not None:
            vote = wire_vote(reply.vote, self._identity, self._mac(context.transaction_id, reply.vote))
        return wire.Branch(self.options.name, reply.mark, reply.works, self.instance, vote)

    def tell_if_slow(self, context: Any, times: list[float]) -> None:
        """`times`: when the work was asked for, let in, done, as far as it got."""
        took = [round(1_000 * (end - begin))
                for begin, end in zip(times, [*times[1:], time.monotonic()])]
        if self.options.slow_ms <= 0 or sum(took) < self.options.slow_ms:
            return
        phases = ", ".join(f"{name} {ms}" for name, ms in zip(("opening", "work", "ending"), took))
        trace = context.traceparent or ""
        log.warning("slow work %d of %s: %d ms: %s%s", context.work, context.transaction_id,
                    sum(took), phases, f"; traceparent {trace}" if is_traceparent(trace) else "")

    def _mac(self, transaction_id: str, vote: values.Vote) -> bytes | None:
        id_ = TransactionId.parse(transaction_id)
        secret = next((link.secret for link in self._links
                       if id_ and link.coordinator == id_.coordinator), b"")
        if vote.evidence is None or not secret:
            return None
        return make_vote_mac(
            secret, transaction_id=transaction_id, participant=self.options.name,
            system_identifier=self._identity.system_identifier, database_oid=self._identity.oid,
            xid=vote.evidence.xid, timeline=vote.evidence.point.timeline,
            position=vote.evidence.point.position, works=vote.works)

    # Life -------------------------------------------------------------------------------------

    def serve(self, processor: Any, take_signals: bool = True) -> None:
        """Opens both listeners, starts recovery and the bond to the coordinators, and serves
        `processor` (the generated one of the service) until stop(), SIGTERM or SIGINT
        (SIGHUP is ignored, unless the application handles it); then refuses new branches, lets
        those under way end for at most 5 s, rolls the rest back.
        OSError: a port is taken. SecurityError: plain text is not for that address."""
        if take_signals:
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, lambda *_: self._stop.set())
            if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:  # files are read when they change
                signal.signal(signal.SIGHUP, signal.SIG_IGN)
        options = self.options
        handler = PeerHandler(options.name, self.instance, self._table, self._fence,
                              self._database, self._status, lambda: self._sweep.counts.ids,
                              self._security)
        self._listeners = [
            Listener("applications", options.bind, options.port,
                     guard_application(self._security, options.name, processor),
                     max_connections=options.max_work_connections,
                     idle_ms=options.idle_connection_ms, security=self._security),
            Listener("coordinators", options.bind, options.peer_port, PeerProcessor(handler),
                     max_connections=options.max_peer_connections,
                     idle_ms=options.idle_connection_ms, security=self._security)]
        # Apart: a note that the database is slow to take must not hold up deadlines.
        threads = [threading.Thread(target=work, args=ticks, name=name, daemon=True)
                   for name, work, *ticks in (("troth tick", self._tick_loop, self._table.tick),
                                              ("troth notes", self._tick_loop, self._fence.tick),
                                              ("troth sweep", self._sweep_loop))]
        try:
            for listener in self._listeners:
                listener.start()
            self._self.port, self._self.peer_port = (one.port for one in self._listeners)
            for thing in (*self._links, *threads):
                thing.start()
            log.info("participant %s (instance %s) serves applications on port %d, coordinators on "
                     "port %d", options.name, self.instance, self.port, self.peer_port)
            self._serving.set()
            while not self._stop.wait(60):
                pass
            self._leave(threads)
        finally:
            self._stop.set()
            self._serving.set()
            for listener in self._listeners:
                listener.stop(0)
            self._rm.close()

    def stop(self) -> None:
        """Makes serve() return. From any thread, any number of times."""
        self._stop.set()

    def wait_until_serving(self) -> bool:
        """Waits until serve() listens (True) or has ended (False)."""
        self._serving.wait()
        return not self._stop.is_set()

    @property
    def port(self) -> int:
        return self._self.port

    @property
    def peer_port(self) -> int:
        return self._self.peer_port

    def counts(self) -> BranchCounts:
        return self._table.counts()

    def _leave(self, threads: list[threading.Thread]) -> None:
        self._table.drain()
        until = time.monotonic() + _LEAVE_S
        while time.monotonic() < until:
            counts = self._table.counts()
            if not counts.active and not counts.in_doubt:
                break
            time.sleep(0.02)  # rare and short; spares the table a notion of emptiness
        self._table.rollback_all()
        self._wake.set()
        for link in self._links:
            link.stop()
        for listener in self._listeners:
            listener.stop(1.0)
        for thread in threads:
            thread.join(_LEAVE_S)

    def _enrolled(self) -> None:
        for seen in self._fence.all():
            self._table.epoch_began(seen.coordinator, seen.epoch)
        self._wake.set()

    # Recovery ---------------------------------------------------------------------------------

    def _tick_loop(self, tick: Callable[[], None]) -> None:
        while not self._stop.wait(_TICK_S):
            try:
                tick()
            except Exception:  # pylint: disable=broad-except
                log.exception("tick")

    def _sweep_loop(self) -> None:
        held_at, error = time.monotonic(), ""
        while not self._stop.is_set():
            self._wake.clear()
            held = self._rm.hold_sweep(self.options.name)
            if held:
                held_at = time.monotonic()
            try:
                # Every instance looks: at what became of its own branches, and how far the log has
                # come, which its own idle connections would not tell. One asks and settles.
                self._rm.look()
                due = self._sweep.look()
                if held or time.monotonic() - held_at > _SWEEP_ALONE_S:
                    self._settle(due)
                error = ""
            except (Unavailable, values.ServerUnfit) as caught:
                if str(caught) != error:
                    error = str(caught)
                    log.warning("recovery waits: %s", error)
            except Exception:  # pylint: disable=broad-except
                log.exception("recovery")
            self._wake.wait(_SWEEP_EVERY_S)

    def _settle(self, due: list[Inquiry]) -> None:
        """Asks, settles. A coordinator that does not answer delays no other's branches by more
        than its time limit."""
        unasked: Exception | None = None
        for link in self._links:
            mine = [one for one in due if self._asks(link, one)]
            for start in range(0, len(mine), _SWEEP_BATCH):
                if not link.up or self._stop.is_set():
                    break
                try:
                    answers = link.inquire(mine[start:start + _SWEEP_BATCH])
                except Unavailable as error:
                    unasked = error
                    break
                self._sweep.settle(answers, _SWEEP_WAIT_MS)
        if unasked is not None:
            raise unasked

    def _asks(self, link: CoordinatorLink, inquiry: Inquiry) -> bool:
        """Each coordinator is asked about its own. About a stranger's the first is asked, which
        disowns it, once all have told their names."""
        if link.coordinator == inquiry.coordinator:
            return True
        names = [one.coordinator for one in self._links]
        return link is self._links[0] and all(names) and inquiry.coordinator not in names

    # Views ------------------------------------------------------------------------------------

    def _database(self) -> values.DatabaseState:
        return self._state

    def _status(self) -> Any:
        counts = self._table.counts()
        try:
            self._rm.look()
            database_up = True
        except (Unavailable, values.ServerUnfit):
            database_up = False
        return participant_types.ParticipantStatusReport(
            participant=self.options.name, instance=self.instance,
            database=f"{self._identity.system_identifier}/{self._identity.oid}",
            active=counts.active, in_doubt=counts.in_doubt + counts.found, hazards=counts.hazards,
            heuristics=counts.heuristics, coordinator_up=any(link.up for link in self._links),
            database_up=database_up)


class ParticipantService:
    """Base class of handlers: answers `hello`, and has the participant at hand."""

    def __init__(self, participant: Participant) -> None:
        self.participant = participant

    def hello(self, version: int) -> Any:
        return self.participant.hello(version)

    def gid_prefix(self) -> str:
        """Every GID of this participant starts so."""
        return gid_prefix(self.participant.options.name)
