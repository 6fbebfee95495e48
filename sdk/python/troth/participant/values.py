"""The words between a participant's rules (branch_table), its database (postgres) and the wire.
Knows none of the three. The same values as participant/resource_manager.h and refusal.h."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Callable, Protocol


class Refused(enum.IntEnum):
    """Why something was refused; as enum Reason of the wire contract, by number."""

    INVALID = 1
    VERSION_MISMATCH = 2
    OVERLOADED = 3
    DEADLINE = 4
    NO_SUCH_BRANCH = 5
    OUT_OF_NUMBER = 6
    ENDED = 7
    CONFLICT = 8
    DATABASE = 9
    DATABASE_UNAVAILABLE = 10
    NOT_MINE = 11
    NOT_SERVING = 15
    FORBIDDEN = 16
    STALE_EPOCH = 19
    APPLICATION = 20


class Refusal(Exception):
    """Surely not done, or undone. `message` is for people: the thing, the reason, what to do;
    `retryable`: repeating the whole transaction may succeed."""

    def __init__(self, reason: Refused, message: str, retryable: bool = False,
                 sqlstate: str = "", unheard: bool = False) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.retryable = retryable
        self.sqlstate = sqlstate
        self.unheard = unheard  # of the first work of a branch: it was not begun

    def again(self) -> "Refusal":
        """A copy to raise, or to keep, without the frames that the raising gathered."""
        return Refusal(self.reason, self.message, self.retryable, self.sqlstate, self.unheard)


class Unavailable(Exception):
    """The database cannot be asked now; surely nothing was changed by the asking."""


class ServerUnfit(Exception):
    """The server must be set up otherwise; the text names the setting and the statement."""


@dataclass(frozen=True)
class LogPoint:
    """A point in a database's write-ahead log."""

    timeline: int = 0
    position: int = 0


@dataclass(frozen=True)
class Evidence:
    """By what a prepared branch is recognised for ever (law L13)."""

    xid: int  # 64 bits, epoch included
    point: LogPoint  # at or after the record of PREPARE


@dataclass(frozen=True)
class DatabaseIdentity:
    system_identifier: str
    oid: int


@dataclass(frozen=True)
class DatabaseState:
    identity: DatabaseIdentity
    point: LogPoint
    address: str  # "host:port"
    machine: str = ""  # that `address` is of; see machine_of() in connections.py


class Isolation(enum.Enum):
    DEFAULT = ""
    READ_COMMITTED = " ISOLATION LEVEL READ COMMITTED"
    REPEATABLE_READ = " ISOLATION LEVEL REPEATABLE READ"
    SERIALIZABLE = " ISOLATION LEVEL SERIALIZABLE"


@dataclass
class BeginOptions:
    gid: str
    mark: str  # set inside the block, gone with it
    isolation: Isolation
    read_only: bool
    time_left_ms: int
    # Shown by the database as the session's name while the block is open; of [a-z0-9:-].
    label: str = ""


class Session(Protocol):
    """One open block, on a connection that never reconnects. One thread at a time, but for
    cancel()."""

    def broken(self) -> Refusal | None:
        """Whether the block no longer stands as it was begun. Costs no round trip."""

    def rollback(self) -> None:
        """Rolls back what is not prepared and gives the connection back."""

    def cancel(self) -> None:
        """Stops the statement under way; from any thread. The block can't be prepared then."""


class PrepareKind(enum.Enum):
    PREPARED = 1
    READ_ONLY = 2
    REFUSED = 3  # nothing is prepared and nothing will be
    UNKNOWN = 4  # the connection broke before the answer: maybe prepared


@dataclass
class PrepareResult:
    kind: PrepareKind
    evidence: Evidence | None = None  # PREPARED; UNKNOWN: the xid that may be prepared
    generation: int = 0
    refusal: Refusal | None = None


@dataclass
class FinishOrder:
    """What to do with what is prepared under a GID."""

    gid: str
    commit: bool
    evidence: Evidence | None = None  # required for commit
    only_xid: int | None = None  # abort: this xid (32 low bits), nothing else
    generation: int | None = None  # of PrepareResult: spares comparing xids while current


class FinishKind(enum.Enum):
    DONE = 1
    WORKING = 2  # not settled; order it again
    HEURISTIC = 3  # proven: it ended the other way, by another hand
    HAZARD = 4  # the evidence does not tell, and will not


@dataclass
class FinishResult:
    kind: FinishKind
    message: str = ""
    sqlstate: str = ""


@dataclass(frozen=True)
class PreparedBranch:
    """A row of pg_prepared_xacts."""

    gid: str
    xid: int
    age_ms: int = 0


@dataclass
class SeenCoordinator:
    """The highest (epoch, position) seen of a coordinator (law L7c)."""

    coordinator: str
    epoch: int = 0
    epoch_random: int = 0
    position: int = 0


class ResourceManager(Protocol):
    """What a participant needs of a database that can prepare transactions. Thread-safe."""

    def begin(self, options: BeginOptions) -> Session:
        """Opens a block. Raises Refusal: OVERLOADED when no connection is free for 100 ms."""

    def start_prepare(self, session: Session, done: Callable[[PrepareResult], None]) -> None:
        """Guard and PREPARE. Calls `done` once, on any thread; the session is over then."""

    def start_finish(self, order: FinishOrder, done: Callable[[FinishResult], None]) -> None:
        """Carries the order out. Calls `done` once, on any thread. Safe to repeat."""

    def list_prepared(self, prefix: str) -> list[PreparedBranch]:
        """Raises Unavailable, as those that follow."""

    def look(self) -> DatabaseState: ...

    def load_seen(self) -> list[SeenCoordinator]: ...

    def store_seen(self, seen: SeenCoordinator) -> None: ...

    def hold_sweep(self, participant: str) -> bool:
        """True while this process may sweep. Never raises."""


class VoteKind(enum.Enum):
    PREPARED = 1
    READ_ONLY = 2
    REFUSED = 3
    WORKING = 4


@dataclass
class Vote:
    kind: VoteKind
    works: int = 0
    evidence: Evidence | None = None
    refusal: Refusal | None = None


@dataclass
class WorkRequest:
    transaction_id: str
    work: int
    time_left_ms: int
    mark: str = ""
    isolation: Isolation = Isolation.DEFAULT
    read_only: bool = False
    label: str = ""


@dataclass
class Work:
    """Work that was let in; to be given back to end_work, exactly once."""

    transaction_id: str
    session: Session


@dataclass
class WorkReply:
    mark: str
    works: int
    vote: Vote | None = None


@dataclass
class PrepareRequest:
    transaction_id: str
    mark: str
    works: int
    time_left_ms: int
    instance: str


@dataclass
class FinishRequest:
    transaction_id: str
    commit: bool
    evidence: Evidence | None = None
    # Of what was seen prepared (32 low bits), whatever is known of the id: an abort ends this
    # xid and nothing else.
    only_xid: int | None = None


@dataclass
class BranchInfo:
    transaction_id: str
    state: str
    age_ms: int


@dataclass
class BranchCounts:
    active: int = 0
    in_doubt: int = 0
    found: int = 0
    ended: int = 0
    heuristics: int = 0
    hazards: int = 0


@dataclass
class SweepCounts:
    found: int = 0
    expired: int = 0
    not_mine: int = 0
    foreign: int = 0
    settled: int = 0
    oldest_ms: int = 0
    ids: dict[str, str] = field(default_factory=dict)  # expired and not mine, by id
