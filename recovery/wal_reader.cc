// See wal_reader.h.
//
// The rule for the end of the log rests on three facts of the writer: one batch at most is not
// synced; a segment was zeroed and synced before it got its name; a batch goes to the place
// where the one before ended, or to the start of the next segment. So after a crash all that
// can be damaged is the extent of one batch, and nothing valid comes after it.
#include "recovery/wal_reader.h"

#include <algorithm>

#include "common/check.h"

namespace troth {
namespace {

constexpr std::string_view kAdvice =
    ". Is the volume mounted? A new coordinator's log is made once, with troth-coordinator --init";

class LogReading {
 public:
  LogReading(FileSystem* fs, std::string directory, WalVisitor* visitor)
      : fs_(fs), directory_(std::move(directory)), visitor_(visitor) {}

  Result<WalEnd> Run(std::uint64_t through);

 private:
  // A segment in memory.
  struct Segment {
    std::string name;
    std::string bytes;
    std::uint32_t seed = 0;
  };

  Status ReadCheckpoint(std::uint64_t number);
  Status ReadSegments(std::vector<std::uint64_t> numbers, bool may_cut);
  Result<Segment> LoadSegment(std::uint64_t number);
  // Applies batches from the start; returns where they end.
  Result<std::uint64_t> ReplaySegment(const Segment& segment);
  // Something other than zeros at `offset`, after the last batch: torn, or worse?
  Status JudgeDamage(const Segment& segment, std::uint64_t offset,
                     const std::vector<std::uint64_t>& later);
  Status RefuseIfValidBatch(const Segment& segment, std::uint64_t from, std::string_view damaged,
                            std::uint64_t damaged_at);
  Status ApplyBatch(const BatchPlace& place, const BatchHeader& header, std::string_view batch);

  std::string Path(std::string_view name) const { return JoinPath(directory_, name); }
  Status Refuse(std::string_view name, std::uint64_t offset, std::string_view cause) const {
    return Status(Code::kCorrupt,
                  Path(name) + ", offset " + std::to_string(offset) + ": " + std::string(cause));
  }

  FileSystem* const fs_;
  const std::string directory_;
  WalVisitor* const visitor_;
  WalEnd end_;
};

Result<WalEnd> LogReading::Run(std::uint64_t through) {
  Result<WalListing> listing = ListWal(fs_, directory_);
  if (!listing.ok()) return listing.status();
  if (listing->empty()) {
    return Status(Code::kNotFound, directory_ + " holds no log" + std::string(kAdvice));
  }
  if (listing->checkpoints.empty()) {
    return Refuse(WalFileName(WalFileKind::kCheckpoint, 0), 0,
                  "there are segments but no checkpoint: the file is missing");
  }
  TROTH_RETURN_IF_ERROR(ReadCheckpoint(listing->checkpoints.back()));
  std::vector<std::uint64_t> numbers;
  for (const std::uint64_t number : listing->segments) {
    if (number > end_.checkpoint && number <= through) numbers.push_back(number);
  }
  TROTH_RETURN_IF_ERROR(ReadSegments(std::move(numbers), through == kWholeLog));
  return end_;
}

Status LogReading::ReadCheckpoint(std::uint64_t number) {
  const std::string name = WalFileName(WalFileKind::kCheckpoint, number);
  Result<std::unique_ptr<File>> file = fs_->OpenForRead(Path(name));
  if (!file.ok()) return file.status();
  std::string block;
  TROTH_RETURN_IF_ERROR((*file)->Read(0, kBlockBytes, &block));
  Result<FileHeader> header = DecodeFileHeader(WalFileKind::kCheckpoint, block);
  if (!header.ok()) return Refuse(name, 0, header.status().message());
  if (header->number != number) return Refuse(name, 0, "the header names another checkpoint");
  end_.coordinator_id = header->coordinator_id;
  end_.checkpoint = number;
  const std::uint32_t seed = SeedOf(block);

  std::uint64_t offset = kBlockBytes, batches = 0;
  std::uint32_t previous = 0;
  std::string batch;
  for (;;) {
    TROTH_RETURN_IF_ERROR((*file)->Read(offset, kBlockBytes, &batch));
    BatchHeader batch_header;
    if (CheckBatchHeader(seed, batch, &batch_header) == BatchCheck::kNone) {
      return Refuse(name, offset, "damaged: no batch, and the checkpoint has not ended");
    }
    const std::uint64_t extent = BatchExtent(batch_header.record_bytes);
    if (extent > kBlockBytes) {
      TROTH_RETURN_IF_ERROR((*file)->Read(offset, extent, &batch));
    }
    if (CheckBatch(seed, batch, &batch_header) != BatchCheck::kValid) {
      return Refuse(name, offset, "damaged: the checksum of a batch is wrong");
    }
    if (batch_header.number != ++batches || batch_header.previous != previous) {
      return Refuse(name, offset, "a batch does not follow the one before");
    }
    previous = batch_header.checksum;
    TROTH_RETURN_IF_ERROR(ApplyBatch(BatchPlace{name, offset, true}, batch_header, batch));
    offset += extent;
    if (batch_header.records == 0) break;  // an empty batch ends a checkpoint
  }
  end_.checkpoint_bytes = offset;
  end_.last_batch = header->last_batch;
  end_.last_checksum = header->last_checksum;
  return OkStatus();
}

Status LogReading::ReadSegments(std::vector<std::uint64_t> numbers, bool may_cut) {
  std::uint64_t expected = end_.checkpoint + 1;
  for (const std::uint64_t number : numbers) {
    if (number != expected) break;
    ++expected;
  }
  if (numbers.empty() || expected != numbers.back() + 1) {
    return Refuse(WalFileName(WalFileKind::kSegment, expected), 0, "the file is missing");
  }
  end_.last_segment = numbers.back();
  for (std::size_t i = 0; i < numbers.size(); ++i) {
    Result<Segment> segment = LoadSegment(numbers[i]);
    if (!segment.ok()) return segment.status();
    Result<std::uint64_t> offset = ReplaySegment(*segment);
    if (!offset.ok()) return offset.status();
    if (*offset > kBlockBytes) end_.last_used = numbers[i];
    if (IsAllZero(std::string_view(segment->bytes).substr(*offset))) continue;
    const std::vector<std::uint64_t> later(numbers.begin() + static_cast<std::ptrdiff_t>(i) + 1,
                                           numbers.end());
    TROTH_RETURN_IF_ERROR(JudgeDamage(*segment, *offset, later));
    if (!may_cut) {
      return Refuse(segment->name, *offset, "damaged: what was closed must be whole");
    }
    break;  // the later ones are empty
  }
  return OkStatus();
}

Result<LogReading::Segment> LogReading::LoadSegment(std::uint64_t number) {
  Segment segment;
  segment.name = WalFileName(WalFileKind::kSegment, number);
  Result<std::unique_ptr<File>> file = fs_->OpenForRead(Path(segment.name));
  if (!file.ok()) return file.status();
  const Result<std::uint64_t> size = (*file)->Size();
  if (!size.ok()) return size.status();
  TROTH_RETURN_IF_ERROR((*file)->Read(0, *size, &segment.bytes));
  const Result<FileHeader> header = DecodeFileHeader(WalFileKind::kSegment, segment.bytes);
  if (!header.ok()) return Refuse(segment.name, 0, header.status().message());
  if (header->number != number) return Refuse(segment.name, 0, "the header names another segment");
  if (header->coordinator_id != end_.coordinator_id) {
    return Refuse(segment.name, 0,
                  "of another coordinator, " + header->coordinator_id + "; the checkpoint is of " +
                      end_.coordinator_id);
  }
  if (header->file_bytes != segment.bytes.size()) {
    return Refuse(segment.name, std::min<std::uint64_t>(segment.bytes.size(), header->file_bytes),
                  "the file has " + std::to_string(segment.bytes.size()) + " bytes, not " +
                      std::to_string(header->file_bytes) + ": it was cut or added to");
  }
  segment.seed = SeedOf(segment.bytes);
  return segment;
}

Result<std::uint64_t> LogReading::ReplaySegment(const Segment& segment) {
  const std::string_view bytes = segment.bytes;
  std::uint64_t offset = kBlockBytes;
  while (offset < bytes.size()) {
    BatchHeader header;
    const BatchCheck check = CheckBatch(segment.seed, bytes.substr(offset), &header);
    if (check == BatchCheck::kNone) break;
    if (header.number != end_.last_batch + 1 || header.previous != end_.last_checksum) {
      return Refuse(segment.name, offset,
                    "batch " + std::to_string(header.number) + " does not follow batch " +
                        std::to_string(end_.last_batch) +
                        ": batches or a file are missing, "
                        "or files of two lives were mixed");
    }
    if (check != BatchCheck::kValid) break;
    const std::uint64_t extent = BatchExtent(header.record_bytes);
    TROTH_RETURN_IF_ERROR(
        ApplyBatch(BatchPlace{segment.name, offset, false}, header, bytes.substr(offset, extent)));
    end_.last_batch = header.number;
    end_.last_checksum = header.checksum;
    offset += extent;
  }
  return offset;
}

Status LogReading::RefuseIfValidBatch(const Segment& segment, std::uint64_t from,
                                      std::string_view damaged, std::uint64_t damaged_at) {
  const std::string_view bytes = segment.bytes;
  for (std::uint64_t at = from; at < bytes.size(); at += kBlockBytes) {
    BatchHeader header;
    if (CheckBatch(segment.seed, bytes.substr(at), &header) != BatchCheck::kValid) continue;
    return Refuse(damaged, damaged_at,
                  "batch " + std::to_string(end_.last_batch + 1) + " is damaged, and batch " +
                      std::to_string(header.number) + " (" + segment.name + ", offset " +
                      std::to_string(at) + ") proves that it was durable");
  }
  return OkStatus();
}

Status LogReading::JudgeDamage(const Segment& segment, std::uint64_t offset,
                               const std::vector<std::uint64_t>& later) {
  const std::string_view bytes = segment.bytes;
  TROTH_RETURN_IF_ERROR(RefuseIfValidBatch(segment, offset + kBlockBytes, segment.name, offset));
  for (const std::uint64_t number : later) {
    const Result<Segment> next = LoadSegment(number);
    if (!next.ok()) return next.status();
    TROTH_RETURN_IF_ERROR(RefuseIfValidBatch(*next, kBlockBytes, segment.name, offset));
    if (!IsAllZero(std::string_view(next->bytes).substr(kBlockBytes))) {
      return Refuse(next->name, kBlockBytes,
                    "damaged, and " + segment.name + " too: no torn write leaves that");
    }
  }
  BatchHeader header;
  std::uint64_t extent = kMaxBatchBytes;
  if (CheckBatchHeader(segment.seed, bytes.substr(offset), &header) != BatchCheck::kNone) {
    extent = BatchExtent(header.record_bytes);
  }
  if (offset + extent < bytes.size() && !IsAllZero(bytes.substr(offset + extent))) {
    return Refuse(segment.name, offset + extent,
                  "bytes beyond the last batch: no torn write leaves that");
  }
  end_.cut = Path(segment.name) + ", offset " + std::to_string(offset) + ": batch " +
             std::to_string(end_.last_batch + 1) +
             " is torn, as a crash before its sync leaves it; cut";
  return OkStatus();
}

Status LogReading::ApplyBatch(const BatchPlace& place, const BatchHeader& header,
                              std::string_view batch) {
  if (header.running_ms < 0 || header.running_ms > kMaxTimeMs) {
    return Refuse(place.file, place.offset, "the running time of a batch is impossible");
  }
  visitor_->OnBatch(place, header);
  std::string_view records = batch.substr(kBatchHeaderBytes, header.record_bytes);
  for (std::uint32_t i = 0; i < header.records; ++i) {
    const std::uint64_t at =
        place.offset + kBatchHeaderBytes + header.record_bytes - records.size();
    const Result<LogRecord> record = DecodeRecord(&records);
    if (!record.ok()) return Refuse(place.file, at, record.status().message());
    if (const Status status = visitor_->OnRecord(*record, header.running_ms); !status.ok()) {
      return Refuse(place.file, at, status.message());
    }
  }
  if (!records.empty()) {
    return Refuse(place.file, place.offset, "a batch holds more bytes than records");
  }
  end_.running_ms = std::max(end_.running_ms, header.running_ms);
  end_.records += header.records;
  return OkStatus();
}

bool IsTemporary(std::string_view name) {
  if (!name.ends_with(kTemporarySuffix)) return false;
  name.remove_suffix(kTemporarySuffix.size());
  return ParseWalFileName(WalFileKind::kSegment, name).has_value() ||
         ParseWalFileName(WalFileKind::kCheckpoint, name).has_value();
}

}  // namespace

Result<WalListing> ListWal(FileSystem* fs, const std::string& directory) {
  Result<std::vector<std::string>> names = fs->List(directory);
  if (names.status().code() == Code::kNotFound) {
    return Status(Code::kNotFound, "there is no " + directory + std::string(kAdvice));
  }
  if (!names.ok()) return names.status();
  WalListing listing;
  for (const std::string& name : *names) {
    if (const auto segment = ParseWalFileName(WalFileKind::kSegment, name)) {
      listing.segments.push_back(*segment);
    } else if (const auto checkpoint = ParseWalFileName(WalFileKind::kCheckpoint, name)) {
      listing.checkpoints.push_back(*checkpoint);
    } else if (IsTemporary(name)) {
      listing.temporaries.push_back(name);
    } else if (name == kSpareSegmentName) {
      listing.has_spare_segment = true;
    } else if (name == kSpareCheckpointName) {
      listing.has_spare_checkpoint = true;
    } else if (name != kLockName) {
      listing.foreign.push_back(name);
    }
  }
  std::sort(listing.segments.begin(), listing.segments.end());
  std::sort(listing.checkpoints.begin(), listing.checkpoints.end());
  return listing;
}

Result<WalEnd> ReadWal(FileSystem* fs, const std::string& directory, std::uint64_t through,
                       WalVisitor* visitor) {
  return LogReading(fs, directory, visitor).Run(through);
}

Status CheckWhoseLog(const std::string& directory, const std::string& coordinator_id,
                     const std::string& wanted) {
  const std::string name = coordinator_id.substr(0, coordinator_id.rfind('-'));
  if (wanted.empty() || wanted == coordinator_id || wanted == name) return OkStatus();
  return Status(Code::kRefused, directory + " is the log of coordinator " + coordinator_id +
                                    ", not of " + wanted +
                                    ": is this the right directory, the right volume?");
}

}  // namespace troth
