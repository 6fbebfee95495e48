// See postgres_session.h.
#include "participant/postgres_session.h"

#include <algorithm>
#include <charconv>

#include "common/failpoint.h"
#include "participant/postgres_errors.h"

namespace troth {
namespace {

using SteadyClock = std::chrono::steady_clock;

constexpr std::chrono::milliseconds kShortWait{1'000};
// The server's own end of an abandoned block comes after ours.
constexpr std::chrono::milliseconds kServerGrace{1'000};

// Names are qualified, operators too: application code may change search_path.
// Saying READ WRITE sets a setting, and a block that set one makes the server walk through all of
// them at its end: not said where it is so anyway.
constexpr char kBegin[] = "BEGIN";
constexpr char kBeginReadWrite[] = "BEGIN READ WRITE";
constexpr char kOpen[] = "SELECT pg_catalog.pg_current_xact_id()";
constexpr char kOpenReadOnly[] = "SELECT pg_catalog.set_config('troth.mark', $1, true)";
constexpr char kLimit[] =
    "SELECT pg_catalog.set_config('lock_timeout', $1, true),"
    " pg_catalog.set_config('idle_in_transaction_session_timeout', $2, true)";
constexpr char kLabel[] = "SELECT pg_catalog.set_config('application_name', $1, true)";
// In front of the guard: a deferred trigger would fire inside PREPARE, and undo what the guard
// sets, or warn as if PREPARE did.
constexpr char kConstraints[] = "SET CONSTRAINTS ALL IMMEDIATE";
// The guard in front of PREPARE: which block is open, and what its settings must be.
constexpr char kCompareXid[] =
    "SELECT 1 OPERATOR(pg_catalog./) CASE"
    " WHEN pg_catalog.pg_current_xact_id_if_assigned() OPERATOR(pg_catalog.=) $1::pg_catalog.xid8"
    " THEN 1 ELSE 0 END,";
// Behind the branch's only statement, in the same pipeline, there is none to compare with, and no
// need: one statement of the extended protocol can end the block or write, not both, and its tag
// tells which. Here the xid is drawn, where the work has not done so.
constexpr char kDrawXid[] = "SELECT pg_catalog.pg_current_xact_id(),";
// role: SET ROLE inside the block would change the owner of the prepared transaction, and then
// nobody of ours could finish it. client_min_messages: else the warning that a wait for a standby
// was cancelled could be hidden from us (L12a).
constexpr char kGuardedSettings[] =
    " CASE WHEN current_user OPERATOR(pg_catalog.<>) session_user"
    "  THEN pg_catalog.set_config('role', 'none', true) END,"
    " CASE WHEN pg_catalog.current_setting('client_min_messages') OPERATOR(pg_catalog.<>) 'notice'"
    "  THEN pg_catalog.set_config('client_min_messages', 'warning', true) END,"
    " CASE WHEN pg_catalog.current_setting('synchronous_commit') OPERATOR(pg_catalog.<>) 'on'"
    "  AND pg_catalog.current_setting('synchronous_commit') OPERATOR(pg_catalog.<>) 'remote_apply'"
    "  THEN pg_catalog.set_config('synchronous_commit', 'on', true) END";
constexpr char kGuardReadOnly[] =
    "SELECT 1 OPERATOR(pg_catalog./) CASE WHEN"
    " pg_catalog.pg_current_xact_id_if_assigned() IS NULL"
    " AND pg_catalog.current_setting('transaction_read_only') OPERATOR(pg_catalog.=) 'on'"
    " AND pg_catalog.current_setting('troth.mark', true) OPERATOR(pg_catalog.=) $1"
    " THEN 1 ELSE 0 END";
// The position behind PREPARE, and what RESET ALL leaves behind and PREPARE or ROLLBACK does not
// end; $1 is the role that logged in. Temporary objects, WITH HOLD cursors and LISTEN can't be
// here: a block with one is not preparable, and a rollback takes them back.
// The durable position: what is written beyond it may be lost with the machine's power, and the
// vote, which is not, would then seem to be of another history (L13b).
constexpr char kClean[] =
    "SELECT pg_catalog.pg_current_wal_flush_lsn(), pg_catalog.pg_advisory_unlock_all(),"
    " CASE WHEN session_user OPERATOR(pg_catalog.<>) $1::pg_catalog.name"
    "  THEN pg_catalog.set_config('session_authorization', NULL, false) END,"
    " CASE WHEN current_user OPERATOR(pg_catalog.<>) $1::pg_catalog.name"
    "  THEN pg_catalog.set_config('role', 'none', false) END";

constexpr std::size_t kMaxParameters = 65'535;  // of PostgreSQL's protocol
constexpr char kLost[] = "the branch's connection to the database was lost, and with it the branch";

std::string BeginStatement(const BeginOptions& options) {
  std::string sql = "BEGIN";
  switch (options.isolation) {
    case Isolation::kDefault: break;
    case Isolation::kReadCommitted: sql += " ISOLATION LEVEL READ COMMITTED"; break;
    case Isolation::kRepeatableRead: sql += " ISOLATION LEVEL REPEATABLE READ"; break;
    case Isolation::kSerializable: sql += " ISOLATION LEVEL SERIALIZABLE"; break;
  }
  return sql + (options.read_only ? " READ ONLY" : " READ WRITE");
}

// Zero is no limit.
std::chrono::milliseconds Shorter(std::chrono::milliseconds standing,
                                  std::chrono::milliseconds own) {
  return standing.count() > 0 ? std::min(standing, own) : own;
}

Refusal Unavailable(std::string message) {
  return Refusal{Refused::kDatabaseUnavailable, std::move(message), true, ""};
}

}  // namespace

Status PostgresSession::SetUp(PgConnection* connection) {
  const auto deadline = SteadyClock::now() + std::chrono::seconds(2);
  const std::string guard = std::string(kCompareXid) + kGuardedSettings;
  const std::string guard_only = std::string(kDrawXid) + kGuardedSettings;
  for (const auto& [name, sql] :
       {std::pair{"troth_begin", kBegin}, std::pair{"troth_begin_rw", kBeginReadWrite},
        std::pair{"troth_open", kOpen}, std::pair{"troth_open_ro", kOpenReadOnly},
        std::pair{"troth_limit", kLimit}, std::pair{"troth_label", kLabel},
        std::pair{"troth_constraints", kConstraints}, std::pair{"troth_guard", guard.c_str()},
        std::pair{"troth_guard_only", guard_only.c_str()},
        std::pair{"troth_guard_ro", kGuardReadOnly}, std::pair{"troth_reset", "RESET ALL"},
        std::pair{"troth_clean", kClean}}) {
    TROTH_RETURN_IF_ERROR(connection->PrepareStatement(name, sql, deadline));
  }
  return OkStatus();
}

Granted<std::unique_ptr<Session>> PostgresSession::Begin(const BeginOptions& options, PgPool* pool,
                                                         DatabaseConnector* connector) {
  const auto deadline = SteadyClock::now() + options.time_left;
  for (;;) {
    Result<PgPool::Taken> taken = pool->Take(std::min(options.patience, options.time_left));
    if (!taken.ok()) {
      if (taken.status().code() == Code::kOverloaded) {
        return Refusal{Refused::kOverloaded, taken.status().message(), true, ""};
      }
      return Unavailable(taken.status().message());
    }
    std::unique_ptr<PostgresSession> session(
        new PostgresSession(options, pool, connector, std::move(taken->connection)));
    if (SteadyClock::now() >= deadline) {
      session->Drop();
      return Refusal{Refused::kDeadline, "the deadline passed before the branch was opened", true,
                     ""};
    }
    // A connection that lay idle may have been lost meanwhile; nothing has been done on it yet,
    // so the next one is tried, in the end a new one.
    const std::optional<Refusal> refusal =
        options.with_first_statement ? session->AwaitCleaning() : session->OpenBlock();
    if (!refusal.has_value()) return std::unique_ptr<Session>(std::move(session));
    session->Drop();
    if (!taken->idle || refusal->reason != Refused::kDatabaseUnavailable) return *refusal;
  }
}

PostgresSession::PostgresSession(const BeginOptions& options, PgPool* pool,
                                 DatabaseConnector* connector,
                                 std::unique_ptr<PgConnection> connection)
    : options_(options),
      pool_(pool),
      connector_(connector),
      connection_(std::move(connection)),
      generation_(connector->generation()) {}

// The cleaning after the branch before this one.
std::optional<Refusal> PostgresSession::AwaitCleaning() {
  const auto deadline = SteadyClock::now() + std::min(kShortWait, options_.time_left);
  if (!connection_->Await(connection_->queued_units(), deadline) || !connection_->StillAlive()) {
    connector_->Interrupted();
    return Unavailable("the connection to the database was lost");
  }
  const std::vector<Answer>& answers = connection_->answers();
  if (!answers.empty() && !answers.back().ok) {
    return Unavailable("the connection could not be cleaned: " + answers.back().message);
  }
  connection_->EndPipeline();
  return std::nullopt;
}

// How many statements were queued.
std::size_t PostgresSession::QueueOpening() {
  if (options_.read_only || options_.isolation != Isolation::kDefault) {
    connection_->Queue(BeginStatement(options_));
  } else {
    connection_->QueuePrepared(connection_->writes_by_default() ? "troth_begin" : "troth_begin_rw");
  }
  std::size_t statements = 1;
  const Greeting& standing = connection_->greeting();
  const auto lock = Shorter(standing.lock_timeout, options_.time_left);
  const auto idle = Shorter(standing.idle_timeout, options_.time_left + kServerGrace);
  // The server never waits with a block whose PREPARE travels with its statement, unless it failed.
  if (lock != standing.lock_timeout ||
      (idle != standing.idle_timeout && !options_.prepare_with_statement)) {
    const std::string limits[] = {std::to_string(lock.count()), std::to_string(idle.count())};
    connection_->QueuePrepared("troth_limit", limits);
    ++statements;
  }
  if (!options_.label.empty()) {
    const std::string label[] = {options_.label};
    connection_->QueuePrepared("troth_label", label);
    ++statements;
  }
  if (options_.read_only) {
    const std::string mark[] = {options_.mark};
    connection_->QueuePrepared("troth_open_ro", mark);
    ++statements;
  } else if (!options_.prepare_with_statement) {
    connection_->QueuePrepared("troth_open");
    ++statements;
  }
  return statements;
}

// Takes the answers to QueueOpening, the first `statements` ones.
std::optional<Refusal> PostgresSession::TakeOpening(std::size_t statements, bool answered) {
  const std::vector<Answer>& answers = connection_->answers();
  for (std::size_t i = 0; i < std::min(statements, answers.size()); ++i) {
    if (answers[i].ok) continue;
    // Our statements were forgotten here, by a branch before: another connection has them.
    if (answers[i].sqlstate == "26000") return Unavailable(answers[i].message);
    return RefusalOf(answers[i].sqlstate, answers[i].message);
  }
  if (answers.size() < statements) {
    return Unavailable(answered ? "the connection to the database was lost"
                                : "the database did not open the branch's block in time");
  }
  if (!options_.read_only && !options_.prepare_with_statement) TakeXid(answers[statements - 1]);
  opened_ = true;
  return std::nullopt;
}

void PostgresSession::TakeXid(const Answer& answer) {
  const std::string& xid = *answer.rows[0][0];
  std::from_chars(xid.data(), xid.data() + xid.size(), xid_);
}

std::optional<Refusal> PostgresSession::OpenBlock() {
  if (std::optional<Refusal> unclean = AwaitCleaning()) return unclean;
  const auto deadline = SteadyClock::now() + std::min(kShortWait, options_.time_left);
  const bool wrote_by_default = connection_->writes_by_default();
  const std::size_t statements = QueueOpening();
  connection_->Sync();
  connection_->Flush();
  const bool answered = connection_->Await(1, deadline);
  if (std::optional<Refusal> refusal = TakeOpening(statements, answered)) return refusal;
  if (!answered) return Unavailable("the connection was lost behind the opening of the block");
  if (wrote_by_default && !connection_->writes_by_default()) {
    return Unavailable("default_transaction_read_only was changed while the connection was idle");
  }
  connection_->EndPipeline();
  connection_->ForgetSigns();
  return std::nullopt;
}

pqxx::dbtransaction& PostgresSession::transaction() {
  TROTH_CHECK(opened_);
  return connection_->BeginApplication();
}

Granted<Answer> PostgresSession::Run(const std::string& sql,
                                     std::span<const std::optional<std::string>> parameters) {
  if (connection_ == nullptr || !connection_->alive()) return Unavailable(kLost);
  if (cancelled_) return Refusal{Refused::kEnded, "the work was cancelled", true, "57014"};
  const bool nul = std::any_of(parameters.begin(), parameters.end(), [](const auto& parameter) {
    return parameter.has_value() && parameter->find('\0') != parameter->npos;
  });
  // libpq would send what stands before the zero, perhaps without its WHERE.
  if (nul || sql.find('\0') != sql.npos || parameters.size() > kMaxParameters) {
    return Refusal{Refused::kInvalid,
                   "a statement has at most " + std::to_string(kMaxParameters) +
                       " parameters, and no zero byte in them or in its text",
                   false, ""};
  }
  connection_->EndApplication();
  const bool prepare = options_.prepare_with_statement && !opened_;
  if (prepare && TROTH_FAILPOINT("before-prepare")) {
    return Unavailable("failpoint before-prepare");
  }
  const std::size_t before = opened_ ? 0 : QueueOpening();
  const bool kept = connection_->QueueRepeated(sql, parameters);
  if (prepare) {
    prepare_at_ = before + 1;
    QueuePrepare();
  } else {
    connection_->Sync();
  }
  connection_->Flush();
  if (!connection_->alive()) {
    return Unavailable("the statement could not be sent: it is too large, or its connection lost");
  }
  const bool answered =
      connection_->Await(1, SteadyClock::now() + options_.time_left + kServerGrace);
  const std::vector<Answer>& answers = connection_->answers();
  // With an error before it PREPARE was skipped, for certain only when the unit has ended.
  const bool failed =
      std::any_of(answers.begin(), answers.begin() + std::min(before + 1, answers.size()),
                  [](const Answer& a) { return !a.ok; });
  if (prepare && answered && failed) started_ = over_ = false;
  if (prepare && !answered && connection_->alive()) {
    return Refusal{Refused::kDeadline, "the database did not answer in time", true, ""};
  }
  if (before > 0) {
    if (std::optional<Refusal> refusal = TakeOpening(before, answered)) return *std::move(refusal);
    connection_->ForgetSigns();  // BEGIN was ours, and so is PREPARE
  }
  if (answers.size() <= before) return Unavailable(kLost);
  Answer answer = connection_->TakeAnswer(before);
  connection_->NoteTag(answer.tag);
  // There was no savepoint to roll back to.
  if (prepare && answer.tag == "ROLLBACK") connection_->NoteBoundary(answer.tag);
  if (answered && !started_) connection_->EndPipeline();
  if (answer.ok) return answer;
  Refusal refusal = RefusalOf(answer.sqlstate, answer.message);
  // The default changed since the connection was last used; now it is known.
  const bool read_only_by_default = !options_.read_only && !connection_->writes_by_default();
  if (answer.sqlstate == "25006" && read_only_by_default) refusal.retryable = true;
  if (kept && (answer.sqlstate == "0A000" || answer.sqlstate == "26000")) {
    // A table changed behind the statement, or somebody deallocated it. This connection is not
    // used again (unfit); a fresh one parses anew, and if that fails too it is the statement's.
    refusal.retryable = true;
    refusal.message += "; the statement that this connection kept prepared is outdated";
  }
  return refusal;
}

PostgresSession::~PostgresSession() {
  if (connection_ == nullptr) return;
  if (!over_) Rollback();
  if (connection_ == nullptr) return;
  if (!over_ || cancelled_ || connection_->unfit() || !connection_->alive() ||
      !connection_->boundary_tag().empty()) {
    Drop();
    return;
  }
  pool_->GiveBack(std::move(connection_));
}

void PostgresSession::Drop() {
  if (connection_ == nullptr) return;
  if (!connection_->alive()) connector_->Interrupted();
  connection_->EndApplication();
  connector_->canceller().Release(connection_->TakeCancel());
  connection_.reset();
  pool_->GiveBack(nullptr);
}

std::optional<Refusal> PostgresSession::Broken() {
  if (cancelled_) return Refusal{Refused::kEnded, "the work was cancelled", true, "57014"};
  if (connection_ == nullptr || !connection_->alive()) {
    return Unavailable(kLost);
  }
  const std::string& tag = connection_->boundary_tag();
  if (!tag.empty()) {
    return Refusal{Refused::kInvalid,
                   "the work executed " + tag +
                       ": the boundaries of a branch belong to its coordinator; what the work "
                       "committed itself stays committed",
                   false, ""};
  }
  if (started_) return std::nullopt;  // its answer says
  switch (connection_->transaction_status()) {
    case PQTRANS_INTRANS: return std::nullopt;
    case PQTRANS_INERROR:
      return Refusal{Refused::kDatabase,
                     "a statement of the work failed and the work went on as if it had not; use a "
                     "savepoint around what may fail",
                     false, "25P02"};
    case PQTRANS_IDLE:
      return Refusal{Refused::kInvalid, "the work ended the branch's block (ROLLBACK)", false, ""};
    default: return Refusal{Refused::kDatabase, "the work left a statement unfinished", false, ""};
  }
}

void PostgresSession::QueuePrepare() {
  started_ = true;
  if (options_.read_only) {
    const std::string parameters[] = {options_.mark};
    connection_->QueuePrepared("troth_guard_ro", parameters);
    connection_->Queue("ROLLBACK");
  } else {
    connection_->QueuePrepared("troth_constraints");
    if (options_.prepare_with_statement) {
      connection_->QueuePrepared("troth_guard_only");
    } else {
      const std::string parameters[] = {std::to_string(xid_)};
      connection_->QueuePrepared("troth_guard", parameters);
    }
    connection_->Queue("PREPARE TRANSACTION " + Quoted(options_.gid));
  }
  QueueCleaning();  // skipped when PREPARE is: then it is queued again
}

void PostgresSession::QueueCleaning() {
  const std::string role[] = {connection_->role()};
  connection_->QueuePrepared("troth_clean", role);
  connection_->QueuePrepared("troth_reset");
  connection_->Sync();
  over_ = true;
}

void PostgresSession::Rollback() {
  if (connection_ == nullptr || over_) return;
  connection_->EndApplication();
  if (!opened_ && connection_->queued_units() == 0) {
    over_ = true;  // nothing was begun
    return;
  }
  const PGTransactionStatusType status = connection_->transaction_status();
  if (started_ || !connection_->alive() ||
      (status != PQTRANS_INTRANS && status != PQTRANS_INERROR)) {
    Drop();  // the server rolls back when it notices that we are gone
    return;
  }
  connection_->Queue("ROLLBACK");
  connection_->Sync();
  QueueCleaning();
  connection_->Flush();
  if (!connection_->Await(1, SteadyClock::now() + kShortWait)) Drop();
}

void PostgresSession::Cancel() {
  cancelled_ = true;
  connector_->canceller().Send(connection_->cancel());
}

PrepareResult PostgresSession::Refuse(Refusal refusal) {
  Rollback();
  return PrepareResult{PrepareResult::Kind::kRefused, {}, 0, std::move(refusal)};
}

std::optional<PrepareResult> PostgresSession::StartPrepare() {
  TROTH_CHECK(!started_);
  if (std::optional<Refusal> broken = Broken()) return Refuse(std::move(*broken));
  if (TROTH_FAILPOINT("before-prepare")) return Refuse(Unavailable("failpoint before-prepare"));
  connection_->EndApplication();
  connection_->ForgetSigns();
  TROTH_CHECK(options_.read_only || xid_ != 0);
  QueuePrepare();
  connection_->Flush();
  return std::nullopt;
}

std::optional<PrepareResult> PostgresSession::PollPrepare() {
  connection_->Poll();
  if (connection_->ended_units() < 1 && connection_->alive()) {
    if (!connector_->LeftBehind(*connection_)) return std::nullopt;
    connection_->GiveUp();
  }
  // A crash here leaves the branch prepared, its vote unheard; the sweep asks for it.
  TROTH_FAILPOINT("after-prepare");
  // Run did not wait for it: what is prepared is known, and rolled back, by the xid that comes now.
  if (prepare_at_ > 0 && !opened_) static_cast<void>(TakeOpening(prepare_at_ - 1, true));
  const std::span<const Answer> answers = PrepareAnswers();
  if (xid_ == 0 && !options_.read_only && !answers.empty() && answers[0].ok) TakeXid(answers[0]);
  PrepareResult result = Judge();
  CleanAfterFailure();
  connection_->ForgetSigns();  // PREPARE's own tag is no sign of the application
  return result;
}

// A failed PREPARE has ended the block and skipped the cleaning, a failed constraint has left it
// failed. A failed guard has left a block open that is not to be trusted: its connection is
// dropped.
void PostgresSession::CleanAfterFailure() {
  const std::span<const Answer> answers = PrepareAnswers();
  const bool cleaned = answers.size() == 4 && answers[2].ok && answers[3].ok;
  over_ = cleaned;
  if (cleaned || !connection_->alive() || connection_->ended_units() < 1) return;
  const bool constraint = FailedConstraint() != nullptr;
  if (!constraint && !answers[0].ok) return;
  connection_->EndPipeline();  // libpq tells no status before
  const PGTransactionStatusType status = connection_->transaction_status();
  if (status != (constraint ? PQTRANS_INERROR : PQTRANS_IDLE)) return;
  if (constraint) {
    connection_->Queue("ROLLBACK");
    connection_->Sync();
  }
  QueueCleaning();
  connection_->Flush();
}

// The error of a deferred constraint, in whose place PREPARE's would be without us.
const Answer* PostgresSession::FailedConstraint() const {
  const std::vector<Answer>& answers = connection_->answers();
  if (options_.read_only || answers.size() <= prepare_at_) return nullptr;
  return answers[prepare_at_].ok ? nullptr : &answers[prepare_at_];
}

// The answers to QueuePrepare behind that to the constraints, as far as they have come: guard,
// PREPARE, position, RESET ALL.
std::span<const Answer> PostgresSession::PrepareAnswers() const {
  const std::vector<Answer>& answers = connection_->answers();
  const std::size_t guard_at = prepare_at_ + (options_.read_only ? 0 : 1);
  return std::span(answers).subspan(std::min(guard_at, answers.size()));
}

PrepareResult PostgresSession::Judge() {
  using Kind = PrepareResult::Kind;
  const std::span<const Answer> answers = PrepareAnswers();
  const auto refused = [&](Refusal refusal) {
    return PrepareResult{Kind::kRefused, {}, 0, std::move(refusal)};
  };
  const auto unknown = [&](Refusal refusal) {
    return PrepareResult{Kind::kUnknown, Evidence{xid_, {}}, 0, std::move(refusal)};
  };
  const bool ended = connection_->ended_units() >= 1;
  if (const Answer* failed = FailedConstraint();
      failed != nullptr && (ended || !ConnectionLost(failed->sqlstate))) {
    return refused(RefusalOf(failed->sqlstate, failed->message));
  }
  if (!answers.empty() && !answers[0].ok && !ConnectionLost(answers[0].sqlstate)) {
    if (answers[0].sqlstate != "22012")
      return refused(RefusalOf(answers[0].sqlstate, answers[0].message));
    return refused({Refused::kInvalid,
                    options_.read_only
                        ? "the branch was declared read only and did not keep to it"
                        : "the block that is open is not the one the branch was begun in: the work "
                          "ended it (COMMIT, COMMIT AND CHAIN, ROLLBACK) and went on in another",
                    false, "22012"});
  }
  // Whatever is in the database's hands when the connection ends may be prepared, or become so
  // when the server recovers, also when an error came first (a PANIC's).
  if (!ended || answers.size() < 2) {
    if (options_.read_only) return refused(Unavailable("the connection was lost at prepare"));
    return unknown(Unavailable("the connection was lost while the branch was being prepared"));
  }
  if (!answers[1].ok) return refused(RefusalOf(answers[1].sqlstate, answers[1].message));
  if (options_.read_only) return {Kind::kReadOnly, {}, 0, {}};
  if (answers[1].tag != "PREPARE TRANSACTION") {
    return refused({Refused::kDatabase,
                    "the block had failed: PREPARE TRANSACTION answered " + answers[1].tag, false,
                    ""});
  }
  if (!answers[1].warning.empty()) {
    return unknown({Refused::kDatabase,
                    "PREPARE TRANSACTION came with a warning (SQLSTATE " + answers[1].warning +
                        "): it may not be as durable as asked for",
                    true, answers[1].warning});
  }
  if (answers.size() < 3 || !answers[2].ok || answers[2].rows.empty()) {
    return unknown(Unavailable("the database did not tell its position after PREPARE"));
  }
  TROTH_CHECK(xid_ != 0);
  Evidence evidence;
  evidence.xid = xid_;
  evidence.point.timeline = connection_->greeting().point.timeline;
  evidence.point.position = ParseLsn(answers[2].rows[0][0].value_or("0/0"));
  connector_->memory().Remember(evidence.point);
  return {Kind::kPrepared, evidence, generation_, {}};
}

}  // namespace troth
