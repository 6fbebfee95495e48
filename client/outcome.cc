// See outcome.h.
#include "client/outcome.h"

#include <utility>

namespace troth {

Status Failure::ToStatus() const {
  using R = wire::Reason;
  Code code = Code::kRefused;
  switch (reason) {
    case R::INVALID:
    case R::VERSION_MISMATCH: code = Code::kInvalid; break;
    case R::OVERLOADED: code = Code::kOverloaded; break;
    case R::DEADLINE: code = Code::kDeadline; break;
    case R::DATABASE_UNAVAILABLE:
    case R::NOT_SERVING: code = Code::kUnavailable; break;
    case R::UNKNOWN_PARTICIPANT: code = Code::kNotFound; break;
    case R::FORBIDDEN: code = Code::kForbidden; break;
    default: break;
  }
  return Status(code, message);
}

std::string_view OutcomeName(Outcome::Kind kind) {
  switch (kind) {
    case Outcome::Kind::kCommitted: return "committed";
    case Outcome::Kind::kAborted: return "aborted";
    case Outcome::Kind::kReadOnly: return "read-only";
    case Outcome::Kind::kPending: return "pending";
    case Outcome::Kind::kExpired: return "expired";
    case Outcome::Kind::kUnknown: return "unknown";
  }
  return "?";
}

std::string ReasonName(wire::Reason::type reason) {
  const auto found = wire::_Reason_VALUES_TO_NAMES.find(reason);
  return found == wire::_Reason_VALUES_TO_NAMES.end() ? "?" : found->second;
}

std::string Outcome::ToString() const {
  std::string text(OutcomeName(kind));
  if (!transaction_id.empty()) text += " " + transaction_id;
  if (kind == Kind::kCommitted && !unapplied.empty()) {
    text += ", not applied yet, or not known to be, at";
    for (const std::string& participant : unapplied) text += " " + participant;
  }
  if (kind == Kind::kAborted || kind == Kind::kUnknown) {
    text += ":";
    if (!failure.participant.empty()) text += " " + failure.participant + ":";
    text += " " + failure.message;
    if (kind == Kind::kAborted && failure.retryable) text += " (repeating it may succeed)";
  }
  return text;
}

Outcome Outcome::Aborted(std::string transaction_id, Failure failure) {
  Outcome outcome;
  outcome.kind = Kind::kAborted;
  outcome.transaction_id = std::move(transaction_id);
  outcome.failure = std::move(failure);
  return outcome;
}

Outcome Outcome::FromWire(const wire::Outcome& from) {
  Outcome outcome;
  switch (from.kind) {
    case wire::OutcomeKind::COMMITTED: outcome.kind = Kind::kCommitted; break;
    case wire::OutcomeKind::ABORTED: outcome.kind = Kind::kAborted; break;
    case wire::OutcomeKind::READ_ONLY: outcome.kind = Kind::kReadOnly; break;
    case wire::OutcomeKind::PENDING: outcome.kind = Kind::kPending; break;
    case wire::OutcomeKind::EXPIRED: outcome.kind = Kind::kExpired; break;
    default: outcome.kind = Kind::kUnknown; break;  // a word of a later version
  }
  outcome.transaction_id = from.transaction_id;
  outcome.unapplied = from.unapplied;
  if (from.__isset.reason) outcome.failure.reason = from.reason;
  outcome.failure.message = from.message;
  outcome.failure.retryable = from.__isset.retryable && from.retryable;
  outcome.failure.participant = from.participant;
  outcome.failure.sqlstate = from.sqlstate;
  return outcome;
}

}  // namespace troth
