// Recovery by inquiry: what the sweep asks about, and what it does with the answers.
#include "participant/sweep.h"

#include "tests/participant/branch_table_fixture.h"

namespace troth {
namespace {

class SweepTest : public BranchTableTest {
 protected:
  std::vector<SweepInquiry> Look(Sweep* sweep) {
    auto due = sweep->Look();
    EXPECT_TRUE(due.ok());
    return *due;
  }
  SweepAnswer Answer(const SweepInquiry& inquiry, SweepAnswer::Verdict verdict) {
    return {inquiry, verdict, {}};
  }
};

TEST_F(SweepTest, AsksAboutWhatNobodyLooksAfter) {
  Do("work 1 a");
  Do("prepare 1");
  Do("work 2 b");
  Do("prepare 2");
  const Evidence one = evidence_["1"];
  Restart();
  Sweep sweep("east", manager_.get(), table_.get(), &clock_);
  EXPECT_TRUE(Look(&sweep).empty()) << "seen for the first time";
  EXPECT_EQ(sweep.counts().found, 2u);
  Do("pass 1000");
  const std::vector<SweepInquiry> due = Look(&sweep);
  ASSERT_EQ(due.size(), 2u);
  EXPECT_EQ(due[0].coordinator, "main-0123456789ab");
  SweepAnswer commit = Answer(due[0], SweepAnswer::Verdict::kCommit);
  commit.evidence = one;
  const SweepAnswer answers[] = {commit, Answer(due[1], SweepAnswer::Verdict::kAbort)};
  sweep.Settle(answers, milliseconds(0));
  EXPECT_EQ(database_.Read("a"), 1);
  EXPECT_EQ(database_.Read("b"), std::nullopt);
  EXPECT_TRUE(database_.Prepared().empty());
  EXPECT_TRUE(Look(&sweep).empty());
  EXPECT_EQ(sweep.counts().settled, 2u);
}

TEST_F(SweepTest, SettlesWhatIsPreparedWithWorkThatDoesNotComeBack) {
  Sweep sweep("east", manager_.get(), table_.get(), &clock_);
  meanwhile = [&] {
    Do("pass 5000");  // its deadline
    EXPECT_TRUE(Look(&sweep).empty()) << "it is told to end, and may";
    Do("pass 1000");
    EXPECT_TRUE(Look(&sweep).empty()) << "seen for the first time";
    Do("pass 1000");
    const std::vector<SweepInquiry> due = Look(&sweep);
    ASSERT_EQ(due.size(), 1u);
    const SweepAnswer answers[] = {Answer(due[0], SweepAnswer::Verdict::kAbort)};
    sweep.Settle(answers, milliseconds(0));
    EXPECT_TRUE(database_.Prepared().empty()) << "it would hold its locks for ever";
    EXPECT_EQ(sweep.counts().settled, 1u);
  };
  EXPECT_EQ(Do("early 1 a"), "ended");
  EXPECT_EQ(Do("abort 1"), "done");
  meanwhile = nullptr;
  EXPECT_EQ(Do("early 2 a"), "prepared") << "its locks are free";
}

TEST_F(SweepTest, LeavesALivePreparedBranchAloneForAMoment) {
  Do("work 1 a");
  Do("prepare 1");
  Sweep sweep("east", manager_.get(), table_.get(), &clock_);
  Do("pass 999");
  EXPECT_TRUE(Look(&sweep).empty());
  EXPECT_EQ(sweep.counts().found, 0u);
  Do("pass 1");
  Look(&sweep);
  Do("pass 1000");
  EXPECT_EQ(Look(&sweep).size(), 1u) << "its coordinator forgot it";
}

TEST_F(SweepTest, L14_AbortTouchesOnlyTheXidThatWasSeen) {
  Do("work 1 a");
  Do("prepare 1");
  Restart();
  Sweep sweep("east", manager_.get(), table_.get(), &clock_);
  Look(&sweep);
  Do("pass 1000");
  const std::vector<SweepInquiry> due = Look(&sweep);
  ASSERT_EQ(due.size(), 1u);
  database_.SettleByHand(Gid("1"), false);
  EXPECT_EQ(Do("work 1 b"), "ok");
  EXPECT_EQ(Do("prepare 1"), "prepared");
  const SweepAnswer answers[] = {Answer(due[0], SweepAnswer::Verdict::kAbort)};
  sweep.Settle(answers, milliseconds(0));
  EXPECT_EQ(Do("commit 1"), "done") << "an answer about another branch rolled it back";
  EXPECT_EQ(database_.Read("b"), 1);
}

TEST_F(SweepTest, KeepsWhatNobodyCanSettle) {
  Do("work 1 a");
  Do("prepare 1");
  Do("work 2 b");
  Do("prepare 2");
  Restart();
  Sweep sweep("east", manager_.get(), table_.get(), &clock_);
  Look(&sweep);
  Do("pass 1000");
  const std::vector<SweepInquiry> due = Look(&sweep);
  const SweepAnswer answers[] = {Answer(due[0], SweepAnswer::Verdict::kExpired),
                                 Answer(due[1], SweepAnswer::Verdict::kNotMine)};
  sweep.Settle(answers, milliseconds(0));
  EXPECT_EQ(database_.Prepared().size(), 2u);
  EXPECT_TRUE(Look(&sweep).empty());
  EXPECT_EQ(sweep.counts().expired, 1u);
  EXPECT_EQ(sweep.counts().not_mine, 1u);
  Do("pass 10000");
  EXPECT_EQ(Look(&sweep).size(), 2u) << "an operator may have acted";
}

TEST_F(SweepTest, ACoordinatorThatHasJustEnrolledIsAskedAtOnce) {
  Do("work 1 a");
  Do("prepare 1");
  Restart();
  Sweep sweep("east", manager_.get(), table_.get(), &clock_);
  Look(&sweep);
  Do("pass 1000");
  const SweepAnswer answers[] = {Answer(Look(&sweep).at(0), SweepAnswer::Verdict::kNotMine)};
  sweep.Settle(answers, milliseconds(0));
  EXPECT_TRUE(Look(&sweep).empty());
  sweep.AskAgain();
  EXPECT_EQ(Look(&sweep).size(), 1u);
}

TEST_F(SweepTest, OwnBranchesThatWaitLongCountOnce) {
  Do("work 1 a");
  Do("prepare 1");
  Do("pass 2000");
  Sweep sweep("east", manager_.get(), table_.get(), &clock_);
  Look(&sweep);
  EXPECT_EQ(sweep.counts().found, 0u);
  EXPECT_EQ(table_->Counts().in_doubt, 1u);
}

TEST_F(SweepTest, PendingIsAskedAgain) {
  Do("work 1 a");
  Do("prepare 1");
  Restart();
  Sweep sweep("east", manager_.get(), table_.get(), &clock_);
  Look(&sweep);
  Do("pass 1000");
  for (int i = 0; i < 3; ++i) {
    const std::vector<SweepInquiry> due = Look(&sweep);
    ASSERT_EQ(due.size(), 1u);
    const SweepAnswer answers[] = {Answer(due[0], SweepAnswer::Verdict::kPending)};
    sweep.Settle(answers, milliseconds(0));
  }
  EXPECT_EQ(database_.Prepared().size(), 1u);
}

TEST_F(SweepTest, ABranchSettledByAnotherHandLeavesTheTable) {
  Do("work 1 a");
  Do("prepare 1");
  Do("pass 10");
  database_.SettleByHand(Gid("1"), false);
  Sweep sweep("east", manager_.get(), table_.get(), &clock_);
  Look(&sweep);
  EXPECT_EQ(table_->Counts().in_doubt, 0u) << "it would count for ever";
  EXPECT_EQ(Do("commit 1"), "heuristic");
}

TEST_F(SweepTest, ForeignGidsAreNeverTouched) {
  Do("work 1 a");
  Do("prepare 1");
  BeginOptions options;
  options.gid = "troth:east:by hand";
  options.mark = "m";
  Granted<std::unique_ptr<Session>> session = manager_->Begin(options);
  PrepareItem items[] = {{session->get(), std::nullopt}};
  manager_->Prepare(items, milliseconds(0));
  Restart();
  Sweep sweep("east", manager_.get(), table_.get(), &clock_);
  Look(&sweep);
  Do("pass 60000");
  EXPECT_EQ(Look(&sweep).size(), 1u);
  EXPECT_EQ(sweep.counts().foreign, 1u);
}

}  // namespace
}  // namespace troth
