#!/usr/bin/python3
"""The Python client against a coordinator and a participant in memory: numbers and marks, honest
outcomes when replies are lost, ids over leases and forks; and the example that does without it.
Quick."""

import importlib.util
import os
import pathlib
import signal
import socket
import tempfile
import threading
import unittest
from types import SimpleNamespace
from unittest import mock

import harness
from fake_coordinator import FakeCoordinator
from harness import troth, until
from thrift.transport.TTransport import TTransportException
from troth.clock import boot_ms
from troth.lease_cache import LeaseCache
from troth.transport import Listener
from troth.wire.coordinator.ttypes import Outcome, OutcomeKind
from troth.wire.participant.ttypes import ParticipantHello
from troth.wire.values.ttypes import Ballot, Branch, Reason, Refused, Vote
from troth_bank import BankBranch
from troth_bank.ttypes import ApplyReply

_spec = importlib.util.spec_from_file_location(
    "transfer", harness.ROOT / "examples" / "bank" / "transfer.py")
TRANSFER = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(TRANSFER)


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


SHOP = """
include "troth.thrift"
include "participant.thrift"
namespace py troth_shop
exception NoSuchThing { 1: i64 number }
struct Bought { 1: troth.Branch branch }
service Shop extends participant.Participant {
  i64 price(1: i64 number) throws (1: troth.Refused refused, 2: NoSuchThing missing),
  Bought buy(1: troth.Context context, 2: i64 number)
      throws (1: troth.Refused refused, 2: NoSuchThing missing),
}
"""


class FakeShop:
    """Has nothing, and says so with an exception that its service declares."""

    def __init__(self, missing):
        self.missing = missing
        self.hellos = 0

    def hello(self, version):
        self.hellos += 1
        return ParticipantHello(version, "shop", "inst")

    def price(self, number):
        raise self.missing(number)

    def buy(self, _context, number):
        raise self.missing(number)


def half_closed(port):
    """This machine's connections to `port` of which only the other side was closed."""
    lines = pathlib.Path("/proc/self/net/tcp").read_text().splitlines()[1:]
    return sum(line.split()[2:4] == [f"0100007F:{port:04X}", "08"] for line in lines)


def refuse(reason, retryable, unheard=None):
    def answer(_context):
        raise Refused(reason, "no", retryable, unheard=unheard)
    return answer


class Client(unittest.TestCase):
    def setUp(self):
        self.coordinator = FakeCoordinator().__enter__()
        self.addCleanup(self.coordinator.__exit__)
        self.bank = FakeBank()
        self.listeners = []
        self.listen("east", BankBranch.Processor(self.bank))
        self.commits, self.aborts = [], []
        self.coordinator.commit = self.commit
        self.coordinator.abort = self.abort
        self.answers = []  # to commit, in order; then COMMITTED
        self.client = troth.Client([self.coordinator.client_address], grace_ms=100)
        self.addCleanup(self.client.close)

    def listen(self, name, processor):
        listener = Listener(name, "127.0.0.1", 0, processor)
        listener.start()
        self.addCleanup(listener.stop, 0)
        self.listeners.append(listener)
        self.coordinator.enrolments[name] = SimpleNamespace(
            participant=name, instance="inst", host="127.0.0.1", port=listener.port)
        return listener

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
                      Branch("east", "", 1, "inst"), None,
                      # A vote nobody asked for: more work was then told to be a caller's mistake.
                      Branch("east", "mark", 1, "inst", Vote(Ballot.PREPARED))):
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

    # It went to any process of the participant; what the branch held stayed locked.
    def test_the_abort_of_unanswered_work_names_the_process_that_was_asked(self):
        self.bank.answers.append(self.lost)
        with self.assertRaises(troth.Aborted):
            self.transaction()
        (claim,) = self.aborts[0].branches
        self.assertEqual((claim.participant, claim.instance, claim.mark), ("east", "inst", ""))

    # A commit went through without that work; after an abort the worker had a KeyError.
    def test_an_end_while_work_is_under_way_is_an_abort(self):
        def commit(tx):
            with self.assertRaisesRegex(RuntimeError, "'east' was under way; it is aborted"):
                tx.commit()
        for end in (commit, troth.Transaction.abort):
            for answer in (lambda _context: Branch("east", "mark", 1, "inst"),
                           refuse(Reason.CONFLICT, True)):
                there, done, failed = threading.Event(), threading.Event(), []

                def held(context, there=there, done=done, answer=answer):
                    there.set()
                    done.wait(10)
                    return answer(context)

                def work(tx, failed=failed):
                    try:
                        self.work(tx)
                    except Exception as error:  # pylint: disable=broad-except
                        failed.append(type(error))
                self.aborts.clear()
                self.bank.answers.append(held)
                tx = self.client.transaction()
                worker = threading.Thread(target=work, args=(tx,))
                worker.start()
                self.assertTrue(there.wait(10))
                try:
                    end(tx)
                finally:
                    done.set()
                    worker.join()
                self.assertEqual((tx.outcome.kind, self.commits, failed),
                                 (troth.Kind.ABORTED, [], [troth.WorkFailed]))
                self.assertEqual([claim.instance for claim in self.aborts[0].branches], ["inst"])

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
        with self.assertRaisesRegex(troth.WorkFailed, "has ended: committed "):
            self.client.run(body)

    def test_work_that_fails_after_a_commit_is_not_told_as_its_abort(self):
        def failing():
            self.bank.answers.append(refuse(Reason.CONFLICT, True))
            with self.client.transaction() as other:
                self.work(other)
        for lost, kind in ((0, troth.Kind.COMMITTED), (1_000, troth.Kind.UNKNOWN)):
            self.answers[:] = [self.lost] * lost
            for failure in (lambda: self.client.call("nobody", BankBranch, "hello", 1), failing):
                with self.assertRaises((troth.WorkFailed, troth.Aborted)) as caught:
                    with self.client.transaction(deadline_ms=300) as tx:
                        self.work(tx)
                        tx.commit()
                        failure()
                self.assertEqual(tx.outcome.kind, kind)
                self.assertIsNot(getattr(caught.exception, "outcome", None), tx.outcome)

    # Both were told as no answer: whoever repeats while that is retryable never ended.
    def test_a_call_that_the_service_fails_at_is_no_lost_one(self):
        for error, reason, retryable in (
                (KeyError("a mistake of the service"), Reason.APPLICATION, False),
                (TTransportException(), Reason.DATABASE_UNAVAILABLE, True)):
            self.bank.accounts = mock.Mock(side_effect=error)
            with mock.patch("logging.exception"), \
                    self.assertRaises(troth.WorkFailed) as caught:
                self.client.call("east", BankBranch, "accounts", 0, 1)
            failure = caught.exception.failure
            self.assertEqual((failure.reason, failure.retryable, failure.participant),
                             (reason, retryable, "east"))

    # It was told as no answer: run() repeated the transaction until its time was up.
    def test_an_exception_that_a_service_declares_is_its_answer(self):
        with tempfile.TemporaryDirectory(prefix="troth-shop-") as made:
            idl = pathlib.Path(made) / "shop.thrift"
            idl.write_text(SHOP)
            troth.idl.load(idl)
        from troth_shop import Shop  # pylint: disable=import-outside-toplevel,import-error
        from troth_shop.ttypes import NoSuchThing  # pylint: disable=import-outside-toplevel,import-error
        shop = FakeShop(NoSuchThing)
        self.listen("shop", Shop.Processor(shop))
        for call in (lambda: self.client.call("shop", Shop, "price", 7),
                     lambda: self.client.transaction().call("shop", Shop, "buy", 7)):
            with self.assertRaises(troth.WorkFailed) as caught:
                call()
            failure = caught.exception.failure
            self.assertEqual((failure.reason, failure.retryable, failure.participant),
                             (Reason.APPLICATION, False, "shop"))
            self.assertEqual(caught.exception.__cause__, NoSuchThing(7))
        self.assertEqual(shop.hellos, 1)  # the connection is fit to be used again

    # They stayed for ever, those of each restart.
    def test_connections_to_a_process_that_went_are_closed(self):
        now, old = [boot_ms()], self.coordinator.enrolments["east"].port
        with mock.patch("troth.client.boot_ms", lambda: now[0]):
            both = threading.Barrier(2, timeout=10)

            def together(_context):
                both.wait()
                return Branch("east", "mark", 1, "inst")
            self.bank.answers += [together] * 2
            workers = [threading.Thread(target=self.transaction) for _ in range(2)]
            for worker in workers:
                worker.start()
            for worker in workers:
                worker.join()
            self.listeners.pop().stop(0)
            self.listen("east", BankBranch.Processor(self.bank))
            until(lambda: half_closed(old) == 2)
            now[0] += 10_000  # where it is is asked again
            self.transaction()
        self.assertEqual(half_closed(old), 0)

    def test_what_fails_behind_a_commit_is_never_repeated(self):
        def unanswered():
            raise troth.NotAnswered(troth.Failure(Reason.NOT_SERVING, "no", True))

        def aborted():
            self.bank.answers.append(refuse(Reason.CONFLICT, True))
            self.transaction()
        for commits, failure, error in ((True, unanswered, troth.NotAnswered),
                                        (True, aborted, troth.Aborted),
                                        (False, unanswered, troth.NotAnswered),
                                        (False, aborted, troth.Aborted)):
            ids = []

            def body(tx):
                ids.append(tx.id)
                self.work(tx)
                if commits:
                    tx.commit()
                failure()
            self.commits.clear()
            with self.assertRaises(error):
                self.client.run(body, total_ms=300)
            self.assertEqual((len(ids), len(self.commits)), (1, commits))

    def test_no_attempt_outlasts_the_whole(self):
        self.bank.answers += [refuse(Reason.CONFLICT, True)] * 1_000
        with self.assertRaises(troth.Aborted):
            self.client.run(self.work, total_ms=200)
        self.assertLessEqual(max(context.deadline_ms for context in self.bank.contexts), 200)

    def test_what_is_refused_for_load_is_repeated_at_a_pace_of_its_own(self):
        with mock.patch("troth.client.time.sleep") as sleep, mock.patch(
                "troth.client.Backoff", lambda first, most: mock.Mock(next_ms=lambda: first)):
            for reason in (Reason.CONFLICT, Reason.OVERLOADED):
                self.bank.answers.append(refuse(reason, True))
                self.client.run(self.work)
        self.assertEqual([call.args[0] for call in sleep.call_args_list], [0.004, 0.1])

    def test_a_commit_that_could_not_be_sent_is_aborted(self):
        with self.assertRaises(troth.Aborted) as caught:
            with self.client.transaction(deadline_ms=500) as tx:
                self.work(tx)
                self.coordinator.clients.stop(0)
        outcome = caught.exception.outcome
        self.assertEqual((outcome.failure.reason, outcome.retryable, outcome.transaction_id),
                         (Reason.NOT_SERVING, True, tx.id))
        self.assertEqual(tx.left_ms(), 0, "it is tried until the deadline")

    def test_what_was_heard_before_nobody_was_there_is_unknown(self):
        def lost_for_good(_request):
            threading.Thread(target=self.coordinator.clients.stop, args=(0,)).start()
            raise TTransportException(message="the reply is lost")
        self.answers += [lost_for_good] + [self.lost] * 1_000
        with self.assertRaises(troth.OutcomeUnknown):
            with self.client.transaction(deadline_ms=500) as tx:
                self.work(tx)
        self.assertEqual(self.aborts, [])

    # Found in review: what a signal's handler, say, broke off when all had gone out counted as not
    # sent, and a refusal of the next call as an abort.
    def test_what_was_broken_off_while_it_was_sent_may_have_been_heard(self):
        def refused(_request):
            raise Refused(Reason.NOT_LEASED, "the lease is over", False)
        send, heard = socket.socket.sendall, []

        def broken_off(sock, data):
            send(sock, data)
            if sock.getpeername()[1] == self.coordinator.clients.port and b"commit" in data:
                if not heard:
                    heard.append(data)
                    raise TimeoutError("a handler's own")
        self.answers += [refused] * 10
        with mock.patch.object(socket.socket, "sendall", broken_off):
            with self.assertRaises(troth.OutcomeUnknown):
                self.transaction()
        self.assertEqual((len(heard), self.aborts), (1, []))

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

    def test_work_that_the_end_overtook_is_not_sent(self):
        """While it was connected: the abort could not name the process it would have gone to."""
        tx, connect = self.client.transaction(), self.client.connect_participant

        def connect_slowly(*arguments):
            connection = connect(*arguments)
            tx.abort()
            return connection
        with mock.patch.object(self.client, "connect_participant", connect_slowly), \
                self.assertRaises(troth.WorkFailed) as caught:
            self.work(tx)
        self.assertEqual((caught.exception.failure.reason, self.bank.contexts), (Reason.ENDED, []))

    def test_anothers_commit_under_the_id_is_not_ours(self):
        def foreign(_request):
            raise Refused(Reason.OTHER_PARTICIPANTS, "another list", False)
        for kind, error in ((OutcomeKind.COMMITTED, troth.OutcomeUnknown),
                            (OutcomeKind.READ_ONLY, troth.OutcomeUnknown),
                            (OutcomeKind.ABORTED, troth.Aborted)):
            self.answers += [foreign]
            self.coordinator.outcome = lambda id_, _wait, kind=kind: Outcome(kind, id_)
            with self.assertRaises(error):
                self.transaction()

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

    def test_a_transaction_of_a_whole_lease_ends_with_it(self):
        now, lease = [boot_ms()], self.coordinator.lease

        def granted_slowly(count):
            now[0] += 50
            self.coordinator.lease_ms -= 50  # what is left of it when it is told
            return lease(count)
        self.coordinator.lease = granted_slowly
        with mock.patch("troth.client.boot_ms", lambda: now[0]), \
                mock.patch("troth.clock.boot_ms", lambda: now[0]):
            self.assertEqual(self.client.transaction(deadline_ms=30_000).left_ms(), 29_900)

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

    # examples/bank/transfer.py, the contract without this package --------------------------------

    def example(self, deadline_s=5.0):
        return TRANSFER.transfer(self.coordinator.client_address, ("east", 1), ("east", 2), 5,
                                 deadline_s)

    def test_example_tells_a_refused_commit_and_aborts(self):
        def refused(_request):
            raise Refused(Reason.KEY_TAKEN, "the key is taken", False)
        self.answers += [refused]
        code, text = self.example()
        self.assertEqual((code, len(self.commits)), (1, 1))
        self.assertRegex(text, "^aborted .*the key is taken")
        self.assertEqual([claim.mark for claim in self.aborts[0].branches], ["mark"])

    def test_example_does_not_take_a_refusal_for_the_answer_that_was_lost(self):
        def refused(_request):
            raise Refused(Reason.NOT_LEASED, "the lease is over", False)
        self.answers += [self.lost, refused]
        code, text = self.example()
        self.assertRegex(f"{code} {text}", "^3 unknown .*the lease is over")
        self.assertEqual(self.aborts, [])

    def test_example_repeats_what_passes_by_itself(self):
        def overloaded(_request):
            raise Refused(Reason.OVERLOADED, "full", True)
        self.answers += [overloaded, self.lost]
        self.assertEqual(self.example()[0], 0)
        self.answers += [overloaded] * 1_000
        self.assertRegex(str(self.example(0.2)), "1, 'aborted .*full")

    def test_example_does_not_guess_what_is_forgotten(self):
        self.answers += [lambda request: Outcome(OutcomeKind.EXPIRED, request.transaction_id)]
        self.assertEqual(self.example()[0], 3)

    def test_example_names_a_branch_whose_reply_was_lost(self):
        self.bank.answers.append(self.lost)
        self.assertEqual(self.example()[0], 1)
        self.assertEqual([claim.participant for claim in self.aborts[0].branches], ["east"])

    def test_example_aborts_nothing_where_nothing_can_have_begun(self):
        self.coordinator.enrolments.clear()
        self.assertEqual(self.example()[0], 1)
        self.assertEqual(self.aborts[0].branches, [])

    def test_example_ends_with_its_lease(self):
        self.coordinator.lease_ms = 3_000
        self.assertEqual(self.example(5.0)[0], 0)
        self.assertLessEqual(self.bank.contexts[0].deadline_ms, 3_000)

    # Forks ----------------------------------------------------------------------------------------

    def in_child(self, work):
        """What `work` answers in a fork's child."""
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            signal.alarm(10)  # one that hangs is red
            text = "broken"
            try:
                text = str(work())
            finally:
                os.write(writer, text.encode())
                os._exit(0)
        os.close(writer)
        os.waitpid(child, 0)
        answer = os.read(reader, 100).decode()
        os.close(reader)
        return answer

    def test_a_child_takes_no_id_of_its_parent(self):
        ids = {self.client.transaction().id for _ in range(3)}
        mine = self.client.transaction()

        def work():
            theirs = {self.client.transaction().id for _ in range(3)}
            refused = mine.commit().kind is troth.Kind.UNKNOWN
            return "shared" if theirs & ids else "fine" if refused else "committed"
        self.assertEqual(self.in_child(work), "fine")
        mine.abort()

    def test_no_thread_of_a_child_takes_an_id_of_its_parent(self):
        self.client.transaction().abort()  # there is a lease

        def work():
            there, done, ids = threading.Event(), threading.Event(), []

            class SlowLeases(LeaseCache):
                """Whoever makes its life anew is overtaken by another thread."""

                def __init__(self):
                    there.set()
                    done.wait(1)
                    super().__init__()

            def take():
                ids.append(self.client.transaction().id)
            with mock.patch("troth.client.LeaseCache", SlowLeases):
                first = threading.Thread(target=lambda: (take(), there.set()))
                first.start()
                there.wait(5)
                take()
                done.set()
                first.join()
            return " ".join(ids)
        theirs = self.in_child(work).split()
        ours = [self.client.transaction().id for _ in range(4)]
        self.assertEqual((len(theirs), set(theirs) & set(ours)), (2, set()))

    def test_a_child_is_not_told_that_its_parents_transaction_aborted(self):
        mine = self.client.transaction()

        def work():
            try:
                with mine as tx:
                    self.work(tx)
            except (troth.Aborted, troth.WorkFailed) as error:
                return type(error).__name__
            return "committed"
        self.assertEqual(self.in_child(work), "WorkFailed")
        mine.abort()

    # It hung: nobody there gives the lock back.
    def test_a_child_waits_for_no_lock_that_a_thread_of_its_parent_held(self):
        mine = self.client.transaction(deadline_ms=25_000)
        there, done = threading.Event(), threading.Event()
        worker = threading.Thread(target=lambda: self.work(mine))

        def slow_clock():
            if threading.current_thread() is worker:
                there.set()
                done.wait(30)
            return boot_ms()
        with mock.patch("troth.clock.boot_ms", slow_clock):  # read with the lock held
            worker.start()
            self.assertTrue(there.wait(10))
            kinds = [self.in_child(lambda end=end: (end(), mine.outcome.kind.value)[1])
                     for end in (mine.commit, mine.abort)]
            done.set()
            worker.join()
        self.assertEqual(kinds, ["unknown", "unknown"])
        mine.abort()

    def test_a_child_reads_its_certificates_itself(self):
        with tempfile.TemporaryDirectory(prefix="troth-tls-") as made:
            key, authorities = pathlib.Path(made) / "key", pathlib.Path(made) / "ca"
            key.touch(0o600)
            os.mkfifo(authorities)  # whoever reads it waits for a writer
            client = troth.Client([self.coordinator.client_address],
                                  tls=troth.TlsFiles(str(key), str(key), str(authorities)))

            def take():
                try:
                    client.transaction(deadline_ms=300)
                except troth.NotAnswered:
                    return "not answered"
                return "taken"

            def read():
                try:
                    return os.open(authorities, os.O_WRONLY | os.O_NONBLOCK)
                except OSError:
                    return 0  # no reader yet
            worker = threading.Thread(target=take)
            worker.start()
            writer = until(read)

            def work():
                key.replace(authorities)  # of no use, and no pipe
                return take()
            try:
                self.assertEqual(self.in_child(work), "not answered")
            finally:
                os.close(writer)
                worker.join()


if __name__ == "__main__":
    unittest.main()
