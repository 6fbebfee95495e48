// The worked example of docs/wal_format.md against the code, and the frame of a batch.
#include "recovery/wal_format.h"

#include <gtest/gtest.h>

#include <fstream>
#include <sstream>

#include "common/codec.h"
#include "recovery/log_record.h"

namespace troth {
namespace {

// The bytes shown in the fenced block `name` of the document, at their offsets, zeros between.
std::string FromDocument(const std::string& name) {
  std::ifstream document("docs/wal_format.md");
  std::string line, bytes;
  while (std::getline(document, line) && line != "```" + name) {
  }
  while (std::getline(document, line) && line != "```") {
    const std::size_t offset = std::stoul(line.substr(0, 4), nullptr, 16);
    bytes.resize(std::max(bytes.size(), offset), '\0');
    std::istringstream hex(line.substr(6, line.find("  ", 6) - 6));
    for (std::string byte; hex >> byte;) {
      bytes += static_cast<char>(std::stoi(byte, nullptr, 16));
    }
  }
  return bytes;
}

FileHeader ExampleHeader() {
  FileHeader header;
  header.coordinator_id = "bank-0123456789ab";
  header.number = 3;
  header.file_bytes = 65536;
  header.salt = 0x1122334455667788;
  return header;
}

TEST(WalFormatTest, TheWorkedExampleIsWhatTheCodeWrites) {
  std::string header = FromDocument("wal-header");
  ASSERT_GT(header.size(), 60u);
  header.resize(kBlockBytes, '\0');
  EXPECT_EQ(EncodeFileHeader(ExampleHeader()), header);
  ASSERT_TRUE(DecodeFileHeader(WalFileKind::kSegment, header).ok());
  EXPECT_EQ(*DecodeFileHeader(WalFileKind::kSegment, header), ExampleHeader());

  CommitRecord commit;
  commit.id = {{3, 0x9c8d7e6f}, 17};
  commit.branches.push_back({0, {7301234567890123456u, 16384}, 723, 1, 0x16b3748});
  commit.key = "k1";
  std::string batch(kBatchHeaderBytes, '\0');
  EncodeRecord(commit, &batch);
  EncodeRecord(EndRecord{{{3, 0x9c8d7e6f}, 16}}, &batch);
  BatchHeader batch_header{8, 1500, 0, 2, 0xdeadbeef, 0};
  SealBatch(SeedOf(header), &batch_header, &batch);
  std::string shown = FromDocument("wal-batch");
  EXPECT_EQ(batch.substr(0, shown.size()), shown);
  EXPECT_TRUE(IsAllZero(std::string_view(batch).substr(shown.size())));
  EXPECT_EQ(batch.size(), kBlockBytes);

  BatchHeader read;
  EXPECT_EQ(CheckBatch(SeedOf(header), batch, &read), BatchCheck::kValid);
  EXPECT_EQ(read.number, 8u);
  EXPECT_EQ(read.previous, 0xdeadbeefu);
  EXPECT_EQ(read.record_bytes, 37u);
}

TEST(WalFormatTest, EveryBitOfABatchCounts) {
  std::string batch(kBatchHeaderBytes + 100, 'r');
  BatchHeader header{1, 2, 0, 3, 4, 0};
  SealBatch(99, &header, &batch);
  for (std::size_t bit = 0; bit < batch.size() * 8; ++bit) {
    batch[bit / 8] = static_cast<char>(batch[bit / 8] ^ (1 << bit % 8));
    BatchHeader read;
    EXPECT_NE(CheckBatch(99, batch, &read), BatchCheck::kValid) << bit;
    batch[bit / 8] = static_cast<char>(batch[bit / 8] ^ (1 << bit % 8));
  }
  BatchHeader read;
  EXPECT_EQ(CheckBatch(99, batch, &read), BatchCheck::kValid);
  EXPECT_EQ(CheckBatch(98, batch, &read), BatchCheck::kNone) << "a batch of another file";
  for (std::size_t size = 0; size < batch.size(); ++size) {
    EXPECT_NE(CheckBatch(99, std::string_view(batch).substr(0, size), &read), BatchCheck::kValid);
  }
}

TEST(WalFormatTest, EveryByteOfAHeaderCounts) {
  std::string block = EncodeFileHeader(ExampleHeader());
  for (std::size_t i = 0; i < block.size(); ++i) {
    block[i] = static_cast<char>(block[i] ^ 1);
    EXPECT_FALSE(DecodeFileHeader(WalFileKind::kSegment, block).ok()) << i;
    block[i] = static_cast<char>(block[i] ^ 1);
  }
  EXPECT_FALSE(DecodeFileHeader(WalFileKind::kCheckpoint, block).ok());
  EXPECT_FALSE(DecodeFileHeader(WalFileKind::kSegment, block.substr(0, 4095)).ok());
}

TEST(WalFormatTest, NamesAreExact) {
  EXPECT_EQ(WalFileName(WalFileKind::kSegment, 7), "segment-0000000007");
  EXPECT_EQ(ParseWalFileName(WalFileKind::kSegment, "segment-0000000007"), 7u);
  EXPECT_EQ(ParseWalFileName(WalFileKind::kCheckpoint, "checkpoint-0000000000"), 0u);
  for (const char* name : {"segment-7", "segment-0000000007.tmp", "segment-", "segment-00000000x7",
                           "checkpoint-0000000007", "segment-+000000007"}) {
    EXPECT_FALSE(ParseWalFileName(WalFileKind::kSegment, name).has_value()) << name;
  }
}

}  // namespace
}  // namespace troth
