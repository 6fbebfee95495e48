// Law L13 as rules: what may be concluded from what was read.
#include <gtest/gtest.h>

#include "participant/evidence.h"

namespace troth {
namespace {

using Kind = FinishResult::Kind;

Findings On(LogPoint now, XidStatus status) {
  Findings findings;
  findings.now = now;
  findings.status = status;
  return findings;
}

constexpr Evidence kVote{700, {2, 500}};

TEST(Judge, SameTimeline) {
  EXPECT_EQ(Judge(true, kVote, On({2, 500}, XidStatus::kCommitted)).kind, Kind::kDone);
  EXPECT_EQ(Judge(true, kVote, On({2, 600}, XidStatus::kAborted)).kind, Kind::kHeuristic);
  EXPECT_EQ(Judge(false, kVote, On({2, 600}, XidStatus::kAborted)).kind, Kind::kDone);
  EXPECT_EQ(Judge(false, kVote, On({2, 600}, XidStatus::kCommitted)).kind, Kind::kHeuristic);
  for (const XidStatus status :
       {XidStatus::kInProgress, XidStatus::kForgotten, XidStatus::kFuture}) {
    EXPECT_EQ(Judge(true, kVote, On({2, 600}, status)).kind, Kind::kHazard);
    EXPECT_EQ(Judge(false, kVote, On({2, 600}, status)).kind, Kind::kHazard);
  }
}

TEST(Judge, BelowTheVoteNothingIsProven) {
  EXPECT_EQ(Judge(true, kVote, On({2, 499}, XidStatus::kCommitted)).kind, Kind::kHazard);
  Findings back = On({2, 900}, XidStatus::kCommitted);
  back.went_back = true;
  EXPECT_EQ(Judge(true, kVote, back).kind, Kind::kHazard);
}

TEST(Judge, DescendantThatLeftBehindTheVote) {
  Findings findings = On({4, 900}, XidStatus::kCommitted);
  findings.unreadable = "permission denied";
  EXPECT_EQ(Judge(true, kVote, findings).kind, Kind::kHazard);
  findings.history = {{1, 100}, {2, 500}, {3, 700}};
  EXPECT_EQ(Judge(true, kVote, findings).kind, Kind::kDone);
  findings.history = {{1, 100}, {2, 499}, {3, 700}};
  EXPECT_EQ(Judge(true, kVote, findings).kind, Kind::kHazard) << "left before the PREPARE";
  findings.history = {{1, 100}, {3, 700}};
  EXPECT_EQ(Judge(true, kVote, findings).kind, Kind::kHazard) << "no ancestor";
}

TEST(TimelineHistory, ReadsWhatPostgresWrites) {
  const auto switches = ParseTimelineHistory(
      "1\t0/3000108\tno recovery target specified\n\n2\t1F/A\tbefore 2026\nnonsense\n");
  ASSERT_EQ(switches.size(), 2u);
  EXPECT_EQ(switches[0].timeline, 1u);
  EXPECT_EQ(switches[0].position, 0x3000108u);
  EXPECT_EQ(switches[1].timeline, 2u);
  EXPECT_EQ(switches[1].position, 0x1f0000000au);
}

TEST(LogMemory, GoingBackIsVoidForGood) {
  LogMemory memory;
  EXPECT_TRUE(memory.Observe({1, 100}, memory.Snapshot()));
  memory.Remember({1, 300});
  EXPECT_FALSE(memory.Observe({1, 200}, memory.Snapshot()));
  EXPECT_TRUE(memory.Void({1, 300}));
  EXPECT_FALSE(memory.Void({1, 200}));
  EXPECT_FALSE(memory.Void({2, 300}));
  EXPECT_TRUE(memory.Observe({1, 400}, memory.Snapshot()));
  EXPECT_TRUE(memory.Void({1, 300})) << "for good";
}

TEST(LogMemory, AnAnswerIsComparedWithWhatWasKnownWhenItWasAsked) {
  LogMemory memory;
  memory.Observe({1, 100}, memory.Snapshot());
  const LogMemory::Known asked = memory.Snapshot();
  memory.Remember({1, 300});  // learnt while the answer was on its way
  EXPECT_TRUE(memory.Observe({1, 200}, asked));
  EXPECT_FALSE(memory.Void({1, 300}));
}

}  // namespace
}  // namespace troth
