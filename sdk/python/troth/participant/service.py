"""The Thrift edge of a participant: values of the wire to values of ours and back, and the
services that coordinators and administrators call. Knows no PostgreSQL.
docs/protocol.md, "Messages"."""

from __future__ import annotations

import logging
from typing import Any, Callable

from thrift.Thrift import TApplicationException, TMessageType, TType

from troth.ids import TransactionId, gid_prefix, is_coordinator_id
from troth.participant.branch_table import BranchTable
from troth.participant.fence import EpochFence
from troth.participant.values import (
    DatabaseIdentity, DatabaseState, Evidence, FinishKind, FinishRequest, Isolation, LogPoint,
    PrepareRequest, Refusal, Refused, SeenCoordinator, Vote, VoteKind, WorkRequest)
from troth.security import Security, caller_name
from troth.traceparent import is_traceparent
from troth.wire.participant import Participant, ParticipantAdmin, ParticipantPeer
from troth.wire.participant import ttypes as participant_types
from troth.wire.values import ttypes as values
from troth.wire.values.constants import PROTOCOL_VERSION

log = logging.getLogger("troth")

MAX_LIST_ENTRIES = 512
SLOW_ENTRY_WAIT_MS = 5

_BALLOTS = {VoteKind.PREPARED: values.Ballot.PREPARED, VoteKind.READ_ONLY: values.Ballot.READ_ONLY,
            VoteKind.REFUSED: values.Ballot.REFUSED, VoteKind.WORKING: values.Ballot.WORKING}
_FINISHED = {FinishKind.DONE: participant_types.Finished.DONE,
             FinishKind.WORKING: participant_types.Finished.WORKING,
             FinishKind.HEURISTIC: participant_types.Finished.HEURISTIC,
             FinishKind.HAZARD: participant_types.Finished.HAZARD}
_ISOLATIONS = {values.Isolation.READ_COMMITTED: Isolation.READ_COMMITTED,
               values.Isolation.REPEATABLE_READ: Isolation.REPEATABLE_READ,
               values.Isolation.SERIALIZABLE: Isolation.SERIALIZABLE}


def refused(refusal: Refusal) -> Any:
    """The wire's exception."""
    return values.Refused(int(refusal.reason), refusal.message, refusal.retryable,
                          refusal.sqlstate or None, True if refusal.unheard else None)


def invalid(message: str) -> Any:
    return refused(Refusal(Refused.INVALID, message))


def wire_vote(vote: Vote, database: DatabaseIdentity | None, mac: bytes | None = None) -> Any:
    out = values.Vote(ballot=_BALLOTS[vote.kind], works=vote.works)
    if vote.kind is VoteKind.PREPARED:
        assert vote.evidence is not None and database is not None
        out.system_identifier = database.system_identifier
        out.database_oid = database.oid
        out.xid = vote.evidence.xid
        out.timeline = vote.evidence.point.timeline
        out.position = vote.evidence.point.position
        out.mac = mac
    elif vote.refusal is not None:
        out.reason = int(vote.refusal.reason)
        out.message = vote.refusal.message
        out.retryable = vote.refusal.retryable
        out.sqlstate = vote.refusal.sqlstate or None
    return out


def work_request(context: Any) -> WorkRequest:
    """Raises Refusal(INVALID) for what the contract does not allow."""
    if context is None or not _all_there(context.transaction_id, context.work, context.deadline_ms):
        raise Refusal(Refused.INVALID, "the context lacks a required field")
    if context.work > 0 and context.mark is None:
        raise Refusal(Refused.INVALID, f"work {context.work} brings no mark; pass on the one that "
                      "work 0 returned")
    return WorkRequest(context.transaction_id, context.work, context.deadline_ms,
                       context.mark or "", _ISOLATIONS.get(context.isolation, Isolation.DEFAULT),
                       bool(context.read_only), label_of(context.traceparent))


def label_of(traceparent: str | None) -> str:
    """What the database shows of a trace; empty for what is no traceparent."""
    return f"troth:{traceparent}" if traceparent and is_traceparent(traceparent) else ""


def check_version(version: int | None) -> None:
    """Raises the wire's Refused(VERSION_MISMATCH) unless it is ours."""
    if version != PROTOCOL_VERSION:
        raise refused(Refusal(Refused.VERSION_MISMATCH,
                              f"the caller speaks version {version} of the protocol, this "
                              f"participant version {PROTOCOL_VERSION}"))


def _all_there(*fields: Any) -> bool:
    """Thrift's Python decoder does not mind required fields that are missing."""
    return all(field is not None for field in fields)


class PeerHandler:
    """ParticipantPeer and ParticipantAdmin."""

    def __init__(self, participant: str, instance: str, table: BranchTable, fence: EpochFence,
                 database: Callable[[], DatabaseState],
                 status: Callable[[], Any], stuck: Callable[[], dict[str, str]],
                 security: Security | None = None) -> None:
        self._participant = participant
        self._instance = instance
        self._table = table
        self._fence = fence
        self._database = database
        self._status = status
        self._stuck = stuck
        self._security = security

    # For coordinators -------------------------------------------------------------------------

    def hello(self, version: int, sender: Any) -> Any:
        check_version(version)
        self._check_sender(sender)
        state = self._database()
        return participant_types.ParticipantHello(
            PROTOCOL_VERSION, self._participant, self._instance, state.identity.system_identifier,
            state.identity.oid, state.address, state.machine)

    def prepare(self, sender: Any, requests: list[Any]) -> list[Any]:
        self._check_sender(sender)
        self._check_list(requests)
        for one in requests:
            if not _all_there(one.transaction_id, one.mark, one.works, one.deadline_ms,
                              one.instance):
                raise invalid("a prepare lacks a required field")
            self._require_own(sender, one.transaction_id)
        votes = self._table.prepare(
            [PrepareRequest(one.transaction_id, one.mark, one.works, one.deadline_ms, one.instance)
             for one in requests], SLOW_ENTRY_WAIT_MS)
        database = self._database().identity
        return [participant_types.PrepareReply(one.transaction_id, one.mark,
                                               wire_vote(vote, database))
                for one, vote in zip(requests, votes)]

    def finish(self, sender: Any, requests: list[Any]) -> list[Any]:
        self._check_sender(sender)
        self._check_list(requests)
        orders = [self._order(one) for one in requests]
        for one in requests:
            self._require_own(sender, one.transaction_id)
        results = self._table.finish(orders, SLOW_ENTRY_WAIT_MS)
        return [participant_types.FinishReply(one.transaction_id, _FINISHED[result.kind],
                                              result.message or None)
                for one, result in zip(requests, results)]

    @staticmethod
    def _order(one: Any) -> FinishRequest:
        if TransactionId.parse(one.transaction_id) is None:
            raise invalid(f"not a transaction id: {str(one.transaction_id)[:80]}")
        if one.commit is None:
            raise invalid("a finish says neither commit nor abort")
        evidence = None
        if _all_there(one.xid, one.timeline, one.position):
            evidence = Evidence(one.xid, LogPoint(one.timeline, one.position))
        elif one.commit:
            raise invalid(f"a commit of {one.transaction_id} names no xid, timeline and position")
        return FinishRequest(one.transaction_id, one.commit, evidence)

    def _check_sender(self, sender: Any) -> None:
        """Law L7c, and that the caller is a coordinator, and this one. Raises the wire's Refused."""
        self.require("coordinator", "" if sender is None else sender.coordinator or "")
        if sender is None or not _all_there(sender.coordinator, sender.epoch, sender.epoch_random,
                                            sender.position):
            raise invalid("the sender is not well formed")
        if not (0 < sender.epoch < 1 << 32 and 0 <= sender.epoch_random < 1 << 32 and
                sender.position >= 0 and is_coordinator_id(sender.coordinator)):
            raise invalid("the sender is not well formed")
        try:
            self._fence.check(SeenCoordinator(sender.coordinator, sender.epoch,
                                              sender.epoch_random, sender.position))
        except Refusal as stale:
            raise refused(stale) from None

    @staticmethod
    def _require_own(sender: Any, id_: str) -> None:
        """Each coordinator decides its own transactions, and no other's."""
        if not id_.startswith(sender.coordinator + "."):
            raise refused(Refusal(Refused.FORBIDDEN, f"{id_[:80]} is not a transaction of "
                                                     f"coordinator {sender.coordinator}"))

    @staticmethod
    def _check_list(requests: list[Any] | None) -> None:
        if requests is None:
            raise invalid("there is no list of requests")
        if len(requests) > MAX_LIST_ENTRIES:
            raise invalid(f"a list of {len(requests)} entries; at most {MAX_LIST_ENTRIES} are taken")

    def require(self, role: str, what: str = "") -> None:
        """Raises the wire's Refused(FORBIDDEN)."""
        if self._security is None:
            return
        why = self._security.why_not(caller_name(), role, what)
        if why is not None:
            log.warning("refused a call: %s", why)
            raise refused(Refusal(Refused.FORBIDDEN, why))

    # For administrators -----------------------------------------------------------------------

    def status(self) -> Any:
        self.require("administrator")
        return self._status()

    def branches(self, limit: int) -> list[Any]:
        self.require("administrator")
        most = max(0, min(limit or 0, 1000))
        prefix = gid_prefix(self._participant)
        out = [participant_types.BranchStatus(prefix + id_, id_, state, 0)
               for id_, state in self._stuck().items()]
        out += [participant_types.BranchStatus(prefix + info.transaction_id, info.transaction_id,
                                               info.state, info.age_ms)
                for info in self._table.list(most)]
        return out[:most]

    # What participants in C++ tell of their databases. A coordinator that looks around asks it of
    # everybody, and shows the refusal.

    def prepared(self, transaction_ids: list[str], limit: int) -> list[Any]:
        raise self._not_told()

    def settle(self, transaction_id: str, xid: int, commit: bool, order: str) -> Any:
        raise self._not_told()

    def diagnose(self) -> Any:
        raise self._not_told()

    def _not_told(self) -> Any:
        return invalid(f"{self._participant} is a participant in Python, which neither tells nor "
                       "settles this: ask its database (trothctl why GID --database CONNINFO)")


class PeerProcessor(ParticipantPeer.Processor):
    """Two services whose calls have different names, on one connection."""

    def __init__(self, handler: PeerHandler) -> None:
        super().__init__(handler)
        admin = ParticipantAdmin.Processor(handler)
        for name, function in admin._processMap.items():  # pylint: disable=protected-access
            self._processMap[name] = lambda _, seqid, iprot, oprot, function=function: function(
                admin, seqid, iprot, oprot)


class _ApplicationGuard:
    """An application's processor: all of its calls are for clients that may use this participant."""

    def __init__(self, security: Security, participant: str, processor: Any) -> None:
        self._security = security
        self._participant = participant
        self._processor = processor

    def process(self, iprot: Any, oprot: Any) -> Any:
        why = self._security.why_not(caller_name(), "client", self._participant)
        if why is None:
            return self._processor.process(iprot, oprot)
        name, _, seqid = iprot.readMessageBegin()
        iprot.skip(TType.STRUCT)
        iprot.readMessageEnd()
        log.warning("refused a call (%r): %s", str(name)[:64], why)
        if name == "hello":
            answer: Any = Participant.hello_result(refused=refused(Refusal(Refused.FORBIDDEN, why)))
            kind = TMessageType.REPLY
        else:
            answer = TApplicationException(TApplicationException.INTERNAL_ERROR, "forbidden: " + why)
            kind = TMessageType.EXCEPTION
        oprot.writeMessageBegin(name, kind, seqid)
        answer.write(oprot)
        oprot.writeMessageEnd()
        oprot.trans.flush()
        return True


def guard_application(security: Security, participant: str, processor: Any) -> Any:
    """`processor` behind the roles; itself in plain text."""
    if security.tls is None:
        return processor
    return _ApplicationGuard(security, participant, processor)
