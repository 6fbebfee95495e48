// Law L7c at the participant.
#include <gtest/gtest.h>

#include "participant/epoch_fence.h"
#include "tests/simulation/sim_resource_manager.h"

namespace troth {
namespace {

class ManualClock : public Clock {
 public:
  std::int64_t NowNs() override { return now_ms * 1'000'000; }
  std::int64_t WallUnixMs() override { return now_ms; }
  std::int64_t now_ms = 1'000'000;
};

constexpr char kMain[] = "main-0123456789ab";

struct FenceTest : testing::Test {
  SimDatabase database{{"7", 5}};
  SimResourceManager manager{&database};
  ManualClock clock;
};

TEST_F(FenceTest, L7c_LowerEpochsAreRefused) {
  EpochFence fence(&manager, &clock);
  EXPECT_FALSE(fence.Check({kMain, 3, 7, 10}));
  EXPECT_FALSE(fence.Check({kMain, 4, 8, 11}));
  const auto stale = fence.Check({kMain, 3, 7, 12});
  ASSERT_TRUE(stale.has_value());
  EXPECT_EQ(stale->reason, Refused::kStaleEpoch);
  EXPECT_FALSE(fence.Check({"other-0123456789ab", 1, 1, 1})) << "each coordinator has its own";
  fence.Told({kMain, 4, 8, 11});
  EXPECT_EQ(fence.Seen(kMain)->epoch, 4u);
}

TEST_F(FenceTest, L7c_ANewEpochIsKnownAfterARestart) {
  {
    EpochFence fence(&manager, &clock);
    fence.Check({kMain, 4, 8, 11});
  }
  EpochFence fence(&manager, &clock);
  ASSERT_TRUE(fence.Load().ok());
  EXPECT_TRUE(fence.Check({kMain, 3, 7, 12}).has_value());
}

// Two instances of one participant, each with its own fence: a coordinator that has ended at one
// has ended at the other a second later, and what only one of them saw is told by both.
TEST_F(FenceTest, L7c_AnEpochBegunAtOneInstanceIsKnownAtTheOther) {
  EpochFence one(&manager, &clock), other(&manager, &clock);
  one.Check({kMain, 3, 7, 10});
  other.Check({kMain, 3, 7, 20});
  clock.now_ms += 1'000;
  other.Tick();
  one.Tick();
  EXPECT_EQ(one.Seen(kMain)->position, 20u);
  EXPECT_FALSE(one.Check({kMain, 4, 8, 30}));
  EXPECT_FALSE(other.Check({kMain, 3, 7, 21})) << "it has not heard of epoch 4 yet";
  one.Told({kMain, 4, 8, 30});
  clock.now_ms += 1'000;
  other.Tick();
  EXPECT_TRUE(other.Check({kMain, 3, 7, 22}).has_value());
  EXPECT_EQ(other.Seen(kMain)->epoch, 3u) << "what it saw of epoch 3 it tells itself";
  EXPECT_EQ(other.Seen(kMain)->position, 21u);
}

// A coordinator whose log was cut begins an epoch, and speaks first: it must still hear what was
// seen of the epoch before, also from a participant that was restarted in between.
TEST_F(FenceTest, L7c_WhatWasSeenBeforeIsKeptUntilTold) {
  {
    EpochFence fence(&manager, &clock);
    fence.Check({kMain, 3, 7, 100});
    fence.Check({kMain, 4, 8, 50});
    EXPECT_EQ(fence.Seen(kMain)->epoch, 3u);
    EXPECT_EQ(fence.Seen(kMain)->position, 100u);
    clock.now_ms += 5'000;
    fence.Tick();
  }
  EpochFence fence(&manager, &clock);
  ASSERT_TRUE(fence.Load().ok());
  EXPECT_EQ(fence.Seen(kMain)->position, 100u);
  fence.Check({kMain, 4, 8, 51});
  EXPECT_EQ(fence.Seen(kMain)->epoch, 3u);
  fence.Told({kMain, 4, 8, 51});
  EXPECT_EQ(fence.Seen(kMain)->epoch, 4u);
  EXPECT_EQ((*manager.LoadSeen())[0].epoch, 4u);
}

TEST_F(FenceTest, PositionsGrowAndAreWrittenOnceASecond) {
  EpochFence fence(&manager, &clock);
  fence.Check({kMain, 4, 8, 11});
  fence.Check({kMain, 4, 8, 50});
  fence.Check({kMain, 4, 8, 40});
  EXPECT_EQ(fence.Seen(kMain)->position, 50u);
  EXPECT_EQ((*manager.LoadSeen())[0].position, 11u);
  fence.Tick();
  EXPECT_EQ((*manager.LoadSeen())[0].position, 50u);
  fence.Check({kMain, 4, 8, 60});
  clock.now_ms += 999;
  fence.Tick();
  EXPECT_EQ((*manager.LoadSeen())[0].position, 50u);
  clock.now_ms += 1;
  fence.Tick();
  EXPECT_EQ((*manager.LoadSeen())[0].position, 60u);
}

TEST_F(FenceTest, AnEpochThatTheDatabaseCouldNotTakeIsWrittenLater) {
  EpochFence fence(&manager, &clock);
  database.SetAway(true);
  fence.Check({kMain, 4, 8, 11});
  database.SetAway(false);
  fence.Tick();
  ASSERT_EQ((*manager.LoadSeen()).size(), 1u);
}

// Once it was tried anew in front of each call of a coordinator.
TEST_F(FenceTest, OnlyATickTriesAgainToNote) {
  struct Counting : SimResourceManager {
    using SimResourceManager::SimResourceManager;
    Status StoreSeen(const SeenCoordinator& seen) override {
      ++stores;
      return SimResourceManager::StoreSeen(seen);
    }
    int stores = 0;
  } counting{&database};
  EpochFence fence(&counting, &clock);
  database.SetAway(true);
  for (int i = 0; i < 3; ++i) EXPECT_FALSE(fence.Check({kMain, 4, 8, 11}));
  EXPECT_EQ(counting.stores, 1);
  fence.Tick();
  EXPECT_NE(fence.NotNoted(), "");
  EXPECT_EQ(counting.stores, 2);
  database.SetAway(false);
  clock.now_ms += 1'000;
  fence.Tick();
  EXPECT_EQ(fence.NotNoted(), "");
  EXPECT_EQ((*manager.LoadSeen()).size(), 1u);
}

TEST_F(FenceTest, TwoEpochsOfOneNumberKeepWhatWasSeenFirst) {
  EpochFence fence(&manager, &clock);
  fence.Check({kMain, 4, 8, 90});
  EXPECT_FALSE(fence.Check({kMain, 4, 9, 20})) << "best effort: not refused";
  EXPECT_EQ(fence.Seen(kMain)->epoch_random, 8u);
  EXPECT_EQ(fence.Seen(kMain)->position, 90u);
}

}  // namespace
}  // namespace troth
