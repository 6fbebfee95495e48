// See postgres_connection.h.
#include "participant/postgres_connection.h"

#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <charconv>
#include <csignal>
#include <utility>

#include <libpq-events.h>
#include <pqxx/connection_base>
#include <pqxx/connectionpolicy>
#include <pqxx/dbtransaction>
#include <pqxx/except>

#include "common/check.h"
#include "participant/conninfo.h"

namespace troth {
namespace {

using Clock = std::chrono::steady_clock;

int MillisecondsUntil(PgConnection::TimePoint deadline) {
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now()).count();
  return static_cast<int>(std::clamp<std::int64_t>(left, 0, 1'000'000));
}

bool AwaitSocket(int socket, short events, PgConnection::TimePoint deadline) {
  pollfd one{socket, events, 0};
  for (;;) {
    const int ready = poll(&one, 1, MillisecondsUntil(deadline));
    if (ready >= 0 || errno != EINTR) return ready > 0;
  }
}

// Statements of the application that a connection keeps prepared; what is beyond is parsed anew.
constexpr std::size_t kMaxRepeated = 256;

std::vector<Row> RowsOf(const PGresult* result) {
  std::vector<Row> rows(static_cast<std::size_t>(PQntuples(result)));
  for (int r = 0; r < PQntuples(result); ++r) {
    Row& row = rows[static_cast<std::size_t>(r)];
    for (int c = 0; c < PQnfields(result); ++c) {
      if (PQgetisnull(result, r, c)) {
        row.emplace_back();
      } else {
        row.emplace_back(PQgetvalue(result, r, c));
      }
    }
  }
  return rows;
}

std::string TrimmedMessage(const char* text) {
  std::string message(text == nullptr ? "" : text);
  while (!message.empty() && (message.back() == '\n' || message.back() == ' ')) message.pop_back();
  return message;
}

// Hands libpqxx a connection that somebody else owns, once. libpqxx 6.4 reconnects silently and
// then goes on in autocommit; asked a second time, this says no.
class OnlyOnce : public pqxx::connectionpolicy {
 public:
  explicit OnlyOnce(PGconn* conn) : connectionpolicy(std::string()), conn_(conn) {}
  handle do_startconnect(handle) override { return Given(); }
  handle do_completeconnect(handle) override { return Given(); }
  handle do_dropconnect(handle) noexcept override { return nullptr; }
  handle do_disconnect(handle) noexcept override { return nullptr; }

 private:
  PGconn* Given() {
    if (PQstatus(conn_) != CONNECTION_OK) {
      throw pqxx::broken_connection("the branch's connection was lost, and with it the branch");
    }
    return conn_;
  }
  PGconn* const conn_;
};

// A transaction of libpqxx whose boundaries are somebody else's business.
class BranchTransaction : public pqxx::dbtransaction {
 public:
  explicit BranchTransaction(pqxx::connection_base& connection)
      : namedclass("branch"), dbtransaction(connection) {
    Begin();
  }
  ~BranchTransaction() override { End(); }

 private:
  void do_begin() override {}
  pqxx::result do_exec(const char query[]) override { return direct_exec(query, 0); }
  void do_commit() override {
    throw pqxx::usage_error("a branch is committed by its coordinator, not by its work");
  }
  void do_abort() override {}
};

}  // namespace

class PgConnection::Face : public pqxx::connection_base {
 public:
  explicit Face(PGconn* conn) : connection_base(policy_), policy_(conn) {
    init();
#include <pqxx/internal/ignore-deprecated-pre.hxx>
    inhibit_reactivation(true);
#include <pqxx/internal/ignore-deprecated-post.hxx>
  }
  ~Face() {
    transaction.reset();
    close();
  }

  std::unique_ptr<BranchTransaction> transaction;

 private:
  OnlyOnce policy_;
};

PgConnection::PgConnection(PGconn* conn) : conn_(conn) {
  PQsetNoticeReceiver(conn_, &PgConnection::OnNotice, this);
}

PgConnection::~PgConnection() {
  face_.reset();
  PQfinish(conn_);
}

Result<std::unique_ptr<PgConnection>> PgConnection::Open(const std::string& conninfo,
                                                         const std::string& application_name,
                                                         std::chrono::milliseconds time) {
  // What stands before dbname (which takes the whole string) is a default, what follows is ours.
  const char* const keywords[] = {"keepalives_idle",
                                  "keepalives_interval",
                                  "keepalives_count",
                                  "tcp_user_timeout",
                                  "dbname",
                                  "fallback_application_name",
                                  nullptr};
  const char* const values[] = {
      "5", "5", "3", "10000", conninfo.c_str(), application_name.c_str(), nullptr};
  const TimePoint deadline = Clock::now() + time;
  PGconn* conn = PQconnectStartParams(keywords, values, 1);
  if (conn == nullptr) return Status(Code::kUnavailable, "libpq is out of memory");
  std::unique_ptr<PgConnection> connection(new PgConnection(conn));
  PostgresPollingStatusType state = PGRES_POLLING_WRITING;
  while (state != PGRES_POLLING_OK && state != PGRES_POLLING_FAILED) {
    if (PQstatus(conn) == CONNECTION_BAD) break;
    const short events = state == PGRES_POLLING_READING ? POLLIN : POLLOUT;
    if (!AwaitSocket(PQsocket(conn), events, deadline)) {
      return Status(Code::kUnavailable, "the database did not answer in time");
    }
    state = PQconnectPoll(conn);
  }
  if (state != PGRES_POLLING_OK) {
    return Status(Code::kUnavailable, TrimmedMessage(PQerrorMessage(conn)));
  }
  connection->cancel_.reset(PQgetCancel(conn));
  TROTH_RETURN_IF_ERROR(connection->Greet(deadline));
  return connection;
}

Status PgConnection::Greet(TimePoint deadline) {
  // The control file lags after a promotion; the name of the present WAL file does not.
  const Answer answer = Execute(
      "SELECT (SELECT system_identifier FROM pg_catalog.pg_control_system()),"
      " (SELECT oid FROM pg_catalog.pg_database"
      "  WHERE datname OPERATOR(pg_catalog.=) pg_catalog.current_database()),"
      " pg_catalog.pg_is_in_recovery(),"
      " CASE WHEN NOT pg_catalog.pg_is_in_recovery() THEN"
      "  pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()) END,"
      " CASE WHEN NOT pg_catalog.pg_is_in_recovery() THEN"
      "  pg_catalog.pg_current_wal_flush_lsn() END,"
      // What a reload of the server's configuration may change is no limit to count on.
      " (SELECT setting FROM pg_catalog.pg_settings"
      "  WHERE name OPERATOR(pg_catalog.=) 'lock_timeout' AND source OPERATOR(pg_catalog.=)"
      "  ANY ('{global,database,user,database user,client}'::pg_catalog.text[])),"
      " (SELECT setting FROM pg_catalog.pg_settings"
      "  WHERE name OPERATOR(pg_catalog.=) 'idle_in_transaction_session_timeout'"
      "  AND source OPERATOR(pg_catalog.=)"
      "  ANY ('{global,database,user,database user,client}'::pg_catalog.text[])),"
      " pg_catalog.host(pg_catalog.inet_server_addr())",
      {}, deadline);
  if (!answer.ok || answer.rows.empty() || answer.rows[0].size() != 8) {
    return Status(Code::kUnavailable, "the database did not say which it is: " + answer.message);
  }
  const Row& row = answer.rows[0];
  greeting_.identity.system_identifier = row[0].value_or("");
  const std::string oid = row[1].value_or("");
  std::from_chars(oid.data(), oid.data() + oid.size(), greeting_.identity.oid);
  greeting_.standby = row[2].value_or("") == "t";
  if (const std::string file = row[3].value_or(""); file.size() >= 8) {
    std::from_chars(file.data(), file.data() + 8, greeting_.point.timeline, 16);
  }
  greeting_.point.position = ParseLsn(row[4].value_or("0/0"));
  greeting_.lock_timeout = std::chrono::milliseconds(std::stoll(row[5].value_or("0")));
  greeting_.idle_timeout = std::chrono::milliseconds(std::stoll(row[6].value_or("0")));
  greeting_.address = std::string(PQhost(conn_)) + ":" + PQport(conn_);
  greeting_.machine = MachineOf(PQhost(conn_), row[7].value_or(""));
  return OkStatus();
}

bool PgConnection::StillAlive() {
  if (!alive()) return false;
  pollfd look{socket(), POLLIN | POLLRDHUP, 0};
  return poll(&look, 1, 0) == 0;
}

bool PgConnection::writes_by_default() const {
  // Servers before 14 don't tell.
  const char* read_only = PQparameterStatus(conn_, "default_transaction_read_only");
  return read_only != nullptr && std::string_view(read_only) == "off";
}

void PgConnection::GiveUp() {
  given_up_ = true;
  shutdown(socket(), SHUT_RDWR);
}

// What stands behind a statement that libpq did not take (it is too large, there is no memory) must
// not be executed without it.
void PgConnection::Sent(int taken) {
  if (taken == 0 && alive()) GiveUp();
}

void PgConnection::EnterPipeline() {
  if (PQpipelineStatus(conn_) == PQ_PIPELINE_OFF) PQenterPipelineMode(conn_);
}

void PgConnection::Queue(std::string_view sql, std::span<const std::string> parameters) {
  EnterPipeline();
  ++queued_statements_;
  std::vector<const char*> values;
  for (const std::string& p : parameters) values.push_back(p.c_str());
  Sent(PQsendQueryParams(conn_, std::string(sql).c_str(), static_cast<int>(values.size()), nullptr,
                         values.data(), nullptr, nullptr, 0));
}

void PgConnection::QueuePrepared(const char* statement, std::span<const std::string> parameters) {
  EnterPipeline();
  ++queued_statements_;
  std::vector<const char*> values;
  for (const std::string& p : parameters) values.push_back(p.c_str());
  Sent(PQsendQueryPrepared(conn_, statement, static_cast<int>(values.size()), values.data(),
                           nullptr, nullptr, 0));
}

bool PgConnection::QueueRepeated(const std::string& sql,
                                 std::span<const std::optional<std::string>> parameters) {
  EnterPipeline();
  auto known = repeated_.find(sql);
  const bool kept = known != repeated_.end();
  if (known == repeated_.end() && repeated_.size() < kMaxRepeated) {
    known = repeated_.emplace(sql, "troth_app_" + std::to_string(repeated_.size())).first;
    preparing_.push_back(queued_statements_++);
    Sent(PQsendPrepare(conn_, known->second.c_str(), sql.c_str(), 0, nullptr));
  }
  std::vector<const char*> values;
  for (const auto& p : parameters) values.push_back(p.has_value() ? p->c_str() : nullptr);
  const int count = static_cast<int>(values.size());
  ++queued_statements_;
  if (known == repeated_.end()) {
    Sent(PQsendQueryParams(conn_, sql.c_str(), count, nullptr, values.data(), nullptr, nullptr, 0));
  } else {
    Sent(PQsendQueryPrepared(conn_, known->second.c_str(), count, values.data(), nullptr, nullptr,
                             0));
  }
  return kept;
}

void PgConnection::Sync() {
  PQpipelineSync(conn_);
  ++queued_units_;
}

void PgConnection::Flush() { PQflush(conn_); }

void PgConnection::Poll() {
  if (ended_units_ == queued_units_ || !alive()) return;
  // Whatever has arrived is taken even when the connection ends behind it.
  PQconsumeInput(conn_);
  while (ended_units_ < queued_units_ && !given_up_ && PQisBusy(conn_) == 0) {
    PGresult* result = PQgetResult(conn_);
    if (result == nullptr) {
      if (!alive()) return;
      continue;  // between two statements
    }
    Take(result);
  }
}

void PgConnection::Take(PGresult* raw) {
  const PgResult result(raw);
  const ExecStatusType status = PQresultStatus(raw);
  if (status == PGRES_PIPELINE_SYNC) {
    ++ended_units_;
    // The end of a unit commits, and that may come with a warning.
    if (!answers_.empty() && answers_.back().warning.empty()) answers_.back().warning = warning_;
    warning_.clear();
    return;
  }
  const bool preparing = !preparing_.empty() && preparing_.front() == taken_statements_;
  ++taken_statements_;
  Answer answer;
  answer.warning = std::exchange(warning_, "");
  answer.ok =
      status == PGRES_COMMAND_OK || status == PGRES_TUPLES_OK || status == PGRES_EMPTY_QUERY;
  answer.skipped = status == PGRES_PIPELINE_ABORTED;
  if (answer.ok) {
    answer.tag = PQcmdStatus(raw);
    answer.rows = RowsOf(raw);
    const std::string_view count = PQcmdTuples(raw);
    std::from_chars(count.data(), count.data() + count.size(), answer.affected);
  } else if (status == PGRES_COPY_IN || status == PGRES_COPY_OUT || status == PGRES_COPY_BOTH) {
    // libpq would tell it again and again, and there is no way back into the pipeline.
    answer.sqlstate = "0A000";
    answer.message = "COPY can't be a statement here; use the transaction of libpqxx";
    GiveUp();
  } else {
    const char* state = PQresultErrorField(raw, PG_DIAG_SQLSTATE);
    answer.sqlstate = state == nullptr ? "" : state;
    answer.message = TrimmedMessage(PQresultErrorField(raw, PG_DIAG_MESSAGE_PRIMARY));
    if (answer.message.empty()) answer.message = TrimmedMessage(PQresultErrorMessage(raw));
    // What the server keeps prepared is outdated, or gone.
    if (answer.sqlstate == "0A000" || answer.sqlstate == "26000") unfit_ = true;
  }
  if (preparing) {  // no answer of its own: it is one with the statement behind it
    preparing_.pop_front();
    if (answer.ok) return;
    unfit_ = true;  // repeated_ names what the server does not have
    if (!answer.skipped) unprepared_ = std::move(answer);
    return;
  }
  if (answer.skipped && unprepared_.has_value()) answer = *std::exchange(unprepared_, std::nullopt);
  answers_.push_back(std::move(answer));
}

bool PgConnection::Await(std::size_t units, TimePoint deadline) {
  while (ended_units_ < units) {
    if (!alive() || !AwaitSocket(socket(), POLLIN, deadline)) return false;
    Poll();
  }
  return true;
}

void PgConnection::EndPipeline() {
  TROTH_CHECK(ended_units_ == queued_units_);
  answers_.clear();
  queued_units_ = ended_units_ = 0;
  queued_statements_ = taken_statements_ = 0;
  if (PQpipelineStatus(conn_) == PQ_PIPELINE_OFF || !alive()) return;
  // The NULL that closes the last statement may not have been fetched yet.
  while (PGresult* result = PQgetResult(conn_)) PQclear(result);
  PQexitPipelineMode(conn_);
}

Answer PgConnection::Execute(std::string_view sql, std::span<const std::string> parameters,
                             TimePoint deadline) {
  Queue(sql, parameters);
  Sync();
  Flush();
  Answer answer;
  if (Await(queued_units_, deadline) && !answers_.empty()) {
    answer = std::move(answers_.back());
    EndPipeline();
    return answer;
  }
  if (!answers_.empty() && !answers_.back().ok) answer = answers_.back();  // a FATAL says why
  if (answer.message.empty()) answer.message = TrimmedMessage(PQerrorMessage(conn_));
  if (answer.message.empty()) answer.message = "the database did not answer in time";
  if (alive()) shutdown(socket(), SHUT_RDWR);
  Poll();
  return answer;
}

Result<std::vector<Row>> PgConnection::Query(std::string_view sql,
                                             std::span<const std::string> parameters,
                                             TimePoint deadline) {
  std::vector<const char*> values;
  for (const std::string& p : parameters) values.push_back(p.c_str());
  if (PQsendQueryParams(conn_, std::string(sql).c_str(), static_cast<int>(values.size()), nullptr,
                        values.data(), nullptr, nullptr, 0) == 0) {
    return Status(Code::kUnavailable, TrimmedMessage(PQerrorMessage(conn_)));
  }
  std::vector<Row> rows;
  Status status;
  for (;;) {
    while (PQisBusy(conn_) != 0) {
      if (!AwaitSocket(socket(), POLLIN, deadline)) {
        shutdown(socket(), SHUT_RDWR);
        PQconsumeInput(conn_);
        return Status(Code::kUnavailable, "the database did not answer in time");
      }
      if (PQconsumeInput(conn_) == 0) {
        return Status(Code::kUnavailable, TrimmedMessage(PQerrorMessage(conn_)));
      }
    }
    const PgResult result(PQgetResult(conn_));
    if (!result) break;
    if (PQresultStatus(result.get()) != PGRES_TUPLES_OK) {
      status = Status(Code::kUnavailable, TrimmedMessage(PQresultErrorMessage(result.get())));
      continue;
    }
    for (Row& row : RowsOf(result.get())) rows.push_back(std::move(row));
  }
  TROTH_RETURN_IF_ERROR(status);
  return rows;
}

Status PgConnection::PrepareStatement(const char* name, const char* sql, TimePoint deadline) {
  EnterPipeline();
  ++queued_statements_;
  Sent(PQsendPrepare(conn_, name, sql, 0, nullptr));
  Sync();
  Flush();
  if (!Await(queued_units_, deadline)) {
    return Status(Code::kUnavailable, TrimmedMessage(PQerrorMessage(conn_)));
  }
  const Answer answer = answers_.back();
  EndPipeline();
  if (!answer.ok) return Status(Code::kUnavailable, std::string(name) + ": " + answer.message);
  return OkStatus();
}

pqxx::dbtransaction& PgConnection::BeginApplication() {
  TROTH_CHECK(PQpipelineStatus(conn_) == PQ_PIPELINE_OFF);
  if (!face_) {
    face_ = std::make_unique<Face>(conn_);
    // What libpqxx asks for does not pass through Take.
    PQregisterEventProc(conn_, &PgConnection::OnEvent, "troth", this);
  }
  if (!face_->transaction) face_->transaction = std::make_unique<BranchTransaction>(*face_);
  return *face_->transaction;
}

void PgConnection::EndApplication() {
  if (face_) face_->transaction.reset();
}

void PgConnection::ForgetSigns() { boundary_tag_.clear(); }

void PgConnection::NoteTag(std::string_view tag) {
  for (const std::string_view boundary :
       {"BEGIN", "START TRANSACTION", "COMMIT", "PREPARE TRANSACTION", "COMMIT PREPARED",
        "ROLLBACK PREPARED"}) {
    if (tag == boundary) NoteBoundary(tag);
  }
  // Our own prepared statements, or the server's memory of us, are gone; or there is one more,
  // which the next branch must not find. (Ours are prepared without a tag.)
  if (tag == "PREPARE" || tag.starts_with("DEALLOCATE") || tag.starts_with("DISCARD")) {
    unfit_ = true;
  }
}

void PgConnection::OnNotice(void* self, const PGresult* notice) {
  // Field V is never translated.
  const char* severity = PQresultErrorField(notice, PG_DIAG_SEVERITY_NONLOCALIZED);
  if (severity == nullptr || std::string_view(severity) != "WARNING") return;
  auto* connection = static_cast<PgConnection*>(self);
  const char* state = PQresultErrorField(notice, PG_DIAG_SQLSTATE);
  if (connection->warning_.empty()) connection->warning_ = state == nullptr ? "?" : state;
}

int PgConnection::OnEvent(PGEventId event, void* info, void* self) {
  if (event == PGEVT_RESULTCREATE) {
    const PGresult* result = static_cast<PGEventResultCreate*>(info)->result;
    if (PQresultStatus(result) == PGRES_COMMAND_OK) {
      static_cast<PgConnection*>(self)->NoteTag(PQcmdStatus(const_cast<PGresult*>(result)));
    }
  }
  return 1;
}

PgCanceller::PgCanceller() {
  // The thread takes no signals: they are for who blocks them after the database was opened.
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  thread_ = std::thread([this] { Run(); });
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

PgCanceller::~PgCanceller() {
  {
    MutexLock lock(&mutex_);
    over_ = true;
  }
  changed_.NotifyAll();
  thread_.join();
}

void PgCanceller::Send(PGcancel* cancel) {
  {
    MutexLock lock(&mutex_);
    if (cancel == nullptr ||
        std::find(requests_.begin(), requests_.end(), cancel) != requests_.end()) {
      return;
    }
    requests_.push_back(cancel);
  }
  changed_.NotifyAll();
}

void PgCanceller::Release(PgCancel cancel) {
  MutexLock lock(&mutex_);
  const bool asked = std::find(requests_.begin(), requests_.end(), cancel.get()) != requests_.end();
  if (asked) released_.push_back(std::move(cancel));
}

void PgCanceller::Run() {
  for (;;) {
    PGcancel* cancel = nullptr;
    {
      MutexLock lock(&mutex_);
      while (requests_.empty() && !over_) changed_.Wait(&mutex_);
      if (over_) return;
      cancel = requests_.front();
    }
    char error[256];
    PQcancel(cancel, error, sizeof error);  // If it fails, the statement just goes on.
    MutexLock lock(&mutex_);
    requests_.pop_front();
    std::erase_if(released_, [cancel](const PgCancel& one) { return one.get() == cancel; });
  }
}

std::string Quoted(std::string_view text) {
  TROTH_CHECK(text.find('\'') == text.npos && text.find('\\') == text.npos);
  return "'" + std::string(text) + "'";
}

std::uint64_t ParseLsn(std::string_view text) {
  const std::size_t slash = text.find('/');
  if (slash == text.npos) return 0;
  std::uint64_t high = 0;
  std::uint64_t low = 0;
  std::from_chars(text.data(), text.data() + slash, high, 16);
  std::from_chars(text.data() + slash + 1, text.data() + text.size(), low, 16);
  return high << 32 | low;
}

std::vector<bool> AwaitReadable(std::span<const int> sockets, PgConnection::TimePoint deadline) {
  std::vector<pollfd> fds;
  for (const int socket : sockets) fds.push_back({socket, POLLIN, 0});
  std::vector<bool> readable(fds.size(), false);
  if (poll(fds.data(), fds.size(), MillisecondsUntil(deadline)) <= 0) return readable;
  for (std::size_t i = 0; i < fds.size(); ++i) readable[i] = fds[i].revents != 0;
  return readable;
}

}  // namespace troth
