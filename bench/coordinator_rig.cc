// See coordinator_rig.h.
#include "bench/coordinator_rig.h"

#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <random>
#include <utility>

namespace troth::bench {
namespace {

constexpr DatabaseId kDatabase{7'000'000'000'000'000'001, 16384};

// Law L15, here as in the product.
[[noreturn]] void DieOfLog(const Status& status) {
  std::fprintf(stderr, "bench: the log failed: %s\n", status.message().c_str());
  _exit(3);
}

EnrolmentAsked EnrolmentOf(const std::string& name, std::uint32_t number) {
  EnrolmentAsked asked;
  asked.participant.name = name;
  asked.participant.database = kDatabase;
  asked.participant.database.oid += number;
  asked.participant.database_address = "127.0.0.1:5432/" + name;
  asked.participant.peer_host = "127.0.0.1";
  asked.participant.peer_port = 1;
  asked.instance = "fedcba9876543210";
  return asked;
}

}  // namespace

// ------------------------------------------------------------------------- LoopbackChannel

void LoopbackChannel::Connect(const struct Connect& to) {
  answers_.push_back(ParticipantUp{to.participant});
}

void LoopbackChannel::Send(const SendPrepare& prepare) {
  if (silent_) return;
  BranchVote vote;
  vote.ballot = Ballot::kPrepared;
  vote.works = prepare.works;
  vote.database = kDatabase;
  vote.database.oid += prepare.participant;
  vote.xid = 1000 + prepare.id.sequence;
  vote.timeline = 1;
  vote.position = 0x16B3748 + 500 * prepare.id.sequence;
  answers_.push_back(VoteArrived{prepare.id, prepare.participant, prepare.mark, vote});
}

void LoopbackChannel::Send(const SendFinish& finish) {
  answers_.push_back(
      FinishArrived{finish.id, finish.participant, finish.commit, Finished::kDone, ""});
}

// By the thread that runs the machine, at the end of its round: it takes these in the next.
void LoopbackChannel::Push() {
  if (answers_.empty()) return;
  std::vector<Event> taken;
  taken.swap(answers_);
  coordinator_->Submit(std::move(taken));
}

void LoopbackChannel::Poll(std::int64_t timeout_ms) {
  MutexLock lock(&mutex_);
  const auto until = std::chrono::steady_clock::now() + std::chrono::milliseconds(timeout_ms);
  while (!interrupted_ && changed_.WaitUntil(&mutex_, until)) {
  }
  interrupted_ = false;
}

void LoopbackChannel::Interrupt() {
  MutexLock lock(&mutex_);
  interrupted_ = true;
  changed_.NotifyAll();
}

// -------------------------------------------------------------------------- CoordinatorRig

CoordinatorRig::CoordinatorRig(const Options& options) : crew_(DieOfLog) {
  for (int i = 0; i < options.participants; ++i) names_.push_back("p" + std::to_string(i));
}

Result<std::unique_ptr<CoordinatorRig>> CoordinatorRig::Open(Options options) {
  std::unique_ptr<CoordinatorRig> rig(new CoordinatorRig(options));
  const Result<std::string> made =
      Wal::Init(PosixFileSystem(), options.directory, "bench", options.wal);
  if (!made.ok() && made.status().code() != Code::kExists) return made.status();
  RecoveredState state;
  auto wal = Wal::Open(PosixFileSystem(), SystemClock(), options.directory, options.wal, &state);
  if (!wal.ok()) return wal.status();
  rig->id_ = (*wal)->coordinator_id();
  options.machine.coordinator_id = rig->id_;
  options.machine.retention = options.wal.retention;
  const std::uint64_t last_batch = (*wal)->last_batch();
  rig->log_ = std::make_unique<FileDecisionLog>(*std::move(wal));
  rig->coordinator_ = std::make_unique<Coordinator>(
      CommitProtocol(options.machine, std::move(state), std::random_device{}(), last_batch),
      SystemClock(), rig->log_.get(), &rig->channel_,
      options.replies != nullptr ? options.replies : &rig->crew_);
  Coordinator* const coordinator = rig->coordinator_.get();
  rig->channel_.Start(coordinator);
  rig->log_->Start(DieOfLog, [coordinator, crew = &rig->crew_] {
    if (const Status flushed = coordinator->FlushLog(/*mark=*/true); !flushed.ok()) {
      DieOfLog(flushed);
    }
    crew->Nudge();
  });
  coordinator->Start();
  rig->crew_.Start(coordinator, &rig->channel_);
  for (std::size_t i = 0; i < rig->names_.size(); ++i) {
    coordinator->Submit(EnrolmentOf(rig->names_[i], static_cast<std::uint32_t>(i)));
  }
  rig->AwaitParticipants();
  return rig;
}

// Epoch and enrolments wait for the log; whoever wants them durable flushes.
void CoordinatorRig::AwaitParticipants() {
  std::size_t up = 0;
  while (up < names_.size()) {
    if (const Status flushed = coordinator_->FlushLog(); !flushed.ok()) DieOfLog(flushed);
    up = 0;
    coordinator_->Inspect([&](const CommitProtocol& machine) {
      if (!machine.serving()) return;
      for (ParticipantIndex p = 0; p < machine.registry().size(); ++p) {
        if (machine.registry().at(p).up) ++up;
      }
    });
  }
}

CoordinatorRig::~CoordinatorRig() {
  crew_.Stop();
  if (log_ != nullptr) log_->Stop();
}

CommitAsked CoordinatorRig::CommitOf(const LocalId& local, int branches, bool wait_applied) const {
  CommitAsked commit;
  commit.id = {id_, local};
  commit.branches.reserve(static_cast<std::size_t>(branches));
  for (int i = 0; i < branches; ++i) {
    BranchClaim claim;
    claim.participant = names_[static_cast<std::size_t>(i)];
    claim.mark = "0123456789abcdef";
    claim.instance = "fedcba9876543210";
    claim.works = 1;
    commit.branches.push_back(std::move(claim));
  }
  commit.deadline = coordinator_->Now() + 20'000;
  commit.wait_applied = wait_applied;
  return commit;
}

}  // namespace troth::bench
