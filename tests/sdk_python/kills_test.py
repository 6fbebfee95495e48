#!/usr/bin/python3
"""The Python participant killed (-9) at each of its crash windows, on a real private cluster and
against a coordinator in memory: whatever was decided is what the database holds in the end, the
other branch agrees, and nothing is left prepared (laws L1, L8, L13, L14)."""

import sys
import tempfile
import threading
import time
import unittest

import harness
from fake_coordinator import FakeCoordinator
from harness import troth, until
from troth_bank import BankBranch
from troth_bank.ttypes import Leg
from troth.wire.coordinator.ttypes import Verdict
from troth.wire.participant.ttypes import Finished
from troth.wire.values.ttypes import Ballot


class Kills(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.directory = tempfile.TemporaryDirectory(prefix="troth-kills-")
        cls.cluster = harness.private_cluster.Cluster("kills", max_prepared_transactions=400).start()
        cls.banks = {name: harness.make_bank(cls.cluster, name) for name in ("east", "west")}

    @classmethod
    def tearDownClass(cls):
        cls.cluster.stop()
        cls.directory.cleanup()

    def setUp(self):
        self.coordinator = FakeCoordinator().__enter__()
        self.client = troth.Client([self.coordinator.client_address])
        # Ids are used once: also over the tests, which share the banks.
        self.coordinator._next = int(time.time() * 1000) % 10**12 * 100
        self.started = []
        self.before = {name: self.balance(name) for name in self.banks}

    def tearDown(self):
        for process in self.started:
            process.kill()
        self.client.close()
        self.coordinator.__exit__()

    # The small language of these tests --------------------------------------------------------

    def start(self, name, failpoints="", after=None, enrols=True):
        process = harness.python_branch(name, self.banks[name], self.coordinator.peer_address,
                                        self.directory.name, failpoints,
                                        may_die=not enrols)
        self.started.append(process)
        if enrols:
            self.coordinator.await_enrolment(name, after)
        return process

    def instance(self, name):
        return self.coordinator.enrolments[name].instance

    def balance(self, name):
        return int(self.cluster.psql("SELECT sum(balance) FROM account", name))

    def prepared(self):
        return self.cluster.psql("SELECT gid FROM pg_prepared_xacts").split()

    def transfer(self, deadline_ms=3_000):
        """One from east to west; the outcome, whatever it is."""
        transaction = self.client.transaction(deadline_ms)
        try:
            for name, amount in (("east", -1), ("west", +1)):
                transaction.call(name, BankBranch, "apply", [Leg(1, amount)], "kill")
        except troth.WorkFailed:
            transaction.abort()
            return transaction.outcome
        return transaction.commit()

    def check(self, id_):
        """The databases hold what was decided of the transfer, and nothing is in doubt."""
        until(lambda: not self.prepared(), 15, f"nothing prepared; is {self.prepared()}")
        committed = self.coordinator.decided.get(id_) is not None
        for name, amount in (("east", -1), ("west", +1)):
            self.assertEqual(self.balance(name) - self.before[name], amount * committed, name)
        return committed

    def killed_at(self, point):
        """A transfer whose eastern branch dies there; then it comes back."""
        east = self.start("east", f"{point}=crash")
        self.start("west")
        old = self.instance("east")
        outcome = self.transfer()
        self.assertEqual(east.wait_for_death(), -9, f"{point} was not passed")
        self.start("east", after=old)
        return outcome, self.check(outcome.transaction_id)

    # Phase one --------------------------------------------------------------------------------

    def test_work_done(self):
        outcome, committed = self.killed_at("work-done")
        self.assertEqual((outcome.kind, committed), (troth.Kind.ABORTED, False))

    def test_before_prepare(self):
        outcome, committed = self.killed_at("before-prepare")
        self.assertEqual((outcome.kind, committed), (troth.Kind.ABORTED, False))

    def test_after_prepare(self):
        outcome, committed = self.killed_at("after-prepare")
        self.assertEqual((outcome.kind, committed), (troth.Kind.ABORTED, False))

    def test_after_prepare_leaves_a_branch_that_recovery_finds(self):
        self.start("west")
        east = self.start("east", "after-prepare=crash")
        self.coordinator.verdict = Verdict.PENDING
        outcome = self.transfer()
        east.wait_for_death()
        self.assertEqual(len(self.prepared()), 1)
        self.start("east", after=self.instance("east"))
        until(lambda: outcome.transaction_id in self.coordinator.inquiries, what="an inquiry")
        self.assertEqual(len(self.prepared()), 1, "pending, and it was settled")
        self.coordinator.verdict = None
        self.assertFalse(self.check(outcome.transaction_id))

    # Phase two --------------------------------------------------------------------------------

    def test_before_commit_prepared(self):
        outcome, committed = self.killed_at("before-commit-prepared")
        self.assertEqual((outcome.kind, committed), (troth.Kind.COMMITTED, True))

    def test_after_commit_prepared(self):
        outcome, committed = self.killed_at("after-commit-prepared")
        self.assertEqual((outcome.kind, committed), (troth.Kind.COMMITTED, True))
        # The coordinator was never told; it asks again, and the evidence answers.
        vote = self.coordinator.decided[outcome.transaction_id]["east"]
        self.assertEqual(self.coordinator.finish("east", outcome.transaction_id, vote).finished,
                         Finished.DONE)
        self.assertEqual(self.coordinator.finish("east", outcome.transaction_id, vote,
                                                 commit=False).finished, Finished.HEURISTIC)

    # Recovery ---------------------------------------------------------------------------------

    def killed_in_recovery(self, point):
        """Dies between vote and decision, and once more while it recovers."""
        self.coordinator.deliver = False
        self.start("west")
        east = self.start("east")
        outcome = self.transfer()
        self.assertTrue(outcome.committed)
        east.kill()
        again = self.start("east", f"{point}=crash", enrols=False)
        self.assertEqual(again.wait_for_death(), -9)
        self.start("east", after=self.instance("east"))
        self.assertTrue(self.check(outcome.transaction_id))

    def test_sweep_listed(self):
        self.killed_in_recovery("sweep-listed")

    def test_sweep_answered(self):
        self.killed_in_recovery("sweep-answered")

    def test_sweep_settled(self):
        self.killed_in_recovery("sweep-settled")

    def test_dies_in_recovery_before_commit_prepared(self):
        self.killed_in_recovery("before-commit-prepared")

    def test_dies_in_recovery_after_commit_prepared(self):
        self.killed_in_recovery("after-commit-prepared")

    # PostgreSQL -------------------------------------------------------------------------------

    def test_postgres_killed_between_vote_and_decision(self):
        self.coordinator.deliver = False
        self.start("west")
        self.start("east")
        outcome = self.transfer()
        self.cluster.kill()
        self.cluster.start()
        self.assertTrue(self.check(outcome.transaction_id))

    def test_settled_by_hand_is_found_out(self):
        self.coordinator.deliver = False
        self.coordinator.verdict = Verdict.PENDING
        self.start("west")
        self.start("east")
        outcome = self.transfer()
        id_ = outcome.transaction_id
        self.cluster.psql(f"ROLLBACK PREPARED 'troth:east:{id_}'", "east")
        reply = self.coordinator.finish("east", id_, self.coordinator.decided[id_]["east"])
        self.assertEqual(reply.finished, Finished.HEURISTIC, reply.message)
        self.assertEqual(self.coordinator.finish(
            "west", id_, self.coordinator.decided[id_]["west"]).finished, Finished.DONE)

    # The application's side of a branch -------------------------------------------------------

    def test_a_backend_killed_between_work_and_prepare_is_no_vote(self):
        self.start("east")
        transaction = self.client.transaction()
        transaction.call("east", BankBranch, "apply", [Leg(1, -1)], "kill")
        self.cluster.psql("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
                          " WHERE state = 'idle in transaction'")
        outcome = transaction.commit()
        self.assertEqual(outcome.kind, troth.Kind.ABORTED)
        self.assertTrue(outcome.retryable, outcome)

    def test_clients_that_vanish_leave_nothing(self):
        self.start("east")
        for account in range(1, 5):
            self.client.transaction(1_000).call("east", BankBranch, "apply", [Leg(account, -1)], "x")
        until(lambda: self.cluster.psql(
            "SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in transaction%'"
        ).strip() == "0", 6, "no open blocks")
        self.assertEqual(self.balance("east"), self.before["east"])

    def test_sigterm_lets_work_end_and_rolls_the_rest_back(self):
        east = self.start("east")
        self.client.transaction().call("east", BankBranch, "apply", [Leg(1, -1)], "x")
        self.assertEqual(east.stop(), 0)
        self.assertEqual(self.balance("east"), self.before["east"])
        self.assertEqual(self.prepared(), [])

    def test_concurrent_transfers_are_exact(self):
        self.start("east")
        self.start("west")
        done = []

        def body(account):
            for _ in range(8):
                outcome, _ = self.client.run(lambda tx: [tx.call(
                    name, BankBranch, "apply", [Leg(account, amount)], "c", last=account % 2 == 0)
                    for name, amount in (("east", -1), ("west", 1))])
                done.append(outcome.kind)

        threads = [threading.Thread(target=body, args=(account,)) for account in (1, 2, 3, 4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        self.assertEqual(done, [troth.Kind.COMMITTED] * 32)
        self.assertEqual(self.balance("east"), self.before["east"] - 32)
        self.assertEqual(self.balance("west"), self.before["west"] + 32)

    def test_a_lost_reply_to_commit_is_asked_for_again(self):
        self.start("east")
        self.start("west")
        self.coordinator.lose.append("commit")
        outcome = self.transfer()
        self.assertTrue(outcome.committed, outcome)
        self.assertGreaterEqual(self.coordinator.calls.count("commit"), 2)
        self.assertEqual(self.balance("east"), self.before["east"] - 1)

    def test_a_failed_block_is_no_vote(self):
        """Found out by the guard: PREPARE in a failed block succeeds with the tag ROLLBACK."""
        self.start("east")
        coordinator, id_ = self.coordinator, self.coordinator.new_id()
        transaction = troth.Transaction(self.client, id_, troth.client.Deadline.after(5000),
                                        troth.transaction.TransactionOptions())
        transaction.call("east", BankBranch, "apply", [Leg(1, -1)], "x")
        with self.assertRaises(troth.WorkFailed):
            transaction.call("east", BankBranch, "apply", [Leg(1, -1)], "x")  # 23505
        claim = transaction._claims()[0]
        vote = coordinator.prepare("east", id_, claim.mark, claim.works, claim.instance)
        self.assertEqual((vote.ballot, vote.sqlstate), (Ballot.REFUSED, "23505"))


if __name__ == "__main__":
    harness.private_cluster.stop_on_signals()
    unittest.main(argv=[sys.argv[0], *sys.argv[1:]])
