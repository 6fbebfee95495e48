"""The participant under test as its coordinator and its applications see it, and the coordinator
that it is shown. Knows the contract, no rule."""

from __future__ import annotations

import secrets
import threading
import time
from typing import Any, Callable

from thrift.Thrift import TException

from troth.conformance.work import Work
from troth.ids import TransactionId
from troth.transport import FramedSocket, Listener, connect, protocol_on
from troth.vote_mac import participant_secret
from troth.wire.coordinator import CoordinatorPeer
from troth.wire.coordinator import ttypes as coordinator_types
from troth.wire.participant import Participant, ParticipantPeer
from troth.wire.participant import ttypes as participant_types
from troth.wire.values import ttypes as values
from troth.wire.values.constants import PROTOCOL_VERSION

Address = tuple[str, int]

_CALL_S = 10.0
_SETTLE_S = 10.0


class Broken(Exception):
    """A rule is broken; the text says what came instead."""


def expect(condition: Any, what: str) -> None:
    if not condition:
        raise Broken(what)


def refusal(call: Callable[[], Any], *reasons: int, what: str) -> Any:
    """The Refused that the call must raise, with one of the reasons if any are named."""
    try:
        answer = call()
    except values.Refused as refused:
        if reasons and refused.reason not in reasons:
            wanted = " or ".join(values.Reason._VALUES_TO_NAMES[one] for one in reasons)
            raise Broken(f"{what} is refused with {_reason(refused.reason)} "
                         f"({refused.message}), not {wanted}") from None
        return refused
    raise Broken(f"{what} is not refused, but answered {answer}")


def _reason(reason: int | None) -> str:
    return values.Reason._VALUES_TO_NAMES.get(reason, str(reason))


def finished_name(finished: int) -> str:
    return participant_types.Finished._VALUES_TO_NAMES.get(finished, str(finished))


def ballot_name(ballot: int) -> str:
    return values.Ballot._VALUES_TO_NAMES.get(ballot, str(ballot))


class CoordinatorRole:
    """What a participant whose coordinator we are asks of us. `verdicts` are told by id, PENDING
    to all else; a verdict COMMIT names the evidence of `votes`."""

    def __init__(self, port: int, sender: Any) -> None:
        self._sender = sender
        self._secret = secrets.token_bytes(32)
        self.changed = threading.Condition()
        self.enrolments: list[tuple[float, Any]] = []
        self.inquiries: list[tuple[float, str, int]] = []
        self.verdicts: dict[str, int] = {}
        self.votes: dict[str, Any] = {}
        self._port = port
        self._listener = self._listen()

    def _listen(self) -> Listener:
        listener = Listener("participants", "127.0.0.1", self._port, CoordinatorPeer.Processor(self))
        listener.start()
        return listener

    def restart(self) -> None:
        """Ends all its connections and listens again."""
        self._listener.stop(1.0)
        self._listener = self._listen()

    def stop(self) -> None:
        self._listener.stop(1.0)

    def secret(self, participant: str) -> bytes:
        return participant_secret(self._secret, participant)

    def enroll(self, enrolment: Any) -> Any:
        with self.changed:
            self.enrolments.append((time.monotonic(), enrolment))
            self.changed.notify_all()
        return coordinator_types.Enrolled(PROTOCOL_VERSION, self._sender,
                                          self.secret(enrolment.participant))

    def inquire(self, participant: str, inquiries: list[Any], seen: Any) -> list[Any]:
        verdicts = coordinator_types.Verdict
        answers = []
        with self.changed:
            for one in inquiries:
                self.inquiries.append((time.monotonic(), one.transaction_id, one.xid))
                verdict = self.verdicts.get(one.transaction_id, verdicts.PENDING)
                vote = self.votes.get(one.transaction_id)
                evidence = ((vote.xid, vote.timeline, vote.position)
                            if verdict == verdicts.COMMIT and vote is not None else ())
                answers.append(coordinator_types.Answer(one.transaction_id, verdict, *evidence))
            self.changed.notify_all()
        return answers

    def wait(self, condition: Callable[[], Any], seconds: float, what: str) -> Any:
        with self.changed:
            value = self.changed.wait_for(condition, seconds)
        expect(value, f"{what} did not come within {seconds:g} s")
        return value

    def inquired(self, id_: str, since: float = 0.0) -> list[tuple[float, str, int]]:
        return [one for one in self.inquiries if one[1] == id_ and one[0] > since]


class Subject:
    """The participant. Every id that a rule used is aborted when the rule is over."""

    def __init__(self, peer: Address, work_address: Address, work: Work, read: Work | None,
                 failing: Work | None, role: CoordinatorRole | None, sender: Any,
                 database: Any) -> None:
        self._peer_address = peer
        self._work_address = work_address
        self.work_piece = work
        self.read_piece = read
        # A second piece in one branch: what only reads can surely be done after the first.
        self.second_piece = read or work
        self.failing_piece = failing
        self.role = role
        self.sender = sender
        self.database = database  # psycopg2 connection to its database, or None
        self._sequence = 0
        self._used: list[str] = []
        self._open: list[FramedSocket] = []
        hello = self.peer().hello(PROTOCOL_VERSION, sender)
        self.name, self.instance = hello.participant, hello.instance

    # Connections ------------------------------------------------------------------------------

    def connect(self, address: Address) -> FramedSocket:
        transport = connect(*address, 3.0)
        transport.set_timeout(_CALL_S)
        self._open.append(transport)
        return transport

    def peer_transport(self) -> FramedSocket:
        return self.connect(self._peer_address)

    def work_transport(self) -> FramedSocket:
        return self.connect(self._work_address)

    def peer(self) -> Any:
        return ParticipantPeer.Client(protocol_on(self.peer_transport()))

    def participant(self) -> Any:
        return Participant.Client(protocol_on(self.work_transport()))

    def clean_up(self) -> None:
        """After each rule: nothing of it stays behind."""
        for id_ in self._used:
            try:
                self.finish(id_, commit=False)
            except (values.Refused, TException, OSError, Broken):
                pass
        self._used = []
        for transport in self._open:
            transport.close()
        self._open = []

    # Calls ------------------------------------------------------------------------------------

    def new_id(self, epoch: int | None = None) -> str:
        self._sequence += 1
        sender = self.sender
        id_ = str(TransactionId(sender.coordinator, epoch or sender.epoch, sender.epoch_random,
                                self._sequence))
        self._used.append(id_)
        return id_

    def work(self, id_: str, number: int, mark: str | None = None, *, deadline_ms: int = 15_000,
             read_only: bool = False, last: bool = False, piece: Work | None = None) -> Any:
        """One piece of work; its Branch."""
        context = values.Context(id_, number, deadline_ms, mark, None, True if read_only else None,
                                 None, True if last else None)
        transport = self.work_transport()
        try:
            return (piece or self.work_piece).do(protocol_on(transport), context)
        finally:
            transport.close()

    def begin(self, **options: Any) -> tuple[str, Any]:
        id_ = self.new_id()
        return id_, self.work(id_, 0, **options)

    def prepare_request(self, id_: str, branch: Any, **other: Any) -> Any:
        request = participant_types.PrepareRequest(id_, branch.mark, branch.works, 10_000,
                                                   branch.instance)
        for name, value in other.items():
            setattr(request, name, value)
        return request

    def prepare(self, id_: str, branch: Any, **other: Any) -> Any:
        """Its Vote, asked for until there is one."""
        request = self.prepare_request(id_, branch, **other)
        peer, end = self.peer(), time.monotonic() + _SETTLE_S
        while True:
            reply = peer.prepare(self.sender, [request])[0]
            expect((reply.transaction_id, reply.mark) == (id_, request.mark),
                   f"the reply to prepare names {reply.transaction_id}, {reply.mark}; asked was "
                   f"{id_}, {request.mark}")
            if reply.vote.ballot != values.Ballot.WORKING:
                return reply.vote
            expect(time.monotonic() < end, "prepare is WORKING for ever")

    def prepared(self, **options: Any) -> tuple[str, Any, Any]:
        """A branch in doubt: id, Branch, Vote."""
        id_, branch = self.begin(**options)
        vote = self.prepare(id_, branch)
        expect(vote.ballot == values.Ballot.PREPARED,
               f"a whole branch votes {ballot_name(vote.ballot)} ({vote.message}), not PREPARED")
        return id_, branch, vote

    @staticmethod
    def finish_request(id_: str, commit: bool, vote: Any = None) -> Any:
        evidence = (vote.xid, vote.timeline, vote.position) if vote is not None else ()
        return participant_types.FinishRequest(id_, commit, *evidence)

    def finish(self, id_: str, vote: Any = None, *, commit: bool = True) -> int:
        """What a finish comes to, ordered until it is settled."""
        peer, end = self.peer(), time.monotonic() + _SETTLE_S
        while True:
            reply = peer.finish(self.sender, [self.finish_request(id_, commit, vote)])[0]
            expect(reply.transaction_id == id_,
                   f"the reply to finish names {reply.transaction_id}; asked was {id_}")
            if reply.finished != participant_types.Finished.WORKING:
                return reply.finished
            expect(time.monotonic() < end, f"finish is WORKING for ever: {reply.message}")
            time.sleep(0.02)

    def expect_finish(self, id_: str, vote: Any, commit: bool, *wanted: int, what: str) -> None:
        finished = self.finish(id_, vote, commit=commit)
        names = " or ".join(finished_name(one) for one in wanted)
        expect(finished in wanted, f"{what} is answered {finished_name(finished)}, not {names}")
