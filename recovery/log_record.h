// The records of the write-ahead log, as values, and their bytes. A checkpoint is nothing but
// records too: what rebuilds the state. Knows nothing of batches, files or the wire.
// Format: docs/wal_format.md.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "common/status.h"
#include "common/transaction_id.h"

namespace troth {

// Dense number of a participant in this log's registry; 0 is the first.
using ParticipantIndex = std::uint32_t;

// A PostgreSQL database: a name bound to another one is refused until an operator rebinds.
struct DatabaseId {
  std::uint64_t system_identifier = 0;
  std::uint32_t oid = 0;
  auto operator<=>(const DatabaseId&) const = default;
};

// A branch that voted prepared: the evidence by which it is recognised for ever (law L4).
struct BranchRecord {
  ParticipantIndex participant = 0;
  DatabaseId database;
  std::uint64_t xid = 0;  // xid8
  std::uint32_t timeline = 0;
  std::uint64_t position = 0;  // pg_lsn at or after the PREPARE record
  bool operator==(const BranchRecord&) const = default;
};

// The decision to commit. Forced before anything that tells of it leaves (law L5).
struct CommitRecord {
  LocalId id;
  std::vector<BranchRecord> branches;  // prepared ones only; read-only ones have nothing to finish
  std::string key;                     // business key, empty if none
  bool operator==(const CommitRecord&) const = default;
};

// Every branch acknowledged. Never forced: without it, recovery finishes once more.
struct EndRecord {
  LocalId id;
  bool operator==(const EndRecord&) const = default;
};

// A life of the coordinator begins. Durable before its first id is handed out.
struct EpochRecord {
  Epoch epoch;
  std::uint64_t previous_end = 0;  // last batch of the life before (law L7d)
  bool operator==(const EpochRecord&) const = default;
};

// Sequences below `end` of this epoch may be leased. Durable before they are.
struct ReserveRecord {
  Epoch epoch;
  std::uint64_t end = 0;
  bool operator==(const ReserveRecord&) const = default;
};

// A place in a log's life: a batch of an epoch (law L7c). Epoch number 0: none.
struct SeenPosition {
  Epoch epoch;
  std::uint64_t position = 0;
  bool operator==(const SeenPosition&) const = default;
};

// Where a database was met: "host:port" as the participant's connection string names it and, where
// that means something on one machine only (a socket's folder, loopback), which machine.
struct DatabaseAddress {
  std::string server;
  std::string machine{};  // a hash; empty: not known, or any machine means the same

  // A record's text: "server" or "server@machine".
  static DatabaseAddress Of(const std::string& text);
  std::string ToString() const;
  // A machine counts where both name one: releases before this one named none, nor do participants
  // on a machine that has no id.
  bool MayBe(const DatabaseAddress& other) const;
};

// The registry: binds a name to a database. The newest record of an index counts.
struct ParticipantRecord {
  ParticipantIndex index = 0;
  std::string name;
  DatabaseId database;
  std::string database_address;  // a DatabaseAddress
  std::string certificate;  // of no use, empty: the file of roles says whose certificate counts
  std::string peer_host;    // where phase two reaches it after a restart
  std::uint32_t peer_port = 0;
  bool forgotten = false;  // an operator forgot it; the index is not used again
  bool open = false;       // an operator allowed the next enrolment to bind anew
  SeenPosition discarded;  // an operator discarded its reports up to here (law L7d)
  bool operator==(const ParticipantRecord&) const = default;
};

// A branch that ended against or ahead of the decision, or whose end nobody can tell.
struct HeuristicRecord {
  LocalId id;
  ParticipantIndex participant = 0;
  bool hazard = false;          // true: the evidence does not tell
  std::string what;             // for people: what was found, or what was ordered and by whom
  std::int64_t at_unix_ms = 0;  // wall clock, for people only
  bool operator==(const HeuristicRecord&) const = default;
};

// A business key under which no commit is accepted while it is kept (committed: `id` bears it).
struct KeyRecord {
  std::string key;
  bool closed = false;  // closed by an asker; then `id` is empty
  LocalId id;
  std::int64_t at_ms = 0;  // checkpoint only: running time at which it was taken or closed
  bool operator==(const KeyRecord&) const = default;
};

// An operator ended a log suspicion (law L7d). Epochs in [first, last] numbers are not mine.
struct GapRecord {
  std::uint32_t first = 0;
  std::uint32_t last = 0;
  std::string reason;
  bool operator==(const GapRecord&) const = default;
};

// Checkpoint only: outcomes of one epoch; committed sequences as a 64-bit portable Roaring
// bitmap (kMaxOutcomesBytes at most; several records add up).
struct OutcomesRecord {
  Epoch epoch;
  std::string bitmap;
  bool operator==(const OutcomesRecord&) const = default;
};

// Checkpoint only: at running time `at_ms`, every id below `id` was of an ended lease.
// The newest mark older than the outcome retention becomes the line of `expired`.
struct TimeMarkRecord {
  std::int64_t at_ms = 0;
  LocalId id;
  bool operator==(const TimeMarkRecord&) const = default;
};

// Checkpoint only: all ids below are `expired` unless a whole record or a bit says more (L9a).
struct LineRecord {
  LocalId id;
  bool operator==(const LineRecord&) const = default;
};

// Checkpoint only: running time at which a live commit record was decided (follows it).
struct DecidedAtRecord {
  LocalId id;
  std::int64_t at_ms = 0;
  bool operator==(const DecidedAtRecord&) const = default;
};

using LogRecord = std::variant<CommitRecord, EndRecord, EpochRecord, ReserveRecord,
                               ParticipantRecord, HeuristicRecord, KeyRecord, GapRecord,
                               OutcomesRecord, TimeMarkRecord, LineRecord, DecidedAtRecord>;

// Bounds of what a record may hold; whoever makes one keeps them (EncodeRecord checks).
inline constexpr std::int64_t kMaxTimeMs = std::int64_t{1} << 53;  // of any time; sums fit
inline constexpr std::size_t kMaxBranches = 1024;
inline constexpr std::size_t kMaxRecordKeyBytes = 1024;
inline constexpr std::size_t kMaxTextBytes = 4096;  // any other text
inline constexpr std::size_t kMaxOutcomesBytes = 160u << 10;
inline constexpr std::size_t kMaxRecordBytes = 192u << 10;  // of an encoded record

// Appends the bytes of `record` (self-delimiting).
void EncodeRecord(const LogRecord& record, std::string* out);
// Upper bound of what EncodeRecord appends.
std::size_t EncodedSizeBound(const LogRecord& record);
// Takes one record off the front of `*in`. kCorrupt when the bytes are no record; `*in` is
// then unchanged. Never reads beyond `*in`, whatever the bytes.
Result<LogRecord> DecodeRecord(std::string_view* in);
// One line for people and transcripts: `commit 3-9c8d7e6f.17 [0 xid=723 tli=1 lsn=0/16B3748]`.
std::string DebugString(const LogRecord& record);

}  // namespace troth
