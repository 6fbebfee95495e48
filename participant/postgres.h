// The ResourceManager over PostgreSQL 15. docs/participants.md says what it asks of a server.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "common/status.h"
#include "common/thread_annotations.h"
#include "participant/connection_pool.h"
#include "participant/postgres_finisher.h"
#include "participant/resource_manager.h"

namespace pqxx {
class dbtransaction;
}

namespace troth {

struct PostgresOptions {
  std::string conninfo;
  std::string participant;
  int pool_size = 32;
  int finish_connections = 8;
  // max_prepared_transactions must be at least this.
  int max_in_doubt = 200;
};

// Thread-safe. Connections: pool_size for branches, finish_connections for phase two, one for
// the rest (lists, notes, the sweep's lock).
class PostgresResourceManager : public ResourceManager {
 public:
  // Connects and checks the server; makes the table of notes if it may. The error of a check
  // names the setting and the statement that mends it (Code::kRefused); a database that cannot
  // be reached is Code::kUnavailable.
  static Result<std::unique_ptr<PostgresResourceManager>> Open(PostgresOptions options);
  ~PostgresResourceManager() override;

  Granted<std::unique_ptr<Session>> Begin(const BeginOptions& options) override;
  void Prepare(std::span<PrepareItem> items, std::chrono::milliseconds wait) override;
  void Finish(std::span<FinishItem> items, std::chrono::milliseconds wait) override;
  Result<std::vector<PreparedBranch>> ListPrepared(std::string_view prefix) override;
  Result<DatabaseState> Look() override;
  Result<std::vector<SeenCoordinator>> LoadSeen() override;
  Status StoreSeen(const SeenCoordinator& seen) override;
  bool HoldSweep(std::string_view participant) override;

  // What application code works with, in a session made by Begin, its block open.
  static pqxx::dbtransaction& Transaction(Session* session);
  // Executes one statement in a session made by Begin, in one round trip.
  static Granted<Answer> Run(Session* session, const std::string& sql,
                             std::span<const std::optional<std::string>> parameters);
  // Pid of the server process behind a session; for tests and messages.
  static int BackendPid(Session* session);

 private:
  explicit PostgresResourceManager(PostgresOptions options);
  Status CheckFit(PgConnection* connection);
  // The connection for the rest; opened when there is none. After the start on an unfit server too:
  // what is prepared there is finished all the same.
  Result<PgConnection*> Desk() TROTH_REQUIRES(desk_mutex_);

  const PostgresOptions options_;
  DatabaseConnector connector_;
  PgPool pool_;
  PostgresFinisher finisher_;
  Mutex desk_mutex_;  // held until the database answers; no work and no finish waits for it
  std::unique_ptr<PgConnection> desk_ TROTH_GUARDED_BY(desk_mutex_);
  bool started_ TROTH_GUARDED_BY(desk_mutex_) = false;  // the server was found fit once
  bool holds_sweep_ TROTH_GUARDED_BY(desk_mutex_) = false;
};

// What the server must be; kRefused names what is not, and the statement that mends it.
// `prefix` is that of the participant's GIDs.
Status CheckServer(PgConnection* connection, int max_in_doubt, std::string_view prefix);

}  // namespace troth
