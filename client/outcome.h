// What an application is told of its transaction (docs/protocol.md, law L10): a value that is
// never wrong. Knows neither how it was decided nor how it came here.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "common/status.h"
#include "coordinator_types.h"
#include "troth_types.h"

namespace troth {

// Why a transaction, or a piece of its work, did not go through.
struct Failure {
  wire::Reason::type reason = wire::Reason::APPLICATION;
  std::string message;      // for people: names the thing, the reason and what to do
  bool retryable = false;   // repeating the *whole* transaction may succeed
  std::string participant;  // whose branch it was; empty where that is not known
  std::string sqlstate;     // PostgreSQL's, where one is known

  // As a status: kRefused, kOverloaded, kUnavailable, kDeadline, kInvalid, kForbidden or
  // kNotFound, by the reason.
  Status ToStatus() const;
};

struct Outcome {
  enum class Kind {
    kCommitted,  // every branch commits; `unapplied` names participants where that is to come, or
                 // not known
    kAborted,    // nothing takes or will take effect anywhere; `failure` says why
    kReadOnly,   // every branch was read-only (or there was none): nothing was to be decided
    kPending,    // the coordinator has not decided yet: ask Client::AskOutcome
    kExpired,    // so old that its outcome is no longer kept
    kUnknown,    // a commit call was sent, and nobody could tell what became of it before the
                 // deadline: ask Client::AskOutcome with transaction_id. Never guess.
  };
  Kind kind = Kind::kAborted;
  // Empty when not even an id could be had: nothing was begun.
  std::string transaction_id;
  std::vector<std::string> unapplied;  // kCommitted
  Failure failure;                     // kAborted, kUnknown

  bool committed() const { return kind == Kind::kCommitted; }
  // kCommitted or kReadOnly: what was read and written holds.
  bool ok() const { return committed() || kind == Kind::kReadOnly; }
  // True unless asking again may give another kind.
  bool final() const { return kind != Kind::kPending && kind != Kind::kUnknown; }
  // One line for people.
  std::string ToString() const;

  static Outcome Aborted(std::string transaction_id, Failure failure);
  static Outcome FromWire(const wire::Outcome& outcome);
};

// `committed`, `aborted`, `read-only`, `pending`, `expired`, `unknown`.
std::string_view OutcomeName(Outcome::Kind kind);

// `CONFLICT`, ...: the wire's name.
std::string ReasonName(wire::Reason::type reason);

}  // namespace troth
