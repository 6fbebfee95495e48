// See wal_format.h.
#include "recovery/wal_format.h"

#include <charconv>
#include <cstdio>
#include <cstring>

#include "common/check.h"
#include "common/codec.h"
#include "common/transaction_id.h"

namespace troth {
namespace {

constexpr std::string_view kSegmentMagic = "TROTHSEG";
constexpr std::string_view kCheckpointMagic = "TROTHCKP";
constexpr std::uint32_t kBatchMagic = 0x42545254;  // "TRTB"

// Offsets in the header block of a file.
constexpr std::size_t kVersionAt = 8;
constexpr std::size_t kHeaderCrcAt = 12;  // of all other bytes of the block
constexpr std::size_t kFieldsAt = 16;

// Offsets in the header of a batch.
constexpr std::size_t kBatchCrcAt = 4;  // of [kNumberAt, kBatchHeaderBytes)
constexpr std::size_t kNumberAt = 8;
constexpr std::size_t kRunningAt = 16;
constexpr std::size_t kRecordBytesAt = 24;
constexpr std::size_t kRecordsAt = 28;
constexpr std::size_t kPreviousAt = 32;
constexpr std::size_t kChecksumAt = 36;

std::string_view MagicOf(WalFileKind kind) {
  return kind == WalFileKind::kSegment ? kSegmentMagic : kCheckpointMagic;
}

std::string_view PrefixOf(WalFileKind kind) {
  return kind == WalFileKind::kSegment ? "segment-" : "checkpoint-";
}

std::uint32_t HeaderBlockCrc(std::string_view block) {
  return Crc32c(block.substr(kFieldsAt), Crc32c(block.substr(0, kHeaderCrcAt)));
}

// `batch` is whole blocks: header, records, padding.
std::uint32_t BatchChecksum(std::uint32_t seed, std::string_view batch) {
  const std::uint32_t head = Crc32c(batch.substr(kNumberAt, kChecksumAt - kNumberAt), seed);
  return Crc32c(batch.substr(kBatchHeaderBytes), head);
}

Status Corrupt(std::string cause) { return Status(Code::kCorrupt, std::move(cause)); }

}  // namespace

std::string WalFileName(WalFileKind kind, std::uint64_t number) {
  char digits[24];
  std::snprintf(digits, sizeof digits, "%010llu", static_cast<unsigned long long>(number));
  return std::string(PrefixOf(kind)) + digits;
}

std::optional<std::uint64_t> ParseWalFileName(WalFileKind kind, std::string_view name) {
  if (!name.starts_with(PrefixOf(kind))) return std::nullopt;
  const std::string_view digits = name.substr(PrefixOf(kind).size());
  std::uint64_t number = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), number);
  if (error != std::errc() || end != digits.data() + digits.size()) return std::nullopt;
  if (WalFileName(kind, number) != name) return std::nullopt;
  return number;
}

std::string EncodeFileHeader(const FileHeader& header) {
  TROTH_CHECK(IsCoordinatorId(header.coordinator_id));
  std::string block(MagicOf(header.kind));
  PutFixed32(kWalVersion, &block);
  PutFixed32(0, &block);
  PutFixed64(header.number, &block);
  PutFixed64(header.file_bytes, &block);
  PutFixed64(header.salt, &block);
  PutFixed64(header.last_batch, &block);
  PutFixed32(header.last_checksum, &block);
  PutBytes(header.coordinator_id, &block);
  TROTH_CHECK(block.size() <= kBlockBytes);
  block.resize(kBlockBytes, '\0');
  StoreFixed32(HeaderBlockCrc(block), block.data() + kHeaderCrcAt);
  return block;
}

Result<FileHeader> DecodeFileHeader(WalFileKind kind, std::string_view block) {
  if (block.size() < kBlockBytes) return Corrupt("the file ends within its header");
  block = block.substr(0, kBlockBytes);
  if (!block.starts_with(MagicOf(kind))) return Corrupt("no header: the magic word is not there");
  const std::uint32_t version = LoadFixed32(block.data() + kVersionAt);
  if (version > kWalVersion) {
    return Corrupt("written by a newer Troth: format " + std::to_string(version) +
                   ", this program reads up to " + std::to_string(kWalVersion));
  }
  if (version == 0 || LoadFixed32(block.data() + kHeaderCrcAt) != HeaderBlockCrc(block)) {
    return Corrupt("the header's checksum is wrong");
  }
  FileHeader header;
  header.kind = kind;
  Decoder in(block.substr(kFieldsAt));
  if (!in.TakeFixed64(&header.number) || !in.TakeFixed64(&header.file_bytes) ||
      !in.TakeFixed64(&header.salt) || !in.TakeFixed64(&header.last_batch) ||
      !in.TakeFixed32(&header.last_checksum) ||
      !in.TakeBytes(&header.coordinator_id, kMaxTransactionIdBytes) ||
      !IsCoordinatorId(header.coordinator_id) || !IsAllZero(in.rest())) {
    return Corrupt("the header is malformed");
  }
  return header;
}

std::uint32_t SeedOf(std::string_view header_block) {
  return Crc32c(header_block.substr(0, kBlockBytes));
}

void SealBatch(std::uint32_t seed, BatchHeader* header, std::string* bytes) {
  TROTH_CHECK(bytes->size() >= kBatchHeaderBytes && bytes->size() <= kMaxBatchBytes);
  header->record_bytes = static_cast<std::uint32_t>(bytes->size() - kBatchHeaderBytes);
  bytes->resize(RoundUpToBlock(bytes->size()), '\0');
  char* at = bytes->data();
  StoreFixed32(kBatchMagic, at);
  StoreFixed64(header->number, at + kNumberAt);
  StoreFixed64(static_cast<std::uint64_t>(header->running_ms), at + kRunningAt);
  StoreFixed32(header->record_bytes, at + kRecordBytesAt);
  StoreFixed32(header->records, at + kRecordsAt);
  StoreFixed32(header->previous, at + kPreviousAt);
  header->checksum = BatchChecksum(seed, *bytes);
  StoreFixed32(header->checksum, at + kChecksumAt);
  const std::string_view checked(at + kNumberAt, kBatchHeaderBytes - kNumberAt);
  StoreFixed32(Crc32c(checked, seed), at + kBatchCrcAt);
}

BatchCheck CheckBatchHeader(std::uint32_t seed, std::string_view bytes, BatchHeader* header) {
  if (bytes.size() < kBatchHeaderBytes || LoadFixed32(bytes.data()) != kBatchMagic) {
    return BatchCheck::kNone;
  }
  const std::string_view checked = bytes.substr(kNumberAt, kBatchHeaderBytes - kNumberAt);
  if (LoadFixed32(bytes.data() + kBatchCrcAt) != Crc32c(checked, seed)) return BatchCheck::kNone;
  header->number = LoadFixed64(bytes.data() + kNumberAt);
  header->running_ms = static_cast<std::int64_t>(LoadFixed64(bytes.data() + kRunningAt));
  header->record_bytes = LoadFixed32(bytes.data() + kRecordBytesAt);
  header->records = LoadFixed32(bytes.data() + kRecordsAt);
  header->previous = LoadFixed32(bytes.data() + kPreviousAt);
  header->checksum = LoadFixed32(bytes.data() + kChecksumAt);
  const bool sane = BatchExtent(header->record_bytes) <= kMaxBatchBytes && header->running_ms >= 0;
  return sane ? BatchCheck::kHeaderOnly : BatchCheck::kNone;
}

BatchCheck CheckBatch(std::uint32_t seed, std::string_view bytes, BatchHeader* header) {
  if (CheckBatchHeader(seed, bytes, header) == BatchCheck::kNone) return BatchCheck::kNone;
  const std::uint64_t extent = BatchExtent(header->record_bytes);
  if (extent > bytes.size()) return BatchCheck::kHeaderOnly;
  return BatchChecksum(seed, bytes.substr(0, extent)) == header->checksum ? BatchCheck::kValid
                                                                          : BatchCheck::kHeaderOnly;
}

bool IsAllZero(std::string_view bytes) {
  // Each byte equals the one after it, and the first is zero.
  return bytes.empty() ||
         (bytes[0] == 0 && std::memcmp(bytes.data(), bytes.data() + 1, bytes.size() - 1) == 0);
}

}  // namespace troth
