// See postgres_finisher.h.
#include "participant/postgres_finisher.h"

#include <algorithm>
#include <charconv>
#include <cstdio>

#include "common/failpoint.h"

namespace troth {
namespace {

using SteadyClock = std::chrono::steady_clock;

constexpr std::chrono::milliseconds kOpenTime{2'000};
// Commits done and not told of; beyond, those kept are forgotten, and found by their evidence.
constexpr std::size_t kMaxUntold = 4'096;

// A comparison that nobody drove on may be acted on for so long: another instance may finish the
// branch meanwhile, and another be prepared under its GID.
constexpr std::chrono::milliseconds kComparisonHolds{2'000};

// Of all that a round compares: each look at pg_prepared_xacts walks through the whole of it.
constexpr char kXidsOf[] =
    "SELECT gid, transaction::pg_catalog.text FROM pg_catalog.pg_prepared_xacts"
    " WHERE gid OPERATOR(pg_catalog.=) ANY ($1::pg_catalog.text[])"
    " AND database OPERATOR(pg_catalog.=) pg_catalog.current_database()";
// Position first: the status is then of a moment at or after it.
constexpr char kFate[] =
    "SELECT pg_catalog.pg_current_wal_lsn(), pg_catalog.pg_xact_status($1::pg_catalog.xid8),"
    " pg_catalog.current_setting('synchronous_standby_names') OPERATOR(pg_catalog.<>) ''";
constexpr char kHistory[] = "SELECT pg_catalog.pg_read_file($1)";

// Takes an xid and writes, so that its commit waits for a standby as any does. Standbys get commits
// in their order: what was committed before has arrived too.
constexpr char kAwaitStandby[] = "SELECT pg_catalog.pg_logical_emit_message(true, 'troth', '')";
// A role's statement_timeout would cut the wait of COMMIT PREPARED for a standby short, and all
// that tells is a warning.
constexpr char kLaneSettings[] =
    "SELECT pg_catalog.set_config('statement_timeout', '0', false),"
    " pg_catalog.set_config('client_min_messages', 'warning', false)";

enum class Stage { kCompare, kSettle, kRollBackOther, kFate, kHistory, kAwaitStandby, kOver };

struct Job {
  std::size_t index = 0;  // in the caller's list
  FinishOrder order;
  Stage stage = Stage::kSettle;
  FinishResult result;
  Findings findings;
  bool standby = false;  // commits wait for one
};

void Settle(Job* job, FinishResult::Kind kind, std::string message = "", std::string state = "") {
  job->stage = Stage::kOver;
  job->result = {kind, std::move(message), std::move(state)};
}

void TakeCompare(Job* job, const Answer& answer) {
  const auto row = std::find_if(answer.rows.begin(), answer.rows.end(), [job](const Row& one) {
    return one[0].value_or("") == job->order.gid;
  });
  if (row == answer.rows.end()) {
    job->stage = Stage::kFate;
    if (!job->order.evidence.has_value()) Settle(job, FinishResult::Kind::kDone);
    return;
  }
  const std::string text = (*row)[1].value_or("");
  std::uint32_t xid = 0;
  std::from_chars(text.data(), text.data() + text.size(), xid);
  const FinishOrder& order = job->order;
  if (!order.commit) {
    job->stage = Stage::kSettle;
    if (xid != *order.only_xid) Settle(job, FinishResult::Kind::kDone);
    return;
  }
  const bool ours = xid == static_cast<std::uint32_t>(order.evidence->xid);
  job->stage = ours ? Stage::kSettle : Stage::kRollBackOther;
}

// A commit, here. A roll-back needs no standby: the standby would ask again.
void TakeCommitted(Job* job, const Answer& answer) {
  if (answer.warning.empty()) return Settle(job, FinishResult::Kind::kDone);
  Settle(job, FinishResult::Kind::kWorking,
         "committed; its wait for a standby was cut short, and is made up for", answer.warning);
}

void TakeSettle(Job* job, const Answer& answer) {
  const bool not_found = answer.sqlstate == "42704";
  if (answer.ok) {
    // A crash here leaves the branch finished, the coordinator untold; it asks again, and the
    // evidence answers.
    TROTH_FAILPOINT("after-commit-prepared");
    if (job->order.commit) return TakeCommitted(job, answer);
    Settle(job, FinishResult::Kind::kDone);
  } else if (not_found && job->order.evidence.has_value()) {
    job->stage = Stage::kFate;
  } else if (not_found) {
    Settle(job, FinishResult::Kind::kDone);  // a roll-back, and there is nothing
  }
}

void TakeFindings(Job* job) {
  FinishResult verdict = Judge(job->order.commit, *job->order.evidence, job->findings);
  if (job->order.commit && job->standby && verdict.kind == FinishResult::Kind::kDone) {
    // Whoever committed it may not have waited for a standby.
    job->stage = Stage::kAwaitStandby;
    return;
  }
  job->result = std::move(verdict);
  job->stage = Stage::kOver;
}

void TakeFate(Job* job, const Answer& answer, const LogPoint& greeted, LogMemory* memory) {
  Findings& findings = job->findings;
  const LogPoint& voted = job->order.evidence->point;
  if (answer.ok) {
    findings.now = {greeted.timeline, ParseLsn(answer.rows[0][0].value_or("0/0"))};
    job->standby = answer.rows[0][2] == "t";
    const std::string status = answer.rows[0][1].value_or("");
    findings.status = status == "committed"     ? XidStatus::kCommitted
                      : status == "aborted"     ? XidStatus::kAborted
                      : status == "in progress" ? XidStatus::kInProgress
                                                : XidStatus::kForgotten;
  } else if (answer.sqlstate == "22023") {
    findings.now = greeted;
    // The log only grows while the server lives; the vote's own point decides by itself.
    findings.now.position = std::max(findings.now.position, voted.position);
    findings.status = XidStatus::kFuture;
  }
  findings.went_back = memory->Void(voted);
  if (voted.timeline != greeted.timeline && !findings.went_back) {
    job->stage = Stage::kHistory;
    return;
  }
  TakeFindings(job);
}

void TakeHistory(Job* job, const Answer& answer) {
  if (answer.ok) {
    job->findings.history = ParseTimelineHistory(answer.rows[0][0].value_or(""));
  } else {
    job->findings.unreadable = answer.message;
  }
  TakeFindings(job);
}

bool SetUp(PgConnection* connection) {
  return connection->Execute(kLaneSettings, {}, SteadyClock::now() + kOpenTime).ok;
}

}  // namespace

// One connection and the orders it works on, each a step further a round; every statement has a
// Sync of its own, so that one's error touches no other.
class PostgresFinisher::Lane {
 public:
  Lane(std::unique_ptr<PgConnection> connection, DatabaseConnector* connector)
      : connection_(std::move(connection)), connector_(connector) {}

  void Add(std::size_t index, const FinishOrder& order) {
    Job job;
    job.index = index;
    job.order = order;
    const bool trusted = order.generation == connector_->generation();
    const bool compare = (order.commit && !trusted) || order.only_xid.has_value();
    job.stage = compare ? Stage::kCompare : Stage::kSettle;
    jobs_.push_back(std::move(job));
  }

  // Takes in what arrived, sends the next round if one is due. True: all orders are over.
  bool Step() {
    if (!under_way()) return !SendRound();
    connection_->Poll();
    if (connection_->ended_units() < connection_->queued_units() && connection_->alive()) {
      if (!connector_->LeftBehind(*connection_)) return false;
      connection_->GiveUp();
    }
    const bool fresh = std::chrono::steady_clock::now() - sent_ < kComparisonHolds;
    TakeRound();
    for (Job& job : jobs_) {
      if (!fresh && job.stage != Stage::kOver) {
        Settle(&job, FinishResult::Kind::kWorking, "to be asked again");
      }
    }
    return !SendRound();
  }

  // Whether a step leads anywhere: something has arrived (`readable`), or nothing ever will.
  bool Due(bool readable) const {
    return readable || !connection_->alive() || connector_->LeftBehind(*connection_);
  }
  bool alive() const { return connection_->alive(); }
  bool StillAlive() { return connection_->StillAlive() && !connector_->LeftBehind(*connection_); }
  int socket() const { return connection_->socket(); }
  const std::vector<Job>& jobs() const { return jobs_; }
  void Clear() { jobs_.clear(); }

 private:
  bool under_way() const { return !in_round_.empty() || !compared_.empty(); }

  bool SendRound() {
    std::string gids;
    for (Job& job : jobs_) {
      if (job.stage == Stage::kOver) continue;
      if (!connection_->alive()) {
        Settle(&job, FinishResult::Kind::kWorking, "the connection to the database was lost",
               "08006");
        continue;
      }
      if (job.stage == Stage::kCompare) {
        compared_.push_back(&job);
        gids += (gids.empty() ? "{\"" : ",\"") + job.order.gid + "\"";
      } else {
        Send(job);
        in_round_.push_back(&job);
      }
    }
    if (!compared_.empty()) {
      const std::string list[] = {gids + "}"};
      connection_->Queue(kXidsOf, list);
      connection_->Sync();
    }
    if (!under_way()) return false;
    sent_ = std::chrono::steady_clock::now();
    connection_->Flush();
    return true;
  }

  void Send(const Job& job) {
    switch (job.stage) {
      case Stage::kSettle:
        // A crash here leaves the branch prepared; the coordinator sends its decision again.
        TROTH_FAILPOINT("before-commit-prepared");
        connection_->Queue((job.order.commit ? "COMMIT PREPARED " : "ROLLBACK PREPARED ") +
                           Quoted(job.order.gid));
        break;
      case Stage::kRollBackOther:
        connection_->Queue("ROLLBACK PREPARED " + Quoted(job.order.gid));
        break;
      case Stage::kFate: {
        const std::string xid[] = {std::to_string(job.order.evidence->xid)};
        connection_->Queue(kFate, xid);
        break;
      }
      case Stage::kHistory: {
        char file[40];
        std::snprintf(file, sizeof file, "pg_wal/%08X.history",
                      connection_->greeting().point.timeline);
        const std::string name[] = {file};
        connection_->Queue(kHistory, name);
        break;
      }
      case Stage::kAwaitStandby: connection_->Queue(kAwaitStandby); break;
      case Stage::kCompare:
      case Stage::kOver: break;
    }
    connection_->Sync();
  }

  void TakeRound() {
    const std::vector<Answer>& answers = connection_->answers();
    // One answer for each job, and then one for all that are compared. Not to be told of before its
    // unit has ended: the wait of a commit may be cut short at that end.
    const std::size_t ended = std::min(answers.size(), connection_->ended_units());
    const auto take = [&](Job* job, std::size_t i) {
      if (i < ended) {
        Take(job, answers[i]);
      } else {
        Settle(job, FinishResult::Kind::kWorking, "the connection to the database was lost",
               "08006");
      }
    };
    for (std::size_t i = 0; i < in_round_.size(); ++i) take(in_round_[i], i);
    for (Job* job : compared_) take(job, in_round_.size());
    in_round_.clear();
    compared_.clear();
    if (connection_->alive()) connection_->EndPipeline();
  }

  void Take(Job* job, const Answer& answer) {
    const bool proof_asked = job->stage == Stage::kFate || job->stage == Stage::kHistory;
    const bool not_found = answer.sqlstate == "42704" && !proof_asked;
    const bool future = answer.sqlstate == "22023" && job->stage == Stage::kFate;
    // The role may not read it, or it is not there: asked again, the answer is the same.
    const bool unreadable =
        job->stage == Stage::kHistory && (answer.sqlstate == "42501" || answer.sqlstate == "58P01");
    if (!answer.ok && !not_found && !future && !unreadable) {
      // 55000: another session is at it. 42501, 0A000 and all else: an operator's matter; the
      // branch stays in doubt and is asked for again.
      Settle(job, FinishResult::Kind::kWorking, answer.message, answer.sqlstate);
      return;
    }
    switch (job->stage) {
      case Stage::kCompare: TakeCompare(job, answer); break;
      case Stage::kSettle: TakeSettle(job, answer); break;
      case Stage::kRollBackOther: job->stage = Stage::kFate; break;
      case Stage::kFate:
        TakeFate(job, answer, connection_->greeting().point, &connector_->memory());
        break;
      case Stage::kHistory: TakeHistory(job, answer); break;
      case Stage::kAwaitStandby: TakeCommitted(job, answer); break;
      case Stage::kOver: break;
    }
  }

  std::unique_ptr<PgConnection> connection_;
  DatabaseConnector* const connector_;
  std::vector<Job> jobs_;
  std::vector<Job*> in_round_;  // each with a statement of its own
  std::vector<Job*> compared_;  // by one statement, the last of the round
  PgConnection::TimePoint sent_;
};

PostgresFinisher::PostgresFinisher(DatabaseConnector* connector, std::size_t lanes)
    : connector_(connector), limit_(lanes) {}

PostgresFinisher::~PostgresFinisher() = default;

std::vector<std::size_t> PostgresFinisher::Claim(std::span<FinishItem> items,
                                                 std::vector<std::size_t>* waiting) {
  MutexLock lock(&mutex_);
  std::vector<std::size_t> ours;
  std::vector<std::size_t> still;
  for (const std::size_t i : *waiting) {
    const FinishOrder& order = items[i].order;
    if (const auto done = done_.find(order.gid); done != done_.end()) {
      const Untold untold = done->second;
      done_.erase(done);
      if (order.commit && order.evidence->xid == untold.xid &&
          connector_->generation() == untold.generation) {
        items[i].result = {FinishResult::Kind::kDone, "", ""};
        continue;
      }
    }
    (under_way_.insert(items[i].order.gid).second ? ours : still).push_back(i);
  }
  *waiting = std::move(still);
  return ours;
}

void PostgresFinisher::Finish(std::span<FinishItem> items, std::chrono::milliseconds wait) {
  const auto deadline = SteadyClock::now() + wait;
  std::vector<std::size_t> waiting;
  for (std::size_t i = 0; i < items.size(); ++i) {
    TROTH_CHECK(!items[i].order.commit || items[i].order.evidence.has_value());
    items[i].result = {FinishResult::Kind::kWorking, "under way", ""};
    waiting.push_back(i);
  }
  PollLeft(SteadyClock::now());
  for (;;) {
    const std::vector<std::size_t> ours = Claim(items, &waiting);
    if (!ours.empty()) Drive(items, ours, deadline);
    if (waiting.empty() || SteadyClock::now() >= deadline) return;
    PollLeft(deadline);
  }
}

void PostgresFinisher::Drive(std::span<FinishItem> items, const std::vector<std::size_t>& ours,
                             PgConnection::TimePoint deadline) {
  const bool background = items[ours.front()].order.background;
  std::vector<std::unique_ptr<Lane>> lanes = TakeLanes(ours.size(), background, deadline);
  if (lanes.empty()) {
    MutexLock lock(&mutex_);
    for (const std::size_t i : ours) {
      under_way_.erase(items[i].order.gid);
      items[i].result.message = "no connection to the database for phase two";
    }
    return;
  }
  for (std::size_t i = 0; i < ours.size(); ++i) {
    lanes[i % lanes.size()]->Add(ours[i], items[ours[i]].order);
  }
  std::vector<bool> readable(lanes.size(), true);  // at first each has its work
  for (;;) {
    std::vector<int> sockets;
    std::vector<std::unique_ptr<Lane>> going;
    for (std::size_t i = 0; i < lanes.size(); ++i) {
      std::unique_ptr<Lane>& lane = lanes[i];
      if (lane->Due(readable[i]) && lane->Step()) {
        for (const Job& job : lane->jobs()) items[job.index].result = job.result;
        ReturnLane(std::move(lane), /*untold=*/false);
      } else {
        sockets.push_back(lane->socket());
        going.push_back(std::move(lane));
      }
    }
    lanes = std::move(going);
    if (lanes.empty()) return;
    if (SteadyClock::now() >= deadline) break;
    readable = AwaitReadable(sockets, deadline);
  }
  LeaveLanes(std::move(lanes));
}

void PostgresFinisher::PollLeft(PgConnection::TimePoint until) {
  std::vector<std::unique_ptr<Lane>> left;
  {
    MutexLock lock(&mutex_);
    left.swap(left_);
    // Other callers drive what is under way: each of them returns a lane, or leaves it.
    if (left.empty() && SteadyClock::now() < until) returned_.WaitUntil(&mutex_, until);
  }
  std::vector<int> sockets;
  for (const std::unique_ptr<Lane>& lane : left) sockets.push_back(lane->socket());
  std::vector<bool> readable;
  if (!left.empty()) readable = AwaitReadable(sockets, until);
  std::vector<std::unique_ptr<Lane>> still;
  for (std::size_t i = 0; i < left.size(); ++i) {
    if (left[i]->Due(readable[i]) && left[i]->Step()) {
      ReturnLane(std::move(left[i]), /*untold=*/true);
    } else {
      still.push_back(std::move(left[i]));
    }
  }
  LeaveLanes(std::move(still));
}

void PostgresFinisher::LeaveLanes(std::vector<std::unique_ptr<Lane>> lanes) {
  if (lanes.empty()) return;
  {
    MutexLock lock(&mutex_);
    for (std::unique_ptr<Lane>& lane : lanes) left_.push_back(std::move(lane));
  }
  returned_.NotifyAll();
}

std::vector<std::unique_ptr<PostgresFinisher::Lane>> PostgresFinisher::TakeLanes(
    std::size_t wanted, bool background, PgConnection::TimePoint deadline) {
  std::vector<std::unique_ptr<Lane>> lanes;
  std::size_t to_open = 0;
  {
    MutexLock lock(&mutex_);
    for (;;) {
      const std::size_t free = limit_ - lanes_ + idle_.size();
      const std::size_t kept = background ? limit_ / 2 : 0;
      if (free <= kept) {
        if (!returned_.WaitUntil(&mutex_, deadline)) return lanes;
        continue;
      }
      const std::size_t most = std::min(wanted, free - kept);
      while (lanes.size() < most && !idle_.empty()) {
        std::unique_ptr<Lane> lane = std::move(idle_.back());
        idle_.pop_back();
        if (lane->StillAlive()) {
          lanes.push_back(std::move(lane));
        } else {
          connector_->Interrupted();
          --lanes_;
        }
      }
      to_open = std::min(most - lanes.size(), limit_ - lanes_);
      lanes_ += to_open;
      if (!lanes.empty() || to_open > 0) break;
    }
  }
  for (; to_open > 0; --to_open) {
    Result<std::unique_ptr<PgConnection>> opened = connector_->Open(kOpenTime);
    if (!opened.ok() || !SetUp(opened->get())) {
      MutexLock lock(&mutex_);
      lanes_ -= to_open;
      break;
    }
    lanes.push_back(std::make_unique<Lane>(std::move(*opened), connector_));
  }
  return lanes;
}

void PostgresFinisher::ReturnLane(std::unique_ptr<Lane> lane, bool untold) {
  const bool alive = lane->alive();
  if (!alive) connector_->Interrupted();
  {
    MutexLock lock(&mutex_);
    if (done_.size() > kMaxUntold) done_.clear();
    for (const Job& job : lane->jobs()) {
      under_way_.erase(job.order.gid);
      if (untold && job.order.commit && job.result.kind == FinishResult::Kind::kDone) {
        done_[job.order.gid] = {job.order.evidence->xid, connector_->generation()};
      }
    }
    lane->Clear();
    if (alive) {
      idle_.push_back(std::move(lane));
    } else {
      --lanes_;
    }
  }
  returned_.NotifyAll();
}

}  // namespace troth
