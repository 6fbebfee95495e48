// BranchTable: the rules of a participant. Which work may be done, which branch may be prepared,
// what a finish does to it, and when a branch is rolled back (docs/protocol.md, "States", and
// "Laws" L8-L13). Knows neither wire nor PostgreSQL nor time: it drives a ResourceManager and is
// given a clock and random numbers, so that the simulator runs this very code.
#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "common/clock.h"
#include "common/thread_annotations.h"
#include "common/transaction_id.h"
#include "participant/branch_counts.h"
#include "participant/refusal.h"
#include "participant/resource_manager.h"

namespace troth {

struct BranchTableOptions {
  std::string participant;
  std::string instance;  // random, of this process
  // Branches open, being prepared, prepared or found prepared, together. One more is refused.
  std::size_t max_in_doubt = 200;
  // No transaction lasts longer than a lease; so long an ended id is remembered.
  std::chrono::milliseconds lease{30'000};
  std::size_t max_ended = 1'000'000;
};

// A piece of work that asks to be let in; as the Context of the wire.
struct WorkRequest {
  std::string transaction_id;
  int work = 0;
  std::chrono::milliseconds time_left{0};
  std::string mark;  // empty in work 0
  Isolation isolation = Isolation::kDefault;
  bool read_only = false;
  bool one_statement = false;  // of work 0: see BeginOptions::with_first_statement
  bool last = false;           // with one_statement: see BeginOptions::prepare_with_statement
  std::string label;           // of work 0: see BeginOptions::label
  // Of work 0: how long it waits for the branches in doubt to become fewer, and for a connection,
  // together. Refusing at once would have the work at other participants done for nothing, and
  // again; who waits leaves the processor to what makes room.
  std::chrono::milliseconds patience{0};
};

// Work that was let in. It must be given back to EndWork, exactly once.
struct Work {
  std::string transaction_id;
  Session* session = nullptr;
};

struct Vote {
  enum class Kind { kPrepared, kReadOnly, kRefused, kWorking };
  Kind kind = Kind::kWorking;
  int works = 0;
  Evidence evidence;  // kPrepared
  Refusal refusal;    // kRefused
};

// What the caller is told of a branch after work.
struct WorkReply {
  std::string mark;
  int works = 0;
  std::optional<Vote> vote;  // after the last work of an early prepare
};

struct PrepareRequest {
  std::string transaction_id;
  std::string mark;
  int works = 0;
  std::chrono::milliseconds time_left{0};
  std::string instance;
};

struct FinishRequest {
  std::string transaction_id;
  bool commit = false;
  std::optional<Evidence> evidence;  // required for commit
  // The xid (32 low bits) that the sweep saw prepared just now: an abort touches no other, and
  // what is remembered of the id does not spare the look.
  std::optional<std::uint32_t> seen_xid;
};

// For status and metrics.
struct BranchInfo {
  std::string transaction_id;
  std::string state;
  std::chrono::milliseconds age{0};
};

// Thread-safe monitor. One thing at a time happens to an id; calls about different ids do not
// wait for each other. While the resource manager works, the monitor is free.
class BranchTable {
 public:
  using Random = std::function<std::uint64_t()>;

  // `resource_manager` and `clock` outlive the table.
  BranchTable(BranchTableOptions options, ResourceManager* resource_manager, Clock* clock,
              Random random);
  ~BranchTable();
  BranchTable(const BranchTable&) = delete;
  BranchTable& operator=(const BranchTable&) = delete;

  // Lets work in, or says why not. Work 0 must find no branch and the id not ended, opens a
  // block (ResourceManager::Begin) and draws the mark. Work n must bring the mark, find n done,
  // none under way and no failure. A refusal leaves a branch that exists as it was.
  Granted<Work> StartWork(const WorkRequest& request);

  // Ends work. `failure` set: the branch is rolled back now, and work and prepare are refused
  // until it is aborted; that refusal is returned. Without it the session is looked at
  // (Session::Broken) and the piece is counted. With `last` the branch is prepared too, which
  // waits until the database has answered or the deadline has passed; a refused vote is
  // returned as its refusal. What was prepared with its only statement, and must not be, is rolled
  // back: it was not voted for yet.
  Granted<WorkReply> EndWork(const Work& work, std::optional<Refusal> failure, bool last);

  // Votes, in order. Waits at most `wait`; a branch that is slower votes kWorking and goes on:
  // ask again. A repeated prepare gets the same vote. kRefused binds: the branch is rolled back
  // and the id ended.
  std::vector<Vote> Prepare(std::span<const PrepareRequest> requests,
                            std::chrono::milliseconds wait);

  // Settles, in order. Waits at most `wait`. An abort cancels work under way, rolls back an
  // open branch, waits behind a PREPARE; it ends the id, even one never heard of, so that work
  // that comes late finds it ended. Safe to repeat.
  std::vector<FinishResult> Finish(std::span<const FinishRequest> requests,
                                   std::chrono::milliseconds wait);

  // Once a few hundred milliseconds at most: rolls back branches idle past their deadline,
  // cancels work past it, takes in the answers of slow PREPAREs, forgets old ended ids.
  void Tick();

  // `coordinator` (the first part of its ids) is in this epoch now. What an earlier one left open
  // can never commit (law L7a): it is rolled back at once, for it holds locks until its
  // deadline, and work 0 of those ids is refused. What is prepared stays in doubt.
  void EpochBegan(const std::string& coordinator, std::uint32_t epoch);

  // True when a prepared transaction of this id is being looked after here, so that the sweep
  // leaves it alone: open, being prepared or finished, or prepared less than `young` ago. Not when
  // the work in it is overdue.
  bool LooksAfter(const std::string& transaction_id, std::chrono::milliseconds young) const;
  // Told by the sweep, after each list of what the database holds prepared: the ids listed, when
  // the list was asked for, and how many of them nobody here looks after. A branch prepared
  // before and not listed was settled by another hand; its evidence tells if anybody asks.
  void Listed(const std::vector<std::string>& transaction_ids, std::int64_t asked_at_ms,
              std::size_t found);

  BranchCounts Counts() const;
  // At most `limit`, the oldest first.
  std::vector<BranchInfo> List(std::size_t limit) const;

  // From now on work 0 is refused (kNotServing); what has begun may end.
  void Drain();
  // Waits until there is no branch, at most `wait`.
  void AwaitNone(std::chrono::milliseconds wait);
  // Rolls back every open branch. For the end of the process.
  void RollbackAll();

 private:
  enum class State;
  struct Branch;
  struct Ended;
  // Sessions taken out of the table, to be rolled back or given back when the mutex is free.
  struct Leaving;

  Granted<Work> Open(WorkRequest request) TROTH_EXCLUDES(mutex_);
  void AwaitRoom(WorkRequest* request) TROTH_REQUIRES(mutex_);
  bool HasRoom() const TROTH_REQUIRES(mutex_) {
    return branches_.size() + found_ < options_.max_in_doubt;
  }
  Granted<Work> Continue(const WorkRequest& request) TROTH_EXCLUDES(mutex_);
  std::optional<Refusal> MayOpen(const WorkRequest& request) const TROTH_REQUIRES(mutex_);
  // The id is of an epoch that its coordinator has ended.
  bool OfEndedEpoch(const std::string& id) const TROTH_REQUIRES(mutex_);
  std::optional<Vote> StartPrepare(const PrepareRequest& request, std::vector<Branch*>* to_drive,
                                   Leaving* leaving) TROTH_REQUIRES(mutex_);
  void DrivePrepares(const std::vector<Branch*>& branches, std::chrono::milliseconds wait)
      TROTH_EXCLUDES(mutex_);
  void StartCancel(Branch* branch, Leaving* leaving) TROTH_REQUIRES(mutex_);
  FinishOrder RollBackOf(const std::string& id, const PrepareResult& result) const;
  void TakePrepared(Branch* branch, const PrepareResult& result, Leaving* leaving)
      TROTH_REQUIRES(mutex_);
  Vote VoteOf(const std::string& id) const TROTH_REQUIRES(mutex_);
  std::optional<FinishResult> StartFinish(const FinishRequest& request, FinishOrder* order,
                                          Leaving* leaving) TROTH_REQUIRES(mutex_);
  std::optional<FinishResult> StartAbort(const FinishRequest& request, FinishOrder* order,
                                         Leaving* leaving) TROTH_REQUIRES(mutex_);
  void TakeFinished(const FinishRequest& request, const FinishResult& result)
      TROTH_REQUIRES(mutex_);
  void FinishOnce(std::span<const FinishRequest> requests, std::chrono::milliseconds wait,
                  std::vector<FinishResult>* results) TROTH_EXCLUDES(mutex_);
  // Under-way work is told to end; an idle branch leaves at once, and its id is ended.
  void Doom(Branch* branch, const Refusal& why, Leaving* leaving) TROTH_REQUIRES(mutex_);
  void End(const std::string& id, const Ended& ended) TROTH_REQUIRES(mutex_);
  void ForgetOldEnded() TROTH_REQUIRES(mutex_);
  // Rolls back, cancels and gives back what is in `leaving`.
  void Leave(Leaving* leaving) TROTH_EXCLUDES(mutex_);
  std::string GidOf(const std::string& id) const;
  std::string NewMark() TROTH_REQUIRES(mutex_);

  const BranchTableOptions options_;
  ResourceManager* const resource_manager_;
  Clock* const clock_;

  mutable Mutex mutex_;
  const Random random_ TROTH_GUARDED_BY(mutex_);
  CondVar changed_;
  CondVar room_;  // HasRoom may have become true
  std::unordered_map<std::string, std::unique_ptr<Branch>> branches_ TROTH_GUARDED_BY(mutex_);
  std::unordered_map<std::string, Ended> ended_ TROTH_GUARDED_BY(mutex_);
  std::deque<std::pair<std::int64_t, std::string>> ended_order_ TROTH_GUARDED_BY(mutex_);
  std::size_t found_ TROTH_GUARDED_BY(mutex_) = 0;
  std::uint64_t heuristics_ TROTH_GUARDED_BY(mutex_) = 0;
  std::uint64_t hazards_ TROTH_GUARDED_BY(mutex_) = 0;
  std::uint64_t overloaded_ TROTH_GUARDED_BY(mutex_) = 0;
  bool draining_ TROTH_GUARDED_BY(mutex_) = false;
  std::map<std::string, std::uint32_t> epochs_ TROTH_GUARDED_BY(mutex_);  // by coordinator
};

}  // namespace troth
