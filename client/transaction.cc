// See transaction.h.
#include "client/transaction.h"

#include <algorithm>
#include <chrono>
#include <thread>
#include <utility>

#include "client/backoff.h"
#include "client/client_core.h"
#include "client/transaction_rep.h"
#include "common/check.h"
#include "common/traceparent.h"

namespace troth {
namespace {

// An abort is told to the coordinator within this, or not at all.
constexpr std::int64_t kAbortTimeoutMs = 1000;

}  // namespace

// ---- The inside.

Transaction::Rep::Rep(ClientCore* core, std::string id, const Deadline& deadline,
                      const TransactionOptions& options)
    : core(core), id(std::move(id)), deadline(deadline), options(options) {}

Status Transaction::Rep::StartWork(const std::string& participant, const WorkOptions& work_options,
                                   wire::Context* context, std::string* instance) {
  MutexLock lock(&mutex);
  if (ended) {
    return Status(Code::kRefused, "transaction " + id + " has ended: no more work goes into it");
  }
  if (failure) return failure->ToStatus();
  const std::int64_t left_ms = deadline.left_ms();
  if (left_ms == 0) {
    failure = MakeFailure(wire::Reason::DEADLINE,
                          "the deadline of transaction " + id + " passed before its work was done",
                          true, participant);
    return failure->ToStatus();
  }
  BranchState& branch = branches[participant];
  // Programmer errors: two threads in one branch, or work after the one declared the last.
  TROTH_CHECK(!branch.busy);
  TROTH_CHECK(!branch.vote);
  branch.busy = true;
  context->transaction_id = id;
  context->work = branch.works;
  context->deadline_ms = left_ms;
  if (branch.opened) {
    context->__set_mark(branch.mark);
  } else {
    branch.read_only = options.read_only || work_options.read_only;
    if (options.isolation) context->__set_isolation(*options.isolation);
    if (branch.read_only) context->__set_read_only(true);
  }
  if (!options.traceparent.empty()) context->__set_traceparent(options.traceparent);
  if (work_options.last) context->__set_last(true);
  *instance = branch.instance;
  return OkStatus();
}

Status Transaction::Rep::Fail(const std::string& participant, Failure why, bool unheard) {
  MutexLock lock(&mutex);
  BranchState& branch = branches[participant];
  branch.busy = false;
  branch.unheard = unheard && !branch.opened;
  if (!failure) failure = why;
  return why.ToStatus();
}

Status Transaction::Rep::TakeAnswer(const std::string& participant, const wire::Context& context,
                                    const wire::Branch& answer) {
  std::string wrong;
  {
    MutexLock lock(&mutex);
    BranchState& branch = branches[participant];
    if (answer.participant != participant) {
      wrong = "the answer is from participant '" + answer.participant + "'";
    } else if (answer.works != context.work + 1) {
      wrong = "work " + std::to_string(context.work) + " was answered with " +
              std::to_string(answer.works) + " pieces of work done";
    } else if (answer.mark.empty() || (branch.opened && answer.mark != branch.mark)) {
      wrong = "the answer bears another mark";
    } else if (answer.__isset.vote != (context.__isset.last && context.last)) {
      wrong = answer.__isset.vote ? "work that is not the last was answered with a vote"
                                  : "the last work was answered without a vote";
    } else {
      branch.busy = false;
      branch.opened = true;
      branch.mark = answer.mark;
      branch.instance = answer.instance;
      branch.works = answer.works;
      if (answer.__isset.vote) branch.vote = answer.vote;
    }
  }
  if (!wrong.empty()) {
    return Fail(participant,
                MakeFailure(wire::Reason::OUT_OF_NUMBER,
                            "participant " + participant + ": " + wrong, true, participant));
  }
  if (context.work == 0) core->CountBranch(answer.instance, +1);
  if (answer.__isset.vote && answer.vote.ballot != wire::Ballot::PREPARED &&
      answer.vote.ballot != wire::Ballot::READ_ONLY) {
    const wire::Vote& vote = answer.vote;
    Failure refused =
        MakeFailure(vote.__isset.reason ? vote.reason : wire::Reason::DATABASE, vote.message,
                    vote.__isset.retryable && vote.retryable, participant);
    refused.sqlstate = vote.sqlstate;
    return Fail(participant, std::move(refused));
  }
  return OkStatus();
}

std::vector<wire::BranchClaim> Transaction::Rep::Claims() {
  MutexLock lock(&mutex);
  std::vector<wire::BranchClaim> claims;
  for (const auto& [participant, branch] : branches) {
    if (branch.unheard) continue;
    wire::BranchClaim claim;
    claim.participant = participant;
    claim.mark = branch.mark;
    claim.works = branch.works;
    claim.instance = branch.instance;
    if (branch.vote) claim.__set_vote(*branch.vote);
    if (branch.read_only) claim.__set_read_only(true);
    claims.push_back(std::move(claim));
  }
  return claims;
}

void Transaction::Rep::Forget() {
  std::map<std::string, BranchState> gone;
  {
    MutexLock lock(&mutex);
    gone.swap(branches);
  }
  for (const auto& [participant, branch] : gone) {
    if (branch.opened) core->CountBranch(branch.instance, -1);
  }
}

void Transaction::Rep::SendAbort() {
  wire::AbortRequest request;
  request.transaction_id = id;
  // Also those whose first work was not answered: a branch may be there. Not those that surely
  // were not begun: where load is refused most attempts end so, and their aborts would keep those
  // waiting that give places back.
  request.branches = Claims();
  if (request.branches.empty()) return;
  {
    MutexLock lock(&mutex);
    if (failure) request.__set_message(failure->message);
  }
  wire::Outcome outcome;
  // No answer is no harm: without a commit call the lease's end aborts, and deadlines release
  // the branches.
  core->TryCoordinator(Deadline::In(kAbortTimeoutMs), [&](wire::CoordinatorClient& coordinator) {
    coordinator.abort(outcome, request);
  });
}

Outcome Transaction::Rep::Unknown(std::string why) const {
  Outcome outcome;
  outcome.kind = Outcome::Kind::kUnknown;
  outcome.transaction_id = id;
  outcome.failure.reason = wire::Reason::NOT_SERVING;
  outcome.failure.message = "the coordinator did not tell the outcome before the deadline (" + why +
                            "); ask it for the outcome of " + id;
  return outcome;
}

Outcome Transaction::Rep::AfterRefusal(const wire::Refused& refusal, bool heard) {
  // Another list is bound to the id: somebody else asked to commit it.
  const bool foreign = refusal.reason == wire::Reason::OTHER_PARTICIPANTS;
  if (!heard && !foreign) {
    // Surely not done, and this id is never asked to commit again.
    Failure failure = FailureOf(refusal, "");
    if (refusal.reason == wire::Reason::NOT_LEASED || refusal.reason == wire::Reason::NOT_MINE) {
      failure.retryable = true;  // under an id of the coordinator's present life
    }
    SendAbort();
    return Outcome::Aborted(id, std::move(failure));
  }
  // An earlier call may have been heard; this refusal speaks of the later one only.
  wire::Outcome outcome;
  const CallReport report = core->TryCoordinator(
      deadline, [&](wire::CoordinatorClient& coordinator) { coordinator.outcome(outcome, id, 0); });
  if (!report.ok()) return Unknown(refusal.message);
  Outcome told = Outcome::FromWire(outcome);
  if (foreign && told.ok()) {  // that is not what was asked for here
    Outcome unknown = Unknown(refusal.message);
    unknown.failure.reason = refusal.reason;
    unknown.failure.message =
        id + " was committed with another list of participants: two callers " +
        "used one id. What became of the work done here is told by no outcome";
    return unknown;
  }
  return told.final() ? told : Unknown(refusal.message);
}

Outcome Transaction::Rep::AskCommit(Wait wait) {
  wire::CommitRequest request;
  request.transaction_id = id;
  request.branches = Claims();
  request.wait = wait == Wait::kApplied ? wire::Wait::APPLIED : wire::Wait::DECIDED;
  if (!options.key.empty()) request.__set_key(options.key);
  if (!options.traceparent.empty()) request.__set_traceparent(options.traceparent);
  bool heard = false;  // a call may have reached the coordinator, its answer did not reach us
  std::optional<wire::Refused> refusal;
  std::string why;
  Backoff backoff(10, 200);
  for (;;) {
    request.deadline_ms = std::max<std::int64_t>(1, deadline.left_ms());
    wire::Outcome outcome;
    const CallReport report = core->TryCoordinator(
        deadline,
        [&](wire::CoordinatorClient& coordinator) { coordinator.commit(outcome, request); });
    refusal.reset();
    switch (report.end) {
      case CallReport::End::kAnswered: {
        Outcome told = Outcome::FromWire(outcome);
        if (told.final()) return told;
        if (deadline.passed()) return told;
        heard = true;
        break;
      }
      case CallReport::End::kRefused:
        if (!PassesByItself(report.refusal.reason)) return AfterRefusal(report.refusal, heard);
        refusal = report.refusal;
        why = report.refusal.message;
        break;
      case CallReport::End::kNotSent: why = report.error; break;
      default:
        heard = true;
        why = report.error;
        break;
    }
    const std::int64_t left_ms = deadline.left_ms();
    if (left_ms == 0) {
      if (heard) return Unknown(why);
      if (refusal) return AfterRefusal(*refusal, heard);
      // No call left this process, and none will: only this object could have asked.
      SendAbort();
      return Outcome::Aborted(
          id,
          MakeFailure(wire::Reason::NOT_SERVING,
                      "the coordinator could not be asked to commit before the deadline: " + why,
                      true));
    }
    // Repeating is safe: the same list gives the same answer.
    std::this_thread::sleep_for(std::chrono::milliseconds(std::min(left_ms, backoff.NextMs())));
  }
}

void Transaction::Rep::Ended(const Outcome& as, std::int64_t end_ms) {
  TellIfSlow(as, end_ms);
  Forget();
  MutexLock lock(&mutex);
  ended_as = as;
}

void Transaction::Rep::TellIfSlow(const Outcome& outcome, std::int64_t end_ms) {
  const ClientOptions& wanted = core->options();
  const std::int64_t now_ms = BootMs();
  if (wanted.slow_ms <= 0 || !wanted.on_slow || now_ms - began_ms < wanted.slow_ms) return;
  std::string line = "slow transaction " + id + ": " + std::string(OutcomeName(outcome.kind)) +
                     " after " + std::to_string(now_ms - began_ms) +
                     " ms: until its end was asked " + std::to_string(end_ms - began_ms) + " (";
  {
    MutexLock lock(&mutex);
    for (const auto& [participant, branch] : branches) {
      line += "work at " + participant + " " + std::to_string(branch.work_ms) + ", ";
    }
  }
  line += "the rest its application's), commit or abort " + std::to_string(now_ms - end_ms);
  if (IsTraceparent(options.traceparent)) line += "; traceparent " + options.traceparent;
  wanted.on_slow(line);
}

// ---- The outside.

Transaction::Transaction(std::unique_ptr<Rep> rep) : rep_(std::move(rep)) {}
Transaction::Transaction(Transaction&&) noexcept = default;

Transaction& Transaction::operator=(Transaction&& other) noexcept {
  if (this != &other) {
    if (rep_ != nullptr) Abort();
    rep_ = std::move(other.rep_);
  }
  return *this;
}

Transaction::~Transaction() {
  if (rep_ != nullptr) Abort();
}

const std::string& Transaction::id() const { return rep_->id; }
std::int64_t Transaction::left_ms() const { return rep_->deadline.left_ms(); }

std::optional<Failure> Transaction::failure() const {
  MutexLock lock(&rep_->mutex);
  return rep_->failure;
}

Status Transaction::WorkRaw(const std::string& participant, const WorkOptions& options,
                            const RawWork& work) {
  Rep& rep = *rep_;
  if (!rep.core->OfThisProcess()) {
    return Status(Code::kRefused, "transaction " + rep.id + " belongs to the parent process");
  }
  wire::Context context;
  std::string instance;
  const std::int64_t from_ms = BootMs();
  TROTH_RETURN_IF_ERROR(rep.StartWork(participant, options, &context, &instance));
  std::unique_ptr<Connection> connection;
  if (std::optional<Failure> failure =
          rep.core->ConnectParticipant(participant, instance, rep.deadline, &connection)) {
    return rep.Fail(participant, *std::move(failure), /*unheard=*/true);
  }
  {
    // An abort must find the branch there, also when no answer tells where it is.
    MutexLock lock(&rep.mutex);
    rep.branches[participant].instance = connection->instance;
  }
  // Connecting may have taken time.
  context.deadline_ms = std::max<std::int64_t>(1, rep.deadline.left_ms());
  const ProtocolPointer protocol = connection->protocol();
  wire::Branch answer;
  CallReport report;
  try {
    report = connection->Run(rep.deadline.left_ms() + rep.core->options().grace_ms,
                             [&] { answer = work(protocol, context); });
  } catch (...) {
    // Not Thrift's, so the caller's own: the connection is closed, what was done is not known.
    (void)rep.Fail(participant,
                   MakeFailure(wire::Reason::APPLICATION, "the work ended with an exception", false,
                               participant));
    throw;
  }
  rep.core->Return(std::move(connection), report);
  {
    MutexLock lock(&rep.mutex);
    rep.branches[participant].work_ms += BootMs() - from_ms;
  }
  switch (report.end) {
    case CallReport::End::kAnswered: return rep.TakeAnswer(participant, context, answer);
    case CallReport::End::kRefused:
      return rep.Fail(participant, FailureOf(report.refusal, participant),
                      report.refusal.__isset.unheard && report.refusal.unheard);
    case CallReport::End::kOtherFault:
      return rep.Fail(participant,
                      MakeFailure(wire::Reason::APPLICATION, report.error, false, participant));
    default:
      // The work may have been done: it is not repeated, the transaction is.
      return rep.Fail(participant,
                      MakeFailure(rep.deadline.passed() ? wire::Reason::DEADLINE
                                                        : wire::Reason::DATABASE_UNAVAILABLE,
                                  "no answer from participant " + participant + ": " + report.error,
                                  true, participant));
  }
}

Outcome Transaction::Commit(Wait wait) {
  Rep& rep = *rep_;
  if (!rep.core->OfThisProcess()) {
    return rep.Unknown("it belongs to the parent process, which may commit it");
  }
  std::optional<Failure> failure;
  bool empty;
  {
    MutexLock lock(&rep.mutex);
    TROTH_CHECK(!rep.ended || rep.ended_as.has_value());  // two threads at once: a programmer error
    if (rep.ended) return *rep.ended_as;
    rep.ended = true;
    if (!rep.failure && !rep.branches.empty() && rep.deadline.passed()) {
      rep.failure = MakeFailure(wire::Reason::DEADLINE,
                                "the deadline passed before the commit was asked for", true, "");
    }
    failure = rep.failure;
    empty = rep.branches.empty();
    for (const auto& [participant, branch] : rep.branches) TROTH_CHECK(!branch.busy);
  }
  const std::int64_t end_ms = BootMs();
  Outcome outcome;
  if (failure) {
    // Never asked to commit, so it never will be: only this object could have asked.
    rep.SendAbort();
    outcome = Outcome::Aborted(rep.id, *std::move(failure));
  } else if (empty) {
    outcome.kind = Outcome::Kind::kReadOnly;
    outcome.transaction_id = rep.id;
  } else {
    outcome = rep.AskCommit(wait);
  }
  rep.Ended(outcome, end_ms);
  return outcome;
}

void Transaction::Abort() {
  Rep& rep = *rep_;
  if (!rep.core->OfThisProcess()) return;
  Failure why = MakeFailure(wire::Reason::APPLICATION, "the application aborted it", false, "");
  {
    MutexLock lock(&rep.mutex);
    if (rep.ended) return;
    rep.ended = true;
    if (rep.failure) why = *rep.failure;
  }
  const std::int64_t end_ms = BootMs();
  rep.SendAbort();
  rep.Ended(Outcome::Aborted(rep.id, std::move(why)), end_ms);
}

}  // namespace troth
