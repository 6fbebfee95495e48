// See sim_resource_manager.h.
#include "tests/simulation/sim_resource_manager.h"

#include <algorithm>

#include "common/check.h"

namespace troth {
namespace {

using Fate = SimDatabase::Fate;

Refusal Unavailable() {
  return {Refused::kDatabaseUnavailable, "the connection to the database was lost", true, ""};
}

FinishResult Make(FinishResult::Kind kind, std::string message = "", std::string state = "") {
  return {kind, std::move(message), std::move(state)};
}

}  // namespace

// SimDatabase -------------------------------------------------------------------------------

SimDatabase::SimDatabase(DatabaseIdentity identity) : identity_(std::move(identity)) {}

std::optional<std::int64_t> SimDatabase::Read(const std::string& key) const {
  const auto found = state_.rows.find(key);
  if (found == state_.rows.end()) return std::nullopt;
  return found->second;
}

std::map<std::string, std::uint64_t> SimDatabase::Prepared() const {
  std::map<std::string, std::uint64_t> out;
  for (const auto& [gid, entry] : state_.prepared) out[gid] = entry.xid;
  return out;
}

void SimDatabase::Crash() {
  ++life_;
  state_.next_xid = state_.flushed_xid + 1;
  state_.ended.erase(state_.ended.upper_bound(state_.flushed_xid), state_.ended.end());
  locks_.clear();
  for (const auto& [gid, entry] : state_.prepared) {
    for (const auto& [key, value] : entry.writes) locks_[key] = entry.xid;
  }
}

void SimDatabase::SetAway(bool away) {
  if (away && !away_) Crash();
  away_ = away;
}

SimDatabase::State SimDatabase::Copy() const { return state_; }

void SimDatabase::RestoreFrom(const State& copy) {
  state_ = copy;
  Crash();
}

void SimDatabase::FailOverTo(const State& copy) {
  const LogPoint left = copy.point;
  state_ = copy;
  state_.history.push_back({left.timeline, left.position});
  state_.point = {left.timeline + 1, left.position};
  Crash();
}

void SimDatabase::SettleByHand(const std::string& gid, bool commit) {
  TROTH_CHECK(Settle(gid, commit));
}

bool SimDatabase::Settle(const std::string& gid, bool commit) {
  const auto found = state_.prepared.find(gid);
  if (found == state_.prepared.end()) return false;
  for (const auto& [key, value] : found->second.writes) {
    if (commit) state_.rows[key] = value;
    locks_.erase(key);
  }
  state_.ended[found->second.xid] = commit ? XidFate::kCommitted : XidFate::kAborted;
  state_.prepared.erase(found);
  state_.point.position += 10;
  return true;
}

// SimSession --------------------------------------------------------------------------------

SimSession::SimSession(SimDatabase* database, BeginOptions options)
    : database_(database),
      options_(std::move(options)),
      life_(database->life_),
      mark_(options_.mark) {
  // Drawn as PostgreSQL does: given out at once, known to nobody after a crash.
  if (!options_.read_only) xid_ = database_->state_.next_xid++;
}

SimSession::~SimSession() { Rollback(); }

void SimSession::Unlock() {
  for (const auto& [key, value] : writes_) database_->locks_.erase(key);
  writes_.clear();
}

void SimSession::Rollback() {
  if (!open_) return;
  open_ = false;
  if (!Alive()) return;
  Unlock();
  if (xid_ != 0) database_->state_.ended[xid_] = SimDatabase::XidFate::kAborted;
}

std::optional<Refusal> SimSession::Broken() {
  if (cancelled_) return Refusal{Refused::kEnded, "the work was cancelled", true, "57014"};
  if (!Alive()) return Unavailable();
  if (!boundary_.empty()) {
    return Refusal{Refused::kInvalid, "the work executed " + boundary_, false, ""};
  }
  if (failed_) return Refusal{Refused::kDatabase, "a statement of the work failed", false, "25P02"};
  if (result_.has_value()) return std::nullopt;
  if (!open_) return Refusal{Refused::kInvalid, "the work ended the branch's block", false, ""};
  return std::nullopt;
}

std::optional<Refusal> SimSession::Add(const std::string& key, std::int64_t amount) {
  if (!Alive()) return Unavailable();
  if (failed_) return Refusal{Refused::kDatabase, "the block has failed", false, "25P02"};
  if (options_.read_only) {
    failed_ = true;
    return Refusal{Refused::kDatabase, "cannot write in a read-only block", false, "25006"};
  }
  const auto lock = database_->locks_.find(key);
  if (lock != database_->locks_.end() && lock->second != xid_) {
    failed_ = true;
    return Refusal{Refused::kConflict, "lock timeout", true, "55P03"};
  }
  database_->locks_[key] = xid_;
  writes_[key] = Get(key).value_or(0) + amount;
  return std::nullopt;
}

std::optional<std::int64_t> SimSession::Get(const std::string& key) const {
  const auto own = writes_.find(key);
  return own != writes_.end() ? own->second : database_->Read(key);
}

void SimSession::EndBlock(bool commit, bool chain) {
  if (!Alive()) return;
  for (const auto& [key, value] : writes_) {
    if (commit && !failed_) database_->state_.rows[key] = value;
  }
  if (commit && !failed_) {
    database_->state_.flushed_xid = std::max(database_->state_.flushed_xid, xid_);
  }
  Unlock();
  // In a failed block COMMIT answers ROLLBACK, and a chained block carries no sign of it.
  boundary_ = commit && !failed_ ? "COMMIT" : "";
  failed_ = false;
  mark_.clear();
  if (chain) {
    xid_ = database_->state_.next_xid++;
  } else {
    open_ = false;
    xid_ = 0;
  }
}

void SimSession::LoseConnection() {
  Rollback();
  life_ = 0;
}

PrepareResult SimSession::Prepare() {
  using Kind = PrepareResult::Kind;
  if (std::optional<Refusal> broken = Broken()) {
    Rollback();
    return {Kind::kRefused, {}, 0, *broken};
  }
  if (mark_ != options_.mark) {
    Rollback();
    return {
        Kind::kRefused, {}, 0, {Refused::kInvalid, "not the block that was begun", false, "22012"}};
  }
  const Fate fate = database_->fate ? database_->fate("PREPARE", options_.gid) : Fate::kNormal;
  if (fate == Fate::kLostBefore) {
    LoseConnection();
    return {Kind::kUnknown, {xid_, {}}, 0, Unavailable()};
  }
  if (options_.read_only) {
    Rollback();
    return {Kind::kReadOnly, {}, 0, {}};
  }
  SimDatabase::State& state = database_->state_;
  if (state.prepared.contains(options_.gid)) {
    Rollback();
    return {Kind::kRefused, {}, 0, {Refused::kDatabase, "GID in use", false, "42710"}};
  }
  state.prepared[options_.gid] = {xid_, std::move(writes_)};
  state.flushed_xid = std::max(state.flushed_xid, xid_);
  writes_.clear();
  open_ = false;
  state.point.position += 10;
  if (fate == Fate::kLostAfter) {
    life_ = 0;
    return {Kind::kUnknown, {xid_, {}}, 0, Unavailable()};
  }
  if (fate == Fate::kWarning) {
    return {Kind::kUnknown,
            {xid_, {}},
            0,
            {Refused::kDatabase, "PREPARE with a warning", true, "01000"}};
  }
  return {Kind::kPrepared, {xid_, state.point}, 0, {}};
}

// SimResourceManager ------------------------------------------------------------------------

SimResourceManager::SimResourceManager(SimDatabase* database, std::size_t limit)
    : database_(database), limit_(limit) {}

bool SimResourceManager::Meet() {
  if (database_->away_) return false;
  if (met_life_ != database_->life_) {
    met_life_ = database_->life_;
    ++generation_;
    askings_left_.clear();
    memory_.Observe(database_->state_.point, memory_.Snapshot());
  }
  return true;
}

Granted<std::unique_ptr<Session>> SimResourceManager::Begin(const BeginOptions& options) {
  if (!Meet()) return Unavailable();
  if (limit_ == 0) return Refusal{Refused::kOverloaded, "no connection", true, ""};
  return std::unique_ptr<Session>(new SimSession(database_, options));
}

std::optional<Refusal> SimResourceManager::Run(SimSession* session, const std::string& key,
                                               std::int64_t amount) {
  std::optional<Refusal> refusal = session->Add(key, amount);
  if (refusal.has_value() || !session->options_.prepare_with_statement) return refusal;
  StartPrepare(session);
  // What the database says of the statement comes with what it says of PREPARE.
  if (session->askings_left_ > 0) {
    return Refusal{Refused::kDeadline, "the database did not answer in time", true, ""};
  }
  if (!session->Alive()) {
    session->result_->evidence.xid = 0;  // it was to come with the answer
    return Unavailable();
  }
  return std::nullopt;
}

// The effect is at the first asking, the answer may take longer.
void SimResourceManager::StartPrepare(SimSession* session) {
  Meet();
  session->result_ = session->Prepare();
  session->result_->generation = generation_;
  session->askings_left_ =
      database_->slowness ? database_->slowness("PREPARE", session->options_.gid) : 0;
  if (session->result_->kind == PrepareResult::Kind::kPrepared) {
    memory_.Remember(session->result_->evidence.point);
  }
}

void SimResourceManager::Prepare(std::span<PrepareItem> items, std::chrono::milliseconds) {
  for (PrepareItem& item : items) {
    if (item.result.has_value()) continue;
    auto* session = static_cast<SimSession*>(item.session);
    if (!session->result_.has_value()) StartPrepare(session);
    if (session->askings_left_-- <= 0) item.result = session->result_;
  }
}

void SimResourceManager::Finish(std::span<FinishItem> items, std::chrono::milliseconds) {
  for (FinishItem& item : items) {
    TROTH_CHECK(!item.order.commit || item.order.evidence.has_value());
    item.result = Make(FinishResult::Kind::kWorking, "the database is away", "08006");
    if (!Meet()) continue;
    auto slow = askings_left_.find(item.order.gid);
    if (slow == askings_left_.end() && database_->slowness) {
      slow = askings_left_.emplace(item.order.gid, database_->slowness("FINISH", item.order.gid))
                 .first;
    }
    if (slow != askings_left_.end()) {
      if (slow->second-- > 0) {
        item.result.message = "slow";
        continue;
      }
      askings_left_.erase(slow);
    }
    item.result = FinishOne(item.order);
  }
}

FinishResult SimResourceManager::FinishOne(const FinishOrder& order) {
  const Fate fate = database_->fate
                        ? database_->fate(order.commit ? "COMMIT" : "ROLLBACK", order.gid)
                        : Fate::kNormal;
  if (fate == Fate::kLostBefore)
    return Make(FinishResult::Kind::kWorking, "connection lost", "08006");
  if (fate == Fate::kBusy) return Make(FinishResult::Kind::kWorking, "busy", "55000");
  const auto found = database_->state_.prepared.find(order.gid);
  const bool here = found != database_->state_.prepared.end();
  bool settled = false;
  if (!order.commit) {
    const bool other = here && order.only_xid.has_value() &&
                       *order.only_xid != static_cast<std::uint32_t>(found->second.xid);
    if (other) return Make(FinishResult::Kind::kDone);
    settled = database_->Settle(order.gid, false);
  } else if (here) {
    const bool ours =
        order.generation == generation_ || static_cast<std::uint32_t>(found->second.xid) ==
                                               static_cast<std::uint32_t>(order.evidence->xid);
    settled = ours && database_->Settle(order.gid, true);
    if (!ours) database_->Settle(order.gid, false);  // it never voted
  }
  if (fate == Fate::kLostAfter)
    return Make(FinishResult::Kind::kWorking, "connection lost", "08006");
  if (settled) return Make(FinishResult::Kind::kDone);
  if (!order.evidence.has_value()) return Make(FinishResult::Kind::kDone);
  return JudgeOne(order);
}

FinishResult SimResourceManager::JudgeOne(const FinishOrder& order) {
  const SimDatabase::State& state = database_->state_;
  Findings findings;
  findings.now = state.point;
  findings.history = state.history;
  findings.went_back = memory_.Void(order.evidence->point);
  const std::uint64_t xid = order.evidence->xid;
  if (const auto ended = state.ended.find(xid); ended != state.ended.end()) {
    findings.status = ended->second == SimDatabase::XidFate::kCommitted ? XidStatus::kCommitted
                                                                        : XidStatus::kAborted;
  } else {
    findings.status = xid >= state.next_xid ? XidStatus::kFuture : XidStatus::kInProgress;
  }
  return Judge(order.commit, *order.evidence, findings);
}

Result<std::vector<PreparedBranch>> SimResourceManager::ListPrepared(std::string_view prefix) {
  if (!Meet()) return Status(Code::kUnavailable, "the database is away");
  std::vector<PreparedBranch> out;
  for (const auto& [gid, entry] : database_->state_.prepared) {
    if (gid.starts_with(prefix)) {
      out.push_back({gid, static_cast<std::uint32_t>(entry.xid), std::chrono::milliseconds(0)});
    }
  }
  return out;
}

Result<DatabaseState> SimResourceManager::Look() {
  if (!Meet()) return Status(Code::kUnavailable, "the database is away");
  return DatabaseState{database_->identity_, database_->state_.point, "sim:0"};
}

Result<std::vector<SeenCoordinator>> SimResourceManager::LoadSeen() {
  if (!Meet()) return Status(Code::kUnavailable, "the database is away");
  std::vector<SeenCoordinator> out;
  for (const auto& [name, seen] : database_->state_.seen) out.push_back(seen);
  return out;
}

Status SimResourceManager::StoreSeen(const SeenCoordinator& seen) {
  if (!Meet()) return Status(Code::kUnavailable, "the database is away");
  SeenCoordinator& kept = database_->state_.seen[seen.coordinator];
  if (std::pair(kept.epoch, kept.position) < std::pair(seen.epoch, seen.position)) kept = seen;
  return OkStatus();
}

}  // namespace troth
