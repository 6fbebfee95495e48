// Sweep: recovery of a participant, for ever (laws L8 and L14). Finds prepared branches that
// nobody here looks after, says which to ask the coordinator about, and settles what it
// answered. Knows no wire and no thread; the simulator runs it too.
// docs/protocol.md, "Laws".
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "common/clock.h"
#include "common/transaction_id.h"
#include "participant/branch_table.h"
#include "participant/resource_manager.h"

namespace troth {

struct SweepInquiry {
  std::string transaction_id;
  std::string coordinator;  // of the id: whom to ask
  std::uint32_t xid = 0;    // 32 low bits
};

// What the coordinator answered to an inquiry.
struct SweepAnswer {
  enum class Verdict { kCommit, kAbort, kPending, kExpired, kNotMine };
  SweepInquiry inquiry;
  Verdict verdict = Verdict::kPending;
  Evidence evidence;  // kCommit
};

struct SweepCounts {
  std::size_t found = 0;     // prepared, and nobody here looks after them
  std::size_t expired = 0;   // of those: kept in doubt, an operator's matter
  std::size_t not_mine = 0;  // of those: as above
  std::size_t foreign = 0;   // GIDs of ours that bear no transaction id; never touched
  std::uint64_t settled = 0;
  std::chrono::milliseconds oldest{0};
};

// Used by one thread at a time.
class Sweep {
 public:
  // A branch is asked about when it was seen for so long; its own instance may be about to
  // finish it.
  static constexpr std::chrono::milliseconds kPatience{1'000};
  // Expired and not mine are asked about again after so long: an operator may have acted.
  static constexpr std::chrono::milliseconds kHopeless{10'000};

  Sweep(std::string participant, ResourceManager* resource_manager, BranchTable* table,
        Clock* clock);

  // Lists what is prepared; returns what is to be asked about now.
  Result<std::vector<SweepInquiry>> Look();

  // Carries answers out: commits with the evidence told, rolls back the xid that was seen, keeps
  // the rest. What does not settle within `wait` comes up again in the next Look.
  void Settle(std::span<const SweepAnswer> answers, std::chrono::milliseconds wait);

  // From the next Look on, also what nobody could settle is asked about at once.
  void AskAgain();

  SweepCounts counts() const { return counts_; }

 private:
  struct Sighting {
    std::uint32_t xid = 0;
    std::int64_t first_ms = 0;
    std::int64_t not_before_ms = 0;
    SweepAnswer::Verdict verdict = SweepAnswer::Verdict::kPending;
  };

  const std::string participant_;
  ResourceManager* const resource_manager_;
  BranchTable* const table_;
  Clock* const clock_;
  std::map<std::string, Sighting> sightings_;  // by transaction id
  SweepCounts counts_;
};

}  // namespace troth
