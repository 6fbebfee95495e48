// See explore_world.h.
#include "tests/simulation/explore_world.h"

#include <algorithm>

#include "common/check.h"

namespace troth::explore {
namespace {

constexpr char kCoordinator[] = "bank-0123456789ab";
constexpr RunningMs kDeadline = 500;
constexpr RunningMs kLease = 900;
constexpr ReplyToken kCommitToken = 1, kAbortToken = 2, kProbeToken = 3, kInquiryToken = 10;

// An answer is for the xid that was asked about, and settles nothing else (law L14).
enum Answer : std::uint8_t { kAnswerPending, kAnswerCommit, kAnswerAbort, kOfStray = 16 };

}  // namespace

World::World(int participants, const std::array<BranchKind, kMaxParticipants>& kinds, Faults faults)
    : participants_(participants), faults_(faults) {
  options_.coordinator_id = kCoordinator;
  options_.lease_ms = kLease;
  options_.retention.lease_ms = kLease;
  options_.hear_ms = 700;
  options_.reserve_block = 4;
  options_.retry_min_ms = 100;
  options_.retry_max_ms = 100;
  may_crash_ = faults.coordinator_crash;
  commits_left_ = faults.client_retries ? 2 : 1;
  Begin(RecoveredState());
  for (int p = 0; p < participants_; ++p) {
    p_[p].kind = kinds[p];
    p_[p].branch = kinds[p] == BranchKind::kEarly ? Branch::kPrepared : Branch::kActive;
    p_[p].may_crash = faults.participant_crash;
    p_[p].may_break = p < faults.breaks;
    p_[p].may_be_slow = p < faults.slow;
    Enroll(p);
  }
  Happen({Happening::kDurable, static_cast<std::uint8_t>(undurable_.size())});
  for (int p = 0; p < participants_; ++p) Step(ParticipantUp{static_cast<ParticipantIndex>(p)});
  id_ = TransactionId{kCoordinator, {machine_->epoch(), 1}};
  Step(LeaseAsked{0, 1});
}

World::World(const World& other)
    : participants_(other.participants_),
      faults_(other.faults_),
      options_(other.options_),
      id_(other.id_),
      machine_(other.machine_->Clone()),
      durable_(other.durable_),
      undurable_(other.undurable_),
      numbered_(other.numbered_),
      batch_(other.batch_),
      now_(other.now_),
      p_(other.p_),
      network_(other.network_),
      commits_left_(other.commits_left_),
      aborts_left_(other.aborts_left_),
      may_crash_(other.may_crash_),
      told_committed_(other.told_committed_),
      told_aborted_(other.told_aborted_),
      told_read_only_(other.told_read_only_),
      wrong_(other.wrong_),
      trace_(other.trace_) {}

// ------------------------------------------------------------------- machine and its log

void World::Begin(RecoveredState state) {
  machine_ = std::make_unique<CommitProtocol>(options_, std::move(state), 0x0a0a0a0au, batch_);
  numbered_ = 0;
  now_ = machine_->now();
  Actions actions;
  machine_->Start(&actions);
  Take(actions);
}

void World::Step(const Event& event) {
  if (trace_ != nullptr) *trace_ += "  > " + troth::DebugString(event) + "\n";
  Actions actions;
  machine_->Step(event, &actions);
  machine_->CheckInvariants();
  Take(actions);
}

void World::Take(const Actions& actions) {
  for (const Action& action : actions) {
    if (trace_ != nullptr) *trace_ += "    " + troth::DebugString(action) + "\n";
    if (const auto* prepare = std::get_if<SendPrepare>(&action)) {
      Send({Message::kPrepare, static_cast<std::uint8_t>(prepare->participant), 0, 0});
    } else if (const auto* finish = std::get_if<SendFinish>(&action)) {
      if (finish->commit) {
        if (!RecordIn(durable_)) Wrong("L5: a finish(commit) left before the record was durable");
        if (finish->xid != Xid(static_cast<int>(finish->participant), false)) {
          Wrong("L9b: a finish(commit) bears an xid that did not vote");
        }
      } else if (RecordIn(durable_) || RecordIn(undurable_)) {
        Wrong("L4: a finish(abort) after the commit record was handed over");
      }
      Send({finish->commit ? Message::kFinishCommit : Message::kFinishAbort,
            static_cast<std::uint8_t>(finish->participant), 0, 0});
    } else if (const auto* connect = std::get_if<Connect>(&action)) {
      p_[connect->participant].wanted = true;
    } else if (const auto* append = std::get_if<AppendRecord>(&action)) {
      if (const auto* commit = std::get_if<CommitRecord>(&append->record)) {
        for (const BranchRecord& branch : commit->branches) {
          const Branch b = p_[branch.participant].branch;
          if (b != Branch::kPrepared && b != Branch::kCommitted) {
            Wrong("L2: decided although a branch of it is not prepared");
          }
        }
        if (told_aborted_) Wrong("L11: decided after an abort was told");
      }
      undurable_.push_back(append->record);
    } else if (const auto* reply = std::get_if<ReplyOutcome>(&action)) {
      if (reply->kind == OutcomeKind::kCommitted) {
        told_committed_ = true;
        if (!RecordIn(durable_)) Wrong("L5: committed was told before the record was durable");
      }
      if (reply->kind == OutcomeKind::kAborted) told_aborted_ = true;
      if (reply->kind == OutcomeKind::kReadOnly) told_read_only_ = true;
      if (reply->kind == OutcomeKind::kExpired) Wrong("L9a: expired within its retention");
    } else if (const auto* answers = std::get_if<ReplyAnswers>(&action)) {
      const auto& answer = answers->answers.at(0);
      std::uint8_t what = kAnswerPending;
      if (answer.answer == InDoubtAnswer::kCommitted) {
        what = answer.commit ? kAnswerCommit : kAnswerAbort;
      } else if (answer.answer == InDoubtAnswer::kAborted) {
        what = kAnswerAbort;
      } else if (answer.answer != InDoubtAnswer::kPending) {
        Wrong("L9: a branch was answered " + std::string(InDoubtAnswerName(answer.answer)));
      }
      const auto token = answers->token - kInquiryToken;
      if (what == kAnswerPending) continue;
      if (token >= kMaxParticipants) what |= kOfStray;
      Send({Message::kAnswer, static_cast<std::uint8_t>(token % kMaxParticipants), what, 0});
    }
  }
}

bool World::RecordIn(const std::vector<LogRecord>& records) const {
  return std::any_of(records.begin(), records.end(), [](const LogRecord& record) {
    return std::holds_alternative<CommitRecord>(record);
  });
}

void World::CrashCoordinator(int keep) {
  may_crash_ = false;
  durable_.insert(durable_.end(), undurable_.begin(), undurable_.begin() + keep);
  undurable_.clear();
  ++batch_;
  for (int p = 0; p < participants_; ++p) {
    BreakConnection(p, /*process_died=*/false);
    p_[p].to_enroll = true;
    p_[p].wanted = false;
  }
  RecoveredState state;
  for (const LogRecord& record : durable_) TROTH_CHECK(state.Apply(record, now_).ok());
  Begin(std::move(state));
}

// ----------------------------------------------------------------------------- messages

void World::Send(Message message) {
  const bool to_participant = message.kind == Message::kPrepare ||
                              message.kind == Message::kFinishCommit ||
                              message.kind == Message::kFinishAbort;
  if (to_participant && !p_[message.participant].up) return;
  // The same request twice under way on one connection is as good as once.
  const auto at = std::lower_bound(network_.begin(), network_.end(), message);
  if (at != network_.end() && *at == message) return;
  network_.insert(at, message);
}

// Replies under way are lost; requests may have left, and arrive yet.
void World::BreakConnection(int p, bool process_died) {
  p_[p].up = false;
  std::vector<Message> kept;
  for (Message m : network_) {
    if (m.participant == p && (m.kind == Message::kVote || m.kind == Message::kAck)) continue;
    const bool request = m.kind == Message::kPrepare || m.kind == Message::kFinishCommit ||
                         m.kind == Message::kFinishAbort;
    if (m.participant == p && request) {
      if (process_died) continue;
      m.orphan = 1;
    }
    if (m.participant == p && m.kind == Message::kAnswer && process_died) continue;
    kept.push_back(m);
  }
  std::sort(kept.begin(), kept.end());
  kept.erase(std::unique(kept.begin(), kept.end()), kept.end());
  network_ = std::move(kept);
}

std::uint64_t World::Xid(int p, bool stray) const {
  return (stray ? 800u : 700u) + static_cast<std::uint64_t>(p);
}

BranchVote World::VoteOf(int p) const {
  BranchVote vote;
  vote.ballot = Ballot::kPrepared;
  vote.works = 1;
  vote.database = DatabaseId{7001u + static_cast<unsigned>(p), 5};
  vote.xid = Xid(p, false);
  vote.timeline = 1;
  vote.position = vote.xid;
  return vote;
}

CommitAsked World::Commit() const {
  CommitAsked e;
  e.token = kCommitToken;
  e.id = id_;
  e.deadline = kDeadline;
  for (int p = 0; p < participants_; ++p) {
    BranchClaim claim;
    claim.participant = std::string(1, static_cast<char>('a' + p));
    claim.mark = "m";
    claim.instance = "i";
    claim.works = 1;
    claim.read_only = p_[p].kind == BranchKind::kReadOnly;
    claim.carries_vote = claim.authentic = p_[p].kind == BranchKind::kEarly;
    if (claim.carries_vote) claim.vote = VoteOf(p);
    e.branches.push_back(std::move(claim));
  }
  return e;
}

void World::Enroll(int p) {
  EnrolmentAsked e;
  e.participant.name = std::string(1, static_cast<char>('a' + p));
  e.participant.database = VoteOf(p).database;
  e.participant.database_address = "db";
  e.participant.peer_host = "h";
  e.participant.peer_port = 1;
  e.instance = "i";
  Step(e);
}

void World::Deliver(const Message& m, Happening::Kind how) {
  const auto index = static_cast<ParticipantIndex>(m.participant);
  switch (m.kind) {
    case Message::kPrepare: DeliverPrepare(m, how); return;
    case Message::kFinishCommit:
    case Message::kFinishAbort: DeliverFinish(m, how); return;
    case Message::kVote: {
      VoteArrived e{id_.local, index, "m", {}};
      e.vote.ballot = static_cast<Ballot>(m.what);
      e.vote.works = 1;
      if (e.vote.ballot == Ballot::kPrepared) e.vote = VoteOf(m.participant);
      if (e.vote.ballot == Ballot::kRefused) e.vote.refusal.reason = Reason::kDatabase;
      Step(e);
      return;
    }
    case Message::kAck: {
      Step(FinishArrived{id_.local, index, true, static_cast<Finished>(m.what), ""});
      return;
    }
    case Message::kAnswer: DeliverAnswer(m); return;
  }
}

// ------------------------------------------------------------------------- participants

void World::DeliverPrepare(const Message& m, Happening::Kind how) {
  Participant& p = p_[m.participant];
  Ballot ballot = Ballot::kRefused;
  if (p.branch == Branch::kActive && how == Happening::kDeliverSlow) {
    p.branch = Branch::kPreparing;
    p.may_be_slow = false;
    ballot = Ballot::kWorking;
  } else if (p.branch == Branch::kActive || p.branch == Branch::kPreparing) {
    if (how == Happening::kDeliverRefused) {
      p.branch = Branch::kRolledBack;
    } else if (p.kind == BranchKind::kReadOnly) {
      p.branch = Branch::kReadOnlyOver;
      ballot = Ballot::kReadOnly;
    } else {
      p.branch = Branch::kPrepared;
      ballot = Ballot::kPrepared;
    }
  } else if (p.branch == Branch::kPrepared) {
    ballot = Ballot::kPrepared;
  } else if (p.branch == Branch::kReadOnlyOver) {
    ballot = Ballot::kReadOnly;
  }
  if (m.orphan == 0) Send({Message::kVote, m.participant, static_cast<std::uint8_t>(ballot), 0});
}

void World::DeliverFinish(const Message& m, Happening::Kind how) {
  Participant& p = p_[m.participant];
  const bool commit = m.kind == Message::kFinishCommit;
  Finished finished = Finished::kDone;
  if (how == Happening::kDeliverSlow) {
    p.may_be_slow = false;
    finished = Finished::kWorking;
  } else {
    p.stray = false;  // whatever else sits there never voted
    if (commit) {
      if (p.branch == Branch::kPrepared) p.branch = Branch::kCommitted;
      if (p.branch != Branch::kCommitted) Wrong("L1: finish(commit) found its branch rolled back");
    } else if (p.branch == Branch::kActive || p.branch == Branch::kPreparing ||
               p.branch == Branch::kPrepared) {
      p.branch = Branch::kRolledBack;
    }
  }
  if (m.orphan == 0 && commit) {
    Send({Message::kAck, m.participant, static_cast<std::uint8_t>(finished), 0});
  }
}

void World::DeliverAnswer(const Message& m) {
  Participant& p = p_[m.participant];
  const int answer = m.what & ~kOfStray;
  const bool of_stray = (m.what & kOfStray) != 0;
  if (answer == kAnswerPending || of_stray != p.stray) return;
  if (p.stray) {
    if (answer == kAnswerCommit) Wrong("L9b: a branch that never voted was told to commit");
    p.stray = false;
  } else if (p.branch == Branch::kPrepared) {
    p.branch = answer == kAnswerCommit ? Branch::kCommitted : Branch::kRolledBack;
  }
}

// --------------------------------------------------------------------------- happenings

void World::Possible(bool faults, std::vector<Happening>* out) const {
  out->clear();
  auto add = [out](Happening::Kind kind, int at = 0) {
    out->push_back({kind, static_cast<std::uint8_t>(at)});
  };
  for (std::size_t i = 0; i < network_.size(); ++i) {
    const Message& m = network_[i];
    const int at = static_cast<int>(i);
    add(Happening::kDeliver, at);
    if (!faults) continue;
    const Participant& p = p_[m.participant];
    const bool open = p.branch == Branch::kActive || p.branch == Branch::kPreparing;
    if (m.kind == Message::kPrepare && open) {
      add(Happening::kDeliverRefused, at);
      if (p.may_be_slow && p.branch == Branch::kActive) add(Happening::kDeliverSlow, at);
    }
    if (m.kind == Message::kFinishCommit && p.may_be_slow) add(Happening::kDeliverSlow, at);
    if (m.orphan != 0 || m.kind == Message::kAnswer) add(Happening::kLose, at);
  }
  if (!undurable_.empty()) add(Happening::kDurable, static_cast<int>(undurable_.size()));
  if (faults && undurable_.size() > 1) add(Happening::kDurable, 1);
  add(Happening::kTime);
  if (faults && commits_left_ > 0) add(Happening::kClientCommits);
  if (faults && aborts_left_ > 0) add(Happening::kClientAborts);
  for (int i = 0; i < participants_; ++i) {
    const Participant& p = p_[i];
    if (!p.up && p.wanted) add(Happening::kConnect, i);
    if (p.stray || p.branch == Branch::kPrepared) add(Happening::kAsk, i);
    if (p.branch == Branch::kActive || p.branch == Branch::kPreparing) add(Happening::kIdleOut, i);
    if (!faults) continue;
    if (p.may_break && p.up) add(Happening::kBreak, i);
    if (p.may_crash) add(Happening::kParticipantCrash, i);
    if (p.may_stray && !p.stray && p.branch != Branch::kPrepared) add(Happening::kStray, i);
  }
  if (faults && may_crash_) {
    for (int keep = 0; keep <= static_cast<int>(undurable_.size()); ++keep) {
      add(Happening::kCoordinatorCrash, keep);
    }
  }
}

void World::Happen(const Happening& h) {
  const auto index = static_cast<ParticipantIndex>(h.at);
  switch (h.kind) {
    case Happening::kDeliver:
    case Happening::kDeliverRefused:
    case Happening::kDeliverSlow: {
      const Message message = network_.at(h.at);
      network_.erase(network_.begin() + h.at);
      Deliver(message, h.kind);
      break;
    }
    case Happening::kLose: network_.erase(network_.begin() + h.at); break;
    case Happening::kDurable:
      durable_.insert(durable_.end(), undurable_.begin(), undurable_.begin() + h.at);
      undurable_.erase(undurable_.begin(), undurable_.begin() + h.at);
      numbered_ += h.at;
      Step(RecordsDurable{numbered_, ++batch_});
      break;
    case Happening::kTime:
      now_ = machine_->NextTimer();
      Step(TimePassed{now_, 0});
      break;
    case Happening::kClientCommits:
      --commits_left_;
      Step(Commit());
      break;
    case Happening::kClientAborts:
      --aborts_left_;
      Step(AbortAsked{kAbortToken, id_, Commit().branches, ""});
      break;
    case Happening::kConnect:
      p_[h.at].up = true;
      if (p_[h.at].to_enroll) Enroll(h.at);
      p_[h.at].to_enroll = false;
      Step(ParticipantUp{index});
      break;
    case Happening::kAsk: {
      const bool stray = p_[h.at].stray;
      const auto xid = static_cast<std::uint32_t>(Xid(h.at, stray));
      Step(Inquired{kInquiryToken + index + (stray ? kMaxParticipants : 0),
                    std::string(1, static_cast<char>('a' + index)),
                    {{id_, xid}},
                    {}});
      break;
    }
    case Happening::kIdleOut: p_[h.at].branch = Branch::kRolledBack; break;
    case Happening::kBreak:
      p_[h.at].may_break = false;
      BreakConnection(h.at, false);
      Step(ParticipantDown{index});
      break;
    case Happening::kParticipantCrash: {
      Participant& p = p_[h.at];
      const bool was_up = p.up;
      p.may_crash = false;
      p.may_stray = p.kind == BranchKind::kEarly;  // it forgot which ids ended
      p.to_enroll = true;
      if (p.branch == Branch::kActive || p.branch == Branch::kPreparing) {
        p.branch = Branch::kRolledBack;
      }
      BreakConnection(h.at, true);
      if (was_up) Step(ParticipantDown{index});
      break;
    }
    case Happening::kCoordinatorCrash: CrashCoordinator(h.at); break;
    case Happening::kStray:
      p_[h.at].may_stray = false;
      p_[h.at].stray = true;
      break;
  }
  if (!id_.coordinator.empty()) Check();
}

// -------------------------------------------------------------------------------- laws

void World::Wrong(const std::string& what) {
  if (wrong_.empty()) wrong_ = what;
}

// Anybody may ask for the outcome at any moment.
void World::Probe() {
  Actions actions;
  machine_->Step(OutcomeAsked{kProbeToken, id_, now_}, &actions);
  Take(actions);
}

void World::Check() {
  Probe();
  const bool decided = RecordIn(durable_);
  bool committed = false, rolled_back = false;
  for (int i = 0; i < participants_; ++i) {
    committed |= p_[i].branch == Branch::kCommitted;
    rolled_back |= p_[i].branch == Branch::kRolledBack;
  }
  if (committed && rolled_back) Wrong("L1: two branches ended differently");
  if (committed && !decided) Wrong("L5: a branch is committed without a durable record");
  if (decided && rolled_back) Wrong("L1: decided commit, and a branch is rolled back");
  if (told_committed_ + told_aborted_ + told_read_only_ > 1 &&
      !(told_aborted_ && told_read_only_ && !told_committed_)) {
    Wrong("L10: two outcomes were told");
  }
  if (told_aborted_ && decided) Wrong("L10: aborted was told, and the record is durable");
  if (told_read_only_ && (decided || committed)) Wrong("L10: read-only was told of a commit");
}

bool World::Settled() const {
  for (int i = 0; i < participants_; ++i) {
    const Branch b = p_[i].branch;
    if (p_[i].stray || b == Branch::kActive || b == Branch::kPreparing || b == Branch::kPrepared) {
      return false;
    }
  }
  return undurable_.empty() && machine_->undecided() == 0 && machine_->unacknowledged() == 0;
}

// ------------------------------------------------------------------------------- bytes

void World::AppendSituation(std::string* out) const {
  machine_->AppendSituation(out);
  for (const LogRecord& record : durable_) out->push_back(static_cast<char>(record.index()));
  out->push_back('|');
  for (const LogRecord& record : undurable_) out->push_back(static_cast<char>(record.index()));
  out->push_back('|');
  for (int i = 0; i < participants_; ++i) {
    const Participant& p = p_[i];
    out->push_back(static_cast<char>(p.branch));
    out->push_back(static_cast<char>(p.stray | p.up << 1 | p.to_enroll << 2 | p.may_crash << 4 |
                                     p.may_break << 5 | p.may_stray << 6 | p.wanted << 7));
    out->push_back(static_cast<char>(p.may_be_slow | static_cast<int>(p.kind) << 1));
  }
  for (const Message& m : network_) {
    out->append({static_cast<char>(m.kind), static_cast<char>(m.participant),
                 static_cast<char>(m.what), static_cast<char>(m.orphan)});
  }
  out->append({'|', static_cast<char>(commits_left_), static_cast<char>(aborts_left_),
               static_cast<char>(may_crash_ | told_committed_ << 1 | told_aborted_ << 2 |
                                 told_read_only_ << 3)});
}

std::string World::Describe(const Happening& h) const {
  static constexpr const char* kNames[] = {"delivered",
                                           "delivered, refused by PostgreSQL",
                                           "delivered, answered working",
                                           "lost",
                                           "records become durable:",
                                           "time passes",
                                           "the client asks to commit",
                                           "the client asks to abort",
                                           "connected to",
                                           "asks about its branch:",
                                           "idle branch rolled back at",
                                           "connection breaks to",
                                           "crash of participant",
                                           "crash of the coordinator, records kept:",
                                           "late work prepares another branch at"};
  static constexpr const char* kMessages[] = {"prepare", "finish(commit)",  "finish(abort)",
                                              "vote",    "acknowledgement", "answer"};
  const std::string name = kNames[h.kind];
  if (h.kind <= Happening::kLose) {
    const Message& m = network_.at(h.at);
    return std::string(kMessages[m.kind]) + " " + static_cast<char>('a' + m.participant) + " " +
           name;
  }
  if (h.kind == Happening::kDurable || h.kind == Happening::kCoordinatorCrash) {
    return name + " " + std::to_string(h.at);
  }
  if (h.kind == Happening::kTime || h.kind == Happening::kClientCommits ||
      h.kind == Happening::kClientAborts) {
    return name;
  }
  return name + " " + static_cast<char>('a' + h.at);
}

}  // namespace troth::explore
