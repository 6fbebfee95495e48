#include "recovery/recovered_state.h"

#include <gtest/gtest.h>

#include <map>
#include <random>
#include <set>

#include "recovery/committed_set.h"
#include "tests/recovery/wal_harness.h"

namespace troth {
namespace {

class RecoveredStateTest : public testing::Test {
 protected:
  RecoveredStateTest() {
    for (const LogRecord& record : Prologue()) EXPECT_TRUE(Apply(record).ok());
  }
  Status Apply(const LogRecord& record) { return state_.Apply(record, now_); }
  void Retain(const LocalId& lease_line = LocalId()) {
    while (state_.Retain(now_, lease_line, retention_)) {
    }
  }
  // The state that its checkpoint rebuilds.
  static RecoveredState Rebuilt(const RecoveredState& state) {
    RecoveredState rebuilt;
    state.ForEachCheckpointRecord([&](const LogRecord& record) {
      const Status status = rebuilt.Apply(record, state.running_ms());
      EXPECT_TRUE(status.ok()) << status.ToString() << " at " << DebugString(record);
    });
    return rebuilt;
  }

  RecoveredState state_;
  Retention retention_;
  std::int64_t now_ = 0;
};

TEST_F(RecoveredStateTest, ACheckpointRebuildsTheState) {
  for (const LogRecord& record : OneOfEach()) ASSERT_TRUE(Apply(record).ok());
  now_ = 5000;
  ASSERT_TRUE(Apply(TestCommit(10)).ok());
  Retain(TestId(2));
  const RecoveredState rebuilt = Rebuilt(state_);
  EXPECT_EQ(TextOf(rebuilt), TextOf(state_));
  EXPECT_EQ(rebuilt.running_ms(), 5000);
  EXPECT_EQ(rebuilt.unended(), 2u);
  EXPECT_EQ(rebuilt.whole(), 3u);
}

TEST_F(RecoveredStateTest, RepeatingChangesNothing) {
  for (const LogRecord& record : OneOfEach()) ASSERT_TRUE(Apply(record).ok());
  const std::string before = TextOf(state_);
  now_ = 0;
  for (const LogRecord& record : OneOfEach()) ASSERT_TRUE(Apply(record).ok());
  EXPECT_EQ(TextOf(state_), before);
}

TEST_F(RecoveredStateTest, ContradictionsAreRefusedAndChangeNothing) {
  for (const LogRecord& record : OneOfEach()) ASSERT_TRUE(Apply(record).ok());
  const std::string before = TextOf(state_);
  CommitRecord other = TestCommit(3);
  other.branches[0].xid += 1;
  ParticipantRecord renamed;
  renamed.name = "other";
  ParticipantRecord skipping;
  skipping.index = 5;
  const std::vector<LogRecord> contradictions = {
      other,                              // another decision of an id
      TestCommit(9, 1, "order-17"),       // a key that a live commit bears
      TestCommit(1'000'000),              // never reserved
      CommitRecord{{{9, 9}, 1}, {}, ""},  // an epoch never begun
      EndRecord{TestId(77)},              // an end without a commit
      EpochRecord{{1, 0xe2}, 0},          // the same number, another life
      EpochRecord{kTestEpoch, 5},         // the same life, another beginning
      EpochRecord{{0, 1}, 0},
      ReserveRecord{{9, 9}, 10},
      renamed,
      skipping,
      KeyRecord{"x", false, LocalId(), 0},  // neither closed nor taken
      GapRecord{3, 2, ""},
      OutcomesRecord{kTestEpoch, "garbage"},
      OutcomesRecord{{9, 9}, ""},
      DecidedAtRecord{TestId(77), 1},
  };
  for (const LogRecord& record : contradictions) {
    EXPECT_EQ(Apply(record).code(), Code::kCorrupt) << DebugString(record);
    EXPECT_EQ(TextOf(state_), before) << DebugString(record);
  }
}

TEST_F(RecoveredStateTest, AnEndedRecordBecomesABitAndTheBitExpires) {
  retention_ = Retention{30'000, 60'000, 600'000, 1u << 30};
  ASSERT_TRUE(Apply(TestCommit(1)).ok());
  ASSERT_TRUE(Apply(TestCommit(2)).ok());
  ASSERT_TRUE(Apply(EndRecord{TestId(1)}).ok());
  now_ = 59'999;
  Retain(TestId(3));
  EXPECT_NE(state_.FindCommit(TestId(1)), nullptr);
  EXPECT_TRUE(state_.Ended(TestId(1)));
  now_ = 60'000;
  Retain(TestId(3));
  EXPECT_EQ(state_.FindCommit(TestId(1)), nullptr);
  EXPECT_TRUE(state_.Committed(TestId(1)));
  EXPECT_NE(state_.FindCommit(TestId(2)), nullptr) << "not acknowledged";
  EXPECT_EQ(state_.line(), LocalId());
  now_ = 59'999 + 600'000;
  Retain(TestId(3));
  EXPECT_EQ(state_.line(), TestId(3));
  EXPECT_FALSE(state_.Committed(TestId(1))) << "expired";
  EXPECT_TRUE(state_.Committed(TestId(2))) << "a whole record says more than the line";
  ASSERT_TRUE(Apply(EndRecord{TestId(2)}).ok());
  Retain(TestId(3));
  EXPECT_EQ(state_.whole(), 0u);
  EXPECT_EQ(TextOf(Rebuilt(state_)), TextOf(state_));
}

TEST_F(RecoveredStateTest, ARecordOutlivesItsLease) {
  retention_ = Retention{30'000, 0, 86'400'000, 1u << 30};
  ASSERT_TRUE(Apply(TestCommit(1)).ok());
  ASSERT_TRUE(Apply(EndRecord{TestId(1)}).ok());
  now_ = 29'999;
  Retain(TestId(1));
  EXPECT_EQ(state_.whole(), 1u);
  Retain(TestId(2));  // the machine knows better: that lease is over
  EXPECT_EQ(state_.whole(), 0u);
}

TEST_F(RecoveredStateTest, EndedRecordsAreBoundedInBytes) {
  retention_.record_bytes = 10'000;
  for (std::uint64_t i = 1; i <= 500; ++i) {
    ASSERT_TRUE(Apply(TestCommit(i)).ok());
    if (i != 3) {
      ASSERT_TRUE(Apply(EndRecord{TestId(i)}).ok());
    }
  }
  Retain();
  EXPECT_EQ(state_.whole(), 500u) << "L9a: their leases are not over";
  Retain(TestId(501));
  EXPECT_LE(state_.whole_bytes(), 10'500u);
  EXPECT_GT(state_.whole_bytes(), 9'000u);
  EXPECT_NE(state_.FindCommit(TestId(3)), nullptr) << "it has not ended";
  EXPECT_EQ(state_.FindCommit(TestId(4)), nullptr);
  EXPECT_NE(state_.FindCommit(TestId(500)), nullptr);
  for (std::uint64_t i = 1; i <= 500; ++i) EXPECT_TRUE(state_.Committed(TestId(i)));
}

TEST_F(RecoveredStateTest, UnendedOnesComeOldestFirst) {
  retention_ = Retention{0, 0, 86'400'000, 0};
  std::vector<std::uint64_t> expected;
  for (const std::uint64_t i : {5u, 2u, 9u, 7u, 1u}) {
    ASSERT_TRUE(Apply(TestCommit(i)).ok());
    if (i == 9) {
      ASSERT_TRUE(Apply(EndRecord{TestId(i)}).ok());
    } else {
      expected.push_back(i);
    }
    if (i == 2) Retain();
  }
  std::vector<std::uint64_t> seen;
  state_.ForEachUnended([&](const CommitRecord& c) { seen.push_back(c.id.sequence); });
  EXPECT_EQ(seen, expected);
  Retain();
  seen.clear();
  Rebuilt(state_).ForEachUnended([&](const CommitRecord& c) { seen.push_back(c.id.sequence); });
  EXPECT_EQ(seen, expected);
}

TEST_F(RecoveredStateTest, AKeyLivesAsLongAsItsOutcome) {
  retention_ = Retention{0, 0, 100'000, 0};
  ASSERT_TRUE(Apply(TestCommit(1, 1, "a")).ok());
  ASSERT_TRUE(Apply(EndRecord{TestId(1)}).ok());
  ASSERT_TRUE(Apply(TestCommit(2, 1, "b")).ok());  // never acknowledged
  ASSERT_TRUE(Apply(KeyRecord{"c", true, LocalId(), 0}).ok());
  Retain(TestId(3));
  now_ = 99'000;
  Retain(TestId(3));
  for (const char* key : {"a", "b", "c"}) EXPECT_TRUE(state_.FindKey(key).has_value()) << key;
  EXPECT_EQ(state_.FindKey("a")->id, TestId(1));
  EXPECT_TRUE(state_.FindKey("c")->closed);
  EXPECT_EQ(TextOf(Rebuilt(state_)), TextOf(state_));
  now_ = 101'000;
  Retain(TestId(3));
  Retain(TestId(3));
  EXPECT_FALSE(state_.FindKey("a").has_value());
  EXPECT_TRUE(state_.FindKey("b").has_value()) << "its record is whole";
  EXPECT_FALSE(state_.FindKey("c").has_value());
  EXPECT_EQ(TextOf(Rebuilt(state_)), TextOf(state_));
}

// The machine dropped a key and let another commit have it; a replay that dropped nothing yet
// sees both, and must end where the machine ended.
TEST_F(RecoveredStateTest, AKeyThatWasFreeAgainGoesToTheLaterCommit) {
  ASSERT_TRUE(Apply(TestCommit(1, 1, "a")).ok());
  ASSERT_TRUE(Apply(EndRecord{TestId(1)}).ok());
  ASSERT_TRUE(Apply(KeyRecord{"b", true, LocalId(), 0}).ok());
  ASSERT_TRUE(Apply(TestCommit(2, 1, "a")).ok());
  ASSERT_TRUE(Apply(TestCommit(3, 1, "b")).ok());
  EXPECT_EQ(state_.FindKey("a")->id, TestId(2));
  EXPECT_EQ(state_.FindKey("b")->id, TestId(3));
  EXPECT_EQ(TextOf(Rebuilt(state_)), TextOf(state_));
}

// Against a plain book: sets and maps, no retention.
TEST_F(RecoveredStateTest, AgreesWithAPlainBook) {
  std::mt19937_64 random(11);
  std::map<std::uint64_t, CommitRecord> commits;
  std::set<std::uint64_t> ended;
  for (int i = 0; i < 20'000; ++i) {
    const std::uint64_t sequence = random() % 5000;
    if (random() % 2 == 0) {
      const auto [it, added] =
          commits.emplace(sequence, TestCommit(sequence, static_cast<int>(random() % 4)));
      ASSERT_TRUE(Apply(it->second).ok());
    } else if (commits.contains(sequence)) {
      ended.insert(sequence);
      ASSERT_TRUE(Apply(EndRecord{TestId(sequence)}).ok());
    }
    if (i % 4000 == 0) state_ = Rebuilt(state_);
  }
  for (std::uint64_t sequence = 0; sequence < 5000; ++sequence) {
    const CommitRecord* found = state_.FindCommit(TestId(sequence));
    const auto known = commits.find(sequence);
    ASSERT_EQ(found != nullptr, known != commits.end());
    if (found != nullptr) {
      EXPECT_EQ(*found, known->second);
    }
    EXPECT_EQ(state_.Ended(TestId(sequence)), ended.contains(sequence));
    EXPECT_EQ(state_.Committed(TestId(sequence)), known != commits.end());
  }
  EXPECT_EQ(state_.whole(), commits.size());
  EXPECT_EQ(state_.unended(), commits.size() - ended.size());
}

// With retention: dropped, put aside, found again, in any order.
TEST_F(RecoveredStateTest, RetentionNeverLosesWhatItMustKeep) {
  std::mt19937_64 random(12);
  retention_ = Retention{10, 50, 1000, 20'000};
  std::map<std::uint64_t, std::int64_t> decided;
  std::set<std::uint64_t> ended;
  std::uint64_t next = 1;
  for (int i = 0; i < 30'000; ++i) {
    now_ += static_cast<std::int64_t>(random() % 3);
    if (random() % 2 == 0) {
      ASSERT_TRUE(Apply(TestCommit(next)).ok());
      decided[next++] = now_;
    } else if (next > 1) {
      const std::uint64_t sequence = next - 1 - random() % std::min<std::uint64_t>(next - 1, 300);
      ASSERT_TRUE(Apply(EndRecord{TestId(sequence)}).ok());
      ended.insert(sequence);
    }
    if (random() % 10 == 0) {
      state_.Retain(now_, TestId(next > 400 ? next - 400 : 0), retention_);
    }
    if (random() % 3000 == 0) state_ = Rebuilt(state_);
  }
  Retain(TestId(next - 400));
  for (std::uint64_t s = 1; s < next; ++s) {
    const bool whole = state_.FindCommit(TestId(s)) != nullptr;
    if (!ended.contains(s)) {
      EXPECT_TRUE(whole) << s;
    }
    if (whole) {
      EXPECT_TRUE(state_.Committed(TestId(s)));
    }
    if (decided[s] + retention_.outcome_ms >= now_) {
      EXPECT_TRUE(state_.Committed(TestId(s))) << s;
    }
    if (TestId(s) >= state_.line()) {
      EXPECT_TRUE(state_.Committed(TestId(s))) << s;
    }
  }
  EXPECT_GT(state_.line(), TestId(1000));
  EXPECT_LT(state_.whole(), decided.size());
}

TEST(CommittedSetTest, HoldsSequencesOfAnySizeAndDropsBelowALine) {
  CommittedSet set;
  std::mt19937_64 random(13);
  std::set<LocalId> ids;
  for (int i = 0; i < 30'000; ++i) {
    LocalId id{{static_cast<std::uint32_t>(1 + random() % 3), 0}, random() % 70'000};
    if (random() % 2 == 0) id.sequence += std::uint64_t{1 + random() % 2} << 32;
    if (random() % 3 == 0) id.sequence += 40 << 20;
    EXPECT_EQ(set.Add(id), ids.insert(id).second);
  }
  for (int round = 0; round < 2; ++round) {
    CommittedSet loaded;
    set.ForEachRecord([&](const OutcomesRecord& record) {
      EXPECT_LE(record.bitmap.size(), kMaxOutcomesBytes);
      EXPECT_TRUE(loaded.Load(record).ok());
    });
    for (const LocalId& id : ids) ASSERT_TRUE(loaded.Contains(id));
    for (int i = 0; i < 10'000; ++i) {
      const LocalId id{{static_cast<std::uint32_t>(1 + random() % 3), 0}, random() % 140'000};
      ASSERT_EQ(loaded.Contains(id), ids.contains(id));
    }
    const LocalId line{{2, 0}, (std::uint64_t{1} << 32) + 1000};
    set.DropBelow(line);
    ids.erase(ids.begin(), ids.lower_bound(line));
  }
}

TEST(CommittedSetTest, DenseOutcomesCostABitOrLess) {
  CommittedSet all, most;
  std::mt19937_64 random(14);
  for (std::uint64_t i = 0; i < 1'000'000; ++i) {
    all.Add(LocalId{{1, 1}, i});
    if (random() % 3 != 0) most.Add(LocalId{{1, 1}, i});
  }
  std::size_t all_bytes = 0, most_bytes = 0;
  all.ForEachRecord([&](const OutcomesRecord& r) { all_bytes += r.bitmap.size(); });
  most.ForEachRecord([&](const OutcomesRecord& r) { most_bytes += r.bitmap.size(); });
  EXPECT_LT(all_bytes, 1000u);
  EXPECT_LT(most_bytes, 140'000u);
}

TEST(CommittedSetTest, DamagedBitmapsAreRefusedOrWellFormed) {
  CommittedSet set;
  std::mt19937_64 random(15);
  for (std::uint64_t i = 0; i < 200; ++i) set.Add(LocalId{{1, 1}, i});              // a run
  for (std::uint64_t i = 0; i < 300; ++i) set.Add(LocalId{{1, 1}, 65536 + i * 7});  // an array
  for (std::uint64_t i = 0; i < 9000; ++i) {
    set.Add(LocalId{{1, 1}, 131072 + random() % 65536});  // a bitset
  }
  OutcomesRecord record;
  set.ForEachRecord([&](const OutcomesRecord& r) { record = r; });
  ASSERT_TRUE(CommittedSet().Load(record).ok());
  int taken = 0;
  for (std::size_t at = 0; at < record.bitmap.size(); ++at) {
    OutcomesRecord damaged = record;
    damaged.bitmap[at] = static_cast<char>(damaged.bitmap[at] ^ (1 << (random() % 8)));
    CommittedSet loaded;
    if (!loaded.Load(damaged).ok()) continue;
    ++taken;
    CommittedSet again;  // what was taken is a set like any other
    loaded.ForEachRecord([&](const OutcomesRecord& r) { EXPECT_TRUE(again.Load(r).ok()); });
    damaged.bitmap.resize(at);
    EXPECT_FALSE(CommittedSet().Load(damaged).ok());
  }
  EXPECT_LT(taken, static_cast<int>(record.bitmap.size() / 8));
}

}  // namespace
}  // namespace troth
