// Makes the files of a log: empty segments and checkpoints, under a temporary name until they
// are whole and synced. Allocated space is handed on from file to file, so that a full disk
// stops neither opening nor compaction. Used by one thread at a time. docs/wal_format.md.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "common/file_system.h"
#include "recovery/recovered_state.h"
#include "recovery/wal_format.h"

namespace troth {

// A segment open for writing.
struct SegmentFile {
  std::uint64_t number = 0;
  std::unique_ptr<File> file;
  std::uint32_t seed = 0;
  std::uint64_t bytes = 0;
};

// What a checkpoint says of the log it replaces.
struct CheckpointHead {
  std::string coordinator_id;
  std::uint64_t number = 0;
  std::uint64_t last_batch = 0;
  std::uint32_t last_checksum = 0;
  std::int64_t running_ms = 0;
};

class WalFiles {
 public:
  // Called between two syncs of long work, so that its thread can see to what is urgent.
  using Between = std::function<Status()>;

  WalFiles(FileSystem* fs, std::string directory, std::function<std::uint64_t()> random);

  // An empty segment, zeroed and synced, under its temporary name. `source` names a file whose
  // space it takes over (used only if it has exactly `bytes`); empty: new space. kNoSpace:
  // nothing was done.
  Result<SegmentFile> MakeSegment(const std::string& coordinator_id, std::uint64_t number,
                                  std::uint64_t bytes, const std::string& source);
  // A checkpoint of `state`, synced, under its temporary name; `*used` is its length, the file
  // may be longer. `source` as above, of any length.
  Status MakeCheckpoint(const CheckpointHead& head, const RecoveredState& state,
                        const std::string& source, const Between& between, std::uint64_t* used);
  // The temporary name becomes the real one; durable on return. kNoSpace: surely not done.
  Status Publish(WalFileKind kind, std::uint64_t number);

  // Makes or lengthens the file `name` so that it has room for `bytes`; durable on return.
  Status Reserve(const std::string& name, std::uint64_t bytes);
  Status Rename(const std::string& from, const std::string& to);
  Status Remove(const std::string& name);
  Status SyncDirectory();  // never kNoSpace
  // 0 when there is none.
  std::uint64_t SizeOf(const std::string& name);
  static std::string TemporaryName(WalFileKind kind, std::uint64_t number);

 private:
  std::string Path(const std::string& name) const { return JoinPath(directory_, name); }
  // The file under `name`, out of `source` or new.
  Result<std::unique_ptr<File>> Take(const std::string& name, const std::string& source);
  Status WriteSegment(const FileHeader& header, SegmentFile* segment, bool fresh);

  FileSystem* const fs_;
  const std::string directory_;
  const std::function<std::uint64_t()> random_;
};

}  // namespace troth
