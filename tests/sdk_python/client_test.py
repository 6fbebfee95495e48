#!/usr/bin/python3
"""The Python client against a coordinator and a participant in memory: numbers and marks, honest
outcomes when replies are lost, ids over leases and forks. Quick."""

import os
import unittest
from types import SimpleNamespace
from unittest import mock

import harness  # noqa: F401  pylint: disable=unused-import
from fake_coordinator import FakeCoordinator
from harness import troth
from thrift.transport.TTransport import TTransportException
from troth.transport import Listener
from troth.wire.coordinator.ttypes import Outcome, OutcomeKind
from troth.wire.participant.ttypes import ParticipantHello
from troth.wire.values.ttypes import Branch, Reason, Refused
from troth_bank import BankBranch
from troth_bank.ttypes import ApplyReply


class FakeBank:
    """Answers work as told: `answers` are taken in order, then every work is done. Fault model: a
    callable among them is called with the context."""

    def __init__(self):
        self.contexts = []
        self.answers = []

    def hello(self, version):
        return ParticipantHello(version, "east", "inst")

    def apply(self, context, legs, note):
        self.contexts.append(context)
        if self.answers:
            return ApplyReply(self.answers.pop(0)(context))
        return ApplyReply(Branch("east", "mark", context.work + 1, "inst"))


def refuse(reason, retryable, unheard=None):
    def answer(_context):
        raise Refused(reason, "no", retryable, unheard=unheard)
    return answer


class Client(unittest.TestCase):
    def setUp(self):
        self.coordinator = FakeCoordinator().__enter__()
        self.addCleanup(self.coordinator.__exit__)
        self.bank = FakeBank()
        listener = Listener("bank", "127.0.0.1", 0, BankBranch.Processor(self.bank))
        listener.start()
        self.addCleanup(listener.stop, 0)
        self.coordinator.enrolments["east"] = SimpleNamespace(
            participant="east", instance="inst", host="127.0.0.1", port=listener.port)
        self.commits, self.aborts = [], []
        self.coordinator.commit = self.commit
        self.coordinator.abort = self.abort
        self.answers = []  # to commit, in order; then COMMITTED
        self.client = troth.Client([self.coordinator.client_address], grace_ms=100)
        self.addCleanup(self.client.close)

    def commit(self, request):
        self.commits.append(request)
        if self.answers:
            return self.answers.pop(0)(request)
        return Outcome(OutcomeKind.COMMITTED, request.transaction_id, [])

    def abort(self, request):
        self.aborts.append(request)
        return Outcome(OutcomeKind.ABORTED, request.transaction_id)

    @staticmethod
    def lost(_request):
        raise TTransportException(message="the reply is lost")

    def work(self, tx, **options):
        return tx.call("east", BankBranch, "apply", [], "", **options)

    def transaction(self, **options):
        with self.client.transaction(**options) as tx:
            self.work(tx)
        return tx.outcome

    def test_work_is_numbered_and_bears_its_mark(self):
        with self.client.transaction(isolation=3, traceparent="00-x") as tx:
            self.work(tx, read_only=True)
            self.work(tx)
        first, second = self.bank.contexts
        self.assertEqual((first.work, first.mark, first.isolation, first.read_only),
                         (0, None, 3, True))
        self.assertEqual((second.work, second.mark, second.isolation, second.read_only),
                         (1, "mark", None, None))
        self.assertLessEqual(0, second.deadline_ms)
        (claim,) = self.commits[0].branches
        self.assertEqual((claim.participant, claim.mark, claim.works, claim.instance),
                         ("east", "mark", 2, "inst"))
        self.assertEqual(tx.outcome.kind, troth.Kind.COMMITTED)

    def test_an_answer_that_does_not_fit_fails_the_transaction(self):
        for wrong in (Branch("west", "mark", 1, "inst"), Branch("east", "mark", 2, "inst"),
                      Branch("east", "", 1, "inst"), None):
            self.bank.answers.append(lambda _context, wrong=wrong: wrong)
            with self.assertRaises(troth.Aborted):
                self.transaction()
        self.assertEqual(self.commits, [])

    def test_failed_work_is_aborted_by_name_and_never_committed(self):
        self.bank.answers.append(refuse(Reason.APPLICATION, False))
        with self.assertRaises(troth.Aborted) as caught:
            self.transaction()
        self.assertEqual((len(self.commits), self.aborts[0].branches[0].participant), (0, "east"))
        self.assertFalse(caught.exception.retryable)

    def test_what_was_surely_not_begun_is_not_aborted(self):
        for unheard, aborts in ((None, 1), (True, 1)):
            self.bank.answers.append(refuse(Reason.OVERLOADED, True, unheard))
            with self.assertRaises(troth.Aborted) as caught:
                self.transaction()
            self.assertTrue(caught.exception.retryable)
            self.assertEqual((len(self.commits), len(self.aborts)), (0, aborts))

    def test_work_after_the_commit_tells_what_became_of_it(self):
        def body(tx):
            self.work(tx)
            tx.commit()
            self.work(tx)
        with self.assertRaises(troth.Aborted) as caught:
            self.client.run(body)
        self.assertEqual(caught.exception.outcome.kind, troth.Kind.COMMITTED)

    def test_what_is_refused_for_load_is_repeated_at_a_pace_of_its_own(self):
        with mock.patch("troth.client.time.sleep") as sleep, mock.patch(
                "troth.client.Backoff", lambda first, most: mock.Mock(next_ms=lambda: first)):
            for reason in (Reason.CONFLICT, Reason.OVERLOADED):
                self.bank.answers.append(refuse(reason, True))
                self.client.run(self.work)
        self.assertEqual([call.args[0] for call in sleep.call_args_list], [0.004, 0.1])

    def test_an_exception_of_the_body_aborts_and_goes_through(self):
        with self.assertRaises(KeyError):
            with self.client.transaction() as tx:
                self.work(tx)
                raise KeyError("mine")
        self.assertEqual((len(self.commits), len(self.aborts)), (0, 1))

    def test_a_lost_reply_is_asked_for_with_the_same_list(self):
        self.answers.append(self.lost)
        self.assertEqual(self.transaction().kind, troth.Kind.COMMITTED)
        self.assertEqual(self.commits[0].branches, self.commits[1].branches)

    def test_what_nobody_can_tell_is_unknown_and_never_repeated(self):
        self.answers += [self.lost] * 1_000
        with self.assertRaises(troth.OutcomeUnknown) as caught:
            self.client.run(self.work, deadline_ms=300)
        self.assertEqual(caught.exception.outcome.kind, troth.Kind.UNKNOWN)
        self.assertEqual({one.transaction_id for one in self.commits},
                         {caught.exception.outcome.transaction_id})

    def test_a_refusal_after_a_lost_reply_is_not_taken_for_an_abort(self):
        def refused(_request):
            raise Refused(Reason.NOT_LEASED, "over", False)
        self.answers += [self.lost, refused]
        with self.assertRaises(troth.OutcomeUnknown):  # `outcome` says pending
            self.transaction()
        self.answers += [refused]
        with self.assertRaises(troth.Aborted) as caught:  # surely not heard
            self.transaction()
        self.assertTrue(caught.exception.retryable)

    def test_conflicts_are_repeated_as_whole_transactions(self):
        self.bank.answers += [refuse(Reason.CONFLICT, True)] * 2
        outcome, _ = self.client.run(self.work)
        self.assertTrue(outcome.committed)
        self.assertEqual(len({context.transaction_id for context in self.bank.contexts}), 3)

    def test_nothing_to_commit_is_read_only(self):
        with self.client.transaction() as tx:
            pass
        self.assertEqual((tx.outcome.kind, self.commits), (troth.Kind.READ_ONLY, []))

    def test_no_transaction_outlasts_a_lease(self):
        with self.assertRaises(troth.NotAnswered) as caught:
            self.client.transaction(deadline_ms=31_000)
        self.assertEqual(caught.exception.failure.reason, Reason.INVALID)

    def test_no_coordinator_nothing_begun(self):
        self.coordinator.__exit__()
        with self.assertRaises(troth.NotAnswered) as caught:
            self.client.transaction(deadline_ms=200)
        self.assertTrue(caught.exception.failure.retryable)

    def test_a_new_epoch_makes_old_leases_void(self):
        first = self.client.transaction().id
        self.coordinator.sender.epoch += 1
        self.client.close()  # its connections end with the coordinator's life
        self.client.resolve()
        self.assertNotEqual(first.split(".")[1], self.client.transaction().id.split(".")[1])

    def test_a_child_takes_no_id_of_its_parent(self):
        ids = {self.client.transaction().id for _ in range(3)}
        mine = self.client.transaction()
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            text = "broken"
            try:
                theirs = {self.client.transaction().id for _ in range(3)}
                refused = mine.commit().kind is troth.Kind.UNKNOWN
                text = "shared" if theirs & ids else "fine" if refused else "committed"
            finally:
                os.write(writer, text.encode())
                os._exit(0)
        os.waitpid(child, 0)
        self.assertEqual(os.read(reader, 100), b"fine")
        os.close(reader), os.close(writer)
        mine.abort()


if __name__ == "__main__":
    unittest.main()
