// Which leased id may be used when (client/lease_cache.h).
#include "client/lease_cache.h"

#include <set>

#include <gtest/gtest.h>

namespace troth {
namespace {

TEST(LeaseCache, HandsOutEveryIdOfABlockOnce) {
  LeaseCache cache;
  cache.Add("c.1-0.", 10, 3, 30'000, 0);
  EXPECT_EQ(cache.Take(0, 5000), "c.1-0.10");
  EXPECT_EQ(cache.Take(0, 5000), "c.1-0.11");
  EXPECT_EQ(cache.Take(0, 5000), "c.1-0.12");
  EXPECT_EQ(cache.Take(0, 5000), std::nullopt);
}

TEST(LeaseCache, UsesNoIdWhoseLeaseEndsBeforeTheDeadline) {
  LeaseCache cache;
  cache.Add("c.1-0.", 0, 100, 30'000, 1000);
  EXPECT_TRUE(cache.Take(26'000, 31'000).has_value()) << "deadline at the lease's end";
  EXPECT_FALSE(cache.Take(26'000, 31'001).has_value()) << "deadline behind the lease's end";
}

TEST(LeaseCache, CountsFromBeforeItAsked) {
  LeaseCache cache;
  // Asked at 1000, answered at 4000: 30 s granted then, and still it ends here at 31,000.
  cache.Add("c.1-0.", 0, 100, 30'000, 1000);
  EXPECT_FALSE(cache.Take(4000, 4000 + 30'000).has_value());
}

TEST(LeaseCache, PassesOverABlockTooOldToOneThatServes) {
  LeaseCache cache;
  cache.Add("old.", 0, 100, 30'000, 0);
  cache.Add("new.", 0, 100, 30'000, 20'000);
  EXPECT_EQ(cache.Take(21'000, 45'000), "new.0");
  EXPECT_EQ(cache.Take(21'000, 26'000), "old.0") << "the old one still serves near deadlines";
}

TEST(LeaseCache, WantsMoreBeforeABlockIsUsedUp) {
  LeaseCache cache;
  EXPECT_FALSE(cache.Take(0, 5000).has_value());
  cache.Add("c.", 0, 4, 30'000, 0);
  EXPECT_FALSE(cache.WantsMore(1, 5000));
  cache.Take(1, 5000);
  cache.Take(1, 5000);
  EXPECT_FALSE(cache.WantsMore(1, 5000)) << "half is left";
  cache.Take(1, 5000);
  EXPECT_TRUE(cache.WantsMore(1, 5000));
}

TEST(LeaseCache, WantsMoreBeforeABlockIsTooOld) {
  LeaseCache cache;
  cache.Add("c.", 0, 100, 30'000, 0);
  EXPECT_FALSE(cache.WantsMore(10'000, 15'000));
  EXPECT_TRUE(cache.WantsMore(21'000, 26'000));
  EXPECT_FALSE(cache.WantsMore(2000, 30'000)) << "a young block is not asked for twice";
}

TEST(LeaseCache, SizesBlocksByUse) {
  LeaseCache cache;
  EXPECT_EQ(cache.next_count(), LeaseCache::kMinCount);
  std::int64_t now_ms = 0;
  for (int round = 0; round < 20; ++round) {
    const std::int32_t count = cache.next_count();
    cache.Add("c.", 0, count, 30'000, now_ms);
    for (int i = 0; i < count; ++i) ASSERT_TRUE(cache.Take(now_ms + 1000, now_ms + 6000));
    now_ms += 1000;
  }
  EXPECT_EQ(cache.next_count(), LeaseCache::kMaxCount);
  for (int round = 0; round < 20; ++round) {
    cache.Add("c.", 0, cache.next_count(), 30'000, now_ms);
    now_ms += 31'000;
    cache.Take(now_ms, now_ms + 5000);
  }
  EXPECT_EQ(cache.next_count(), LeaseCache::kMinCount);
}

TEST(LeaseCache, ForgetsWhatAnEndedLifeLeased) {
  LeaseCache cache;
  cache.Add("c.", 0, 100, 30'000, 0);
  cache.Clear();
  EXPECT_FALSE(cache.Take(1, 100).has_value());
}

TEST(LeaseCache, StaysSmall) {
  LeaseCache cache;
  for (int i = 0; i < 1000; ++i) cache.Add("b" + std::to_string(i) + ".", 0, 1, 30'000, i);
  int ids = 0;
  while (cache.Take(1000, 5000)) ++ids;
  EXPECT_LE(ids, 8);
  EXPECT_GT(ids, 0);
}

}  // namespace
}  // namespace troth
