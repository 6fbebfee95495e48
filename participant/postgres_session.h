// A branch's block in PostgreSQL: BEGIN, the guard in front of PREPARE, PREPARE, and the way of
// its connection back to the pool. Knows no wire and no rules about branches (branch_table.h).
// docs/protocol.md, laws L12a and L12b.
#pragma once

#include <atomic>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "participant/connection_pool.h"
#include "participant/postgres_connection.h"
#include "participant/resource_manager.h"

namespace troth {

// The branch is known inside its session by what ends with its block: its xid, drawn when the
// block is opened, or by the guard where PREPARE travels with the only statement (read only, where
// there is none: a setting local to it). The guard compares it and raises an error (22012) when it
// is another, so that PREPARE behind it in the same pipeline is skipped. Everything goes out in one
// write:
//   deferred constraints; guard; PREPARE TRANSACTION; position and cleaning; RESET ALL; Sync
// so that the connection goes back to the pool clean, at the price of no call. Settings are
// written only where they are not what they must be: each transaction that changes one makes
// the server walk through all it has, twice.
class PostgresSession : public Session {
 public:
  // Statements that every connection of the pool must know.
  static Status SetUp(PgConnection* connection);

  // Opens a block. `pool` and `connector` outlive the session.
  static Granted<std::unique_ptr<Session>> Begin(const BeginOptions& options, PgPool* pool,
                                                 DatabaseConnector* connector);
  ~PostgresSession() override;

  std::optional<Refusal> Broken() override;
  bool PrepareSent() const override { return started_; }
  void Rollback() override;
  void Cancel() override;

  // What libpqxx works with, once the block is open.
  pqxx::dbtransaction& transaction();
  // Executes one statement, in one round trip, the opening of the block included, and PREPARE if
  // that was asked for.
  Granted<Answer> Run(const std::string& sql,
                      std::span<const std::optional<std::string>> parameters);
  PgConnection* connection() { return connection_.get(); }

  // Sends the pipeline; once. A result: it was refused without being sent.
  std::optional<PrepareResult> StartPrepare();
  // What has arrived; nullopt: not yet. Does not wait.
  std::optional<PrepareResult> PollPrepare();

 private:
  PostgresSession(const BeginOptions& options, PgPool* pool, DatabaseConnector* connector,
                  std::unique_ptr<PgConnection> connection);
  std::optional<Refusal> AwaitCleaning();
  std::size_t QueueOpening();
  std::optional<Refusal> TakeOpening(std::size_t statements, bool answered);
  std::optional<Refusal> OpenBlock();
  void TakeXid(const Answer& answer);
  void QueuePrepare();
  void QueueCleaning();
  void CleanAfterFailure();
  const Answer* FailedConstraint() const;
  std::span<const Answer> PrepareAnswers() const;
  PrepareResult Judge();
  PrepareResult Refuse(Refusal refusal);
  void Drop();

  const BeginOptions options_;
  PgPool* const pool_;
  DatabaseConnector* const connector_;
  std::unique_ptr<PgConnection> connection_;
  const std::uint64_t generation_;  // when the block was opened
  std::uint64_t xid_ = 0;
  std::atomic<bool> cancelled_{false};
  bool opened_ = false;
  bool started_ = false;        // PREPARE is sent
  std::size_t prepare_at_ = 0;  // the place of the first answer to QueuePrepare
  bool over_ = false;  // the block has ended, and the connection has been told to clean itself
};

}  // namespace troth
