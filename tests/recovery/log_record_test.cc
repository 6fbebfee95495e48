#include "recovery/log_record.h"

#include <gtest/gtest.h>

#include <random>

#include "tests/recovery/wal_harness.h"

namespace troth {
namespace {

std::vector<LogRecord> EveryType() {
  std::vector<LogRecord> records = OneOfEach();
  records.push_back(OutcomesRecord{kTestEpoch, std::string("\x01\x00raw", 5)});
  records.push_back(TimeMarkRecord{12345, TestId(9)});
  records.push_back(LineRecord{TestId(7)});
  records.push_back(DecidedAtRecord{TestId(3), 99});
  constexpr auto kMax32 = ~std::uint32_t{0};
  constexpr auto kMax64 = ~std::uint64_t{0};
  CommitRecord big = TestCommit(5, 0, std::string(kMaxRecordKeyBytes, 'k'));
  big.id = LocalId{{kMax32, kMax32}, kMax64};
  big.branches.assign(kMaxBranches, BranchRecord{kMax32, {kMax64, kMax32}, kMax64, kMax32, kMax64});
  records.push_back(big);
  records.push_back(
      HeuristicRecord{big.id, kMax32, false, std::string(kMaxTextBytes, 'w'), kMaxTimeMs});
  records.push_back(OutcomesRecord{big.id.epoch, std::string(kMaxOutcomesBytes, 'b')});
  records.push_back(CommitRecord());
  return records;
}

TEST(LogRecordTest, EveryRecordComesBackAndKeepsItsBound) {
  for (const LogRecord& record : EveryType()) {
    std::string bytes;
    EncodeRecord(record, &bytes);
    EXPECT_LE(bytes.size(), EncodedSizeBound(record)) << DebugString(record).substr(0, 80);
    EXPECT_LE(bytes.size(), kMaxRecordBytes);
    const std::size_t size = bytes.size();
    bytes += "next";
    std::string_view in = bytes;
    const Result<LogRecord> back = DecodeRecord(&in);
    ASSERT_TRUE(back.ok()) << back.status().ToString();
    EXPECT_EQ(*back, record);
    EXPECT_EQ(in, "next");
    std::string again;
    EncodeRecord(*back, &again);
    EXPECT_EQ(again, bytes.substr(0, size)) << "a value has one encoding";
  }
}

template <typename... T>
bool NoneIsDefault(const T&... field) {
  return (!(field == T()) && ...);
}

// Records whose every field differs from its default. A field that is added to a record breaks
// the list of its names here; one that is not written does not come back below.
std::vector<LogRecord> EveryField() {
  const LocalId id{{9, 0x77}, 5};
  const DatabaseId database{7301234567890123456u, 16384};
  const BranchRecord branch{3, database, 723, 2, 0x16b3748};
  const CommitRecord commit{id, {branch, branch}, "order-17"};
  const ParticipantRecord participant{4,        "bank-a",
                                      database, "10.0.0.1:5432",
                                      "CN",     "10.0.0.2",
                                      7002,     true,
                                      true,     SeenPosition{{8, 0x66}, 12345}};
  const HeuristicRecord heuristic{id, 4, true, "found", 1'700'000'000'000};
  const KeyRecord key{"order-18", true, id, 77};
  {
    const auto& [participant, database, xid, timeline, position] = branch;
    EXPECT_TRUE(NoneIsDefault(participant, database, xid, timeline, position));
  }
  {
    const auto& [id, branches, key] = commit;
    EXPECT_TRUE(NoneIsDefault(id, branches, key));
  }
  {
    const auto& [index, name, database, address, certificate, host, port, forgotten, open,
                 discarded] = participant;
    EXPECT_TRUE(NoneIsDefault(index, name, database, address, certificate, host, port, forgotten,
                              open, discarded));
  }
  {
    const auto& [id, participant, hazard, what, at] = heuristic;
    EXPECT_TRUE(NoneIsDefault(id, participant, hazard, what, at));
  }
  {
    const auto& [text, closed, id, at] = key;
    EXPECT_TRUE(NoneIsDefault(text, closed, id, at));
  }
  return {commit,
          EndRecord{id},
          EpochRecord{id.epoch, 17},
          ReserveRecord{id.epoch, 18},
          participant,
          heuristic,
          key,
          GapRecord{5, 7, "restored on Monday"},
          OutcomesRecord{id.epoch, "bits"},
          TimeMarkRecord{12345, id},
          LineRecord{id},
          DecidedAtRecord{id, 99}};
}

TEST(LogRecordTest, EveryFieldComesBack) {
  const std::vector<LogRecord> records = EveryField();
  ASSERT_EQ(records.size(), std::variant_size_v<LogRecord>);
  for (std::size_t i = 0; i < records.size(); ++i) {
    ASSERT_EQ(records[i].index(), i);
    std::string bytes;
    EncodeRecord(records[i], &bytes);
    std::string_view in = bytes;
    const Result<LogRecord> back = DecodeRecord(&in);
    ASSERT_TRUE(back.ok()) << back.status().ToString();
    EXPECT_EQ(*back, records[i]) << DebugString(records[i]);
  }
}

TEST(LogRecordTest, EveryTruncationIsCorruptAndTakesNothing) {
  for (const LogRecord& record : EveryType()) {
    std::string bytes;
    EncodeRecord(record, &bytes);
    const std::size_t step = bytes.size() > 4096 ? 97 : 1;
    for (std::size_t size = 0; size < bytes.size(); size += step) {
      const std::string cut = bytes.substr(0, size);  // its own memory: sanitizers see overreads
      std::string_view in = cut;
      EXPECT_EQ(DecodeRecord(&in).status().code(), Code::kCorrupt) << size;
      EXPECT_EQ(in.size(), size);
    }
  }
}

TEST(LogRecordTest, GarbageIsARecordOrCorruptAndNeverMore) {
  std::mt19937_64 random(7);
  int records = 0;
  for (int i = 0; i < 200'000; ++i) {
    std::string bytes(random() % 64, '\0');
    for (char& c : bytes) c = static_cast<char>(random());
    if (!bytes.empty()) bytes[0] = static_cast<char>(random() % 14);
    std::string_view in = bytes;
    const Result<LogRecord> record = DecodeRecord(&in);
    if (!record.ok()) continue;
    ++records;
    std::string again;
    EncodeRecord(*record, &again);
    EXPECT_EQ(again, bytes.substr(0, bytes.size() - in.size()));
  }
  EXPECT_GT(records, 1000);
}

TEST(LogRecordTest, TextForPeople) {
  CommitRecord commit;
  commit.id = LocalId{{3, 0x9c8d7e6f}, 17};
  commit.branches.push_back(BranchRecord{0, {1, 2}, 723, 1, 0x16b3748});
  EXPECT_EQ(DebugString(commit), "commit 3-9c8d7e6f.17 [0 xid=723 tli=1 lsn=0/16B3748]");
  commit.key = "a'b\n";
  EXPECT_EQ(DebugString(commit),
            "commit 3-9c8d7e6f.17 [0 xid=723 tli=1 lsn=0/16B3748] key='a\\x27b\\x0a'");
  EXPECT_EQ(DebugString(EndRecord{commit.id}), "end 3-9c8d7e6f.17");
  EXPECT_EQ(DebugString(ReserveRecord{{3, 1}, 10}), "reserve 3-00000001 end=10");
}

}  // namespace
}  // namespace troth
