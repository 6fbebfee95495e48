// What administrators see of prepared branches: which a database holds, since when, and which
// sessions wait behind them (pg_prepared_xacts, pg_locks, pg_blocking_pids). Reads only, and knows
// no decision. Used by a participant, and by trothctl where that participant is lost.
// docs/operations.md, "Something is in doubt".
#pragma once

#include <chrono>
#include <string>
#include <vector>

#include "common/status.h"
#include "participant/options.h"
#include "participant/resource_manager.h"
#include "participant_types.h"

namespace troth {

class PgConnection;

// Which prepared branches are looked at: those that bear one of `gids`, or, when that is empty,
// the oldest `limit` whose GID starts with `prefix`.
struct PreparedQuestion {
  std::string prefix;
  std::vector<std::string> gids;
  std::size_t limit = 1'000;
  // Of the connection's database alone; else of the whole server (relations of another database
  // have no names then).
  bool this_database = true;
  // Of the server with this one alone; empty: of whichever answers.
  std::string system_identifier{};
};

// The oldest first. Two statements; waits at most `time`. kUnavailable: no answer.
Result<std::vector<wire::PreparedBranch>> LookAtPrepared(PgConnection* connection,
                                                         const PreparedQuestion& question,
                                                         std::chrono::milliseconds time);
// As above, on a connection of its own, made for it. kUnavailable also when who answers is another
// server, or a standby, which shows nothing prepared: that it holds nothing would say nothing.
Result<std::vector<wire::PreparedBranch>> LookAtPrepared(const std::string& conninfo,
                                                         const PreparedQuestion& question,
                                                         std::chrono::milliseconds time);

// The evidence under which a branch that is prepared now can be committed by order of a person:
// its 64-bit xid, and a position at or after its PREPARE. kNotFound: no branch bears this GID and
// this xid (32 low bits).
Result<Evidence> EvidenceNow(const std::string& conninfo, const std::string& gid, std::uint32_t xid,
                             std::chrono::milliseconds time);

// What a participant finds when it looks at its database: settings, room, rights, clocks.
std::vector<wire::Finding> DiagnoseDatabase(const ParticipantOptions& options,
                                            std::chrono::milliseconds time);

}  // namespace troth
