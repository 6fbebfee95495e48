// What a BranchTable keeps of each id: one branch under way, or how it ended. For branch_table.cc
// (work and prepare) and branch_table_finish.cc only; no rule stands here. See branch_table.h.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "participant/branch_table.h"
#include "participant/refusal.h"
#include "participant/resource_manager.h"

namespace troth {

enum class BranchTable::State {
  kOpening,    // work 0 waits for its block; no session yet
  kWorking,    // the application has the session; or, without one, it is being rolled back
  kActive,     // between two pieces of work
  kFailed,     // rolled back after an error; kept so that work and prepare are refused
  kPreparing,  // PREPARE is sent
  kPrepared,   // in doubt
  kFinishing,  // phase two is sent
};

struct BranchTable::Branch {
  std::string id;
  State state = State::kOpening;
  std::int64_t since_ms = 0;  // in this state
  std::int64_t begun_ms = 0;
  std::int64_t deadline_ms = 0;  // on our clock
  std::string mark;
  int works = 0;
  std::unique_ptr<Session> session;
  bool driven = false;  // kPreparing: a thread is inside ResourceManager::Prepare with it
  std::int64_t cancelled_ms = 0;
  bool cancelling = false;  // a thread is inside Session::Cancel with it
  // Why it ends as soon as whoever works on it lets go; or why it failed.
  std::optional<Refusal> doom;
  Evidence evidence;             // kPrepared, kFinishing
  std::int64_t prepared_ms = 0;  // first
  std::uint64_t generation = 0;

  void Enter(State next, std::int64_t now_ms) {
    state = next;
    since_ms = now_ms;
  }
};

struct BranchTable::Ended {
  enum class How { kRolledBack, kReadOnly, kCommitted };
  How how = How::kRolledBack;
  // Surely nothing is prepared under the GID: another roll-back needs no call.
  bool settled = false;
  int works = 0;
  Refusal why;  // kRolledBack
};

struct BranchTable::Leaving {
  std::vector<std::unique_ptr<Session>> roll_back;
  std::vector<std::unique_ptr<Session>> give_back;
  std::vector<Branch*> cancel;  // their `cancelling` is set
  std::vector<FinishOrder>
      roll_back_prepared;  // as far as a moment allows; the sweep does the rest
};

inline Refusal Refuse(Refused reason, std::string message, bool retryable = false) {
  return Refusal{reason, std::move(message), retryable, ""};
}

}  // namespace troth
