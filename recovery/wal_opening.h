// Making a log and opening one (law L15): read all, trust nothing that was read until it is
// rewritten and synced. Behind Wal::Init and Wal::Open. docs/wal_format.md, "Opening".
//
// The steps of opening, and what a crash after each leaves:
//   1. read: nothing changed.
//   2. a checkpoint of what was read, and a new segment, under temporary names: found and
//      reused, or removed, by the next opening.
//   3. the segment gets its name (`opening-segment-renamed`): an empty segment at the end of
//      the chain; the next opening reads the old files again and cuts the same. If there is no
//      other file to make a segment of, it makes that one anew.
//   4. the checkpoint gets its name (`opening-checkpoint-renamed`): the new log. What it
//      replaces is superseded: never read again.
//   5. superseded files become spare or go (`opening-old-removed`).
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "common/file_system.h"
#include "recovery/recovered_state.h"
#include "recovery/wal_files.h"
#include "recovery/wal_reader.h"

namespace troth {

struct OpenedLog {
  std::unique_ptr<FileLock> lock;
  std::unique_ptr<WalFiles> files;
  std::string coordinator_id;
  SegmentFile segment;           // the new one, empty
  std::uint64_t checkpoint = 0;  // number of the new one
  std::uint64_t checkpoint_bytes = 0;
  std::uint64_t last_batch = 0;
  std::uint32_t last_checksum = 0;
  std::int64_t running_ms = 0;
  std::vector<std::string> warnings;
};

// As Wal::Init.
Result<std::string> InitLog(FileSystem* fs, const std::string& directory,
                            const std::string& coordinator_name, std::uint64_t segment_bytes,
                            std::uint64_t reserve_bytes, std::function<std::uint64_t()> random);

// As Wal::Open. `*state` is fresh.
Result<OpenedLog> OpenLog(FileSystem* fs, const std::string& directory, std::uint64_t segment_bytes,
                          const Retention& retention, const std::string& coordinator,
                          std::function<std::uint64_t()> random, RecoveredState* state);

}  // namespace troth
