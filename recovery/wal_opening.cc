// See wal_opening.h.
#include "recovery/wal_opening.h"

#include <algorithm>
#include <cstdio>
#include <random>

#include "common/failpoint.h"
#include "common/mark.h"

namespace troth {
namespace {

// Lets go on the way of what retention lets go: opening a long log takes no more memory than
// its life did.
class ApplyTo final : public WalVisitor {
 public:
  ApplyTo(RecoveredState* state, const Retention& retention)
      : state_(state), retention_(retention) {}
  Status OnRecord(const LogRecord& record, std::int64_t running_ms) override {
    if (++records_ % kRetainEvery == 0) state_->Retain(running_ms, LocalId(), retention_);
    return state_->Apply(record, running_ms);
  }

 private:
  static constexpr std::uint64_t kRetainEvery = 2048;  // a call drops more
  RecoveredState* const state_;
  const Retention retention_;
  std::uint64_t records_ = 0;
};

std::string DrawMark(const std::function<std::uint64_t()>& random) {
  std::random_device device;
  const std::uint64_t bits = random ? random() : std::uint64_t{device()} << 32 | device();
  char text[16];
  std::snprintf(text, sizeof text, "%012llx",
                static_cast<unsigned long long>(bits & 0xffff'ffff'ffffu));
  return text;
}

// A failpoint's error branch.
Status Broken(std::string_view where) {
  return Status(Code::kIo, "failpoint " + std::string(where));
}

// The files of a directory that an opening may take space from, once it has read the log.
struct Leftovers {
  std::vector<std::string> segments;     // temporary, spare or superseded
  std::vector<std::string> checkpoints;  // likewise
};

Leftovers FindLeftovers(const WalListing& listing, std::uint64_t checkpoint) {
  Leftovers left;
  if (listing.has_spare_segment) left.segments.emplace_back(kSpareSegmentName);
  if (listing.has_spare_checkpoint) left.checkpoints.emplace_back(kSpareCheckpointName);
  for (const std::string& name : listing.temporaries) {
    (name.starts_with("checkpoint-") ? left.checkpoints : left.segments).push_back(name);
  }
  for (const std::uint64_t number : listing.segments) {
    if (number <= checkpoint) left.segments.push_back(WalFileName(WalFileKind::kSegment, number));
  }
  for (const std::uint64_t number : listing.checkpoints) {
    if (number < checkpoint) {
      left.checkpoints.push_back(WalFileName(WalFileKind::kCheckpoint, number));
    }
  }
  return left;
}

// Takes the best source out of `*names`: of exactly `bytes` (0: the largest). Empty: none.
std::string TakeSource(WalFiles* files, std::uint64_t bytes, std::vector<std::string>* names) {
  auto best = names->end();
  std::uint64_t best_size = 0;
  for (auto it = names->begin(); it != names->end(); ++it) {
    const std::uint64_t size = files->SizeOf(*it);
    if (bytes == 0 ? size <= best_size : size != bytes || best != names->end()) continue;
    best = it;
    best_size = size;
  }
  if (best == names->end()) return {};
  std::string name = *best;
  names->erase(best);
  return name;
}

// The file `name` is about to be made: it is nobody's source any more.
void Forget(const std::string& name, std::vector<std::string>* names) {
  names->erase(std::remove(names->begin(), names->end(), name), names->end());
}

// One of `*names` becomes the spare, the others go.
Status KeepOneSpare(WalFiles* files, std::string_view spare, std::uint64_t bytes,
                    std::vector<std::string> names) {
  const std::string kept = TakeSource(files, bytes, &names);
  for (const std::string& name : names) TROTH_RETURN_IF_ERROR(files->Remove(name));
  if (kept.empty() || kept == spare) return OkStatus();
  return files->Rename(kept, std::string(spare));
}

// Where a crash within an opening left no space but in an empty last segment: that, under a
// temporary name, for the segment of its number to be made of. Else "".
Result<std::string> FreeLastSegment(WalFiles* files, const WalEnd& end,
                                    std::uint64_t segment_bytes) {
  const std::string name = WalFileName(WalFileKind::kSegment, end.last_segment);
  const bool empty = end.last_used < end.last_segment;
  // Not the only one after the checkpoint: there is no log without.
  const bool only = end.last_segment == end.checkpoint + 1;
  if (!empty || only || files->SizeOf(name) != segment_bytes) return std::string();
  const std::string freed = WalFiles::TemporaryName(WalFileKind::kSegment, end.last_segment);
  TROTH_RETURN_IF_ERROR(files->Rename(name, freed));
  // Before it is written to: under its name half of a segment would be damage.
  TROTH_RETURN_IF_ERROR(files->SyncDirectory());
  return freed;
}

// Steps 2 to 5.
Status Rewrite(FileSystem* fs, const std::string& directory, const WalEnd& end,
               std::uint64_t segment_bytes, const RecoveredState& state, OpenedLog* log) {
  WalFiles* const files = log->files.get();
  Result<WalListing> listing = ListWal(fs, directory);
  if (!listing.ok()) return listing.status();
  Leftovers left = FindLeftovers(*listing, end.checkpoint);

  log->checkpoint = end.last_segment;
  std::string old_segment = TakeSource(files, segment_bytes, &left.segments);
  if (old_segment.empty()) {
    Result<std::string> freed = FreeLastSegment(files, end, segment_bytes);
    if (!freed.ok()) return freed.status();
    if (!freed->empty()) --log->checkpoint;
    old_segment = *std::move(freed);
  }
  const CheckpointHead head{end.coordinator_id, log->checkpoint, end.last_batch, end.last_checksum,
                            log->running_ms};
  const std::string old_checkpoint = TakeSource(files, 0, &left.checkpoints);
  Forget(WalFiles::TemporaryName(WalFileKind::kCheckpoint, head.number), &left.checkpoints);
  TROTH_RETURN_IF_ERROR(
      files->MakeCheckpoint(head, state, old_checkpoint, nullptr, &log->checkpoint_bytes));
  const std::uint64_t number = log->checkpoint + 1;
  Forget(WalFiles::TemporaryName(WalFileKind::kSegment, number), &left.segments);
  Result<SegmentFile> segment =
      files->MakeSegment(end.coordinator_id, number, segment_bytes, old_segment);
  if (!segment.ok()) return segment.status();
  log->segment = *std::move(segment);
  if (TROTH_FAILPOINT("opening-written")) return Broken("opening-written");
  TROTH_RETURN_IF_ERROR(files->Publish(WalFileKind::kSegment, log->segment.number));
  if (TROTH_FAILPOINT("opening-segment-renamed")) return Broken("opening-segment-renamed");
  TROTH_RETURN_IF_ERROR(files->Publish(WalFileKind::kCheckpoint, log->checkpoint));
  if (TROTH_FAILPOINT("opening-checkpoint-renamed")) return Broken("opening-checkpoint-renamed");

  for (const std::uint64_t number : listing->segments) {
    if (number > end.checkpoint && number != log->segment.number) {
      left.segments.push_back(WalFileName(WalFileKind::kSegment, number));
    }
  }
  left.checkpoints.push_back(WalFileName(WalFileKind::kCheckpoint, end.checkpoint));
  TROTH_RETURN_IF_ERROR(KeepOneSpare(files, kSpareSegmentName, segment_bytes, left.segments));
  TROTH_RETURN_IF_ERROR(KeepOneSpare(files, kSpareCheckpointName, 0, left.checkpoints));
  TROTH_RETURN_IF_ERROR(files->SyncDirectory());
  if (TROTH_FAILPOINT("opening-old-removed")) return Broken("opening-old-removed");
  return OkStatus();
}

// An unfinished init left at most an empty first segment.
Status CheckInitMayRun(FileSystem* fs, const std::string& directory) {
  Result<WalListing> listing = ListWal(fs, directory);
  if (!listing.ok()) return listing.status();
  if (!listing->foreign.empty()) {
    return Status(Code::kExists, directory + " holds '" + listing->foreign.front() +
                                     "'; a log needs a directory of its own");
  }
  if (!listing->checkpoints.empty() || listing->segments.size() > 1 ||
      (listing->segments.size() == 1 && listing->segments.front() != 1)) {
    return Status(Code::kExists, directory +
                                     " holds a log already; a log made anew would be another "
                                     "coordinator, and what this one decided would be lost");
  }
  return OkStatus();
}

}  // namespace

Result<std::string> InitLog(FileSystem* fs, const std::string& directory,
                            const std::string& coordinator_name, std::uint64_t segment_bytes,
                            std::uint64_t reserve_bytes, std::function<std::uint64_t()> random) {
  if (!IsCoordinatorName(coordinator_name)) {
    return Status(Code::kInvalid, "'" + coordinator_name +
                                      "' is no coordinator name: 1 to 16 of a-z 0-9 -, neither "
                                      "first nor last a '-'");
  }
  const Status made = fs->MakeDirectory(directory);
  if (!made.ok() && made.code() != Code::kExists) return made;
  TROTH_RETURN_IF_ERROR(CheckInitMayRun(fs, directory));
  const Result<std::unique_ptr<FileLock>> lock = fs->Lock(JoinPath(directory, kLockName));
  if (!lock.ok()) return lock.status();
  TROTH_RETURN_IF_ERROR(CheckInitMayRun(fs, directory));

  WalFiles files(fs, directory, random);
  const std::string id = coordinator_name + "-" + DrawMark(random);
  TROTH_RETURN_IF_ERROR(files.Reserve(std::string(kSpareCheckpointName), reserve_bytes));
  TROTH_RETURN_IF_ERROR(files.Reserve(std::string(kSpareSegmentName), segment_bytes));
  const Result<SegmentFile> segment = files.MakeSegment(id, 1, segment_bytes, "");
  if (!segment.ok()) return segment.status();
  const std::string checkpoint = WalFiles::TemporaryName(WalFileKind::kCheckpoint, 0);
  TROTH_RETURN_IF_ERROR(files.Reserve(checkpoint, reserve_bytes));
  std::uint64_t used = 0;
  TROTH_RETURN_IF_ERROR(files.MakeCheckpoint(CheckpointHead{id, 0, 0, 0, 0}, RecoveredState(),
                                             checkpoint, nullptr, &used));
  TROTH_RETURN_IF_ERROR(files.Publish(WalFileKind::kSegment, 1));
  if (TROTH_FAILPOINT("init-segment-renamed")) return Broken("init-segment-renamed");
  TROTH_RETURN_IF_ERROR(files.Publish(WalFileKind::kCheckpoint, 0));
  return id;
}

Result<OpenedLog> OpenLog(FileSystem* fs, const std::string& directory, std::uint64_t segment_bytes,
                          const Retention& retention, const std::string& coordinator,
                          std::function<std::uint64_t()> random, RecoveredState* state) {
  Result<WalListing> listing = ListWal(fs, directory);
  if (!listing.ok()) return listing.status();
  OpenedLog log;
  ApplyTo visitor(state, retention);
  if (!listing->empty()) {  // an empty directory stays as it is
    Result<std::unique_ptr<FileLock>> lock = fs->Lock(JoinPath(directory, kLockName));
    if (!lock.ok()) return lock.status();
    log.lock = *std::move(lock);
  }
  const Result<WalEnd> end = ReadWal(fs, directory, kWholeLog, &visitor);
  if (!end.ok()) return end.status();
  TROTH_RETURN_IF_ERROR(CheckWhoseLog(directory, end->coordinator_id, coordinator));

  log.files = std::make_unique<WalFiles>(fs, directory, std::move(random));
  log.coordinator_id = end->coordinator_id;
  log.last_batch = end->last_batch;
  log.last_checksum = end->last_checksum;
  log.running_ms = std::max(end->running_ms, state->running_ms());
  if (!end->cut.empty()) {
    TROTH_MARK("torn-tail-cut");
    log.warnings.push_back(end->cut);
  }
  for (const std::string& name : listing->temporaries) {
    TROTH_MARK("temporary-file-left-behind");
    log.warnings.push_back("removed " + name + ", left behind by a crash");
  }
  // All leases of the lives before are over.
  LocalId line;
  if (!state->epochs().empty()) line.epoch.number = state->epochs().back().epoch.number + 1;
  while (state->Retain(log.running_ms, line, retention)) {
  }
  TROTH_RETURN_IF_ERROR(Rewrite(fs, directory, *end, segment_bytes, *state, &log));
  return log;
}

}  // namespace troth
