// See sim_participant.h.
#include "tests/simulation/sim_participant.h"

#include <chrono>
#include <set>

#include "participant/branch_table.h"
#include "participant/epoch_fence.h"
#include "participant/sweep.h"
#include "tests/simulation/sim_resource_manager.h"

namespace troth::sim {
namespace {

using std::chrono::milliseconds;

VoteSaid Plain(const Vote& vote) {
  VoteSaid said;
  said.works = vote.works;
  switch (vote.kind) {
    case Vote::Kind::kPrepared:
      said.ballot = Said::kPrepared;
      said.xid = vote.evidence.xid;
      said.timeline = vote.evidence.point.timeline;
      said.position = vote.evidence.point.position;
      break;
    case Vote::Kind::kReadOnly: said.ballot = Said::kReadOnly; break;
    case Vote::Kind::kWorking: said.ballot = Said::kWorking; break;
    case Vote::Kind::kRefused:
      said.ballot = Said::kRefused;
      said.reason = static_cast<int>(vote.refusal.reason);
      said.retryable = vote.refusal.retryable;
      break;
  }
  return said;
}

WorkSaid Refused(const Refusal& refusal) {
  WorkSaid said;
  said.reason = static_cast<int>(refusal.reason);
  said.message = refusal.message;
  return said;
}

}  // namespace

struct Participant::Rep {
  Rep(std::string n, int i, Clock* c, std::function<std::uint64_t()> r)
      : name(std::move(n)),
        index(i),
        clock(c),
        random(std::move(r)),
        identity{std::to_string(7001 + i), 5},
        database(identity) {}

  // A process, from start to crash.
  struct Process {
    Process(Rep* rep, std::string instance)
        : manager(&rep->database),
          fence(&manager, rep->clock),
          table(Options(rep, std::move(instance)), &manager, rep->clock, rep->random),
          sweep(rep->name, &manager, &table, rep->clock) {}
    static BranchTableOptions Options(Rep* rep, std::string instance) {
      BranchTableOptions options;
      options.participant = rep->name;
      options.instance = std::move(instance);
      options.max_in_doubt = 1'000;
      options.lease = milliseconds(3'000);
      return options;
    }
    SimResourceManager manager;
    EpochFence fence;
    BranchTable table;
    Sweep sweep;
    bool loaded = false;
  };

  SimDatabase::Fate FateOf(const std::string& statement) {
    const auto draw = static_cast<int>(random() % 1000);
    int below = faults.lost_before;
    if (draw < below) return SimDatabase::Fate::kLostBefore;
    if (draw < (below += faults.lost_after)) return SimDatabase::Fate::kLostAfter;
    if (statement == "PREPARE") {
      if (draw < (below += faults.warning)) return SimDatabase::Fate::kWarning;
    } else if (draw < (below += faults.busy)) {
      return SimDatabase::Fate::kBusy;
    }
    return SimDatabase::Fate::kNormal;
  }

  const std::string name;
  const int index;
  Clock* const clock;
  const std::function<std::uint64_t()> random;
  const DatabaseIdentity identity;
  SimDatabase database;
  DatabaseFaults faults;
  SimDatabase::State standby;
  std::unique_ptr<Process> process;
  std::string instance;
  int lives = 0;
  std::uint64_t heuristics = 0, hazards = 0;  // of processes that died
};

Participant::Participant(std::string name, int index, Clock* clock,
                         std::function<std::uint64_t()> random)
    : rep_(std::make_unique<Rep>(std::move(name), index, clock, std::move(random))) {}
Participant::~Participant() = default;

void Participant::Start() {
  rep_->instance = rep_->name + "-" + std::to_string(++rep_->lives);
  rep_->process = std::make_unique<Rep::Process>(rep_.get(), rep_->instance);
  rep_->process->loaded = rep_->process->fence.Load().ok();
}

void Participant::Crash() {
  const BranchCounts counts = rep_->process->table.Counts();
  rep_->heuristics += counts.heuristics;
  rep_->hazards += counts.hazards;
  // Its connections end, so the database rolls back what was open.
  rep_->process.reset();
}

bool Participant::alive() const { return rep_->process != nullptr; }
const std::string& Participant::name() const { return rep_->name; }
const std::string& Participant::instance() const { return rep_->instance; }
std::string Participant::database_identifier() const { return rep_->identity.system_identifier; }
std::uint32_t Participant::database_oid() const { return rep_->identity.oid; }

bool Participant::Fence(const SenderSaid& sender) {
  return !rep_->process->fence
              .Check({sender.coordinator, sender.epoch, sender.random, sender.position})
              .has_value();
}

SenderSaid Participant::Seen(const std::string& coordinator) const {
  const std::optional<SeenCoordinator> seen = rep_->process->fence.Seen(coordinator);
  if (!seen.has_value()) return {};
  return {seen->coordinator, seen->epoch, seen->epoch_random, seen->position};
}

void Participant::Told(const SenderSaid& sender) {
  Rep::Process& process = *rep_->process;
  process.fence.Told({sender.coordinator, sender.epoch, sender.random, sender.position});
  for (const auto& [coordinator, seen] : process.fence.All()) {
    process.table.EpochBegan(coordinator, seen.epoch);
  }
}

WorkSaid Participant::Work(const WorkAsk& ask) {
  BranchTable& table = rep_->process->table;
  WorkRequest request;
  request.transaction_id = ask.id;
  request.work = ask.work;
  request.time_left = milliseconds(ask.left_ms);
  request.mark = ask.mark;
  request.read_only = ask.read_only;
  request.one_statement = request.last = ask.work == 0 && ask.last && !ask.contended;
  Granted<troth::Work> work = table.StartWork(request);
  if (!work.ok()) return Refused(work.refusal());
  auto* session = static_cast<SimSession*>(work->session);
  std::optional<Refusal> failure;
  if (!ask.read_only) {
    failure = rep_->process->manager.Run(session, ask.key, 1);
    if (!failure.has_value() && ask.contended) {
      failure = session->Add("row-" + std::to_string(rep_->random() % 64), 1);
    }
  }
  Granted<WorkReply> reply = table.EndWork(*work, std::move(failure), ask.last);
  if (!reply.ok()) return Refused(reply.refusal());
  WorkSaid said;
  said.ok = true;
  said.mark = reply->mark;
  said.works = reply->works;
  if (reply->vote.has_value()) said.vote = Plain(*reply->vote);
  return said;
}

std::vector<VoteSaid> Participant::Prepare(const std::vector<PrepareAsk>& asks) {
  std::vector<PrepareRequest> requests;
  requests.reserve(asks.size());
  for (const PrepareAsk& ask : asks) {
    requests.push_back({ask.id, ask.mark, ask.works, milliseconds(ask.left_ms), ask.instance});
  }
  std::vector<VoteSaid> said;
  for (const Vote& vote : rep_->process->table.Prepare(requests, milliseconds(0))) {
    said.push_back(Plain(vote));
  }
  return said;
}

std::vector<Settled> Participant::Finish(const std::vector<FinishAsk>& asks) {
  std::vector<FinishRequest> requests;
  requests.reserve(asks.size());
  for (const FinishAsk& ask : asks) {
    FinishRequest request;
    request.transaction_id = ask.id;
    request.commit = ask.commit;
    if (ask.commit) request.evidence = Evidence{ask.xid, {ask.timeline, ask.position}};
    requests.push_back(std::move(request));
  }
  std::vector<Settled> said;
  for (const FinishResult& result : rep_->process->table.Finish(requests, milliseconds(0))) {
    switch (result.kind) {
      case FinishResult::Kind::kDone: said.push_back(Settled::kDone); break;
      case FinishResult::Kind::kWorking: said.push_back(Settled::kWorking); break;
      case FinishResult::Kind::kHeuristic: said.push_back(Settled::kHeuristic); break;
      case FinishResult::Kind::kHazard: said.push_back(Settled::kHazard); break;
    }
  }
  return said;
}

void Participant::Tick() {
  rep_->process->table.Tick();
  rep_->process->fence.Tick();
  if (!rep_->process->loaded) rep_->process->loaded = rep_->process->fence.Load().ok();
}

std::vector<InquiryAsk> Participant::Look() {
  std::vector<InquiryAsk> asks;
  const Result<std::vector<SweepInquiry>> due = rep_->process->sweep.Look();
  if (!due.ok()) return asks;
  for (const SweepInquiry& inquiry : *due) asks.push_back({inquiry.transaction_id, inquiry.xid});
  return asks;
}

void Participant::Settle(const std::vector<InquirySaid>& answers) {
  std::vector<SweepAnswer> sweep;
  for (const InquirySaid& said : answers) {
    SweepAnswer answer;
    answer.inquiry.transaction_id = said.asked.id;
    answer.inquiry.xid = said.asked.xid;
    answer.verdict = static_cast<SweepAnswer::Verdict>(said.verdict);
    answer.evidence = Evidence{said.xid, {said.timeline, said.position}};
    sweep.push_back(std::move(answer));
  }
  rep_->process->sweep.Settle(sweep, milliseconds(0));
}

std::size_t Participant::expired_or_not_mine() const {
  if (!alive()) return 0;
  const SweepCounts counts = rep_->process->sweep.counts();
  return counts.expired + counts.not_mine;
}

std::uint64_t Participant::heuristics() const {
  return rep_->heuristics + (alive() ? rep_->process->table.Counts().heuristics : 0);
}

std::uint64_t Participant::hazards() const {
  return rep_->hazards + (alive() ? rep_->process->table.Counts().hazards : 0);
}

void Participant::CrashDatabase() { rep_->database.Crash(); }
void Participant::NoteStandby() { rep_->standby = rep_->database.Copy(); }

std::vector<Participant::Lost> Participant::FailOver() {
  const SimDatabase::State old = rep_->database.Copy();
  const SimDatabase::State& standby = rep_->standby;
  std::set<std::string> kept;
  for (const auto& [gid, entry] : standby.prepared) {
    for (const auto& [key, value] : entry.writes) kept.insert(key);
  }
  auto holds = [&](const std::string& key) {
    return kept.contains(key) || standby.rows.contains(key);
  };
  std::vector<Lost> lost;
  for (const auto& [key, value] : old.rows) {
    if (!holds(key))
      lost.push_back({key, Lost::kRow});
    else if (!standby.rows.contains(key))
      lost.push_back({key, Lost::kFinish});
  }
  for (const auto& [gid, entry] : old.prepared) {
    for (const auto& [key, value] : entry.writes) {
      if (!holds(key)) lost.push_back({key, Lost::kPrepared});
    }
  }
  rep_->database.FailOverTo(standby);
  return lost;
}

void Participant::SetAway(bool away) { rep_->database.SetAway(away); }

void Participant::SetFaults(const DatabaseFaults& faults) {
  rep_->faults = faults;
  const bool any = faults.lost_before + faults.lost_after + faults.warning + faults.busy > 0;
  rep_->database.fate = nullptr;
  rep_->database.slowness = nullptr;
  if (any) {
    rep_->database.fate = [rep = rep_.get()](const std::string& statement, const std::string&) {
      return rep->FateOf(statement);
    };
  }
  if (faults.slow > 0) {
    rep_->database.slowness = [rep = rep_.get()](const std::string&, const std::string&) {
      return static_cast<int>(rep->random() % 1000) < rep->faults.slow
                 ? static_cast<int>(1 + rep->random() % 4)
                 : 0;
    };
  }
}

std::optional<std::int64_t> Participant::Row(const std::string& key) const {
  return rep_->database.Read(key);
}

bool Participant::IsPrepared(const std::string& gid) const {
  return rep_->database.IsPrepared(gid);
}

std::size_t Participant::PreparedCount() const { return rep_->database.Prepared().size(); }

std::string Participant::PreparedText() const {
  std::string text;
  for (const auto& [gid, xid] : rep_->database.Prepared()) {
    text += " " + gid + " xid=" + std::to_string(xid);
  }
  return text;
}

}  // namespace troth::sim
