"""One transaction as its application sees it: work at participants, then commit or abort. Numbers
the work, carries the marks, builds the list of participants, tells the outcome. Refuses to know
what the work does. docs/protocol.md, "Messages"."""

from __future__ import annotations

import enum
import logging
import os
import threading
import time
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any

from thrift.Thrift import TApplicationException, TException

from troth.clock import Backoff, Deadline, boot_ms
from troth.connection import NotSent, Unanswered
from troth.outcome import (
    Aborted, Failure, Kind, Outcome, OutcomeUnknown, WorkFailed, failure_of, outcome_of)
from troth.traceparent import is_traceparent
from troth.wire.coordinator import ttypes as coordinator_types
from troth.wire.values import ttypes as values

if TYPE_CHECKING:
    from troth.client import Client

log = logging.getLogger("troth")

_ABORT_TIMEOUT_MS = 1_000  # an abort is told to the coordinator within this, or not at all


class Wait(enum.Enum):
    """When commit returns."""

    APPLIED = coordinator_types.Wait.APPLIED  # own writes are visible; or the deadline passed
    DECIDED = coordinator_types.Wait.DECIDED  # the decision is durable


@dataclass(frozen=True)
class TransactionOptions:
    isolation: int | None = None  # troth.wire.values.ttypes.Isolation, of every branch
    read_only: bool = False  # every branch is opened read-only
    key: str = ""  # business key: at most one committed transaction bears it while keys are kept
    traceparent: str = ""
    wait: Wait = Wait.APPLIED


@dataclass
class _BranchState:
    read_only: bool = False
    opened: bool = False
    unheard: bool = False  # work 0 was surely not begun
    busy: bool = False
    mark: str = ""
    instance: str = ""
    works: int = 0
    work_ms: int = 0  # of all its works, until they were answered
    vote: Any = None


class Transaction:
    """From Client.transaction(). Work at different participants may run in several threads at
    once; work at one participant, commit and abort are one at a time. As a context manager it
    commits at the end (raises Aborted or OutcomeUnknown unless it went through) and aborts on an
    exception, which goes through; a piece of work that failed is told as Aborted. After a commit()
    of the block's own every exception goes through, and `outcome` says what became of it."""

    def __init__(self, client: "Client", id_: str, deadline: Deadline,
                 options: TransactionOptions) -> None:
        self._client = client
        self._pid = os.getpid()
        self.id = id_
        self._deadline = deadline
        self._options = options
        self._began_ms = boot_ms()
        self._lock = threading.Lock()
        self._branches: dict[str, _BranchState] = {}
        self._failure: Failure | None = None
        self._ended = False
        self.outcome: Outcome | None = None  # once commit or abort was called

    def _of_this_process(self) -> bool:
        """False in a fork's child, whose client may have begun a life of its own by now."""
        return os.getpid() == self._pid

    def left_ms(self) -> int:
        """Milliseconds until the deadline, never negative."""
        return self._deadline.left_ms()

    @property
    def failure(self) -> Failure | None:
        """What went wrong first."""
        return self._failure

    # Work -------------------------------------------------------------------------------------

    def call(self, participant: str, service: Any, method: str, *arguments: Any,
             read_only: bool = False, last: bool = False) -> Any:
        """One piece of work: calls `method` of the generated module `service` with the context
        and `arguments`; returns its reply, a struct whose `branch` is the wire's Branch. Work is
        never repeated here: after any error this transaction can only be aborted. `read_only`:
        opens this branch read-only (its first work only). `last`: the last work at this
        participant; it is prepared in the same call. Raises WorkFailed; an exception that the
        service declares is its `__cause__`."""
        if not self._of_this_process():
            raise WorkFailed(Failure(values.Reason.INVALID,
                                     f"transaction {self.id} belongs to the parent process"))
        from_ms = boot_ms()
        context, branch = self._start(participant, read_only, last)
        try:
            connection = self._client.connect_participant(participant, branch.instance,
                                                          self._deadline)
        except WorkFailed as error:
            raise self._fail(branch, error.failure, unheard=True) from None
        try:
            with self._lock:
                self._raise_if_ended()  # while it was connected: the abort went elsewhere
                branch.instance = connection.instance  # it goes there, also without an answer
        except WorkFailed:
            self._client.give_back(connection)
            raise
        context.deadline_ms = max(1, self._deadline.left_ms())  # connecting may have taken time
        timeout_ms = self._deadline.left_ms() + self._client.grace_ms
        try:
            reply = connection.call(timeout_ms, lambda protocol: getattr(
                service.Client(protocol), method)(context, *arguments))
        except values.Refused as refused:
            raise self._fail(branch, failure_of(refused, participant),
                             bool(refused.unheard)) from None
        except TException as error:
            raise self._fail(branch, Failure(values.Reason.APPLICATION, str(error), False,
                                             participant)) from error
        except (NotSent, Unanswered) as error:
            # The work may have been done: it is not repeated, the transaction is.
            reason = (values.Reason.DEADLINE if self._deadline.passed()
                      else values.Reason.DATABASE_UNAVAILABLE)
            raise self._fail(branch, Failure(reason, f"no answer: {error}", True,
                                             participant)) from None
        except BaseException:
            self._fail(branch, Failure(values.Reason.APPLICATION,
                                       "the work ended with an exception", False, participant))
            raise
        finally:
            self._client.give_back(connection)
            with self._lock:
                branch.work_ms += boot_ms() - from_ms
        self._take(participant, branch, context, getattr(reply, "branch", reply))
        return reply

    def _raise_if_ended(self) -> None:
        if self._ended:
            raise WorkFailed(Failure(
                values.Reason.ENDED, "no more work goes into this transaction, it has ended: "
                f"{self.outcome or self.id}"))

    def _start(self, participant: str, read_only: bool, last: bool) -> tuple[Any, _BranchState]:
        with self._lock:
            self._raise_if_ended()
            if self._failure is not None:
                raise WorkFailed(self._failure)
            left_ms = self._deadline.left_ms()
            if left_ms == 0:
                self._failure = Failure(values.Reason.DEADLINE, "the deadline passed before the work "
                                        "was done", True, participant)
                raise WorkFailed(self._failure)
            branch = self._branches.setdefault(participant, _BranchState())
            if branch.busy or branch.vote is not None:
                raise RuntimeError("two threads in one branch, or work after the last")
            branch.busy = True
            context = values.Context(self.id, branch.works, left_ms)
            if branch.opened:
                context.mark = branch.mark
            else:
                branch.read_only = self._options.read_only or read_only
                context.isolation = self._options.isolation
                context.read_only = True if branch.read_only else None
            context.traceparent = self._options.traceparent or None
            context.last = True if last else None
            return context, branch

    def _fail(self, branch: _BranchState, failure: Failure, unheard: bool = False) -> WorkFailed:
        with self._lock:
            branch.busy = False
            branch.unheard = unheard and not branch.opened
            self._failure = self._failure or failure
        return WorkFailed(failure)

    def _take(self, participant: str, branch: _BranchState, context: Any, answer: Any) -> None:
        wrong = ""
        with self._lock:
            self._raise_if_ended()  # aborted meanwhile: the branch is counted no more
            if not isinstance(answer, values.Branch):
                wrong = "the answer bears no branch"
            elif answer.participant != participant:
                wrong = f"the answer is from participant '{answer.participant}'"
            elif answer.works != context.work + 1:
                wrong = f"work {context.work} was answered with {answer.works} pieces of work done"
            elif not answer.mark or (branch.opened and answer.mark != branch.mark):
                wrong = "the answer bears another mark"
            elif context.last and answer.vote is None:
                wrong = "the last work was answered without a vote"
            elif answer.vote is not None and not context.last:
                wrong = "the answer bears a vote, and the work was not the last"
            else:
                branch.busy, branch.opened = False, True
                branch.mark, branch.instance, branch.works = answer.mark, answer.instance, answer.works
                branch.vote = answer.vote
        if wrong:
            raise self._fail(branch, Failure(values.Reason.OUT_OF_NUMBER, wrong, True, participant))
        if context.work == 0:
            self._client.count_branch(answer.instance, +1)
        vote = answer.vote
        if vote is not None and vote.ballot not in (values.Ballot.PREPARED, values.Ballot.READ_ONLY):
            raise self._fail(branch, Failure(
                vote.reason or values.Reason.DATABASE, vote.message or "", bool(vote.retryable),
                participant, vote.sqlstate or ""))

    # The end ----------------------------------------------------------------------------------

    def __enter__(self) -> "Transaction":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> bool:
        if error is not None:
            self.abort()
            # After a commit of the block's own it may be another's work that failed.
            if (isinstance(error, WorkFailed) and self.outcome is not None and
                    self.outcome.kind is Kind.ABORTED):
                raise Aborted(self.outcome) from error
            return False
        if not self._ended:
            self.commit()
        assert self.outcome is not None
        if not self.outcome.ok:
            raise (Aborted if self.outcome.kind is Kind.ABORTED else OutcomeUnknown)(self.outcome)
        return False

    def commit(self, wait: Wait | None = None) -> Outcome:
        """Commits, unless a piece of work failed: then aborts. Repeats the call until the deadline
        when the coordinator does not answer, ABORTED if no call could be sent until then; returns a
        little after it at the latest (up to a second when it aborts). To be
        called once, and not while work is under way: RuntimeError, and the latter aborts. Raises
        nothing of the transaction's: the outcome says what is known."""
        if not self._of_this_process():
            return self._end_in_child()
        with self._lock:
            if self._ended:
                raise RuntimeError(f"transaction {self.id} has ended already")
            busy = next((name for name, branch in self._branches.items() if branch.busy), None)
            if busy is not None:
                self._failure = self._failure or Failure(
                    values.Reason.APPLICATION, "the commit was asked for while work was under way",
                    False, busy)
            self._ended = True
            if self._failure is None and self._branches and self._deadline.passed():
                self._failure = Failure(values.Reason.DEADLINE, "the deadline passed before the "
                                        "commit was asked for", True)
        end_ms = boot_ms()
        if self._failure is not None:
            # Never asked to commit, so it never will be: only this object could have asked.
            self._send_abort()
            outcome = Outcome(Kind.ABORTED, self.id, failure=self._failure)
        elif not self._branches:
            outcome = Outcome(Kind.READ_ONLY, self.id)
        else:
            outcome = self._ask_commit(wait or self._options.wait)
        self.outcome = outcome
        self._tell_if_slow(outcome, end_ms)
        self._forget()
        if busy is not None:
            raise RuntimeError(f"transaction {self.id} was to commit while work at '{busy}' was under "
                               "way; it is aborted: await all work before the commit")
        return outcome

    def abort(self) -> None:
        """Aborts. Binding for every branch at once where the coordinator can be reached within a
        second; otherwise branches are rolled back at their deadline. Never turns into a commit.
        After commit() it does nothing."""
        if not self._of_this_process():
            self._end_in_child()
            return
        with self._lock:
            if self._ended:
                return
            self._ended = True
        failure = self._failure or Failure(values.Reason.APPLICATION,
                                           "aborted by its application")
        self.outcome = Outcome(Kind.ABORTED, self.id, failure=failure)
        end_ms = boot_ms()
        self._send_abort()
        self._tell_if_slow(self.outcome, end_ms)
        self._forget()

    def _end_in_child(self) -> Outcome:
        """Without the lock: a thread of the parent may have held it at the fork."""
        self._ended = True
        self.outcome = self.outcome or self._unknown(
            "it belongs to the parent process, which may commit it")
        return self.outcome

    def _tell_if_slow(self, outcome: Outcome, end_ms: int) -> None:
        now_ms, slow_ms = boot_ms(), self._client.slow_ms
        if slow_ms <= 0 or now_ms - self._began_ms < slow_ms:
            return
        with self._lock:
            works = "".join(f"work at {name} {branch.work_ms}, "
                            for name, branch in sorted(self._branches.items()))
        trace = self._options.traceparent
        log.warning("slow transaction %s: %s after %d ms: until its end was asked %d (%sthe rest "
                    "its application's), commit or abort %d%s", self.id,
                    outcome.kind.value, now_ms - self._began_ms, end_ms - self._began_ms, works,
                    now_ms - end_ms, f"; traceparent {trace}" if is_traceparent(trace) else "")

    def _claims(self) -> list[Any]:
        with self._lock:
            return [coordinator_types.BranchClaim(
                name, branch.mark, branch.works, branch.instance, branch.vote,
                True if branch.read_only else None) for name, branch in sorted(self._branches.items())
                if not branch.unheard]

    def _forget(self) -> None:
        with self._lock:
            gone, self._branches = self._branches, {}
        for branch in gone.values():
            if branch.opened:
                self._client.count_branch(branch.instance, -1)

    def _send_abort(self) -> None:
        # Also those whose first work was not answered: a branch may be there. Not those that
        # surely were not begun.
        claims = self._claims()
        if not claims:
            return
        message = self._failure.message if self._failure else None
        request = coordinator_types.AbortRequest(self.id, claims, message)
        try:
            self._client.try_coordinator(Deadline.after(_ABORT_TIMEOUT_MS),
                                         lambda c: c.abort(request))
        except (NotSent, Unanswered, TApplicationException, values.Refused):
            pass  # without a commit call the lease's end aborts, deadlines release the branches

    def _unknown(self, why: str) -> Outcome:
        return Outcome(Kind.UNKNOWN, self.id, failure=Failure(
            values.Reason.NOT_SERVING, "the coordinator did not tell the outcome before the "
            f"deadline ({why}); ask it for the outcome of {self.id}"))

    def _after_refusal(self, refused: Any, heard: bool) -> Outcome:
        # Another list is bound to the id: somebody else asked to commit it. Its commit says nothing
        # of our branches; its abort is the id's.
        foreign = refused.reason == values.Reason.OTHER_PARTICIPANTS
        if not heard and not foreign:
            # Surely not done, and this id is never asked to commit again.
            failure = failure_of(refused)
            if refused.reason in (values.Reason.NOT_LEASED, values.Reason.NOT_MINE):
                # Under an id of the coordinator's present life it may succeed.
                failure = Failure(failure.reason, failure.message, True)
            self._send_abort()
            return Outcome(Kind.ABORTED, self.id, failure=failure)
        # An earlier call may have been heard; this refusal speaks of the later one only.
        try:
            told = outcome_of(self._client.try_coordinator(
                self._deadline, lambda c: c.outcome(self.id, 0)))
        except (NotSent, Unanswered, TApplicationException, values.Refused):
            return self._unknown(refused.message)
        if foreign and told.final and told.kind is not Kind.ABORTED:
            return Outcome(Kind.UNKNOWN, self.id, failure=Failure(
                refused.reason, f"{refused.message}; that list is {told.kind.value}, and nobody can "
                "tell which of this transaction's work is in it: look at its participants"))
        return told if told.final else self._unknown(refused.message)

    def _ask_commit(self, wait: Wait) -> Outcome:
        from troth.client import passes_by_itself  # pylint: disable=import-outside-toplevel
        options = self._options
        request = coordinator_types.CommitRequest(
            self.id, self._claims(), 0, wait.value, options.key or None, options.traceparent or None)
        heard = False  # a call may have reached the coordinator, its answer did not reach us
        backoff = Backoff(10, 200)
        while True:
            request.deadline_ms = max(1, self._deadline.left_ms())
            refusal, why = None, "it is pending"
            try:
                told = outcome_of(self._client.try_coordinator(
                    self._deadline, lambda c: c.commit(request)))
                if told.final or (told.kind is Kind.PENDING and self._deadline.passed()):
                    return told
                heard = True
            except values.Refused as refused:
                if not passes_by_itself(refused.reason):
                    return self._after_refusal(refused, heard)
                refusal, why = refused, refused.message
            except NotSent as error:
                why = str(error)
            except (Unanswered, TApplicationException) as error:
                heard, why = True, str(error)
            left_ms = self._deadline.left_ms()
            if left_ms == 0:
                if heard:
                    return self._unknown(why)
                if refusal is not None:
                    return self._after_refusal(refusal, heard)
                # No call left this process, and none will: only this object could have asked.
                self._send_abort()
                return Outcome(Kind.ABORTED, self.id, failure=Failure(
                    values.Reason.NOT_SERVING, "the coordinator could not be asked to commit before "
                    f"the deadline: {why}", True))
            # Repeating is safe: the same list gives the same answer.
            time.sleep(min(left_ms, backoff.next_ms()) / 1000)
