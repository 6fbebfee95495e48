// Reads a log directory and judges what it finds: replay, cut or refuse. Changes nothing on
// disk. Opening, compaction and trothctl all read through here. docs/wal_format.md, "Damage".
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "common/file_system.h"
#include "common/status.h"
#include "recovery/log_record.h"
#include "recovery/wal_format.h"

namespace troth {

// What lies in a log directory, by names alone.
struct WalListing {
  std::vector<std::uint64_t> checkpoints;  // ascending; the last one counts
  std::vector<std::uint64_t> segments;     // ascending; those above that checkpoint count
  std::vector<std::string> temporaries;    // left behind by a crash
  std::vector<std::string> foreign;        // names the log knows nothing of
  bool has_spare_segment = false;
  bool has_spare_checkpoint = false;

  bool empty() const { return checkpoints.empty() && segments.empty(); }
};
Result<WalListing> ListWal(FileSystem* fs, const std::string& directory);

// Where a batch stands.
struct BatchPlace {
  std::string_view file;  // name
  std::uint64_t offset = 0;
  bool checkpoint = false;
};

class WalVisitor {
 public:
  virtual ~WalVisitor() = default;
  // Before the records of each intact batch. In a checkpoint, numbers are its own.
  virtual void OnBatch(const BatchPlace& place, const BatchHeader& header) {
    (void)place, (void)header;
  }
  // kCorrupt refuses the log; the place is added to its message.
  virtual Status OnRecord(const LogRecord& record, std::int64_t running_ms) = 0;
};

// What reading found out.
struct WalEnd {
  std::string coordinator_id;
  std::uint64_t checkpoint = 0;        // its number
  std::uint64_t checkpoint_bytes = 0;  // used, of the file
  std::uint64_t last_segment = 0;      // highest number there is
  std::uint64_t last_used = 0;         // highest that holds a batch; 0: none does
  std::uint64_t last_batch = 0;
  std::uint32_t last_checksum = 0;
  std::int64_t running_ms = 0;  // of the last batch
  std::uint64_t records = 0;    // in all, checkpoint included
  std::string cut;              // what was cut off the end, for people; empty: nothing
};

// Reads the newest checkpoint and the segments after it, up to `through` (kWholeLog: all; the
// last batch may then be torn, and is cut). kNotFound when there is no log. kCorrupt names
// file, offset and cause. On a live directory a file may vanish (kNotFound): list and read anew.
inline constexpr std::uint64_t kWholeLog = ~std::uint64_t{0};
Result<WalEnd> ReadWal(FileSystem* fs, const std::string& directory, std::uint64_t through,
                       WalVisitor* visitor);

// kRefused, naming both, unless `wanted` (a coordinator's name, or its id; empty: anybody) is
// whose log this is.
Status CheckWhoseLog(const std::string& directory, const std::string& coordinator_id,
                     const std::string& wanted);

}  // namespace troth
