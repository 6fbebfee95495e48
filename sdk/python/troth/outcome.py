"""What an application is told of its transaction (docs/protocol.md, law L10): values that are
never wrong. Knows neither how it was decided nor how it came here."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Any

from troth.wire.coordinator import ttypes as coordinator_types
from troth.wire.values import ttypes as values


def reason_name(reason: int) -> str:
    """`CONFLICT`, ...: the wire's name."""
    return values.Reason._VALUES_TO_NAMES.get(reason, "?")


@dataclass(frozen=True)
class Failure:
    """Why a transaction, or a piece of its work, did not go through."""

    reason: int  # troth.wire.values.ttypes.Reason
    message: str
    retryable: bool = False  # repeating the *whole* transaction may succeed
    participant: str = ""
    sqlstate: str = ""

    def __str__(self) -> str:
        where = f"{self.participant}: " if self.participant else ""
        return f"{where}{self.message} ({reason_name(self.reason)})"


class Kind(enum.Enum):
    COMMITTED = "committed"  # every branch commits; `unapplied`: where it is to come, or not known
    ABORTED = "aborted"  # nothing takes or will take effect anywhere; `failure` says why
    READ_ONLY = "read-only"  # every branch was read-only, or there was none
    PENDING = "pending"  # not decided yet: ask Client.outcome
    EXPIRED = "expired"  # so old that its outcome is no longer kept
    # A commit call was sent, and nobody could tell what became of it before the deadline: ask
    # Client.outcome with transaction_id. Never guess.
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Outcome:
    kind: Kind
    transaction_id: str = ""  # empty when not even an id could be had: nothing was begun
    unapplied: tuple[str, ...] = field(default=())
    failure: Failure | None = None  # ABORTED, UNKNOWN

    @property
    def committed(self) -> bool:
        return self.kind is Kind.COMMITTED

    @property
    def ok(self) -> bool:
        """What was read and written holds."""
        return self.kind in (Kind.COMMITTED, Kind.READ_ONLY)

    @property
    def final(self) -> bool:
        """True unless asking again may give another kind."""
        return self.kind not in (Kind.PENDING, Kind.UNKNOWN)

    @property
    def retryable(self) -> bool:
        return self.kind is Kind.ABORTED and self.failure is not None and self.failure.retryable

    def __str__(self) -> str:
        text = f"{self.kind.value} {self.transaction_id}".rstrip()
        if self.unapplied:
            text += ", not applied yet, or not known to be, at " + " ".join(self.unapplied)
        if self.failure is not None:
            text += f": {self.failure}"
            if self.retryable:
                text += "; repeating it may succeed"
        return text


class TransactionError(Exception):
    """A transaction did not go through. `outcome` says what is known."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(str(outcome))
        self.outcome = outcome


class Aborted(TransactionError):
    """Surely nothing took effect; `retryable` says whether repeating it may succeed."""

    @property
    def retryable(self) -> bool:
        return self.outcome.retryable


class OutcomeUnknown(TransactionError):
    """It may have committed. Ask Client.outcome(error.outcome.transaction_id); never repeat."""


class WorkFailed(Exception):
    """A piece of work did not go through; its transaction can only be aborted."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(str(failure))
        self.failure = failure


class NotAnswered(Exception):
    """The coordinator could not be asked, or refuses; `failure` says why."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(str(failure))
        self.failure = failure

    @property
    def retryable(self) -> bool:
        return self.failure.retryable


def failure_of(refused: Any, participant: str = "") -> Failure:
    return Failure(refused.reason, refused.message or "", bool(refused.retryable), participant,
                   refused.sqlstate or "")


def outcome_of(told: Any) -> Outcome:
    """From the wire. A word of a later version is an unknown outcome."""
    kinds = coordinator_types.OutcomeKind
    kind = {kinds.COMMITTED: Kind.COMMITTED, kinds.ABORTED: Kind.ABORTED,
            kinds.READ_ONLY: Kind.READ_ONLY, kinds.PENDING: Kind.PENDING,
            kinds.EXPIRED: Kind.EXPIRED}.get(told.kind, Kind.UNKNOWN)
    failure = None
    if kind is Kind.ABORTED:
        failure = Failure(told.reason or values.Reason.APPLICATION, told.message or "",
                          bool(told.retryable), told.participant or "", told.sqlstate or "")
    return Outcome(kind, told.transaction_id or "", tuple(told.unapplied or ()), failure)
