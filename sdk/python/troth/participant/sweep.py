"""Recovery of a participant, for ever (laws L8 and L14). Finds prepared branches that nobody here
looks after, says which to ask the coordinator about, and settles what it answered. Knows no wire
and no thread. docs/protocol.md, "Laws"."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from troth import failpoint
from troth.ids import gid_prefix, parse_gid
from troth.participant.branch_table import BranchTable
from troth.participant.values import (
    Evidence, FinishKind, FinishRequest, ResourceManager, SweepCounts)

# A branch is asked about when it was seen for so long; its own instance may be about to finish it.
PATIENCE_MS = 1_000
# Expired and not mine are asked about again after so long: an operator may have acted.
HOPELESS_MS = 10_000


class Verdict(enum.Enum):
    COMMIT = "commit"
    ABORT = "abort"
    PENDING = "pending"
    EXPIRED = "expired"
    NOT_MINE = "not-mine"


@dataclass(frozen=True)
class Inquiry:
    transaction_id: str
    coordinator: str  # of the id: whom to ask
    xid: int  # 32 low bits


@dataclass(frozen=True)
class Answer:
    inquiry: Inquiry
    verdict: Verdict
    evidence: Evidence | None = None  # COMMIT


@dataclass
class _Sighting:
    xid: int
    first_ms: int
    not_before_ms: int = 0
    verdict: Verdict = Verdict.PENDING


class Sweep:
    """Used by one thread at a time."""

    def __init__(self, participant: str, resource_manager: ResourceManager,
                 table: BranchTable) -> None:
        self._participant = participant
        self._rm = resource_manager
        self._table = table
        self._sightings: dict[str, _Sighting] = {}
        self.counts = SweepCounts()

    def look(self) -> list[Inquiry]:
        """Lists what is prepared; returns what is to be asked about now. Raises Unavailable."""
        asked_ms = self._table.now_ms()
        prepared = self._rm.list_prepared(gid_prefix(self._participant))
        failpoint.passing("sweep-listed")
        now = self._table.now_ms()
        seen: dict[str, _Sighting] = {}
        ids: set[str] = set()
        due: list[Inquiry] = []
        counts = SweepCounts(settled=self.counts.settled)
        for branch in prepared:
            id_ = parse_gid(self._participant, branch.gid)
            if id_ is None:
                counts.foreign += 1
                continue
            text = str(id_)
            ids.add(text)
            if self._table.looks_after(text, PATIENCE_MS):
                continue
            sighting = self._sightings.get(text)
            if sighting is None or sighting.xid != branch.xid:
                sighting = _Sighting(branch.xid, now)
            seen[text] = sighting
            counts.found += 1
            counts.oldest_ms = max(counts.oldest_ms, branch.age_ms)
            if sighting.verdict is Verdict.EXPIRED:
                counts.expired += 1
            elif sighting.verdict is Verdict.NOT_MINE:
                counts.not_mine += 1
            if sighting.verdict in (Verdict.EXPIRED, Verdict.NOT_MINE):
                counts.ids[text] = sighting.verdict.value
            if now - sighting.first_ms >= PATIENCE_MS and now >= sighting.not_before_ms:
                due.append(Inquiry(text, id_.coordinator, branch.xid))
        self._sightings = seen
        self.counts = counts
        self._table.listed(ids, asked_ms, counts.found)
        return due

    def settle(self, answers: list[Answer], wait_ms: int) -> None:
        """Carries answers out: commits with the evidence told, rolls back the xid that was seen,
        keeps the rest. What does not settle comes up again in the next look."""
        failpoint.passing("sweep-answered")
        orders: list[FinishRequest] = []
        for answer in answers:
            id_ = answer.inquiry.transaction_id
            if answer.verdict is Verdict.COMMIT:
                orders.append(FinishRequest(id_, True, answer.evidence, answer.inquiry.xid))
            elif answer.verdict is Verdict.ABORT:
                orders.append(FinishRequest(id_, False, None, answer.inquiry.xid))
            elif answer.verdict is not Verdict.PENDING and id_ in self._sightings:
                self._sightings[id_].verdict = answer.verdict
                self._sightings[id_].not_before_ms = self._table.now_ms() + HOPELESS_MS
        if not orders:
            return
        results = self._table.finish(orders, wait_ms)
        for order, result in zip(orders, results):
            if result.kind is not FinishKind.WORKING:
                self.counts.settled += 1
                self._sightings.pop(order.transaction_id, None)
        failpoint.passing("sweep-settled")
