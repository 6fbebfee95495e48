// Phase two in PostgreSQL: COMMIT PREPARED and ROLLBACK PREPARED over a few connections of their
// own, the comparison of xids, and the evidence when a GID is gone (laws L13a-d). Knows no branch
// table: it is given orders. docs/protocol.md, "Laws".
#pragma once

#include <chrono>
#include <list>
#include <memory>
#include <span>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "common/thread_annotations.h"
#include "participant/connection_pool.h"
#include "participant/resource_manager.h"

namespace troth {

// Thread-safe. Each caller drives the lanes (connections) it took; what it leaves unfinished
// when its time is over goes on, and is taken in by whoever comes next. An order that comes
// again meanwhile waits for the first. A commit that was done while nobody drove it is kept for
// the one who asks again; anything else is then carried out anew, and finds its evidence.
class PostgresFinisher {
 public:
  PostgresFinisher(DatabaseConnector* connector, std::size_t lanes);
  ~PostgresFinisher();

  // As ResourceManager::Finish.
  void Finish(std::span<FinishItem> items, std::chrono::milliseconds wait);

 private:
  class Lane;

  // `background`: leaves half of all lanes to others.
  std::vector<std::unique_ptr<Lane>> TakeLanes(std::size_t wanted, bool background,
                                               PgConnection::TimePoint deadline);
  // `untold`: nobody waits for what its orders came to.
  void ReturnLane(std::unique_ptr<Lane> lane, bool untold);
  // Nobody drives these for now.
  void LeaveLanes(std::vector<std::unique_ptr<Lane>> lanes);
  // Takes in what callers before left unfinished; waits for it until `until`.
  void PollLeft(PgConnection::TimePoint until);
  // Of `waiting`, takes out what was done meanwhile (its result is set), and takes out and
  // returns what nobody works on: it is ours now.
  std::vector<std::size_t> Claim(std::span<FinishItem> items, std::vector<std::size_t>* waiting);
  void Drive(std::span<FinishItem> items, const std::vector<std::size_t>& ours,
             PgConnection::TimePoint deadline);

  DatabaseConnector* const connector_;
  const std::size_t limit_;

  Mutex mutex_;
  CondVar returned_;
  std::vector<std::unique_ptr<Lane>> idle_ TROTH_GUARDED_BY(mutex_);
  std::vector<std::unique_ptr<Lane>> left_ TROTH_GUARDED_BY(mutex_);    // nobody drives them now
  std::size_t lanes_ TROTH_GUARDED_BY(mutex_) = 0;                      // all there are
  std::unordered_set<std::string> under_way_ TROTH_GUARDED_BY(mutex_);  // GIDs
  struct Untold {
    std::uint64_t xid = 0;
    std::uint64_t generation = 0;  // with the database, when it was done
  };
  std::unordered_map<std::string, Untold> done_ TROTH_GUARDED_BY(mutex_);  // commits, by GID
};

}  // namespace troth
