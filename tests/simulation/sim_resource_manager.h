// A database in memory, as seen by a participant: the simulated life of ResourceManager.
// Keys with integer values; rows are locked by the first writer until its branch ends.
//
// Fault model. A SimDatabase outlives its resource managers as a server outlives its clients.
// It can crash (open blocks are gone, prepared ones and what is committed stay), be away, lose
// answers (before or after the effect), be slow (answers come at the n-th asking), be restored
// from a copy (goes back in time on the same timeline), fail over to a standby that has, or has
// not, all of its log, and have its prepared branches settled by another hand. After a crash,
// xids that nothing durable bore are given out again. It never loses what it called durable
// otherwise.
// One thread at a time. docs/testing.md, "The simulator".
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "participant/evidence.h"
#include "participant/resource_manager.h"

namespace troth {

class SimDatabase {
 public:
  explicit SimDatabase(DatabaseIdentity identity);

  // Committed values.
  std::optional<std::int64_t> Read(const std::string& key) const;
  std::map<std::string, std::int64_t> Rows() const { return state_.rows; }
  bool IsPrepared(const std::string& gid) const { return state_.prepared.contains(gid); }
  // Prepared GIDs and their xids.
  std::map<std::string, std::uint64_t> Prepared() const;

  // Faults.
  void Crash();             // all connections end; open blocks are gone
  void SetAway(bool away);  // nothing can connect, every connection ends
  void SettleByHand(const std::string& gid, bool commit);
  struct State;
  State Copy() const;                   // what a backup would hold
  void RestoreFrom(const State& copy);  // crash, then an older state on the same timeline
  void FailOverTo(const State& copy);   // crash, then an older state on a timeline of its own

  // What happens to the next PREPARE or COMMIT/ROLLBACK PREPARED statements.
  enum class Fate {
    kNormal,
    kLostBefore,  // the connection ends, nothing was done
    kLostAfter,   // done, and the connection ends before the answer
    kWarning,     // PREPARE only: done, with a warning
    kBusy,        // finish only: 55000
  };
  // Asked for each statement; default: kNormal.
  std::function<Fate(const std::string& statement, const std::string& gid)> fate;
  // Askings until an answer is there; default 0: at once.
  std::function<int(const std::string& statement, const std::string& gid)> slowness;

  struct PreparedEntry {
    std::uint64_t xid = 0;
    std::map<std::string, std::int64_t> writes;
  };
  enum class XidFate { kCommitted, kAborted };
  struct State {
    std::map<std::string, std::int64_t> rows;
    std::map<std::string, PreparedEntry> prepared;
    std::map<std::uint64_t, XidFate> ended;
    std::map<std::string, SeenCoordinator> seen;
    std::uint64_t next_xid = 1000;
    std::uint64_t flushed_xid = 999;  // the highest that something durable bore
    LogPoint point{1, 100};
    std::vector<TimelineSwitch> history;
  };

 private:
  friend class SimResourceManager;
  friend class SimSession;
  bool Settle(const std::string& gid, bool commit);

  const DatabaseIdentity identity_;
  State state_;
  std::map<std::string, std::uint64_t> locks_;  // key -> xid or session
  std::uint64_t life_ = 1;                      // connections of another life are dead
  bool away_ = false;
};

// What application code does in a branch.
class SimSession : public Session {
 public:
  ~SimSession() override;
  std::optional<Refusal> Broken() override;
  bool PrepareSent() const override { return result_.has_value(); }
  void Rollback() override;
  void Cancel() override { cancelled_ = true; }

  // Adds to the key's value; a refusal when another branch holds its row (lock timeout). The
  // block has failed then.
  std::optional<Refusal> Add(const std::string& key, std::int64_t amount);
  std::optional<std::int64_t> Get(const std::string& key) const;
  // A statement that errors; the application may go on as if it had not.
  void FailStatement() { failed_ = true; }
  // COMMIT or ROLLBACK of the application, and a new block behind it if `chain`.
  void EndBlock(bool commit, bool chain);
  void LoseConnection();

 private:
  friend class SimResourceManager;
  SimSession(SimDatabase* database, BeginOptions options);
  bool Alive() const { return life_ == database_->life_; }
  void Unlock();
  PrepareResult Prepare();

  SimDatabase* const database_;
  const BeginOptions options_;
  std::uint64_t life_;
  std::uint64_t xid_ = 0;
  std::string mark_;  // as set in the present block
  bool open_ = true;
  bool failed_ = false;
  bool cancelled_ = false;
  std::string boundary_;
  std::map<std::string, std::int64_t> writes_;
  int askings_left_ = -1;
  std::optional<PrepareResult> result_;
};

class SimResourceManager : public ResourceManager {
 public:
  // `database` outlives it. `limit`: connections for branches.
  SimResourceManager(SimDatabase* database, std::size_t limit = 1'000);

  Granted<std::unique_ptr<Session>> Begin(const BeginOptions& options) override;
  void Prepare(std::span<PrepareItem> items, std::chrono::milliseconds wait) override;
  void Finish(std::span<FinishItem> items, std::chrono::milliseconds wait) override;
  Result<std::vector<PreparedBranch>> ListPrepared(std::string_view prefix) override;
  Result<DatabaseState> Look() override;
  Result<std::vector<SeenCoordinator>> LoadSeen() override;
  Status StoreSeen(const SeenCoordinator& seen) override;
  // One statement, SimSession::Add, and what travels with it.
  std::optional<Refusal> Run(SimSession* session, const std::string& key, std::int64_t amount);
  bool HoldSweep(std::string_view) override { return !database_->away_; }

 private:
  // Meets the database, as a new connection does, if it is another life than before.
  bool Meet();
  void StartPrepare(SimSession* session);
  FinishResult FinishOne(const FinishOrder& order);
  FinishResult JudgeOne(const FinishOrder& order);

  SimDatabase* const database_;
  const std::size_t limit_;
  LogMemory memory_;
  std::uint64_t met_life_ = 0;
  std::uint64_t generation_ = 0;
  std::map<std::string, int> askings_left_;  // of finishes under way, by GID
};

}  // namespace troth
