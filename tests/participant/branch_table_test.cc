// The rules of a participant. branch_table_fixture.h has the language of the cases.
#include "tests/participant/branch_table_fixture.h"

namespace troth {
namespace {

TEST_F(BranchTableTest, CommitsABranch) {
  EXPECT_EQ(Do("work 1 a"), "ok");
  EXPECT_EQ(Do("cont 1 1"), "ok");
  EXPECT_EQ(Do("add 1 a 4"), "ok");
  EXPECT_EQ(Do("done 1"), "ok");
  EXPECT_EQ(Do("prepare 1 2"), "prepared");
  EXPECT_EQ(database_.Read("a"), std::nullopt);
  EXPECT_EQ(Do("commit 1"), "done");
  EXPECT_EQ(database_.Read("a"), 5);
  EXPECT_EQ(table_->Counts().in_doubt, 0u);
}

TEST_F(BranchTableTest, RepeatsAreAnsweredAlike) {
  Do("work 1 a");
  EXPECT_EQ(Do("prepare 1"), "prepared");
  const Evidence first = evidence_["1"];
  EXPECT_EQ(Do("prepare 1"), "prepared");
  EXPECT_EQ(evidence_["1"], first);
  EXPECT_EQ(Do("commit 1"), "done");
  EXPECT_EQ(Do("commit 1"), "done");
  EXPECT_EQ(Do("abort 1"), "heuristic") << "the decision changed";
  Do("work 2 b");
  EXPECT_EQ(Do("abort 2"), "done");
  EXPECT_EQ(Do("abort 2"), "done");
  EXPECT_EQ(Do("prepare 2"), "ended");
}

TEST_F(BranchTableTest, HalfABranchIsNeverPrepared) {
  Do("work 1 a");
  EXPECT_EQ(Do("open 1"), "out-of-number") << "a late duplicate of work 0";
  EXPECT_EQ(Do("cont 1 2"), "out-of-number");
  EXPECT_EQ(Do("cont 1 1 0000000000000063"), "out-of-number");
  EXPECT_EQ(Do("cont 1 1"), "ok") << "refusals left the branch as it was";
  EXPECT_EQ(Do("cont 1 2"), "out-of-number") << "one thing at a time";
  EXPECT_EQ(Do("done 1"), "ok");
  EXPECT_EQ(Do("prepare 1 1"), "out-of-number");
  EXPECT_EQ(Do("prepare 1 2"), "out-of-number") << "a refused vote binds";
  EXPECT_EQ(Do("cont 1 2"), "ended");
  Do("work 2 b");
  EXPECT_EQ(Do("prepare 2 1 0000000000000063"), "out-of-number");
  EXPECT_TRUE(database_.Prepared().empty());
}

TEST_F(BranchTableTest, RestartLosesTheFirstHalfAndRefusesTheSecond) {
  Do("work 1 a");
  Restart();
  EXPECT_EQ(Do("cont 1 1"), "no-such-branch");
  EXPECT_EQ(Do("prepare 1 1"), "no-such-branch");
  EXPECT_EQ(Do("open 1"), "ended") << "the vote bound";
}

TEST_F(BranchTableTest, AnotherInstancesBranchIsNotPreparedHere) {
  Do("work 1 a");
  instance_ = "another";
  EXPECT_EQ(Do("prepare 1"), "no-such-branch");
  EXPECT_TRUE(database_.Prepared().empty());
}

TEST_F(BranchTableTest, AbortBeforeWorkBinds) {
  EXPECT_EQ(Do("abort 1"), "done");
  EXPECT_EQ(Do("open 1"), "ended");
  EXPECT_EQ(Do("prepare 1"), "ended");
}

TEST_F(BranchTableTest, PrepareWithoutWorkBinds) {
  EXPECT_EQ(Do("prepare 1"), "no-such-branch");
  EXPECT_EQ(Do("open 1"), "ended");
}

TEST_F(BranchTableTest, WorkAfterAFailureIsRefusedUntilAborted) {
  Do("open 1");
  Do("add 1 a");
  EXPECT_EQ(Do("fail 1"), "application");
  EXPECT_EQ(Do("work 2 a"), "ok") << "its locks are free at once";
  EXPECT_EQ(Do("cont 1 1 0000000000000001"), "ended");
  EXPECT_EQ(Do("open 1"), "out-of-number");
  EXPECT_EQ(Do("abort 1"), "done");
  EXPECT_EQ(Do("open 1"), "ended");
}

TEST_F(BranchTableTest, AVoteAfterAFailureSaysWhy) {
  Do("open 1");
  EXPECT_EQ(Do("fail 1"), "application");
  EXPECT_EQ(Do("prepare 1 0"), "application");
}

TEST_F(BranchTableTest, AnErrorTheApplicationSwallowedFailsTheWork) {
  Do("open 1");
  Do("bad 1");
  EXPECT_EQ(Do("done 1"), "database");
  EXPECT_EQ(Do("prepare 1 1"), "database");
}

TEST_F(BranchTableTest, AbortCancelsWorkUnderWay) {
  Do("open 1");
  Do("add 1 a");
  EXPECT_EQ(Do("abort 1"), "working");
  EXPECT_EQ(Do("done 1"), "ended");
  EXPECT_EQ(Do("abort 1"), "done");
  EXPECT_EQ(Do("work 2 a"), "ok");
}

TEST_F(BranchTableTest, PrepareDuringWorkIsRefusedAndBinds) {
  Do("open 1");
  EXPECT_EQ(Do("prepare 1 1"), "out-of-number");
  EXPECT_EQ(Do("done 1"), "out-of-number");
  EXPECT_EQ(Do("prepare 1 1"), "out-of-number");
  EXPECT_TRUE(database_.Prepared().empty());
}

TEST_F(BranchTableTest, AbortWaitsBehindPrepare) {
  Do("work 1 a");
  database_.slowness = [](const std::string& what, const std::string&) {
    return what == "PREPARE" ? 2 : 0;
  };
  EXPECT_EQ(Do("prepare 1"), "working");
  EXPECT_EQ(Do("abort 1"), "working");
  EXPECT_EQ(Do("prepare 1"), "working");
  EXPECT_EQ(Do("pass 10"), "ok") << "the tick takes the answer in, and rolls back";
  EXPECT_EQ(Do("prepare 1"), "ended");
  EXPECT_EQ(Do("abort 1"), "done");
  EXPECT_TRUE(database_.Prepared().empty());
}

TEST_F(BranchTableTest, EarlyWorkIsPreparedWithItsStatement) {
  meanwhile = [&] { EXPECT_EQ(database_.Prepared().size(), 1u); };
  EXPECT_EQ(Do("early 1 a"), "prepared");
  EXPECT_EQ(Do("prepare 1 1"), "prepared");
  EXPECT_EQ(Do("commit 1"), "done");
  EXPECT_EQ(database_.Read("a"), 1);
}

TEST_F(BranchTableTest, EarlyWorkThatIsRefusedLeavesNothingPrepared) {
  EXPECT_EQ(Do("early-fail 1 a"), "application");
  EXPECT_TRUE(database_.Prepared().empty());
  EXPECT_EQ(Do("prepare 1 1"), "application") << "the vote binds";
  EXPECT_EQ(Do("early 1 a"), "ended");
  EXPECT_EQ(Do("abort 1"), "done");
  EXPECT_EQ(Do("early 2 a"), "prepared") << "its locks are free";
}

TEST_F(BranchTableTest, EarlyWorkThatIsAbortedMeanwhileLeavesNothingPrepared) {
  meanwhile = [&] { EXPECT_EQ(Do("abort 1"), "working"); };
  EXPECT_EQ(Do("early 1 a"), "ended");
  EXPECT_TRUE(database_.Prepared().empty());
  EXPECT_EQ(Do("abort 1"), "done");
}

TEST_F(BranchTableTest, EarlyWorkPastItsDeadlineLeavesNothingPrepared) {
  meanwhile = [&] { Do("pass 6000"); };
  EXPECT_EQ(Do("early 1 a"), "deadline");
  EXPECT_TRUE(database_.Prepared().empty());
}

TEST_F(BranchTableTest, EarlyWorkWhoseRollBackIsLostIsFinishedByItsAbort) {
  database_.fate = [](const std::string& what, const std::string&) {
    return what == "ROLLBACK" ? SimDatabase::Fate::kLostBefore : SimDatabase::Fate::kNormal;
  };
  EXPECT_EQ(Do("early-fail 1 a"), "application");
  EXPECT_EQ(database_.Prepared().size(), 1u) << "the test tried nothing";
  database_.fate = nullptr;
  EXPECT_EQ(Do("abort 1"), "done");
  EXPECT_TRUE(database_.Prepared().empty()) << "ended, and taken for settled";
}

TEST_F(BranchTableTest, EarlyWorkWhoseAnswerIsLateOrLostIsNoVote) {
  using Fate = SimDatabase::Fate;
  int t = 0;
  for (const Fate fate : {Fate::kLostBefore, Fate::kLostAfter, Fate::kWarning}) {
    database_.fate = [fate](const std::string& what, const std::string&) {
      return what == "PREPARE" ? fate : Fate::kNormal;
    };
    const std::string id = std::to_string(++t);
    EXPECT_EQ(Do("early " + id + " a"), fate == Fate::kWarning ? "database" : "unavailable");
    EXPECT_EQ(database_.Prepared().size(), fate == Fate::kLostAfter ? 1u : 0u) << "of what xid?";
    EXPECT_EQ(Do("abort " + id), "done");
    EXPECT_TRUE(database_.Prepared().empty());
  }
  database_.fate = nullptr;
  database_.slowness = [](const std::string& what, const std::string&) {
    return what == "PREPARE" ? 2 : 0;
  };
  EXPECT_EQ(Do("early 9 a"), "deadline");
  EXPECT_EQ(Do("abort 9"), "working") << "PREPARE is under way";
  for (int i = 0; i < 3; ++i) Do("pass 10");
  EXPECT_TRUE(database_.Prepared().empty());
  EXPECT_EQ(Do("abort 9"), "done");
}

TEST_F(BranchTableTest, ASlowBranchIsAskedAgain) {
  Do("work 1 a");
  database_.slowness = [](const std::string&, const std::string&) { return 1; };
  EXPECT_EQ(Do("prepare 1"), "working");
  EXPECT_EQ(Do("prepare 1"), "prepared");
  EXPECT_EQ(Do("commit 1"), "working");
  EXPECT_EQ(Do("commit 1"), "done");
  EXPECT_EQ(database_.Read("a"), 1);
}

TEST_F(BranchTableTest, AnUnheardAnswerToPrepareIsNoVote) {
  Do("work 1 a");
  database_.fate = [](const std::string& what, const std::string&) {
    return what == "PREPARE" ? SimDatabase::Fate::kLostAfter : SimDatabase::Fate::kNormal;
  };
  EXPECT_EQ(Do("prepare 1"), "unavailable");
  EXPECT_TRUE(database_.Prepared().empty()) << "it was rolled back at once";
  EXPECT_EQ(Do("prepare 1"), "unavailable");
}

TEST_F(BranchTableTest, L12a_AWarningAtPrepareIsNoVote) {
  Do("work 1 a");
  database_.fate = [](const std::string& what, const std::string&) {
    return what == "PREPARE" ? SimDatabase::Fate::kWarning : SimDatabase::Fate::kNormal;
  };
  EXPECT_EQ(Do("prepare 1"), "database");
  EXPECT_TRUE(database_.Prepared().empty());
}

TEST_F(BranchTableTest, IdleBranchesAreRolledBackAtTheirDeadline) {
  Do("work 1 a");
  Do("pass 4999");
  EXPECT_EQ(table_->Counts().active, 1u);
  Do("pass 1");
  EXPECT_EQ(table_->Counts().active, 0u);
  EXPECT_EQ(Do("prepare 1"), "deadline");
  EXPECT_EQ(Do("work 2 a"), "ok");
  Do("open 3");
  Do("pass 5000");
  EXPECT_EQ(Do("done 3"), "deadline") << "work past its deadline is cancelled";
}

TEST_F(BranchTableTest, L7a_OpenBranchesOfAnEndedEpochAreRolledBack) {
  Do("work 1 a");
  Do("open 2");
  Do("work 3 c");
  EXPECT_EQ(Do("prepare 3"), "prepared");
  table_->EpochBegan("main-0123456789ab", 1);
  table_->EpochBegan("other-0123456789ab", 7);
  EXPECT_EQ(table_->Counts().active, 2u) << "the epoch goes on, and others are others";
  table_->EpochBegan("main-0123456789ab", 2);
  EXPECT_EQ(Do("done 2"), "ended") << "work under way is cancelled";
  EXPECT_EQ(table_->Counts().active, 0u);
  EXPECT_EQ(Do("prepare 1"), "ended");
  EXPECT_EQ(Do("open 4"), "ended");
  EXPECT_EQ(table_->Counts().in_doubt, 1u) << "what is prepared waits for its decision";
  EXPECT_EQ(Do("commit 3"), "done");
}

TEST_F(BranchTableTest, APreparedBranchHasNoDeadline) {
  Do("work 1 a");
  Do("prepare 1");
  Do("pass 3600000");
  EXPECT_EQ(Do("commit 1"), "done");
  EXPECT_EQ(database_.Read("a"), 1);
}

TEST_F(BranchTableTest, EndedIdsAreRememberedForALease) {
  EXPECT_EQ(Do("abort 1"), "done");
  Do("pass 30000");
  EXPECT_EQ(Do("open 1"), "ended");
  Do("pass 1");
  EXPECT_EQ(Do("open 1"), "ok");
}

TEST_F(BranchTableTest, BoundOnBranchesInDoubt) {
  for (const char* t : {"1", "2", "3", "4"})
    EXPECT_EQ(Do(std::string("work ") + t + " k" + t), "ok");
  EXPECT_EQ(Do("open 5"), "overloaded");
  Do("prepare 1");
  EXPECT_EQ(Do("open 5"), "overloaded") << "prepared ones count";
  Do("commit 1");
  EXPECT_EQ(Do("open 5"), "ok") << "overloaded leaves the id unheard";
  Do("abort 2");
  table_->Listed({}, 0, 2);
  EXPECT_EQ(Do("open 6"), "overloaded") << "what the sweep found counts";
}

TEST_F(BranchTableTest, ReadOnlyBranch) {
  Do("open-ro 1");
  EXPECT_EQ(Do("done 1"), "ok");
  EXPECT_EQ(Do("prepare 1"), "read-only");
  EXPECT_EQ(Do("prepare 1"), "read-only");
  EXPECT_EQ(Do("cont 1 1"), "ended");
}

TEST_F(BranchTableTest, EarlyPrepare) {
  Do("open 1");
  Do("add 1 a");
  EXPECT_EQ(Do("last 1"), "prepared");
  EXPECT_EQ(Do("cont 1 1"), "ended");
  EXPECT_EQ(Do("prepare 1"), "prepared") << "the vote is repeated for who asks";
  EXPECT_EQ(Do("commit 1"), "done");
  EXPECT_EQ(database_.Read("a"), 1);
}

TEST_F(BranchTableTest, EarlyPrepareThatFailsIsRolledBack) {
  Do("open 1");
  Do("bad 1");
  EXPECT_EQ(Do("last 1"), "database");
  EXPECT_TRUE(database_.Prepared().empty());
  Do("open 2");
  database_.slowness = [](const std::string& what, const std::string&) {
    return what == "PREPARE" ? 5 : 0;
  };
  EXPECT_EQ(Do("last 2"), "deadline");
  for (int i = 0; i < 10; ++i) Do("pass 10");
  EXPECT_TRUE(database_.Prepared().empty()) << "a vote nobody got is not kept";
}

TEST_F(BranchTableTest, L13d_CommitOfAnotherXidRollsTheLiveOneBack) {
  Do("work 1 a");
  Do("prepare 1");
  evidence_["1"].xid += 1;  // decided for a branch that is not this one
  EXPECT_EQ(Do("commit 1"), "hazard");
  EXPECT_EQ(database_.Read("a"), std::nullopt);
  EXPECT_TRUE(database_.Prepared().empty());
}

TEST_F(BranchTableTest, L13c_CommitAfterARestartGoesByTheEvidence) {
  Do("work 1 a");
  Do("prepare 1");
  Restart();
  EXPECT_EQ(Do("commit 1"), "done");
  EXPECT_EQ(database_.Read("a"), 1);
  Restart();
  EXPECT_EQ(Do("commit 1"), "done");
}

// Each time nothing is prepared under the GID, and each time it ended otherwise.
TEST_F(BranchTableTest, L13a_NotFoundProvesNothing) {
  const SimDatabase::State backup = database_.Copy();
  Do("work 1 a");
  Do("prepare 1");
  database_.SettleByHand(Gid("1"), false);
  EXPECT_EQ(Do("commit 1"), "heuristic");
  EXPECT_EQ(Do("commit 1"), "heuristic");
  EXPECT_GE(table_->Counts().heuristics, 1u);
  Do("work 2 a");
  Do("prepare 2");
  database_.SettleByHand(Gid("2"), true);
  EXPECT_EQ(Do("commit 2"), "done");
  Do("work 3 a");
  Do("prepare 3");
  database_.RestoreFrom(backup);
  EXPECT_EQ(Do("commit 3"), "hazard");
}

// A finish that came to nothing makes the vote no younger.
TEST_F(BranchTableTest, L13d_TrustEndsASecondAfterTheVote) {
  Do("work 1 a");
  Do("prepare 1");
  database_.fate = [](const std::string&, const std::string&) { return SimDatabase::Fate::kBusy; };
  Do("pass 900");
  EXPECT_EQ(Do("commit 1"), "working");
  database_.fate = {};
  database_.SettleByHand(Gid("1"), true);  // another instance
  BeginOptions options;
  options.gid = Gid("1");
  options.mark = "m";
  Granted<std::unique_ptr<Session>> late = manager_->Begin(options);  // its late duplicate
  ASSERT_FALSE(static_cast<SimSession*>(late->get())->Add("b", 1));
  PrepareItem items[] = {{late->get(), std::nullopt}};
  manager_->Prepare(items, milliseconds(0));
  ASSERT_EQ(items[0].result->kind, PrepareResult::Kind::kPrepared);
  Do("pass 900");
  EXPECT_EQ(Do("commit 1"), "done");
  EXPECT_EQ(database_.Read("a"), 1);
  EXPECT_EQ(database_.Read("b"), std::nullopt) << "what never voted was committed";
}

TEST_F(BranchTableTest, L13b_ADatabaseThatWentBackIsAHazard) {
  const SimDatabase::State backup = database_.Copy();
  Do("work 1 a");
  Do("prepare 1");
  database_.RestoreFrom(backup);
  EXPECT_EQ(Do("commit 1"), "hazard");
}

TEST_F(BranchTableTest, L13b_EvidenceStaysVoidWhenTheDatabaseRanPastIt) {
  const SimDatabase::State backup = database_.Copy();
  Do("work 1 a");
  Do("prepare 1");
  const Evidence vote = evidence_["1"];
  database_.RestoreFrom(backup);
  Do("work 2 b");
  for (int i = 3; database_.Copy().point.position <= vote.point.position; ++i) {
    const std::string t = std::to_string(i);
    Do("work " + t + " c");
    Do("prepare " + t);
    Do("commit " + t);
  }
  evidence_["1"] = vote;
  EXPECT_EQ(Do("commit 1"), "hazard") << "the xid belongs to another branch by now";
}

TEST_F(BranchTableTest, L13c_FailOver) {
  Do("work 1 a");
  const SimDatabase::State before = database_.Copy();
  Do("prepare 1");
  const SimDatabase::State after = database_.Copy();
  database_.FailOverTo(after);
  EXPECT_EQ(Do("commit 1"), "done") << "the standby had the prepare";
  EXPECT_EQ(database_.Read("a"), 1);
  EXPECT_EQ(Do("commit 1"), "done");
  database_.FailOverTo(before);
  Restart();
  EXPECT_EQ(Do("commit 1"), "hazard") << "it had not";
}

TEST_F(BranchTableTest, DrainRefusesNewBranchesOnly) {
  Do("work 1 a");
  table_->Drain();
  EXPECT_EQ(Do("open 2"), "not-serving");
  EXPECT_EQ(Do("prepare 1"), "prepared");
  EXPECT_EQ(Do("commit 1"), "done");
  Do("pass 10");
  table_->RollbackAll();
  EXPECT_EQ(table_->Counts().active, 0u);
}

}  // namespace
}  // namespace troth
