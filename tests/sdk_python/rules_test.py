#!/usr/bin/python3
"""The parts of the Python package that know rules and no database, by themselves: branch table,
sweep, fence, evidence, leases, ids, the vote's code. Quick."""

import contextlib
import hashlib
import hmac
import struct
import threading
import unittest
import unittest.mock
from types import SimpleNamespace

import harness  # noqa: F401  pylint: disable=unused-import

import psycopg2
from troth import failpoint
from troth.clock import Backoff, boot_ms
from troth.ids import TransactionId, is_coordinator_id, parse_gid
from troth.lease_cache import LeaseCache
from troth.participant import service
from troth.participant.branch_table import BranchTable
from troth.participant.connections import machine_of, refusal_of
from troth.participant.engine import Participant, ParticipantOptions, WorkScope
from troth.participant.evidence import (
    Findings, LogMemory, TimelineSwitch, XidStatus, judge, parse_lsn, parse_timeline_history)
from troth.participant.fence import EpochFence
from troth.participant.sweep import Answer, Inquiry, Sweep, Verdict
from troth.participant.values import (
    DatabaseIdentity, DatabaseState, Evidence, FinishKind, FinishRequest, FinishResult, LogPoint,
    PreparedBranch, PrepareKind, PrepareRequest, PrepareResult, Refusal, Refused, SeenCoordinator,
    Unavailable, VoteKind, WorkRequest)
from troth.vote_mac import make_vote_mac
from troth.wire.values.ttypes import Context
from troth.wire.values.ttypes import Refused as WireRefused

ID = "c-0123456789ab.1-0000abcd.7"
EVIDENCE = Evidence(700, LogPoint(1, 5000))
VOTED = PrepareResult(PrepareKind.PREPARED, EVIDENCE, 1)


class FakeSession:
    def __init__(self):
        self.fault = None
        self.connection = SimpleNamespace(alive=True)
        self.rolled_back = self.cancelled = False

    def broken(self):
        return self.fault

    def rollback(self):
        self.rolled_back = True

    def cancel(self):
        self.cancelled = True


class FakeDatabase:
    """Answers what the test tells it to, at once, or when release() is called. Fault model: none
    of its own."""

    def __init__(self):
        self.sessions = []
        self.prepare_result = VOTED
        self.finish_result = FinishResult(FinishKind.DONE)
        self.hold = False
        self.held = []
        self.orders = []
        self.prepared = []
        self.begin_refusal = None
        self.notes = {}

    def _answer(self, done, result):
        if self.hold:
            self.held.append(lambda: done(result))
        else:
            done(result)

    def release(self):
        self.hold, held, self.held = False, self.held, []
        for answer in held:
            answer()

    def begin(self, options):
        if self.begin_refusal:
            raise self.begin_refusal
        self.sessions.append(FakeSession())
        return self.sessions[-1]

    def start_prepare(self, session, done):
        self._answer(done, self.prepare_result)

    def start_finish(self, order, done):
        self.orders.append(order)
        self._answer(done, self.finish_result)

    def list_prepared(self, prefix):
        return [one for one in self.prepared if one.gid.startswith(prefix)]

    def load_seen(self):
        return list(self.notes.values())

    def store_seen(self, seen):
        self.notes[seen.coordinator] = seen


class TableCase(unittest.TestCase):
    def setUp(self):
        self.db = FakeDatabase()
        self.now = 1_000
        self.table = BranchTable("east", "inst", self.db, max_in_doubt=3, now_ms=lambda: self.now)

    def begin(self, id_=ID, left=5_000):
        work = self.table.start_work(WorkRequest(id_, 0, left))
        return self.table.end_work(work, None, False)

    def prepare(self, view, id_=ID, wait=0, **other):
        values = dict(transaction_id=id_, mark=view.mark, works=view.works, time_left_ms=1_000,
                      instance="inst")
        return self.table.prepare([PrepareRequest(**{**values, **other})], wait)[0]

    def finish(self, commit, id_=ID, wait=0, **more):
        if commit:
            more.setdefault("evidence", EVIDENCE)
        return self.table.finish([FinishRequest(id_, commit, **more)], wait)[0].kind

    def refused(self, reason, call, *arguments, **named):
        with self.assertRaises(Refusal) as caught:
            call(*arguments, **named)
        self.assertEqual(caught.exception.reason, reason, caught.exception)
        return caught.exception


class Work(TableCase):
    def test_numbers_and_marks(self):
        view = self.begin()
        start = self.table.start_work
        self.refused(Refused.OUT_OF_NUMBER, start, WorkRequest(ID, 0, 1000))
        self.refused(Refused.OUT_OF_NUMBER, start, WorkRequest(ID, 1, 1000, "other"))
        self.refused(Refused.OUT_OF_NUMBER, start, WorkRequest(ID, 2, 1000, view.mark))
        work = start(WorkRequest(ID, 1, 1000, view.mark))
        self.refused(Refused.OUT_OF_NUMBER, start, WorkRequest(ID, 2, 1000, view.mark))
        self.assertEqual(self.table.end_work(work, None, False).works, 2)

    def test_unknown_malformed_late_and_long(self):
        start = self.table.start_work
        self.refused(Refused.NO_SUCH_BRANCH, start, WorkRequest(ID, 1, 1000, "m"))
        self.refused(Refused.INVALID, start, WorkRequest("x'; --", 0, 1000))
        self.refused(Refused.INVALID, start, WorkRequest(ID, -1, 1000))
        self.refused(Refused.DEADLINE, start, WorkRequest(ID, 0, 0))
        self.refused(Refused.INVALID, start, WorkRequest(ID, 0, 30_001))

    def test_failure_refuses_what_follows_until_aborted(self):
        view = self.begin()
        work = self.table.start_work(WorkRequest(ID, 1, 1000, view.mark))
        self.refused(Refused.DATABASE, self.table.end_work, work,
                     Refusal(Refused.DATABASE, "23505", sqlstate="23505"), False)
        self.assertTrue(self.db.sessions[0].rolled_back)
        self.refused(Refused.ENDED, self.table.start_work, WorkRequest(ID, 1, 1000, view.mark))
        vote = self.prepare(view)
        self.assertEqual((vote.kind, vote.refusal.sqlstate), (VoteKind.REFUSED, "23505"))

    def test_a_block_that_no_longer_stands_is_no_work(self):
        work = self.table.start_work(WorkRequest(ID, 0, 1000))
        self.db.sessions[0].fault = Refusal(Refused.INVALID, "the work executed COMMIT")
        self.refused(Refused.INVALID, self.table.end_work, work, None, False)

    def test_overloaded_leaves_the_id_unheard(self):
        self.db.begin_refusal = Refusal(Refused.OVERLOADED, "pool", True)
        refusal = self.refused(Refused.OVERLOADED, self.table.start_work, WorkRequest(ID, 0, 1000))
        self.assertTrue(refusal.unheard and service.refused(refusal.again()).unheard)
        self.db.begin_refusal = None
        self.begin()
        # Of work that was begun nothing of the kind is said.
        work = self.table.start_work(WorkRequest("c-0123456789ab.1-0000abcd.8", 0, 1000))
        refusal = self.refused(Refused.OVERLOADED, self.table.end_work, work,
                               Refusal(Refused.OVERLOADED, "the application's"), False)
        self.assertIsNone(service.refused(refusal).unheard)

    def test_bound_on_branches(self):
        for n in range(3):
            self.begin(f"c-0123456789ab.1-0000abcd.{n}")
        refusal = self.refused(Refused.OVERLOADED, self.table.start_work, WorkRequest(ID, 0, 1000))
        self.assertTrue(refusal.unheard)

    def test_abort_cancels_work_under_way(self):
        work = self.table.start_work(WorkRequest(ID, 0, 1000))
        self.assertEqual(self.finish(False), FinishKind.WORKING)
        self.assertTrue(self.db.sessions[0].cancelled)
        self.refused(Refused.ENDED, self.table.end_work, work, None, False)
        self.assertEqual(self.finish(False), FinishKind.DONE)

    def test_abort_waits_for_cancelled_work_to_end(self):
        work = self.table.start_work(WorkRequest(ID, 0, 1000))
        told = []
        waiter = threading.Thread(target=lambda: told.append(self.finish(False, wait=5_000)))
        waiter.start()
        harness.until(lambda: self.db.sessions[0].cancelled)
        self.refused(Refused.ENDED, self.table.end_work, work, None, False)
        waiter.join(5)
        self.assertEqual(told, [FinishKind.DONE])

    def test_deadline_rolls_idle_branches_back(self):
        view = self.begin(left=500)
        self.now += 501
        self.table.tick()
        self.assertTrue(self.db.sessions[0].rolled_back)
        self.refused(Refused.ENDED, self.table.start_work, WorkRequest(ID, 1, 1000, view.mark))

    def test_ended_ids_are_remembered_for_a_lease(self):
        self.finish(False)
        self.now += 29_999
        self.table.tick()
        self.refused(Refused.ENDED, self.table.start_work, WorkRequest(ID, 0, 1000))
        self.now += 2
        self.table.tick()
        self.begin()

    def test_what_an_ended_epoch_left_open_is_rolled_back(self):
        view = self.begin()
        prepared = "c-0123456789ab.1-0000abcd.8"
        self.prepare(self.begin(prepared), prepared)
        self.table.epoch_began("c-0123456789ab", 2)
        self.assertTrue(self.db.sessions[0].rolled_back)
        self.assertEqual(self.prepare(view).kind, VoteKind.REFUSED)
        self.assertEqual(self.table.counts().in_doubt, 1)  # the new epoch will say
        self.refused(Refused.ENDED, self.table.start_work,
                     WorkRequest("c-0123456789ab.1-0000abcd.9", 0, 1000))
        self.begin("c-0123456789ab.2-0000abcd.1")
        self.begin("d-0123456789ab.1-0000abcd.1")

    def test_drain_refuses_new_branches_only(self):
        view = self.begin()
        self.table.drain()
        self.refused(Refused.NOT_SERVING, self.table.start_work,
                     WorkRequest("c-0123456789ab.1-0000abcd.8", 0, 1000))
        self.assertEqual(self.prepare(view).kind, VoteKind.PREPARED)


class FailedWork(TableCase):
    """Whatever the work raises ends the branch, and is told as what it is."""

    def fails_with(self, error, alive=True):
        """The wire's Refused that work which raises `error` becomes."""
        scope = WorkScope(SimpleNamespace(
            start_work=lambda context: self.table.start_work(service.work_request(context)),
            end_work=lambda context, work, failure: self.table.end_work(work, failure, False),
            tell_if_slow=lambda *_: None), Context(ID, 0, 1_000))
        with unittest.mock.patch("troth.participant.engine.log"), \
                self.assertRaises(WireRefused) as caught, scope:
            self.db.sessions[-1].connection.alive = alive
            raise error
        self.assertTrue(self.db.sessions[-1].rolled_back)
        self.finish(False)
        self.now += 30_001
        self.table.tick()  # the id is forgotten
        return caught.exception

    def test_any_reason_of_the_wire(self):
        for reason in (*range(1, 21), 99, None):
            told = self.fails_with(WireRefused(reason, "no", True))
            self.assertIn(told.reason, (reason, Refused.APPLICATION))
            self.assertEqual((told.message, told.retryable), ("no", True))
        told = self.fails_with(WireRefused(None, None, None))
        self.assertEqual((told.message, told.retryable), ("", False))

    def test_one_that_cannot_be_told(self):
        class Mute(Exception):
            def __str__(self):
                raise ValueError("mute")
        self.assertEqual(self.fails_with(Mute()).message, "the work failed: Mute")

    def test_without_a_sqlstate(self):
        for error, alive, reason in (
                (psycopg2.ProgrammingError("can't adapt type 'Leg'"), True, Refused.APPLICATION),
                (psycopg2.InterfaceError("cursor already closed"), True, Refused.APPLICATION),
                (psycopg2.InterfaceError("connection already closed"), False,
                 Refused.DATABASE_UNAVAILABLE),
                (psycopg2.DatabaseError("no message from the libpq"), False,
                 Refused.DATABASE_UNAVAILABLE),
                (psycopg2.OperationalError("server closed the connection unexpectedly"), True,
                 Refused.DATABASE_UNAVAILABLE)):
            told = self.fails_with(error, alive)
            self.assertEqual((told.reason, told.retryable),
                             (reason, reason is Refused.DATABASE_UNAVAILABLE), error)
            self.assertIn(str(error), told.message)


class Votes(TableCase):
    def test_prepared_and_repeated(self):
        view = self.begin()
        vote = self.prepare(view)
        self.assertEqual((vote.kind, vote.works, vote.evidence), (VoteKind.PREPARED, 1, EVIDENCE))
        self.assertEqual(self.prepare(view), vote)

    def test_what_does_not_agree_is_refused_for_good(self):
        for n, other in enumerate((dict(mark="m"), dict(works=2), dict(instance="i"),
                                   dict(time_left_ms=0))):
            id_ = f"c-0123456789ab.1-0000abcd.{n + 1}"
            view = self.begin(id_)
            self.assertEqual(self.prepare(view, id_, **other).kind, VoteKind.REFUSED, other)
            self.assertEqual(self.prepare(view, id_).kind, VoteKind.REFUSED, other)

    def test_unknown_binds(self):
        vote = self.table.prepare([PrepareRequest(ID, "m", 1, 1000, "inst")], 0)[0]
        self.assertEqual(vote.refusal.reason, Refused.NO_SUCH_BRANCH)
        self.refused(Refused.ENDED, self.table.start_work, WorkRequest(ID, 0, 1000))

    def test_slow_one_is_working_then_asked_again(self):
        view = self.begin()
        self.db.hold = True
        self.assertEqual(self.prepare(view).kind, VoteKind.WORKING)
        self.assertEqual(self.finish(False), FinishKind.WORKING)  # waits behind PREPARE
        self.db.release()
        self.assertEqual(self.prepare(view).kind, VoteKind.REFUSED)  # doomed meanwhile
        # What was prepared is rolled back, and nothing else.
        self.assertEqual((self.db.orders[0].commit, self.db.orders[0].only_xid), (False, 700))
        self.assertEqual(self.finish(False), FinishKind.DONE)

    # It rolled back whatever sat under its GID: an earlier branch of the id, which had voted.
    def test_unknown_answer_is_no_vote_and_its_own_xid_is_rolled_back(self):
        self.db.prepare_result = PrepareResult(
            PrepareKind.UNKNOWN, Evidence((5 << 32) + 701, LogPoint()),
            refusal=Refusal(Refused.DATABASE_UNAVAILABLE, "lost", True))
        view = self.begin()
        self.assertEqual(self.prepare(view).kind, VoteKind.REFUSED)
        self.assertEqual([(order.commit, order.only_xid) for order in self.db.orders],
                         [(False, 701)])
        # That this xid is gone says nothing of the others under the GID.
        self.assertEqual(self.finish(False), FinishKind.DONE)
        self.assertEqual([order.only_xid for order in self.db.orders], [701, None])

    def test_read_only_is_over_with_its_vote(self):
        self.db.prepare_result = PrepareResult(PrepareKind.READ_ONLY)
        view = self.begin()
        self.assertEqual(self.prepare(view).kind, VoteKind.READ_ONLY)
        self.assertEqual(self.finish(False), FinishKind.DONE)
        self.assertEqual(self.db.orders, [])

    def test_last_work_prepares(self):
        work = self.table.start_work(WorkRequest(ID, 0, 1000))
        view = self.table.end_work(work, None, True)
        self.assertEqual((view.works, view.vote.kind), (1, VoteKind.PREPARED))
        self.refused(Refused.ENDED, self.table.start_work, WorkRequest(ID, 1, 1000, view.mark))

    def test_last_work_not_in_time_is_rolled_back_when_it_comes(self):
        self.db.hold = True
        work = self.table.start_work(WorkRequest(ID, 0, 30))
        self.refused(Refused.DEADLINE, self.table.end_work, work, None, True)
        self.db.release()
        self.assertEqual([order.commit for order in self.db.orders], [False])


class Finishes(TableCase):
    def test_commit_then_abort_is_a_heuristic(self):
        view = self.begin()
        self.prepare(view)
        self.assertEqual(self.finish(True), FinishKind.DONE)
        self.assertEqual(self.finish(True), FinishKind.DONE)
        self.assertEqual(len(self.db.orders), 1)
        self.assertEqual(self.finish(False), FinishKind.HEURISTIC)

    def test_own_vote_spares_the_comparison_another_does_not(self):
        view = self.begin()
        self.prepare(view)
        self.db.finish_result = FinishResult(FinishKind.WORKING)
        self.finish(True)
        self.finish(True, evidence=Evidence(701, LogPoint(1, 1)))
        self.assertEqual([order.generation for order in self.db.orders], [1, None])

    # A finish that came to nothing makes the vote no younger.
    def test_trust_in_the_own_vote_ends_a_second_after_it(self):
        view = self.begin()
        self.prepare(view)
        self.db.finish_result = FinishResult(FinishKind.WORKING)
        for passed in (0, 900, 99, 1):
            self.now += passed
            self.finish(True)
        self.assertEqual([order.generation for order in self.db.orders], [1, 1, 1, None])

    def test_working_stays_in_doubt(self):
        view = self.begin()
        self.prepare(view)
        self.db.finish_result = FinishResult(FinishKind.WORKING, "55000")
        self.assertEqual(self.finish(True), FinishKind.WORKING)
        self.assertEqual(self.table.counts().in_doubt, 1)
        self.db.finish_result = FinishResult(FinishKind.DONE)
        self.assertEqual(self.finish(True), FinishKind.DONE)

    def test_hazards_are_counted_and_never_committed(self):
        self.db.finish_result = FinishResult(FinishKind.HAZARD, "went back")
        self.assertEqual(self.finish(True), FinishKind.HAZARD)
        self.assertEqual(self.table.counts().hazards, 1)
        self.assertEqual(self.finish(True), FinishKind.HAZARD)  # asked of the evidence again

    def test_two_finishes_of_one_id_share_the_order(self):
        view = self.begin()
        self.prepare(view)
        self.db.hold = True
        self.assertEqual(self.finish(True), FinishKind.WORKING)
        self.assertEqual(self.finish(True), FinishKind.WORKING)
        self.assertEqual(self.finish(False), FinishKind.WORKING)
        self.db.release()
        self.assertEqual(self.finish(True), FinishKind.DONE)
        self.assertEqual(len(self.db.orders), 1)

    def test_commit_of_an_open_branch_dooms_what_is_open(self):
        self.begin()
        self.db.finish_result = FinishResult(FinishKind.HAZARD)
        self.assertEqual(self.finish(True), FinishKind.HAZARD)
        self.assertTrue(self.db.sessions[0].rolled_back)

    def test_sweep_aborts_only_the_xid_it_saw(self):
        view = self.begin()
        self.prepare(view)
        self.assertEqual(self.finish(False, only_xid=999), FinishKind.WORKING)
        self.assertEqual(self.finish(False, only_xid=700), FinishKind.DONE)


class Recovery(TableCase):
    def setUp(self):
        super().setUp()
        self.sweep = Sweep("east", self.db, self.table)
        self.db.prepared = [PreparedBranch("troth:east:" + ID, 700),
                            PreparedBranch("troth:east:by hand", 1),
                            PreparedBranch("troth:eastern:" + ID, 2)]

    def due(self):
        return [one.transaction_id for one in self.sweep.look()]

    def test_asks_after_a_second_and_only_about_its_own(self):
        self.assertEqual(self.due(), [])
        self.now += 1_000
        self.assertEqual(self.due(), [ID])
        self.assertEqual((self.sweep.counts.found, self.sweep.counts.foreign), (1, 1))

    def test_another_xid_under_the_gid_is_another_branch(self):
        self.due()
        self.now += 999
        self.db.prepared[0] = PreparedBranch("troth:east:" + ID, 701)
        self.due()
        self.now += 999
        self.assertEqual(self.due(), [])

    def test_leaves_live_branches_alone(self):
        self.db.prepared = []
        view = self.begin()
        self.prepare(view)
        self.db.prepared = [PreparedBranch("troth:east:" + ID, 700)]
        self.now += 999
        self.assertEqual(self.due(), [])
        self.assertEqual(self.sweep.counts.found, 0)

    def test_settles_by_the_answer(self):
        self.due()
        self.now += 1_000
        (inquiry,) = self.sweep.look()
        for verdict in (Verdict.PENDING, Verdict.EXPIRED, Verdict.NOT_MINE):
            self.sweep.settle([Answer(inquiry, verdict)], 0)
        self.assertEqual(self.db.orders, [])
        self.now += 9_999
        self.assertEqual(self.due(), [])
        self.assertEqual(self.sweep.counts.not_mine, 1)
        self.now += 1
        (inquiry,) = self.sweep.look()
        self.sweep.settle([Answer(inquiry, Verdict.ABORT)], 0)
        self.assertEqual((self.db.orders[0].commit, self.db.orders[0].only_xid), (False, 700))
        self.assertEqual(self.sweep.counts.settled, 1)

    def test_commits_with_the_evidence_told(self):
        self.due()
        self.now += 1_000
        (inquiry,) = self.sweep.look()
        told = Evidence(4_294_967_996, LogPoint(2, 9))
        self.sweep.settle([Answer(inquiry, Verdict.COMMIT, told)], 0)
        self.assertEqual(self.db.orders[0].evidence, told)

    # The sweep took what it remembered of the id for what it had seen prepared.
    def test_a_duplicate_of_what_committed_is_settled(self):
        self.finish(True)
        duplicate = Inquiry(ID, "c-0123456789ab", 701)
        for verdict, evidence in ((Verdict.COMMIT, EVIDENCE), (Verdict.ABORT, None)):
            self.sweep.settle([Answer(duplicate, verdict, evidence)], 0)
        self.assertEqual([(order.commit, order.evidence, order.only_xid) for order in self.db.orders],
                         [(True, EVIDENCE, None)] * 2 + [(False, None, 701)])
        # What is known of the first stays known.
        self.assertEqual(self.finish(True), FinishKind.DONE)
        self.assertEqual(self.finish(False), FinishKind.HEURISTIC)
        self.assertEqual(len(self.db.orders), 3)

    def test_a_duplicate_of_what_was_rolled_back_is_settled(self):
        self.finish(False)
        self.sweep.settle([Answer(Inquiry(ID, "c-0123456789ab", 701), Verdict.ABORT)], 0)
        self.assertEqual([order.only_xid for order in self.db.orders], [None, 701])

    def test_found_branches_count_against_the_bound(self):
        self.db.prepared = [PreparedBranch(f"troth:east:c-0123456789ab.1-0000abcd.{n}", n)
                            for n in range(3)]
        self.due()
        self.refused(Refused.OVERLOADED, self.table.start_work, WorkRequest(ID, 0, 1000))

    def test_a_branch_settled_by_hand_is_not_kept(self):
        self.db.prepared = []
        view = self.begin()
        self.prepare(view)
        self.now += 10
        self.due()
        self.assertEqual(self.table.counts().in_doubt, 0)


class Fence(unittest.TestCase):
    def setUp(self):
        self.db = FakeDatabase()
        self.fence = EpochFence(self.db)

    def check(self, epoch, random, position):
        self.fence.check(SeenCoordinator("c", epoch, random, position))

    def test_lower_epochs_are_refused_over_restarts(self):
        self.check(5, 1, 10)
        again = EpochFence(self.db)
        again.load()
        with self.assertRaises(Refusal) as caught:
            again.check(SeenCoordinator("c", 4, 9, 99))
        self.assertEqual(caught.exception.reason, Refused.STALE_EPOCH)
        again.check(SeenCoordinator("other", 1, 1, 1))

    def test_positions_grow_within_their_epoch_only(self):
        self.check(5, 1, 10)
        self.check(5, 1, 7)
        self.check(5, 2, 70)
        self.assertEqual(self.fence.seen("c"), SeenCoordinator("c", 5, 1, 10))

    def test_the_epoch_before_is_kept_until_it_was_told(self):
        self.check(5, 1, 10)
        self.check(6, 3, 8)  # a log cut short: it must hear of 10, whoever speaks first
        self.fence.tick()
        before = SeenCoordinator("c", 5, 1, 10)
        self.assertEqual((self.fence.seen("c"), self.db.notes["c"]), (before, before))
        self.fence.told(SeenCoordinator("c", 6, 3, 8))
        now = SeenCoordinator("c", 6, 3, 8)
        self.assertEqual((self.fence.seen("c"), self.db.notes["c"]), (now, now))
        with self.assertRaises(Refusal):
            self.check(5, 1, 11)

    def test_only_a_tick_tries_again_to_note(self):
        with unittest.mock.patch.object(self.db, "store_seen",
                                        side_effect=Unavailable("away")) as store, \
                self.assertLogs("troth"):
            for _ in range(3):
                self.check(4, 8, 11)
            self.assertEqual(store.call_count, 1)
            self.fence.tick()
            self.assertEqual(store.call_count, 2)
        self.fence._stored_at = 0.0  # a second later
        self.fence.tick()
        self.assertEqual(self.db.notes["c"], SeenCoordinator("c", 4, 8, 11))

    def test_grown_positions_are_noted_at_a_tick(self):
        self.check(5, 1, 10)
        self.check(5, 1, 12)
        self.fence.tick()
        self.assertEqual(self.db.notes["c"].position, 12)


class Life(unittest.TestCase):
    """A participant that serves, on a fake database and without a coordinator."""

    def test_notes_that_hang_hold_up_no_deadline(self):
        db, hangs, goes_on = FakeDatabase(), threading.Event(), threading.Event()
        db.look = lambda: DatabaseState(DatabaseIdentity("7", 5), LogPoint(1, 1), "h:1")
        db.hold_sweep, db.close = lambda name: False, lambda: None
        with unittest.mock.patch("troth.participant.engine.PostgresResourceManager",
                                 return_value=db):
            participant = Participant(ParticipantOptions("east", "", ["127.0.0.1:1"]))

        def hang(*_):
            hangs.set()
            goes_on.wait()
            raise Unavailable("away")
        db.store_seen = db.load_seen = hang
        quiet = unittest.mock.patch("troth.participant.link.log")
        quiet.start()
        self.addCleanup(quiet.stop)
        serving = threading.Thread(target=participant.serve, args=(None, False))
        serving.start()
        try:
            self.assertTrue(hangs.wait(10))
            work = participant.start_work(Context(ID, 0, 100))
            participant.end_work(Context(ID, 0, 100), work, None)
            harness.until(lambda: db.sessions[0].rolled_back, 5, "its deadline ends the branch")
        finally:
            goes_on.set()
            participant.stop()
            serving.join()


class EvidenceRules(unittest.TestCase):
    def judge(self, commit, status, now=LogPoint(1, 6000), **more):
        return judge(commit, EVIDENCE, Findings(now, status, **more)).kind

    def test_status_decides(self):
        for commit, status, kind in (
                (True, XidStatus.COMMITTED, FinishKind.DONE),
                (True, XidStatus.ABORTED, FinishKind.HEURISTIC),
                (False, XidStatus.ABORTED, FinishKind.DONE),
                (False, XidStatus.COMMITTED, FinishKind.HEURISTIC),
                (True, XidStatus.FORGOTTEN, FinishKind.HAZARD),
                (True, XidStatus.IN_PROGRESS, FinishKind.HAZARD),
                (True, XidStatus.FUTURE, FinishKind.HAZARD)):
            self.assertEqual(self.judge(commit, status), kind, (commit, status))

    def test_back_in_time_is_a_hazard(self):
        committed = XidStatus.COMMITTED
        self.assertEqual(self.judge(True, committed, LogPoint(1, 4999)), FinishKind.HAZARD)
        self.assertEqual(self.judge(True, committed, went_back=True), FinishKind.HAZARD)

    def test_timelines(self):
        committed, now = XidStatus.COMMITTED, LogPoint(3, 1)
        for history, kind in (([TimelineSwitch(1, 5000)], FinishKind.DONE),
                              ([TimelineSwitch(1, 4999)], FinishKind.HAZARD),
                              ([TimelineSwitch(2, 9000)], FinishKind.HAZARD),
                              (None, FinishKind.HAZARD)):
            self.assertEqual(self.judge(True, committed, now, history=history), kind, history)
        self.assertEqual(parse_timeline_history("1\t0/1388\tno recovery target\n\n# x\n2 A/0 y"),
                         [TimelineSwitch(1, 5000), TimelineSwitch(2, 10 << 32)])

    def test_memory(self):
        memory = LogMemory()
        memory.observe(LogPoint(1, 100), memory.snapshot())
        known = memory.snapshot()
        memory.remember(LogPoint(1, 200))
        self.assertTrue(memory.observe(LogPoint(1, 150), known))  # asked before 200 was known
        self.assertFalse(memory.observe(LogPoint(1, 120), memory.snapshot()))
        self.assertTrue(memory.void(LogPoint(1, 121)))
        self.assertFalse(memory.void(LogPoint(1, 120)))
        self.assertFalse(memory.void(LogPoint(2, 999)))
        self.assertEqual(parse_lsn("16/B374D848"), 0x16B374D848)

    def test_sqlstates(self):
        for state, reason, retryable in (
                ("40001", Refused.CONFLICT, True), ("40P01", Refused.CONFLICT, True),
                ("55P03", Refused.CONFLICT, True), ("57014", Refused.CONFLICT, True),
                ("57P01", Refused.DATABASE_UNAVAILABLE, True),
                ("", Refused.DATABASE_UNAVAILABLE, True), ("08006", Refused.DATABASE_UNAVAILABLE, True),
                ("53300", Refused.DATABASE_UNAVAILABLE, True), ("53200", Refused.OVERLOADED, True),
                ("42710", Refused.DATABASE, False), ("23505", Refused.DATABASE, False)):
            refusal = refusal_of(state, "text that decides nothing")
            self.assertEqual((refusal.reason, refusal.retryable), (reason, retryable), state)


class Small(unittest.TestCase):
    def test_an_address_is_of_a_machine_when_the_server_is_there(self):
        """By a name, or behind a proxy, it may be of any; so it is where there is no id."""
        identity = unittest.mock.mock_open(read_data="0123456789abcdef" * 2 + "\n")
        with unittest.mock.patch("builtins.open", identity):
            for host, server, known in (
                    ("/run", "", True), ("@socket", "", True), ("127.0.0.1", "127.0.0.1", True),
                    ("localhost", "::1", True), ("db", "127.0.1.1", False),
                    ("10.0.0.1", "10.0.0.1", False), ("127.0.0.1", "10.0.0.1", False),
                    ("/run/proxy", "10.0.0.1", False)):
                self.assertEqual(bool(machine_of(host, server)), known, (host, server))
        for text in ("", "uninitialized\n"):
            with unittest.mock.patch("builtins.open", unittest.mock.mock_open(read_data=text)):
                self.assertEqual(machine_of("/run", ""), "")

    def test_what_is_not_told_is_refused_in_words(self):
        handler = service.PeerHandler("east", "inst", *[None] * 5)
        for call in (lambda: handler.prepared([ID], 1), lambda: handler.settle(ID, 7, True, "me"),
                     handler.diagnose):
            with self.assertRaises(WireRefused) as caught:
                call()
            self.assertIn("east is a participant in Python", caught.exception.message)

    def test_ids(self):
        self.assertEqual(str(TransactionId.parse(ID)), ID)
        for text in ("", "a.1-0000abcd.7", ID + "0" * 64, ID.replace("0000abcd", "0000ABCD"),
                     "c-0123456789ab.01-0000abcd.7", "c-0123456789ab.1-0000abcd.07",
                     "c-0123456789ab.4294967296-0000abcd.7", "c-0123456789ab.1-0000abcd.7\n",
                     "c-0123456789ab.1-0000abcd.٧", None, 7):
            self.assertIsNone(TransactionId.parse(text), text)
        self.assertIsNone(parse_gid("e_t", "troth:eat:" + ID))
        self.assertIsNotNone(parse_gid("eat", "troth:eat:" + ID))
        self.assertFalse(is_coordinator_id("-a-0123456789ab"))

    def test_vote_mac_covers_every_field(self):
        claims = dict(transaction_id=ID, participant="east", system_identifier="7", database_oid=5,
                      xid=700, timeline=1, position=5000, works=2)
        covered = (b"troth vote 1" + struct.pack(">I", len(ID)) + ID.encode() +
                   b"\0\0\0\4east" + b"\0\0\0\0017" + struct.pack(">5Q", 5, 700, 1, 5000, 2))
        mac = make_vote_mac(b"key", **claims)
        self.assertEqual(mac, hmac.new(b"key", covered, hashlib.sha256).digest())
        for name, value in claims.items():
            other = value + 1 if isinstance(value, int) else value + "x"
            self.assertNotEqual(mac, make_vote_mac(b"key", **{**claims, name: other}), name)

    def test_leases_count_from_before_they_were_asked_for(self):
        leases = LeaseCache()
        leases.add("p.", 5, 2, 1_000, asked_at_ms=100)
        self.assertIsNone(leases.take(200, deadline_ms=1_101))
        self.assertEqual(leases.take(200, deadline_ms=1_100), "p.5")
        self.assertEqual(leases.take(200, deadline_ms=300), "p.6")
        self.assertIsNone(leases.take(200, deadline_ms=300))
        self.assertEqual(leases.next_count, 32)  # used up within half its life
        leases.add("p.", 7, 2, 1_000, asked_at_ms=100)
        self.assertIsNone(leases.take(1_100, deadline_ms=1_100))

    def test_backoff_is_capped(self):
        backoff = Backoff(10, 40)
        waits = [backoff.next_ms() for _ in range(50)]
        self.assertTrue(all(1 <= wait <= 40 for wait in waits), waits)
        self.assertLessEqual(boot_ms(), boot_ms())

    def test_refused_passes_through_context_managers(self):
        @contextlib.contextmanager
        def manager():
            yield

        with self.assertRaises(WireRefused) as caught:
            with manager():
                raise WireRefused(1, "no", False)
        self.assertEqual(caught.exception.message, "no")
        with self.assertRaises(TypeError):
            caught.exception.message = "yes"

    def test_failpoints(self):
        failpoint.enable("a=error@2;b=error;b=off")
        self.addCleanup(failpoint.enable, "a=off")
        self.assertEqual([failpoint.passing(name) for name in "aab"], [False, True, False])
        for wrong in ("a", "a=explode", "a=crash@x"):
            self.assertRaises(ValueError, failpoint.enable, wrong)


if __name__ == "__main__":
    unittest.main()
