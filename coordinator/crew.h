// The threads that wait for replies, and the work of the process that they do meanwhile: one
// of them at a time syncs the log, one reads what participants answer. A thread that comes with
// a commit and finds both free carries it through alone, without a wake-up in between; when it
// leaves, a waiting one takes its place (leader and followers). Knows no protocol.
// docs/architecture.md, "One thread at a time".
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <list>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include <pthread.h>
#include <semaphore.h>

#include "common/thread_annotations.h"
#include "coordinator/coordinator.h"
#include "coordinator/protocol_actions.h"
#include "coordinator/protocol_events.h"

namespace troth {

// What the crew needs of the channel: reading answers.
class AnswerSource {
 public:
  virtual ~AnswerSource() = default;
  // Calls are under way that nobody has read the answer of.
  virtual bool Outstanding() const = 0;
  // Waits for answers until `timeout_ms` has passed or Interrupt, and submits them.
  // One thread at a time.
  virtual void Poll(std::int64_t timeout_ms) = 0;
  // Makes the Poll under way return, or the next one.
  virtual void Interrupt() = 0;
};

// Thread-safe. Register and Await are for threads that bring an event and wait for its reply.
class Crew : public ReplySink {
 public:
  // One expected reply, on the stack of whoever waits.
  class Call {
   public:
    Call() { sem_init(&woken_, 0, 0); }
    ~Call() { sem_destroy(&woken_); }
    Call(const Call&) = delete;
    Call& operator=(const Call&) = delete;

   private:
    friend class Crew;
    Action reply_;
    bool done_ = false;
    bool promoted_ = false;  // was woken for a duty
    bool asleep_ = false;
    std::list<Call*>::iterator seat_;  // in waiting_, while asleep
    // Posted once each time it is taken out of waiting_, after the crew's mutex was given back:
    // who is woken would wait for that first, which is one more change of threads for each reply.
    // A condition variable can't be signalled so (the call may be gone), and std::binary_semaphore
    // yields the processor four times before it sleeps.
    sem_t woken_;
  };

  // `on_fatal` is told when the log failed (law L15) and must not return.
  explicit Crew(std::function<void(const Status&)> on_fatal);
  ~Crew() override;

  // Sets to work; starts the keeper, the thread of last resort: it serves time, and what is
  // under way while nobody waits.
  void Start(Coordinator* coordinator, AnswerSource* answers);
  // Ends the keeper; every call that still waits returns without a reply. Later replies are
  // dropped.
  void Stop() TROTH_EXCLUDES(mutex_);

  // The token for events whose reply `call` shall get.
  static ReplyToken TokenOf(Call* call) { return reinterpret_cast<ReplyToken>(call); }
  // Waits for the reply, working meanwhile. None: the crew stopped, and what became of the event
  // is not known. That is no refusal, which would say that nothing was done.
  std::optional<Action> Await(Call* call) TROTH_EXCLUDES(mutex_);

  // To be called after events were submitted by a thread that does not Await.
  void Nudge() TROTH_EXCLUDES(mutex_);

  // ReplySink.
  void Reply(ReplyToken token, Action reply) override;
  void EndOfRound() override TROTH_EXCLUDES(mutex_);

 private:
  bool WorkOnce(Call* call) TROTH_REQUIRES(mutex_);
  bool DutiesOpen() const TROTH_REQUIRES(mutex_);
  // To be woken, when the mutex is free, by Wake; null: nobody.
  Call* Promote() TROTH_REQUIRES(mutex_);
  Call* Raise(Call* call) TROTH_REQUIRES(mutex_);
  static void Wake(Call* call);
  void KeeperLoop() TROTH_EXCLUDES(mutex_);

  const std::function<void(const Status&)> on_fatal_;
  Coordinator* coordinator_ = nullptr;
  AnswerSource* answers_ = nullptr;

  // Of the round under way; of the thread that runs the machine.
  std::vector<std::pair<Call*, Action>> replies_;
  std::vector<Call*> woken_;

  mutable Mutex mutex_;
  std::list<Call*> waiting_ TROTH_GUARDED_BY(mutex_);  // asleep; the oldest first
  int promoted_ TROTH_GUARDED_BY(mutex_) = 0;          // woken for a duty, and not there yet
  bool flushing_ TROTH_GUARDED_BY(mutex_) = false;
  bool polling_ TROTH_GUARDED_BY(mutex_) = false;
  Call* poller_ TROTH_GUARDED_BY(mutex_) = nullptr;       // whose thread polls; null: the keeper's
  pthread_t poller_thread_ TROTH_GUARDED_BY(mutex_) = 0;  // of poller_, if that is a call's
  RunningMs poll_until_ TROTH_GUARDED_BY(mutex_) = 0;
  RunningMs polled_at_ TROTH_GUARDED_BY(mutex_) = 0;  // when a poll last began, or was under way
  bool stopping_ TROTH_GUARDED_BY(mutex_) = false;
  bool keeper_wanted_ TROTH_GUARDED_BY(mutex_) = false;
  CondVar keeper_woken_;
  std::thread keeper_;
};

}  // namespace troth
