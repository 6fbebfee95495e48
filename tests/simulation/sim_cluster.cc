// See sim_cluster.h. This file: the processes and what goes wrong; sim_cluster_clients.cc: the
// clients and the checker.
#include "tests/simulation/sim_cluster.h"

#include <cstdio>

#include "common/check.h"
#include "tests/simulation/sim_cluster_impl.h"

namespace troth::sim {
namespace {

constexpr std::int64_t kLeaseMs = 3'000;
constexpr Us kMs = 1'000;

}  // namespace

namespace {
// How often what goes wrong. Chances in 1/10000; misfortunes by their mean interval.
struct Profile {
  const char* name;
  Us misfortune_us;
  int lost, duplicate;
  DatabaseFaults statements;
  std::uint32_t without;  // faults never seen in it
  // How long records live whole. A late duplicate of work may prepare a branch under an id that
  // ended; while the record is whole it is rolled back, later it is kept in doubt, as expired.
  std::int64_t record_ms = 20'000;
  bool lossy_failover = false;  // the standby lacks the last of the log
  // A few runs each with a short life of records, lossy failovers, and many late duplicates.
  bool mixed = false;
};
constexpr std::uint32_t Bit(Fault f) { return 1u << f; }
constexpr Profile kProfiles[] = {
    {"default", 120 * kMs, 10, 30, {1, 1, 1, 2, 5}, 0, 20'000, false, true},
    {"stormy", 30 * kMs, 60, 100, {8, 8, 4, 10, 20}, 0, 20'000, false, true},
    {"calm", 0, 0, 0, {0, 0, 0, 0, 0}, (1u << kFaults) - 1},
    {"disk",
     60 * kMs,
     0,
     0,
     {0, 0, 0, 0, 0},
     ~(Bit(kCoordinatorCrash) | Bit(kPowerLoss) | Bit(kDiskErrors) | Bit(kDiskFull))},
    {"network",
     40 * kMs,
     100,
     200,
     {0, 0, 0, 0, 0},
     Bit(kCoordinatorCrash) | Bit(kPowerLoss) | Bit(kDiskErrors) | Bit(kDiskFull) |
         Bit(kParticipantCrash) | Bit(kDatabaseCrash) | Bit(kDatabaseAway) | Bit(kStatementFaults)},
    {"retention", 60 * kMs, 20, 200, {1, 1, 1, 2, 5}, 0, 400},
    {"failover", 40 * kMs, 10, 30, {1, 1, 1, 2, 5}, 0, 20'000, true},
};
const Profile* Find(const std::string& name) {
  for (const Profile& profile : kProfiles) {
    if (profile.name == name) return &profile;
  }
  return nullptr;
}
Options WithProfile(Options options) {
  options.without |= Find(options.profile)->without;
  return options;
}
}  // namespace

bool KnownProfile(const std::string& name) { return Find(name) != nullptr; }
Report Run(const Options& options) { return Cluster(options).Run(); }

Cluster::Cluster(const Options& options)
    : options_(WithProfile(options)), random_(options.seed), disk_(options.seed ^ 0x5eed) {
  wal_options_.segment_bytes = (128u << 10) << Below(3);
  // Want of room is a failure, and short segments are often full before the next is made.
  if (Calm()) wal_options_.segment_bytes = 4u << 20;
  wal_options_.retention.lease_ms = kLeaseMs;
  const Profile& profile = *Find(options_.profile);
  wal_options_.retention.record_ms = profile.mixed && Below(12) == 0 ? 400 : profile.record_ms;
  // A standby without a finish asks for it; that the answer is still there is its retention.
  const bool short_lived = wal_options_.retention.record_ms < 1'000;
  lossy_failover_ = profile.lossy_failover || (profile.mixed && !short_lived && Below(12) == 0);
  duplicate_ = profile.mixed && Below(12) == 0 ? 500 : profile.duplicate;
  wal_options_.retention.outcome_ms = 600'000;
  wal_options_.random = [this] { return Random(); };
  const int participants =
      options_.participants > 0 ? options_.participants : 2 + static_cast<int>(Below(6));
  for (int i = 0; i < participants; ++i) {
    auto engine = std::make_shared<std::mt19937_64>(Random());
    participants_.push_back(std::make_unique<Participant>("p" + std::to_string(i), i, &world_,
                                                          [engine] { return (*engine)(); }));
    by_name_["p" + std::to_string(i)] = i;
  }
  participant_life_.assign(participants_.size(), 0);
  enrolled_.assign(participants_.size(), {0, 0});
  beats_.assign(participants_.size(), 0);
  secret_of_.assign(participants_.size(), Epoch{});
  cut_off_until_.assign(participants_.size(), 0);
  lost_something_.assign(participants_.size(), false);
  late_work_.resize(participants_.size());
  const Result<std::string> id = Wal::Init(&disk_, "/log", "bank", wal_options_);
  TROTH_CHECK(id.ok());
  coordinator_id_ = *id;
}

Cluster::~Cluster() = default;

Us Cluster::Latency() {
  const Us usual = 40 + static_cast<Us>(Below(160));
  if (slow_network_ > 0 && Below(20) == 0) return usual + static_cast<Us>(Below(60'000));
  return usual;
}

void Cluster::Count(Fault fault) {
  if (fault == kCoordinatorCrash || fault == kPowerLoss || fault == kParticipantCrash) {
    ++report_.crashes;
  } else {
    ++report_.faults;
  }
}

// Columns: the clients, the coordinator, each participant.
void Cluster::Say(int column, const std::string& text) {
  if (!options_.trace) return;
  std::printf("%10.3f %*s%s\n", static_cast<double>(world_.now_us()) / 1000.0, column * 6, "",
              text.c_str());
}

void Cluster::Violation(const std::string& what) {
  if (!report_.violation.empty()) return;
  report_.violation = what;
  Say(0, "VIOLATION " + what);
}

// -------------------------------------------------------------------------- coordinator

void Cluster::StartCoordinator() {
  if (CoordinatorUp()) return;
  ++life_;
  RecoveredState state;
  Result<std::unique_ptr<Wal>> wal = Wal::Open(&disk_, &world_, "/log", wal_options_, &state);
  if (!wal.ok()) {
    Say(1, "opening failed: " + wal.status().ToString());
    if (!disk_trouble_) {
      Violation("the log refused to open: " + wal.status().ToString());
      return;
    }
    disk_trouble_ = false;
    if (disk_.crashed()) disk_.LosePower();
    disk_.Restart();
    disk_.SetCapacity(~std::uint64_t{0});
    ++report_.crashes;
    world_.In(20 * kMs, [this] { StartCoordinator(); });
    return;
  }
  ProtocolOptions options;
  options.coordinator_id = (*wal)->coordinator_id();
  options.lease_ms = kLeaseMs;
  options.reserve_block = 200;
  options.hear_ms = 1'000;
  options.retention = wal_options_.retention;
  CommitProtocol protocol(options, std::move(state), static_cast<std::uint32_t>(Random()),
                          (*wal)->last_batch());
  Say(1, "coordinator starts, epoch " + protocol.epoch().ToString() + ", " +
             std::to_string(protocol.unacknowledged()) + " to finish, log at batch " +
             std::to_string((*wal)->last_batch()));
  log_ = std::make_unique<SimDecisionLog>(*std::move(wal));
  channel_ = std::make_unique<SimChannel>(this, life_);
  timer_at_ = 0;
  coordinator_ =
      std::make_unique<Coordinator>(std::move(protocol), &world_, log_.get(), channel_.get(), this);
  coordinator_->Start();
  AfterCoordinator();
  world_.In(50 * kMs, [this, life = life_] { Maintain(life); });
}

void Cluster::CrashCoordinator(const char* why) {
  if (!CoordinatorUp()) return;
  Say(1, std::string("coordinator dies: ") + why);
  ++life_;
  coordinator_.reset();
  channel_.reset();
  log_.reset();
  const bool power = disk_.crashed() || (On(kPowerLoss) && Below(2) == 0);
  if (power) {
    Count(kPowerLoss);
    SimFileSystem::PowerLoss how;
    how.reorder_names = Below(2) == 0;
    disk_.LosePower(how);
    Say(1, "and the power is lost");
  }
  disk_.Restart();
  disk_trouble_ = false;
  for (auto& [token, done] : pending_) {
    world_.In(Latency(), [done = std::move(done)] { done(nullptr); });
  }
  pending_.clear();
  // Sometimes the next opening is cut short too.
  if (On(kCoordinatorCrash) && Below(6) == 0) {
    disk_.CrashAt(1 + Below(40));
    disk_trouble_ = true;
  }
  world_.In(static_cast<Us>(2 * kMs + Below(150 * kMs)), [this] { StartCoordinator(); });
}

void Cluster::Submit(Event event) {
  if (options_.trace) Say(1, "> " + DebugString(event));
  coordinator_->Submit(std::move(event));
  AfterCoordinator();
}

// What the threads of the real process would do now: flush what waits, watch the clock.
void Cluster::AfterCoordinator() {
  if (coordinator_->BeginFlush(false)) {
    const std::uint64_t stall = On(kDiskErrors) ? Below(4'000) : 4'000;
    const Us sync = 80 + static_cast<Us>(Below(300)) +
                    (stall == 0   ? 1'200 * kMs
                     : stall < 20 ? 15 * kMs
                                  : 0);
    world_.In(sync, [this, life = life_] { EndFlush(life); });
  }
  const Us at = world_.now_us() +
                std::max<std::int64_t>(0, coordinator_->NextTimer() - coordinator_->Now()) * kMs;
  if (timer_at_ != 0 && timer_at_ <= at) return;
  timer_at_ = at;
  world_.In(at - world_.now_us(), [this, life = life_, at] {
    if (life != life_ || timer_at_ != at) return;
    timer_at_ = 0;
    coordinator_->Tick();
    AfterCoordinator();
  });
}

void Cluster::EndFlush(std::uint64_t life) {
  if (life != life_) return;
  const Status status = coordinator_->EndFlush();
  if (!status.ok()) {
    CrashCoordinator("a write or sync of its log failed");  // law L15
    return;
  }
  AfterCoordinator();
}

void Cluster::Maintain(std::uint64_t life) {
  if (life != life_) return;
  if (log_->wal().MaintenanceDue()) {
    const Status status = log_->wal().Maintain();
    if (!status.ok()) {
      CrashCoordinator("maintenance of its log failed");
      return;
    }
  }
  if (log_->wal().MarkDue() && coordinator_->BeginFlush(true)) {
    world_.In(200, [this, life] { EndFlush(life); });
  }
  AfterCoordinator();
  const Us next = log_->wal().MaintenanceDue() ? 300 : 10 * kMs;
  world_.In(next, [this, life] { Maintain(life); });
}

void Cluster::Ask(std::function<Event(ReplyToken)> make, std::function<void(const Action*)> done) {
  if (On(kLostMessages) && Chance(Find(options_.profile)->lost)) {
    Count(kLostMessages);
    world_.In(50 * kMs, [done] { done(nullptr); });
    return;
  }
  world_.In(Latency(), [this, make = std::move(make), done = std::move(done)] {
    if (!CoordinatorUp()) {
      world_.In(10 * kMs, [done] { done(nullptr); });
      return;
    }
    const ReplyToken token = ++token_;
    pending_[token] = done;
    Submit(make(token));
  });
}

void Cluster::Reply(ReplyToken token, Action reply) {
  if (options_.trace) Say(1, "  " + DebugString(reply));
  if (const auto* outcome = std::get_if<ReplyOutcome>(&reply)) Told(*outcome);
  const auto waiting = pending_.find(token);
  if (waiting == pending_.end()) return;
  auto done = std::move(waiting->second);
  pending_.erase(waiting);
  if (On(kLostMessages) && Chance(Find(options_.profile)->lost)) {
    Count(kLostMessages);
    world_.In(50 * kMs, [done = std::move(done)] { done(nullptr); });
    return;
  }
  world_.In(Latency(), [done = std::move(done), reply = std::move(reply)] { done(&reply); });
}

RunningMs Cluster::RunningIn(Us us) const { return coordinator_->Now() + us / kMs; }

// ------------------------------------------------------------------------------ channel

bool SimChannel::Alive() const { return cluster_->life_ == life_; }

SimChannel::Peer& SimChannel::peer(ParticipantIndex index) {
  if (index >= peers_.size()) peers_.resize(index + 1);
  return peers_[index];
}

SenderSaid SimChannel::Sender() const {
  const Epoch epoch = cluster_->coordinator_->epoch();
  return {cluster_->coordinator_id_, epoch.number, epoch.random,
          cluster_->coordinator_->durable_batch()};
}

void SimChannel::Connect(const troth::Connect& to) {
  Peer& peer = this->peer(to.participant);
  peer.participant = cluster_->by_name_.at(to.name);
  peer.wanted = true;
  peer.backoff = 2'000;
  Try(to.participant);
}

void SimChannel::Disconnect(ParticipantIndex index) { peer(index).wanted = false; }

void SimChannel::Try(ParticipantIndex index) {
  Peer& peer = this->peer(index);
  if (!peer.wanted || peer.up || peer.trying) return;
  peer.trying = true;
  cluster_->world_.In(cluster_->Latency() * 3, [cluster = cluster_, life = life_, index] {
    if (cluster->life_ != life) return;
    SimChannel* self = cluster->channel_.get();
    Peer& peer = self->peer(index);
    peer.trying = false;
    Participant& participant = cluster->p(peer.participant);
    const bool reached = participant.alive() &&
                         cluster->cut_off_until_[static_cast<std::size_t>(peer.participant)] <=
                             cluster->world_.now_us();
    if (reached && participant.Fence(self->Sender())) {
      peer.up = true;
      peer.backoff = 2'000;
      ++peer.generation;
      cluster->Submit(ParticipantUp{index});
      return;
    }
    peer.trying = true;
    const Us wait = peer.backoff;
    peer.backoff = std::min<Us>(peer.backoff * 2, 1'000'000);
    cluster->world_.In(wait, [cluster, life, index] {
      if (cluster->life_ != life) return;
      cluster->channel_->peer(index).trying = false;
      cluster->channel_->Try(index);
    });
  });
}

void SimChannel::Break(ParticipantIndex index) {
  Peer& peer = this->peer(index);
  if (!peer.up) return;
  peer.up = false;
  ++peer.generation;
  peer.prepares.clear();
  peer.finishes.clear();
  peer.prepare_under_way = peer.finish_under_way = false;
  Try(index);
  cluster_->Submit(ParticipantDown{index});
}

void SimChannel::Send(const SendPrepare& prepare) {
  Peer& peer = this->peer(prepare.participant);
  if (peer.up) peer.prepares.push_back(prepare);
}

void SimChannel::Send(const SendFinish& finish) {
  Peer& peer = this->peer(finish.participant);
  if (peer.up) peer.finishes.push_back(finish);
}

void SimChannel::Push() {
  for (ParticipantIndex i = 0; i < peers_.size(); ++i) {
    CallPrepare(i);
    CallFinish(i);
  }
}

void SimChannel::CallPrepare(ParticipantIndex index) {
  Peer& peer = this->peer(index);
  if (!peer.up || peer.prepare_under_way || peer.prepares.empty()) return;
  peer.prepare_under_way = true;
  auto list = std::make_shared<std::vector<SendPrepare>>(std::move(peer.prepares));
  peer.prepares.clear();
  cluster_->CallParticipant(
      index, peer.generation, peer.participant, Sender(),
      [cluster = cluster_, list, i = peer.participant, now = cluster_->coordinator_->Now()] {
        std::vector<PrepareAsk> asks;
        for (const SendPrepare& s : *list) {
          asks.push_back({TransactionId{cluster->coordinator_id_, s.id}.ToString(), s.mark,
                          s.instance, static_cast<int>(s.works),
                          std::max<std::int64_t>(1, s.deadline - now)});
        }
        Participant& participant = cluster->p(i);
        auto votes = std::make_shared<std::vector<Event>>();
        std::size_t n = 0;
        for (const VoteSaid& said : participant.Prepare(asks)) {
          const SendPrepare& s = (*list)[n++];
          VoteArrived e{s.id, s.participant, s.mark, {}};
          e.vote.ballot = static_cast<Ballot>(said.ballot);
          e.vote.works = static_cast<std::uint32_t>(said.works);
          e.vote.database = DatabaseId{std::stoull(participant.database_identifier()),
                                       participant.database_oid()};
          e.vote.xid = said.xid;
          e.vote.timeline = said.timeline;
          e.vote.position = said.position;
          if (e.vote.ballot == Ballot::kRefused) {
            e.vote.refusal.reason = static_cast<Reason>(said.reason);
            e.vote.refusal.retryable = said.retryable;
          }
          votes->push_back(std::move(e));
        }
        return votes;
      },
      [cluster = cluster_, index] {
        cluster->channel_->peer(index).prepare_under_way = false;
        cluster->channel_->CallPrepare(index);
      });
}

void SimChannel::CallFinish(ParticipantIndex index) {
  Peer& peer = this->peer(index);
  if (!peer.up || peer.finish_under_way || peer.finishes.empty()) return;
  peer.finish_under_way = true;
  auto list = std::make_shared<std::vector<SendFinish>>(std::move(peer.finishes));
  peer.finishes.clear();
  cluster_->CallParticipant(
      index, peer.generation, peer.participant, Sender(),
      [cluster = cluster_, list, i = peer.participant] {
        std::vector<FinishAsk> asks;
        for (const SendFinish& s : *list) {
          asks.push_back({TransactionId{cluster->coordinator_id_, s.id}.ToString(), s.commit, s.xid,
                          s.timeline, s.position});
        }
        auto acks = std::make_shared<std::vector<Event>>();
        std::size_t n = 0;
        for (const Settled settled : cluster->p(i).Finish(asks)) {
          const SendFinish& s = (*list)[n];
          if (s.commit && settled == Settled::kDone) cluster->CheckApplied(i, asks[n].id);
          ++n;
          acks->push_back(
              FinishArrived{s.id, s.participant, s.commit, static_cast<Finished>(settled), ""});
        }
        return acks;
      },
      [cluster = cluster_, index] {
        cluster->channel_->peer(index).finish_under_way = false;
        cluster->channel_->CallFinish(index);
      });
}

void Cluster::CallParticipant(ParticipantIndex index, std::uint64_t generation, int participant,
                              const SenderSaid& sender,
                              std::function<std::shared_ptr<std::vector<Event>>()> serve,
                              std::function<void()> again) {
  const std::uint64_t life = life_;
  auto current = [this, life, index, generation] {
    return life == life_ && channel_->peer(index).generation == generation;
  };
  auto broken = [this, current, index] {
    world_.In(30 * kMs, [this, current, index] {
      if (current()) channel_->Break(index);
    });
  };
  const int lost = Find(options_.profile)->lost;
  if (On(kDuplicates) && Chance(duplicate_)) {
    // A copy that comes late, when nobody waits for its answer any more.
    Count(kDuplicates);
    world_.In(static_cast<Us>(Below(200 * kMs)), [this, serve, sender, participant] {
      if (p(participant).alive() && p(participant).Fence(sender)) serve();
    });
  }
  if (On(kLostMessages) && Chance(lost)) {
    Count(kLostMessages);
    broken();
    return;
  }
  world_.In(Latency(), [=, this] {
    const auto i = static_cast<std::size_t>(participant);
    if (!p(participant).alive() || cut_off_until_[i] > world_.now_us() ||
        !p(participant).Fence(sender)) {
      broken();
      return;
    }
    const std::shared_ptr<std::vector<Event>> events = serve();
    const std::uint64_t process = participant_life_[i];
    if (On(kLostMessages) && Chance(lost)) {
      Count(kLostMessages);
      broken();
      return;
    }
    world_.In(Latency(), [=, this] {
      if (!current()) return;
      if (participant_life_[i] != process || cut_off_until_[i] > world_.now_us()) {
        broken();
        return;
      }
      if (options_.trace) {
        for (const Event& event : *events) Say(1, "> " + DebugString(event));
      }
      coordinator_->Submit(std::move(*events));
      AfterCoordinator();
      if (current()) again();
    });
  });
}

// ------------------------------------------------------------------------- participants

void Cluster::StartParticipant(int i) {
  if (p(i).alive()) return;
  const std::uint64_t life = ++participant_life_[static_cast<std::size_t>(i)];
  p(i).Start();
  Say(2 + i, "p" + std::to_string(i) + " starts");
  // It forgot which ids ended, and copies of work from before its death arrive.
  for (const WorkAsk& ask : late_work_[static_cast<std::size_t>(i)]) {
    if (!On(kDuplicates) || Below(2) == 0) continue;
    Count(kDuplicates);
    world_.In(static_cast<Us>(Below(20 * kMs)), [this, i, ask] {
      if (p(i).alive()) p(i).Work(ask);
    });
  }
  world_.In(static_cast<Us>(Below(5 * kMs)), [this, i, life] { Beat(i, life); });
}

void Cluster::CrashParticipant(int i) {
  if (!p(i).alive()) return;
  Say(2 + i, "p" + std::to_string(i) + " dies");
  p(i).Crash();
  secret_of_[static_cast<std::size_t>(i)] = Epoch{};
  ++participant_life_[static_cast<std::size_t>(i)];
  if (CoordinatorUp()) {
    for (ParticipantIndex n = 0; n < channel_->peers_.size(); ++n) {
      if (channel_->peers_[n].participant != i || !channel_->peers_[n].up) continue;
      const std::uint64_t generation = channel_->peers_[n].generation;
      world_.In(Latency(), [this, n, generation, life = life_] {
        if (life == life_ && channel_->peer(n).generation == generation) channel_->Break(n);
      });
    }
  }
}

// A tenth of a second of a participant's background work.
void Cluster::Beat(int i, std::uint64_t life) {
  const auto n = static_cast<std::size_t>(i);
  if (participant_life_[n] != life) return;
  p(i).Tick();
  auto& [enrolled, at] = enrolled_[n];
  if (enrolled != life_ || at + 2'000 * kMs < world_.now_us()) Enroll(i, life);
  if (++beats_[n] % 3 == 0) SweepOnce(i, life);
  world_.In(100 * kMs, [this, i, life] { Beat(i, life); });
}

void Cluster::Enroll(int i, std::uint64_t life) {
  const auto n = static_cast<std::size_t>(i);
  if (cut_off_until_[n] > world_.now_us()) return;
  const std::uint64_t coordinator = life_;
  Ask(
      [this, i](ReplyToken token) {
        EnrolmentAsked e;
        e.token = token;
        e.participant.name = p(i).name();
        e.participant.database =
            DatabaseId{std::stoull(p(i).database_identifier()), p(i).database_oid()};
        e.participant.database_address = "sim:0";
        e.participant.peer_host = p(i).name();
        e.participant.peer_port = 1;
        e.instance = p(i).alive() ? p(i).instance() : "gone";
        if (p(i).alive()) {
          const SenderSaid seen = p(i).Seen(coordinator_id_);
          e.seen = SeenPosition{{seen.epoch, seen.random}, seen.position};
        }
        return e;
      },
      [this, n, life, coordinator](const Action* reply) {
        if (participant_life_[n] != life || coordinator != life_) return;
        if (reply != nullptr && std::holds_alternative<ReplyEnrolled>(*reply)) {
          enrolled_[n] = {life_, world_.now_us()};
          const SenderSaid sender = channel_->Sender();
          secret_of_[n] = coordinator_->epoch();
          if (p(static_cast<int>(n)).Fence(sender)) p(static_cast<int>(n)).Told(sender);
        }
      });
}

void Cluster::SweepOnce(int i, std::uint64_t life) {
  const std::vector<InquiryAsk> asks = p(i).Look();
  if (asks.empty() || cut_off_until_[static_cast<std::size_t>(i)] > world_.now_us()) return;
  Ask(
      [this, i, asks](ReplyToken token) {
        Inquired e;
        e.token = token;
        e.participant = p(i).name();
        for (const InquiryAsk& ask : asks) {
          const Result<TransactionId> id = TransactionId::Parse(ask.id);
          TROTH_CHECK(id.ok());
          e.items.push_back({*id, ask.xid});
        }
        if (p(i).alive()) {
          const SenderSaid seen = p(i).Seen(coordinator_id_);
          e.seen = SeenPosition{{seen.epoch, seen.random}, seen.position};
        }
        return e;
      },
      [this, i, life, asks](const Action* reply) {
        if (participant_life_[static_cast<std::size_t>(i)] != life || reply == nullptr) return;
        const auto* answers = std::get_if<ReplyAnswers>(reply);
        if (answers == nullptr) return;
        std::vector<InquirySaid> said;
        for (std::size_t n = 0; n < asks.size(); ++n) {
          const InquiryAnswer& a = answers->answers[n];
          InquirySaid s{asks[n], Verdict::kPending, a.xid, a.timeline, a.position};
          switch (a.answer) {
            case InDoubtAnswer::kCommitted:
              s.verdict = a.commit ? Verdict::kCommit : Verdict::kAbort;
              break;
            case InDoubtAnswer::kAborted: s.verdict = Verdict::kAbort; break;
            case InDoubtAnswer::kPending: s.verdict = Verdict::kPending; break;
            case InDoubtAnswer::kCommittedBit:
            case InDoubtAnswer::kExpired: s.verdict = Verdict::kExpired; break;
            case InDoubtAnswer::kNotMine: s.verdict = Verdict::kNotMine; break;
          }
          said.push_back(s);
        }
        p(i).Settle(said);
        for (const InquirySaid& s : said) {
          if (s.verdict == Verdict::kCommit) CheckApplied(i, s.asked.id);
        }
      });
}

// ---------------------------------------------------------------------- what goes wrong

void Cluster::Misfortune() {
  if (healing_) return;
  const auto i = static_cast<int>(Below(participants_.size()));
  const auto n = static_cast<std::size_t>(i);
  const auto fault = static_cast<Fault>(Below(kFaults));
  const Us outage = static_cast<Us>(1 * kMs + Below(Below(8) == 0 ? 1'500 * kMs : 80 * kMs));
  if (On(fault)) {
    switch (fault) {
      case kCoordinatorCrash:
      case kPowerLoss:
        if (!CoordinatorUp()) break;
        Count(kCoordinatorCrash);
        // Half of the time in the middle of something on the disk.
        if (Below(2) == 0) {
          CrashCoordinator("killed");
        } else {
          disk_.CrashAt(1 + Below(12));
        }
        break;
      case kDiskErrors:
        if (!CoordinatorUp()) break;
        Count(fault);
        disk_.FailAt(1 + Below(8), Code::kIo);
        disk_trouble_ = true;
        break;
      case kDiskFull:
        Count(fault);
        Say(1, "the disk is full");
        disk_.SetCapacity(disk_.used_bytes() + Below(128u << 10));
        world_.In(outage * 3, [this] { disk_.SetCapacity(~std::uint64_t{0}); });
        break;
      case kParticipantCrash:
        Count(fault);
        CrashParticipant(i);
        world_.In(outage, [this, i] { StartParticipant(i); });
        break;
      case kDatabaseCrash:
        Count(fault);
        Say(2 + i, "its database crashes");
        p(i).CrashDatabase();
        break;
      case kDatabaseAway:
        Count(fault);
        Say(2 + i, "its database is away");
        p(i).SetAway(true);
        world_.In(outage, [this, i] { p(i).SetAway(false); });
        break;
      case kDatabaseFailover:
        Count(fault);
        FailOver(i);
        break;
      case kPartitions:
        Count(fault);
        Say(2 + i, "cut off from the coordinator");
        cut_off_until_[n] = world_.now_us() + outage;
        break;
      case kSlowNetwork:
        Count(fault);
        ++slow_network_;
        world_.In(outage, [this] { --slow_network_; });
        break;
      default: break;
    }
  }
  const Us mean = Find(options_.profile)->misfortune_us;
  world_.In(static_cast<Us>(1 + Below(static_cast<std::uint64_t>(2 * mean))),
            [this] { Misfortune(); });
}

void Cluster::FailOver(int i) {
  p(i).NoteStandby();
  auto now = [this, i] {
    for (const Participant::Lost& lost : p(i).FailOver()) {
      lost_something_[static_cast<std::size_t>(i)] = true;
      if (lost.key.front() != 't') continue;  // a contended row
      for (ClientBranch& branch : transactions_[std::stoul(lost.key.substr(1))].branches) {
        if (branch.participant != i) continue;
        branch.lost |= lost.how != Participant::Lost::kFinish;
        branch.lost_prepared |= lost.how == Participant::Lost::kPrepared;
        branch.unfinished |= lost.how == Participant::Lost::kFinish;
      }
    }
    Say(2 + i, "its database fails over");
  };
  if (lossy_failover_) {
    world_.In(static_cast<Us>(Below(8 * kMs)), now);
  } else {
    now();
  }
}

void Cluster::Heal() {
  Say(0, "everything heals");
  healing_ = true;
  slow_network_ = 0;
  disk_.SetCapacity(~std::uint64_t{0});
  for (int i = 0; i < static_cast<int>(participants_.size()); ++i) {
    p(i).SetAway(false);
    p(i).SetFaults({});
    cut_off_until_[static_cast<std::size_t>(i)] = 0;
    StartParticipant(i);
  }
}

Report Cluster::Run() {
  const Profile& profile = *Find(options_.profile);
  for (int i = 0; i < static_cast<int>(participants_.size()); ++i) {
    if (On(kStatementFaults)) p(i).SetFaults(profile.statements);
    StartParticipant(i);
  }
  StartCoordinator();
  if (profile.misfortune_us > 0) world_.In(profile.misfortune_us, [this] { Misfortune(); });
  StartClients();
  const Us limit = world_.now_us() + 600'000 * kMs;
  while (clients_idle_ < clients_ && report_.violation.empty()) {
    if (!world_.Next(limit)) break;
  }
  if (report_.violation.empty()) Heal();
  const Us heal_limit = world_.now_us() + 30'000 * kMs;
  Us look_at = world_.now_us() + 50 * kMs;
  bool quiet = false;
  while (report_.violation.empty() && !quiet) {
    if (!world_.Next(std::min(look_at, heal_limit))) {
      if (look_at >= heal_limit) break;
      world_.In(look_at - world_.now_us(), [] {});
      world_.Next(look_at);
      look_at += 50 * kMs;
      quiet = Quiet();
    }
  }
  if (report_.violation.empty() && !quiet)
    Violation("L8: not settled 30 s after healing:" + Unsettled());
  if (report_.violation.empty()) CheckEnd();
  report_.transactions = static_cast<std::uint64_t>(begun_);
  report_.sim_ms = static_cast<std::uint64_t>(world_.now_us() / kMs);
  return report_;
}

bool Cluster::Quiet() { return Unsettled().empty(); }

std::string Cluster::Unsettled() {
  std::string text;
  for (const auto& participant : participants_) {
    if (participant->PreparedCount() > participant->expired_or_not_mine()) {
      text += " " + participant->name() + " holds" + participant->PreparedText();
    }
  }
  if (!CoordinatorUp()) return text + " the coordinator is down";
  coordinator_->Inspect([&text](const CommitProtocol& machine) {
    machine.CheckInvariants();
    if (machine.undecided() + machine.unacknowledged() > 0) {
      text += " the coordinator works on " +
              std::to_string(machine.undecided() + machine.unacknowledged());
    }
    if (!machine.suspicion().empty()) text += " " + machine.suspicion();
  });
  if (clients_idle_ < clients_) text += " clients wait";
  return text;
}

}  // namespace troth::sim
