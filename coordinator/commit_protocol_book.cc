// See commit_protocol.h. What surrounds the life of a transaction: epoch, leases, registry,
// what may be answered, and views for people.
#include <algorithm>

#include "common/check.h"
#include "common/mark.h"
#include "coordinator/commit_protocol.h"
#include "recovery/heuristics.h"

namespace troth {
namespace {

constexpr std::size_t kMaxEnrolmentText = 256;  // bytes
// A life a second, for the age of the oldest trees, comes nowhere near it.
constexpr std::uint32_t kMaxGapEpoch = 1u << 31;

Connect ConnectTo(const ParticipantRecord& record, const std::string& instance) {
  return {record.index, record.name,     record.peer_host,       record.peer_port,
          instance,     record.database, record.database_address};
}

}  // namespace

CommitProtocol::CommitProtocol(ProtocolOptions options, RecoveredState state,
                               std::uint32_t epoch_random, std::uint64_t last_batch)
    : options_(std::move(options)),
      state_(std::move(state)),
      last_batch_(last_batch),
      leases_(options_.lease_ms) {
  std::uint32_t highest = state_.epochs().empty() ? 0 : state_.epochs().back().epoch.number;
  for (const GapRecord& gap : state_.gaps()) highest = std::max(highest, gap.last);
  epoch_ = Epoch{highest + 1, epoch_random};
  now_ = started_at_ = retained_at_ = state_.running_ms();
  durable_batch_ = last_batch;
  registry_.Load(state_.participants());
  // Decided in an earlier life and not ended: phase two goes on (laws L8, L14).
  state_.ForEachUnended([this](const CommitRecord& record) {
    TROTH_MARK("recovered-unfinished");
    Transaction tx;
    tx.state = State::kCommitted;
    tx.began = now_;
    tx.missing = static_cast<std::uint32_t>(record.branches.size());
    tx.key = record.key;
    for (const BranchRecord& evidence : record.branches) {
      Branch branch;
      branch.evidence = evidence;
      branch.state = BranchState::kPrepared;
      ++registry_.at(evidence.participant).unacknowledged;
      tx.branches.push_back(std::move(branch));
    }
    transactions_.emplace(record.id, std::move(tx));
  });
}

void CommitProtocol::Start(Actions* actions) {
  TROTH_CHECK(!started_);
  started_ = true;
  out_ = actions;
  // Law L7d: the record that begins an epoch names where the one before ended.
  Append(EpochRecord{epoch_, last_batch_}, /*force=*/true);
  ReserveAhead();
  out_ = nullptr;
}

// Law L7c: only now may anybody hear of this epoch. If it were told before its record is durable
// and then lost by a crash, participants would report an epoch that the log never began.
void CommitProtocol::BeginServing() {
  serving_ = true;
  for (ParticipantIndex i = 0; i < registry_.size(); ++i) {
    const Registry::Participant& participant = registry_.at(i);
    if (participant.record.forgotten || !participant.durable) continue;
    const ParticipantRecord& record = participant.record;
    out_->push_back(ConnectTo(record, ""));
  }
  ServeLeases();
}

void CommitProtocol::Step(const Event& event, Actions* actions) {
  TROTH_CHECK(started_ && out_ == nullptr);
  out_ = actions;
  std::visit([this](const auto& e) { On(e); }, event);
  out_ = nullptr;
}

RunningMs CommitProtocol::NextTimer() const {
  RunningMs next = std::min(now_ + 1000, leases_.NextEnd());
  if (!timers_.empty()) next = std::min(next, timers_.begin()->first);
  return next;
}

void CommitProtocol::At(RunningMs when, Timer timer) {
  timers_[std::max(when, now_ + 1)].push_back(timer);
}

// ------------------------------------------------------------------------------------ leases

void CommitProtocol::ReserveAhead() {
  const std::uint64_t wanted = leases_.next() +
                               (waiting_leases_.empty() ? 0 : waiting_leases_.front().count) +
                               options_.reserve_block;
  if (reserve_asked_ >= leases_.next() + options_.reserve_block / 2 &&
      (waiting_leases_.empty() ||
       reserve_asked_ >= leases_.next() + waiting_leases_.front().count)) {
    return;
  }
  reserve_asked_ = std::min(wanted, kMaxSequence);
  Append(ReserveRecord{epoch_, reserve_asked_}, /*force=*/true);
}

void CommitProtocol::On(const LeaseAsked& e) {
  if (draining_ || !registry_.Suspicion().empty()) {
    Refuse(e.token, Reason::kNotServing,
           draining_ ? "the coordinator is draining" : registry_.Suspicion(), true);
    return;
  }
  if (e.count < 1 || e.count > 10'000) {
    Refuse(e.token, Reason::kInvalid, "a lease has 1 to 10000 ids");
    return;
  }
  if (RefuseWithoutRoom(e.token)) return;
  std::uint64_t leased = leases_.next() - leases_.line() + e.count;
  for (const WaitingLease& waiting : waiting_leases_) leased += waiting.count;
  if (leased > options_.max_leased) {
    Refuse(e.token, Reason::kOverloaded,
           std::to_string(leases_.next() - leases_.line()) + " ids are leased already", true);
    return;
  }
  waiting_leases_.push_back(WaitingLease{e.token, e.count});
  ServeLeases();
}

void CommitProtocol::ServeLeases() {
  // Law L7d: whoever waited since before the contradiction gets no ids either.
  while (!registry_.Suspicion().empty() && !waiting_leases_.empty()) {
    Refuse(waiting_leases_.front().token, Reason::kNotServing, registry_.Suspicion(), true);
    waiting_leases_.pop_front();
  }
  while (serving_ && !waiting_leases_.empty() && leases_.CanGrant(waiting_leases_.front().count)) {
    const WaitingLease waiting = waiting_leases_.front();
    waiting_leases_.pop_front();
    const LeaseBook::Grant grant = leases_.GrantBlock(waiting.count, now_);
    out_->push_back(
        ReplyLease{waiting.token, epoch_, grant.first, grant.count, now_, grant.end_ms});
  }
  ReserveAhead();
}

bool CommitProtocol::InLiveLease(const LocalId& id) const {
  return id.epoch == epoch_ && leases_.Live(id.sequence);
}

// Past the end of its lease only a transaction whose record is not durable yet is in flight.
LocalId CommitProtocol::lease_line() const {
  LocalId line{epoch_, leases_.line()};
  for (const Undurable& u : undurable_) {
    if (const auto* commit = std::get_if<CommitRecord>(&u.record))
      line = std::min(line, commit->id);
  }
  return line;
}

// -------------------------------------------------------------------------------- durability

void CommitProtocol::OnDurable(const Undurable& u) {
  if (const auto* commit = std::get_if<CommitRecord>(&u.record)) {
    BecomeCommitted(*commit);
  } else if (std::get_if<EpochRecord>(&u.record) != nullptr) {
    BeginServing();
  } else if (const auto* reserve = std::get_if<ReserveRecord>(&u.record)) {
    leases_.Reserved(reserve->end);
    ServeLeases();
  } else if (const auto* record = std::get_if<ParticipantRecord>(&u.record)) {
    registry_.Durable(*record);
    if (record->forgotten) {
      out_->push_back(Disconnect{record->index});
    } else if (!u.instance.empty()) {  // an enrolment
      out_->push_back(ConnectTo(*record, u.instance));
      if (const std::string& why = registry_.at(record->index).contradiction; !why.empty()) {
        Refuse(u.token, Reason::kNotServing, why, true);
      } else if (u.token != 0) {
        out_->push_back(ReplyEnrolled{u.token, record->name, record->index});
      }
      return;
    }
    if (u.token != 0) out_->push_back(ReplyDone{u.token});
  } else if (const auto* gap = std::get_if<GapRecord>(&u.record)) {
    registry_.Accept(*gap, epoch_);
    if (u.token != 0) out_->push_back(ReplyDone{u.token});
  } else if (const auto* key = std::get_if<KeyRecord>(&u.record)) {
    keys_closing_.erase(key->key);
    ReplyKind(u.token, OutcomeKind::kAborted, LocalId{},
              Refusal{Reason::kKeyTaken, false, "the key is closed", "", ""});
  } else if (u.token != 0) {
    out_->push_back(ReplyDone{u.token});
  }
}

void CommitProtocol::On(const LogRoom& e) { log_room_ = e.enough; }

// ----------------------------------------------------------------------------------- answers

bool CommitProtocol::LogWhole() const {
  return registry_.Suspicion().empty() &&
         (registry_.AllHeard() || now_ >= started_at_ + options_.hear_ms);
}

// Gathers what is known; in_doubt.h decides what it means (law L6).
InDoubtAnswer CommitProtocol::Resolve(const TransactionId& id) const {
  Knowledge k;
  k.ours = id.coordinator == options_.coordinator_id;
  if (!k.ours) return troth::Resolve(k);
  const LocalId& local = id.local;
  const bool current = local.epoch == epoch_;
  const RecoveredState::EpochInfo* info = state_.FindEpoch(local.epoch);
  const auto& gaps = state_.gaps();
  const bool in_gap = std::any_of(gaps.begin(), gaps.end(), [&](const GapRecord& gap) {
    return gap.first <= local.epoch.number && local.epoch.number <= gap.last;
  });
  k.epoch_current = current;
  k.epoch_begun = (current || info != nullptr) && !in_gap;
  // Of this life, what was not handed out may still be: absence must not be told of it.
  k.below_reserve =
      local.sequence != 0 && (current ? local.sequence < leases_.next()
                                      : info != nullptr && local.sequence < info->reserve_end);
  const auto tx = transactions_.find(local);
  k.in_flight = tx != transactions_.end() && tx->second.state != State::kCommitted;
  k.committed_bit = state_.Committed(local);
  k.whole_record = k.committed_bit && static_cast<bool>(state_.FindCommit(local));
  k.below_line = local < state_.line();
  k.lease_live = InLiveLease(local);
  k.aborted = k.lease_live && (leases_.MarkOf(local.sequence) == LeaseBook::Mark::kAborted ||
                               leases_.MarkOf(local.sequence) == LeaseBook::Mark::kReadOnly);
  k.log_whole = LogWhole();
  return troth::Resolve(k);
}

void CommitProtocol::ReplyResolved(ReplyToken token, const TransactionId& id) {
  switch (Resolve(id)) {
    case InDoubtAnswer::kCommitted:
    case InDoubtAnswer::kCommittedBit: {
      const auto tx = transactions_.find(id.local);
      ReplyCommitted(id.local, tx == transactions_.end() ? nullptr : &tx->second, token);
      return;
    }
    case InDoubtAnswer::kAborted: {
      if (InLiveLease(id.local) &&
          leases_.MarkOf(id.local.sequence) == LeaseBook::Mark::kReadOnly) {
        ReplyKind(token, OutcomeKind::kReadOnly, id.local);
        return;
      }
      const bool live = InLiveLease(id.local);
      ReplyKind(
          token, OutcomeKind::kAborted, id.local,
          Refusal{live ? Reason::kEnded : Reason::kNotLeased, true,
                  live ? "aborted earlier" : "never committed, and its lease is over", "", ""});
      return;
    }
    case InDoubtAnswer::kPending:
      if (!LogWhole()) TROTH_MARK("asked-before-all-were-heard");
      ReplyKind(token, OutcomeKind::kPending, id.local);
      return;
    case InDoubtAnswer::kExpired: ReplyKind(token, OutcomeKind::kExpired, id.local); return;
    case InDoubtAnswer::kNotMine:
      Refuse(token, Reason::kNotMine,
             "transaction " + id.ToString() + " was never handed out by the log of coordinator " +
                 options_.coordinator_id);
      return;
  }
}

void CommitProtocol::On(const OutcomeAsked& e) {
  auto tx = transactions_.find(e.id.local);
  if (e.id.coordinator == options_.coordinator_id && tx != transactions_.end()) {
    AddWaiter(tx, Waiter{e.token, Waiter::kOutcome, e.until});
    return;
  }
  ReplyResolved(e.token, e.id);
}

void CommitProtocol::AddWaiter(Transactions::iterator tx, Waiter waiter) {
  if (tx->second.state == State::kCommitted &&
      (waiter.kind != Waiter::kApplied || waiter.until <= now_)) {
    ReplyCommitted(tx->first, &tx->second, waiter.token);
    return;
  }
  if (waiter.kind == Waiter::kOutcome && waiter.until <= now_) {
    ReplyKind(waiter.token, OutcomeKind::kPending, tx->first);
    return;
  }
  tx->second.waiters.push_back(waiter);
  At(waiter.until, Timer{Timer::kDeadline, tx->first, 0});
}

std::string CommitProtocol::HolderOf(const std::string& key) const {
  const auto of = [this](const LocalId& id) {
    return "belongs to transaction " + Full(id).ToString() + ": ask for the outcome of the key";
  };
  const auto known = state_.FindKey(key);
  if ((known && known->closed) || keys_closing_.contains(key)) return "is closed";
  if (known) return of(known->id);
  const auto flying = keys_in_flight_.find(key);
  return flying == keys_in_flight_.end() ? "" : of(flying->second);
}

void CommitProtocol::On(const KeyAsked& e) {
  if (e.key.empty() || e.key.size() > kMaxBusinessKeyBytes) {
    Refuse(e.token, Reason::kInvalid,
           "a business key has 1 to " + std::to_string(kMaxBusinessKeyBytes) + " bytes");
    return;
  }
  if (const auto known = state_.FindKey(e.key)) {
    if (known->closed) {
      ReplyKind(e.token, OutcomeKind::kAborted, LocalId{},
                Refusal{Reason::kKeyTaken, false, "the key is closed", "", ""});
    } else {
      ReplyResolved(e.token, Full(known->id));
    }
    return;
  }
  auto flying = keys_in_flight_.find(e.key);
  if (flying != keys_in_flight_.end()) {
    ReplyKind(e.token, OutcomeKind::kPending, flying->second);
  } else if (!e.close) {
    ReplyKind(e.token, OutcomeKind::kPending, LocalId{});  // none yet; never `aborted`
  } else if (!serving_ || !log_room_ || !registry_.Suspicion().empty()) {
    Refuse(e.token, Reason::kNotServing, "the coordinator cannot record it now", true);
  } else {
    keys_closing_.insert(e.key);
    Append(KeyRecord{e.key, true, {}}, /*force=*/true, e.token);
  }
}

// Laws L9b, L14.
void CommitProtocol::On(const Inquired& e) {
  ReplyAnswers reply{e.token, {}};
  Registry::Participant* const participant = registry_.FindDurable(e.participant);
  if (participant != nullptr) {
    if (participant->heard) participant->heard_at = now_;
    const ParticipantIndex index = participant->record.index;
    registry_.Report(index, e.seen, state_, {epoch_, last_batch_, durable_batch_});
    for (const InquiryItem& item : e.items) {
      if (item.id.coordinator != options_.coordinator_id) continue;
      registry_.ReportBranch(index, item.id.local, state_, epoch_);
    }
  }
  for (const InquiryItem& item : e.items) {
    ++counters_.inquiries;
    InquiryAnswer answer{item.id, Resolve(item.id)};
    // Nothing is compared with what nobody enrolled has seen; and that it ever was registered may
    // be what the log has lost. It is told of absence once it has enrolled (law L7d).
    if (participant == nullptr && answer.answer == InDoubtAnswer::kAborted) {
      answer.answer = InDoubtAnswer::kPending;
    }
    if (answer.answer == InDoubtAnswer::kCommitted) {
      const auto commit = state_.FindCommit(item.id.local);
      for (const BranchRecord& branch : commit->branches) {
        // By its name: one that was forgotten, and came back, holds what it voted for.
        if (registry_.at(branch.participant).record.name != e.participant) continue;
        answer.xid = branch.xid;
        answer.timeline = branch.timeline;
        answer.position = branch.position;
        // Whatever else sits under that GID never voted.
        answer.commit = static_cast<std::uint32_t>(branch.xid) == item.xid;
        if (!answer.commit) TROTH_MARK("inquiry-for-another-xid");
      }
    }
    if (answer.answer == InDoubtAnswer::kCommittedBit)
      TROTH_MARK("inquiry-when-only-a-bit-is-left");
    reply.answers.push_back(std::move(answer));
  }
  out_->push_back(std::move(reply));
}

// ---------------------------------------------------------------------------------- registry

void CommitProtocol::On(const EnrolmentAsked& e) {
  if (!IsParticipantName(e.participant.name)) {
    Refuse(e.token, Reason::kInvalid, "a participant's name has 1 to 120 bytes of [a-z0-9-]");
    return;
  }
  if (e.instance.empty()) {
    Refuse(e.token, Reason::kInvalid, "an enrolment names its instance");
    return;
  }
  const ParticipantRecord& texts = e.participant;
  if (std::max({texts.database_address.size(), texts.peer_host.size(), e.instance.size()}) >
      kMaxEnrolmentText) {
    Refuse(e.token, Reason::kInvalid,
           "a host, an address and an instance have at most " + std::to_string(kMaxEnrolmentText) +
               " bytes");
    return;
  }
  const Registry::Participant* known = registry_.Find(e.participant.name);
  if (known != nullptr && known->leaving) {
    Refuse(e.token, Reason::kNotServing, "this participant is being forgotten", true);
    return;
  }
  const Registry::Life life{epoch_, last_batch_, durable_batch_};
  // Whatever becomes of the enrolment: what it saw of this log counts (law L7d).
  if (known != nullptr) {
    registry_.Report(known->record.index, e.seen, state_, life);
  }
  std::string why;
  Registry::Binding binding = registry_.Classify(e.participant, &why);
  const bool moved = binding == Registry::Binding::kMoved && serving_ && known->durable;
  // Another instance beside the one that the log knows: one address is enough there. Without room
  // its place, or its machine, is recorded when it comes back another time.
  const bool beside = moved && known->up;
  const bool later = !log_room_ && (moved || binding == Registry::Binding::kNarrowed);
  if (beside || later) binding = Registry::Binding::kSame;
  switch (binding) {
    case Registry::Binding::kTaken: Refuse(e.token, Reason::kNameTaken, why); return;
    case Registry::Binding::kNew:
    case Registry::Binding::kNarrowed:
    case Registry::Binding::kMoved: {
      if (RefuseWithoutRoom(e.token)) return;
      // Processes of the database that the name was bound to before are spoken to no more, nor
      // those that were let in as long as nobody knew of which machine it is: its own enrol again.
      if (known != nullptr && binding != Registry::Binding::kMoved) {
        out_->push_back(Disconnect{known->record.index});
      }
      const ParticipantRecord record = registry_.Bind(e.participant);
      Append(record, /*force=*/true, e.token, e.instance);
      registry_.Report(record.index, e.seen, state_, life);  // what it is bound to now counts
      registry_.Heard(record.index, now_);
      return;
    }
    case Registry::Binding::kSame: {
      const ParticipantRecord& record = known->record;
      registry_.Heard(record.index, now_);
      // Nor before this epoch is durable: its record comes before this one.
      if (!known->durable || !serving_) {
        Append(record, /*force=*/true, e.token, e.instance);
        return;
      }
      // What is decided is delivered, whatever is suspected.
      ParticipantRecord place = record;
      place.peer_host = e.participant.peer_host;
      place.peer_port = e.participant.peer_port;
      out_->push_back(ConnectTo(place, e.instance));
      if (known->contradiction.empty()) {
        out_->push_back(ReplyEnrolled{e.token, record.name, record.index});
      } else {
        // Not taken in: it goes on telling, also after a restart of ours (law L7d).
        Refuse(e.token, Reason::kNotServing, known->contradiction, true);
      }
      return;
    }
  }
}

void CommitProtocol::On(const DrainAsked& e) {
  draining_ = true;
  while (!waiting_leases_.empty()) {
    Refuse(waiting_leases_.front().token, Reason::kNotServing, "the coordinator is draining", true);
    waiting_leases_.pop_front();
  }
  out_->push_back(ReplyDone{e.token});
}

// Room is kept for ends of what was decided; orders of an operator wait for more.
bool CommitProtocol::RefuseWithoutRoom(ReplyToken token) {
  if (log_room_) return false;
  Refuse(token, Reason::kNotServing, kNoRoom, true);
  return true;
}

void CommitProtocol::On(const ForgetAsked& e) {
  if (RefuseWithoutRoom(e.token)) return;
  Registry::Participant* participant = registry_.FindDurable(e.participant);
  if (participant == nullptr) {
    Refuse(e.token, Reason::kUnknownParticipant,
           "participant '" + e.participant + "' is not registered");
    return;
  }
  if (participant->unacknowledged > 0) {
    Refuse(e.token, Reason::kInvalid,
           "participant '" + e.participant + "' owes " +
               std::to_string(participant->unacknowledged) + " acknowledgements");
    return;
  }
  for (auto& [id, tx] : transactions_) {
    if (FindBranch(&tx, participant->record.index) == nullptr) continue;
    Refuse(e.token, Reason::kInvalid,
           "participant '" + e.participant + "' takes part in " + id.ToString() +
               ", which is under way",
           true);
    return;
  }
  // From here on no commit names it: else one could be decided that nobody would finish.
  participant->leaving = true;
  ParticipantRecord record = participant->record;
  record.forgotten = true;
  Append(record, /*force=*/true, e.token);
}

void CommitProtocol::On(const RebindAsked& e) {
  if (RefuseWithoutRoom(e.token)) return;
  Registry::Participant* participant = registry_.FindDurable(e.participant);
  if (participant == nullptr) {
    Refuse(e.token, Reason::kUnknownParticipant,
           "participant '" + e.participant + "' is not registered");
    return;
  }
  participant->record.open = true;
  Append(participant->record, /*force=*/true, e.token);
}

void CommitProtocol::On(const AcceptGapAsked& e) {
  if (RefuseWithoutRoom(e.token)) return;
  if (registry_.Suspicion().empty()) {
    Refuse(e.token, Reason::kInvalid, "no report contradicts the log: there is no gap");
    return;
  }
  const std::uint32_t last = registry_.HighestContradicted();
  if (last > kMaxGapEpoch) {
    Refuse(e.token, Reason::kInvalid,
           "a report names epoch " + std::to_string(last) +
               ", which no coordinator has lived to: it is wrong, and with it accepted no number "
               "would be left for the next epoch. Run 'trothctl discard-report' instead, as the "
               "manual's section on a log cut short says");
    return;
  }
  Append(GapRecord{registry_.LowestCut(), last, e.reason}, /*force=*/true, e.token);
}

void CommitProtocol::On(const DiscardReportAsked& e) {
  if (RefuseWithoutRoom(e.token)) return;
  Registry::Participant* participant = registry_.FindDurable(e.participant);
  if (participant == nullptr || participant->contradiction.empty()) {
    Refuse(e.token, Reason::kInvalid,
           "no report of participant '" + e.participant + "' contradicts the log");
    return;
  }
  participant->record.discarded = participant->reported;
  participant->contradiction.clear();
  Append(participant->record, /*force=*/true, e.token);
}

void CommitProtocol::On(const HeuristicAsked& e) {
  if (RefuseWithoutRoom(e.token)) return;
  const Registry::Participant* participant = registry_.FindDurable(e.participant);
  if (participant == nullptr) {
    Refuse(e.token, Reason::kUnknownParticipant,
           "participant '" + e.participant + "' is not registered");
    return;
  }
  ++counters_.heuristics;
  Append(HeuristicRecord{e.id, participant->record.index, false, e.what, unix_ms_},
         /*force=*/true, e.token);
}

// ----------------------------------------------------------------------------------- replies

void CommitProtocol::Refuse(ReplyToken token, Reason reason, std::string message, bool retryable) {
  if (token == 0) return;
  out_->push_back(ReplyRefused{token, Refusal{reason, retryable, std::move(message), "", ""}});
}

void CommitProtocol::ReplyKind(ReplyToken token, OutcomeKind kind, const LocalId& id,
                               Refusal refusal) {
  if (token == 0) return;
  out_->push_back(ReplyOutcome{
      token, kind, id.sequence == 0 ? TransactionId{} : Full(id), {}, std::move(refusal)});
}

void CommitProtocol::ReplyCommitted(const LocalId& id, const Transaction* tx, ReplyToken token) {
  if (token == 0) return;
  ReplyOutcome reply{token, OutcomeKind::kCommitted, Full(id), {}, {}};
  std::set<ParticipantIndex> unapplied;
  for (const HeuristicRecord& heuristic : state_.HeuristicsOf(id)) {
    // A person's order to commit does what was decided; and it may be of another coordinator's.
    const bool ours = TransactionOf(heuristic, options_.coordinator_id) == reply.id;
    if (ours && !OrdersCommit(heuristic)) unapplied.insert(heuristic.participant);
  }
  if (tx != nullptr) {
    for (const Branch& branch : tx->branches) {
      const bool owes =
          branch.state == BranchState::kPrepared || branch.state == BranchState::kFinishSent;
      if (owes || branch.otherwise) unapplied.insert(branch.evidence.participant);
    }
  }
  for (const ParticipantIndex i : unapplied) reply.unapplied.push_back(registry_.at(i).record.name);
  out_->push_back(std::move(reply));
}

CommitProtocol::Branch* CommitProtocol::FindBranch(Transaction* tx, ParticipantIndex participant) {
  for (Branch& branch : tx->branches) {
    if (branch.evidence.participant == participant) return &branch;
  }
  return nullptr;
}

// ------------------------------------------------------------------------------------- views

std::string CommitProtocol::DebugString(const LocalId& id) const {
  std::string text = id.ToString() + " " + std::string(InDoubtAnswerName(Resolve(Full(id))));
  const std::optional<TransactionView> view = Find(id);
  if (!view) return text;
  text += " " + view->state;
  for (const BranchView& branch : view->branches) {
    text += " " + branch.participant + "=" + branch.state;
  }
  return text;
}

std::vector<TransactionView> CommitProtocol::List(std::size_t limit) const {
  std::vector<LocalId> ids;
  ids.reserve(transactions_.size());
  for (const auto& [id, tx] : transactions_) ids.push_back(id);
  const std::size_t count = std::min(limit, ids.size());
  std::partial_sort(ids.begin(), ids.begin() + static_cast<std::ptrdiff_t>(count), ids.end());
  std::vector<TransactionView> views;
  for (std::size_t i = 0; i < count; ++i) {
    views.push_back(ViewOf(ids[i], transactions_.at(ids[i])));
  }
  return views;
}

std::optional<TransactionView> CommitProtocol::Find(const LocalId& id) const {
  const auto tx = transactions_.find(id);
  if (tx == transactions_.end()) return std::nullopt;
  return ViewOf(id, tx->second);
}

TransactionView CommitProtocol::ViewOf(const LocalId& id, const Transaction& tx) const {
  static constexpr const char* kStates[] = {"preparing", "deciding", "committed"};
  static constexpr const char* kBranches[] = {"not-asked", "asked",     "read-only",
                                              "prepared",  "finishing", "acknowledged"};
  TransactionView view{id, kStates[static_cast<int>(tx.state)], {}, tx.began, {}, tx.key};
  for (const Branch& branch : tx.branches) {
    const std::string& name = registry_.at(branch.evidence.participant).record.name;
    // It answered that its work is under way, and will be asked again.
    const bool again = branch.state == BranchState::kIdle && branch.retry_ms > 0;
    const auto state = again ? BranchState::kPrepareSent : branch.state;
    view.branches.push_back({name, kBranches[static_cast<int>(state)], branch.evidence});
    if (branch.state == BranchState::kReadOnly || branch.state == BranchState::kAcknowledged) {
      continue;
    }
    if (tx.state == State::kPreparing && branch.state == BranchState::kPrepared) continue;
    view.waiting_for.push_back(name);
  }
  return view;
}

void CommitProtocol::CheckInvariants() const {
  std::size_t undecided = 0;
  std::vector<std::uint64_t> owed(registry_.size());
  for (const auto& [id, tx] : transactions_) {
    TROTH_CHECK(!tx.branches.empty());
    std::uint32_t missing = 0;
    for (const Branch& branch : tx.branches) {
      const bool voted = branch.state >= BranchState::kReadOnly;
      const bool owes =
          branch.state == BranchState::kPrepared || branch.state == BranchState::kFinishSent;
      if (tx.state == State::kPreparing) {
        missing += voted ? 0 : 1;
        TROTH_CHECK(branch.state <= BranchState::kPrepared);
      } else {
        TROTH_CHECK(voted);  // L2
        missing += tx.state == State::kCommitted && owes ? 1 : 0;
        owed[branch.evidence.participant] += owes ? 1 : 0;
      }
    }
    TROTH_CHECK(missing == tx.missing);
    undecided += tx.state == State::kCommitted ? 0 : 1;
    // L5: known committed exactly when its record is durable.
    TROTH_CHECK(state_.Committed(id) == (tx.state == State::kCommitted));
    if (tx.state == State::kPreparing) {
      TROTH_CHECK(id.epoch == epoch_);  // L7a
      TROTH_CHECK(InLiveLease(id) || tx.deadline <= now_);
    }
  }
  TROTH_CHECK(undecided == undecided_);
  for (ParticipantIndex i = 0; i < registry_.size(); ++i) {
    TROTH_CHECK(owed[i] == registry_.at(i).unacknowledged);
  }
  TROTH_CHECK(leases_.next() <= leases_.reserved());
}

}  // namespace troth
