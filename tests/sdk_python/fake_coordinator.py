"""A coordinator in memory, in this process: both listeners, plain two-phase commit, no log. Its
word can be held back or put into its mouth, so that a test decides when a participant hears what.
Fault model: none; what fails is what is tested."""

import threading
import time

import harness  # noqa: F401  pylint: disable=unused-import

from thrift.Thrift import TException
from thrift.transport.TTransport import TTransportException
from troth.ids import TransactionId
from troth.transport import Listener, connect, protocol_on
from troth.vote_mac import make_vote_mac, participant_secret
from troth.wire.coordinator import Coordinator, CoordinatorPeer
from troth.wire.coordinator.ttypes import (
    Answer, CoordinatorHello, Enrolled, Lease, Outcome, OutcomeKind, ParticipantAddress, Verdict)
from troth.wire.participant import ParticipantPeer
from troth.wire.participant.ttypes import Finished, FinishRequest, PrepareRequest
from troth.wire.values.constants import PROTOCOL_VERSION
from troth.wire.values.ttypes import Ballot, Reason, Refused, Sender

NAME = "fake-0123456789ab"


class FakeCoordinator:
    """Scripted by `deliver` (False: decisions stay here), `verdict` (what every inquiry hears,
    instead of the truth) and `lose` (names of calls whose reply is lost, once each)."""

    def __init__(self, epoch=1, lease_ms=30_000):
        self.sender = Sender(NAME, epoch, 0xABCD, 1)
        self.lease_ms = lease_ms
        self.deliver = True
        self.verdict = None
        self.lose = []
        self.calls = []  # names of calls, in order
        self.enrolments = {}  # participant -> last Enrolment
        self.enrolled = threading.Condition()
        self.inquiries = []
        self.decided = {}  # id -> {participant: Vote} or None: aborted
        self._next = 0
        self._lock = threading.Lock()
        self.clients = Listener("clients", "127.0.0.1", 0, Coordinator.Processor(self))
        self.peers = Listener("peers", "127.0.0.1", 0, CoordinatorPeer.Processor(self))

    def __enter__(self):
        self.clients.start()
        self.peers.start()
        return self

    def __exit__(self, *_):
        self.clients.stop(0)
        self.peers.stop(0)

    @property
    def client_address(self):
        return f"127.0.0.1:{self.clients.port}"

    @property
    def peer_address(self):
        return f"127.0.0.1:{self.peers.port}"

    def await_enrolment(self, participant, instance_other_than=None, seconds=10):
        """Its enrolment; of another process than the one named."""
        def there():
            one = self.enrolments.get(participant)
            return one if one and one.instance != instance_other_than else None
        with self.enrolled:
            assert self.enrolled.wait_for(there, seconds), f"{participant} does not enrol"
            return there()

    def new_id(self):
        with self._lock:
            self._next += 1
            return str(TransactionId(NAME, self.sender.epoch, self.sender.epoch_random, self._next))

    def peer(self, participant, timeout_s=20):
        """A client of its ParticipantPeer service."""
        enrolment = self.enrolments[participant]
        transport = connect(enrolment.host, enrolment.peer_port, 2)
        transport.set_timeout(timeout_s)
        client = ParticipantPeer.Client(protocol_on(transport))
        client.transport = transport
        return client

    # For clients ------------------------------------------------------------------------------

    def _note(self, name):
        self.calls.append(name)
        if name in self.lose:
            self.lose.remove(name)
            return True
        return False

    def hello(self, client):
        self._note("hello")
        return CoordinatorHello(PROTOCOL_VERSION, self.sender)

    def lease(self, count):
        self._note("lease")
        with self._lock:
            first, self._next = self._next + 1, self._next + count
        prefix = str(TransactionId(NAME, self.sender.epoch, self.sender.epoch_random, 0))[:-1]
        return Lease(prefix, first, count, self.lease_ms)

    def commit(self, request):
        lost = self._note("commit")
        id_ = request.transaction_id
        if id_ not in self.decided:
            refusal = self._prepare_all(id_, request)
            if refusal is not None:
                self.decided[id_] = None
                self._finish_all(id_, request.branches, False)
                return Outcome(OutcomeKind.ABORTED, id_, None, refusal.reason, refusal.message,
                               refusal.retryable, None, refusal.sqlstate)
            if self.deliver:
                self._finish_all(id_, request.branches, True)
        if lost:
            raise TTransportException(message="the reply is lost")  # closes the connection
        return self.outcome(id_, 0)

    def abort(self, request):
        self._note("abort")
        self.decided.setdefault(request.transaction_id, None)
        self._finish_all(request.transaction_id, request.branches, False)
        return self.outcome(request.transaction_id, 0)

    def outcome(self, transaction_id, wait_ms):
        if transaction_id not in self.decided:
            return Outcome(OutcomeKind.PENDING, transaction_id)
        votes = self.decided[transaction_id]
        if votes is None:
            return Outcome(OutcomeKind.ABORTED, transaction_id, None, Reason.ENDED, "aborted", True)
        if all(vote.ballot == Ballot.READ_ONLY for vote in votes.values()):
            return Outcome(OutcomeKind.READ_ONLY, transaction_id)
        return Outcome(OutcomeKind.COMMITTED, transaction_id, [])

    def resolve(self, names):
        return [ParticipantAddress(one.participant, one.instance, one.host, one.port, True)
                for one in list(self.enrolments.values()) if not names or one.participant in names]

    # The protocol -----------------------------------------------------------------------------

    def _prepare_all(self, id_, request):
        """None: all voted for it, and it is decided; else the refusing Vote."""
        votes = {}
        for branch in request.branches:
            vote = branch.vote
            if vote is not None and vote.ballot == Ballot.PREPARED:
                assert vote.mac == self.mac(id_, branch.participant, vote), "the mac is wrong"
            else:
                vote = self.prepare(branch.participant, id_, branch.mark, branch.works,
                                    branch.instance, request.deadline_ms)
            if vote.ballot == Ballot.REFUSED:
                return vote
            votes[branch.participant] = vote
        self.decided[id_] = votes
        return None

    @staticmethod
    def secret(participant):
        return participant_secret(b"secret of the epoch", participant)

    def mac(self, id_, participant, vote):
        return make_vote_mac(
            self.secret(participant), transaction_id=id_, participant=participant,
            system_identifier=vote.system_identifier, database_oid=vote.database_oid, xid=vote.xid,
            timeline=vote.timeline, position=vote.position, works=vote.works)

    def prepare(self, participant, id_, mark, works, instance, deadline_ms=5_000):
        """Asks until there is a vote. A participant that dies has refused."""
        try:
            peer = self.peer(participant)
            while True:
                reply = peer.prepare(self.sender, [PrepareRequest(id_, mark, works, deadline_ms,
                                                                  instance)])[0]
                assert (reply.transaction_id, reply.mark) == (id_, mark)
                if reply.vote.ballot != Ballot.WORKING:
                    return reply.vote
        except (TException, OSError) as error:
            if isinstance(error, Refused):
                raise
            return type("Vote", (), {"ballot": Ballot.REFUSED, "reason": Reason.DATABASE_UNAVAILABLE,
                                     "message": str(error), "retryable": True, "sqlstate": None})

    def finish(self, participant, id_, vote=None, commit=True):
        """Orders until it is settled; the last FinishReply, or None: the participant died."""
        commit = commit and vote is not None
        request = FinishRequest(id_, commit, *((vote.xid, vote.timeline, vote.position)
                                               if vote is not None else ()))
        try:
            peer = self.peer(participant)
            end = time.monotonic() + 15
            while True:
                reply = peer.finish(self.sender, [request])[0]
                if reply.finished != Finished.WORKING or time.monotonic() > end:
                    return reply
        except (TException, OSError) as error:
            if isinstance(error, Refused):
                raise
            return None

    def _finish_all(self, id_, branches, commit):
        for branch in branches:
            vote = (self.decided[id_] or {}).get(branch.participant) if commit else None
            if branch.participant in self.enrolments and not (
                    vote is not None and vote.ballot == Ballot.READ_ONLY):
                self.finish(branch.participant, id_, vote, commit)

    # For participants -------------------------------------------------------------------------

    def enroll(self, enrolment):
        with self.enrolled:
            self.enrolments[enrolment.participant] = enrolment
            self.enrolled.notify_all()
        return Enrolled(PROTOCOL_VERSION, self.sender, self.secret(enrolment.participant))

    def inquire(self, participant, inquiries, seen):
        self.inquiries += [one.transaction_id for one in inquiries]
        return [self._answer(participant, one.transaction_id) for one in inquiries]

    def _answer(self, participant, id_):
        if self.verdict is not None:
            return Answer(id_, self.verdict)
        votes = self.decided.get(id_)
        if votes is None:
            return Answer(id_, Verdict.ABORT)
        vote = votes[participant]
        return Answer(id_, Verdict.COMMIT, vote.xid, vote.timeline, vote.position)
