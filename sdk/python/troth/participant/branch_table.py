"""The rules of a participant: which work may be done, which branch may be prepared, what a finish
does to it, when a branch is rolled back (docs/protocol.md, "States", and "Laws" L8-L13). Knows
neither wire nor PostgreSQL. The rules are those of participant/branch_table.cc, which does more for
work that hangs (cancels it again, gives it up) and lets first work wait for a place."""

from __future__ import annotations

import enum
import secrets
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Callable

from troth import failpoint
from troth.ids import TransactionId, is_participant_name, make_gid
from troth.participant.values import (
    BeginOptions, BranchCounts, BranchInfo, WorkReply, Evidence, FinishKind, FinishOrder,
    FinishRequest, FinishResult, PrepareKind, PrepareRequest, PrepareResult, Refusal, Refused,
    ResourceManager, Session, Vote, VoteKind, Work, WorkRequest)

# How long a branch's own vote is taken for what is prepared under its GID.
_TRUST_MS = 1_000


class _State(enum.Enum):
    OPENING = 1  # work 0 waits for its block; no session yet
    WORKING = 2  # the application has the session; or it is being rolled back
    ACTIVE = 3  # between two pieces of work
    FAILED = 4  # rolled back after an error; kept so that work and prepare are refused
    PREPARING = 5
    PREPARED = 6  # in doubt
    FINISHING = 7

    def word(self) -> str:
        """For status."""
        return "active" if self.value <= 3 else self.name.lower()


_IN_DOUBT = (_State.PREPARING, _State.PREPARED, _State.FINISHING)
_IDLE = (_State.ACTIVE, _State.FAILED)


class _How(enum.Enum):
    ROLLED_BACK = 1
    READ_ONLY = 2
    COMMITTED = 3


@dataclass
class _Branch:
    id: str
    mark: str
    begun_ms: int
    deadline_ms: int
    since_ms: int
    state: _State = _State.OPENING
    works: int = 0
    session: Session | None = None
    cancelling: bool = False
    doom: Refusal | None = None  # why it ends as soon as whoever works on it lets go; or failed
    evidence: Evidence | None = None
    prepared_ms: int = 0  # first
    generation: int = 0


@dataclass
class _Ended:
    how: _How
    settled: bool = False  # surely nothing is prepared under the GID
    works: int = 0
    why: Refusal | None = None  # ROLLED_BACK


@dataclass(eq=False)
class _Job:
    """An order that the database has."""

    request: FinishRequest
    order: FinishOrder
    result: FinishResult | None = None


@dataclass
class _Leaving:
    """What is to be done when the lock is free."""

    roll_back: list[Session] = field(default_factory=list)
    cancel: list[_Branch] = field(default_factory=list)
    start: list[_Job] = field(default_factory=list)


def _no_such_branch(transaction_id: str) -> Refusal:
    return Refusal(Refused.NO_SUCH_BRANCH,
                   f"there is no branch of {transaction_id} here: never begun, or lost when the "
                   "participant restarted; abort the transaction and begin anew", True)


def _aborted(transaction_id: str) -> Refusal:
    return Refusal(Refused.ENDED, f"transaction {transaction_id} is aborted", True)


def _refused(refusal: Refusal | None, works: int = 0) -> Vote:
    return Vote(VoteKind.REFUSED, works, refusal=refusal)


def _working(why: str) -> FinishResult:
    return FinishResult(FinishKind.WORKING, why)


class BranchTable:
    """Thread-safe monitor. One thing at a time happens to an id; calls about different ids do
    not wait for each other. While the database works, the monitor is free."""

    def __init__(self, participant: str, instance: str, resource_manager: ResourceManager, *,
                 max_in_doubt: int = 200, lease_ms: int = 30_000, max_ended: int = 1_000_000,
                 now_ms: Callable[[], int] = lambda: time.monotonic_ns() // 1_000_000) -> None:
        assert is_participant_name(participant)
        self._participant = participant
        self._instance = instance
        self._rm = resource_manager
        self._max_in_doubt = max_in_doubt
        self._lease_ms = lease_ms
        self._max_ended = max_ended
        self._now_ms = now_ms
        self._changed = threading.Condition()
        self._version = 0
        self._branches: dict[str, _Branch] = {}
        self._jobs: dict[str, _Job] = {}
        self._ended: dict[str, _Ended] = {}
        self._ended_order: deque[tuple[int, str]] = deque()
        self._epochs: dict[str, int] = {}  # by coordinator, the highest begun
        self._found = 0
        self._heuristics = 0
        self._hazards = 0
        self._draining = False

    # Work -----------------------------------------------------------------------------------

    def start_work(self, request: WorkRequest) -> Work:
        """Lets work in, or raises Refusal. Work 0 must find no branch and the id not ended; work
        n must bring the mark, find n done, none under way and no failure. A refusal leaves a
        branch that exists as it was."""
        if TransactionId.parse(request.transaction_id) is None:
            raise Refusal(Refused.INVALID, "not a transaction id")
        if request.work < 0:
            raise Refusal(Refused.INVALID, "the number of work is negative")
        if request.time_left_ms <= 0:
            raise Refusal(Refused.DEADLINE, "the transaction's deadline has passed", True)
        if request.time_left_ms > self._lease_ms:
            raise Refusal(Refused.INVALID, "no transaction lasts longer than a lease: deadline_ms "
                          f"is above {self._lease_ms}")
        return self._open(request) if request.work == 0 else self._continue(request)

    def _may_open(self, request: WorkRequest) -> None:
        id_ = request.transaction_id
        if id_ in self._ended:
            raise Refusal(Refused.ENDED, f"transaction {id_} has already ended here")
        if id_ in self._branches:
            raise Refusal(Refused.OUT_OF_NUMBER,
                          f"transaction {id_} has a branch here already: its work 0 was done")
        if request.mark:
            raise Refusal(Refused.OUT_OF_NUMBER, "work 0 brings a mark, which only work 0 draws")
        if self._of_ended_epoch(id_):
            raise Refusal(Refused.ENDED,
                          f"transaction {id_} is of an epoch that its coordinator has ended", True)
        if self._draining:
            raise Refusal(Refused.NOT_SERVING, "the participant is shutting down", True,
                          unheard=True)
        there = len(self._branches) + self._found
        if there >= self._max_in_doubt:
            raise Refusal(Refused.OVERLOADED,
                          f"{there} branches are open or in doubt here, the limit is "
                          f"max_in_doubt = {self._max_in_doubt}", True, unheard=True)
        if len(self._ended) >= self._max_ended:
            raise Refusal(Refused.OVERLOADED, "too many transactions ended within one lease", True,
                          unheard=True)

    def _open(self, request: WorkRequest) -> Work:
        id_ = request.transaction_id
        with self._changed:
            self._may_open(request)
            now = self._now_ms()
            branch = _Branch(id_, secrets.token_hex(8), now, now + request.time_left_ms, now)
            self._branches[id_] = branch
        session, refusal = None, None
        try:
            session = self._rm.begin(BeginOptions(
                make_gid(self._participant, id_), branch.mark, request.isolation,
                request.read_only, request.time_left_ms, request.label))
        except Refusal as error:
            refusal = error
            refusal.unheard = True
        except BaseException:
            with self._changed:
                del self._branches[id_]
                self._notify()
            raise
        leaving = _Leaving()
        with self._changed:
            if branch.doom is not None:  # aborted meanwhile
                refusal = branch.doom
                if session is not None:
                    leaving.roll_back.append(session)
                self._end(id_, _Ended(_How.ROLLED_BACK, True, 0, refusal))
            elif refusal is not None:
                del self._branches[id_]
            else:
                branch.session = session
                self._enter(branch, _State.WORKING)
            self._notify()
        self._leave(leaving)
        if refusal is not None:
            raise refusal.again()
        assert session is not None
        return Work(id_, session)

    def _continue(self, request: WorkRequest) -> Work:
        id_ = request.transaction_id
        with self._changed:
            branch = self._branches.get(id_)
            if branch is None:
                if id_ in self._ended:
                    raise Refusal(Refused.ENDED, f"transaction {id_} has already ended here")
                raise _no_such_branch(id_)
            if request.mark != branch.mark:
                raise Refusal(Refused.OUT_OF_NUMBER,
                              f"the mark is not that of the branch of {id_} here")
            if branch.doom is not None:
                raise Refusal(Refused.ENDED, "an earlier piece of work failed, abort the "
                              f"transaction: {branch.doom.message}", branch.doom.retryable,
                              branch.doom.sqlstate)
            if branch.state in (_State.OPENING, _State.WORKING):
                raise Refusal(Refused.OUT_OF_NUMBER, f"another piece of work of {id_} is under way")
            if branch.state is not _State.ACTIVE:
                raise Refusal(Refused.ENDED,
                              f"the branch of {id_} is being prepared, or is prepared")
            if request.work != branch.works:
                raise Refusal(Refused.OUT_OF_NUMBER,
                              f"work {request.work} of {id_} came, and {branch.works} is next")
            if self._now_ms() >= branch.deadline_ms:
                raise Refusal(Refused.DEADLINE, "the transaction's deadline has passed", True)
            self._enter(branch, _State.WORKING)
            assert branch.session is not None
            return Work(id_, branch.session)

    def end_work(self, work: Work, failure: Refusal | None, last: bool) -> WorkReply:
        """Ends work. With `failure` the branch is rolled back now, work and prepare are refused
        until it is aborted, and that refusal is raised. Without it the session is looked at and
        the piece is counted; with `last` the branch is prepared too."""
        failpoint.passing("work-done")
        with self._changed:
            branch = self._branches[work.transaction_id]
            assert branch.state is _State.WORKING and branch.session is work.session
            self._changed.wait_for(lambda: not branch.cancelling)
            failure = branch.doom or failure or work.session.broken()
            left_ms = branch.deadline_ms - self._now_ms()
            if failure is None and last and left_ms <= 0:
                failure = Refusal(Refused.DEADLINE,
                                  "the deadline passed before the branch was prepared", True)
            if failure is None:
                branch.works += 1
                self._enter(branch, _State.PREPARING if last else _State.ACTIVE)
            else:
                branch.session = None
            reply = WorkReply(branch.mark, branch.works)
            self._notify()
        if failure is not None:
            self._fail(branch, work.session, failure)
        if not last:
            return reply
        return self._prepare_last(branch, reply, left_ms)

    def _fail(self, branch: _Branch, session: Session, failure: Refusal) -> None:
        session.rollback()
        with self._changed:
            if branch.doom is not None:
                self._end(branch.id, _Ended(_How.ROLLED_BACK, True, branch.works, branch.doom))
            else:
                branch.doom = failure.again()
                self._enter(branch, _State.FAILED)
            self._notify()
        raise failure.again()

    def _prepare_last(self, branch: _Branch, reply: WorkReply, left_ms: int) -> WorkReply:
        self._start_prepares([branch])
        with self._changed:
            self._changed.wait_for(lambda: self._vote_of(branch.id).kind is not VoteKind.WORKING,
                                   left_ms / 1000)
            vote = self._vote_of(branch.id)
            if vote.kind is VoteKind.WORKING:
                # Rolled back when it is prepared.
                branch.doom = Refusal(Refused.DEADLINE, "the branch was not prepared in time", True)
                raise branch.doom.again()
        if vote.kind is VoteKind.REFUSED:
            assert vote.refusal is not None
            raise vote.refusal.again()
        reply.vote = vote
        return reply

    # Prepare --------------------------------------------------------------------------------

    def prepare(self, requests: list[PrepareRequest], wait_ms: int) -> list[Vote]:
        """Votes, in order. Waits at most `wait_ms`; a slower branch votes WORKING and goes on:
        ask again. A repeated prepare gets the same vote. REFUSED binds."""
        leaving, to_start = _Leaving(), []
        with self._changed:
            early = [self._start_prepare(request, to_start, leaving) for request in requests]
        self._leave(leaving)
        self._start_prepares(to_start)

        def settled() -> bool:
            return all(vote is not None or
                       self._vote_of(request.transaction_id).kind is not VoteKind.WORKING
                       for vote, request in zip(early, requests))

        with self._changed:
            self._changed.wait_for(settled, wait_ms / 1000)
            return [vote or self._vote_of(request.transaction_id)
                    for vote, request in zip(early, requests)]

    def _start_prepare(self, request: PrepareRequest, to_start: list[_Branch],
                       leaving: _Leaving) -> Vote | None:
        """A vote, or None: it is in the database's hands."""
        id_ = request.transaction_id
        branch = self._branches.get(id_)
        if branch is None:
            if TransactionId.parse(id_) is None:
                return _refused(Refusal(Refused.INVALID, "not a transaction id"))
            if id_ not in self._ended:  # the vote binds: late work must find the id ended
                self._end(id_, _Ended(_How.ROLLED_BACK, False, 0, _no_such_branch(id_)))
            return self._vote_of(id_)
        refusal = None
        if request.instance != self._instance:
            refusal = _no_such_branch(id_)
        elif request.mark != branch.mark or request.works != branch.works:
            refusal = Refusal(
                Refused.OUT_OF_NUMBER,
                f"prepare names mark {request.mark} and {request.works} pieces of work; the branch "
                f"of {id_} here has mark {branch.mark} and did {branch.works}")
        if branch.state in _IN_DOUBT:
            return _refused(refusal, branch.works) if refusal else None
        if branch.state is _State.FAILED:
            refusal = branch.doom
        elif branch.state is not _State.ACTIVE:
            refusal = refusal or Refusal(Refused.OUT_OF_NUMBER, f"work of {id_} is still under way")
        elif refusal is None and (self._now_ms() >= branch.deadline_ms or
                                  request.time_left_ms <= 0):
            refusal = Refusal(Refused.DEADLINE,
                              "the deadline passed before the branch was prepared", True)
        if refusal is not None:
            works = branch.works
            self._doom(branch, refusal, leaving)
            return _refused(refusal, works)
        self._enter(branch, _State.PREPARING)
        to_start.append(branch)
        return None

    def _start_prepares(self, branches: list[_Branch]) -> None:
        for branch in branches:
            session, branch.session = branch.session, None
            assert session is not None
            self._rm.start_prepare(
                session, lambda result, branch=branch: self._take_prepared(branch, result))

    def _take_prepared(self, branch: _Branch, result: PrepareResult) -> None:
        leaving = _Leaving()
        with self._changed:
            self._take(branch, result, leaving)
            self._notify()
        self._leave(leaving)

    def _take(self, branch: _Branch, result: PrepareResult, leaving: _Leaving) -> None:
        id_ = branch.id
        if result.kind is PrepareKind.PREPARED and branch.doom is None:
            branch.evidence = result.evidence
            branch.generation = result.generation
            self._enter(branch, _State.PREPARED)
            branch.prepared_ms = branch.since_ms
            return
        if result.kind is PrepareKind.READ_ONLY:
            self._end(id_, _Ended(_How.READ_ONLY, True, branch.works))
            return
        why = branch.doom if result.kind is PrepareKind.PREPARED else result.refusal
        # 42710: somebody else's is prepared under this GID.
        settled = (result.kind is PrepareKind.REFUSED and
                   result.refusal is not None and result.refusal.sqlstate != "42710")
        self._end(id_, _Ended(_How.ROLLED_BACK, settled, branch.works, why))
        if result.kind is not PrepareKind.REFUSED:
            # Whatever an unknown one came to, it was not said: no vote. If it is prepared it
            # goes now, or the sweep finds it. Nothing else goes: an earlier branch of the id,
            # which voted, may sit under its GID.
            assert result.evidence is not None
            self._new_job(FinishRequest(id_, False, None, result.evidence.xid & 0xFFFFFFFF), leaving)

    def _vote_of(self, id_: str) -> Vote:
        branch = self._branches.get(id_)
        if branch is not None:
            if branch.state in (_State.PREPARED, _State.FINISHING):
                return Vote(VoteKind.PREPARED, branch.works, branch.evidence)
            return Vote(VoteKind.WORKING, branch.works)
        ended = self._ended.get(id_)
        if ended is None:
            return _refused(_no_such_branch(id_))
        if ended.how is _How.READ_ONLY:
            return Vote(VoteKind.READ_ONLY, ended.works)
        if ended.how is _How.ROLLED_BACK:
            return _refused(ended.why, ended.works)
        return _refused(Refusal(Refused.ENDED, f"transaction {id_} is already committed here"))

    # Finish ---------------------------------------------------------------------------------

    def finish(self, requests: list[FinishRequest], wait_ms: int) -> list[FinishResult]:
        """Settles, in order. Waits at most `wait_ms`. An abort cancels work under way, rolls back
        an open branch, waits behind a PREPARE; it ends the id, even one never heard of, so that
        work that comes late finds it ended. Safe to repeat."""
        until = time.monotonic() + wait_ms / 1000
        jobs: list[_Job | None] = [None] * len(requests)
        results: list[FinishResult | None] = [None] * len(requests)
        pending = list(range(len(requests)))
        while True:
            leaving = _Leaving()
            with self._changed:
                seen = self._version
                for i in pending:
                    if jobs[i] is None:
                        made = self._start_finish(requests[i], leaving)
                        if isinstance(made, _Job):
                            jobs[i] = made
                        else:
                            results[i] = made
            self._leave(leaving)
            with self._changed:
                for i in pending:
                    job = jobs[i]
                    if job is not None:
                        results[i] = job.result or _working("under way")
                # What was being worked on ends soon after it was cancelled: look again.
                pending = [i for i in pending
                           if (jobs[i].result is None if jobs[i] is not None
                               else results[i].kind is FinishKind.WORKING)]
                left = until - time.monotonic()
                if not pending or left <= 0:
                    return [result or _working("under way") for result in results]
                self._changed.wait_for(lambda: self._version != seen, left)

    def _start_finish(self, request: FinishRequest, leaving: _Leaving) -> FinishResult | _Job:
        job = self._jobs.get(request.transaction_id)
        if job is not None:
            same = (job.request.commit == request.commit and
                    job.request.only_xid in (None, request.only_xid))
            return job if same else _working("under way")
        return (self._start_commit if request.commit else self._start_abort)(request, leaving)

    def _start_commit(self, request: FinishRequest, leaving: _Leaving) -> FinishResult | _Job:
        id_ = request.transaction_id
        assert request.evidence is not None
        branch = self._branches.get(id_)
        if branch is None:
            ended = self._ended.get(id_)
            known = ended is not None and ended.how is _How.COMMITTED
            if known and request.only_xid is None:
                return FinishResult(FinishKind.DONE)
            return self._new_job(request, leaving)
        if branch.state is _State.FINISHING:
            return _working("under way")
        if branch.state is _State.PREPARING:
            return _working("PREPARE is under way")
        if branch.state is _State.PREPARED:
            job = self._new_job(request, leaving)
            assert branch.evidence is not None
            # Trust is short: this process may have been stopped for long, and another instance
            # have finished the branch and prepared another under its GID.
            if branch.evidence.xid == request.evidence.xid and \
                    self._now_ms() - branch.prepared_ms < _TRUST_MS:
                job.order.generation = branch.generation
            self._enter(branch, _State.FINISHING)
            return job
        # What is open here has not voted; the vote is of an earlier branch under this id.
        idle = branch.state in _IDLE
        self._doom(branch, Refusal(Refused.ENDED, f"another branch of {id_} was decided"), leaving)
        return self._new_job(request, leaving) if idle else _working("work is under way")

    def _start_abort(self, request: FinishRequest, leaving: _Leaving) -> FinishResult | _Job:
        id_ = request.transaction_id
        branch = self._branches.get(id_)
        if branch is None:
            ended = self._ended.get(id_)
            if ended is None:  # work that is still on its way must find the id ended
                self._end(id_, _Ended(_How.ROLLED_BACK, False, 0, _aborted(id_)))
            elif request.only_xid is not None:
                pass  # the sweep saw it prepared, whatever became of another branch of the id
            elif ended.how is _How.COMMITTED:
                return FinishResult(FinishKind.HEURISTIC,
                                    f"transaction {id_} is already committed here")
            elif ended.settled:
                return FinishResult(FinishKind.DONE)
            return self._new_job(request, leaving)
        if branch.state is _State.FINISHING:
            return _working("under way")
        if branch.state is _State.PREPARING:
            branch.doom = branch.doom or _aborted(id_)
            return _working("PREPARE is under way")
        if branch.state is _State.PREPARED:
            assert branch.evidence is not None
            if request.only_xid is not None and request.only_xid != branch.evidence.xid & 0xFFFFFFFF:
                return _working("another branch is prepared under this id by now")
            job = self._new_job(request, leaving)
            job.order.evidence = job.order.evidence or branch.evidence
            self._enter(branch, _State.FINISHING)
            return job
        idle = branch.state in _IDLE
        self._doom(branch, _aborted(id_), leaving)
        if idle:
            return FinishResult(FinishKind.DONE)
        return _working("work is under way, and is being cancelled")

    def _new_job(self, request: FinishRequest, leaving: _Leaving) -> _Job:
        order = FinishOrder(make_gid(self._participant, request.transaction_id), request.commit,
                            request.evidence, None if request.commit else request.only_xid)
        job = _Job(request, order)
        self._jobs[request.transaction_id] = job
        leaving.start.append(job)
        return job

    def _take_finished(self, job: _Job, result: FinishResult) -> None:
        id_ = job.request.transaction_id
        with self._changed:
            job.result = result
            if self._jobs.get(id_) is job:
                del self._jobs[id_]
            branch = self._branches.get(id_)
            if branch is None or branch.state is _State.FINISHING:
                self._judge_finished(job.request, branch, result)
            self._notify()

    def _judge_finished(self, request: FinishRequest, branch: _Branch | None,
                        result: FinishResult) -> None:
        id_ = request.transaction_id
        before = self._ended.get(id_)
        if not request.commit and before is not None and before.how is _How.COMMITTED:
            return  # another branch of the id, which never voted, was rolled back by the sweep
        works = branch.works if branch is not None else 0
        if result.kind is FinishKind.WORKING:
            if branch is not None:
                branch.state = _State.PREPARED
        elif result.kind is FinishKind.DONE:
            if request.commit:
                self._end(id_, _Ended(_How.COMMITTED, True, works))
            else:
                why = before.why if before and before.why else _aborted(id_)
                # One xid is gone; another may be prepared under the GID.
                settled = request.only_xid is None
                self._end(id_, _Ended(_How.ROLLED_BACK, settled, works, why))
        else:
            if result.kind is FinishKind.HEURISTIC:
                self._heuristics += 1
            else:
                self._hazards += 1
            # Not settled: whoever orders it again gets the evidence again.
            self._end(id_, _Ended(_How.ROLLED_BACK, False, works,
                                  Refusal(Refused.ENDED, result.message)))

    # Ends -----------------------------------------------------------------------------------

    def _enter(self, branch: _Branch, state: _State) -> None:
        branch.state = state
        branch.since_ms = self._now_ms()

    def _notify(self) -> None:
        self._version += 1
        self._changed.notify_all()

    def _doom(self, branch: _Branch, why: Refusal, leaving: _Leaving) -> None:
        """Work under way is told to end; an idle branch leaves at once, and its id is ended."""
        if branch.state in _IDLE:
            if branch.session is not None:
                leaving.roll_back.append(branch.session)
            self._end(branch.id, _Ended(_How.ROLLED_BACK, True, branch.works, why))
            return
        branch.doom = branch.doom or why
        if branch.state is _State.WORKING and branch.session is not None and not branch.cancelling:
            branch.cancelling = True
            leaving.cancel.append(branch)

    def _end(self, id_: str, ended: _Ended) -> None:
        self._branches.pop(id_, None)
        if id_ not in self._ended:
            self._ended_order.append((self._now_ms(), id_))
        self._ended[id_] = ended

    def _leave(self, leaving: _Leaving) -> None:
        for branch in leaving.cancel:
            assert branch.session is not None
            branch.session.cancel()
            with self._changed:
                branch.cancelling = False
                self._notify()
        for session in leaving.roll_back:
            session.rollback()
        for job in leaving.start:
            self._rm.start_finish(job.order,
                                  lambda result, job=job: self._take_finished(job, result))

    def tick(self) -> None:
        """Once a few hundred milliseconds at most: rolls back branches idle past their deadline,
        cancels work past it, forgets old ended ids."""
        leaving = _Leaving()
        with self._changed:
            now = self._now_ms()
            late = [branch for branch in self._branches.values() if now >= branch.deadline_ms and
                    (branch.state in _IDLE or
                     (branch.state is _State.WORKING and branch.doom is None))]
            for branch in late:
                self._doom(branch, Refusal(Refused.DEADLINE,
                                           "the transaction's deadline has passed", True), leaving)
            while self._ended_order and self._ended_order[0][0] < now - self._lease_ms:
                del self._ended[self._ended_order.popleft()[1]]
        self._leave(leaving)

    def epoch_began(self, coordinator: str, epoch: int) -> None:
        """The coordinator has begun this epoch: what earlier ones left open can't commit any more
        (law L7a), is rolled back, and nothing of theirs is opened again."""
        leaving = _Leaving()
        with self._changed:
            if epoch <= self._epochs.get(coordinator, 0):
                return
            self._epochs[coordinator] = epoch
            over = [branch for branch in self._branches.values()
                    if branch.state not in _IN_DOUBT and branch.doom is None and
                    self._of_ended_epoch(branch.id)]
            for branch in over:
                self._doom(branch, Refusal(Refused.ENDED, "the coordinator has ended the "
                                           "transaction's epoch", True), leaving)
            self._notify()
        self._leave(leaving)

    def _of_ended_epoch(self, transaction_id: str) -> bool:
        id_ = TransactionId.parse(transaction_id)
        return id_ is not None and id_.epoch < self._epochs.get(id_.coordinator, 0)

    def looks_after(self, transaction_id: str, young_ms: int) -> bool:
        """True when a prepared transaction of this id is being looked after here, so that the
        sweep leaves it alone."""
        with self._changed:
            branch = self._branches.get(transaction_id)
            if branch is None:
                return transaction_id in self._jobs
            return (branch.state is not _State.PREPARED or
                    self._now_ms() - branch.since_ms < young_ms)

    def listed(self, transaction_ids: set[str], asked_at_ms: int, found: int) -> None:
        """Told by the sweep what the database holds prepared. A branch prepared before and not
        listed was settled by another hand; its evidence tells if anybody asks."""
        with self._changed:
            self._found = found
            gone = [id_ for id_, branch in self._branches.items()
                    if branch.state is _State.PREPARED and branch.since_ms < asked_at_ms and
                    id_ not in transaction_ids]
            for id_ in gone:
                self._end(id_, _Ended(_How.ROLLED_BACK, False, 0, Refusal(
                    Refused.ENDED, "the branch was settled by another hand")))

    # Views ----------------------------------------------------------------------------------

    def now_ms(self) -> int:
        return self._now_ms()

    def counts(self) -> BranchCounts:
        with self._changed:
            in_doubt = sum(branch.state in _IN_DOUBT for branch in self._branches.values())
            return BranchCounts(len(self._branches) - in_doubt, in_doubt, self._found,
                                len(self._ended), self._heuristics, self._hazards)

    def list(self, limit: int) -> list[BranchInfo]:
        """The oldest first."""
        with self._changed:
            now = self._now_ms()
            infos = [BranchInfo(branch.id, branch.state.word(), now - branch.begun_ms)
                     for branch in self._branches.values()]
        return sorted(infos, key=lambda info: -info.age_ms)[:limit]

    def drain(self) -> None:
        """From now on work 0 is refused; what has begun may end."""
        with self._changed:
            self._draining = True

    def rollback_all(self) -> None:
        """Rolls back every open branch. For the end of the process."""
        leaving = _Leaving()
        with self._changed:
            self._draining = True
            for branch in list(self._branches.values()):
                if branch.state not in _IN_DOUBT:
                    self._doom(branch, Refusal(Refused.NOT_SERVING,
                                               "the participant is shutting down", True), leaving)
        self._leave(leaving)
