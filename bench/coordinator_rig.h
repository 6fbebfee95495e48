// A coordinator without the network behind it: the real machine, monitor, crew and log (real
// writes, real fdatasync), and participants that vote and acknowledge in memory, at once.
// Refuses to know who asks. docs/performance.md, "How it is measured".
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "common/thread_annotations.h"
#include "coordinator/coordinator.h"
#include "coordinator/crew.h"
#include "coordinator/file_decision_log.h"
#include "coordinator/participant_channel.h"

namespace troth::bench {

// Participants as fast as they can be: what the machine sends in one round comes back as events
// of its next. Thread-safe as far as the seam asks for it.
class LoopbackChannel : public ParticipantChannel, public AnswerSource {
 public:
  void Start(Coordinator* coordinator) { coordinator_ = coordinator; }
  // From now on no prepare is answered: transactions stay undecided.
  void FallSilent() { silent_ = true; }

  // ParticipantChannel; all by the thread that runs the machine.
  void Connect(const struct Connect& to) override;
  void Disconnect(ParticipantIndex) override {}
  void Send(const SendPrepare& prepare) override;
  void Send(const SendFinish& finish) override;
  void Push() override;

  // AnswerSource: there is nothing to read, only time to wait for.
  bool Outstanding() const override { return false; }
  void Poll(std::int64_t timeout_ms) override TROTH_EXCLUDES(mutex_);
  void Interrupt() override TROTH_EXCLUDES(mutex_);

 private:
  Coordinator* coordinator_ = nullptr;
  std::atomic<bool> silent_{false};
  std::vector<Event> answers_;  // of the thread that runs the machine

  Mutex mutex_;
  CondVar changed_;
  bool interrupted_ TROTH_GUARDED_BY(mutex_) = false;
};

// One coordinator life over a log directory. Started by Open, stopped by the destructor.
class CoordinatorRig {
 public:
  struct Options {
    std::string directory;         // of the log; made when it is absent
    int participants = 2;          // named p0, p1, ...
    ReplySink* replies = nullptr;  // null: the crew's
    WalOptions wal;
    ProtocolOptions machine;  // the id is the log's
  };
  // Makes the log if there is none, opens it, begins an epoch, enrols the participants.
  // An error says why the log cannot be opened.
  static Result<std::unique_ptr<CoordinatorRig>> Open(Options options);
  ~CoordinatorRig();

  const std::string& id() const { return id_; }
  Coordinator& coordinator() { return *coordinator_; }
  Crew& crew() { return crew_; }
  LoopbackChannel& channel() { return channel_; }
  const Wal& wal() const { return log_->wal(); }
  const std::vector<std::string>& names() const { return names_; }

  // Brings an event, waits for its reply. With the crew's replies only.
  template <typename E>
  Action Ask(E event) {
    Crew::Call call;
    event.token = Crew::TokenOf(&call);
    coordinator_->Submit(Event(std::move(event)));
    return crew_.Await(&call).value();
  }
  // The commit of transaction `local` over the first `branches` participants.
  CommitAsked CommitOf(const LocalId& local, int branches, bool wait_applied) const;

 private:
  explicit CoordinatorRig(const Options& options);
  void AwaitParticipants();

  std::string id_;
  std::vector<std::string> names_;
  LoopbackChannel channel_;
  Crew crew_;
  std::unique_ptr<FileDecisionLog> log_;
  std::unique_ptr<Coordinator> coordinator_;
};

}  // namespace troth::bench
