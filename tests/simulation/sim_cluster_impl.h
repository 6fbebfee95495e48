// The inside of sim_cluster.h: chance, the coordinator's process, its channel, and the cluster that
// holds them. For sim_cluster*.cc only.
#pragma once

#include <array>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <set>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "coordinator/coordinator.h"
#include "recovery/wal.h"
#include "tests/simulation/sim_cluster.h"
#include "tests/simulation/sim_file_system.h"
#include "tests/simulation/sim_participant.h"
#include "tests/simulation/sim_time.h"

namespace troth::sim {

// The log of the coordinator without a thread of its own: the cluster maintains it.
class SimDecisionLog : public DecisionLog {
 public:
  explicit SimDecisionLog(std::unique_ptr<Wal> wal) : wal_(std::move(wal)) {}
  void Append(const LogRecord& record) override { wal_->Append(record); }
  std::uint64_t RoomBytes() const override { return wal_->RoomBytes(); }
  void SetLeaseLine(const LocalId& line) override { wal_->SetLeaseLine(line); }
  bool BeginFlush(bool mark) override {
    job_ = wal_->BeginFlush(mark);
    return job_.has_value();
  }
  Status Flush() override { return wal_->Flush(&*job_); }
  Durable EndFlush() override {
    const troth::Durable durable = wal_->EndFlush(*std::move(job_));
    job_.reset();
    return {durable.records, durable.batch};
  }
  Wal& wal() { return *wal_; }

 private:
  std::unique_ptr<Wal> wal_;
  std::optional<FlushJob> job_;
};

// One branch as the client, and the checker, know it.
struct ClientBranch {
  int participant = 0;
  int works = 1, done = 0;
  bool read_only = false, early = false, contended = false;
  std::string mark, instance;
  std::optional<VoteSaid> vote;
  Epoch vote_epoch;  // whose secret its code was made with
  // The database failed over to a standby that lacks it, or that lacks it prepared.
  bool lost = false, lost_prepared = false;
  bool unfinished = false;  // it had been applied, and was prepared once more
};

// The checker's own record of a transaction, and the client's state in it.
struct Tx {
  TransactionId id;
  std::string text, key;
  std::vector<ClientBranch> branches;
  Us deadline = 0;
  int waiting_for = 0;  // replies to work
  bool failed = false;
  bool over = false;  // for its client
  int asked = 0;      // times commit or outcome was asked
  bool wait_applied = true;
  bool told_committed = false, told_aborted = false, told_read_only = false;
  bool met_lock = false;  // of another transaction, on a contended row
  bool applied_somewhere = false;
};

class Cluster;

// The channel of one life of the coordinator: two connections to each participant, one call
// under way on each, and what piles up shares the next call.
class SimChannel : public ParticipantChannel {
 public:
  SimChannel(Cluster* cluster, std::uint64_t life) : cluster_(cluster), life_(life) {}
  void Connect(const troth::Connect& to) override;
  void Disconnect(ParticipantIndex participant) override;
  void Send(const SendPrepare& prepare) override;
  void Send(const SendFinish& finish) override;
  void Push() override;
  // The participant's process died, or the network ate a call.
  void Break(ParticipantIndex index);

 private:
  struct Peer {
    int participant = -1;  // of the cluster
    bool wanted = false, up = false;
    std::uint64_t generation = 0;  // of its connections
    std::vector<SendPrepare> prepares;
    std::vector<SendFinish> finishes;
    bool prepare_under_way = false, finish_under_way = false;
    Us backoff = 2'000;
    bool trying = false;
  };
  bool Alive() const;
  Peer& peer(ParticipantIndex index);
  void Try(ParticipantIndex index);
  void CallPrepare(ParticipantIndex index);
  void CallFinish(ParticipantIndex index);
  SenderSaid Sender() const;

  Cluster* const cluster_;
  const std::uint64_t life_;
  std::vector<Peer> peers_;
  friend class Cluster;
};

class Cluster : public ReplySink {
 public:
  explicit Cluster(const Options& options);
  ~Cluster() override;
  Report Run();

 private:
  friend class SimChannel;
  // Chance.
  std::uint64_t Random() { return random_(); }
  std::uint64_t Below(std::uint64_t n) { return random_() % n; }
  bool Chance(int per_10000) { return static_cast<int>(random_() % 10'000) < per_10000; }
  Us Latency();
  bool Calm() const { return (~options_.without & ((1u << kFaults) - 1)) == 0; }
  bool On(Fault fault) const { return !healing_ && (options_.without >> fault & 1) == 0; }
  void Count(Fault fault);
  void Say(int column, const std::string& text);
  void Violation(const std::string& what);

  // The coordinator's process.
  void StartCoordinator();
  void CrashCoordinator(const char* why);
  bool CoordinatorUp() const { return coordinator_ != nullptr; }
  void AfterCoordinator();
  void EndFlush(std::uint64_t life);
  void Maintain(std::uint64_t life);
  void Submit(Event event);
  void Reply(ReplyToken token, Action reply) override;
  // An event of a client or a participant, with a token; `done` gets the reply, or null when
  // none will come.
  void Ask(std::function<Event(ReplyToken)> make, std::function<void(const Action*)> done);

  // Participants' processes.
  Participant& p(int i) { return *participants_[static_cast<std::size_t>(i)]; }
  void StartParticipant(int i);
  void CrashParticipant(int i);
  void Enroll(int i, std::uint64_t life);
  void Beat(int i, std::uint64_t life);
  void SweepOnce(int i, std::uint64_t life);
  void CheckApplied(int i, const std::string& id);
  // One call: there, maybe twice; its effect (`serve`); and back, unless something broke.
  void CallParticipant(ParticipantIndex index, std::uint64_t generation, int participant,
                       const SenderSaid& sender,
                       std::function<std::shared_ptr<std::vector<Event>>()> serve,
                       std::function<void()> again);

  // Clients.
  void StartClients();
  void Begin(int client);
  void BeginTransaction(int client);
  void SendWork(int client, Tx* tx, std::size_t branch);
  void WorkEnded(int client, Tx* tx, std::size_t branch, const WorkSaid& said);
  void WorkDone(int client, Tx* tx);
  void AskCommit(int client, Tx* tx);
  void AskAbort(int client, Tx* tx);
  void Unknown(int client, Tx* tx);
  void Over(int client, Tx* tx);
  CommitAsked CommitOf(const Tx& tx) const;
  RunningMs RunningIn(Us us) const;

  // What goes wrong.
  void Misfortune();
  void FailOver(int i);
  void Heal();

  // The checker.
  void Told(const ReplyOutcome& reply);
  void CheckSample();
  void CheckCommitted(const Tx& tx);
  void CheckEnd();
  bool Quiet();
  std::string Unsettled();  // empty: everything is

  const Options options_;
  std::mt19937_64 random_;
  World world_;
  SimFileSystem disk_;
  WalOptions wal_options_;
  std::string coordinator_id_;
  std::vector<std::unique_ptr<Participant>> participants_;
  std::vector<std::uint64_t> participant_life_;
  std::vector<Us> cut_off_until_;                       // from the coordinator
  std::vector<std::pair<std::uint64_t, Us>> enrolled_;  // with which life of it, and when
  std::vector<int> beats_;
  std::vector<Epoch> secret_of_;  // the epoch whose secret it was told, for codes of votes
  std::map<std::string, int> by_name_;

  std::unique_ptr<SimDecisionLog> log_;
  std::unique_ptr<SimChannel> channel_;
  std::unique_ptr<Coordinator> coordinator_;
  std::uint64_t life_ = 0;  // of the coordinator
  Us timer_at_ = 0;
  bool disk_trouble_ = false;  // an opening may fail, for the disk was told to

  ReplyToken token_ = 0;
  std::unordered_map<ReplyToken, std::function<void(const Action*)>> pending_;

  struct Lease {
    Epoch epoch;
    std::uint64_t next = 0, end = 0;
    Us until = 0;
  };
  std::vector<Lease> leases_;  // by client
  std::deque<Tx> transactions_;
  std::unordered_map<std::string, Tx*> by_id_;
  bool lossy_failover_ = false;
  int duplicate_ = 0;
  std::vector<bool> lost_something_;            // by participant
  std::vector<std::deque<WorkAsk>> late_work_;  // by participant: copies of it are on their way
  int begun_ = 0, clients_ = 0, clients_idle_ = 0;
  bool healing_ = false;
  int slow_network_ = 0;
  Report report_;
};

}  // namespace troth::sim
