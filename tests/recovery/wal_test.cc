// The log as its users see it: what is durable comes back, after anything.
#include "recovery/wal.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "recovery/wal_format.h"
#include "recovery/wal_reader.h"
#include "tests/recovery/wal_harness.h"

namespace troth {
namespace {

using testing::HasSubstr;

TEST(WalTest, EveryRecordComesBackOverTwoOpenings) {
  WalHarness h;
  ASSERT_TRUE(h.Init().ok());
  ASSERT_TRUE(h.Open().ok());
  for (const LogRecord& record : OneOfEach()) ASSERT_TRUE(h.Append(record));
  ASSERT_TRUE(h.FlushAll().ok());
  const std::string before = TextOf(h.state());
  const std::string id = h.wal().coordinator_id();
  EXPECT_TRUE(IsCoordinatorId(id));
  for (int i = 0; i < 2; ++i) {
    h.Kill();
    ASSERT_TRUE(h.Open().ok());
    EXPECT_EQ(h.PrefixHeld(), static_cast<int>(h.appended().size())) << TextOf(h.state());
    EXPECT_EQ(h.wal().coordinator_id(), id);
    EXPECT_TRUE(h.wal().warnings().empty());
  }
  EXPECT_NE(before, "");
}

TEST(WalTest, AnUnflushedRecordIsLost) {
  WalHarness h;
  h.Start();
  ASSERT_TRUE(h.Append(TestCommit(1)));
  h.Kill();
  ASSERT_TRUE(h.Open().ok());
  EXPECT_FALSE(h.state().Committed(TestId(1)));
}

TEST(WalTest, BatchNumbersRunOn) {
  WalHarness h;
  h.Start();
  std::uint64_t last = h.wal().last_batch();
  EXPECT_EQ(last, 1u);
  for (int life = 0; life < 3; ++life) {
    ASSERT_TRUE(h.Commits(1 + 100 * static_cast<std::uint64_t>(life), 40).ok());
    EXPECT_EQ(h.wal().last_batch(), last + 40);
    EXPECT_GT(h.wal().stats().segment, 2u);
    last = h.wal().last_batch();
    h.Kill();
    ASSERT_TRUE(h.Open().ok());
    EXPECT_EQ(h.wal().last_batch(), last);
  }
}

TEST(WalTest, WhatArrivesDuringAFlushSharesTheNext) {
  WalHarness h;
  h.Start();
  ASSERT_TRUE(h.Append(TestCommit(1)));
  std::optional<FlushJob> job = h.wal().BeginFlush();
  ASSERT_TRUE(job.has_value());
  EXPECT_FALSE(h.wal().BeginFlush().has_value());
  EXPECT_FALSE(h.wal().BeginFlush(true).has_value());
  const std::uint64_t second = h.wal().Append(TestCommit(2));
  const std::uint64_t third = h.wal().Append(TestCommit(3));
  EXPECT_FALSE(h.wal().FlushPending());
  ASSERT_TRUE(h.wal().Flush(&*job).ok());
  EXPECT_LT(h.wal().EndFlush(*std::move(job)).records, second);
  EXPECT_TRUE(h.wal().FlushPending());
  job = h.wal().BeginFlush();
  ASSERT_TRUE(h.wal().Flush(&*job).ok());
  EXPECT_EQ(h.wal().EndFlush(*std::move(job)).records, third);
  EXPECT_FALSE(h.wal().BeginFlush().has_value());
}

TEST(WalTest, TooMuchForOneBatchIsSplitBetweenRecords) {
  WalHarness h;
  h.Start();
  std::uint64_t next = 1;
  while (h.Append(TestCommit(next, 100))) ++next;
  EXPECT_GT(next, 10u);
  const std::uint64_t before = h.wal().last_batch();
  ASSERT_TRUE(h.FlushAll().ok());
  EXPECT_GT(h.wal().last_batch(), before + 1);
  h.Kill();
  ASSERT_TRUE(h.Open().ok());
  EXPECT_EQ(h.state().whole(), next - 1);
}

// RoomBytes keeps its word: whatever is appended within it can be flushed without a file made.
TEST(WalTest, RoomThatWasPromisedIsThere) {
  for (std::uint64_t seed = 1; seed <= 60; ++seed) {
    WalHarness h(seed);
    h.options().segment_bytes = (32u << 10) + 4096 * (seed % 5);
    h.Start();
    std::mt19937_64 random(seed);
    std::uint64_t next = 1;
    for (int step = 0; step < 1500; ++step) {
      const int branches = random() % 8 == 0 ? static_cast<int>(random() % 130) : 1;
      if (h.Append(TestCommit(next, branches))) {
        ++next;
      } else if (random() % 3 == 0) {
        ASSERT_TRUE(h.FlushAll().ok());
        ASSERT_TRUE(h.Maintain().ok());
      }
      if (random() % 6 == 0) {
        ASSERT_TRUE(h.Flush().ok());
      }
      if (random() % 20 == 0) {
        ASSERT_TRUE(h.FlushAll().ok() && h.Flush(true).ok());
      }
      if (random() % 50 == 0) {
        ASSERT_TRUE(h.Maintain().ok());
      }
    }
    ASSERT_TRUE(h.FlushAll().ok());
    EXPECT_GT(next, 300u) << "seed " << seed;
    h.Kill();
    ASSERT_TRUE(h.Open().ok());
    EXPECT_EQ(h.state().whole(), next - 1);
  }
}

TEST(WalTest, CompactionKeepsTheStateAndTheDirectorySmall) {
  WalHarness h;
  h.options().retention = Retention{0, 0, 86'400'000, 1u << 20};
  h.Start();
  ASSERT_TRUE(h.Commits(1, 3000).ok());
  EXPECT_GT(h.wal().stats().compactions, 50u);
  EXPECT_LT(h.fs().used_bytes(), 20 * h.options().segment_bytes);
  h.Kill();
  ASSERT_TRUE(h.Open().ok());
  for (std::uint64_t i = 1; i <= 3000; ++i) ASSERT_TRUE(h.state().Committed(TestId(i))) << i;
  EXPECT_FALSE(h.state().Committed(TestId(3001)));
  EXPECT_LT(h.state().whole(), 100u);
}

TEST(WalTest, WholeRecordsOutliveCompactionUntilTheyEnd) {
  WalHarness h;
  h.options().retention = Retention{0, 0, 86'400'000, 0};
  h.Start();
  ASSERT_TRUE(h.Commits(1, 50, /*end_too=*/false).ok());
  ASSERT_TRUE(h.Commits(100, 500).ok());
  EXPECT_GT(h.wal().stats().compactions, 5u);
  h.Kill();
  ASSERT_TRUE(h.Open().ok());
  EXPECT_EQ(h.state().unended(), 50u);
  ASSERT_NE(h.state().FindCommit(TestId(7)), nullptr);
  EXPECT_EQ(*h.state().FindCommit(TestId(7)), TestCommit(7));
}

TEST(WalTest, WhatNobodyWaitsForIsFlushedInAQuietSecondAndMarkedInTheNext) {
  WalHarness h;
  h.Start();
  ASSERT_TRUE(h.Commits(1, 1).ok());
  ASSERT_TRUE(h.Append(EndRecord{TestId(1)}));  // not forced
  h.clock().AdvanceMs(1000);
  ASSERT_TRUE(h.wal().MarkDue()) << "it would wait for the next commit, for days perhaps";
  ASSERT_TRUE(h.Flush(true).ok());
  const std::uint64_t marks = h.wal().stats().marks;
  EXPECT_FALSE(h.wal().MarkDue());
  h.clock().AdvanceMs(1000);
  ASSERT_TRUE(h.wal().MarkDue());
  ASSERT_TRUE(h.Flush(true).ok());
  EXPECT_EQ(h.wal().stats().marks, marks + 1);
  h.Kill();
  ASSERT_TRUE(h.Open().ok());
  EXPECT_EQ(h.state().unended(), 0u);
}

TEST(WalTest, AQuietSecondIsMarked) {
  WalHarness h;
  h.Start();
  ASSERT_TRUE(h.Commits(1, 1).ok());
  EXPECT_FALSE(h.wal().MarkDue());
  EXPECT_EQ(h.wal().MsUntilDue(), 1000);
  h.clock().AdvanceMs(1000);
  EXPECT_TRUE(h.wal().MarkDue());
  const std::uint64_t before = h.wal().last_batch();
  ASSERT_TRUE(h.Flush(true).ok());
  EXPECT_EQ(h.wal().last_batch(), before + 1);
  EXPECT_FALSE(h.wal().MarkDue());
  h.clock().AdvanceMs(5000);
  EXPECT_FALSE(h.wal().MarkDue()) << "one mark is enough";
  h.Kill();
  ASSERT_TRUE(h.Open().ok());
  EXPECT_EQ(h.wal().last_batch(), before + 1);
}

TEST(WalTest, RunningTimeAddsUpOverLives) {
  WalHarness h;
  h.Start();
  h.clock().AdvanceMs(7000);
  ASSERT_TRUE(h.Commits(1, 1).ok());
  EXPECT_EQ(h.wal().RunningMs(), 7000);
  h.Kill();
  h.clock().AdvanceMs(50'000);  // nobody ran
  ASSERT_TRUE(h.Open().ok());
  EXPECT_EQ(h.wal().RunningMs(), 7000);
  h.clock().AdvanceMs(1);
  EXPECT_EQ(h.wal().RunningMs(), 7001);
}

// ---- Refusals.

TEST(WalTest, AnEmptyDirectoryIsRefusedAndStaysEmpty) {
  WalHarness h;
  ASSERT_TRUE(h.fs().MakeDirectory(WalHarness::directory()).ok());
  const Status status = h.Open();
  EXPECT_EQ(status.code(), Code::kNotFound);
  EXPECT_THAT(status.message(), HasSubstr("--init"));
  EXPECT_TRUE(h.fs().Snapshot().empty());
}

TEST(WalTest, InitNeverReplacesALog) {
  WalHarness h;
  h.Start();
  h.Kill();
  const auto before = h.fs().Snapshot();
  EXPECT_EQ(h.Init().code(), Code::kExists);
  EXPECT_TRUE(h.fs().Snapshot() == before);
  WalHarness other;
  other.fs().Load({{"/log/notes.txt", "x"}});
  EXPECT_EQ(other.Init().code(), Code::kExists);
  WalHarness named;
  EXPECT_EQ(Wal::Init(&named.fs(), "/log", "Not A Name", named.options()).status().code(),
            Code::kInvalid);
}

TEST(WalTest, L7b_ALockedDirectoryIsRefused) {
  WalHarness h;
  h.Start();
  RecoveredState state;
  const auto second = Wal::Open(&h.fs(), &h.clock(), WalHarness::directory(), h.options(), &state);
  EXPECT_EQ(second.status().code(), Code::kRefused);
  EXPECT_EQ(Wal::Init(&h.fs(), WalHarness::directory(), "bank", h.options()).status().code(),
            Code::kExists);
}

// A segment's number, 0 for any other file.
std::uint64_t SegmentNumber(const std::string& path) {
  return ParseWalFileName(WalFileKind::kSegment, path.substr(path.rfind('/') + 1)).value_or(0);
}

// A log of two full segments and a begun one, and nothing compacted.
class WalDamage : public testing::Test {
 protected:
  void SetUp() override {
    h_.options().segments_ahead = 3;
    h_.Start();
    ASSERT_NO_FATAL_FAILURE(Run(1, 35));
    h_.Kill();
    tree_ = h_.fs().Snapshot();
    for (const auto& [path, bytes] : tree_) {
      if (path.find("checkpoint-00") != path.npos) checkpoint_ = path;
      if (SegmentNumber(path) > 1 && bytes[kBlockBytes] != 0) segments_.push_back(path);
    }
    ASSERT_EQ(segments_.size(), 3u);
  }

  void Run(std::uint64_t first, std::uint64_t count) {
    for (std::uint64_t i = first; i < first + count; ++i) {
      ASSERT_TRUE(h_.Append(TestCommit(i)) && h_.Flush().ok());
    }
  }

  // Opening refuses, names `file` and `cause`, and changes nothing.
  void ExpectRefused(const SimFileSystem::Tree& tree, const std::string& file,
                     const std::string& cause) {
    h_.fs().Load(tree);
    const Status status = h_.Open();
    EXPECT_EQ(status.code(), Code::kCorrupt) << status.ToString();
    EXPECT_THAT(status.message(), HasSubstr(file));
    EXPECT_THAT(status.message(), HasSubstr("offset "));
    EXPECT_THAT(status.message(), HasSubstr(cause));
    EXPECT_TRUE(h_.fs().Snapshot() == tree);
  }

  WalHarness h_;
  SimFileSystem::Tree tree_;
  std::string checkpoint_;
  std::vector<std::string> segments_;  // with batches
};

TEST_F(WalDamage, AMissingFileIsNamed) {
  for (const std::string& path : segments_) {
    SimFileSystem::Tree tree = tree_;
    tree.erase(path);
    h_.fs().Load(tree);
    const Status status = h_.Open();
    EXPECT_EQ(status.code(), Code::kCorrupt);
    EXPECT_THAT(status.message(), HasSubstr(path));
    EXPECT_TRUE(h_.fs().Snapshot() == tree);
  }
  SimFileSystem::Tree tree = tree_;
  tree.erase(checkpoint_);
  ExpectRefused(tree, "checkpoint-", "missing");
}

TEST_F(WalDamage, ACutFileIsRefusedWhereverItIsCut) {
  for (const std::string& path : segments_) {
    for (const std::size_t size : {0u, 100u, 4096u, 8192u, 9000u, 65535u}) {
      SimFileSystem::Tree tree = tree_;
      tree[path].resize(size);
      ExpectRefused(tree, path, "");
    }
  }
}

TEST_F(WalDamage, ASegmentOfAnotherCoordinatorIsRefused) {
  WalHarness other(2);
  other.Start();
  ASSERT_TRUE(other.Commits(1, 20).ok());
  SimFileSystem::Tree tree = tree_;
  tree[segments_[0]] = other.fs().Contents(segments_[0]);
  ASSERT_NE(tree[segments_[0]], "");
  ExpectRefused(tree, segments_[0], "another coordinator");
}

TEST_F(WalDamage, ANewerFormatIsRefusedByName) {
  SimFileSystem::Tree tree = tree_;
  tree[checkpoint_][8] = 2;
  ExpectRefused(tree, checkpoint_, "newer Troth: format 2");
}

// An older copy was put over a log that had run on; its later segments were left behind.
TEST_F(WalDamage, LeftoverSegmentsThatFitTheChainAreTheLog) {
  ASSERT_TRUE(h_.Open().ok());
  ASSERT_NO_FATAL_FAILURE(Run(100, 5));
  h_.Kill();
  SimFileSystem::Tree mixed = tree_;
  for (const auto& [path, bytes] : h_.fs().Snapshot()) {
    if (SegmentNumber(path) > 0) mixed.emplace(path, bytes);
  }
  ASSERT_GT(mixed.size(), tree_.size());
  h_.fs().Load(mixed);
  ASSERT_TRUE(h_.Open().ok());
  EXPECT_EQ(h_.state().whole(), 40u);
}

TEST_F(WalDamage, LeftoverSegmentsOfAnotherLifeAreRefused) {
  std::vector<SimFileSystem::Tree> lives;
  for (const std::uint64_t commits : {50u, 3u, 15u}) {
    h_.fs().Load(tree_);
    ASSERT_TRUE(h_.Open().ok() && h_.Maintain().ok());
    ASSERT_NO_FATAL_FAILURE(Run(1000 * commits, commits));
    h_.Kill();
    lives.push_back(h_.fs().Snapshot());
  }
  for (std::size_t life = 1; life < lives.size(); ++life) {
    SimFileSystem::Tree mixed = lives[life];
    std::string first;
    for (const auto& [path, bytes] : lives[0]) {
      if (SegmentNumber(path) == 0 || bytes[kBlockBytes] == 0) continue;
      if (mixed.contains(path) && mixed[path][kBlockBytes] != 0) continue;
      if (first.empty()) first = path;
      mixed[path] = bytes;
    }
    ASSERT_NE(first, "");
    ExpectRefused(mixed, first, "does not follow batch");
  }
}

// Two lives after one log make a segment of the same number, whose first batches have the same
// number and follow the same batch. Blocks of one in the file of the other are no batch.
TEST_F(WalDamage, StaleBytesNeverLookLikeABatch) {
  std::vector<SimFileSystem::Tree> lives;
  for (const std::uint64_t commits : {1u, 0u}) {
    h_.fs().Load(tree_);
    ASSERT_TRUE(h_.Open().ok());
    ASSERT_NO_FATAL_FAILURE(Run(100, commits));
    h_.Kill();
    lives.push_back(h_.fs().Snapshot());
  }
  std::string path;
  for (const auto& [name, bytes] : lives[0]) {
    if (SegmentNumber(name) > 0 && bytes[kBlockBytes] != 0) path = name;
  }
  ASSERT_EQ(lives[1].at(path)[kBlockBytes], 0);
  lives[1][path].replace(kBlockBytes, kBlockBytes, lives[0][path], kBlockBytes, kBlockBytes);
  h_.fs().Load(lives[1]);
  ASSERT_TRUE(h_.Open().ok());
  EXPECT_EQ(h_.state().whole(), 35u);
  EXPECT_EQ(h_.wal().warnings().size(), 1u);
}

TEST_F(WalDamage, SupersededAndTemporaryFilesAreCleanedUp) {
  SimFileSystem::Tree tree = tree_;
  tree["/log/segment-0000000001"] = "whatever";
  tree["/log/checkpoint-0000000000"] = "old";
  tree["/log/segment-0000000099.tmp"] = "half";
  tree["/log/checkpoint-0000000099.tmp"] = "half";
  h_.fs().Load(tree);
  ASSERT_TRUE(h_.Open().ok());
  EXPECT_EQ(h_.wal().warnings().size(), 2u);
  for (const auto& [path, bytes] : h_.fs().Snapshot()) {
    EXPECT_NE(bytes, "whatever") << path;
    EXPECT_NE(bytes, "half") << path;
    EXPECT_EQ(path.find(".tmp"), path.npos) << path;
  }
  EXPECT_EQ(h_.state().whole(), 35u);
}

// ---- Want of space.

// Found in review: the bytes of a batch that was being written counted as free.
TEST(WalTest, OnAFullDiskNothingIsPromisedTwice) {
  WalHarness h;
  h.options().segment_bytes = 1u << 20;
  h.options().segments_ahead = 1;
  h.Start();
  h.fs().SetCapacity(h.fs().used_bytes() + (4u << 20));
  std::uint64_t next = 1;
  const auto fill = [&] {
    while (h.Append(TestCommit(next, 100))) ++next;
  };
  // One segment is full and compacted, the next begun, and none can be made behind it.
  while (h.wal().stats().closed_segments == 0) {
    ASSERT_TRUE(h.Append(TestCommit(next++, 100)) && h.FlushAll().ok());
  }
  h.fs().SetCapacity(h.fs().used_bytes());
  ASSERT_TRUE(h.Maintain().ok());
  fill();
  ASSERT_TRUE(h.Flush(/*mark=*/false, fill).ok());
  ASSERT_TRUE(h.FlushAll().ok());
  h.Kill();
  ASSERT_TRUE(h.Open().ok());
  EXPECT_EQ(h.state().whole(), next - 1);
}

TEST(WalTest, AFullDiskStopsAppendsAndNothingElse) {
  WalHarness h;
  h.options().retention.record_ms = 0;
  h.options().retention.lease_ms = 0;
  h.Start();
  ASSERT_TRUE(h.Commits(1, 30, false).ok());
  h.fs().SetCapacity(h.fs().used_bytes());
  // Whole records pile up, so compaction frees little: at some point there is no room.
  std::uint64_t next = 100;
  while (h.Commits(next, 1, false).ok()) ASSERT_LT(++next, 100'000u);
  EXPECT_TRUE(h.wal().stats().disk_full);
  const std::size_t held = h.state().whole();
  // Restarting on the full disk works, again and again.
  for (int i = 0; i < 5; ++i) {
    h.Kill();
    ASSERT_TRUE(h.Open().ok()) << i;
    EXPECT_EQ(h.state().whole(), held);
    ASSERT_TRUE(h.Maintain().ok());
  }
  // Room appears; service resumes without being told.
  h.fs().SetCapacity(~std::uint64_t{0});
  h.clock().AdvanceMs(h.options().retry_ms);
  ASSERT_TRUE(h.Maintain().ok());
  EXPECT_FALSE(h.wal().stats().disk_full);
  EXPECT_TRUE(h.Commits(next + 1, 50).ok());
}

// Found in review: the line of now was given the time of what the compaction read, and commits in
// the open segment lay below it.
TEST(WalTest, ACompactionsLineIsOfWhatItReads) {
  WalHarness h;
  h.options().segment_bytes = 32u << 10;
  h.options().retention = Retention{0, 0, 0, 1u << 20};
  h.Start();
  std::uint64_t next = 1;
  for (; next <= 12; ++next) {  // into the next segment
    ASSERT_TRUE(h.Append(TestCommit(next)));
    ASSERT_TRUE(h.Flush().ok());
  }
  h.wal().SetLeaseLine(TestCommit(next).id);
  ASSERT_TRUE(h.Maintain().ok());
  EXPECT_EQ(h.wal().stats().compactions, 1u);
  h.Kill();
  const Status opened = h.Open();
  EXPECT_TRUE(opened.ok()) << opened.ToString();
}

TEST(WalTest, OnAFullDiskSpaceIsHandedOn) {
  WalHarness h;
  h.options().retention = Retention{0, 0, 86'400'000, 1u << 20};
  h.Start();
  ASSERT_TRUE(h.Commits(1, 300).ok());
  h.fs().SetCapacity(h.fs().used_bytes());
  ASSERT_TRUE(h.Commits(1000, 3000).ok()) << "what ended makes room for what comes";
}

// ---- Failed writes and syncs, kills, power losses.

TEST(WalTest, L15_AFailedSyncIsDeathAndWhatWasDurableStays) {
  for (int lost = 0; lost < 2; ++lost) {
    WalHarness h;
    h.Start();
    ASSERT_TRUE(h.Commits(1, 5).ok());
    ASSERT_TRUE(h.Append(TestCommit(6)));
    h.fs().FailAt(2, Code::kIo);  // the write, then the sync
    const Status status = h.Flush();
    EXPECT_EQ(status.code(), Code::kIo);
    EXPECT_TRUE(status.maybe_done());
    if (lost)
      h.LosePower();
    else
      h.Kill();
    ASSERT_TRUE(h.Open().ok());
    EXPECT_GE(h.PrefixHeld(), static_cast<int>(h.durable()));
    // Read from memory only, then lost: opening rewrote it, so it stays what it said (L15).
    const std::string told = TextOf(h.state());
    h.LosePower({SimFileSystem::PowerLoss::Sectors::kNone, false, false});
    ASSERT_TRUE(h.Open().ok());
    EXPECT_EQ(TextOf(h.state()), told);
  }
}

// A load that passes every kind of step: flushes, rotations, compactions, marks.
Status Load(WalHarness* h, std::uint64_t first) {
  for (std::uint64_t i = first; i < first + 30; ++i) {
    if (!h->Append(TestCommit(i, 1 + static_cast<int>(i % 60)))) {
      return Status(Code::kNoSpace, "no room");
    }
    if (i % 3 == 0 && !h->Append(EndRecord{TestId(i)})) return Status(Code::kNoSpace, "no room");
    if (i % 2 == 0) TROTH_RETURN_IF_ERROR(h->Flush());
    if (i % 7 == 0) TROTH_RETURN_IF_ERROR(h->Flush(true));
    TROTH_RETURN_IF_ERROR(h->Maintain());
  }
  return h->FlushAll();
}

// The process dies at its n-th step, for every n; its first successor at the m-th step of its
// opening; the second comes up. In between the power may go. All that was told durable is
// there, and nothing that was not handed over.
void CrashEverywhere(bool power, bool reorder) {
  int crashes = 0, second_crashes = 0;
  for (std::uint64_t n = 1;; ++n) {
    WalHarness h(n);
    h.options().segment_bytes = 32u << 10;
    h.Start();
    std::mt19937_64 random(n);
    const auto down = [&] {
      SimFileSystem::PowerLoss how;
      how.keep = static_cast<SimFileSystem::PowerLoss::Sectors>(random() % 3);
      how.reorder_names = reorder;
      if (power && random() % 2 == 0)
        h.LosePower(how);
      else
        h.Kill();
    };
    h.fs().CrashAt(n);
    const Status status = Load(&h, 1);
    if (status.ok()) break;
    ASSERT_TRUE(h.fs().crashed()) << status.ToString();
    ++crashes;
    down();
    for (std::uint64_t m = 1;; ++m) {
      const SimFileSystem::Tree tree = h.fs().Snapshot();
      h.fs().CrashAt(m);
      const Status opened = h.Open();
      if (opened.ok()) break;
      ASSERT_TRUE(h.fs().crashed()) << "n=" << n << " m=" << m << " " << opened.ToString();
      ++second_crashes;
      down();
      ASSERT_TRUE(h.Open().ok()) << "n=" << n << " m=" << m;
      ASSERT_GE(h.PrefixHeld(), 0) << "n=" << n << " m=" << m << "\n" << TextOf(h.state());
      h.Kill();
      h.fs().Load(tree);
    }
    const int held = h.PrefixHeld();
    ASSERT_GE(held, 0) << "n=" << n << "\n" << TextOf(h.state());
    // The new process goes on, after one more power loss at that.
    if (power)
      h.LosePower({SimFileSystem::PowerLoss::Sectors::kNone, false, false});
    else
      h.Kill();
    ASSERT_TRUE(h.Open().ok());
    ASSERT_EQ(h.PrefixHeld(), held);
    h.Truncate(static_cast<std::size_t>(held));
    ASSERT_TRUE(h.Commits(1000, 3).ok());
  }
  EXPECT_GT(crashes, 60);
  EXPECT_GT(second_crashes, 1000);
  std::printf("crashes=%d second_crashes=%d\n", crashes, second_crashes);
}

TEST(WalCrash, KilledAtEachStep) { CrashEverywhere(false, false); }
TEST(WalCrash, L15_PowerLostAtEachStep) { CrashEverywhere(true, false); }
TEST(WalCrash, PowerLostAtEachStepNamesInAnyOrder) { CrashEverywhere(true, true); }

// Found in review: where crashes had used up what a segment can be made of, no opening found any.
TEST(WalCrash, OnAFullDiskOpeningsCrashedUntilNothingIsSpare) {
  WalHarness h;
  h.options().segment_bytes = 32u << 10;
  h.Start();
  ASSERT_TRUE(h.Commits(1, 30).ok());
  h.fs().SetCapacity(h.fs().used_bytes());
  h.Kill();
  const auto crashes = [&h](std::uint64_t at) {
    h.fs().CrashAt(at);
    const Status opened = h.Open();
    EXPECT_TRUE(opened.ok() || h.fs().crashed()) << opened.ToString();
    return !opened.ok();
  };
  const auto nothing_spare = [](const SimFileSystem::Tree& tree) {
    return std::none_of(tree.begin(), tree.end(), [](const auto& file) {
      const bool spare =
          file.first.find("spare") != std::string::npos || file.first.ends_with(".tmp");
      return spare && file.first.find("segment") != std::string::npos;
    });
  };
  // The states that crashes of openings lead to, and those of them with nothing spare.
  std::vector<SimFileSystem::Tree> states = {h.fs().Snapshot()}, bare;
  for (int depth = 0; depth < 2; ++depth) {
    std::vector<SimFileSystem::Tree> next;
    for (const SimFileSystem::Tree& from : states) {
      h.fs().Load(from);
      for (std::uint64_t n = 1; crashes(n); ++n) {
        h.Kill();
        SimFileSystem::Tree tree = h.fs().Snapshot();
        h.fs().Load(from);
        const auto same_names = [&](const SimFileSystem::Tree& other) {
          return std::equal(tree.begin(), tree.end(), other.begin(), other.end(),
                            [](const auto& a, const auto& b) { return a.first == b.first; });
        };
        const auto is_new = [&](const std::vector<SimFileSystem::Tree>& trees) {
          return std::none_of(trees.begin(), trees.end(), same_names);
        };
        if (nothing_spare(tree) && is_new(bare)) bare.push_back(tree);
        if (is_new(next)) next.push_back(std::move(tree));
      }
      h.Kill();
    }
    states = std::move(next);
  }
  ASSERT_FALSE(bare.empty());
  int openings = 0;
  for (const SimFileSystem::Tree& tree : bare) {
    for (std::uint64_t n = 1;; ++n) {
      bool crashed = false;
      for (int i = 0; i < 5; ++i) {
        h.fs().Load(tree);
        crashed = crashes(n);
        if (i == 0) {
          h.Kill();
        } else {
          h.LosePower({SimFileSystem::PowerLoss::Sectors::kRandom, true, true});
        }
        const Status opened = h.Open();
        ASSERT_TRUE(opened.ok()) << "n=" << n << " i=" << i << " " << opened.ToString();
        EXPECT_GE(h.PrefixHeld(), 0);
        h.Kill();
        ++openings;
      }
      if (!crashed) break;
    }
  }
  std::printf("states=%zu openings=%d\n", bare.size(), openings);
}

TEST(WalCrash, L15_ErrorsAtEachStep) {
  int errors = 0;
  for (const Code code : {Code::kIo, Code::kNoSpace}) {
    for (std::uint64_t n = 1;; ++n) {
      WalHarness h(n);
      h.options().segment_bytes = 32u << 10;
      h.Start();
      h.fs().FailAt(n, code);
      const std::uint64_t before = h.fs().operations();
      const Status status = Load(&h, 1);
      if (h.fs().operations() < before + n) break;
      ++errors;
      if (status.ok() || status.code() == Code::kNoSpace) {  // want of space is got over
        ASSERT_EQ(code, Code::kNoSpace) << n;
        h.clock().AdvanceMs(h.options().retry_ms);
        ASSERT_TRUE(h.Maintain().ok()) << n;
        ASSERT_TRUE(h.Commits(1000, 100).ok()) << n;
        continue;
      }
      // Found by tests/crash/syscalls: a compaction that could not finish publishing was tried
      // again, and took what it had itself superseded for damage.
      ASSERT_EQ(status.code(), Code::kIo) << n << " " << status.ToString();
      h.Kill();
      ASSERT_TRUE(h.Open().ok()) << n;
      ASSERT_GE(h.PrefixHeld(), 0) << n << " " << CodeName(code);
    }
  }
  EXPECT_GT(errors, 120);
}

TEST(WalCrash, InitEachStep) {
  for (std::uint64_t n = 1;; ++n) {
    WalHarness h(n);
    h.fs().CrashAt(n);
    if (h.Init().ok()) break;
    h.LosePower({SimFileSystem::PowerLoss::Sectors::kRandom, true, true});
    // Either it is a log, or init can be run again.
    const Status opened = h.Open();
    if (opened.ok()) continue;
    h.Kill();
    const Status again = h.Init();
    ASSERT_TRUE(again.ok()) << n << " " << again.ToString() << " after " << opened.ToString();
    ASSERT_TRUE(h.Open().ok());
  }
}

}  // namespace
}  // namespace troth
