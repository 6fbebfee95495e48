// The bytes of the log's files: names, the header block of a file, the frame of a batch. Knows
// no policy: what damage means is wal_reader's business. docs/wal_format.md.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "common/status.h"

namespace troth {

inline constexpr std::uint32_t kWalVersion = 1;
inline constexpr std::size_t kBlockBytes = 4096;
inline constexpr std::size_t kBatchHeaderBytes = 40;
inline constexpr std::size_t kMaxBatchBytes = 1u << 20;  // header, records and padding

constexpr std::uint64_t RoundUpToBlock(std::uint64_t bytes) {
  return (bytes + kBlockBytes - 1) / kBlockBytes * kBlockBytes;
}
// Bytes on disk of a batch with that many bytes of records.
constexpr std::uint64_t BatchExtent(std::uint64_t record_bytes) {
  return RoundUpToBlock(kBatchHeaderBytes + record_bytes);
}

// ---- Names.
inline constexpr std::string_view kLockName = "LOCK";
inline constexpr std::string_view kSpareSegmentName = "spare-segment";
inline constexpr std::string_view kSpareCheckpointName = "spare-checkpoint";
inline constexpr std::string_view kTemporarySuffix = ".tmp";
enum class WalFileKind { kSegment, kCheckpoint };
// `segment-<10 digits>`, `checkpoint-<10 digits>`.
std::string WalFileName(WalFileKind kind, std::uint64_t number);
// The number in such a name; nothing when it is none.
std::optional<std::uint64_t> ParseWalFileName(WalFileKind kind, std::string_view name);

// ---- The first block of a segment or checkpoint.
struct FileHeader {
  WalFileKind kind = WalFileKind::kSegment;
  std::string coordinator_id;
  std::uint64_t number = 0;
  std::uint64_t file_bytes = 0;     // of a segment, exactly; 0 for a checkpoint
  std::uint64_t salt = 0;           // random: no other file's batches fit
  std::uint64_t last_batch = 0;     // checkpoint: last batch of the log it replaces,
  std::uint32_t last_checksum = 0;  // and its checksum
  bool operator==(const FileHeader&) const = default;
};

// One block.
std::string EncodeFileHeader(const FileHeader& header);
// kCorrupt with the cause (no offset, no file name) when `block` is no such header.
Result<FileHeader> DecodeFileHeader(WalFileKind kind, std::string_view block);
// What binds the batches of a file to its header.
std::uint32_t SeedOf(std::string_view header_block);

// ---- A batch.
struct BatchHeader {
  std::uint64_t number = 0;
  std::int64_t running_ms = 0;
  std::uint32_t record_bytes = 0;
  std::uint32_t records = 0;
  std::uint32_t previous = 0;  // checksum of the batch before
  std::uint32_t checksum = 0;  // of this one: header (without itself), records, padding
};

// `*bytes` holds kBatchHeaderBytes of anything, then the records. Pads it to whole blocks,
// fills in the header, whose `record_bytes` and `checksum` are set.
void SealBatch(std::uint32_t seed, BatchHeader* header, std::string* bytes);

enum class BatchCheck {
  kValid,
  kHeaderOnly,  // the header is intact, what follows is not (or is cut short)
  kNone,        // no batch header of this file
};
// Looks at the front of `bytes`. `*header` is set unless kNone.
BatchCheck CheckBatch(std::uint32_t seed, std::string_view bytes, BatchHeader* header);
// The header alone: kHeaderOnly when intact, else kNone. `bytes` holds kBatchHeaderBytes.
BatchCheck CheckBatchHeader(std::uint32_t seed, std::string_view bytes, BatchHeader* header);

bool IsAllZero(std::string_view bytes);

}  // namespace troth
