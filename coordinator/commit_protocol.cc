// See commit_protocol.h. This file is the life of a transaction, from commit asked to ended;
// commit_protocol_book.cc is what surrounds it: leases, registry, answers, status.
#include "coordinator/commit_protocol.h"

#include <algorithm>
#include <functional>
#include <set>

#include "common/check.h"
#include "common/mark.h"

namespace troth {
namespace {

// Longest mark or instance of a claim: what participants make is shorter.
constexpr std::size_t kMaxMarkBytes = 64;

// Of branches whose database went away, so many are recorded in a step: within the room that the
// log keeps beside commits.
constexpr std::size_t kOfFormerDatabaseAtOnce = 64;

// Fingerprint of a participant list, whatever its order. Never 0.
std::uint32_t Fingerprint(const std::vector<BranchClaim>& branches) {
  std::uint32_t sum = 1;
  for (const BranchClaim& branch : branches) {
    std::uint32_t hash = 2166136261u;
    auto mix = [&hash](std::string_view text) {
      for (unsigned char c : text) hash = (hash ^ c) * 16777619u;
      hash = (hash ^ 0x100u) * 16777619u;
    };
    mix(branch.participant);
    mix(branch.mark);
    mix(std::to_string(branch.works));
    sum += hash;
  }
  return sum == 0 ? 1 : sum;
}

bool NamedTwice(const std::vector<BranchClaim>& branches) {
  for (std::size_t i = 0; i < branches.size(); ++i) {
    for (std::size_t j = 0; j < i; ++j) {
      if (branches[i].participant == branches[j].participant) return true;
    }
  }
  return false;
}

}  // namespace

// ------------------------------------------------------------------- commit asked, or again

void CommitProtocol::On(const CommitAsked& e) {
  const std::uint32_t list = Fingerprint(e.branches);
  if (AnswerRepeated(e, list)) return;
  if (RefuseNew(e)) return;
  BeginPreparing(e, list);
}

// True when the id is not one that may begin now: it is answered from what is known of it.
bool CommitProtocol::AnswerRepeated(const CommitAsked& e, std::uint32_t list) {
  if (e.id.coordinator != options_.coordinator_id) {
    Refuse(e.token, Reason::kNotMine,
           "transaction " + e.id.ToString() + " is not of coordinator " + options_.coordinator_id);
    return true;
  }
  const LocalId& id = e.id.local;
  auto other_list = [&](std::uint32_t bound) {
    if (bound == 0 || bound == list) return false;
    Refuse(e.token, Reason::kOtherParticipants,
           "another participant list is bound to " + e.id.ToString() +
               "; nothing was changed. Repeat the commit with the first list");
    return true;
  };
  if (auto tx = transactions_.find(id); tx != transactions_.end()) {
    if (!other_list(tx->second.list)) {
      AddWaiter(tx,
                Waiter{e.token, e.wait_applied ? Waiter::kApplied : Waiter::kDecided, e.deadline});
    }
    return true;
  }
  if (id.epoch == epoch_ && (id.sequence == 0 || id.sequence >= leases_.next())) {
    Refuse(e.token, Reason::kNotLeased, "transaction id " + e.id.ToString() + " was never leased");
    return true;
  }
  if (!InLiveLease(id)) {
    TROTH_MARK("commit-after-the-lease-or-epoch");
    ReplyResolved(e.token, e.id);
    return true;
  }
  if (leases_.MarkOf(id.sequence) == LeaseBook::Mark::kUnheard) return false;
  if (!other_list(leases_.ListOf(id.sequence))) ReplyResolved(e.token, e.id);
  return true;
}

// True when the commit cannot begin. A refusal leaves the id unheard.
bool CommitProtocol::RefuseNew(const CommitAsked& e) {
  if (!serving_ || draining_ || !registry_.Suspicion().empty()) {
    const std::string why = draining_   ? "the coordinator is draining"
                            : !serving_ ? "the coordinator is opening its log"
                                        : registry_.Suspicion();
    Refuse(e.token, Reason::kNotServing, why, /*retryable=*/true);
    return true;
  }
  if (e.branches.empty() || e.branches.size() > options_.max_branches || NamedTwice(e.branches)) {
    Refuse(e.token, Reason::kInvalid,
           "a commit names 1 to " + std::to_string(options_.max_branches) +
               " branches, each participant once; this one names " +
               std::to_string(e.branches.size()));
    return true;
  }
  if (e.key.size() > kMaxBusinessKeyBytes) {
    Refuse(e.token, Reason::kInvalid,
           "a business key has at most " + std::to_string(kMaxBusinessKeyBytes) +
               " bytes; this one has " + std::to_string(e.key.size()));
    return true;
  }
  for (const BranchClaim& branch : e.branches) {
    if (branch.mark.size() > kMaxMarkBytes || branch.instance.size() > kMaxMarkBytes) {
      Refuse(e.token, Reason::kInvalid,
             "a mark, or an instance, has at most " + std::to_string(kMaxMarkBytes) + " bytes");
      return true;
    }
    const Registry::Participant* participant = registry_.FindDurable(branch.participant);
    if (participant == nullptr) {
      Refuse(e.token, Reason::kUnknownParticipant,
             "participant '" + branch.participant + "' is not registered here");
      return true;
    }
    if (participant->unacknowledged >= options_.max_unacknowledged) {
      Refuse(e.token, Reason::kOverloaded,
             "participant '" + branch.participant + "' owes " +
                 std::to_string(participant->unacknowledged) + " acknowledgements",
             true);
      return true;
    }
    if ((branch.read_only && !options_.read_only) ||
        (branch.carries_vote && !options_.early_prepare)) {
      Refuse(e.token, Reason::kInvalid, "this path is switched off at the coordinator");
      return true;
    }
  }
  if (undecided_ >= options_.max_undecided) {
    Refuse(e.token, Reason::kOverloaded,
           std::to_string(undecided_) + " transactions are undecided already", true);
    return true;
  }
  return false;
}

void CommitProtocol::BeginPreparing(const CommitAsked& e, std::uint32_t list) {
  const LocalId& id = e.id.local;
  auto [tx, inserted] = transactions_.try_emplace(id);
  TROTH_CHECK(inserted);
  ++undecided_;
  tx->second.list = list;
  tx->second.began = now_;
  tx->second.deadline = std::min(e.deadline, leases_.EndOf(id.sequence));
  tx->second.missing = static_cast<std::uint32_t>(e.branches.size());
  leases_.Set(id.sequence, LeaseBook::Mark::kInFlight, list);
  tx->second.branches.reserve(e.branches.size());
  for (const BranchClaim& claim : e.branches) {
    Branch& branch = tx->second.branches.emplace_back();
    branch.evidence.participant = registry_.FindDurable(claim.participant)->record.index;
    branch.read_only = claim.read_only;
    branch.works = claim.works;
    branch.mark = claim.mark;
    branch.instance = claim.instance;
  }
  AddWaiter(tx, Waiter{e.token, e.wait_applied ? Waiter::kApplied : Waiter::kDecided, e.deadline});

  if (!e.key.empty()) {
    if (const std::string holder = HolderOf(e.key); !holder.empty()) {
      BecomeAborted(
          tx, Refusal{Reason::kKeyTaken, false, "business key '" + e.key + "' " + holder, "", ""});
      return;
    }
    tx->second.key = e.key;
    keys_in_flight_.emplace(e.key, id);
  }
  if (tx->second.deadline <= now_) {
    BecomeAborted(tx, Refusal{Reason::kDeadline, true, "the deadline had passed", "", ""});
    return;
  }
  if (tx->second.deadline != e.deadline) {
    At(tx->second.deadline, Timer{Timer::kDeadline, id, 0});
  }
  // Ask all that carry no vote first: one carried vote may end the transaction.
  for (std::size_t i = 0; i < e.branches.size(); ++i) {
    if (!e.branches[i].carries_vote) SendPrepareTo(id, tx->second, &tx->second.branches[i]);
  }
  for (std::size_t i = 0; i < e.branches.size(); ++i) {
    if (!e.branches[i].carries_vote) continue;
    ++counters_.early_votes;
    BranchVote vote = e.branches[i].vote;
    if (!e.branches[i].authentic) {
      TROTH_MARK("carried-vote-not-of-this-epoch");
      vote.ballot = Ballot::kRefused;
      vote.refusal = Refusal{
          Reason::kForbidden, false,
          "the vote carried for '" + e.branches[i].participant + "' does not bear this epoch's mac",
          "", ""};
    }
    if (!TakeVote(tx, &tx->second.branches[i], vote)) return;  // ended: tx is gone
  }
}

// ----------------------------------------------------------------------------------- voting

void CommitProtocol::On(const VoteArrived& e) {
  auto tx = transactions_.find(e.id);
  if (tx == transactions_.end()) {
    // Late: the transaction ended without this vote. If it was aborted, the branch is prepared
    // in vain and is released now rather than when its participant asks.
    TROTH_MARK("vote-after-the-end");
    const bool prepared = e.vote.ballot == Ballot::kPrepared;
    if (prepared && Resolve(Full(e.id)) == InDoubtAnswer::kAborted &&
        registry_.at(e.participant).up) {
      out_->push_back(SendFinish{e.participant, e.id, false, 0, 0, 0, ""});
      ++counters_.finishes_sent;
    }
    return;
  }
  Branch* branch = FindBranch(&tx->second, e.participant);
  if (branch == nullptr || tx->second.state != State::kPreparing || branch->mark != e.mark) return;
  if (branch->state != BranchState::kPrepareSent && branch->state != BranchState::kIdle) return;
  TakeVote(tx, branch, e.vote);
}

// Returns false when the transaction left kPreparing for an end without a decision: `tx` is
// then gone. Law L2.
bool CommitProtocol::TakeVote(Transactions::iterator tx, Branch* branch, const BranchVote& vote) {
  const Registry::Participant& participant = registry_.at(branch->evidence.participant);
  auto refuse = [&](Reason reason, bool retryable, std::string message, std::string sqlstate) {
    // A branch that refused is rolled back already: nothing to send there.
    if (vote.ballot == Ballot::kRefused) branch->state = BranchState::kAcknowledged;
    BecomeAborted(tx, Refusal{reason, retryable, std::move(message), participant.record.name,
                              std::move(sqlstate)});
    return false;
  };
  switch (vote.ballot) {
    case Ballot::kWorking:
      TROTH_MARK("vote-not-there-yet");
      branch->state = BranchState::kIdle;
      branch->retry_ms = std::min<std::uint32_t>(
          std::max<std::uint32_t>(branch->retry_ms * 2, options_.retry_min_ms),
          options_.retry_max_ms);
      At(now_ + branch->retry_ms, Timer{Timer::kRetry, tx->first, branch->evidence.participant});
      return true;
    case Ballot::kRefused:
      return refuse(vote.refusal.reason, vote.refusal.retryable, vote.refusal.message,
                    vote.refusal.sqlstate);
    case Ballot::kReadOnly:
      if (!branch->read_only) {
        return refuse(Reason::kInvalid, false, "voted read-only without having been declared so",
                      "");
      }
      branch->state = BranchState::kReadOnly;
      break;
    case Ballot::kPrepared:
      if (vote.database != participant.record.database || vote.xid == 0) {
        return refuse(Reason::kNameTaken, false,
                      "voted for another database than the one its name is bound to", "");
      }
      branch->evidence = BranchRecord{branch->evidence.participant, vote.database, vote.xid,
                                      vote.timeline, vote.position};
      branch->state = BranchState::kPrepared;
      break;
  }
  if (vote.works != branch->works) {
    return refuse(Reason::kOutOfNumber, false,
                  "did " + std::to_string(vote.works) + " pieces of work, the client counts " +
                      std::to_string(branch->works),
                  "");
  }
  branch->retry_ms = 0;
  TROTH_CHECK(tx->second.missing > 0);
  if (--tx->second.missing > 0) return true;

  const auto& branches = tx->second.branches;
  if (std::all_of(branches.begin(), branches.end(),
                  [](const Branch& b) { return b.state == BranchState::kReadOnly; })) {
    BecomeReadOnly(tx);
    return false;
  }
  if (!log_room_) {
    TROTH_MARK("all-voted-and-no-room");
    BecomeAborted(tx, Refusal{Reason::kNotServing, true, kNoRoom, "", ""});
    return false;
  }
  if (!registry_.Suspicion().empty()) {
    BecomeAborted(tx, Refusal{Reason::kNotServing, true, registry_.Suspicion(), "", ""});
    return false;
  }
  BecomeDeciding(tx);
  return true;
}

// -------------------------------------------------------------------------------- decisions

// Law L11: binds before anybody is told. From kPreparing only (law L4).
void CommitProtocol::BecomeAborted(Transactions::iterator tx, const Refusal& refusal) {
  TROTH_CHECK(tx->second.state == State::kPreparing);
  const LocalId id = tx->first;
  Transaction ended = std::move(tx->second);
  transactions_.erase(tx);
  --undecided_;
  if (!ended.key.empty()) keys_in_flight_.erase(ended.key);
  leases_.Set(id.sequence, LeaseBook::Mark::kAborted);
  ++counters_.aborted;
  ++counters_.aborted_by_reason[refusal.reason];
  for (Branch& branch : ended.branches) {
    const bool over =
        branch.state == BranchState::kReadOnly || branch.state == BranchState::kAcknowledged;
    // Presumed abort: nobody waits for these. A branch that does not hear of it asks.
    if (!over && registry_.at(branch.evidence.participant).up) {
      out_->push_back(SendFinish{branch.evidence.participant, id, false, 0, 0, 0, branch.instance});
      ++counters_.finishes_sent;
    }
  }
  for (const Waiter& waiter : ended.waiters) {
    ReplyKind(waiter.token, OutcomeKind::kAborted, id, refusal);
  }
}

void CommitProtocol::BecomeReadOnly(Transactions::iterator tx) {
  TROTH_CHECK(tx->second.state == State::kPreparing);
  const LocalId id = tx->first;
  Transaction ended = std::move(tx->second);
  transactions_.erase(tx);
  --undecided_;
  if (!ended.key.empty()) keys_in_flight_.erase(ended.key);
  leases_.Set(id.sequence, LeaseBook::Mark::kReadOnly);
  ++counters_.read_only;
  for (const Waiter& waiter : ended.waiters) {
    ReplyKind(waiter.token, OutcomeKind::kReadOnly, id);
  }
}

// Law L4: with the hand-over of its record the transaction is decided.
void CommitProtocol::BecomeDeciding(Transactions::iterator tx) {
  TROTH_CHECK(tx->second.state == State::kPreparing && tx->second.missing == 0);
  TROTH_CHECK(log_room_);
  tx->second.state = State::kDeciding;
  CommitRecord record{tx->first, {}, tx->second.key};
  record.branches.reserve(tx->second.branches.size());
  for (const Branch& branch : tx->second.branches) {
    if (branch.state != BranchState::kPrepared) continue;
    record.branches.push_back(branch.evidence);
    ++registry_.at(branch.evidence.participant).unacknowledged;
  }
  TROTH_CHECK(!record.branches.empty());
  Append(std::move(record), /*force=*/true);
}

// Law L5: the record is durable; only from here on anything tells of the commit.
void CommitProtocol::BecomeCommitted(const CommitRecord& record) {
  auto tx = transactions_.find(record.id);
  TROTH_CHECK(tx != transactions_.end() && tx->second.state == State::kDeciding);
  tx->second.state = State::kCommitted;
  --undecided_;
  ++counters_.committed;
  leases_.Set(record.id.sequence, LeaseBook::Mark::kCommitted);
  if (!tx->second.key.empty()) keys_in_flight_.erase(tx->second.key);

  tx->second.missing = static_cast<std::uint32_t>(record.branches.size());
  const auto stays = [this](const Waiter& waiter) {
    return waiter.kind == Waiter::kApplied && waiter.until > now_;
  };
  for (const Waiter& waiter : tx->second.waiters) {
    if (!stays(waiter)) ReplyCommitted(record.id, &tx->second, waiter.token);
  }
  std::erase_if(tx->second.waiters, std::not_fn(stays));
  for (Branch& branch : tx->second.branches) {
    if (branch.state == BranchState::kPrepared) SendFinishTo(record.id, tx->second, &branch);
  }
}

void CommitProtocol::On(const FinishArrived& e) {
  auto tx = transactions_.find(e.id);
  if (!e.commit || tx == transactions_.end() || tx->second.state != State::kCommitted) return;
  Branch* branch = FindBranch(&tx->second, e.participant);
  if (branch == nullptr ||
      (branch->state != BranchState::kPrepared && branch->state != BranchState::kFinishSent)) {
    return;  // acknowledged before
  }
  // What it found is written down before it is let go: without room it is asked again.
  const bool untold = e.finished != Finished::kDone && !log_room_;
  if (e.finished == Finished::kWorking || untold) {
    TROTH_MARK("finish-not-there-yet");
    branch->state = BranchState::kPrepared;
    const std::int64_t most =
        tx->second.waiters.empty() ? options_.retry_max_ms : options_.awaited_retry_max_ms;
    branch->retry_ms = static_cast<std::uint32_t>(std::clamp<std::int64_t>(
        branch->retry_ms * std::int64_t{2}, std::min(options_.retry_min_ms, most), most));
    At(now_ + branch->retry_ms, Timer{Timer::kRetry, e.id, e.participant});
    return;
  }
  if (e.finished != Finished::kDone) {
    TROTH_MARK("ended-otherwise-than-decided");
    branch->otherwise = true;
    const bool hazard = e.finished == Finished::kHazard;
    ++(hazard ? counters_.hazards : counters_.heuristics);
    Append(HeuristicRecord{e.id, e.participant, hazard, e.message, unix_ms_}, /*force=*/true);
  }
  branch->state = BranchState::kAcknowledged;
  auto& owed = registry_.at(e.participant).unacknowledged;
  TROTH_CHECK(owed > 0 && tx->second.missing > 0);
  --owed;
  if (--tx->second.missing == 0) BecomeEnded(tx);
}

void CommitProtocol::BecomeEnded(Transactions::iterator tx) {
  TROTH_CHECK(tx->second.state == State::kCommitted && tx->second.missing == 0);
  const LocalId id = tx->first;
  // A crash before this is durable finishes once more: harmless, and proven by evidence.
  Append(EndRecord{id}, /*force=*/false);
  for (const Waiter& waiter : tx->second.waiters) ReplyCommitted(id, &tx->second, waiter.token);
  transactions_.erase(tx);
}

// -------------------------------------------------------------------------------- durability

std::uint64_t CommitProtocol::Append(LogRecord record, bool force, ReplyToken token,
                                     std::string instance) {
  ++appended_;
  out_->push_back(AppendRecord{record, force});
  undurable_.push_back(Undurable{appended_, std::move(record), token, std::move(instance)});
  return appended_;
}

void CommitProtocol::On(const RecordsDurable& e) {
  TROTH_CHECK(e.batch >= durable_batch_);
  durable_batch_ = e.batch;
  while (!undurable_.empty() && undurable_.front().number <= e.up_to) {
    Undurable durable = std::move(undurable_.front());
    undurable_.pop_front();
    const Status applied = state_.Apply(durable.record, now_);
    TROTH_CHECK(applied.ok());
    OnDurable(durable);
  }
}

// ------------------------------------------------------------------------------------- abort

void CommitProtocol::On(const AbortAsked& e) {
  const LocalId& id = e.id.local;
  auto tx = transactions_.find(id);
  const bool ours = e.id.coordinator == options_.coordinator_id;
  if (!ours || (id.epoch == epoch_ && id.sequence >= leases_.next())) {
    Refuse(e.token, ours ? Reason::kNotLeased : Reason::kNotMine,
           "transaction " + e.id.ToString() + " was not leased by coordinator " +
               options_.coordinator_id);
    return;
  }
  const Refusal refusal{Reason::kApplication, false,
                        e.message.empty() ? "aborted by the application" : e.message, "", ""};
  if (tx != transactions_.end()) {
    if (tx->second.state == State::kPreparing) {
      BecomeAborted(tx, refusal);
      ReplyKind(e.token, OutcomeKind::kAborted, id, refusal);
    } else {
      // Decided: this abort comes too late, and hears the truth once it may be told.
      TROTH_MARK("abort-after-the-hand-over");
      AddWaiter(tx, Waiter{e.token, Waiter::kDecided, now_});
    }
    return;
  }
  if (!InLiveLease(id) || leases_.MarkOf(id.sequence) != LeaseBook::Mark::kUnheard) {
    ReplyResolved(e.token, e.id);
    return;
  }
  leases_.Set(id.sequence, LeaseBook::Mark::kAborted);
  ++counters_.aborted;
  ++counters_.aborted_by_reason[Reason::kApplication];
  std::set<ParticipantIndex> told;  // each once, however often a list names it
  for (const BranchClaim& claim : e.branches) {
    const Registry::Participant* participant = registry_.FindDurable(claim.participant);
    if (participant == nullptr || !participant->up) continue;
    if (!told.insert(participant->record.index).second) continue;
    out_->push_back(SendFinish{participant->record.index, id, false, 0, 0, 0, claim.instance});
    ++counters_.finishes_sent;
  }
  ReplyKind(e.token, OutcomeKind::kAborted, id, refusal);
}

// ----------------------------------------------------------------------- sending and retrying

void CommitProtocol::SendPrepareTo(const LocalId& id, const Transaction& tx, Branch* branch) {
  if (!registry_.at(branch->evidence.participant).up) return;  // ParticipantUp comes back to it
  branch->state = BranchState::kPrepareSent;
  ++counters_.prepares_sent;
  out_->push_back(SendPrepare{branch->evidence.participant, id, branch->mark, branch->instance,
                              branch->works, tx.deadline});
}

void CommitProtocol::SendFinishTo(const LocalId& id, const Transaction& tx, Branch* branch) {
  if (!registry_.at(branch->evidence.participant).up) return;  // ParticipantUp comes back to it
  if (branch->evidence.database != registry_.at(branch->evidence.participant).record.database) {
    // The evidence is of the database that the name meant before (law L13c): nothing there is ours.
    At(now_ + 1, Timer{Timer::kOfFormerDatabase, id, branch->evidence.participant});
    return;
  }
  branch->state = BranchState::kFinishSent;
  ++counters_.finishes_sent;
  out_->push_back(SendFinish{branch->evidence.participant, id, true, branch->evidence.xid,
                             branch->evidence.timeline, branch->evidence.position, branch->instance,
                             !tx.waiters.empty()});
}

// Law L8: a participant that comes back is served at once.
void CommitProtocol::On(const ParticipantUp& e) {
  registry_.at(e.participant).up = true;
  std::vector<LocalId> waiting;
  for (auto& [id, tx] : transactions_) {
    const Branch* branch = FindBranch(&tx, e.participant);
    if (branch != nullptr &&
        (branch->state == BranchState::kIdle || branch->state == BranchState::kPrepared)) {
      waiting.push_back(id);
    }
  }
  std::sort(waiting.begin(), waiting.end());
  for (const LocalId& id : waiting) {
    Transaction& tx = transactions_.at(id);
    Branch* branch = FindBranch(&tx, e.participant);
    if (tx.state == State::kPreparing && branch->state == BranchState::kIdle) {
      SendPrepareTo(id, tx, branch);
    } else if (tx.state == State::kCommitted) {
      SendFinishTo(id, tx, branch);
    }
  }
}

void CommitProtocol::On(const ParticipantDown& e) {
  registry_.at(e.participant).up = false;
  for (auto& [id, tx] : transactions_) {
    Branch* branch = FindBranch(&tx, e.participant);
    if (branch == nullptr) continue;
    if (branch->state == BranchState::kPrepareSent) branch->state = BranchState::kIdle;
    if (branch->state == BranchState::kFinishSent) branch->state = BranchState::kPrepared;
  }
}

void CommitProtocol::On(const TimePassed& e) {
  TROTH_CHECK(e.now >= now_);
  now_ = e.now;
  unix_ms_ = e.unix_ms;
  leases_.Expire(now_);
  std::size_t of_former_database = 0;
  while (!timers_.empty() && timers_.begin()->first <= now_) {
    const std::vector<Timer> due = std::move(timers_.begin()->second);
    timers_.erase(timers_.begin());
    for (const Timer& timer : due) {
      auto tx = transactions_.find(timer.id);
      if (tx == transactions_.end()) continue;
      if (timer.kind == Timer::kOfFormerDatabase) {
        if (++of_former_database > kOfFormerDatabaseAtOnce) {
          At(now_ + 1, timer);
        } else {
          On(FinishArrived{timer.id, timer.participant, true, Finished::kHazard,
                           "bound to another database since; look for it in the former one"});
        }
      } else if (timer.kind == Timer::kRetry) {
        Branch* branch = FindBranch(&tx->second, timer.participant);
        ++counters_.retries;
        if (tx->second.state == State::kPreparing && branch->state == BranchState::kIdle) {
          SendPrepareTo(timer.id, tx->second, branch);
        } else if (tx->second.state == State::kCommitted &&
                   branch->state == BranchState::kPrepared) {
          SendFinishTo(timer.id, tx->second, branch);
        }
      } else {
        OnDeadline(tx);
      }
    }
  }
  ForgetIdleTimers();
  if (now_ - retained_at_ >= 1000) {
    // One call drops so much, lest anybody waits for it; what is left goes soon after.
    const bool more = state_.Retain(now_, lease_line(), options_.retention);
    retained_at_ = more ? now_ - 990 : now_;
  }
}

// Nearly all transactions end long before their deadline: nobody is to be woken for those.
void CommitProtocol::ForgetIdleTimers() {
  while (!timers_.empty()) {
    std::vector<Timer>& first = timers_.begin()->second;
    while (!first.empty() && !transactions_.contains(first.back().id)) first.pop_back();
    if (!first.empty()) return;
    timers_.erase(timers_.begin());
  }
}

// Law L4: a deadline aborts what is undecided, and nothing else.
void CommitProtocol::OnDeadline(Transactions::iterator tx) {
  if (tx->second.state == State::kDeciding) {
    TROTH_MARK("deadline-after-the-hand-over");
    return;  // answered when durable
  }
  if (tx->second.state == State::kCommitted || tx->second.deadline > now_) {
    AnswerOverdueWaiters(tx);
    return;
  }
  std::string late;
  for (const Branch& branch : tx->second.branches) {
    if (branch.state != BranchState::kIdle && branch.state != BranchState::kPrepareSent) continue;
    late = registry_.at(branch.evidence.participant).record.name;
    break;
  }
  BecomeAborted(tx, Refusal{Reason::kDeadline, true,
                            "the deadline passed while waiting for '" + late + "'", late, ""});
}

// Those whose own time is over, while the transaction's is not, or does not matter any more.
void CommitProtocol::AnswerOverdueWaiters(Transactions::iterator tx) {
  std::vector<Waiter> staying;
  for (const Waiter& waiter : tx->second.waiters) {
    if (waiter.until > now_) {
      staying.push_back(waiter);
    } else if (tx->second.state == State::kCommitted) {
      TROTH_MARK("committed-and-not-applied-in-time");
      ReplyCommitted(tx->first, &tx->second, waiter.token);
    } else {
      ReplyKind(waiter.token, OutcomeKind::kPending, tx->first);
    }
  }
  tx->second.waiters = std::move(staying);
}

}  // namespace troth
