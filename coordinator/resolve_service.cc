// See resolve_service.h.
#include "coordinator/resolve_service.h"

#include <algorithm>
#include <cstdio>

#include "common/codec.h"
#include "recovery/heuristics.h"

namespace troth {
namespace {

// What is kept in the log has a bound; so has what people say.
constexpr std::size_t kMaxWho = 128;
constexpr std::size_t kMaxReason = 512;

// Fingerprint of the order and of all that it rests on.
std::string TokenOf(const wire::TransactionReport& report, const wire::ResolveRequest& request) {
  std::string text = report.transaction_id + '\n' + report.state + '\n' +
                     (request.commit ? "commit" : "abort") + '\n' +
                     (request.decision_lost ? "lost" : "") + '\n' + request.reason + '\n';
  for (const wire::BranchReport& branch : report.branches) {
    text += branch.participant + ' ' + branch.state + ' ' +
            (branch.__isset.prepared ? std::to_string(branch.prepared.xid) : "-") + '\n';
  }
  char token[16];
  std::snprintf(token, sizeof token, "%08x", Crc32c(text));
  return token;
}

bool Unfinished(const wire::BranchReport& branch) {
  return branch.state != "acknowledged" && branch.state != "read-only";
}

void Abort(const wire::TransactionReport& report, ResolvePlan* plan) {
  plan->bind_abort = true;
  plan->steps.push_back("the coordinator aborts " + report.transaction_id +
                        " for good: a commit of it is refused from then on");
  for (const wire::BranchReport& branch : report.branches) {
    if (!Unfinished(branch)) continue;
    plan->branches.push_back(branch);
    plan->steps.push_back("recorded as a heuristic at " + branch.participant + "; it rolls back " +
                          (branch.up ? "at once" : "when it is back"));
  }
  if (plan->branches.empty()) {
    plan->steps.push_back(
        "nothing is known to be held of it: who orders it is told in the coordinator's log only");
  }
}

// "east (it is down: ask its database)", of those that could not be asked.
std::string Unknown(const wire::TransactionReport& report) {
  std::string text;
  for (const wire::BranchReport& branch : report.branches) {
    if (branch.state != "unknown") continue;
    text += (text.empty() ? "" : ", ") + branch.participant + " (" + branch.unseen + ")";
  }
  return text;
}

// By the participants that hold it, without a coordinator's answer.
void Settle(const wire::TransactionReport& report, bool commit, ResolvePlan* plan) {
  plan->settle = true;
  for (const wire::BranchReport& branch : report.branches) {
    if (!branch.__isset.prepared || branch.state == "left-out") continue;
    plan->branches.push_back(branch);
    plan->steps.push_back(std::string("recorded as a heuristic; ") +
                          (commit ? "COMMIT" : "ROLLBACK") + " PREPARED '" + branch.gid +
                          "' (xid " + std::to_string(branch.prepared.xid) + ") at " +
                          branch.participant);
  }
  const std::string unknown = Unknown(report);
  if (plan->steps.empty() && !unknown.empty()) {
    plan->refused = "who could be asked holds nothing of it, and nobody knows what is held by " +
                    unknown +
                    ". Repeat it when they can be asked; one that never can: docs/operations.md, "
                    "\"Who could not be asked\"";
  }
}

}  // namespace

ResolvePlan PlanResolve(const wire::TransactionReport& report,
                        const wire::ResolveRequest& request) {
  ResolvePlan plan;
  plan.token = TokenOf(report, request);
  plan.order = OrderText(request.commit, request.who.substr(0, kMaxWho),
                         request.reason.substr(0, kMaxReason));
  const std::string& state = report.state;
  if (request.who.empty() || request.reason.empty()) {
    plan.refused = "an order names who gives it, and why";
    return plan;
  }
  const bool decided = state == "committed" || state == "deciding";
  const bool lost = state == "expired" || state == "not-mine";
  if (lost && !request.decision_lost) {
    plan.refused = "its decision is not known here (" + state +
                   "). Only when nobody who could know it is left may a person decide: look first "
                   "whether another participant committed it, then say so with --decision_lost";
  } else if (lost) {
    Settle(report, request.commit, &plan);
  } else if (decided && !request.commit) {
    plan.refused =
        "it is decided to commit, and that is recorded: no order goes against it. " + report.why;
  } else if (decided && state == "committed" && report.branches.empty()) {
    plan.steps.clear();
  } else if (decided) {
    // Delivered by itself, unless the evidence of its branches is kept no more.
    bool delivered = true;
    for (const wire::BranchReport& branch : report.branches) {
      delivered = delivered && branch.state != "unheard-of" && branch.state != "unknown";
    }
    if (!delivered) Settle(report, /*commit=*/true, &plan);
  } else if (request.commit) {
    plan.refused = state == "aborted"
                       ? "it is aborted, and an abort binds"
                       : "it is not decided, and the coordinator that decides it is here: nobody "
                         "else may commit it. " +
                             report.why;
  } else if (state != "aborted") {
    Abort(report, &plan);
  }
  return plan;
}

std::string GiverOf(const std::string& certificate, const std::string& who) {
  if (certificate.empty() || who.empty()) return certificate + who;
  const std::size_t room = kMaxWho - std::min(kMaxWho, certificate.size() + 3);
  return certificate + " (" + who.substr(0, room) + ")";
}

}  // namespace troth
