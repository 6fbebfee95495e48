// The timeline: what is noted, kept and forgotten; and that notes cost no more than they may.
#include "coordinator/timeline.h"

#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

namespace troth {
namespace {

using What = Happening::What;
using Phase = TransactionHistory::Phase;

constexpr std::int64_t kMs = 1'000'000;

LocalId Id(std::uint64_t sequence) { return {{1, 7}, sequence}; }

// The life of a committed transaction with one branch, a step each millisecond.
class World {
 public:
  World() : history_([this](Phase phase, double s) { phases_.emplace_back(phase, s); }) {}

  template <typename EventOrAction>
  void At(std::int64_t ms, const EventOrAction& what) {
    timeline_.Now(ms * kMs);
    timeline_.Note(what);
  }
  void Ask(std::int64_t ms, std::uint64_t sequence) {
    CommitAsked asked;
    asked.id.local = Id(sequence);
    At(ms, Event(asked));
  }
  void Decide(std::int64_t ms, std::uint64_t sequence) {
    At(ms, AppendRecord{CommitRecord{Id(sequence), {}, ""}, true});
    ++records_;
  }
  void Durable(std::int64_t ms) { At(ms, Event(RecordsDurable{records_, 1})); }
  void Vote(std::int64_t ms, std::uint64_t sequence, Ballot ballot) {
    VoteArrived vote;
    vote.id = Id(sequence);
    vote.vote.ballot = ballot;
    At(ms, Event(vote));
  }
  void End(std::int64_t ms, std::uint64_t sequence) {
    At(ms, AppendRecord{EndRecord{Id(sequence)}, false});
    ++records_;
  }
  std::uint64_t Take() {
    std::vector<Happening> taken;
    const std::uint64_t lost = timeline_.Take(&taken);
    history_.Add(taken, lost);
    return lost;
  }
  std::vector<What> Of(std::uint64_t sequence) const {
    std::vector<What> list;
    for (const Happening& happening : history_.Of(Id(sequence))) list.push_back(happening.what);
    return list;
  }
  const std::vector<std::pair<Phase, double>>& phases() const { return phases_; }

 private:
  Timeline timeline_;
  std::vector<std::pair<Phase, double>> phases_;
  TransactionHistory history_;
  std::uint64_t records_ = 0;
};

TEST(Timeline, TellsALifeAndItsPhases) {
  World w;
  w.Ask(1, 5);
  w.At(1, SendPrepare{0, Id(5), "m", "i", 1, 0});
  w.Vote(3, 5, Ballot::kPrepared);
  w.Decide(3, 5);
  w.Durable(7);
  w.At(7, SendFinish{0, Id(5), true, 9, 1, 1, "i"});
  w.End(15, 5);
  EXPECT_EQ(w.Take(), 0u);
  EXPECT_EQ(w.Of(5),
            (std::vector<What>{What::kCommitAsked, What::kPrepareSent, What::kVotedPrepared,
                               What::kDecided, What::kDurable, What::kFinishSent, What::kEnded}));
  ASSERT_EQ(w.phases().size(), 3u);
  EXPECT_EQ(w.phases()[0], std::pair(Phase::kPrepare, 0.002));
  EXPECT_EQ(w.phases()[1], std::pair(Phase::kLog, 0.004));
  EXPECT_EQ(w.phases()[2], std::pair(Phase::kFinish, 0.008));
}

TEST(Timeline, KnowsWhichRecordsBecameDurable) {
  World w;
  w.Ask(1, 1);
  w.Decide(1, 1);
  w.Durable(2);
  w.Ask(3, 2);
  w.Decide(3, 2);  // handed over, not durable
  w.Take();
  EXPECT_EQ(w.Of(1).back(), What::kDurable);
  EXPECT_EQ(w.Of(2).back(), What::kDecided);
}

TEST(Timeline, CountsWhatItLost) {
  World w;
  w.Ask(1, 1);
  for (std::size_t i = 0; i < Timeline::kNotes + 9; ++i) w.Vote(2, 1, Ballot::kWorking);
  EXPECT_EQ(w.Take(), 10u);
  EXPECT_EQ(w.Take(), 0u);
  EXPECT_TRUE(w.Of(1).empty()) << "its beginning was lost: it is not begun in the middle";
}

TEST(Timeline, KeepsTheBeginningAndTheEndOfALongLife) {
  World w;
  w.Ask(1, 1);
  for (int i = 0; i < 1'000; ++i) w.Vote(2, 1, Ballot::kWorking);
  w.Vote(3, 1, Ballot::kPrepared);
  w.Take();
  EXPECT_LT(w.Of(1).size(), 100u);
  EXPECT_EQ(w.Of(1).front(), What::kCommitAsked);
  EXPECT_EQ(w.Of(1).back(), What::kVotedPrepared);
}

TEST(Timeline, ForgetsTheOldestThatEndedAndNoneUnderWay) {
  World w;
  w.Ask(1, 1);
  w.At(1, SendPrepare{0, Id(1), "m", "i", 1, 0});  // under way all the time
  for (std::uint64_t i = 2; i < 10'002; ++i) {
    w.Ask(2, i);
    w.Decide(2, i);
    w.Durable(2);
    w.End(2, i);
  }
  EXPECT_EQ(w.Take(), 0u);
  EXPECT_FALSE(w.Of(1).empty());
  EXPECT_TRUE(w.Of(2).empty());
  EXPECT_FALSE(w.Of(10'001).empty());
}

// Found in review: 50,000 commits that were refused, or asked once more long after, or whose ends
// were lost, and no later transaction had a timeline or counted in the metrics of phases.
TEST(Timeline, WhatWasRefusedTakesNoPlaceForEver) {
  World w;
  w.Ask(1, 1);
  w.Vote(1, 1, Ballot::kPrepared);  // under way all the time
  for (std::uint64_t i = 2; i < 60'002; ++i) {
    w.Ask(2, i);
    if (i % 1'000 == 0) w.Take();
  }
  w.Ask(3, 70'000);
  w.Decide(4, 70'000);
  EXPECT_EQ(w.Take(), 0u);
  EXPECT_EQ(w.Of(70'000), (std::vector<What>{What::kCommitAsked, What::kDecided}));
  EXPECT_EQ(w.phases().size(), 1u);
  EXPECT_FALSE(w.Of(1).empty());
  EXPECT_TRUE(w.Of(2).empty());
}

TEST(Timeline, EndsThatWereLostGiveRoom) {
  World w;
  for (std::uint64_t chunk = 1; chunk <= 3; ++chunk) {
    for (std::uint64_t i = 0; i < 20'000; ++i) {
      w.Ask(1, chunk * 100'000 + i);
      w.Vote(1, chunk * 100'000 + i, Ballot::kPrepared);
    }
    EXPECT_EQ(w.Take(), 0u);
    for (std::uint64_t i = 0; i < 20'000; ++i) w.End(2, chunk * 100'000 + i);
    for (std::size_t i = 0; i < Timeline::kNotes; ++i) w.Vote(3, 1, Ballot::kWorking);
    EXPECT_EQ(w.Take(), 20'000u);
  }
  w.Ask(4, 1'000'000);
  w.Take();
  EXPECT_EQ(w.Of(1'000'000), std::vector<What>{What::kCommitAsked});
}

TEST(Timeline, AnAbortEndsOnceHoweverOftenItIsTold) {
  World w;
  w.Ask(1, 1);
  ReplyOutcome told;
  told.kind = OutcomeKind::kAborted;
  told.id.local = Id(1);
  w.At(2, told);
  w.At(3, told);
  w.Take();
  EXPECT_EQ(w.Of(1), (std::vector<What>{What::kCommitAsked, What::kAborted}));
  EXPECT_TRUE(w.phases().empty()) << "phases are of those that commit";
}

}  // namespace
}  // namespace troth
