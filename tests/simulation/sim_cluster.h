// A cluster in one thread: the coordinator that ships (monitor, machine, log on a simulated
// disk), participants with the branch table that ships (on simulated databases), clients that
// are simulated, and whatever goes wrong between them, all drawn from one seed. First safety
// while things break, then everything heals and liveness is demanded. docs/testing.md.
#pragma once

#include <cstdint>
#include <string>

namespace troth::sim {

// What a run is made of. The same options give the same run, to the byte of its trace.
struct Options {
  std::uint64_t seed = 1;
  std::string profile = "default";
  int transactions = 400;
  int participants = 0;  // 0: drawn
  // Faults switched off, for shrinking; bits as in kFaultNames.
  std::uint32_t without = 0;
  bool trace = false;  // on stdout
};

enum Fault : std::uint32_t {
  kCoordinatorCrash,
  kPowerLoss,
  kDiskErrors,
  kDiskFull,
  kParticipantCrash,
  kDatabaseCrash,
  kDatabaseAway,
  kStatementFaults,
  kPartitions,
  kLostMessages,
  kDuplicates,
  kSlowNetwork,
  kClientsVanish,
  kClientsAbort,
  kDatabaseFailover,
  kFaults
};
inline constexpr const char* kFaultNames[] = {
    "coordinator-crash", "power-loss",    "disk-errors",      "disk-full",     "participant-crash",
    "database-crash",    "database-away", "statement-faults", "partitions",    "lost-messages",
    "duplicates",        "slow-network",  "clients-vanish",   "clients-abort", "database-failover"};

struct Report {
  std::uint64_t transactions = 0;  // begun
  std::uint64_t committed = 0;     // and told so, or found so at the end
  std::uint64_t crashes = 0;       // of any process
  std::uint64_t faults = 0;        // of any other kind
  std::uint64_t sim_ms = 0;
  std::string violation;  // the first; empty: none
};

// Profiles: `default`, `calm` (no faults), `stormy` (everything more often), `disk`, `network`,
// `retention` (records become bits at once), `failover` (to standbys that lack the last of it:
// what they lost is excused, but has to be reported).
bool KnownProfile(const std::string& name);
Report Run(const Options& options);

}  // namespace troth::sim
