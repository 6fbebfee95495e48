// See client.h.
#include "client/client.h"

#include <algorithm>
#include <chrono>
#include <thread>
#include <utility>

#include "client/backoff.h"
#include "client/boot_time.h"
#include "client/client_core.h"
#include "client/transaction_rep.h"
#include "common/check.h"
#include "common/transaction_id.h"

namespace troth {
namespace {

Status StatusOf(const CallReport& report) {
  switch (report.end) {
    case CallReport::End::kAnswered: return OkStatus();
    case CallReport::End::kRefused: return FailureOf(report.refusal, "").ToStatus();
    case CallReport::End::kNotSent:
      return Status(Code::kUnavailable, "the coordinator cannot be reached: " + report.error);
    default: return Status(Code::kUnknown, report.error);
  }
}

Result<Outcome> OutcomeOf(const CallReport& report, const wire::Outcome& outcome) {
  if (!report.ok()) return StatusOf(report);
  return Outcome::FromWire(outcome);
}

std::optional<Failure> CheckOptions(const TransactionOptions& options) {
  if (options.deadline_ms <= 0) {
    return MakeFailure(wire::Reason::INVALID,
                       "the deadline of a transaction must lie ahead, not at " +
                           std::to_string(options.deadline_ms) + " ms",
                       false);
  }
  if (options.key.size() > kMaxBusinessKeyBytes) {
    return MakeFailure(wire::Reason::INVALID,
                       "a business key has at most " + std::to_string(kMaxBusinessKeyBytes) +
                           " bytes, this one " + std::to_string(options.key.size()),
                       false);
  }
  return std::nullopt;
}

}  // namespace

Client::Client(ClientOptions options)
    : options_(std::move(options)), core_(new ClientCore(options_)) {}

Client::~Client() {
  ClientCore* const core = core_.load();
  // A forked child's copy of its parent's core is left alone: closing its connections would
  // shut down the parent's.
  if (core->OfThisProcess()) delete core;
}

ClientCore* Client::core() {
  ClientCore* core = core_.load(std::memory_order_acquire);
  if (core->OfThisProcess()) return core;
  // First use after a fork. The parent's core stays where it is, for ever.
  ClientCore* const fresh = new ClientCore(options_);
  if (core_.compare_exchange_strong(core, fresh)) return fresh;
  delete fresh;
  return core;
}

Result<Transaction> Client::Begin(const TransactionOptions& options, Failure* why) {
  ClientCore* const core = this->core();
  const Deadline deadline = Deadline::In(options.deadline_ms);
  std::string id;
  std::optional<Failure> failure = CheckOptions(options);
  if (!failure) failure = core->TakeId(deadline, &id);
  if (failure) {
    if (why != nullptr) *why = *failure;
    return failure->ToStatus();
  }
  return Transaction(std::make_unique<Transaction::Rep>(core, std::move(id), deadline, options));
}

Result<Outcome> Client::AskOutcome(const std::string& transaction_id, std::int64_t wait_ms) {
  wire::Outcome outcome;
  const Deadline deadline = Deadline::In(std::max<std::int64_t>(1000, wait_ms));
  const Deadline waiting = Deadline::In(wait_ms);
  const CallReport report =
      core()->AskCoordinator(deadline, [&](wire::CoordinatorClient& coordinator) {
        coordinator.outcome(outcome, transaction_id,
                            std::min<std::int64_t>(30'000, waiting.left_ms()));
      });
  return OutcomeOf(report, outcome);
}

Result<Outcome> Client::AskOutcomeOfKey(const std::string& key, std::int64_t timeout_ms) {
  wire::Outcome outcome;
  const CallReport report = core()->AskCoordinator(
      Deadline::In(timeout_ms),
      [&](wire::CoordinatorClient& coordinator) { coordinator.outcome_of_key(outcome, key); });
  return OutcomeOf(report, outcome);
}

Result<Outcome> Client::CloseKey(const std::string& key, std::int64_t timeout_ms) {
  wire::Outcome outcome;
  const CallReport report = core()->AskCoordinator(
      Deadline::In(timeout_ms),
      [&](wire::CoordinatorClient& coordinator) { coordinator.close_key(outcome, key); });
  return OutcomeOf(report, outcome);
}

Result<std::vector<wire::ParticipantAddress>> Client::Resolve(const std::vector<std::string>& names,
                                                              std::int64_t timeout_ms) {
  std::vector<wire::ParticipantAddress> places;
  const CallReport report = core()->AskCoordinator(
      Deadline::In(timeout_ms),
      [&](wire::CoordinatorClient& coordinator) { coordinator.resolve(places, names); });
  if (!report.ok()) return StatusOf(report);
  return places;
}

Status Client::CallRaw(const std::string& participant, std::int64_t timeout_ms,
                       const std::function<void(const ProtocolPointer&)>& call) {
  ClientCore* const core = this->core();
  const Deadline deadline = Deadline::In(timeout_ms);
  for (bool again = false;; again = true) {
    std::unique_ptr<Connection> connection;
    if (std::optional<Failure> failure =
            core->ConnectParticipant(participant, "", deadline, &connection)) {
      return failure->ToStatus();
    }
    const ProtocolPointer protocol = connection->protocol();
    const CallReport report =
        connection->Run(deadline.left_ms() + core->options().grace_ms, [&] { call(protocol); });
    core->Return(std::move(connection), report);
    if (report.end == CallReport::End::kRefused) {
      return FailureOf(report.refusal, participant).ToStatus();
    }
    if (report.ok() || again || deadline.passed() || report.end == CallReport::End::kOtherFault) {
      return StatusOf(report);
    }
  }
}

namespace {

// What one attempt came to, and whether the whole transaction may be repeated.
struct Attempt {
  Outcome outcome;
  bool repeat = false;
};

Attempt RunOnce(Client& client, const TransactionOptions& options,
                const std::function<Status(Transaction&)>& body, Wait wait) {
  Attempt attempt;
  Failure not_begun;
  Result<Transaction> transaction = client.Begin(options, &not_begun);
  if (!transaction.ok()) {
    attempt.repeat = not_begun.retryable;
    attempt.outcome = Outcome::Aborted("", std::move(not_begun));
    return attempt;
  }
  const Status done = body(*transaction);
  if (!done.ok()) transaction->Abort();
  attempt.outcome = transaction->Commit(wait);  // aborts if work failed; or tells how it ended
  if (attempt.outcome.kind != Outcome::Kind::kAborted) return attempt;
  Failure& failure = attempt.outcome.failure;
  attempt.repeat = failure.retryable;
  // For no other reason than the body's own error: that says more.
  if (!done.ok() && failure.reason == wire::Reason::APPLICATION && failure.participant.empty()) {
    failure.message = done.message();
  }
  return attempt;
}

}  // namespace

Outcome RunTransaction(Client& client, const TransactionOptions& options,
                       const std::function<Status(Transaction&)>& body, Wait wait,
                       const RetryOptions& retry) {
  const Deadline end = Deadline::In(retry.total_ms);
  Backoff backoff(retry.first_backoff_ms, retry.max_backoff_ms);
  Backoff overloaded(retry.first_overloaded_backoff_ms, retry.max_overloaded_backoff_ms);
  TransactionOptions each = options;
  for (;;) {
    each.deadline_ms = std::min(options.deadline_ms, std::max<std::int64_t>(1, end.left_ms()));
    const Attempt attempt = RunOnce(client, each, body, wait);
    if (!attempt.repeat) return attempt.outcome;
    const bool load = attempt.outcome.failure.reason == wire::Reason::OVERLOADED;
    const std::int64_t pause_ms = (load ? overloaded : backoff).NextMs();
    if (pause_ms >= end.left_ms()) return attempt.outcome;
    std::this_thread::sleep_for(std::chrono::milliseconds(pause_ms));
  }
}

}  // namespace troth
