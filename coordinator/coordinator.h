// The monitor around the commit protocol: takes the events that wait, steps the machine, hands
// records to the log, dispatches what is to be sent and answered. It has no opinion about the
// protocol. docs/architecture.md, "One thread at a time".
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <vector>

#include "common/clock.h"
#include "common/thread_annotations.h"
#include "coordinator/commit_protocol.h"
#include "coordinator/decision_log.h"
#include "coordinator/participant_channel.h"
#include "coordinator/timeline.h"

namespace troth {

// Takes the machine's replies to whoever waits. Called by whichever thread runs the machine;
// must not block, nor call the coordinator.
class ReplySink {
 public:
  virtual ~ReplySink() = default;
  // One of the Reply* actions; `token` is its token.
  virtual void Reply(ReplyToken token, Action reply) = 0;
  // All replies of a round have been told; a sink that gathers them hands them out now.
  virtual void EndOfRound() {}
};

// One thread at a time runs the machine, and none is kept for it: whoever brings an event and
// finds the machine idle runs it for all who wait. Events that arrive meanwhile are taken by
// the same thread in its next round, so that their records share a sync and their messages a
// call. Thread-safe; owns the machine, borrows the rest, which must outlive it.
class Coordinator {
 public:
  Coordinator(CommitProtocol protocol, Clock* clock, DecisionLog* log, ParticipantChannel* channel,
              ReplySink* replies);
  Coordinator(const Coordinator&) = delete;
  Coordinator& operator=(const Coordinator&) = delete;

  // Notes there what happens to transactions; it outlives this. Before Start.
  void Watch(Timeline* timeline) { timeline_ = timeline; }
  // Begins the epoch. Once, before anything else.
  void Start();

  // Brings events. On return they are stepped, or the thread that runs the machine now will
  // step them before it leaves. Never blocks for input or output.
  void Submit(Event event) TROTH_EXCLUDES(mutex_);
  void Submit(std::vector<Event> events) TROTH_EXCLUDES(mutex_);
  // As Submit in two halves, for who orders events by a lock of its own that the machine's
  // round takes too (the channel's): Enqueue under that lock, Lead after letting go of it.
  void Enqueue(Event event) TROTH_EXCLUDES(mutex_);
  void Lead() TROTH_EXCLUDES(mutex_);

  // Makes durable what was handed over, unless somebody does already (then returns ok at once).
  // Blocks for one write and sync. An error is the end of this process (law L15): nothing was
  // told of the records concerned, and nothing ever may be. `mark`: see DecisionLog.
  Status FlushLog(bool mark = false);
  // Somebody waits for a record to be durable, and no flush is under way. (End records wait for
  // the next flush that somebody needs.)
  bool FlushDue() const { return forced_.load() > durable_.load() && !flushing_.load(); }
  // The two halves of FlushLog, for the simulator, which lets things happen in between.
  bool BeginFlush(bool mark = false);
  Status EndFlush();

  // The machine wants to be told of the time then (running time of this coordinator).
  RunningMs NextTimer() const TROTH_EXCLUDES(mutex_);
  // Running time now: that of the log when it was opened, and what has passed since.
  RunningMs Now() const;
  // Steps TimePassed.
  void Tick();

  // Lets `look` see the machine between two steps. Short, please: commits wait.
  void Inspect(const std::function<void(const CommitProtocol&)>& look) TROTH_EXCLUDES(mutex_);

  // Waits until no transaction is under way, at most for `limit`; returns how many are.
  std::size_t AwaitNone(std::chrono::milliseconds limit) TROTH_EXCLUDES(mutex_);

  // Durable batch of the log, for messages (law L7c).
  std::uint64_t durable_batch() const { return durable_batch_.load(std::memory_order_acquire); }
  const Epoch& epoch() const { return epoch_; }
  // Syncs of the log so far.
  std::uint64_t syncs() const { return syncs_.load(std::memory_order_relaxed); }

 private:
  void Run() TROTH_REQUIRES(mutex_);
  void StepAll(std::vector<Event>* events);
  void Dispatch();
  void Perform(Action* action);
  void TellRoom();
  template <typename EventOrAction>
  void Note(const EventOrAction& what) {
    if (timeline_ != nullptr) timeline_->Note(what);
  }

  Clock* const clock_;
  DecisionLog* const log_;
  ParticipantChannel* const channel_;
  ReplySink* const replies_;
  Timeline* timeline_ = nullptr;
  const std::int64_t opened_at_ms_;  // on the clock
  const RunningMs running_base_;
  const Epoch epoch_;

  mutable Mutex mutex_;
  CondVar idle_;
  bool running_ TROTH_GUARDED_BY(mutex_) = false;
  std::vector<Event> waiting_ TROTH_GUARDED_BY(mutex_);
  RunningMs next_timer_ TROTH_GUARDED_BY(mutex_) = 0;

  // Touched by the thread that has set running_, or under mutex_ while nobody has.
  CommitProtocol protocol_;
  std::vector<Event> round_;
  Actions actions_;
  bool told_room_ = true;
  RunningMs line_told_at_ = 0;

  std::atomic<std::uint64_t> durable_batch_{0};
  std::atomic<std::uint64_t> syncs_{0};
  std::uint64_t appended_ = 0;             // records handed over; of the running thread
  std::atomic<std::uint64_t> forced_{0};   // up to here somebody waits for records
  std::atomic<std::uint64_t> durable_{0};  // up to here they are durable
  std::atomic<bool> flushing_{false};      // between BeginFlush and EndFlush
};

}  // namespace troth
