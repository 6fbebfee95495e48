"""What the crash tests share: a real coordinator over a log directory, two participants faked in
this process, which outlives every coordinator, clients, and the audit. Knows no fault.

The participants promise in memory and keep it; so whatever is lost, the coordinator lost it. They
check what they are told: a finish must carry the xid that was prepared, and never change sides.
"""

import copy
import ctypes
import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "sdk" / "python"), str(ROOT / "jepsen")]

import troth  # noqa: E402,F401  pylint: disable=wrong-import-position,unused-import
from thrift.Thrift import TException  # noqa: E402  pylint: disable=wrong-import-position
from troth.transport import Listener, connect, protocol_on  # noqa: E402  pylint: disable=wrong-import-position
from troth.wire.coordinator import Coordinator, CoordinatorAdmin, CoordinatorPeer  # noqa: E402  pylint: disable=wrong-import-position
from troth.wire.coordinator.ttypes import (  # noqa: E402  pylint: disable=wrong-import-position
    BranchClaim, ClientHello, CommitRequest, Enrolment, Inquiry, OutcomeKind, Seen, Verdict, Wait)
from troth.wire.participant import ParticipantPeer  # noqa: E402  pylint: disable=wrong-import-position
from troth.wire.participant.ttypes import (  # noqa: E402  pylint: disable=wrong-import-position
    Finished, FinishReply, ParticipantHello, PrepareReply)
from troth.wire.values.ttypes import Ballot, Reason, Refused, Vote  # noqa: E402  pylint: disable=wrong-import-position

LOST = (TException, OSError, EOFError)
SYSTEM = 7_000_000_000_000_000_001
MARK = "0123456789abcdef"
INSTANCE = "fedcba9876543210"


class Participant:
    """One participant's peer service and its memory. Fault model: none."""

    def __init__(self, name, number):
        self.name, self.number = name, number
        self.lock = threading.Lock()
        self.hold = False  # finishes are answered "working"
        self.xid = 1000
        self.prepared = {}  # id -> xid, in doubt
        self.ended = {}     # id -> True: committed, False: rolled back
        self.seen = None    # highest epoch and position, with the coordinator's id
        self.before = None  # the same of the epoch before, until the new one was told
        self.violations = []
        self.peers = Listener(f"peers of {name}", "127.0.0.1", 0, ParticipantPeer.Processor(self))
        self.peers.start()

    def memory(self):
        """A copy of what is remembered, to begin anew from."""
        with self.lock:
            return copy.deepcopy((self.xid, self.prepared, self.ended, self.seen, self.before))

    def remember(self, memory):
        """Begins anew: what a coordinator that is gone had sent is not for this life."""
        end = time.monotonic() + 5
        while self.peers._idle or self.peers._busy:  # pylint: disable=protected-access
            if time.monotonic() > end:
                self.violations.append(f"{self.name}: a coordinator that is gone is connected")
                break
            time.sleep(0.002)
        with self.lock:
            (self.xid, self.prepared, self.ended, self.seen,
             self.before) = copy.deepcopy(memory)
            self.hold = False

    # ParticipantPeer ----------------------------------------------------------------------

    def hello(self, _version, sender):
        self._note(sender)
        return ParticipantHello(1, self.name, INSTANCE)

    def prepare(self, sender, requests):
        self._note(sender)
        return [PrepareReply(r.transaction_id, r.mark, self._vote(r)) for r in requests]

    def finish(self, sender, requests):
        self._note(sender)
        return [FinishReply(r.transaction_id, self._finish(r)) for r in requests]

    def _note(self, sender):
        new = (sender.epoch, sender.epoch_random, sender.position, sender.coordinator)
        with self.lock:
            if self.seen is None or new[3] != self.seen[3]:
                self.seen, self.before = new, None
            elif new[0] > self.seen[0]:
                self.seen, self.before = new, self.before or self.seen
            elif new[:2] == self.seen[:2] and new[2] > self.seen[2]:
                self.seen = new  # an epoch of the same number and another random is not taken in

    def _vote(self, request):
        with self.lock:
            id_ = request.transaction_id
            if id_ in self.ended:
                return Vote(Ballot.REFUSED, request.works, reason=Reason.ENDED, message="ended",
                            retryable=False)
            if id_ not in self.prepared:
                self.xid += 1
                self.prepared[id_] = self.xid
            return Vote(Ballot.PREPARED, request.works, str(SYSTEM), 16384 + self.number,
                        self.prepared[id_], 1, 0x16B3748 + 500 * self.prepared[id_])

    def _finish(self, request):
        with self.lock:
            if request.commit and self.hold:
                return Finished.WORKING
            return self.end(request.transaction_id, request.commit, request.xid)

    def end(self, id_, commit, xid):
        """With the lock: COMMIT PREPARED, or ROLLBACK PREPARED."""
        if id_ in self.ended:
            if self.ended[id_] != commit:
                self.violations.append(f"{self.name}: {id_} was ended commit={self.ended[id_]}, "
                                       f"then commit={commit}")
        elif commit and self.prepared.get(id_) != xid:
            self.violations.append(f"{self.name}: told to commit {id_}, xid {xid}; prepared was "
                                   f"{self.prepared.get(id_)}")
        self.prepared.pop(id_, None)
        self.ended[id_] = commit
        return Finished.DONE

    def told(self):
        """What an enrolment reports."""
        with self.lock:
            return self.before or self.seen

    # Towards the coordinator --------------------------------------------------------------

    def enroll(self, coordinator):
        told = self.told()
        seen = Seen(*told) if told else None
        with coordinator.connection("peer", CoordinatorPeer) as peer:
            enrolled = peer.enroll(Enrolment(1, self.name, INSTANCE, str(SYSTEM), 16384 + self.number,
                                             f"127.0.0.1:5432/{self.name}", "127.0.0.1", 1, self.peers.port,
                                             seen))
        self._note(enrolled.sender)
        with self.lock:
            if self.before == told or self.seen == told:
                self.before = None

    def settle(self, coordinator, seconds=20):
        """Asks about every prepared branch until none is left. Those that the coordinator does
        not know are violations."""
        end = time.monotonic() + seconds
        while True:
            with self.lock:
                asked = list(self.prepared.items())[:1000]
                seen = Seen(*(self.seen or (0, 0, 0)))
            if not asked:
                return
            with coordinator.connection("peer", CoordinatorPeer) as peer:
                answers = peer.inquire(self.name, [Inquiry(i, x & 0xffffffff) for i, x in asked],
                                       seen)
            with self.lock:
                for answer in answers:
                    id_ = answer.transaction_id
                    if id_ not in self.prepared or answer.verdict == Verdict.PENDING:
                        continue
                    if answer.verdict in (Verdict.COMMIT, Verdict.ABORT):
                        self.end(id_, answer.verdict == Verdict.COMMIT, answer.xid)
                        continue
                    word = Verdict._VALUES_TO_NAMES[answer.verdict]
                    self.violations.append(f"{self.name}: asked about {id_}, heard {word}")
                    self.prepared.pop(id_)
            if time.monotonic() > end:
                self.violations.append(f"{self.name}: {len(asked)} branches are in doubt for "
                                       f"{seconds} s")
                return
            time.sleep(0.005)


class _Connection:
    """A generated client; closed at the end."""

    def __init__(self, port, service, timeout_s):
        self.transport = connect("127.0.0.1", port, 5)
        self.transport.set_timeout(timeout_s)
        self.client = service.Client(protocol_on(self.transport))

    def __enter__(self):
        return self.client

    def __exit__(self, *_):
        self.transport.close()


def _die_with_parent():
    ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG


class CoordinatorProcess:
    """troth-coordinator over `directory`; its words are kept in `log`."""

    def __init__(self, program, directory, scratch, flags=()):
        self.program, self.directory = str(program), pathlib.Path(directory)
        self.flags = list(flags)
        self.port_file = pathlib.Path(scratch) / "ports.json"
        self.log = pathlib.Path(scratch) / "coordinator.log"
        self.process = None
        self.ports = {}

    def init(self, environment=None):
        """`--init`; its exit code and words."""
        done = subprocess.run(
            [self.program, "--init", "--wal_dir", self.directory, "--name", "test", *self.flags],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env={**os.environ, **(environment or {})}, timeout=60, check=False)
        return done.returncode, done.stdout

    def launch(self, environment=None):
        """Starts it and does not wait."""
        self.port_file.unlink(missing_ok=True)
        with open(self.log, "ab") as log:
            log.truncate(0)
            self.process = subprocess.Popen(
                [self.program, "--wal_dir", str(self.directory), "--client_port", "0",
                 "--peer_port", "0", "--admin_port", "0", "--port_file", str(self.port_file),
                 "--logtostderr", *self.flags],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env={**os.environ, **(environment or {})}, preexec_fn=_die_with_parent)

    def wait_ready(self, seconds=30):
        """True when it serves; False when it ended instead."""
        end = time.monotonic() + seconds
        while not self.port_file.exists():
            if self.process.poll() is not None:
                return False
            if time.monotonic() > end:
                raise RuntimeError(f"the coordinator neither serves nor ends: {self.words()}")
            time.sleep(0.002)
        self.ports = json.loads(self.port_file.read_text())
        return True

    def start(self, environment=None):
        self.launch(environment)
        if not self.wait_ready():
            raise RuntimeError(f"the coordinator ended with {self.process.poll()}: {self.words()}")

    def alive(self):
        return self.process is not None and self.process.poll() is None

    def kill(self):
        if self.alive():
            self.process.kill()
        if self.process is not None:
            self.process.wait()

    def stop(self, seconds=30):
        """SIGTERM; its exit code."""
        if self.alive():
            self.process.terminate()
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    def words(self):
        return self.log.read_text(errors="replace")[-3000:]

    def connection(self, listener, service, timeout_s=30):
        return _Connection(self.ports[f"{listener}_port"], service, timeout_s)

    def status(self):
        with self.connection("admin", CoordinatorAdmin) as admin:
            return admin.status()


class Client:
    """One connection; commits one transaction after the other over both participants. Several
    may share a `World`."""

    def __init__(self, world):
        self.world = world
        self.connection = _Connection(world.coordinator.ports["client_port"], Coordinator, 30)
        self.rpc = self.connection.client
        self.rpc.hello(ClientHello(1, "crash test"))
        self.lease = None
        self.next = self.end = 0

    def close(self):
        self.connection.transport.close()

    def commit(self, wait=Wait.APPLIED, key=None):
        """Commits one transaction, notes it and its answer in the world. Refused is raised:
        surely not done; LOST is raised: not known."""
        self.connection.transport.set_timeout(30)
        if self.next == self.end:
            lease = self.rpc.lease(1000)
            self.lease, self.next, self.end = lease, lease.first, lease.first + lease.count
        id_ = f"{self.lease.prefix}{self.next}"
        claims = [BranchClaim(p.name, MARK, 1, INSTANCE) for p in self.world.participants]
        self.world.asked.append(id_)
        outcome = self.rpc.commit(CommitRequest(id_, claims, 10_000, wait, key))
        self.next += 1  # after a refusal the id is still good
        self.world.answered[id_] = outcome.kind
        return outcome


class World:
    """Two participants, one coordinator, what clients heard, and what must hold."""

    def __init__(self, program, directory, scratch, flags=()):
        self.participants = [Participant("east", 0), Participant("west", 1)]
        self.coordinator = CoordinatorProcess(program, directory, scratch, flags)
        self.asked = []     # ids
        self.answered = {}  # id -> OutcomeKind
        self.violations = []

    def enroll(self):
        for participant in self.participants:
            participant.enroll(self.coordinator)

    def close(self):
        self.coordinator.kill()
        for participant in self.participants:
            participant.peers.stop(0)

    def take_violations(self):
        found, self.violations = self.violations, []
        for participant in self.participants:
            found += participant.violations
            participant.violations = []
        return found

    def audit(self, ids=None):
        """With the coordinator serving: settles what is in doubt, then asks for every outcome (of
        `ids`; default: all ever asked) and compares it with what clients heard and participants
        did. Returns what is wrong. Needs nothing in flight."""
        self.enroll()
        for participant in self.participants:
            participant.settle(self.coordinator)
        east, west = self.participants
        with self.coordinator.connection("client", Coordinator, timeout_s=300) as rpc:
            rpc.hello(ClientHello(1, "audit"))
            for id_ in dict.fromkeys(self.asked if ids is None else ids):
                self._audit_one(id_, rpc, east, west)
        return self.take_violations()

    def _audit_one(self, id_, rpc, east, west):
        kind = rpc.outcome(id_, 10_000).kind
        told = self.answered.get(id_)
        name = OutcomeKind._VALUES_TO_NAMES[kind]
        if kind not in (OutcomeKind.COMMITTED, OutcomeKind.ABORTED):
            self.violations.append(f"{id_}: the outcome is {name}")
        if told is not None and told != kind:
            self.violations.append(
                f"{id_}: the client heard {OutcomeKind._VALUES_TO_NAMES[told]}, now it is {name}")
        for participant in (east, west):
            ended = self._await_end(participant, id_, kind == OutcomeKind.COMMITTED)
            if ended != (kind == OutcomeKind.COMMITTED) and (ended is not None or
                                                             kind == OutcomeKind.COMMITTED):
                self.violations.append(f"{id_}: the outcome is {name}, and {participant.name} "
                                       f"ended it commit={ended}")

    @staticmethod
    def _await_end(participant, id_, wanted, seconds=10):
        """How it ended there; a finish may still be on its way."""
        end = time.monotonic() + seconds
        while wanted and id_ not in participant.ended and time.monotonic() < end:
            time.sleep(0.005)
        return participant.ended.get(id_)


def is_no_room(refused):
    """A refusal that says the log has no room."""
    return refused.reason == Reason.NOT_SERVING and "no room" in refused.message


__all__ = ["LOST", "ROOT", "Client", "CoordinatorProcess", "Participant", "Refused", "Wait", "World",
           "is_no_room"]
