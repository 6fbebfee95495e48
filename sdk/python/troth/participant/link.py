"""A participant's bond to one coordinator: enrolment, for ever, and inquiries. The one place of a
participant that calls a coordinator. docs/protocol.md, "Messages"."""

from __future__ import annotations

import logging
import random
import select
import socket
import threading
from dataclasses import dataclass
from typing import Any, Callable

from thrift.Thrift import TException

from troth import failpoint
from troth.participant.fence import EpochFence
from troth.participant.sweep import Answer, Inquiry, Verdict
from troth.participant.values import (
    Evidence, LogPoint, Refusal, ResourceManager, SeenCoordinator, ServerUnfit, Unavailable)
from troth.security import Security
from troth.transport import FramedSocket, connect, protocol_on, split_address
from troth.wire.coordinator import CoordinatorPeer
from troth.wire.coordinator import ttypes as coordinator_types
from troth.wire.values import ttypes as values
from troth.wire.values.constants import PROTOCOL_VERSION

log = logging.getLogger("troth")

_CONNECT_S = 1.0
_ANSWER_S = 5.0
_ENROL_EVERY_S = 10.0
_FIRST_PAUSE_S = 0.05
_LAST_PAUSE_S = 1.0


@dataclass
class SelfDescription:
    """What a participant says of itself; the database's part is asked for at each enrolment."""

    participant: str
    instance: str
    host: str
    port: int = 0
    peer_port: int = 0


def _seen(seen: SeenCoordinator | None) -> Any:
    if seen is None:
        return coordinator_types.Seen(0, 0, 0)
    return coordinator_types.Seen(seen.epoch, seen.epoch_random, seen.position, seen.coordinator)


def _answer(inquiry: Inquiry, told: Any) -> Answer:
    verdicts = coordinator_types.Verdict
    if told.transaction_id != inquiry.transaction_id:
        return Answer(inquiry, Verdict.PENDING)
    if told.verdict == verdicts.COMMIT:
        if None in (told.xid, told.timeline, told.position):
            return Answer(inquiry, Verdict.PENDING)
        return Answer(inquiry, Verdict.COMMIT,
                      Evidence(told.xid, LogPoint(told.timeline, told.position)))
    return Answer(inquiry, {verdicts.ABORT: Verdict.ABORT, verdicts.EXPIRED: Verdict.EXPIRED,
                            verdicts.NOT_MINE: Verdict.NOT_MINE}.get(told.verdict, Verdict.PENDING))


class _Line:
    def __init__(self, host: str, port: int, security: Security) -> None:
        self.transport: FramedSocket = connect(host, port, _CONNECT_S, security.tls)
        why = security.why_not(self.transport.peer_name, "coordinator")
        if why is not None:
            self.transport.close()
            raise OSError(f"who answers at {host}:{port} is no coordinator: {why}")
        self.client = CoordinatorPeer.Client(protocol_on(self.transport))
        self.reported = False  # what was seen of all coordinators

    def close(self) -> None:
        self.transport.close()


class CoordinatorLink:
    """Thread-safe. Owns a thread that enrols: at once, every 10 s, and at once again when the
    connection ends (after at most 1 s of back-off, capped)."""

    def __init__(self, address: str, self_description: SelfDescription,
                 resource_manager: ResourceManager, fence: EpochFence,
                 enrolled: Callable[[], None], security: Security) -> None:
        """ValueError: the address is not host:port."""
        self._host, self._port = split_address(address)
        self.address = address
        self._self = self_description
        self._rm = resource_manager
        self._fence = fence
        self._enrolled = enrolled
        self._security = security
        self._stopping = False
        self._wake_in, self._wake_out = socket.socketpair()
        self._thread = threading.Thread(target=self._run, name="troth enrolment", daemon=True)
        self._inquiry_lock = threading.Lock()
        self._inquiry_line: _Line | None = None
        self.up = False  # enrolled now, as far as is known
        self.coordinator = ""  # `<name>-<mark>`; empty before it first answered
        self.secret = b""

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping = True
        self._wake_out.send(b"x")
        self._thread.join()

    def _run(self) -> None:
        pause_s, last_error = _FIRST_PAUSE_S, ""
        while not self._stopping:
            line, error = None, ""
            try:
                line = _Line(self._host, self._port, self._security)
                while not self._stopping:
                    self._enrol(line)
                    if not self.up:
                        log.info("enrolled with coordinator %s", self.coordinator)
                    self.up, pause_s, last_error = True, _FIRST_PAUSE_S, ""
                    self._enrolled()
                    if not self._linger(line):
                        error = "the connection ended"
                        break
            except values.Refused as refused:
                error = refused.message
            except (OSError, TException, Refusal, Unavailable, ServerUnfit) as caught:
                error = str(caught)
            finally:
                if line is not None:
                    line.close()
            self.up = False
            if error != last_error and not self._stopping:
                last_error = error
                log.warning("not enrolled with coordinator %s: %s", self.address, error)
            self._wait(None, random.uniform(pause_s / 2, pause_s))
            pause_s = min(pause_s * 2, _LAST_PAUSE_S)

    def _wait(self, line: _Line | None, seconds: float) -> bool:
        """Until the connection ends, stop, or the time passes. True: the time passed."""
        if self._stopping:
            return False
        poller = select.poll()
        poller.register(self._wake_in, select.POLLIN)
        if line is not None:
            poller.register(line.transport.fileno(), select.POLLIN | select.POLLRDHUP)
        return not poller.poll(int(seconds * 1000))

    def _linger(self, line: _Line) -> bool:
        # Nothing is on its way on this connection: readable means ended.
        return self._wait(line, _ENROL_EVERY_S)

    def _enrol(self, line: _Line) -> None:
        # Who answers may be another than was thought: then the second try brings what was seen of
        # it.
        if not self._enrol_as(line, self.coordinator) and \
                not self._enrol_as(line, self.coordinator):
            raise Unavailable("it began another epoch meanwhile")

    def _report_all_but(self, one: SeenCoordinator | None, line: _Line) -> None:
        """What was seen of all coordinators, once for a connection: whoever answers overlooks what
        is not of its name."""
        for other in self._fence.all():
            if not line.reported and other != one:
                line.client.inquire(self._self.participant, [], _seen(other))
        line.reported = True

    def _enrol_as(self, line: _Line, name: str) -> bool:
        """Brings what was seen of coordinator `name`. False: another one answered, or more was
        seen of it by now; nothing counts as told, and self.coordinator is who answered."""
        state = self._rm.look()
        if failpoint.passing("before-enrol"):
            raise Unavailable("failpoint before-enrol")
        met = {one.coordinator: one for one in self._fence.all()}
        seen = met.get(name)
        if not name and len(met) == 1:
            (seen,) = met.values()  # a guess
        me = self._self
        line.transport.set_timeout(_ANSWER_S)
        # An enrolment counts as heard at once, and brings the report of one coordinator: the
        # others go first.
        self._report_all_but(seen, line)
        enrolled = line.client.enroll(coordinator_types.Enrolment(
            version=PROTOCOL_VERSION, participant=me.participant, instance=me.instance,
            system_identifier=state.identity.system_identifier, database_oid=state.identity.oid,
            database_address=state.address, host=me.host, port=me.port, peer_port=me.peer_port,
            seen=None if seen is None else _seen(seen), database_machine=state.machine))
        if enrolled.version != PROTOCOL_VERSION:
            raise Unavailable(f"the coordinator speaks version {enrolled.version} of the protocol, "
                              f"we {PROTOCOL_VERSION}")
        sender = enrolled.sender
        speaker = SeenCoordinator(sender.coordinator, sender.epoch, sender.epoch_random,
                                  sender.position)
        self._fence.check(speaker)
        self.coordinator = sender.coordinator
        due = self._fence.seen(sender.coordinator)
        if (due.epoch, due.epoch_random) != (speaker.epoch, speaker.epoch_random) and not (
                seen is not None and seen.coordinator == due.coordinator and
                (seen.epoch, seen.epoch_random) == (due.epoch, due.epoch_random) and
                seen.position >= due.position):
            self.secret = b""
            return False
        self._fence.told(speaker)
        self.secret = bytes(enrolled.secret)
        return True

    def inquire(self, inquiries: list[Inquiry]) -> list[Answer]:
        """Asks about at most 1,000 branches. Waits at most 5 s. Raises Unavailable: ask again."""
        asked = [coordinator_types.Inquiry(one.transaction_id, one.xid) for one in inquiries]
        with self._inquiry_lock:
            line = self._inquiry_line
            if line is not None and not line.transport.quiet():
                line.close()
                line = None
            self._inquiry_line = None  # a late answer must not be taken for the next one's
            try:
                line = line or _Line(self._host, self._port, self._security)
                line.transport.set_timeout(_ANSWER_S)
                # Before any answer counts, and perhaps before it let this process enrol.
                self._report_all_but(None, line)
                answers = line.client.inquire(self._self.participant, asked,
                                              _seen(self._fence.seen(self.coordinator)))
            except values.Refused as refused:
                self._inquiry_line = line
                raise Unavailable(f"the coordinator refuses inquiries: {refused.message}") from None
            except (OSError, TException) as error:
                if line is not None:
                    line.close()
                raise Unavailable(f"no answer to the inquiry: {error}") from None
            if len(answers) != len(asked):
                line.close()
                raise Unavailable("the coordinator answered another number of inquiries")
            self._inquiry_line = line
        return [_answer(inquiry, told) for inquiry, told in zip(inquiries, answers)]
