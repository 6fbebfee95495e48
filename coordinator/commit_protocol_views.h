// What the commit protocol shows of itself to status pages and tests; values only.
#pragma once

#include <string>
#include <vector>

#include "coordinator/protocol_events.h"

namespace troth {

struct BranchView {
  std::string participant;
  // `not-asked`, `asked`, `read-only`, `prepared`, `finishing`, `acknowledged`.
  const char* state = "";
  BranchRecord evidence;  // participant always; the rest once prepared
};

struct TransactionView {
  LocalId id;
  std::string state;                     // `preparing`, `deciding`, `committed`
  std::vector<std::string> waiting_for;  // names of participants
  RunningMs began = 0;
  std::vector<BranchView> branches;
  std::string key;
};

}  // namespace troth
