// What comes out of the commit protocol, as values, for the monitor to carry out. No wire types,
// no clocks. docs/protocol.md has the table of messages these stand for.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "common/transaction_id.h"
#include "coordinator/protocol_events.h"
#include "recovery/in_doubt.h"
#include "recovery/log_record.h"

namespace troth {

struct SendPrepare {
  ParticipantIndex participant = 0;
  LocalId id;
  std::string mark;
  std::string instance;
  std::uint32_t works = 0;
  RunningMs deadline = 0;
};
struct SendFinish {
  ParticipantIndex participant = 0;
  LocalId id;
  bool commit = false;
  std::uint64_t xid = 0;
  std::uint32_t timeline = 0;
  std::uint64_t position = 0;
  std::string instance;  // where the branch was opened
  bool awaited = false;  // a client waits for it
};
// Hands a record to the log, in this order. The n-th since opening is record number n.
struct AppendRecord {
  LogRecord record;
  bool force = false;  // somebody waits for it to be durable
};
struct Connect {
  ParticipantIndex participant = 0;
  std::string name;
  std::string host;
  std::uint32_t port = 0;
  std::string instance;  // the process that is there now, if known: an older connection is dead
  // Which database the name is bound to: a process with another one is not connected to.
  DatabaseId database{};
  std::string database_address{};
};
struct Disconnect {
  ParticipantIndex participant = 0;
};

enum class OutcomeKind : std::uint8_t {
  kCommitted = 1,
  kAborted = 2,
  kReadOnly = 3,
  kPending = 4,
  kExpired = 5
};
std::string_view OutcomeKindName(OutcomeKind kind);
struct ReplyOutcome {
  ReplyToken token = 0;
  OutcomeKind kind = OutcomeKind::kPending;
  TransactionId id;
  std::vector<std::string> unapplied;
  Refusal refusal;  // kAborted: why
};
struct ReplyRefused {
  ReplyToken token = 0;
  Refusal refusal;
};
struct ReplyLease {
  ReplyToken token = 0;
  Epoch epoch;
  std::uint64_t first = 0;
  std::uint32_t count = 0;
  RunningMs granted = 0, end = 0;
};
struct ReplyEnrolled {
  ReplyToken token = 0;
  std::string participant;
  ParticipantIndex index = 0;
};
struct InquiryAnswer {
  TransactionId id;
  InDoubtAnswer answer = InDoubtAnswer::kPending;
  bool commit = false;  // kCommitted: the xid asked about is the recorded one
  std::uint64_t xid = 0;
  std::uint32_t timeline = 0;
  std::uint64_t position = 0;
};
struct ReplyAnswers {
  ReplyToken token = 0;
  std::vector<InquiryAnswer> answers;
};
struct ReplyDone {
  ReplyToken token = 0;
};

using Action =
    std::variant<SendPrepare, SendFinish, AppendRecord, Connect, Disconnect, ReplyOutcome,
                 ReplyRefused, ReplyLease, ReplyEnrolled, ReplyAnswers, ReplyDone>;
using Actions = std::vector<Action>;

// One line, stable: transcripts are made of it (tests/protocol).
std::string DebugString(const Action& action);

}  // namespace troth
