// ResourceManager: what a participant needs of a database that can prepare transactions. Two
// lives: PostgreSQL (participant/postgres.h) and a simulated one (tests/simulation); one
// contract test runs on both. Knows no SQL, wire or coordinator. docs/protocol.md, "States".
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "common/status.h"
#include "participant/refusal.h"

namespace troth {

// Which database this is. A logical copy differs in the first, a physical clone in neither.
struct DatabaseIdentity {
  std::string system_identifier;
  std::uint32_t oid = 0;
  auto operator<=>(const DatabaseIdentity&) const = default;
};

// A point in a database's write-ahead log.
struct LogPoint {
  std::uint32_t timeline = 0;
  std::uint64_t position = 0;
  auto operator<=>(const LogPoint&) const = default;
};

// By what a prepared branch is recognised for ever (law L13).
struct Evidence {
  std::uint64_t xid = 0;  // 64 bits, epoch included
  LogPoint point;         // at or after the record of PREPARE
  auto operator<=>(const Evidence&) const = default;
};

enum class Isolation { kDefault, kReadCommitted, kRepeatableRead, kSerializable };

struct BeginOptions {
  std::string gid;
  // Set inside the block, gone when the block ends; Prepare errors when it is not there.
  std::string mark;
  Isolation isolation = Isolation::kDefault;
  bool read_only = false;
  // Left for the whole branch. Bounds waits for locks, and how long the database keeps the
  // block open when this process no longer speaks.
  std::chrono::milliseconds time_left{0};
  // The block is opened with the first statement, in the same round trip; what keeps it from
  // opening is then that statement's error.
  bool with_first_statement = false;
  // That statement is the branch's only one, and PREPARE travels behind it in the same round trip;
  // it is skipped when the statement fails. Prepare tells what it came to, and must be asked also
  // when the work is refused in the end: see Session::PrepareSent.
  bool prepare_with_statement = false;
  // How long to wait for a free connection.
  std::chrono::milliseconds patience{100};
  // Shown by the database as the name of the session while the block is open; empty: none of its
  // own. At most 63 bytes of printable ASCII.
  std::string label;
};

// One open transaction block, on a connection that never reconnects. The owner uses it from one
// thread at a time, except for Cancel. Destroying it rolls back whatever is not prepared: at
// once when the connection lives, else when the database notices.
class Session {
 public:
  virtual ~Session() = default;

  // Whether the block still stands as it was begun: the connection alive, the block open and
  // not failed, no COMMIT, ROLLBACK or BEGIN seen from the application. Asked after each work;
  // costs no round trip. nullopt: it stands.
  virtual std::optional<Refusal> Broken() = 0;

  // True once PREPARE was sent behind the only statement, and may have been executed: then it is no
  // more Rollback that undoes the work, but Prepare and a finish.
  virtual bool PrepareSent() const = 0;

  // Rolls the block back; waits for the database's word at most a second. Afterwards the
  // session can only be destroyed.
  virtual void Rollback() = 0;

  // Has the database asked to stop the statement under way, if any, and does not wait; may be
  // called from another thread while the owner executes. Afterwards the session must not be
  // prepared.
  virtual void Cancel() = 0;
};

struct PrepareResult {
  enum class Kind {
    kPrepared,  // durable; `evidence` is set
    kReadOnly,  // the block was read only, kept to it, and is rolled back
    kRefused,   // nothing is prepared and nothing will be; `refusal` is set
    kUnknown,   // the connection broke before the answer: maybe prepared
  };
  Kind kind = Kind::kRefused;
  // kUnknown: its xid, by which what may be prepared is known; 0 if that was lost too.
  Evidence evidence;
  // Of the connections among which the evidence was made; see FinishOrder.
  std::uint64_t generation = 0;
  Refusal refusal;
};

struct PrepareItem {
  Session* session = nullptr;
  // Set when the session has answered; then it can only be destroyed.
  std::optional<PrepareResult> result;
};

// What to do with what is prepared under a GID.
struct FinishOrder {
  std::string gid;
  bool commit = false;
  // Of the vote that was recorded. Required for commit. For abort it lets a commit made behind
  // our back be recognised.
  std::optional<Evidence> evidence;
  // Abort: roll back only this xid (32 low bits); what else holds the GID is left alone.
  std::optional<std::uint32_t> only_xid;
  // From PrepareResult, when this process prepared the branch: while it is still current, the
  // comparison of xids (L13d) is spared.
  std::optional<std::uint64_t> generation;
  // Nobody waits for it (the sweep's): half of the connections are kept free for others.
  bool background = false;
};

struct FinishResult {
  enum class Kind {
    kDone,       // now or earlier, and durable
    kWorking,    // not settled; order it again. `message` says why, if it is not just slow
    kHeuristic,  // proven: it ended the other way, by another hand
    kHazard,     // the evidence does not tell, and will not
  };
  Kind kind = Kind::kWorking;
  std::string message;
  std::string sqlstate;
};

struct FinishItem {
  FinishOrder order;
  FinishResult result;
};

// A row of pg_prepared_xacts.
struct PreparedBranch {
  std::string gid;
  std::uint32_t xid = 0;             // the 32 low bits
  std::chrono::milliseconds age{0};  // by the database's clock; for people only
};

// The highest (epoch, position) seen of a coordinator (law L7c).
struct SeenCoordinator {
  std::string coordinator;
  std::uint32_t epoch = 0;
  std::uint32_t epoch_random = 0;
  std::uint64_t position = 0;
};

struct DatabaseState {
  DatabaseIdentity identity;
  LogPoint point;
  std::string address;    // "host:port", as the connection string names it
  std::string machine{};  // that `address` is of; see MachineOf() in conninfo.h
};

// Thread-safe. Calls that wait say how long.
class ResourceManager {
 public:
  virtual ~ResourceManager() = default;

  // Opens a block on a connection of its own. Waits for a free connection, then kOverloaded;
  // kDatabaseUnavailable when none can be made; kDeadline when the wait ate the time. `mark` is set
  // in the block and, unless it is read only, its xid is drawn.
  virtual Granted<std::unique_ptr<Session>> Begin(const BeginOptions& options) = 0;

  // Starts PREPARE on each session that has not started it, all at once, and waits until every
  // one has answered or `wait` has passed. Those without a result then are asked about by
  // calling again. The guard makes sure that what is prepared is the block that Begin opened
  // (L12b); kPrepared is the database's word, without a warning (L12a).
  virtual void Prepare(std::span<PrepareItem> items, std::chrono::milliseconds wait) = 0;

  // Carries the orders out, side by side, and waits until all are settled or `wait` has passed.
  // Safe to repeat. A commit whose GID holds another xid rolls that other one back (it never
  // voted), and is then judged by its evidence like a GID that is gone (L13).
  virtual void Finish(std::span<FinishItem> items, std::chrono::milliseconds wait) = 0;

  // Prepared transactions of this database whose GID starts with `prefix`.
  virtual Result<std::vector<PreparedBranch>> ListPrepared(std::string_view prefix) = 0;

  // Identity and present durable end of the log, asked of the database now; what comes after it
  // knows that the database has been so far (L13b).
  virtual Result<DatabaseState> Look() = 0;

  // What was stored by StoreSeen, by this process or an earlier one; durable with the database.
  virtual Result<std::vector<SeenCoordinator>> LoadSeen() = 0;
  // Never lowers what is stored. Durable on return, except that a crash of the database may
  // take back the last writes of positions.
  virtual Status StoreSeen(const SeenCoordinator& seen) = 0;

  // True while this process may sweep: at most one process at a time, unless connections to the
  // database are being lost, and it saves work only.
  virtual bool HoldSweep(std::string_view participant) = 0;
};

}  // namespace troth
