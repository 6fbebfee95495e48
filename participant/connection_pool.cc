// See connection_pool.h.
#include "participant/connection_pool.h"

#include <utility>

namespace troth {

namespace {
constexpr std::chrono::milliseconds kOpenTime{2'000};
}

DatabaseConnector::DatabaseConnector(std::string conninfo, std::string application_name)
    : conninfo_(std::move(conninfo)), application_name_(std::move(application_name)) {}

Result<std::unique_ptr<PgConnection>> DatabaseConnector::Open(std::chrono::milliseconds time) {
  const LogMemory::Known known = memory_.Snapshot();
  std::uint32_t met = 0;
  {
    MutexLock lock(&mutex_);
    met = timeline_;
  }
  Result<std::unique_ptr<PgConnection>> opened =
      PgConnection::Open(conninfo_, application_name_, time);
  if (!opened.ok()) {
    Interrupted();
    return opened;
  }
  const Greeting& greeting = (*opened)->greeting();
  if (greeting.standby) {
    Interrupted();
    return Status(Code::kUnavailable,
                  "the database at " + greeting.address +
                      " is a standby: it can neither work nor prepare. Point the participant at "
                      "the primary, or promote this one (SELECT pg_promote())");
  }
  {
    MutexLock lock(&mutex_);
    if (identity_.system_identifier.empty()) identity_ = greeting.identity;
    if (identity_ != greeting.identity) {
      ++generation_;
      return Status(Code::kUnavailable,
                    "the database at " + greeting.address + " is another one now: system " +
                        greeting.identity.system_identifier + ", database oid " +
                        std::to_string(greeting.identity.oid) + "; it was " +
                        identity_.system_identifier + ", " + std::to_string(identity_.oid));
    }
    // Met meanwhile; if it was known before, the database was restored to an older one.
    if (timeline_ > met && timeline_ > greeting.point.timeline) {
      ++generation_;
      return Status(Code::kUnavailable,
                    "the database at " + greeting.address + " was left behind: it is on timeline " +
                        std::to_string(greeting.point.timeline) + ", and timeline " +
                        std::to_string(timeline_) +
                        " was met while it was being connected to. Point the participant at the "
                        "promoted server");
    }
    // After a promotion nothing is known any more of what the server holds.
    if (timeline_ != 0 && timeline_ != greeting.point.timeline) ++generation_;
    timeline_ = greeting.point.timeline;
  }
  if (!memory_.Observe(greeting.point, known)) Interrupted();
  return opened;
}

void DatabaseConnector::Interrupted() {
  MutexLock lock(&mutex_);
  ++generation_;
}

std::uint64_t DatabaseConnector::generation() const {
  MutexLock lock(&mutex_);
  return generation_;
}

bool DatabaseConnector::LeftBehind(const PgConnection& connection) const {
  MutexLock lock(&mutex_);
  return connection.greeting().point.timeline < timeline_;
}

PgPool::PgPool(DatabaseConnector* connector, std::size_t limit, Prepare set_up)
    : connector_(connector), limit_(limit), set_up_(std::move(set_up)) {}

Result<PgPool::Taken> PgPool::Take(std::chrono::milliseconds wait) {
  const auto deadline = std::chrono::steady_clock::now() + wait;
  {
    MutexLock lock(&mutex_);
    for (;;) {
      if (!idle_.empty()) {
        std::unique_ptr<PgConnection> connection = std::move(idle_.back());
        idle_.pop_back();
        if (connector_->LeftBehind(*connection)) continue;
        ++taken_;
        return Taken{std::move(connection), true};
      }
      if (taken_ < limit_) break;
      if (!returned_.WaitUntil(&mutex_, deadline) && idle_.empty() && taken_ >= limit_) {
        return Status(Code::kOverloaded,
                      "all " + std::to_string(limit_) + " connections to the database are in use");
      }
    }
    ++taken_;
  }
  Result<std::unique_ptr<PgConnection>> opened = connector_->Open(kOpenTime);
  Status status = opened.status();
  if (opened.ok()) status = set_up_(opened->get());
  if (status.ok()) return Taken{std::move(*opened), false};
  GiveBack(nullptr);
  return status;
}

void PgPool::GiveBack(std::unique_ptr<PgConnection> connection) {
  {
    MutexLock lock(&mutex_);
    --taken_;
    if (connection != nullptr) idle_.push_back(std::move(connection));
  }
  returned_.NotifyOne();
}

std::size_t PgPool::taken() const {
  MutexLock lock(&mutex_);
  return taken_;
}

}  // namespace troth
