"""What a database's memory proves about a branch whose GID is gone (law L13), as pure rules: they
are given what was read and say what follows. Knows no connection. The rules are those of
participant/evidence.h. docs/protocol.md, "Laws"."""

from __future__ import annotations

import enum
import re
import threading
from dataclasses import dataclass
from typing import NamedTuple

from troth.participant.values import Evidence, FinishKind, FinishResult, LogPoint


class XidStatus(enum.Enum):
    """What pg_xact_status said."""

    COMMITTED = "committed"
    ABORTED = "aborted"
    IN_PROGRESS = "in progress"
    FORGOTTEN = ""  # NULL: too old, its fate is no longer kept
    FUTURE = "future"  # 22023: no such xid was given out yet


class TimelineSwitch(NamedTuple):
    """Where an older timeline was left for a newer one."""

    timeline: int
    position: int


def parse_lsn(text: str) -> int:
    high, slash, low = text.partition("/")
    return int(high, 16) << 32 | int(low, 16) if slash else 0


def _lsn(position: int) -> str:
    return f"{position >> 32:X}/{position & 0xFFFFFFFF:X}"


def _at(point: LogPoint) -> str:
    return f"timeline {point.timeline} at {_lsn(point.position)}"


def parse_timeline_history(text: str) -> list[TimelineSwitch]:
    """Lines of `<timeline>.history`; lines that are none are passed over."""
    lines = re.finditer(r"^\s*(\d+)\s+([0-9A-Fa-f]+/[0-9A-Fa-f]+)", text, re.MULTILINE)
    return [TimelineSwitch(int(line[1]), parse_lsn(line[2])) for line in lines]


class LogMemory:
    """How far the database was seen to have come, by timeline; tells when it went back in time,
    which makes all evidence above that point void for good (L13b). Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._highest: dict[int, int] = {}
        self._void_above: dict[int, int] = {}

    def snapshot(self) -> dict[int, int]:
        """What was known before a question was sent."""
        with self._lock:
            return dict(self._highest)

    def observe(self, point: LogPoint, known: dict[int, int]) -> bool:
        """Takes in where the database stood when it answered a question sent after `known` was
        taken. False: it has gone back."""
        with self._lock:
            if point.position < known.get(point.timeline, 0):
                void = self._void_above.get(point.timeline, point.position)
                self._void_above[point.timeline] = min(void, point.position)
                self._highest[point.timeline] = point.position
                return False
            highest = self._highest.get(point.timeline, 0)
            self._highest[point.timeline] = max(highest, point.position)
            return True

    def remember(self, point: LogPoint) -> None:
        """Takes in the point of evidence: at or below the present end of an honest log."""
        with self._lock:
            highest = self._highest.get(point.timeline, 0)
            self._highest[point.timeline] = max(highest, point.position)

    def void(self, point: LogPoint) -> bool:
        """Evidence at this point proves nothing: the database was seen below it, later."""
        with self._lock:
            above = self._void_above.get(point.timeline)
            return above is not None and point.position > above


@dataclass
class Findings:
    """What was read of a branch whose GID is gone, or holds another xid."""

    now: LogPoint
    status: XidStatus
    went_back: bool = False
    history: list[TimelineSwitch] | None = None  # None: could not be read, `unreadable` says why
    unreadable: str = ""


def why_no_proof(vote: Evidence, findings: Findings) -> str | None:
    """Whether the vote's xid can be judged on a database with these findings at all; None: yes."""
    voted = "the vote was given on " + _at(vote.point)
    now = findings.now
    if findings.went_back:
        return f"{voted}, and the database was since seen below it: it was restored from a copy"
    if vote.point.timeline == now.timeline:
        if now.position >= vote.point.position:
            return None
        return f"{voted}, but the database stands on {_at(now)}: it was restored from a copy"
    if findings.history is None:
        return (f"{voted}, the database is on timeline {now.timeline}, and its history could not be "
                f"read ({findings.unreadable}): GRANT EXECUTE ON FUNCTION pg_read_file(text) to the "
                "participant's role")
    for left in findings.history:
        if left.timeline == vote.point.timeline:
            if left.position >= vote.point.position:
                return None
            return (f"{voted}, but timeline {now.timeline} left it already at {_lsn(left.position)}: "
                    "the prepared branch was lost in a failover")
    return f"{voted}, which is no ancestor of the database's timeline {now.timeline}"


def judge(commit: bool, vote: Evidence, findings: Findings) -> FinishResult:
    """What the findings say of a branch that was to be committed, or rolled back."""
    xid = f"transaction {vote.xid}"
    why = why_no_proof(vote, findings)
    if why is not None:
        return FinishResult(FinishKind.HAZARD, f"{xid} is not prepared (any more), and nothing "
                            f"proves how it ended: {why}")
    status = findings.status
    if status in (XidStatus.COMMITTED, XidStatus.ABORTED):
        if (status is XidStatus.COMMITTED) == commit:
            return FinishResult(FinishKind.DONE)
        return FinishResult(FinishKind.HEURISTIC, (
            f"{xid} was rolled back by another hand; it was to be committed" if commit else
            f"{xid} was committed by another hand; it was to be rolled back"))
    return FinishResult(FinishKind.HAZARD, xid + {
        XidStatus.IN_PROGRESS: " is in progress and not prepared: it is not the one that voted",
        XidStatus.FORGOTTEN: " ended so long ago that the database forgot how",
        XidStatus.FUTURE: " has not happened yet in this database: it is not the one that voted",
    }[status])
