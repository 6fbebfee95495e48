// See wal.h. The log's life after opening: append, flush, and the chores beside it.
#include "recovery/wal.h"

#include <algorithm>
#include <deque>
#include <utility>

#include "common/check.h"
#include "common/failpoint.h"
#include "common/mark.h"
#include "common/thread_annotations.h"
#include "recovery/wal_files.h"
#include "recovery/wal_format.h"
#include "recovery/wal_opening.h"
#include "recovery/wal_reader.h"

namespace troth {
namespace {

// What a checkpoint may need beyond the records themselves: blocks begun, time marks, a line.
constexpr std::uint64_t kCheckpointSlack = 64u << 10;
constexpr std::uint64_t kFramingPercent = 1;  // padding of its batches

// Bytes by which a record in the log can lengthen the next checkpoint.
std::uint64_t GrowthOf(const LogRecord& record, std::uint64_t bytes) {
  constexpr std::uint64_t kDecidedAt = 32, kKeyFields = 40;
  const auto* commit = std::get_if<CommitRecord>(&record);
  if (commit == nullptr) return bytes;
  return bytes + kDecidedAt + (commit->key.empty() ? 0 : commit->key.size() + kKeyFields);
}

std::uint64_t WithFraming(std::uint64_t record_bytes) {
  return record_bytes + record_bytes * kFramingPercent / 100 + kCheckpointSlack;
}

// Compaction starts when that much is closed: rewriting a checkpoint then costs no more than
// writing the log did.
std::uint64_t CompactionBytes(std::uint64_t segment_bytes, std::uint64_t checkpoint_bytes) {
  return std::max(segment_bytes, checkpoint_bytes);
}

// Length of the reserve: room for the checkpoint of all that may be logged until a compaction
// that has just become due is done.
std::uint64_t ReserveBytes(std::uint64_t segment_bytes, std::uint64_t checkpoint_bytes) {
  const std::uint64_t log = CompactionBytes(segment_bytes, checkpoint_bytes) + 2 * segment_bytes;
  const std::uint64_t bytes = WithFraming(checkpoint_bytes + log + log / 4);
  const std::uint64_t step = RoundUpToBlock(segment_bytes / 4);  // not a little more each time
  return (bytes + step - 1) / step * step;
}

std::size_t MaxRecordBytes(std::uint64_t segment_bytes) {
  return std::min<std::uint64_t>(kMaxRecordBytes, segment_bytes / 4);
}

std::uint64_t MaxBatchBytes(std::uint64_t segment_bytes) {
  return std::min<std::uint64_t>(kMaxBatchBytes, segment_bytes / 2);
}

Status CheckOptions(const WalOptions& options) {
  if (options.segment_bytes % kBlockBytes != 0 || options.segment_bytes < kMinSegmentBytes ||
      options.segments_ahead < 1) {
    return Status(Code::kInvalid, "a segment is a multiple of 4096 bytes, at least " +
                                      std::to_string(kMinSegmentBytes) +
                                      ", and at least one is kept ahead");
  }
  return OkStatus();
}

class CompactionVisitor final : public WalVisitor {
 public:
  CompactionVisitor(RecoveredState* state, WalFiles::Between between)
      : state_(state), between_(std::move(between)) {}
  void OnBatch(const BatchPlace&, const BatchHeader&) override {
    if (status_.ok()) status_ = between_();
  }
  Status OnRecord(const LogRecord& record, std::int64_t running_ms) override {
    TROTH_RETURN_IF_ERROR(status_);
    return state_->Apply(record, running_ms);
  }
  const Status& status() const { return status_; }  // the last batch may be a mark

 private:
  RecoveredState* const state_;
  const WalFiles::Between between_;
  Status status_;
};

enum class Chore { kNone, kSegment, kSpareSegment, kReserve, kTidy, kCompaction };

}  // namespace

struct Wal::Rep {
  // A segment that is full, until a checkpoint replaces it.
  struct Closed {
    std::uint64_t number = 0;
    std::uint64_t last_batch = 0;
    std::uint64_t growth = 0;
    LocalId lease_line;  // then: commits that are durable since may lie below the present one
  };

  Rep(Clock* clock_in, FileSystem* fs_in, std::string directory_in, const WalOptions& options_in,
      OpenedLog opened);

  void Rotate() TROTH_REQUIRES(mu);
  std::uint64_t SegmentRoom() const TROTH_REQUIRES(mu);
  std::uint64_t ReserveRoom() const TROTH_REQUIRES(mu);
  bool MarkDue() const TROTH_REQUIRES(mu);
  bool WantsSegment() const TROTH_REQUIRES(mu);
  bool WantsReserve() const TROTH_REQUIRES(mu);
  Chore NextChore() const TROTH_REQUIRES(mu);
  std::int64_t RunningMs() const { return opened_running_ms + clock->NowMs() - opened_ms; }

  // Maintenance; its thread only.
  Status Do(Chore chore) TROTH_EXCLUDES(mu);
  Status MakeSegmentAhead() TROTH_EXCLUDES(mu);
  Status MakeSpareSegment() TROTH_EXCLUDES(mu);
  Status GrowReserve() TROTH_EXCLUDES(mu);
  Status Tidy() TROTH_EXCLUDES(mu);
  Status Compact() TROTH_EXCLUDES(mu);
  Status PublishCheckpoint(std::uint64_t number, std::uint64_t used) TROTH_EXCLUDES(mu);
  Status Urgent() TROTH_EXCLUDES(mu);  // between two syncs of a compaction
  Status OrDiskFull(Status status) TROTH_EXCLUDES(mu);

  Clock* const clock;
  FileSystem* const fs;
  const std::string directory;
  const WalOptions options;
  const std::string coordinator_id;
  const std::vector<std::string> warnings;
  const std::int64_t opened_running_ms;
  const std::int64_t opened_ms;
  const std::unique_ptr<FileLock> lock;
  const std::unique_ptr<WalFiles> files;  // maintenance only

  mutable Mutex mu;
  // What waits: kBatchHeaderBytes of hole, then encoded records.
  std::string pending TROTH_GUARDED_BY(mu) = std::string(kBatchHeaderBytes, '\0');
  std::deque<std::uint32_t> pending_sizes TROTH_GUARDED_BY(mu);
  std::string buffer TROTH_GUARDED_BY(mu);  // of an ended job, for the next
  std::uint64_t appended TROTH_GUARDED_BY(mu) = 0;
  std::uint64_t taken TROTH_GUARDED_BY(mu) = 0;  // appended, and in a batch

  SegmentFile current TROTH_GUARDED_BY(mu);
  std::uint64_t position TROTH_GUARDED_BY(mu) = kBlockBytes;  // where the next batch goes
  std::deque<SegmentFile> ahead TROTH_GUARDED_BY(mu);
  std::deque<Closed> closed TROTH_GUARDED_BY(mu);
  std::vector<std::string> superseded TROTH_GUARDED_BY(mu);  // segments, to reuse or remove

  bool flushing TROTH_GUARDED_BY(mu) = false;
  BatchHeader in_flight TROTH_GUARDED_BY(mu);  // while flushing
  std::uint64_t in_flight_bytes TROTH_GUARDED_BY(mu) = 0;
  std::uint32_t last_checksum TROTH_GUARDED_BY(mu) = 0;
  Durable durable TROTH_GUARDED_BY(mu);
  std::int64_t last_flush_ms TROTH_GUARDED_BY(mu) = 0;
  bool last_was_mark TROTH_GUARDED_BY(mu) = true;

  LocalId lease_line TROTH_GUARDED_BY(mu);
  std::uint64_t checkpoint TROTH_GUARDED_BY(mu) = 0;
  std::uint64_t checkpoint_bytes TROTH_GUARDED_BY(mu) = 0;
  std::uint64_t growth TROTH_GUARDED_BY(mu) = 0;   // of the segment in use, and what waits
  std::uint64_t reserve TROTH_GUARDED_BY(mu) = 0;  // room for a checkpoint, for sure
  bool has_spare_segment TROTH_GUARDED_BY(mu) = false;
  bool disk_full TROTH_GUARDED_BY(mu) = false;
  std::int64_t retry_at_ms TROTH_GUARDED_BY(mu) = 0;
  std::int64_t compaction_retry_at_ms TROTH_GUARDED_BY(mu) = INT64_MIN;
  Stats counted TROTH_GUARDED_BY(mu);
};

Wal::Rep::Rep(Clock* clock_in, FileSystem* fs_in, std::string directory_in,
              const WalOptions& options_in, OpenedLog opened)
    : clock(clock_in),
      fs(fs_in),
      directory(std::move(directory_in)),
      options(options_in),
      coordinator_id(std::move(opened.coordinator_id)),
      warnings(std::move(opened.warnings)),
      opened_running_ms(opened.running_ms),
      opened_ms(clock_in->NowMs()),
      lock(std::move(opened.lock)),
      files(std::move(opened.files)) {
  const MutexLock guard(&mu);
  current = std::move(opened.segment);
  last_checksum = opened.last_checksum;
  durable.batch = opened.last_batch;
  last_flush_ms = opened_ms;
  checkpoint = opened.checkpoint;
  checkpoint_bytes = opened.checkpoint_bytes;
  has_spare_segment = files->SizeOf(std::string(kSpareSegmentName)) == options.segment_bytes;
  reserve = std::min(files->SizeOf(std::string(kSpareCheckpointName)),
                     files->SizeOf(WalFileName(WalFileKind::kCheckpoint, checkpoint)));
}

// ---- Append and flush.

std::uint64_t Wal::Append(const LogRecord& record) {
  const MutexLock guard(&rep_->mu);
  const std::size_t before = rep_->pending.size();
  EncodeRecord(record, &rep_->pending);
  const std::size_t bytes = rep_->pending.size() - before;
  TROTH_CHECK(bytes <= MaxRecordBytes(rep_->options.segment_bytes));
  rep_->pending_sizes.push_back(static_cast<std::uint32_t>(bytes));
  rep_->growth += GrowthOf(record, bytes);
  rep_->counted.record_bytes += bytes;
  return ++rep_->appended;
}

// Packing wastes at most a record and a block at the end of each segment, and a block at the
// end of each batch.
std::uint64_t Wal::Rep::SegmentRoom() const {
  const std::uint64_t most = MaxRecordBytes(options.segment_bytes);
  const std::uint64_t waste = most + 2 * kBlockBytes;
  const auto usable = [waste](std::uint64_t rest) { return rest > waste ? rest - waste : 0; };
  std::uint64_t room = usable(current.bytes - position - in_flight_bytes);
  for (const SegmentFile& segment : ahead) room += usable(segment.bytes - kBlockBytes);
  const std::uint64_t waiting = pending.size() - kBatchHeaderBytes;
  const std::uint64_t batches = waiting / (MaxBatchBytes(options.segment_bytes) - most) + 1;
  const std::uint64_t used = waiting + batches * (kBlockBytes + kBatchHeaderBytes);
  return room > used ? room - used : 0;
}

// Bytes of records whose checkpoint the reserve can still take. Half of what is left: records
// grow in a checkpoint, by less than that.
std::uint64_t Wal::Rep::ReserveRoom() const {
  std::uint64_t grown = checkpoint_bytes + growth;
  for (const Closed& segment : closed) grown += segment.growth;
  const std::uint64_t needed = WithFraming(grown);
  return reserve > needed ? (reserve - needed) / 2 : 0;
}

std::uint64_t Wal::RoomBytes() const {
  const MutexLock guard(&rep_->mu);
  return std::min(rep_->SegmentRoom(), rep_->ReserveRoom());
}

bool Wal::FlushPending() const {
  const MutexLock guard(&rep_->mu);
  return !rep_->flushing && !rep_->pending_sizes.empty();
}

void Wal::Rep::Rotate() {
  TROTH_CHECK(!ahead.empty());
  // Growth of what still waits is counted with the new segment; a little twice is no harm.
  closed.push_back(Closed{current.number, durable.batch, growth, lease_line});
  growth = pending.size() * 2;
  current = std::move(ahead.front());
  ahead.pop_front();
  position = kBlockBytes;
}

std::optional<FlushJob> Wal::BeginFlush(bool mark) {
  Rep& r = *rep_;
  const MutexLock guard(&r.mu);
  if (r.flushing || (r.pending_sizes.empty() && !mark)) return std::nullopt;
  const std::uint64_t first = r.pending_sizes.empty() ? 0 : r.pending_sizes.front();
  if (r.current.bytes - r.position < BatchExtent(first)) {
    if (mark && r.ahead.empty()) return std::nullopt;  // a mark can wait
    r.Rotate();
  }
  const std::uint64_t limit =
      std::min<std::uint64_t>(MaxBatchBytes(r.options.segment_bytes), r.current.bytes - r.position);
  FlushJob job;
  std::uint64_t bytes = kBatchHeaderBytes;
  std::uint32_t records = 0;
  while (!r.pending_sizes.empty() && bytes + r.pending_sizes.front() <= limit) {
    bytes += r.pending_sizes.front();
    r.pending_sizes.pop_front();
    ++records;
  }
  job.bytes = std::move(r.buffer);
  job.bytes.clear();
  if (r.pending_sizes.empty()) {
    job.bytes.swap(r.pending);
    r.pending.resize(kBatchHeaderBytes);
  } else {
    job.bytes.assign(r.pending, 0, bytes);
    r.pending.erase(kBatchHeaderBytes, bytes - kBatchHeaderBytes);
  }
  r.taken += records;
  job.file = r.current.file.get();
  job.offset = r.position;
  job.batch = r.durable.batch + 1;
  job.records = r.taken;
  r.in_flight = BatchHeader{job.batch, r.RunningMs(), 0, records, r.last_checksum, 0};
  SealBatch(r.current.seed, &r.in_flight, &job.bytes);
  r.in_flight_bytes = job.bytes.size();
  r.flushing = true;
  return job;
}

Status Wal::Flush(FlushJob* job) {
  // A crash here leaves nothing of the batch.
  if (TROTH_FAILPOINT("log-batch-handed-over")) return Status(Code::kIo, "failpoint");
  TROTH_RETURN_IF_ERROR(job->file->Write(job->offset, job->bytes));
  // A crash here leaves all of the batch; a power loss any part: cut, or whole and taken.
  if (TROTH_FAILPOINT("log-batch-written")) return Status(Code::kIo, "failpoint");
  TROTH_RETURN_IF_ERROR(job->file->Sync());
  // A crash here leaves the batch durable, and nobody has heard of it.
  if (TROTH_FAILPOINT("log-batch-durable")) return Status(Code::kIo, "failpoint");
  return OkStatus();
}

Durable Wal::EndFlush(FlushJob job) {
  Rep& r = *rep_;
  const MutexLock guard(&r.mu);
  TROTH_CHECK(r.flushing && job.batch == r.in_flight.number);
  r.flushing = false;
  r.position += std::exchange(r.in_flight_bytes, 0);
  r.last_checksum = r.in_flight.checksum;
  r.durable = Durable{job.records, job.batch};
  r.last_flush_ms = r.clock->NowMs();
  r.last_was_mark = r.in_flight.records == 0;
  ++r.counted.batches;
  r.counted.records += r.in_flight.records;
  if (r.last_was_mark) ++r.counted.marks;
  r.buffer = std::move(job.bytes);
  return r.durable;
}

bool Wal::Rep::MarkDue() const {
  // With what nobody waits for (end records), it becomes durable too; the mark follows.
  return !flushing && !(last_was_mark && pending_sizes.empty()) &&
         (!ahead.empty() || current.bytes - position >= kBlockBytes) &&
         clock->NowMs() - last_flush_ms >= options.idle_mark_ms;
}

bool Wal::MarkDue() const {
  const MutexLock guard(&rep_->mu);
  return rep_->MarkDue();
}

void Wal::SetLeaseLine(const LocalId& line) {
  const MutexLock guard(&rep_->mu);
  rep_->lease_line = std::max(rep_->lease_line, line);
}

// ---- Maintenance.

bool Wal::Rep::WantsSegment() const {
  return ahead.size() < static_cast<std::size_t>(options.segments_ahead);
}

bool Wal::Rep::WantsReserve() const {
  return reserve < ReserveBytes(options.segment_bytes, checkpoint_bytes);
}

// What is urgent first: room to append; then the reserves; then what only saves space.
Chore Wal::Rep::NextChore() const {
  const std::int64_t now = clock->NowMs();
  const bool may_ask_for_space = !disk_full || now >= retry_at_ms;
  if (WantsSegment() && (may_ask_for_space || !superseded.empty())) return Chore::kSegment;
  // A compaction makes room; on a full disk that is worth it at any time.
  const std::uint64_t due = CompactionBytes(options.segment_bytes, checkpoint_bytes);
  if (!closed.empty() && (disk_full || closed.size() * options.segment_bytes >= due) &&
      now >= compaction_retry_at_ms) {
    return Chore::kCompaction;
  }
  if (!has_spare_segment && (may_ask_for_space || !superseded.empty())) {
    return Chore::kSpareSegment;
  }
  if (WantsReserve() && may_ask_for_space) return Chore::kReserve;
  if (superseded.size() > 1) return Chore::kTidy;
  return Chore::kNone;
}

bool Wal::MaintenanceDue() const {
  const MutexLock guard(&rep_->mu);
  return rep_->NextChore() != Chore::kNone;
}

std::int64_t Wal::MsUntilDue() const {
  const MutexLock guard(&rep_->mu);
  if (rep_->NextChore() != Chore::kNone || rep_->MarkDue()) return 0;
  const std::int64_t now = rep_->clock->NowMs();
  std::int64_t ms = rep_->options.idle_mark_ms;
  if (!rep_->last_was_mark || !rep_->pending_sizes.empty())
    ms = rep_->last_flush_ms + rep_->options.idle_mark_ms - now;
  if (rep_->disk_full) ms = std::min(ms, rep_->retry_at_ms - now);
  return std::max<std::int64_t>(ms, 1);
}

Status Wal::Maintain() {
  Chore chore;
  {
    const MutexLock guard(&rep_->mu);
    chore = rep_->NextChore();
  }
  return rep_->OrDiskFull(rep_->Do(chore));
}

Status Wal::Rep::Do(Chore chore) {
  switch (chore) {
    case Chore::kNone: return OkStatus();
    case Chore::kSegment: return MakeSegmentAhead();
    case Chore::kSpareSegment: return MakeSpareSegment();
    case Chore::kReserve: return GrowReserve();
    case Chore::kTidy: return Tidy();
    case Chore::kCompaction: return Compact();
  }
  return OkStatus();
}

// Want of space is no error: it is tried again a little later.
Status Wal::Rep::OrDiskFull(Status status) {
  const MutexLock guard(&mu);
  if (status.code() == Code::kNoSpace) {
    TROTH_MARK("log-disk-full");
    disk_full = true;
    retry_at_ms = clock->NowMs() + options.retry_ms;
    return OkStatus();
  }
  if (status.ok() && !WantsSegment() && !WantsReserve() && has_spare_segment) {
    if (disk_full) TROTH_MARK("log-disk-has-room-again");
    disk_full = false;
  }
  return status;
}

Status Wal::Rep::MakeSegmentAhead() {
  std::uint64_t number;
  std::string source;
  {
    const MutexLock guard(&mu);
    number = current.number + ahead.size() + 1;
    if (!superseded.empty()) {
      source = superseded.back();
      superseded.pop_back();
    }
  }
  Result<SegmentFile> segment =
      files->MakeSegment(coordinator_id, number, options.segment_bytes, source);
  if (!segment.ok()) return segment.status();
  if (TROTH_FAILPOINT("log-segment-written")) return Status(Code::kIo, "failpoint");
  // A crash here leaves an empty segment at the end, with or without its name.
  TROTH_RETURN_IF_ERROR(files->Publish(WalFileKind::kSegment, number));
  if (TROTH_FAILPOINT("log-segment-renamed")) return Status(Code::kIo, "failpoint");
  const MutexLock guard(&mu);
  ahead.push_back(*std::move(segment));
  return OkStatus();
}

Status Wal::Rep::MakeSpareSegment() {
  std::string source;
  {
    const MutexLock guard(&mu);
    if (!superseded.empty()) {
      source = superseded.back();
      superseded.pop_back();
    }
  }
  const std::string name(kSpareSegmentName);
  if (!source.empty()) {
    TROTH_RETURN_IF_ERROR(files->Rename(source, name));
  } else {
    TROTH_RETURN_IF_ERROR(files->Reserve(name, options.segment_bytes));
  }
  const MutexLock guard(&mu);
  has_spare_segment = true;
  return OkStatus();
}

Status Wal::Rep::GrowReserve() {
  std::uint64_t bytes, number;
  {
    const MutexLock guard(&mu);
    bytes = ReserveBytes(options.segment_bytes, checkpoint_bytes);
    number = checkpoint;
  }
  // The checkpoint in use is lengthened too: it is the reserve after the next one.
  for (const std::string& name :
       {std::string(kSpareCheckpointName), WalFileName(WalFileKind::kCheckpoint, number)}) {
    if (files->SizeOf(name) < bytes) TROTH_RETURN_IF_ERROR(files->Reserve(name, bytes));
  }
  const MutexLock guard(&mu);
  reserve = bytes;
  return OkStatus();
}

Status Wal::Rep::Tidy() {
  std::string name;
  {
    const MutexLock guard(&mu);
    name = superseded.back();
    superseded.pop_back();
  }
  return files->Remove(name);
}

Status Wal::Rep::Urgent() {
  bool needed;
  {
    const MutexLock guard(&mu);
    needed = NextChore() == Chore::kSegment;
  }
  return needed ? OrDiskFull(MakeSegmentAhead()) : OkStatus();
}

// A pure function of files: the newest checkpoint and the closed segments, read anew.
Status Wal::Rep::Compact() {
  Closed last;
  {
    const MutexLock guard(&mu);
    last = closed.back();
  }
  RecoveredState state;
  const WalFiles::Between between = [this] { return Urgent(); };
  CompactionVisitor visitor(&state, between);
  const Result<WalEnd> end = ReadWal(fs, directory, last.number, &visitor);
  if (!end.ok()) return end.status();
  TROTH_RETURN_IF_ERROR(visitor.status());
  if (end->last_batch != last.last_batch) {
    return Status(Code::kCorrupt, directory + ": closed segments end with batch " +
                                      std::to_string(end->last_batch) + ", not " +
                                      std::to_string(last.last_batch) + " as written");
  }
  const std::int64_t running_ms = std::max(end->running_ms, state.running_ms());
  while (state.Retain(running_ms, last.lease_line, options.retention)) {
    TROTH_RETURN_IF_ERROR(between());
  }
  const CheckpointHead head{coordinator_id, last.number, end->last_batch, end->last_checksum,
                            running_ms};
  std::uint64_t used = 0;
  const std::string spare(kSpareCheckpointName);
  const Status made = files->MakeCheckpoint(
      head, state, files->SizeOf(spare) > 0 ? spare : std::string(), between, &used);
  if (made.code() == Code::kNoSpace) {
    const Status back =
        files->Rename(WalFiles::TemporaryName(WalFileKind::kCheckpoint, last.number), spare);
    if (!back.ok() && back.code() != Code::kNotFound) return back;
    const MutexLock guard(&mu);
    compaction_retry_at_ms = clock->NowMs() + options.retry_ms;
  }
  TROTH_RETURN_IF_ERROR(made);
  if (TROTH_FAILPOINT("checkpoint-written")) return Status(Code::kIo, "failpoint");
  return PublishCheckpoint(last.number, used);
}

Status Wal::Rep::PublishCheckpoint(std::uint64_t number, std::uint64_t used) {
  // A crash before this leaves the old checkpoint and its segments; after it, the new one, and
  // the old files are superseded: never read again, even if their removal is lost.
  TROTH_RETURN_IF_ERROR(files->Publish(WalFileKind::kCheckpoint, number));
  if (TROTH_FAILPOINT("checkpoint-renamed")) return Status(Code::kIo, "failpoint");
  std::uint64_t old;
  {
    const MutexLock guard(&mu);
    old = checkpoint;
  }
  const std::string old_name = WalFileName(WalFileKind::kCheckpoint, old);
  const Status kept = files->Rename(old_name, std::string(kSpareCheckpointName));
  // The new checkpoint counts already: this compaction can't be tried again.
  if (!kept.ok()) return Status(Code::kIo, kept.message());
  if (TROTH_FAILPOINT("checkpoint-old-removed")) return Status(Code::kIo, "failpoint");
  const std::uint64_t room = std::min(files->SizeOf(std::string(kSpareCheckpointName)),
                                      files->SizeOf(WalFileName(WalFileKind::kCheckpoint, number)));
  const MutexLock guard(&mu);
  checkpoint = number;
  checkpoint_bytes = used;
  reserve = room;
  ++counted.compactions;
  while (!closed.empty() && closed.front().number <= number) {
    superseded.push_back(WalFileName(WalFileKind::kSegment, closed.front().number));
    closed.pop_front();
  }
  return OkStatus();
}

// ---- Opening, and what is told of it.

Wal::Wal(std::unique_ptr<Rep> rep) : rep_(std::move(rep)) {}
Wal::~Wal() = default;

Result<std::string> Wal::Init(FileSystem* fs, const std::string& directory,
                              const std::string& coordinator_name, const WalOptions& options) {
  TROTH_RETURN_IF_ERROR(CheckOptions(options));
  return InitLog(fs, directory, coordinator_name, options.segment_bytes,
                 ReserveBytes(options.segment_bytes, 2 * kBlockBytes), options.random);
}

Result<std::unique_ptr<Wal>> Wal::Open(FileSystem* fs, Clock* clock, const std::string& directory,
                                       const WalOptions& options, RecoveredState* state) {
  TROTH_RETURN_IF_ERROR(CheckOptions(options));
  Result<OpenedLog> opened = OpenLog(fs, directory, options.segment_bytes, options.retention,
                                     options.coordinator, options.random, state);
  if (!opened.ok()) return opened.status();
  return std::unique_ptr<Wal>(
      new Wal(std::make_unique<Rep>(clock, fs, directory, options, *std::move(opened))));
}

const std::string& Wal::coordinator_id() const { return rep_->coordinator_id; }
const std::vector<std::string>& Wal::warnings() const { return rep_->warnings; }
std::int64_t Wal::RunningMs() const { return rep_->RunningMs(); }

std::uint64_t Wal::last_batch() const {
  const MutexLock guard(&rep_->mu);
  return rep_->durable.batch;
}

Wal::Stats Wal::stats() const {
  const std::uint64_t room = RoomBytes();
  const MutexLock guard(&rep_->mu);
  Stats stats = rep_->counted;
  stats.segment = rep_->current.number;
  stats.closed_segments = rep_->closed.size();
  stats.checkpoint_bytes = rep_->checkpoint_bytes;
  stats.room_bytes = room;
  stats.disk_full = rep_->disk_full;
  return stats;
}

}  // namespace troth
