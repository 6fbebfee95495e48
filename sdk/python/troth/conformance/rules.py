"""The rules of the contract that can be seen from outside, each with a name that says what is
kept. docs/participants.md, "Any other language", explains them."""

from __future__ import annotations

import struct
import threading
import time
from copy import copy
from dataclasses import dataclass
from typing import Any, Callable

from thrift.Thrift import TException

from troth.conformance.subject import Broken, Subject, ballot_name, expect, refusal
from troth.transport import MAX_FRAME_BYTES
from troth.vote_mac import make_vote_mac
from troth.wire.coordinator.ttypes import Verdict
from troth.wire.participant.ttypes import Finished
from troth.wire.values.constants import PROTOCOL_VERSION
from troth.wire.values.ttypes import Ballot, Reason, Sender

DONE, HEURISTIC, HAZARD = Finished.DONE, Finished.HEURISTIC, Finished.HAZARD


@dataclass(frozen=True)
class Rule:
    name: str
    needs: str  # "", "read", "failing", "coordinator", "database": what must be given
    check: Callable[[Subject], None]

    @property
    def text(self) -> str:
        return " ".join((self.check.__doc__ or "").split())


RULES: list[Rule] = []


def rule(name: str, needs: str = "") -> Callable[[Callable[[Subject], None]], Any]:
    def register(check: Callable[[Subject], None]) -> Callable[[Subject], None]:
        RULES.append(Rule(name, needs, check))
        return check
    return register


# Greetings and frames -------------------------------------------------------------------------


@rule("hello")
def _(s: Subject) -> None:
    """Both listeners answer hello with this version and the same name and instance."""
    for hello in (s.peer().hello(PROTOCOL_VERSION, s.sender),
                  s.participant().hello(PROTOCOL_VERSION)):
        expect((hello.version, hello.participant, hello.instance) ==
               (PROTOCOL_VERSION, s.name, s.instance), f"hello is answered {hello}")


@rule("hello-other-version")
def _(s: Subject) -> None:
    """Another version is refused with VERSION_MISMATCH, on both listeners."""
    refusal(lambda: s.peer().hello(99, s.sender), Reason.VERSION_MISMATCH,
            what="hello with version 99 on the peer listener")
    refusal(lambda: s.participant().hello(99), Reason.VERSION_MISMATCH,
            what="hello with version 99 on the work listener")


@rule("sender-malformed")
def _(s: Subject) -> None:
    """A sender that is no coordinator's id, or has epoch 0, is refused."""
    for sender in (Sender("nobody", 1, 1, 1), Sender(s.sender.coordinator, 0, 0, 0)):
        refusal(lambda sender=sender: s.peer().prepare(sender, []), Reason.INVALID,
                what=f"prepare from {sender}")


@rule("sender-of-another")
def _(s: Subject) -> None:
    """A coordinator prepares and finishes its own transactions only: FORBIDDEN, and nothing is done."""
    id_, branch = s.begin()
    other = Sender(s.sender.coordinator[:-12] + "feedfeedfeed", 1, 1, 1)
    refusal(lambda: s.peer().prepare(other, [s.prepare_request(id_, branch)]), Reason.FORBIDDEN,
            what="a prepare from another coordinator")
    vote = s.prepare(id_, branch)
    expect(vote.ballot == Ballot.PREPARED, "the branch did not prepare for its own coordinator")
    for commit in (False, True):
        refusal(lambda commit=commit: s.peer().finish(other, [s.finish_request(id_, commit, vote)]),
                Reason.FORBIDDEN, what="a finish from another coordinator")
    s.expect_finish(id_, vote, True, DONE, what="the commit, from its own,")


@rule("list-too-long")
def _(s: Subject) -> None:
    """A list of more than 512 entries is refused, and nothing of it is done."""
    id_, branch = s.begin()
    requests = [s.finish_request(id_, False)] * 513
    refusal(lambda: s.peer().finish(s.sender, requests), Reason.INVALID, what="a list of 513 finishes")
    expect(s.prepare(id_, branch).ballot == Ballot.PREPARED, "an entry of a refused list was done")


@rule("frame-too-large")
def _(s: Subject) -> None:
    """A frame above 1 MiB closes the connection; others are served."""
    for transport in (s.peer_transport(), s.work_transport()):
        raw = transport._socket  # pylint: disable=protected-access
        raw.settimeout(5)
        raw.sendall(struct.pack(">i", MAX_FRAME_BYTES + 1))
        try:
            end = raw.recv(1)
        except TimeoutError:
            raise Broken("the announcement of a frame of 1 MiB + 1 leaves the connection open") from None
        except OSError:
            end = b""
        expect(end == b"", "a frame of 1 MiB + 1 is answered")
    s.peer().hello(PROTOCOL_VERSION, s.sender)
    s.participant().hello(PROTOCOL_VERSION)


# Work -----------------------------------------------------------------------------------------


@rule("work-0-opens")
def _(s: Subject) -> None:
    """Work 0 opens a branch: the reply names participant, instance, a mark, one piece of work."""
    _id, branch = s.begin()
    expect((branch.participant, branch.instance, branch.works) == (s.name, s.instance, 1) and
           branch.mark and branch.vote is None, f"work 0 is answered {branch}")


@rule("marks-differ")
def _(s: Subject) -> None:
    """Each branch draws a mark of its own."""
    marks = set()
    for _i in range(4):
        id_, branch = s.begin()
        marks.add(branch.mark)
        s.finish(id_, commit=False)
    expect(len(marks) == 4, f"four branches have the marks {sorted(marks)}")


@rule("work-n-continues")
def _(s: Subject) -> None:
    """Work n with the mark continues the branch and counts."""
    id_, branch = s.begin()
    more = s.work(id_, 1, branch.mark, piece=s.second_piece)
    expect((more.mark, more.works, more.instance) == (branch.mark, 2, branch.instance),
           f"work 1 is answered {more}")


@rule("work-0-twice")
def _(s: Subject) -> None:
    """A second work 0 is refused and leaves the branch as it was."""
    id_, branch = s.begin()
    refusal(lambda: s.work(id_, 0), Reason.OUT_OF_NUMBER, what="a second work 0")
    expect(s.prepare(id_, branch).ballot == Ballot.PREPARED, "the refused work 0 harmed the branch")


@rule("work-wrong-mark")
def _(s: Subject) -> None:
    """Work 1 with another mark, or none, is refused and not done."""
    id_, branch = s.begin()
    refusal(lambda: s.work(id_, 1, "0123456789abcdef"), Reason.OUT_OF_NUMBER,
            what="work 1 with another mark")
    refusal(lambda: s.work(id_, 1, None), Reason.OUT_OF_NUMBER, Reason.INVALID,
            what="work 1 without a mark")
    expect(s.prepare(id_, branch).ballot == Ballot.PREPARED, "refused work was counted")


@rule("work-out-of-number")
def _(s: Subject) -> None:
    """Work 2 after work 0, and work 0's number again with the mark, are refused."""
    id_, branch = s.begin()
    refusal(lambda: s.work(id_, 2, branch.mark), Reason.OUT_OF_NUMBER, what="work 2 after work 0")
    more = s.work(id_, 1, branch.mark, piece=s.second_piece)
    refusal(lambda: s.work(id_, 1, branch.mark), Reason.OUT_OF_NUMBER, what="work 1 once more")
    expect(more.works == 2, f"work 1 counts {more.works}")


@rule("work-without-branch")
def _(s: Subject) -> None:
    """Work 1 of a branch that was never begun is refused: it was lost, or is elsewhere."""
    refusal(lambda: s.work(s.new_id(), 1, "0123456789abcdef"), Reason.NO_SUCH_BRANCH,
            what="work 1 without work 0")


@rule("work-malformed")
def _(s: Subject) -> None:
    """A malformed id, a negative number and a deadline of 0 are refused."""
    refusal(lambda: s.work("no id", 0), Reason.INVALID, what="work of 'no id'")
    refusal(lambda: s.work("troth:a'; DROP TABLE x; --", 0), Reason.INVALID, what="work of an SQL id")
    refusal(lambda: s.work(s.new_id(), -1), Reason.INVALID, what="work -1")
    refusal(lambda: s.work(s.new_id(), 0, deadline_ms=0), Reason.DEADLINE, what="work with no time left")


@rule("work-after-prepare")
def _(s: Subject) -> None:
    """Work that comes after prepare is refused."""
    id_, branch, _vote = s.prepared()
    refusal(lambda: s.work(id_, 1, branch.mark), what="work 1 after prepare")
    refusal(lambda: s.work(id_, 0), what="work 0 after prepare")


@rule("work-after-abort")
def _(s: Subject) -> None:
    """Work that comes after an abort is refused: the id has ended."""
    id_, branch = s.begin()
    s.expect_finish(id_, None, False, DONE, what="the abort of an open branch")
    refusal(lambda: s.work(id_, 1, branch.mark), Reason.ENDED, Reason.NO_SUCH_BRANCH,
            what="work 1 after an abort")
    refusal(lambda: s.work(id_, 0), Reason.ENDED, what="work 0 after an abort")


@rule("work-after-commit")
def _(s: Subject) -> None:
    """Work 0 that comes late, after the commit, is refused."""
    id_, _branch, vote = s.prepared()
    s.expect_finish(id_, vote, True, DONE, what="a commit")
    refusal(lambda: s.work(id_, 0), Reason.ENDED, what="work 0 after the commit")


@rule("work-failed", needs="failing")
def _(s: Subject) -> None:
    """After work that failed, work and prepare are refused until the transaction is aborted."""
    id_, branch = s.begin()
    refusal(lambda: s.work(id_, 1, branch.mark, piece=s.failing_piece), what="the failing work")
    refusal(lambda: s.work(id_, 1, branch.mark), what="work 1 after a failed one")
    refusal(lambda: s.work(id_, 0), what="work 0 after a failed one")
    vote = s.prepare(id_, branch)
    expect(vote.ballot == Ballot.REFUSED, f"after a failure it votes {ballot_name(vote.ballot)}")


@rule("deadline-ends-branch")
def _(s: Subject) -> None:
    """A branch whose deadline passed is rolled back and is not prepared."""
    id_, branch = s.begin(deadline_ms=400)
    time.sleep(1.2)  # the passing of this very time is what is tested
    vote = s.prepare(id_, branch)
    expect(vote.ballot == Ballot.REFUSED, f"past its deadline it votes {ballot_name(vote.ballot)}")


# Prepare --------------------------------------------------------------------------------------


@rule("prepare-votes")
def _(s: Subject) -> None:
    """A vote PREPARED bears the evidence: system, database, xid, timeline, position, works."""
    id_, branch = s.begin()
    s.work(id_, 1, branch.mark, piece=s.second_piece)
    vote = s.prepare(id_, branch, works=2)
    expect(vote.ballot == Ballot.PREPARED, f"it votes {ballot_name(vote.ballot)}: {vote.message}")
    expect(vote.works == 2 and vote.system_identifier and vote.system_identifier.isdigit() and
           (vote.database_oid or 0) > 0 and (vote.xid or 0) > 2 and (vote.timeline or 0) > 0 and
           (vote.position or 0) > 0, f"the vote lacks evidence: {vote}")


@rule("prepare-repeats")
def _(s: Subject) -> None:
    """A repeated prepare gets the same vote."""
    id_, branch, vote = s.prepared()
    again = s.prepare(id_, branch)
    expect(again == vote, f"the repeated prepare votes {again}, first it was {vote}")


@rule("prepare-wrong-mark")
def _(s: Subject) -> None:
    """Prepare with another mark is refused, for good."""
    id_, branch = s.begin()
    vote = s.prepare(id_, branch, mark="0123456789abcdef")
    expect(vote.ballot == Ballot.REFUSED, f"with another mark it votes {ballot_name(vote.ballot)}")
    vote = s.prepare(id_, branch)
    expect(vote.ballot == Ballot.REFUSED,
           f"it votes {ballot_name(vote.ballot)} after it refused: a refused vote binds")


@rule("prepare-wrong-total")
def _(s: Subject) -> None:
    """Prepare with another number of works is refused: half a branch must never commit."""
    for works in (0, 2):
        id_, branch = s.begin()
        vote = s.prepare(id_, branch, works=works)
        expect(vote.ballot == Ballot.REFUSED,
               f"with {works} works instead of 1 it votes {ballot_name(vote.ballot)}")


@rule("prepare-other-instance")
def _(s: Subject) -> None:
    """Prepare meant for another process is refused."""
    id_, branch = s.begin()
    vote = s.prepare(id_, branch, instance="another")
    expect(vote.ballot == Ballot.REFUSED, f"as another instance it votes {ballot_name(vote.ballot)}")


@rule("prepare-unknown-binds")
def _(s: Subject) -> None:
    """Prepare of an unknown branch is refused, and binds: late work finds the id ended."""
    id_, branch = s.begin()
    other = s.new_id()
    vote = s.prepare(other, branch)
    expect(vote.ballot == Ballot.REFUSED, f"an unknown branch votes {ballot_name(vote.ballot)}")
    refusal(lambda: s.work(other, 0), Reason.ENDED, what="work 0 after a refused vote")


@rule("read-only", needs="read")
def _(s: Subject) -> None:
    """A branch declared read-only votes READ_ONLY, again too, and is over."""
    id_, branch = s.begin(read_only=True, piece=s.read_piece)
    for _i in range(2):
        vote = s.prepare(id_, branch)
        expect(vote.ballot == Ballot.READ_ONLY, f"it votes {ballot_name(vote.ballot)}: {vote.message}")
    refusal(lambda: s.work(id_, 1, branch.mark, piece=s.read_piece), what="work after the vote")


@rule("read-only-kept")
def _(s: Subject) -> None:
    """Work that writes in a branch declared read-only fails, or its vote is refused."""
    id_ = s.new_id()
    try:
        branch = s.work(id_, 0, read_only=True)
    except Exception as error:  # pylint: disable=broad-except
        if type(error).__name__ != "Refused":
            raise
        return
    vote = s.prepare(id_, branch)
    expect(vote.ballot != Ballot.PREPARED, "a branch declared read-only votes PREPARED")


@rule("order-of-replies")
def _(s: Subject) -> None:
    """Replies come in the order of the requests, each naming its own."""
    branches = []
    for _i in range(3):
        id_, branch = s.begin(piece=s.read_piece)
        branches.append((id_, branch))
    unknown = s.new_id()
    requests = [s.prepare_request(id_, branch) for id_, branch in branches]
    requests.insert(1, s.prepare_request(unknown, branches[0][1]))
    replies = s.peer().prepare(s.sender, requests)
    expect([reply.transaction_id for reply in replies] ==
           [request.transaction_id for request in requests], "the replies are in another order")
    expect(replies[1].vote.ballot == Ballot.REFUSED, "the unknown branch among them is not refused")
    votes = [s.prepare(id_, branch) for id_, branch in branches]
    expect(all(vote.ballot == Ballot.PREPARED for vote in votes), "one refused entry harmed others")
    finishes = [s.finish_request(id_, False) for id_, _b in branches]
    ids = [reply.transaction_id for reply in s.peer().finish(s.sender, finishes)]
    expect(ids == [one.transaction_id for one in finishes], "finishes are answered in another order")


# Finish ---------------------------------------------------------------------------------------


@rule("commit-done")
def _(s: Subject) -> None:
    """A commit with the vote's evidence is done, also when it is repeated."""
    id_, _branch, vote = s.prepared()
    s.expect_finish(id_, vote, True, DONE, what="a commit")
    s.expect_finish(id_, vote, True, DONE, what="the repeated commit")


@rule("commit-needs-evidence")
def _(s: Subject) -> None:
    """A commit that names no xid is refused and does nothing."""
    id_, branch, vote = s.prepared()
    refusal(lambda: s.peer().finish(s.sender, [s.finish_request(id_, True)]), Reason.INVALID,
            what="a commit without evidence")
    expect(s.prepare(id_, branch) == vote, "the branch is no longer as it was")


@rule("commit-unknown-is-no-commit")
def _(s: Subject) -> None:
    """"Not found" proves nothing: the commit of a branch that never was is never DONE."""
    _id, _branch, vote = s.prepared()
    never = copy(vote)
    never.xid = vote.xid + 10_000_000
    s.expect_finish(s.new_id(), never, True, HAZARD, HEURISTIC,
                    what="the commit of a branch that never was")


@rule("commit-of-rolled-back")
def _(s: Subject) -> None:
    """The commit of a branch that was rolled back is a heuristic: the evidence says aborted."""
    id_, _branch, vote = s.prepared()
    s.expect_finish(id_, vote, False, DONE, what="an abort")
    s.expect_finish(id_, vote, True, HEURISTIC, what="the commit of a branch that was rolled back")


@rule("commit-other-xid")
def _(s: Subject) -> None:
    """A commit for another xid does not commit what holds the GID: that never voted."""
    id_, _branch, vote = s.prepared()
    other = copy(vote)
    other.xid = vote.xid + 10_000_000
    finished = s.finish(id_, other)
    expect(finished in (HAZARD, HEURISTIC),
           f"the commit of another xid is answered {Finished._VALUES_TO_NAMES[finished]}")
    s.expect_finish(id_, vote, True, HEURISTIC,
                    what="the branch that held the GID, after a commit for another xid,")


@rule("commit-position-ahead")
def _(s: Subject) -> None:
    """Evidence from beyond the end of the log is a hazard: the database went back in time."""
    id_, _branch, vote = s.prepared()
    s.expect_finish(id_, vote, False, DONE, what="an abort")
    ahead = copy(vote)
    ahead.position = vote.position + (1 << 44)
    s.expect_finish(id_, ahead, True, HAZARD, what="a vote from beyond the log's end")


@rule("commit-other-timeline")
def _(s: Subject) -> None:
    """Evidence of a timeline that is no ancestor of the database's is a hazard."""
    id_, _branch, vote = s.prepared()
    s.expect_finish(id_, vote, False, DONE, what="an abort")
    elsewhere = copy(vote)
    elsewhere.timeline = vote.timeline + 7
    s.expect_finish(id_, elsewhere, True, HAZARD, what="a vote of another timeline")


@rule("abort-open")
def _(s: Subject) -> None:
    """An abort rolls an open branch back, also when it is repeated; it is never prepared."""
    id_, branch = s.begin()
    s.expect_finish(id_, None, False, DONE, what="the abort of an open branch")
    s.expect_finish(id_, None, False, DONE, what="the repeated abort")
    vote = s.prepare(id_, branch)
    expect(vote.ballot == Ballot.REFUSED, f"an aborted branch votes {ballot_name(vote.ballot)}")


@rule("abort-prepared")
def _(s: Subject) -> None:
    """An abort rolls a prepared branch back, also when it is repeated."""
    id_, branch, _vote = s.prepared()
    s.expect_finish(id_, None, False, DONE, what="the abort of a prepared branch")
    s.expect_finish(id_, None, False, DONE, what="the repeated abort")
    vote = s.prepare(id_, branch)
    expect(vote.ballot == Ballot.REFUSED, f"an aborted branch votes {ballot_name(vote.ballot)}")


@rule("abort-unknown-binds")
def _(s: Subject) -> None:
    """An abort of an id never heard of is done, and work that comes late finds it ended."""
    id_ = s.new_id()
    s.expect_finish(id_, None, False, DONE, what="the abort of an unknown id")
    refusal(lambda: s.work(id_, 0), Reason.ENDED, what="work 0 after the abort")


@rule("abort-of-committed")
def _(s: Subject) -> None:
    """The abort of what is committed is no success: a heuristic."""
    id_, _branch, vote = s.prepared()
    s.expect_finish(id_, vote, True, DONE, what="a commit")
    s.expect_finish(id_, vote, False, HEURISTIC, what="the abort of a committed branch")


@rule("abort-gets-in")
def _(s: Subject) -> None:
    """An abort gets in, and ends work, while that work waits for a row another branch holds."""
    first, _branch = s.begin()
    second = s.new_id()
    outcome: list[Any] = []

    def wait_for_row() -> None:
        try:
            outcome.append(s.work(second, 0))
        except Exception as error:  # pylint: disable=broad-except
            outcome.append(error)

    worker = threading.Thread(target=wait_for_row, daemon=True)
    worker.start()
    worker.join(0.5)  # work that does not conflict with itself is over by then
    started = time.monotonic()
    s.expect_finish(second, None, False, DONE, what="the abort of work under way")
    took = time.monotonic() - started
    worker.join(5)
    expect(not worker.is_alive(), "work goes on although its transaction was aborted")
    expect(took < 3, f"an abort took {took:.1f} s while work waited for a row")
    s.expect_finish(first, None, False, DONE, what="the abort of the branch with the row")


# Epochs ---------------------------------------------------------------------------------------


def _fencing(s: Subject) -> tuple[Any, Any]:
    """Two senders of a coordinator of their own: an old epoch and a new one."""
    name = s.sender.coordinator[:-12] + f"{int(time.time() * 1000) & 0xFFFFFFFFFFFF:012x}"
    return Sender(name, 4, 77, 100), Sender(name, 5, 78, 101)


@rule("epoch-ended")
def _(s: Subject) -> None:
    """A sender of an ended epoch is refused with STALE_EPOCH, in every call."""
    old, new = _fencing(s)
    s.peer().prepare(old, [])
    s.peer().prepare(new, [])
    for what, call in (("hello", lambda: s.peer().hello(PROTOCOL_VERSION, old)),
                       ("prepare", lambda: s.peer().prepare(old, [])),
                       ("finish", lambda: s.peer().finish(old, []))):
        refusal(call, Reason.STALE_EPOCH, what=f"{what} from an ended epoch")
    s.peer().prepare(new, [])


@rule("epoch-of-id")
def _(s: Subject) -> None:
    """What counts is the sender's epoch: a finish of a branch that an ended epoch prepared is
    carried out for the epoch that recovers it."""
    old, new = _fencing(s)
    first = s.sender
    try:
        s.sender = old
        id_, _branch, vote = s.prepared()
        s.sender = new
        s.expect_finish(id_, vote, True, DONE, what="the commit of an id of an ended epoch")
    finally:
        s.sender = first


# With the database at hand --------------------------------------------------------------------


def _rows(s: Subject, sql: str, *parameters: Any) -> list[tuple]:
    with s.database.cursor() as cursor:
        cursor.execute(sql, parameters)
        return cursor.fetchall()


_HELD = ("SELECT transaction::text::bigint FROM pg_prepared_xacts WHERE gid = %s"
         " AND database = current_database()")


@rule("vote-is-true", needs="database")
def _(s: Subject) -> None:
    """PREPARED is the database's word: the GID is there, with the vote's xid, in this system."""
    id_, _branch, vote = s.prepared()
    held = _rows(s, _HELD, f"troth:{s.name}:{id_}")
    expect(held == [(vote.xid & 0xFFFFFFFF,)],
           f"the vote names xid {vote.xid}, pg_prepared_xacts has {held or 'no such GID'}")
    told = _rows(s, "SELECT system_identifier::text, oid::bigint FROM pg_control_system(),"
                 " pg_database WHERE datname = current_database()")
    expect(told == [(vote.system_identifier, vote.database_oid)], f"the database is {told}: {vote}")


@rule("finish-is-true", needs="database")
def _(s: Subject) -> None:
    """DONE is the database's word: committed is committed, aborted aborted, the GID gone."""
    for commit, word in ((True, "committed"), (False, "aborted")):
        id_, _branch, vote = s.prepared()
        s.expect_finish(id_, vote, commit, DONE, what=f"a finish ({word})")
        expect(not _rows(s, _HELD, f"troth:{s.name}:{id_}"), f"{word}, and its GID is still there")
        told = _rows(s, "SELECT pg_xact_status(%s::text::xid8)", str(vote.xid))
        expect(told == [(word,)], f"after DONE the database calls it {told}, not {word}")


@rule("lost-connection", needs="database")
def _(s: Subject) -> None:
    """A branch whose connection was lost between work and prepare does not vote PREPARED."""
    before = {pid for pid, in _rows(s, _OPEN_BACKENDS)}
    id_, branch = s.begin()
    fresh = [pid for pid, in _rows(s, _OPEN_BACKENDS) if pid not in before]
    expect(len(fresh) == 1, f"work 0 left {len(fresh)} open blocks in the database")
    _rows(s, "SELECT pg_terminate_backend(%s, 5000)", fresh[0])
    vote = s.prepare(id_, branch)
    expect(vote.ballot == Ballot.REFUSED, f"it votes {ballot_name(vote.ballot)}")
    expect(not _rows(s, _HELD, f"troth:{s.name}:{id_}"), "something is prepared all the same")


_OPEN_BACKENDS = ("SELECT pid FROM pg_stat_activity WHERE datname = current_database()"
                  " AND state = 'idle in transaction' AND pid <> pg_backend_pid()")


@rule("abandoned-block", needs="database")
def _(s: Subject) -> None:
    """An open block has time limits of the server's own, should the participant vanish."""
    id_, _branch = s.begin(deadline_ms=700)
    end = time.monotonic() + 6
    while _rows(s, _OPEN_BACKENDS):
        expect(time.monotonic() < end, f"the block of {id_} is open long after its deadline")
        time.sleep(0.05)


# With the coordinator's part ------------------------------------------------------------------


def _latest(s: Subject) -> tuple[float, Any]:
    assert s.role is not None
    return s.role.wait(lambda: s.role.enrolments and s.role.enrolments[-1], 15, "an enrolment")


@rule("enrolment", needs="coordinator")
def _(s: Subject) -> None:
    """The participant enrols: version, its name and instance, the database, ports that answer."""
    _at, one = _latest(s)
    expect((one.version, one.participant, one.instance) ==
           (PROTOCOL_VERSION, s.name, s.instance), f"the enrolment is {one}")
    expect(one.system_identifier and one.system_identifier.isdigit() and one.database_oid > 0 and
           ":" in one.database_address, f"the enrolment does not name the database: {one}")
    for port in (one.port, one.peer_port):
        s.connect((one.host, port))


@rule("enrolment-again", needs="coordinator")
def _(s: Subject) -> None:
    """It enrols again within 10 s (12 with grace) though nothing happened."""
    at, _one = _latest(s)
    s.role.wait(lambda: s.role.enrolments[-1][0] > at, 12, "another enrolment")


@rule("enrolment-after-reconnect", needs="coordinator")
def _(s: Subject) -> None:
    """It enrols at once when its coordinator is back: within 3 s."""
    _latest(s)
    s.role.restart()
    now = time.monotonic()
    s.role.wait(lambda: s.role.enrolments[-1][0] > now, 3, "an enrolment after a restart")


@rule("enrolment-tells-seen", needs="coordinator")
def _(s: Subject) -> None:
    """It tells what it saw: the sender's epoch and its highest durable position."""
    _latest(s)
    s.sender.position += 1_000
    s.peer().prepare(s.sender, [])
    s.role.restart()
    now = time.monotonic()
    s.role.wait(lambda: s.role.enrolments[-1][0] > now, 5, "an enrolment")
    seen = s.role.enrolments[-1][1].seen
    expect(seen is not None and (seen.epoch, seen.epoch_random) ==
           (s.sender.epoch, s.sender.epoch_random) and seen.position >= s.sender.position,
           f"it saw epoch {s.sender.epoch} up to {s.sender.position}, and tells {seen}")


def _orphan(s: Subject) -> tuple[str, Any]:
    """A prepared branch that nobody finishes, and that was asked about."""
    id_, _branch, vote = s.prepared()
    s.role.votes[id_] = vote
    asked = s.role.wait(lambda: s.role.inquired(id_), 10, f"an inquiry about {id_}")
    expect(asked[0][2] == vote.xid & 0xFFFFFFFF,
           f"it asks about xid {asked[0][2]}, prepared is {vote.xid & 0xFFFFFFFF}")
    return id_, vote


@rule("inquiry-pending", needs="coordinator")
def _(s: Subject) -> None:
    """It asks about a branch nobody finishes, keeps it while the answer is PENDING, asks again."""
    id_, vote = _orphan(s)
    now = time.monotonic()
    s.role.wait(lambda: s.role.inquired(id_, now), 5, "a second inquiry")
    s.expect_finish(id_, vote, True, DONE, what="the commit of a branch kept pending")


@rule("inquiry-commit", needs="coordinator")
def _(s: Subject) -> None:
    """Told COMMIT, it commits the recorded xid."""
    id_, vote = _orphan(s)
    s.role.verdicts[id_] = Verdict.COMMIT
    _await_quiet(s, id_)
    s.expect_finish(id_, vote, True, DONE, what="the commit after an inquiry")


@rule("inquiry-abort", needs="coordinator")
def _(s: Subject) -> None:
    """Told ABORT, it rolls back."""
    id_, vote = _orphan(s)
    s.role.verdicts[id_] = Verdict.ABORT
    _await_quiet(s, id_)
    s.expect_finish(id_, vote, True, HEURISTIC, what="a commit after an inquiry told abort")


@rule("inquiry-commit-other-xid", needs="coordinator")
def _(s: Subject) -> None:
    """Told COMMIT for another xid than the one prepared, it does not commit this one."""
    id_, vote = _orphan(s)
    other = copy(vote)
    other.xid = vote.xid + 10_000_000
    s.role.votes[id_] = other
    s.role.verdicts[id_] = Verdict.COMMIT
    _await_quiet(s, id_)
    s.expect_finish(id_, vote, True, HEURISTIC, what="the branch, after a commit for another xid,")


@rule("inquiry-expired", needs="coordinator")
def _(s: Subject) -> None:
    """Told EXPIRED or NOT_MINE, it keeps the branch."""
    for verdict in (Verdict.EXPIRED, Verdict.NOT_MINE):
        id_, vote = _orphan(s)
        now = time.monotonic()
        s.role.verdicts[id_] = verdict
        s.role.wait(lambda id_=id_, now=now: s.role.inquired(id_, now), 5, "another inquiry")
        time.sleep(0.3)  # time to do the wrong thing
        s.expect_finish(id_, vote, True, DONE, what=f"a branch kept on "
                        f"{Verdict._VALUES_TO_NAMES[verdict]}, then committed,")


def _await_quiet(s: Subject, id_: str) -> None:
    """Until it no longer asks about the id: for 1.5 s; 10 s at most."""
    end = time.monotonic() + 10
    while s.role.inquired(id_, time.monotonic() - 1.5):
        expect(time.monotonic() < end, f"it goes on asking about {id_} after it was told")
        time.sleep(0.05)


@rule("early-vote", needs="coordinator")
def _(s: Subject) -> None:
    """Work marked as the last prepares in the same call; the vote bears the right mac."""
    _latest(s)
    id_, branch = s.begin(last=True)
    vote = branch.vote
    expect(vote is not None and vote.ballot == Ballot.PREPARED and vote.works == 1,
           f"the last work is answered with vote {vote}")
    mac = make_vote_mac(
        s.role.secret(s.name), transaction_id=id_, participant=s.name,
        system_identifier=vote.system_identifier, database_oid=vote.database_oid, xid=vote.xid,
        timeline=vote.timeline, position=vote.position, works=vote.works)
    expect(vote.mac == mac, "the mac of the early vote is not that of its words")
    refusal(lambda: s.work(id_, 1, branch.mark), what="work after the last")
    s.expect_finish(id_, vote, True, DONE, what="the commit of an early vote")


def run(s: Subject, chosen: list[Rule], say: Callable[[str], None]) -> tuple[int, int]:
    """Tries the rules; (tried, failed)."""
    given = {"": True, "read": s.read_piece, "failing": s.failing_piece, "coordinator": s.role,
             "database": s.database}
    tried = failed = 0
    for one in chosen:
        if not given[one.needs]:
            say(f"not tried  {one.name}: nothing was given for --{OPTIONS[one.needs]}")
            continue
        tried += 1
        try:
            one.check(s)
            say(f"kept       {one.name}")
        except Broken as error:
            failed += 1
            say(f"BROKEN     {one.name}: {error}\n           the rule: {one.text}")
        except (TException, OSError) as error:
            failed += 1
            text = getattr(error, "message", None) or str(error)
            say(f"BROKEN     {one.name}: {type(error).__name__}: {text}\n"
                f"           the rule: {one.text}")
        finally:
            s.clean_up()
    return tried, failed


OPTIONS = {"read": "read_method", "failing": "failing_arguments", "coordinator": "coordinator_port",
           "database": "conninfo"}
