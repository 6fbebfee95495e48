// The commit protocol: two-phase commit, presumed abort, as a pure machine. Step takes one
// event and says what to do; no clock, socket, disk, thread or random number in here.
// docs/protocol.md states the laws (L1-L15) that the code below refers to.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "coordinator/commit_protocol_views.h"
#include "coordinator/lease_book.h"
#include "coordinator/protocol_actions.h"
#include "coordinator/protocol_events.h"
#include "coordinator/registry.h"
#include "recovery/in_doubt.h"
#include "recovery/recovered_state.h"

namespace troth {

struct ProtocolOptions {
  std::string coordinator_id;            // `<name>-<mark>`, from the log
  std::int64_t lease_ms = 30'000;        // also the longest a transaction may last
  std::uint32_t reserve_block = 10'000;  // sequences reserved in the log ahead of leasing
  std::uint32_t max_branches = 64;
  std::uint32_t max_undecided = 100'000;       // in all
  std::uint32_t max_unacknowledged = 100'000;  // per participant
  std::uint64_t max_leased = 10'000'000;       // ids in live leases: 5 bytes of memory each
  std::int64_t retry_min_ms = 1;
  std::int64_t retry_max_ms = 1'000;        // L8
  std::int64_t awaited_retry_max_ms = 100;  // of a finish that a client waits for
  std::int64_t hear_ms = 10'000;  // answers from absence wait so long for silent participants
  bool early_prepare = true;
  bool read_only = true;
  Retention retention;
};

class CommitProtocol {
 public:
  struct Counters {
    std::uint64_t committed = 0;
    std::uint64_t aborted = 0;
    std::uint64_t read_only = 0;
    std::uint64_t early_votes = 0;
    std::uint64_t prepares_sent = 0;
    std::uint64_t finishes_sent = 0;
    std::uint64_t retries = 0;
    std::uint64_t inquiries = 0;
    std::uint64_t heuristics = 0;
    std::uint64_t hazards = 0;
    std::map<Reason, std::uint64_t> aborted_by_reason;
  };

  // Takes over what the log says. `epoch_random` tells this life from another of the same
  // number; `last_batch` is where the log ended before it was opened (law L7d). Time starts
  // at state.running_ms().
  CommitProtocol(ProtocolOptions options, RecoveredState state, std::uint32_t epoch_random,
                 std::uint64_t last_batch);

  // Begins the epoch: to be called once, before any Step. Nothing is served until the epoch's
  // record is durable.
  void Start(Actions* actions);

  // Takes one event into account and appends what is to be done, in order.
  void Step(const Event& event, Actions* actions);

  // When TimePassed is wanted next, at the latest.
  RunningMs NextTimer() const;

  // ---- For status pages and tests; change nothing.
  const Epoch& epoch() const { return epoch_; }
  RunningMs now() const { return now_; }
  bool serving() const { return serving_; }
  bool draining() const { return draining_; }
  bool log_full() const { return !log_room_; }
  const std::string& suspicion() const { return registry_.Suspicion(); }
  std::uint64_t durable_batch() const { return durable_batch_; }
  // Every id below is of an ended epoch or lease, and not in flight.
  LocalId lease_line() const;
  std::size_t undecided() const { return undecided_; }
  std::size_t unacknowledged() const { return transactions_.size() - undecided_; }
  const Counters& counters() const { return counters_; }
  const Registry& registry() const { return registry_; }
  const RecoveredState& state() const { return state_; }
  // What it knows of a transaction, one line; stable.
  std::string DebugString(const LocalId& id) const;
  // What an inquiry after the id would be answered (in_doubt.h).
  InDoubtAnswer Resolve(const TransactionId& id) const;
  // Of those in memory: undecided, or decided and not acknowledged. List: by id, at most `limit`.
  std::optional<TransactionView> Find(const LocalId& id) const;
  std::vector<TransactionView> List(std::size_t limit) const;
  // Checks what must hold between any two steps; dies if it does not.
  void CheckInvariants() const;
  // For exhaustive search: a machine that behaves the same from here on, and bytes that are
  // equal when two machines do. Times are relative in them; left out are counters, positions
  // (they matter against reports only) and the book of decisions (the log says what is in it).
  std::unique_ptr<CommitProtocol> Clone() const;
  void AppendSituation(std::string* out) const;

  CommitProtocol(CommitProtocol&&) = default;

 private:
  CommitProtocol(const CommitProtocol& other);

  enum class State : std::uint8_t { kPreparing, kDeciding, kCommitted };
  enum class BranchState : std::uint8_t {
    kIdle,         // no vote; prepare not sent, its call lost, or the work was still under way
    kPrepareSent,  // no vote yet
    kReadOnly,     // voted read-only: over
    kPrepared,     // voted prepared; finish not sent, or its call was lost
    kFinishSent,
    kAcknowledged,
  };
  struct Branch {
    BranchRecord evidence;  // participant always; the rest once prepared
    BranchState state = BranchState::kIdle;
    bool read_only = false;
    bool otherwise = false;  // acknowledged, and not as decided (or nobody knows)
    std::uint32_t works = 0;
    std::uint32_t retry_ms = 0;
    std::string mark;
    std::string instance;
  };
  struct Waiter {
    ReplyToken token = 0;
    enum Kind : std::uint8_t { kDecided, kApplied, kOutcome } kind = kDecided;
    RunningMs until = 0;
  };
  struct Transaction {
    State state = State::kPreparing;
    std::uint32_t list = 0;     // fingerprint of the participant list
    std::uint32_t missing = 0;  // votes, then acknowledgements
    RunningMs began = 0;
    RunningMs deadline = 0;
    std::vector<Branch> branches;
    std::vector<Waiter> waiters;
    std::string key;
  };
  using Transactions = std::unordered_map<LocalId, Transaction>;
  // What happens when record `number` is durable.
  struct Undurable {
    std::uint64_t number = 0;
    LogRecord record;
    ReplyToken token = 0;
    std::string instance;  // enrolments: who is to be connected
  };
  struct Timer {
    enum Kind : std::uint8_t { kDeadline, kRetry, kOfFormerDatabase } kind = kDeadline;
    LocalId id;
    ParticipantIndex participant = 0;
  };
  struct WaitingLease {
    ReplyToken token;
    std::uint32_t count;
  };

  // Events.
  void On(const CommitAsked& e);
  void On(const AbortAsked& e);
  void On(const OutcomeAsked& e);
  void On(const KeyAsked& e);
  void On(const LeaseAsked& e);
  void On(const EnrolmentAsked& e);
  void On(const Inquired& e);
  void On(const VoteArrived& e);
  void On(const FinishArrived& e);
  void On(const ParticipantUp& e);
  void On(const ParticipantDown& e);
  void On(const RecordsDurable& e);
  void On(const LogRoom& e);
  void On(const TimePassed& e);
  void On(const DrainAsked& e);
  void On(const ForgetAsked& e);
  void On(const RebindAsked& e);
  void On(const AcceptGapAsked& e);
  void On(const DiscardReportAsked& e);
  void On(const HeuristicAsked& e);

  // Commit, in the order in which it happens.
  bool AnswerRepeated(const CommitAsked& e, std::uint32_t list);
  bool RefuseNew(const CommitAsked& e);
  void BeginPreparing(const CommitAsked& e, std::uint32_t list);
  bool TakeVote(Transactions::iterator tx, Branch* branch, const BranchVote& vote);
  void BecomeAborted(Transactions::iterator tx, const Refusal& refusal);
  void BecomeReadOnly(Transactions::iterator tx);
  void BecomeDeciding(Transactions::iterator tx);
  void BecomeCommitted(const CommitRecord& record);
  void BecomeEnded(Transactions::iterator tx);
  void OnDeadline(Transactions::iterator tx);
  void AnswerOverdueWaiters(Transactions::iterator tx);
  void SendPrepareTo(const LocalId& id, const Transaction& tx, Branch* branch);
  void SendFinishTo(const LocalId& id, const Transaction& tx, Branch* branch);
  void OnDurable(const Undurable& u);

  // Replies.
  void ReplyCommitted(const LocalId& id, const Transaction* tx, ReplyToken token);
  void ReplyKind(ReplyToken token, OutcomeKind kind, const LocalId& id, Refusal refusal = {});
  void Refuse(ReplyToken token, Reason reason, std::string message, bool retryable = false);
  bool RefuseWithoutRoom(ReplyToken token);
  void ReplyResolved(ReplyToken token, const TransactionId& id);
  void AddWaiter(Transactions::iterator tx, Waiter waiter);
  void ServeLeases();

  // Knowledge.
  bool LogWhole() const;
  bool InLiveLease(const LocalId& id) const;
  void BeginServing();
  // Why no other transaction may bear this key, to follow its name; empty: one may.
  std::string HolderOf(const std::string& key) const;
  TransactionId Full(const LocalId& id) const { return {options_.coordinator_id, id}; }
  Branch* FindBranch(Transaction* tx, ParticipantIndex participant);
  TransactionView ViewOf(const LocalId& id, const Transaction& tx) const;
  std::uint64_t Append(LogRecord record, bool force, ReplyToken token = 0,
                       std::string instance = {});
  void At(RunningMs when, Timer timer);
  void ForgetIdleTimers();
  void ReserveAhead();

  const ProtocolOptions options_;
  RecoveredState state_;
  const std::uint64_t last_batch_;
  Epoch epoch_;
  Registry registry_;
  LeaseBook leases_;
  Transactions transactions_;  // in flight, and committed but not ended
  std::size_t undecided_ = 0;
  std::map<std::string, LocalId, std::less<>> keys_in_flight_;
  std::set<std::string, std::less<>> keys_closing_;
  std::deque<Undurable> undurable_;
  std::uint64_t appended_ = 0;  // records handed to the log since opening
  std::uint64_t durable_batch_ = 0;
  std::uint64_t reserve_asked_ = 0;
  std::deque<WaitingLease> waiting_leases_;
  std::map<RunningMs, std::vector<Timer>> timers_;
  RunningMs now_ = 0, started_at_ = 0, retained_at_ = 0;
  std::int64_t unix_ms_ = 0;
  bool started_ = false;
  bool serving_ = false;
  bool draining_ = false;
  bool log_room_ = true;
  Counters counters_;
  Actions* out_ = nullptr;  // of the step under way
};

}  // namespace troth
