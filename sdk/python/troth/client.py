"""What an application uses to make one transaction out of changes in several services:

    client = troth.Client(["127.0.0.1:7711"])
    with client.transaction() as tx:
        tx.call("east", BankBranch, "apply", [Leg(17, -100)], "rent")
        tx.call("west", BankBranch, "apply", [Leg(23, +100)], "rent")
    # committed here, or an exception says what is known: Aborted, OutcomeUnknown

Refuses to know: what the services do, how a transaction is decided. docs/protocol.md."""

from __future__ import annotations

import os
import threading
import time
import weakref
from typing import Any, Callable, Iterable, TypeVar

from thrift.Thrift import TApplicationException, TException

from troth.clock import Backoff, Deadline, boot_ms
from troth.connection import Address, Connection, IdleConnections, NotSent, Unanswered
from troth.lease_cache import LeaseCache
from troth.outcome import (
    Aborted, Failure, Kind, NotAnswered, Outcome, OutcomeUnknown, WorkFailed, failure_of,
    outcome_of)
from troth.security import TlsContext, TlsFiles
from troth.transaction import Transaction, TransactionOptions, Wait
from troth.transport import split_address
from troth.wire.coordinator import Coordinator
from troth.wire.coordinator import ttypes as coordinator_types
from troth.wire.participant import Participant
from troth.wire.values import ttypes as values
from troth.wire.values.constants import PROTOCOL_VERSION

T = TypeVar("T")

_PLACES_FRESH_MS = 5_000  # older addresses are asked for again, so that new instances are found


_clients: weakref.WeakSet[Client] = weakref.WeakSet()


def _begin_lives() -> None:
    for client in list(_clients):
        client._begin_life()  # pylint: disable=protected-access


# Before a fork's child has a second thread: none of them finds its parent's ids and connections.
os.register_at_fork(after_in_child=_begin_lives)


def passes_by_itself(reason: int) -> bool:
    return reason in (values.Reason.OVERLOADED, values.Reason.NOT_SERVING)


class Client:
    """Thread-safe: one per process and coordinator is enough, and shares its leased ids and its
    connections among all threads. Holds no thread of its own. After fork() the child starts anew:
    it shares neither ids nor connections with its parent, and refuses the parent's
    transactions."""

    def __init__(self, coordinators: Iterable[str], *, application: str = "",
                 connect_timeout_ms: int = 1_000, grace_ms: int = 250,
                 max_idle_connections: int = 128, slow_ms: int = 1_000,
                 tls: TlsFiles | None = None) -> None:
        """Makes no call. `coordinators`: "host:port" of one coordinator's client listener, the
        next is tried when one does not answer. `grace_ms`: how long after its deadline a call
        that was sent is still waited for. `slow_ms`: a transaction that takes so long is logged
        (logger "troth"), with where the time went; 0: none. `tls`: our certificate, and who is
        believed; None: plain text. ValueError: an address is not host:port."""
        self._addresses: list[Address] = [split_address(one) for one in coordinators]
        if not self._addresses:
            raise ValueError("a client needs the address of its coordinator")
        self._application = application
        self._connect_timeout_ms = connect_timeout_ms
        self.grace_ms = grace_ms
        self.slow_ms = slow_ms
        self._max_idle = max_idle_connections
        self._tls_files = tls
        self._begin_life()
        _clients.add(self)

    def _begin_life(self) -> None:
        self._changed = threading.Condition()
        self._tls = None if self._tls_files is None else TlsContext(self._tls_files)
        self._leases = LeaseCache()
        self._asking = False
        self._idle = IdleConnections(self._max_idle)
        self._preferred = 0
        self._sender: tuple | None = None
        self._places: dict[str, tuple[list[Any], int]] = {}
        self._branches: dict[str, int] = {}  # open ones of ours, by instance

    def close(self) -> None:
        """Closes idle connections. All transactions must be over."""
        self._idle.close()

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    # Transactions -----------------------------------------------------------------------------

    def transaction(self, deadline_ms: int = 5_000, *, isolation: int | None = None,
                    read_only: bool = False, key: str = "", traceparent: str = "",
                    wait: Wait = Wait.APPLIED) -> Transaction:
        """Begins a transaction, to be used as `with ... as tx`. Usually no call: the id comes from
        a leased block. At most the length of a lease (30 s, less what granting it took). Raises
        NotAnswered: nothing was begun."""
        deadline = Deadline.after(deadline_ms)
        options = TransactionOptions(isolation, read_only, key, traceparent, wait)
        return Transaction(self, self._take_id(deadline), deadline, options)

    def run(self, body: Callable[[Transaction], T], *, total_ms: int = 10_000,
            first_backoff_ms: int = 4, max_backoff_ms: int = 500,
            first_overloaded_backoff_ms: int = 100, max_overloaded_backoff_ms: int = 2_000,
            deadline_ms: int = 5_000, **options: Any) -> tuple[Outcome, T]:
        """Runs `body` in a transaction and commits it; repeats the *whole* transaction, under a
        new id, while it ends aborted for a reason that may pass, for `total_ms`, which cuts each
        one's `deadline_ms` too. An exception of the body's own, also another transaction's, aborts
        and is not repeated. An unknown outcome is never repeated: the first may have committed.
        What was refused for load is repeated more slowly: the place stays full for a while.
        `options`: those of transaction()."""
        until = Deadline.after(total_ms)
        others = Backoff(first_backoff_ms, max_backoff_ms)
        overloaded = Backoff(first_overloaded_backoff_ms, max_overloaded_backoff_ms)
        while True:
            tx: Transaction | None = None
            try:
                tx = self.transaction(min(deadline_ms, max(1, until.left_ms())), **options)
                with tx:
                    result = body(tx)
                assert tx.outcome is not None
                return tx.outcome, result
            except (Aborted, NotAnswered) as error:
                # Not what the body was told of another transaction: this one may be committed.
                ours = tx is None or (isinstance(error, Aborted) and error.outcome is tx.outcome)
                failure = error.outcome.failure if isinstance(error, Aborted) else error.failure
                if not ours or not error.retryable:
                    raise
                load = failure.reason == values.Reason.OVERLOADED
                pause_ms = (overloaded if load else others).next_ms()
                if pause_ms >= until.left_ms():
                    raise
            time.sleep(pause_ms / 1000)

    def outcome(self, transaction_id: str, wait_ms: int = 0) -> Outcome:
        """What became of a transaction; waits up to `wait_ms` while it is pending. Raises
        NotAnswered: it could not be asked, or is not this coordinator's."""
        return outcome_of(self._ask(Deadline.after(max(wait_ms, 1_000)),
                                    lambda c: c.outcome(transaction_id, min(wait_ms, 30_000))))

    def outcome_of_key(self, key: str, timeout_ms: int = 1_000) -> Outcome:
        """Of the transaction with this business key. PENDING with an empty id: none yet, or none
        that is still kept (the coordinator's outcome retention, 24 h)."""
        return outcome_of(self._ask(Deadline.after(timeout_ms), lambda c: c.outcome_of_key(key)))

    def close_key(self, key: str, timeout_ms: int = 1_000) -> Outcome:
        """Closes a business key, unless a transaction bears it: then its outcome. ABORTED: closed,
        and durable; commits with it are refused for as long as keys are kept (the coordinator's
        outcome retention, 24 h). PENDING: a commit with it is in flight; not closed, ask again."""
        return outcome_of(self._ask(Deadline.after(timeout_ms), lambda c: c.close_key(key)))

    def resolve(self, names: Iterable[str] = (), timeout_ms: int = 1_000) -> list[Any]:
        """Where participants are; all that are registered when there are no names."""
        wanted = list(names)
        return self._ask(Deadline.after(timeout_ms), lambda c: c.resolve(wanted))

    def call(self, participant: str, service: Any, method: str, *arguments: Any,
             timeout_ms: int = 5_000) -> Any:
        """A call outside any transaction, at any instance of `participant`; `service` is the
        generated module. It must be safe to repeat. Passes the wire's Refused on. Raises
        WorkFailed: not done, no answer, or (not retryable) the service failed at it; an exception
        that it declares is the `__cause__`."""
        deadline = Deadline.after(timeout_ms)
        connection = self.connect_participant(participant, "", deadline)
        try:
            return connection.call(
                deadline.left_ms() + self.grace_ms,
                lambda protocol: getattr(service.Client(protocol), method)(*arguments))
        except values.Refused:
            raise
        except TException as error:
            raise WorkFailed(Failure(values.Reason.APPLICATION, str(error), False,
                                     participant)) from error
        except (NotSent, Unanswered) as error:
            raise WorkFailed(Failure(values.Reason.DATABASE_UNAVAILABLE,
                                     f"no answer: {error}", True, participant)) from None
        finally:
            self._idle.give(connection)

    # The coordinator --------------------------------------------------------------------------

    def _open_coordinator(self, address: Address, deadline: Deadline) -> Connection:
        timeout_ms = min(self._connect_timeout_ms, deadline.left_ms() + self.grace_ms)
        connection = Connection(address, timeout_ms, self._tls)
        hello = coordinator_types.ClientHello(PROTOCOL_VERSION, self._application or None)
        try:
            told = connection.call(timeout_ms, lambda protocol: Coordinator.Client(
                protocol).hello(hello))
        except (Unanswered, TApplicationException) as error:
            connection.close()
            raise NotSent(str(error)) from None  # nothing but a greeting was
        sender = (told.sender.coordinator, told.sender.epoch, told.sender.epoch_random)
        with self._changed:
            if self._sender not in (None, sender):
                # Another life: ids leased by an ended one can't commit any more (law L7a).
                self._leases.clear()
                self._places.clear()
            self._sender = sender
        return connection

    def try_coordinator(self, deadline: Deadline, call: Callable[[Any], Any]) -> Any:
        """One call, at the first address that takes it. Passes Refused and TApplicationException
        on; raises NotSent or Unanswered."""
        errors = []
        for i in range(len(self._addresses)):
            index = (self._preferred + i) % len(self._addresses)
            try:
                connection = (self._idle.take(self._addresses[index]) or
                              self._open_coordinator(self._addresses[index], deadline))
            except NotSent as error:
                errors.append(str(error))
                continue
            self._preferred = index
            try:
                return connection.call(deadline.left_ms() + self.grace_ms,
                                       lambda protocol: call(Coordinator.Client(protocol)))
            finally:
                self._idle.give(connection)
        raise NotSent("; ".join(errors))

    def _ask(self, deadline: Deadline, call: Callable[[Any], Any]) -> Any:
        """try_coordinator for calls that are safe to repeat, until the deadline. Raises
        NotAnswered."""
        backoff = Backoff(10, 200)
        while True:
            try:
                return self.try_coordinator(deadline, call)
            except values.Refused as refused:
                failure = failure_of(refused)
                if not passes_by_itself(refused.reason):
                    raise NotAnswered(failure) from None
            except (NotSent, Unanswered, TApplicationException) as error:
                failure = Failure(values.Reason.NOT_SERVING,
                                  f"the coordinator does not answer: {error}", True)
            left_ms = deadline.left_ms()
            if left_ms == 0:
                raise NotAnswered(failure) from None
            time.sleep(min(left_ms, backoff.next_ms()) / 1000)

    # Ids --------------------------------------------------------------------------------------

    def _take_id(self, deadline: Deadline) -> str:
        """May bring the deadline forward to the end of a lease."""
        while True:
            with self._changed:
                while True:
                    id_ = self._leases.take(boot_ms(), deadline.at_ms)
                    if id_ is not None:
                        return id_
                    if deadline.passed():
                        raise NotAnswered(Failure(
                            values.Reason.NOT_SERVING, "no transaction id came from the "
                            "coordinator before the deadline; nothing was begun", True))
                    if not self._asking:
                        break
                    self._changed.wait(deadline.left_ms() / 1000)
                self._asking = True
                count = self._leases.next_count
            try:
                self._lease(count, deadline)
            finally:
                with self._changed:
                    self._asking = False
                    self._changed.notify_all()

    def _lease(self, count: int, deadline: Deadline) -> None:
        asked_at_ms = 0

        def ask(coordinator: Any) -> Any:
            nonlocal asked_at_ms
            asked_at_ms = boot_ms()  # before it is asked: the coordinator's end counts
            return coordinator.lease(count)

        lease = self._ask(deadline, ask)
        # A lease has run a little when its answer comes: a deadline of a whole one is cut by that,
        # one that lies behind it even counted from now (and a tick of the clock) is too long.
        if boot_ms() + 1 + lease.ends_in_ms < deadline.at_ms:
            raise NotAnswered(Failure(
                values.Reason.INVALID, "the deadline is longer than the coordinator's leases "
                f"({lease.ends_in_ms} ms): no transaction lasts longer than one"))
        deadline.at_ms = min(deadline.at_ms, asked_at_ms + lease.ends_in_ms)
        with self._changed:
            self._leases.add(lease.prefix, lease.first, lease.count, lease.ends_in_ms, asked_at_ms)

    # Participants -----------------------------------------------------------------------------

    def count_branch(self, instance: str, change: int) -> None:
        with self._changed:
            branches = self._branches.get(instance, 0) + change
            if branches:
                self._branches[instance] = branches
            else:
                self._branches.pop(instance, None)

    def give_back(self, connection: Connection) -> None:
        self._idle.give(connection)

    def _find(self, participant: str, afresh: bool, deadline: Deadline) -> list[Any]:
        """Its instances. Raises WorkFailed."""
        asked_at_ms = boot_ms()
        if not afresh:
            with self._changed:
                places, at_ms = self._places.get(participant, ([], 0))
            if places and asked_at_ms - at_ms < _PLACES_FRESH_MS:
                return places
        self._idle.sweep()  # a process that went leaves connections behind
        try:
            places = self._ask(deadline, lambda c: c.resolve([participant]))
        except NotAnswered as error:
            raise WorkFailed(error.failure) from None
        if not places:
            raise WorkFailed(Failure(
                values.Reason.UNKNOWN_PARTICIPANT, f"no participant named '{participant}' is "
                "registered at the coordinator; start it, or mend the name", False, participant))
        with self._changed:
            self._places[participant] = (places, asked_at_ms)
        return places

    def _open_participant(self, participant: str, place: Any, deadline: Deadline) -> Connection:
        """Raises NotSent, or the wire's Refused."""
        timeout_ms = min(self._connect_timeout_ms, deadline.left_ms() + self.grace_ms)
        connection = Connection((place.host, place.port), timeout_ms, self._tls)
        try:
            hello = connection.call(timeout_ms, lambda protocol: Participant.Client(
                protocol).hello(PROTOCOL_VERSION))
        except (Unanswered, TApplicationException) as error:
            connection.close()
            raise NotSent(str(error)) from None
        if hello.participant != participant:
            connection.close()
            raise NotSent(f"at {place.host}:{place.port} is now {hello.participant}")
        connection.participant, connection.instance = hello.participant, hello.instance
        return connection

    def connect_participant(self, participant: str, instance: str,
                            deadline: Deadline) -> Connection:
        """To the instance named, or to the one with the fewest of our branches. Raises
        WorkFailed."""
        error = "no instance of it is up"
        for afresh in (False, True):
            with self._changed:
                load = dict(self._branches)
            places = [place for place in self._find(participant, afresh, deadline)
                      if place.port and (not instance or place.instance == instance)]
            places.sort(key=lambda place: (not place.up, load.get(place.instance, 0)))
            for place in places:
                connection = self._idle.take((place.host, place.port))
                try:
                    if connection is None or connection.participant != participant:
                        connection = self._open_participant(participant, place, deadline)
                except NotSent as caught:
                    error = str(caught)
                    continue
                except values.Refused as refused:
                    raise WorkFailed(failure_of(refused, participant)) from None
                if not instance or connection.instance == instance:
                    return connection
                self._idle.give(connection)
        if instance:
            raise WorkFailed(Failure(
                values.Reason.NO_SUCH_BRANCH, "the process that held the branch is gone, and the "
                "branch with it", True, participant))
        raise WorkFailed(Failure(values.Reason.DATABASE_UNAVAILABLE,
                                 f"it cannot be reached: {error}", True, participant))


__all__ = ["Client", "Kind", "OutcomeUnknown", "passes_by_itself"]
