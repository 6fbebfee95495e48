// BranchTable: what a finish does to a branch, prepared or not (laws L8, L11, L13, L14). Work and
// prepare, and how branches end, are in branch_table.cc. docs/protocol.md, "States".
#include <algorithm>

#include "common/check.h"
#include "common/mark.h"
#include "participant/branch_table.h"
#include "participant/branch_table_state.h"

namespace troth {

using std::chrono::milliseconds;

namespace {

// How long a branch's own vote is taken for what is prepared under its GID.
constexpr milliseconds kTrust{1'000};

FinishResult Working(std::string why) {
  return FinishResult{FinishResult::Kind::kWorking, std::move(why), ""};
}

FinishResult Done() { return FinishResult{FinishResult::Kind::kDone, "", ""}; }

}  // namespace

std::vector<FinishResult> BranchTable::Finish(std::span<const FinishRequest> requests,
                                              milliseconds wait) {
  std::vector<FinishResult> results(requests.size());
  const std::int64_t deadline_ms = clock_->NowMs() + wait.count();
  FinishOnce(requests, wait, &results);
  // What was being worked on ends soon after it was cancelled: look once more.
  std::vector<std::size_t> again;
  {
    MutexLock lock(&mutex_);
    for (std::size_t i = 0; i < requests.size(); ++i) {
      if (results[i].kind != FinishResult::Kind::kWorking) continue;
      for (;;) {
        const auto found = branches_.find(requests[i].transaction_id);
        if (found == branches_.end()) {
          again.push_back(i);
          break;
        }
        const milliseconds left(deadline_ms - clock_->NowMs());
        if (left <= milliseconds(0) || !found->second->doom.has_value()) break;
        changed_.WaitFor(&mutex_, left);
      }
    }
  }
  if (again.empty() || wait <= milliseconds(0)) return results;
  std::vector<FinishRequest> repeated;
  for (const std::size_t i : again) repeated.push_back(requests[i]);
  std::vector<FinishResult> answers(repeated.size());
  const std::int64_t left_ms = std::max<std::int64_t>(deadline_ms - clock_->NowMs(), 0);
  FinishOnce(repeated, milliseconds(left_ms), &answers);
  for (std::size_t i = 0; i < again.size(); ++i) results[again[i]] = answers[i];
  return results;
}

void BranchTable::FinishOnce(std::span<const FinishRequest> requests, milliseconds wait,
                             std::vector<FinishResult>* results) {
  std::vector<FinishItem> items;
  std::vector<std::size_t> places;
  Leaving leaving;
  {
    MutexLock lock(&mutex_);
    for (std::size_t i = 0; i < requests.size(); ++i) {
      FinishOrder order;
      std::optional<FinishResult> early = requests[i].commit
                                              ? StartFinish(requests[i], &order, &leaving)
                                              : StartAbort(requests[i], &order, &leaving);
      if (early.has_value()) {
        (*results)[i] = *std::move(early);
      } else {
        order.background = requests[i].seen_xid.has_value();
        items.push_back({std::move(order), {}});
        places.push_back(i);
      }
    }
  }
  Leave(&leaving);
  if (items.empty()) return;
  resource_manager_->Finish(items, wait);
  {
    MutexLock lock(&mutex_);
    for (std::size_t i = 0; i < items.size(); ++i) {
      TakeFinished(requests[places[i]], items[i].result);
      (*results)[places[i]] = items[i].result;
    }
  }
  changed_.NotifyAll();
}

// A result, or nullopt: `order` goes to the database.
std::optional<FinishResult> BranchTable::StartFinish(const FinishRequest& request,
                                                     FinishOrder* order, Leaving* leaving) {
  const std::string& id = request.transaction_id;
  TROTH_CHECK(request.evidence.has_value());
  *order = {GidOf(id), true, request.evidence, {}, {}};
  const auto found = branches_.find(id);
  if (found == branches_.end()) {
    const auto past = ended_.find(id);
    const bool known = past != ended_.end() && past->second.how == Ended::How::kCommitted;
    if (known && !request.seen_xid.has_value()) return Done();
    return std::nullopt;
  }
  Branch* branch = found->second.get();
  switch (branch->state) {
    case State::kFinishing: return Working("under way");
    case State::kPreparing: return Working("PREPARE is under way");
    case State::kPrepared:
      // Trust is short: this process may have been stopped for long, and another instance have
      // finished the branch and prepared another under its GID.
      if (branch->evidence.xid == request.evidence->xid &&
          clock_->NowMs() - branch->prepared_ms < kTrust.count()) {
        order->generation = branch->generation;
      }
      branch->Enter(State::kFinishing, clock_->NowMs());
      return std::nullopt;
    default: break;
  }
  // What is open here has not voted; the vote is of an earlier branch under this id.
  TROTH_MARK("finish-finds-another-branch-open");
  const bool idle = branch->state == State::kActive || branch->state == State::kFailed;
  Doom(branch, Refuse(Refused::kEnded, "another branch of " + id + " was decided"), leaving);
  if (idle) return std::nullopt;
  return Working("work is under way");
}

std::optional<FinishResult> BranchTable::StartAbort(const FinishRequest& request,
                                                    FinishOrder* order, Leaving* leaving) {
  const std::string& id = request.transaction_id;
  *order = {GidOf(id), false, request.evidence, request.seen_xid, {}};
  const Refusal aborted = Refuse(Refused::kEnded, "transaction " + id + " is aborted", true);
  const auto found = branches_.find(id);
  if (found == branches_.end()) {
    const auto past = ended_.find(id);
    if (past == ended_.end()) {
      // Work that is still on its way must find the id ended.
      End(id, {Ended::How::kRolledBack, false, 0, aborted});
      return std::nullopt;
    }
    if (past->second.how == Ended::How::kCommitted && !request.seen_xid.has_value()) {
      return FinishResult{FinishResult::Kind::kHeuristic,
                          "transaction " + id + " is already committed here", ""};
    }
    if (past->second.settled && !request.seen_xid.has_value()) return Done();
    return std::nullopt;
  }
  Branch* branch = found->second.get();
  switch (branch->state) {
    case State::kFinishing: return Working("under way");
    case State::kPreparing: branch->doom = aborted; return Working("PREPARE is under way");
    case State::kPrepared:
      if (request.seen_xid.has_value() &&
          *request.seen_xid != static_cast<std::uint32_t>(branch->evidence.xid)) {
        return Working("another branch is prepared under this id by now");
      }
      if (!order->evidence.has_value()) order->evidence = branch->evidence;
      branch->Enter(State::kFinishing, clock_->NowMs());
      return std::nullopt;
    default: break;
  }
  const bool idle = branch->state == State::kActive || branch->state == State::kFailed;
  Doom(branch, aborted, leaving);
  if (idle) return Done();
  // Prepared by work that does not come back (see LooksAfter), or by another instance.
  if (request.seen_xid.has_value()) return std::nullopt;
  return Working("work is under way, and is being cancelled");
}

void BranchTable::TakeFinished(const FinishRequest& request, const FinishResult& result) {
  const std::string& id = request.transaction_id;
  const auto found = branches_.find(id);
  if (found != branches_.end() && found->second->state != State::kFinishing) return;
  // Another branch of the id, which never voted, was rolled back by the sweep.
  const auto past = ended_.find(id);
  if (!request.commit && past != ended_.end() && past->second.how == Ended::How::kCommitted) return;
  const int works = found == branches_.end() ? 0 : found->second->works;
  switch (result.kind) {
    case FinishResult::Kind::kWorking:
      if (found != branches_.end()) found->second->state = State::kPrepared;
      return;
    case FinishResult::Kind::kDone:
      if (request.commit) {
        End(id, {Ended::How::kCommitted, true, works, {}});
      } else {
        End(id, {Ended::How::kRolledBack, true, works,
                 Refuse(Refused::kEnded, "transaction " + id + " is aborted", true)});
      }
      return;
    case FinishResult::Kind::kHeuristic:
    case FinishResult::Kind::kHazard:
      ++(result.kind == FinishResult::Kind::kHeuristic ? heuristics_ : hazards_);
      // Not settled: whoever orders it again gets the evidence again.
      End(id, {Ended::How::kRolledBack, false, works, Refuse(Refused::kEnded, result.message)});
      return;
  }
}

}  // namespace troth
