// A bounded set of connections to one database, opened when needed. Knows no branch.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "common/thread_annotations.h"
#include "participant/evidence.h"
#include "participant/postgres_connection.h"

namespace troth {

// What all connections of one resource manager share: how they are opened, what was learnt from
// them, and the generation of them: whether any was lost since. Thread-safe.
class DatabaseConnector {
 public:
  DatabaseConnector(std::string conninfo, std::string application_name);

  // Opens a connection and takes its greeting in. Refuses a standby and a database other than
  // the first one met: kUnavailable.
  Result<std::unique_ptr<PgConnection>> Open(std::chrono::milliseconds time);
  // A connection was lost: the database may have restarted, or be another one.
  void Interrupted();
  // Of connections: grows with each interruption. Evidence of the present one needs no comparison.
  std::uint64_t generation() const;
  // A newer timeline was met since this connection was greeted: whoever is at its other end is the
  // database no more, and may be silent for ever (a proxy that leads new connections elsewhere).
  bool LeftBehind(const PgConnection& connection) const;
  LogMemory& memory() { return memory_; }
  PgCanceller& canceller() { return canceller_; }

 private:
  const std::string conninfo_;
  const std::string application_name_;
  LogMemory memory_;
  PgCanceller canceller_;
  mutable Mutex mutex_;
  std::uint64_t generation_ TROTH_GUARDED_BY(mutex_) = 1;
  std::uint32_t timeline_ TROTH_GUARDED_BY(mutex_) = 0;  // of the last greeting
  DatabaseIdentity identity_ TROTH_GUARDED_BY(mutex_);
};

// Thread-safe.
class PgPool {
 public:
  using Prepare = std::function<Status(PgConnection*)>;
  struct Taken {
    std::unique_ptr<PgConnection> connection;
    bool idle = false;  // it lay in the pool, and may have been lost meanwhile
  };

  // `set_up` is run once on each new connection. `connector` outlives the pool.
  PgPool(DatabaseConnector* connector, std::size_t limit, Prepare set_up);

  // A connection, idle or new. Waits at most `wait` for one to come back when all are out
  // (kOverloaded), and at most 2 s for the database to accept one (kUnavailable).
  Result<Taken> Take(std::chrono::milliseconds wait);
  // nullptr gives back the place of a connection that is gone.
  void GiveBack(std::unique_ptr<PgConnection> connection);

  std::size_t taken() const;

 private:
  DatabaseConnector* const connector_;
  const std::size_t limit_;
  const Prepare set_up_;
  mutable Mutex mutex_;
  CondVar returned_;
  std::vector<std::unique_ptr<PgConnection>> idle_ TROTH_GUARDED_BY(mutex_);
  std::size_t taken_ TROTH_GUARDED_BY(mutex_) = 0;
};

}  // namespace troth
