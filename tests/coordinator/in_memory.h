// Seams of the coordinator in memory, for tests and benchmarks that want threads but no disk
// and no network. Thread-safe. The log is durable as soon as it is flushed; the participants
// vote and acknowledge whatever they are asked.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <set>
#include <utility>
#include <vector>

#include "common/thread_annotations.h"
#include "coordinator/crew.h"
#include "coordinator/decision_log.h"
#include "coordinator/participant_channel.h"

namespace troth {

class MemoryLog : public DecisionLog {
 public:
  void Append(const LogRecord& record) override {
    MutexLock lock(&mutex_);
    pending_.push_back(record);
    ++appended_;
  }
  std::uint64_t RoomBytes() const override { return 1u << 30; }
  void SetLeaseLine(const LocalId&) override {}
  bool BeginFlush(bool mark) override {
    MutexLock lock(&mutex_);
    if (pending_.empty() && !mark) return false;
    taken_.swap(pending_);
    taken_up_to_ = appended_;
    return true;
  }
  Status Flush() override { return OkStatus(); }
  Durable EndFlush() override {
    MutexLock lock(&mutex_);
    for (const LogRecord& record : taken_) {
      if (const auto* commit = std::get_if<CommitRecord>(&record)) durable_.insert(commit->id);
    }
    taken_.clear();
    return Durable{taken_up_to_, ++batch_};
  }

  bool IsDurable(const LocalId& id) const {
    MutexLock lock(&mutex_);
    return durable_.contains(id);
  }

 private:
  mutable Mutex mutex_;
  std::vector<LogRecord> pending_ TROTH_GUARDED_BY(mutex_);
  std::vector<LogRecord> taken_ TROTH_GUARDED_BY(mutex_);
  std::set<LocalId> durable_ TROTH_GUARDED_BY(mutex_);
  std::uint64_t appended_ TROTH_GUARDED_BY(mutex_) = 0;
  std::uint64_t taken_up_to_ TROTH_GUARDED_BY(mutex_) = 0;
  std::uint64_t batch_ TROTH_GUARDED_BY(mutex_) = 0;
};

// Answers wait until somebody polls, as answers on sockets do.
class MemoryChannel : public ParticipantChannel, public AnswerSource {
 public:
  explicit MemoryChannel(DatabaseId database) : database_(database) {}
  void Start(Coordinator* coordinator) { coordinator_ = coordinator; }

  void Connect(const struct Connect& to) override {
    // The machine is told from the thread that polls: never from inside a step.
    Queue(ParticipantUp{to.participant});
  }
  void Disconnect(ParticipantIndex) override {}
  // From now on no prepare is answered.
  void FallSilent() { silent_ = true; }

  void Send(const SendPrepare& p) override {
    if (silent_) return;
    BranchVote vote{Ballot::kPrepared, p.works, database_, 1000 + p.id.sequence, 1, 1, {}};
    Queue(VoteArrived{p.id, p.participant, p.mark, vote});
  }
  void Send(const SendFinish& f) override {
    Queue(FinishArrived{f.id, f.participant, f.commit, Finished::kDone, ""});
  }
  void Push() override {}

  bool Outstanding() const override {
    MutexLock lock(&mutex_);
    return !answers_.empty();
  }
  // How often somebody has polled.
  int polls() const { return polls_; }
  void Poll(std::int64_t timeout_ms) override {
    ++polls_;
    std::vector<Event> taken;
    {
      MutexLock lock(&mutex_);
      const auto until = std::chrono::steady_clock::now() + std::chrono::milliseconds(timeout_ms);
      while (answers_.empty() && !interrupted_ && changed_.WaitUntil(&mutex_, until)) {
      }
      interrupted_ = false;
      taken.swap(answers_);
    }
    if (!taken.empty()) coordinator_->Submit(std::move(taken));
  }
  void Interrupt() override {
    MutexLock lock(&mutex_);
    interrupted_ = true;
    changed_.NotifyAll();
  }

 private:
  void Queue(Event event) {
    MutexLock lock(&mutex_);
    answers_.push_back(std::move(event));
    changed_.NotifyAll();
  }

  const DatabaseId database_;
  std::atomic<bool> silent_{false};
  std::atomic<int> polls_{0};
  Coordinator* coordinator_ = nullptr;
  mutable Mutex mutex_;
  CondVar changed_;
  bool interrupted_ TROTH_GUARDED_BY(mutex_) = false;
  std::vector<Event> answers_ TROTH_GUARDED_BY(mutex_);
};

}  // namespace troth
