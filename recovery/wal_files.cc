// See wal_files.h.
#include "recovery/wal_files.h"

#include <algorithm>
#include <random>

#include "common/failpoint.h"

namespace troth {
namespace {

constexpr std::size_t kZeroPiece = 256u << 10;
constexpr std::uint64_t kSyncEvery = 1u << 20;  // no sync has to carry more than this

std::uint64_t SystemRandom() {
  static thread_local std::random_device device;
  return std::uint64_t{device()} << 32 | device();
}

// Writes the batches of one checkpoint.
class CheckpointWriter {
 public:
  CheckpointWriter(File* file, const WalFiles::Between& between, std::int64_t running_ms)
      : file_(file), between_(between), running_ms_(running_ms) {}

  Status Run(const FileHeader& header, const RecoveredState& state) {
    const std::string block = EncodeFileHeader(header);
    seed_ = SeedOf(block);
    TROTH_RETURN_IF_ERROR(file_->Write(0, block));
    batch_.assign(kBatchHeaderBytes, '\0');
    state.ForEachCheckpointRecord([this](const LogRecord& record) {
      if (status_.ok()) status_ = Add(record);
    });
    TROTH_RETURN_IF_ERROR(status_);
    if (records_ > 0) TROTH_RETURN_IF_ERROR(WriteBatch());
    TROTH_RETURN_IF_ERROR(WriteBatch());  // the empty batch that ends it
    return file_->Sync();
  }

  std::uint64_t used() const { return offset_; }

 private:
  Status Add(const LogRecord& record) {
    const std::size_t before = batch_.size();
    EncodeRecord(record, &batch_);
    if (batch_.size() > kMaxBatchBytes) {
      const std::string late = batch_.substr(before);
      batch_.resize(before);
      TROTH_RETURN_IF_ERROR(WriteBatch());
      batch_ += late;
    }
    ++records_;
    return OkStatus();
  }

  Status WriteBatch() {
    BatchHeader header;
    header.number = ++batches_;
    header.running_ms = running_ms_;
    header.records = records_;
    header.previous = previous_;
    SealBatch(seed_, &header, &batch_);
    TROTH_RETURN_IF_ERROR(file_->Write(offset_, batch_));
    previous_ = header.checksum;
    offset_ += batch_.size();
    unsynced_ += batch_.size();
    records_ = 0;
    batch_.assign(kBatchHeaderBytes, '\0');
    if (unsynced_ < kSyncEvery) return OkStatus();
    unsynced_ = 0;
    TROTH_RETURN_IF_ERROR(file_->Sync());
    return between_ ? between_() : OkStatus();
  }

  File* const file_;
  const WalFiles::Between& between_;
  const std::int64_t running_ms_;
  std::uint32_t seed_ = 0;
  std::string batch_;
  std::uint32_t records_ = 0;
  std::uint64_t batches_ = 0;
  std::uint32_t previous_ = 0;
  std::uint64_t offset_ = kBlockBytes;
  std::uint64_t unsynced_ = 0;
  Status status_;
};

}  // namespace

WalFiles::WalFiles(FileSystem* fs, std::string directory, std::function<std::uint64_t()> random)
    : fs_(fs),
      directory_(std::move(directory)),
      random_(random ? std::move(random) : SystemRandom) {}

std::string WalFiles::TemporaryName(WalFileKind kind, std::uint64_t number) {
  return WalFileName(kind, number) + std::string(kTemporarySuffix);
}

Result<std::unique_ptr<File>> WalFiles::Take(const std::string& name, const std::string& source) {
  if (source.empty()) {
    const Status old = fs_->Remove(Path(name));  // of an attempt that found no space
    if (!old.ok() && old.code() != Code::kNotFound) return old;
    return fs_->Create(Path(name));
  }
  if (source != name) TROTH_RETURN_IF_ERROR(fs_->Rename(Path(source), Path(name)));
  return fs_->OpenForWrite(Path(name));
}

Result<SegmentFile> WalFiles::MakeSegment(const std::string& coordinator_id, std::uint64_t number,
                                          std::uint64_t bytes, const std::string& source) {
  FileHeader header;
  header.kind = WalFileKind::kSegment;
  header.coordinator_id = coordinator_id;
  header.number = number;
  header.file_bytes = bytes;
  header.salt = random_();
  const std::string name = TemporaryName(WalFileKind::kSegment, number);
  const bool reuse = !source.empty() && SizeOf(source) == bytes;
  Result<std::unique_ptr<File>> file = Take(name, reuse ? source : "");
  if (!file.ok()) return file.status();
  SegmentFile segment;
  segment.number = number;
  segment.file = *std::move(file);
  segment.bytes = bytes;
  const Status status = WriteSegment(header, &segment, !reuse);
  if (status.ok()) return segment;
  segment.file.reset();
  if (status.code() == Code::kNoSpace && !reuse) TROTH_RETURN_IF_ERROR(fs_->Remove(Path(name)));
  return status;
}

Status WalFiles::WriteSegment(const FileHeader& header, SegmentFile* segment, bool fresh) {
  if (TROTH_FAILPOINT("log-segment-no-space")) return Status(Code::kNoSpace, "failpoint");
  if (fresh) TROTH_RETURN_IF_ERROR(segment->file->Allocate(segment->bytes));
  // Zeros are written even where they read as zeros: what is read may only be in memory, and a
  // batch then needs no change of metadata.
  const std::string zeros(kZeroPiece, '\0');
  for (std::uint64_t at = 0; at < segment->bytes; at += zeros.size()) {
    const std::uint64_t size = std::min<std::uint64_t>(zeros.size(), segment->bytes - at);
    TROTH_RETURN_IF_ERROR(segment->file->Write(at, std::string_view(zeros).substr(0, size)));
    if ((at + size) % kSyncEvery == 0) TROTH_RETURN_IF_ERROR(segment->file->Sync());
  }
  const std::string block = EncodeFileHeader(header);
  segment->seed = SeedOf(block);
  TROTH_RETURN_IF_ERROR(segment->file->Write(0, block));
  return segment->file->Sync();
}

Status WalFiles::MakeCheckpoint(const CheckpointHead& head, const RecoveredState& state,
                                const std::string& source, const Between& between,
                                std::uint64_t* used) {
  FileHeader header;
  header.kind = WalFileKind::kCheckpoint;
  header.coordinator_id = head.coordinator_id;
  header.number = head.number;
  header.salt = random_();
  header.last_batch = head.last_batch;
  header.last_checksum = head.last_checksum;
  Result<std::unique_ptr<File>> file =
      Take(TemporaryName(WalFileKind::kCheckpoint, head.number), source);
  if (!file.ok()) return file.status();
  CheckpointWriter writer(file->get(), between, head.running_ms);
  TROTH_RETURN_IF_ERROR(writer.Run(header, state));
  *used = writer.used();
  return OkStatus();
}

Status WalFiles::Publish(WalFileKind kind, std::uint64_t number) {
  TROTH_RETURN_IF_ERROR(Rename(TemporaryName(kind, number), WalFileName(kind, number)));
  return SyncDirectory();
}

Status WalFiles::Reserve(const std::string& name, std::uint64_t bytes) {
  Result<std::unique_ptr<File>> file = fs_->OpenForWrite(Path(name));
  const bool fresh = file.status().code() == Code::kNotFound;
  if (fresh) file = fs_->Create(Path(name));
  if (!file.ok()) return file.status();
  const Status status = (*file)->Allocate(bytes);
  if (!status.ok()) {
    if (fresh && status.code() == Code::kNoSpace) TROTH_RETURN_IF_ERROR(fs_->Remove(Path(name)));
    return status;
  }
  TROTH_RETURN_IF_ERROR((*file)->Sync());
  return fresh ? SyncDirectory() : OkStatus();
}

Status WalFiles::Rename(const std::string& from, const std::string& to) {
  return fs_->Rename(Path(from), Path(to));
}

Status WalFiles::Remove(const std::string& name) { return fs_->Remove(Path(name)); }

Status WalFiles::SyncDirectory() {
  const Status status = fs_->SyncDirectory(directory_);
  // Whatever it failed of, which names are on disk is not known: no want of space to get over.
  if (status.code() == Code::kNoSpace) return Status(Code::kIo, status.message());
  return status;
}

std::uint64_t WalFiles::SizeOf(const std::string& name) {
  const Result<std::uint64_t> size = fs_->Size(Path(name));
  return size.ok() ? *size : 0;
}

}  // namespace troth
