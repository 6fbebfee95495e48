// What the log says, in memory: the book of decisions. The same class is filled by replay at
// opening, by the machine as records become durable, and by compaction, so the three cannot
// disagree. Pure: no files, no clock; time is the coordinator's running time, handed in.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "recovery/log_record.h"

namespace troth {

// How long what is kept (law L9a). Durations in ms of running time.
struct Retention {
  std::int64_t lease_ms = 30'000;
  std::int64_t record_ms = 600'000;
  std::int64_t outcome_ms = 86'400'000;
  // Bound on what ended records kept whole cost, in memory; over it the oldest become bits
  // before their time, if their lease is over. (All that is lost is that a stray branch under the
  // id of such a transaction is kept in doubt and alarmed, where its record would have had it
  // rolled back.)
  std::uint64_t record_bytes = 64u << 20;
};

class RecoveredState {
 public:
  RecoveredState();
  RecoveredState(RecoveredState&&) noexcept;
  RecoveredState& operator=(RecoveredState&&) noexcept;
  ~RecoveredState();

  // Takes one durable record into account; `running_ms` is when it was handed to the log.
  // Repeating a record while what it said is kept changes nothing. kCorrupt, and nothing is
  // changed, when it contradicts what is known: an epoch never begun or begun out of order, a
  // sequence never reserved, another decision or another key for an id, an index bound twice.
  Status Apply(const LogRecord& record, std::int64_t running_ms);

  // ---- Decisions.
  // The whole commit record, or null when there is none (any more). Valid until the next
  // FindCommit, Apply or Retain.
  const CommitRecord* FindCommit(const LocalId& id) const;
  // A whole record exists and its end record was applied.
  bool Ended(const LocalId& id) const;
  // Known committed, whole record or not.
  bool Committed(const LocalId& id) const;
  // Calls `fn` for every whole record not yet ended, oldest decision first. Each is valid
  // during its call; `fn` does not change this state.
  void ForEachUnended(const std::function<void(const CommitRecord&)>& fn) const;
  // Counts: whole records not ended; whole records; what these cost in memory.
  std::size_t unended() const;
  std::size_t whole() const;
  std::uint64_t whole_bytes() const;

  // ---- Epochs, oldest first.
  struct EpochInfo {
    Epoch epoch;
    std::uint64_t reserve_end = 0;   // sequences below may have been leased
    std::uint64_t previous_end = 0;  // last batch of the epoch before
  };
  const std::vector<EpochInfo>& epochs() const;
  const EpochInfo* FindEpoch(const Epoch& epoch) const;  // valid until Apply
  const std::vector<GapRecord>& gaps() const;
  // Ids below are expired unless FindCommit or Committed says more.
  const LocalId& line() const;

  // ---- Business keys.
  struct KeyState {
    bool closed = false;
    LocalId id;  // the committed transaction that bears it, unless closed
  };
  std::optional<KeyState> FindKey(std::string_view key) const;

  // ---- Registry and heuristics.
  const std::vector<ParticipantRecord>& participants() const;  // by index
  const std::vector<HeuristicRecord>& heuristics() const;
  std::vector<HeuristicRecord> HeuristicsOf(const LocalId& id) const;

  // Drops what `retention` no longer keeps at `running_ms`: ended records become bits, bits
  // older than the outcome retention fall below the line. `lease_line`: every id below it is
  // of an ended lease or epoch and not in flight (kept as a time mark). Amortised cost per
  // decision is constant; one call does a bounded amount of work and returns whether some is
  // left, for another call.
  bool Retain(std::int64_t running_ms, const LocalId& lease_line, const Retention& retention);

  // Emits records that rebuild this state when applied in order (a checkpoint).
  // `decided_at` of live records is kept by DecidedAtRecord.
  void ForEachCheckpointRecord(const std::function<void(const LogRecord&)>& fn) const;

  // Newest running time seen.
  std::int64_t running_ms() const;

 private:
  struct Rep;
  std::unique_ptr<Rep> rep_;
};

}  // namespace troth
