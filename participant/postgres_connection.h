// A connection to PostgreSQL that never reconnects, seen from both sides: libpq for what
// libpqxx can't say (pipelines, command tags, SQLSTATE of warnings), libpqxx for application
// code. Knows no branch and no GID. docs/participants.md, "What the server must be".
#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <thread>
#include <unordered_map>
#include <utility>
#include <vector>

#include <libpq-events.h>
#include <libpq-fe.h>

#include "common/status.h"
#include "common/thread_annotations.h"
#include "participant/refusal.h"
#include "participant/resource_manager.h"

namespace pqxx {
class dbtransaction;
}

namespace troth {

struct PgResultDeleter {
  void operator()(PGresult* result) const { PQclear(result); }
};
struct PgCancelDeleter {
  void operator()(PGcancel* cancel) const { PQfreeCancel(cancel); }
};
using PgCancel = std::unique_ptr<PGcancel, PgCancelDeleter>;
using PgResult = std::unique_ptr<PGresult, PgResultDeleter>;

using Row = std::vector<std::optional<std::string>>;  // texts; nullopt: NULL

// What one statement of a pipeline came to.
struct Answer {
  bool ok = false;
  bool skipped = false;  // not executed: an earlier one of the same pipeline failed
  std::string tag;       // "PREPARE TRANSACTION"
  std::string sqlstate;  // of the error
  std::string message;   // of the error, as the server said it; never decided by
  std::string warning;   // SQLSTATE of the first WARNING that came before its end, or its unit's
  std::vector<Row> rows;
  std::size_t affected = 0;  // rows changed, or found
};

// What a connection learns of its database when it is opened, before anything else (L13b).
struct Greeting {
  DatabaseIdentity identity;
  LogPoint point;
  bool standby = false;
  std::string address;
  std::string machine;  // MachineOf() of it
  // What the role, the database or the connection string sets; zero: no limit.
  std::chrono::milliseconds lock_timeout{0};
  std::chrono::milliseconds idle_timeout{0};
};

// Used by one thread at a time, except cancel().
class PgConnection {
 public:
  using TimePoint = std::chrono::steady_clock::time_point;

  // Connects and greets within `time`. kUnavailable otherwise, with the reason.
  static Result<std::unique_ptr<PgConnection>> Open(const std::string& conninfo,
                                                    const std::string& application_name,
                                                    std::chrono::milliseconds time);
  ~PgConnection();
  PgConnection(const PgConnection&) = delete;
  PgConnection& operator=(const PgConnection&) = delete;

  const Greeting& greeting() const { return greeting_; }
  // False once it was lost; it never comes back.
  bool alive() const { return PQstatus(conn_) == CONNECTION_OK && !given_up_; }
  // As alive(), of a connection that nothing was asked of, after a look at the socket: what comes
  // unasked is, but for a changed setting now and then, the server's good-bye.
  bool StillAlive();
  // It counts as lost from now on, whoever is at its other end.
  void GiveUp();
  PGTransactionStatusType transaction_status() const { return PQtransactionStatus(conn_); }
  // Whether a block is read-write without saying so, by the server's last word on it.
  bool writes_by_default() const;
  int socket() const { return PQsocket(conn_); }
  int backend_pid() const { return PQbackendPID(conn_); }
  // That logged in.
  std::string role() const { return PQuser(conn_); }

  // Pipelines. Statements are queued, Sync ends a unit (an error skips the rest of its unit),
  // Flush sends. Poll takes in what has arrived without waiting; units end in their order.
  void Queue(std::string_view sql, std::span<const std::string> parameters = {});
  void QueuePrepared(const char* statement, std::span<const std::string> parameters = {});
  // As Queue, for one statement that is likely to come again: the server keeps it prepared. True:
  // it was kept before, so its failure may be that of a statement outdated by now.
  bool QueueRepeated(const std::string& sql,
                     std::span<const std::optional<std::string>> parameters = {});
  void Sync();
  void Flush();
  void Poll();
  // Units that have ended since the pipeline began, and their answers in one row.
  std::size_t ended_units() const { return ended_units_; }
  const std::vector<Answer>& answers() const { return answers_; }
  // Takes one of them out, so that its rows don't stay with an idle connection.
  Answer TakeAnswer(std::size_t i) { return std::move(answers_[i]); }
  std::size_t queued_units() const { return queued_units_; }
  // Waits until `units` have ended. False: not by `deadline`, or the connection is lost.
  bool Await(std::size_t units, TimePoint deadline);
  // To be called when all units have ended: forgets them, and libpqxx may use the connection.
  void EndPipeline();

  // One statement by itself; waits at most until `deadline`, then the connection is given up.
  Answer Execute(std::string_view sql, std::span<const std::string> parameters, TimePoint deadline);
  // As Execute, all rows.
  Result<std::vector<Row>> Query(std::string_view sql, std::span<const std::string> parameters,
                                 TimePoint deadline);

  // Prepares a statement on the server under `name`.
  Status PrepareStatement(const char* name, const char* sql, TimePoint deadline);

  // The transaction that application code sees, from BeginApplication to EndApplication. It
  // sends no BEGIN, COMMIT or ROLLBACK of its own. Begun already, it is the same.
  pqxx::dbtransaction& BeginApplication();
  void EndApplication();

  // Tags of statements since the last ForgetSigns that end or begin a block, or make a
  // connection unfit for the pool; e.g. "COMMIT".
  const std::string& boundary_tag() const { return boundary_tag_; }
  bool unfit() const { return unfit_; }
  void ForgetSigns();
  void NoteTag(std::string_view tag);  // as if it had arrived
  // The first of them counts.
  void NoteBoundary(std::string_view tag) {
    if (boundary_tag_.empty()) boundary_tag_ = tag;
  }

  // For PgCanceller, any thread; and for who closes the connection while it may be with it.
  PGcancel* cancel() const { return cancel_.get(); }
  PgCancel TakeCancel() { return std::move(cancel_); }

 private:
  class Face;  // libpqxx's view of this connection

  explicit PgConnection(PGconn* conn);
  Status Greet(TimePoint deadline);
  void Take(PGresult* result);
  void EnterPipeline();
  void Sent(int taken);
  static void OnNotice(void* self, const PGresult* notice);
  static int OnEvent(PGEventId event, void* info, void* self);

  PGconn* const conn_;
  PgCancel cancel_;
  Greeting greeting_;
  std::unique_ptr<Face> face_;
  std::vector<Answer> answers_;
  // Statements kept by the server, by their text; those being prepared in this pipeline, by the
  // place of their results; and why the last of them could not be.
  std::unordered_map<std::string, std::string> repeated_;
  std::deque<std::size_t> preparing_;
  std::optional<Answer> unprepared_;
  std::size_t queued_statements_ = 0;
  std::size_t taken_statements_ = 0;
  std::size_t queued_units_ = 0;
  std::size_t ended_units_ = 0;
  std::string boundary_tag_;
  std::string warning_;  // of the statement whose answer is on its way
  bool unfit_ = false;
  bool given_up_ = false;  // in a state of the protocol that nothing leads out of
};

// Asks servers to stop the statements under way, on a thread of its own: each request is a new
// connection, and libpq waits for the postmaster to take it without a limit. Thread-safe.
class PgCanceller {
 public:
  PgCanceller();
  // Waits for a request that is being sent.
  ~PgCanceller();

  // `cancel` lives until it is given to Release.
  void Send(PGcancel* cancel);
  // Frees it when its request, if there is one, has been sent.
  void Release(PgCancel cancel);

 private:
  void Run();

  Mutex mutex_;
  CondVar changed_;
  std::deque<PGcancel*> requests_ TROTH_GUARDED_BY(mutex_);  // the first one is being sent
  std::vector<PgCancel> released_ TROTH_GUARDED_BY(mutex_);  // with a request still
  bool over_ TROTH_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

// `text` as an SQL literal, for statements that take no parameters. Only for GIDs and other
// texts without quotes or backslashes (CHECKed).
std::string Quoted(std::string_view text);

// "X/Y" of pg_lsn as a number.
std::uint64_t ParseLsn(std::string_view text);

// Waits until one of the sockets can be read, or `deadline`; says which can.
std::vector<bool> AwaitReadable(std::span<const int> sockets, PgConnection::TimePoint deadline);

}  // namespace troth
