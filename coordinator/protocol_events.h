// What goes into the commit protocol, as values; what comes out is in protocol_actions.h. No wire
// types, no clocks: times are milliseconds of the coordinator's running time. docs/protocol.md
// has the table of messages these stand for.
#pragma once

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "common/transaction_id.h"
#include "recovery/in_doubt.h"
#include "recovery/log_record.h"

namespace troth {

using RunningMs = std::int64_t;
// Names whoever waits for a reply. Chosen by who submits the event; 0: nobody waits.
using ReplyToken = std::uint64_t;

// Why something was refused; the numbers are those of thrift/troth.thrift.
enum class Reason : std::uint8_t {
  kNone = 0,
  kInvalid = 1,
  kVersionMismatch = 2,
  kOverloaded = 3,
  kDeadline = 4,
  kNoSuchBranch = 5,
  kOutOfNumber = 6,
  kEnded = 7,
  kConflict = 8,
  kDatabase = 9,
  kDatabaseUnavailable = 10,
  kNotMine = 11,
  kNotLeased = 12,
  kOtherParticipants = 13,
  kUnknownParticipant = 14,
  kNotServing = 15,
  kForbidden = 16,
  kNameTaken = 17,
  kKeyTaken = 18,
  kStaleEpoch = 19,
  kApplication = 20,
};
std::string_view ReasonName(Reason reason);

struct Refusal {
  Reason reason = Reason::kNone;
  bool retryable = false;
  std::string message;
  std::string participant;  // who refused, if a participant did
  std::string sqlstate;
};
// What a refusal for want of room in the log says.
inline constexpr char kNoRoom[] =
    "the coordinator's log has no room (disk full, or its next segment is not made yet)";

enum class Ballot : std::uint8_t { kPrepared = 1, kReadOnly = 2, kRefused = 3, kWorking = 4 };

struct BranchVote {
  Ballot ballot = Ballot::kWorking;
  std::uint32_t works = 0;
  DatabaseId database;
  std::uint64_t xid = 0;
  std::uint32_t timeline = 0;
  std::uint64_t position = 0;
  Refusal refusal;  // kRefused
};

// One branch as a client claims it.
struct BranchClaim {
  std::string participant;
  std::string mark;
  std::string instance;
  std::uint32_t works = 0;
  bool read_only = false;
  bool carries_vote = false;  // early prepare
  bool authentic = false;     // the carried vote's mac is that of this epoch
  BranchVote vote;
};

struct CommitAsked {
  ReplyToken token = 0;
  TransactionId id;
  std::vector<BranchClaim> branches;
  RunningMs deadline = 0;
  bool wait_applied = true;
  std::string key;
};
struct AbortAsked {
  ReplyToken token = 0;
  TransactionId id;
  std::vector<BranchClaim> branches;
  std::string message;
};
struct OutcomeAsked {
  ReplyToken token = 0;
  TransactionId id;
  RunningMs until = 0;  // waits so long while pending
};
struct KeyAsked {
  ReplyToken token = 0;
  std::string key;
  bool close = false;
};
struct LeaseAsked {
  ReplyToken token = 0;
  std::uint32_t count = 0;
};
// What a participant says of itself; `seen` is what it saw of this coordinator (law L7c).
struct EnrolmentAsked {
  ReplyToken token = 0;
  ParticipantRecord participant;  // index is the registry's to give
  std::string instance;
  SeenPosition seen;
};
struct InquiryItem {
  TransactionId id;
  std::uint32_t xid = 0;  // 32 low bits, as pg_prepared_xacts shows
};
struct Inquired {
  ReplyToken token = 0;
  std::string participant;
  std::vector<InquiryItem> items;
  SeenPosition seen;
};
struct VoteArrived {
  LocalId id;
  ParticipantIndex participant = 0;
  std::string mark;
  BranchVote vote;
};
enum class Finished : std::uint8_t { kDone = 1, kWorking = 2, kHeuristic = 3, kHazard = 4 };
struct FinishArrived {
  LocalId id;
  ParticipantIndex participant = 0;
  bool commit = true;
  Finished finished = Finished::kDone;
  std::string message;
};
// The channel has (lost) its connections. All calls under way when it went down are lost.
struct ParticipantUp {
  ParticipantIndex participant = 0;
};
struct ParticipantDown {
  ParticipantIndex participant = 0;
};
// Everything appended up to record number `up_to` is durable; it ends at batch `batch`.
struct RecordsDurable {
  std::uint64_t up_to = 0;
  std::uint64_t batch = 0;
};
// Whether the log has room for further commit records.
struct LogRoom {
  bool enough = true;
};
struct TimePassed {
  RunningMs now = 0;
  std::int64_t unix_ms = 0;  // for people, in heuristics
};
struct DrainAsked {
  ReplyToken token = 0;
};
struct ForgetAsked {
  ReplyToken token = 0;
  std::string participant;
};
struct RebindAsked {
  ReplyToken token = 0;
  std::string participant;
};
struct AcceptGapAsked {
  ReplyToken token = 0;
  std::string reason;
};
struct DiscardReportAsked {
  ReplyToken token = 0;
  std::string participant;
};

// A person settles a branch ahead of the decision, or without it: recorded for ever.
struct HeuristicAsked {
  ReplyToken token = 0;
  LocalId id;
  std::string participant;
  std::string what;
};

using Event =
    std::variant<CommitAsked, AbortAsked, OutcomeAsked, KeyAsked, LeaseAsked, EnrolmentAsked,
                 Inquired, VoteArrived, FinishArrived, ParticipantUp, ParticipantDown,
                 RecordsDurable, LogRoom, TimePassed, DrainAsked, ForgetAsked, RebindAsked,
                 AcceptGapAsked, DiscardReportAsked, HeuristicAsked>;

// One line, stable: transcripts are made of it (tests/protocol).
std::string DebugString(const Event& event);

}  // namespace troth
