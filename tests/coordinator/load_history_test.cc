// Rates and quantiles of the console's charts, from totals.
#include "coordinator/load_history.h"

#include <gtest/gtest.h>

namespace troth {
namespace {

constexpr std::int64_t kSecondNs = 1'000'000'000;

LatencyTotals Counted(std::vector<std::uint64_t> counts) {
  return {{0.001, 0.002, 0.004}, std::move(counts)};
}

LoadTotals At(std::int64_t second, std::uint64_t committed) {
  LoadTotals totals;
  totals.at_ns = second * kSecondNs;
  totals.at_unix_ms = 1'000'000 + second * 1'000;
  totals.committed = committed;
  totals.commits = Counted({committed, 0, 0, 0});
  return totals;
}

TEST(QuantileTest, NothingCountedIsSaidSo) {
  EXPECT_EQ(QuantileMs({}, {}, 0.5), -1);
  EXPECT_EQ(QuantileMs({}, Counted({0, 0, 0, 0}), 0.5), -1);
  EXPECT_EQ(QuantileMs(Counted({3, 0, 1, 0}), Counted({3, 0, 1, 0}), 0.99), -1);
}

TEST(QuantileTest, LiesWithinItsBucket) {
  EXPECT_DOUBLE_EQ(QuantileMs({}, Counted({10, 0, 0, 0}), 0.5), 0.5);
  EXPECT_DOUBLE_EQ(QuantileMs({}, Counted({10, 0, 0, 0}), 1), 1);
  EXPECT_DOUBLE_EQ(QuantileMs({}, Counted({50, 40, 10, 0}), 0.99), 2 + 2 * 0.9);
  EXPECT_DOUBLE_EQ(QuantileMs({}, Counted({0, 0, 4, 0}), 0.5), 3);
}

TEST(QuantileTest, OnlyWhatCameSinceCounts) {
  EXPECT_DOUBLE_EQ(QuantileMs(Counted({1000, 0, 0, 0}), Counted({1000, 10, 0, 0}), 0.5), 1.5);
}

TEST(QuantileTest, BeyondTheLastBoundIsThatBound) {
  EXPECT_DOUBLE_EQ(QuantileMs({}, Counted({0, 0, 0, 5}), 0.5), 4);
}

TEST(LoadHistoryTest, RatesAreOfTheTimeThatPassed) {
  LoadHistory history(10);
  history.Add(At(1, 100));
  EXPECT_TRUE(history.After(0).empty());
  history.Add(At(3, 400));
  ASSERT_EQ(history.After(0).size(), 1u);
  EXPECT_DOUBLE_EQ(history.After(0)[0].committed_per_s, 150);
  EXPECT_DOUBLE_EQ(history.After(0)[0].commit_p50_ms, 0.5);
  EXPECT_EQ(history.After(0)[0].sync_p99_ms, -1);
}

TEST(LoadHistoryTest, NoTimeMakesNoSample) {
  LoadHistory history(10);
  history.Add(At(1, 100));
  history.Add(At(1, 400));
  EXPECT_TRUE(history.After(0).empty());
}

TEST(LoadHistoryTest, GivesWhatIsLaterAndForgetsTheOldest) {
  LoadHistory history(3);
  for (int second = 0; second <= 5; ++second) history.Add(At(second, 0));
  EXPECT_EQ(history.After(0).size(), 3u);
  EXPECT_EQ(history.After(0).front().at_unix_ms, 1'003'000);
  EXPECT_EQ(history.After(1'004'000).size(), 1u);
  EXPECT_TRUE(history.After(1'005'000).empty());
}

TEST(LoadHistoryTest, AClockThatWasSetBackGivesAll) {
  LoadHistory history(3);
  for (int second = 0; second <= 2; ++second) history.Add(At(second, 0));
  EXPECT_EQ(history.After(9'000'000).size(), 2u);
}

}  // namespace
}  // namespace troth
