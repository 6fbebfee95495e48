// What an administrator's order to settle a transaction comes to, given what is known of it: what
// would be done, or why not. A pure table; who carries it out is coordinator_service. Decides
// nothing that is recorded otherwise. docs/operations.md, "Settle by hand".
#pragma once

#include <string>
#include <vector>

#include "coordinator_types.h"

namespace troth {

struct ResolvePlan {
  std::string refused;                       // why nothing may be done; empty: it may
  std::vector<std::string> steps;            // for people; none: there is nothing to do
  bool bind_abort = false;                   // first: the machine aborts the transaction (law L11)
  std::vector<wire::BranchReport> branches;  // then: each is recorded as a heuristic
  bool settle = false;                       // and settled at its participant
  std::string order;                         // `ordered to abort by WHO: REASON`
  std::string token;                         // of this order in this situation
};

ResolvePlan PlanResolve(const wire::TransactionReport& report, const wire::ResolveRequest& request);

// Who is recorded as the giver of an order: the name in the caller's certificate, which is proven,
// and in parentheses whom the caller names. Without a certificate (plain text) that alone.
std::string GiverOf(const std::string& certificate, const std::string& who);

}  // namespace troth
