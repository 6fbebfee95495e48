// The write-ahead log of one coordinator: what it said is durable here before anyone hears it.
// Knows records as values and bytes, nothing of the protocol. docs/wal_format.md.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/clock.h"
#include "common/file_system.h"
#include "common/status.h"
#include "recovery/log_record.h"
#include "recovery/recovered_state.h"

namespace troth {

struct WalOptions {
  std::uint64_t segment_bytes = 4u << 20;  // multiple of 4 KiB, at least kMinSegmentBytes
  int segments_ahead = 2;                  // kept zeroed beyond the one in use
  std::int64_t idle_mark_ms = 1000;        // quiet time after which a mark is due
  std::int64_t retry_ms = 500;             // between attempts to get disk space
  Retention retention;
  // Whose log it must be: a name, or an id `<name>-<mark>`. Empty: anybody's.
  std::string coordinator;
  std::function<std::uint64_t()> random;  // empty: the system's
};
inline constexpr std::uint64_t kMinSegmentBytes = 32u << 10;

// A batch on its way to the disk.
struct FlushJob {
  File* file = nullptr;
  std::uint64_t offset = 0;
  std::string bytes;          // header, records, padding
  std::uint64_t batch = 0;    // its number
  std::uint64_t records = 0;  // ordinal of its last record (Append)
};

// What EndFlush made durable: all records up to `records`, all batches up to `batch`.
struct Durable {
  std::uint64_t records = 0;
  std::uint64_t batch = 0;
};

// Threads: Append, BeginFlush, EndFlush, Flush of the one job under way, and Maintain may run
// on different threads; calls of one kind never overlap each other. Append, RoomBytes,
// BeginFlush and EndFlush do no I/O and wait for none. Only Flush and Maintain touch files.
//
// A failed Flush or Maintain (kIo) is the end of this process (law L15): the caller dies, and
// nothing is ever retried here. kNoSpace never leaves Flush or Maintain: too little room shows
// in RoomBytes, and Maintain keeps trying until there is some.
class Wal {
 public:
  // Makes a log in `directory` (made if absent): another coordinator, `<name>-<mark>`, the mark
  // drawn now. kExists when a log is there already; kInvalid for a name that is none.
  // Durable on return. The coordinator id is returned.
  static Result<std::string> Init(FileSystem* fs, const std::string& directory,
                                  const std::string& coordinator_name, const WalOptions& options);

  // Locks the directory, replays the log into `*state` (fresh), rewrites what it read as a
  // checkpoint and a new segment, syncs these, and only then returns (law L15). Damage that a
  // torn last write leaves is cut and told by warnings(); any other is kCorrupt, naming file,
  // offset and cause, and nothing on disk is changed. kRefused: another process holds the lock,
  // or it is the log of another coordinator than `options.coordinator`.
  // kNotFound: no log there; the message says how to make one. `clock` and `fs` outlive it.
  static Result<std::unique_ptr<Wal>> Open(FileSystem* fs, Clock* clock,
                                           const std::string& directory, const WalOptions& options,
                                           RecoveredState* state);
  ~Wal();
  Wal(const Wal&) = delete;
  Wal& operator=(const Wal&) = delete;

  // `<name>-<mark>` of the log.
  const std::string& coordinator_id() const;
  // For people: what opening cut or cleaned up.
  const std::vector<std::string>& warnings() const;
  // Number of the last durable batch. Right after Open: where the life before ended (L7d).
  std::uint64_t last_batch() const;
  // The coordinator's running time, added up in the log over its lives. Monotone.
  std::int64_t RunningMs() const;

  // Hands a record to the log: from now on it becomes durable, or this process dies. Returns
  // its ordinal (from 1 in this life). The caller secured its room: EncodedSizeBound(record)
  // <= RoomBytes(). Not durable on return.
  std::uint64_t Append(const LogRecord& record);
  // Bytes of records that may still be appended without needing disk space.
  std::uint64_t RoomBytes() const;

  // Records wait, and no flush is under way.
  bool FlushPending() const;
  // Takes what waits as the next batch (what is too much stays for the one after). Null when
  // nothing waits or a flush is under way. With `mark`, an empty batch is made when nothing
  // waits: it proves the one before durable. The caller then runs Flush and EndFlush.
  std::optional<FlushJob> BeginFlush(bool mark = false);
  // One write, one data sync; blocks for both. Durable when ok.
  Status Flush(FlushJob* job);
  // After an ok Flush. Takes the job's buffer back.
  Durable EndFlush(FlushJob job);
  // A second (idle_mark_ms) passed since the last flush, and that was no mark: do a
  // BeginFlush(true) as any other flush. A clean stop does so too.
  bool MarkDue() const;

  // Every id below `line` is of an ended lease or epoch and not in flight. Any thread.
  void SetLeaseLine(const LocalId& line);

  // Something to maintain: a segment to make ready, the reserve to grow, a compaction.
  bool MaintenanceDue() const;
  // Milliseconds until MaintenanceDue or MarkDue may turn true by time alone; 0: now.
  std::int64_t MsUntilDue() const;
  // One step of it; may block for some syncs. Needs nobody's lock.
  Status Maintain();

  struct Stats {
    std::uint64_t batches = 0, records = 0, record_bytes = 0, marks = 0;  // of this life
    std::uint64_t compactions = 0;
    std::uint64_t segment = 0;          // number in use
    std::uint64_t closed_segments = 0;  // waiting for compaction
    std::uint64_t checkpoint_bytes = 0;
    std::uint64_t room_bytes = 0;
    bool disk_full = false;  // the last attempt to get space failed
  };
  Stats stats() const;

 private:
  struct Rep;
  explicit Wal(std::unique_ptr<Rep> rep);
  std::unique_ptr<Rep> rep_;
};

}  // namespace troth
