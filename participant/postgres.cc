// See postgres.h.
#include "participant/postgres.h"

#include <algorithm>
#include <charconv>

#include <glog/logging.h>

#include "common/check.h"
#include "common/transaction_id.h"
#include "participant/postgres_session.h"

namespace troth {
namespace {

using SteadyClock = std::chrono::steady_clock;

constexpr std::chrono::milliseconds kDeskTime{10'000};

constexpr char kMakeNotes[] =
    "CREATE TABLE public.troth_seen (coordinator pg_catalog.text PRIMARY KEY, epoch bigint NOT "
    "NULL,"
    " epoch_random bigint NOT NULL, position bigint NOT NULL)";
constexpr char kHaveNotes[] =
    "SELECT pg_catalog.to_regclass('public.troth_seen') IS NOT NULL AND"
    " pg_catalog.has_table_privilege('public.troth_seen', 'SELECT, INSERT, UPDATE')";
constexpr char kStoreSeen[] =
    "INSERT INTO public.troth_seen AS s VALUES ($1, $2, $3, $4)"
    " ON CONFLICT (coordinator) DO UPDATE SET epoch = excluded.epoch,"
    "  epoch_random = excluded.epoch_random, position = excluded.position"
    " WHERE (s.epoch, s.position) OPERATOR(pg_catalog.<) (excluded.epoch, excluded.position)";

template <typename T>
T Number(const std::optional<std::string>& text) {
  T value = 0;
  if (text.has_value()) std::from_chars(text->data(), text->data() + text->size(), value);
  return value;
}

SteadyClock::time_point DeskDeadline() { return SteadyClock::now() + kDeskTime; }

Status MakeNotes(PgConnection* connection) {
  const Answer made = connection->Execute(kMakeNotes, {}, DeskDeadline());
  // 42P07: another instance has just made it; 23505: is making it.
  if (!made.ok && made.sqlstate != "42P07" && made.sqlstate != "23505" &&
      made.sqlstate != "42501") {
    return Status(Code::kUnavailable, "making table public.troth_seen: " + made.message);
  }
  if (made.ok) return OkStatus();
  const Answer usable = connection->Execute(kHaveNotes, {}, DeskDeadline());
  if (usable.ok && usable.rows[0][0].value_or("f") == "t") return OkStatus();
  return Status(Code::kRefused,
                "the participant's role may neither make nor use the table of notes. Run: " +
                    std::string(kMakeNotes) +
                    "; GRANT SELECT, INSERT, UPDATE ON public.troth_seen TO the role");
}

}  // namespace

PostgresResourceManager::PostgresResourceManager(PostgresOptions options)
    : options_(std::move(options)),
      connector_(options_.conninfo, "troth " + options_.participant),
      pool_(&connector_, static_cast<std::size_t>(options_.pool_size),
            [this](PgConnection* connection) {
              // It may have restarted since the desk looked: nothing is voted on one that is unfit.
              TROTH_RETURN_IF_ERROR(CheckFit(connection));
              return PostgresSession::SetUp(connection);
            }),
      finisher_(&connector_, static_cast<std::size_t>(options_.finish_connections)) {}

PostgresResourceManager::~PostgresResourceManager() = default;

Result<std::unique_ptr<PostgresResourceManager>> PostgresResourceManager::Open(
    PostgresOptions options) {
  std::unique_ptr<PostgresResourceManager> manager(new PostgresResourceManager(std::move(options)));
  MutexLock lock(&manager->desk_mutex_);
  Result<PgConnection*> desk = manager->Desk();
  if (!desk.ok()) return desk.status();
  const Answer have = (*desk)->Execute(kHaveNotes, {}, DeskDeadline());
  if (!have.ok || have.rows[0][0].value_or("f") != "t") {
    TROTH_RETURN_IF_ERROR(MakeNotes(*desk));
  }
  manager->started_ = true;
  return manager;
}

Status PostgresResourceManager::CheckFit(PgConnection* connection) {
  return CheckServer(connection, options_.max_in_doubt, GidPrefix(options_.participant));
}

Result<PgConnection*> PostgresResourceManager::Desk() {
  if (desk_ != nullptr && desk_->StillAlive() && !connector_.LeftBehind(*desk_)) {
    return desk_.get();
  }
  if (desk_ != nullptr) connector_.Interrupted();
  desk_.reset();
  holds_sweep_ = false;
  Result<std::unique_ptr<PgConnection>> opened = connector_.Open(kDeskTime);
  if (!opened.ok()) return opened.status();
  const Status fit = CheckFit(opened->get());
  if (!fit.ok() && !(started_ && fit.code() == Code::kRefused)) return fit;
  // Without the desk nobody would ask what became of the branches that are prepared there.
  if (!fit.ok()) LOG(WARNING) << "no branch is begun, recovery goes on: " << fit.message();
  // Notes may be lost with a primary, and must not wait: not for a standby, not for a lock.
  for (const char* sql : {"SET synchronous_commit = local", "SET lock_timeout = '1s'",
                          "SET default_transaction_read_only = off"}) {
    const Answer set = opened->get()->Execute(sql, {}, DeskDeadline());
    if (!set.ok) return Status(Code::kUnavailable, set.message);
  }
  desk_ = std::move(*opened);
  return desk_.get();
}

Granted<std::unique_ptr<Session>> PostgresResourceManager::Begin(const BeginOptions& options) {
  return PostgresSession::Begin(options, &pool_, &connector_);
}

void PostgresResourceManager::Prepare(std::span<PrepareItem> items,
                                      std::chrono::milliseconds wait) {
  const auto deadline = SteadyClock::now() + wait;
  std::vector<PrepareItem*> open;
  for (PrepareItem& item : items) {
    if (item.result.has_value()) continue;
    auto* session = static_cast<PostgresSession*>(item.session);
    if (session->PrepareSent()) {
      item.result = session->PollPrepare();
    } else {
      item.result = session->StartPrepare();
    }
    if (!item.result.has_value()) open.push_back(&item);
  }
  while (!open.empty()) {
    std::vector<int> sockets;
    for (const PrepareItem* item : open) {
      sockets.push_back(static_cast<PostgresSession*>(item->session)->connection()->socket());
    }
    const std::vector<bool> readable = AwaitReadable(sockets, deadline);
    std::vector<PrepareItem*> still;
    for (std::size_t i = 0; i < open.size(); ++i) {
      if (readable[i] || sockets[i] < 0) {  // -1: lost while it was written to
        open[i]->result = static_cast<PostgresSession*>(open[i]->session)->PollPrepare();
      }
      if (!open[i]->result.has_value()) still.push_back(open[i]);
    }
    open = std::move(still);
    if (SteadyClock::now() >= deadline) return;
  }
}

void PostgresResourceManager::Finish(std::span<FinishItem> items, std::chrono::milliseconds wait) {
  finisher_.Finish(items, wait);
}

Result<std::vector<PreparedBranch>> PostgresResourceManager::ListPrepared(std::string_view prefix) {
  MutexLock lock(&desk_mutex_);
  Result<PgConnection*> desk = Desk();
  if (!desk.ok()) return desk.status();
  const std::string parameters[] = {std::string(prefix)};
  auto rows = (*desk)->Query(
      "SELECT gid, transaction::pg_catalog.text, (extract(epoch FROM pg_catalog.clock_timestamp()"
      " OPERATOR(pg_catalog.-) prepared) OPERATOR(pg_catalog.*) 1000)::bigint"
      " FROM pg_catalog.pg_prepared_xacts WHERE pg_catalog.starts_with(gid, $1)"
      " AND database OPERATOR(pg_catalog.=) pg_catalog.current_database()",
      parameters, DeskDeadline());
  if (!rows.ok()) return rows.status();
  std::vector<PreparedBranch> branches;
  for (const auto& row : *rows) {
    branches.push_back({row[0].value_or(""), Number<std::uint32_t>(row[1]),
                        std::chrono::milliseconds(Number<std::int64_t>(row[2]))});
  }
  return branches;
}

Result<DatabaseState> PostgresResourceManager::Look() {
  MutexLock lock(&desk_mutex_);
  Result<PgConnection*> desk = Desk();
  if (!desk.ok()) return desk.status();
  const Answer answer =
      (*desk)->Execute("SELECT pg_catalog.pg_current_wal_flush_lsn()", {}, DeskDeadline());
  if (!answer.ok) return Status(Code::kUnavailable, answer.message);
  const Greeting& greeting = (*desk)->greeting();
  DatabaseState state{greeting.identity, greeting.point, greeting.address, greeting.machine};
  state.point.position = ParseLsn(answer.rows[0][0].value_or("0/0"));
  connector_.memory().Remember(state.point);
  return state;
}

Result<std::vector<SeenCoordinator>> PostgresResourceManager::LoadSeen() {
  MutexLock lock(&desk_mutex_);
  Result<PgConnection*> desk = Desk();
  if (!desk.ok()) return desk.status();
  auto rows =
      (*desk)->Query("SELECT coordinator, epoch, epoch_random, position FROM public.troth_seen", {},
                     DeskDeadline());
  if (!rows.ok()) return rows.status();
  std::vector<SeenCoordinator> seen;
  for (const auto& row : *rows) {
    seen.push_back({row[0].value_or(""), Number<std::uint32_t>(row[1]),
                    Number<std::uint32_t>(row[2]), Number<std::uint64_t>(row[3])});
  }
  return seen;
}

Status PostgresResourceManager::StoreSeen(const SeenCoordinator& seen) {
  MutexLock lock(&desk_mutex_);
  Result<PgConnection*> desk = Desk();
  if (!desk.ok()) return desk.status();
  const std::string parameters[] = {seen.coordinator, std::to_string(seen.epoch),
                                    std::to_string(seen.epoch_random),
                                    std::to_string(seen.position)};
  const Answer answer = (*desk)->Execute(kStoreSeen, parameters, DeskDeadline());
  return answer.ok ? OkStatus() : Status(Code::kUnavailable, answer.message);
}

bool PostgresResourceManager::HoldSweep(std::string_view participant) {
  MutexLock lock(&desk_mutex_);
  Result<PgConnection*> desk = Desk();
  if (!desk.ok()) return false;
  if (holds_sweep_) return true;
  const std::string parameters[] = {"troth sweep " + std::string(participant)};
  const Answer answer =
      (*desk)->Execute("SELECT pg_catalog.pg_try_advisory_lock(pg_catalog.hashtextextended($1, 0))",
                       parameters, DeskDeadline());
  holds_sweep_ = answer.ok && answer.rows[0][0].value_or("f") == "t";
  return holds_sweep_;
}

pqxx::dbtransaction& PostgresResourceManager::Transaction(Session* session) {
  return static_cast<PostgresSession*>(session)->transaction();
}

Granted<Answer> PostgresResourceManager::Run(
    Session* session, const std::string& sql,
    std::span<const std::optional<std::string>> parameters) {
  return static_cast<PostgresSession*>(session)->Run(sql, parameters);
}

int PostgresResourceManager::BackendPid(Session* session) {
  return static_cast<PostgresSession*>(session)->connection()->backend_pid();
}

}  // namespace troth
