// See branch_table.h.
#include "participant/branch_table.h"

#include <algorithm>
#include <cstdio>
#include <unordered_set>

#include "common/check.h"
#include "common/failpoint.h"
#include "common/mark.h"
#include "common/transaction_id.h"
#include "participant/branch_table_state.h"

namespace troth {

using std::chrono::milliseconds;

namespace {

// How long the roll-back of what was prepared and must not be may delay its caller.
constexpr milliseconds kMoment{5};
// A cancel may meet no statement; the next one must not run on.
constexpr milliseconds kCancelAgain{1'000};
// So long after its deadline, work that was told to end does not come back.
constexpr milliseconds kGivenUp{1'000};

Refusal NoSuchBranch(const std::string& id) {
  return Refuse(Refused::kNoSuchBranch,
                "there is no branch of " + id +
                    " here: never begun, or lost when the participant restarted; abort the "
                    "transaction and begin anew",
                true);
}

// The branch was not begun, and nothing of it is kept: work of this id may still come.
Refusal Unheard(Refusal refusal) {
  refusal.unheard = true;
  return refusal;
}

Vote RefusedVote(Refusal refusal, int works = 0) {
  return Vote{Vote::Kind::kRefused, works, {}, std::move(refusal)};
}

}  // namespace

BranchTable::BranchTable(BranchTableOptions options, ResourceManager* resource_manager,
                         Clock* clock, Random random)
    : options_(std::move(options)),
      resource_manager_(resource_manager),
      clock_(clock),
      random_(std::move(random)) {
  TROTH_CHECK(IsParticipantName(options_.participant));
}

BranchTable::~BranchTable() = default;

std::string BranchTable::GidOf(const std::string& id) const {
  return GidPrefix(options_.participant) + id;
}

std::string BranchTable::NewMark() {
  char text[17];
  std::snprintf(text, sizeof text, "%016llx", static_cast<unsigned long long>(random_()));
  return text;
}

// Work --------------------------------------------------------------------------------------

Granted<Work> BranchTable::StartWork(const WorkRequest& request) {
  if (const Result<TransactionId> id = TransactionId::Parse(request.transaction_id); !id.ok()) {
    return Refuse(Refused::kInvalid, id.status().message());
  }
  if (request.work < 0) return Refuse(Refused::kInvalid, "the number of work is negative");
  if (request.time_left <= milliseconds(0)) {
    return Refuse(Refused::kDeadline, "the transaction's deadline has passed", true);
  }
  if (request.time_left > options_.lease) {
    return Refuse(Refused::kInvalid,
                  "no transaction lasts longer than a lease: deadline_ms is above " +
                      std::to_string(options_.lease.count()));
  }
  return request.work == 0 ? Open(request) : Continue(request);
}

std::optional<Refusal> BranchTable::MayOpen(const WorkRequest& request) const {
  const std::string& id = request.transaction_id;
  if (ended_.contains(id)) {
    TROTH_MARK("work-after-the-end");
    return Refuse(Refused::kEnded, "transaction " + id + " has already ended here");
  }
  if (branches_.contains(id)) {
    return Refuse(Refused::kOutOfNumber,
                  "transaction " + id + " has a branch here already: its work 0 was done");
  }
  if (!request.mark.empty()) {
    return Refuse(Refused::kOutOfNumber, "work 0 brings a mark, which only work 0 draws");
  }
  if (OfEndedEpoch(id)) {
    TROTH_MARK("work-of-an-ended-epoch");
    return Refuse(Refused::kEnded,
                  "transaction " + id + " is of an epoch that its coordinator has ended", true);
  }
  if (draining_) {
    return Unheard(Refuse(Refused::kNotServing, "the participant is shutting down", true));
  }
  if (!HasRoom()) {
    return Unheard(Refuse(Refused::kOverloaded,
                          std::to_string(branches_.size() + found_) +
                              " branches are open or in doubt here, the limit is max_in_doubt = " +
                              std::to_string(options_.max_in_doubt),
                          true));
  }
  if (ended_.size() >= options_.max_ended) {
    return Unheard(
        Refuse(Refused::kOverloaded, "too many transactions ended within one lease", true));
  }
  return std::nullopt;
}

// Takes the time off what the request has left.
void BranchTable::AwaitRoom(WorkRequest* request) {
  const std::int64_t came_ms = clock_->NowMs();
  const auto until =
      std::chrono::steady_clock::now() + std::min(request->patience, request->time_left);
  while (!HasRoom() && !draining_ && room_.WaitUntil(&mutex_, until)) {
  }
  const milliseconds waited(clock_->NowMs() - came_ms);
  request->patience = std::max(request->patience - waited, milliseconds(0));
  request->time_left = std::max(request->time_left - waited, milliseconds(1));
}

Granted<Work> BranchTable::Open(WorkRequest request) {
  Branch* branch = nullptr;
  {
    MutexLock lock(&mutex_);
    if (!HasRoom() && request.patience > milliseconds(0)) AwaitRoom(&request);
    if (std::optional<Refusal> refusal = MayOpen(request)) {
      room_.NotifyOne();  // who was woken for a place and does not take it hands it on
      overloaded_ += refusal->reason == Refused::kOverloaded;
      return *std::move(refusal);
    }
    auto fresh = std::make_unique<Branch>();
    branch = fresh.get();
    branch->id = request.transaction_id;
    branch->mark = NewMark();
    branch->begun_ms = clock_->NowMs();
    branch->deadline_ms = branch->begun_ms + request.time_left.count();
    branch->Enter(State::kOpening, branch->begun_ms);
    branches_.emplace(branch->id, std::move(fresh));
  }
  Granted<std::unique_ptr<Session>> session = resource_manager_->Begin(
      {GidOf(branch->id), branch->mark, request.isolation, request.read_only, request.time_left,
       request.one_statement, request.one_statement && request.last, request.patience,
       request.label});
  Leaving leaving;
  std::optional<Refusal> refusal;
  Work work{request.transaction_id, nullptr};
  {
    MutexLock lock(&mutex_);
    if (branch->doom.has_value()) {  // aborted meanwhile
      refusal = branch->doom;
      if (session.ok()) leaving.roll_back.push_back(std::move(*session));
      End(request.transaction_id, {Ended::How::kRolledBack, true, 0, *refusal});
    } else if (!session.ok()) {
      refusal = Unheard(session.refusal());
      overloaded_ += refusal->reason == Refused::kOverloaded;
      branches_.erase(request.transaction_id);
      room_.NotifyOne();
    } else {
      branch->session = std::move(*session);
      work.session = branch->session.get();
      branch->Enter(State::kWorking, clock_->NowMs());
    }
  }
  changed_.NotifyAll();
  Leave(&leaving);
  if (refusal.has_value()) return *std::move(refusal);
  return work;
}

Granted<Work> BranchTable::Continue(const WorkRequest& request) {
  const std::string& id = request.transaction_id;
  MutexLock lock(&mutex_);
  const auto found = branches_.find(id);
  if (found == branches_.end()) {
    if (ended_.contains(id)) {
      return Refuse(Refused::kEnded, "transaction " + id + " has already ended here");
    }
    return NoSuchBranch(id);
  }
  Branch* branch = found->second.get();
  if (request.mark != branch->mark) {
    return Refuse(Refused::kOutOfNumber, "the mark is not that of the branch of " + id + " here");
  }
  if (branch->doom.has_value()) {
    Refusal refusal = *branch->doom;
    refusal.reason = Refused::kEnded;
    refusal.message = "an earlier piece of work failed, abort the transaction: " + refusal.message;
    return refusal;
  }
  switch (branch->state) {
    case State::kActive: break;
    case State::kOpening:
    case State::kWorking:
      return Refuse(Refused::kOutOfNumber, "another piece of work of " + id + " is under way");
    default:
      return Refuse(Refused::kEnded, "the branch of " + id + " is being prepared, or is prepared");
  }
  if (request.work != branch->works) {
    return Refuse(Refused::kOutOfNumber, "work " + std::to_string(request.work) + " of " + id +
                                             " came, and " + std::to_string(branch->works) +
                                             " is next");
  }
  if (clock_->NowMs() >= branch->deadline_ms) {
    return Refuse(Refused::kDeadline, "the transaction's deadline has passed", true);
  }
  branch->Enter(State::kWorking, clock_->NowMs());
  return Work{id, branch->session.get()};
}

Granted<WorkReply> BranchTable::EndWork(const Work& work, std::optional<Refusal> failure,
                                        bool last) {
  TROTH_FAILPOINT("work-done");
  Branch* branch = nullptr;
  std::unique_ptr<Session> leaving;
  milliseconds time_left{0};
  WorkReply reply;
  bool sent = false;
  {
    MutexLock lock(&mutex_);
    const auto found = branches_.find(work.transaction_id);
    TROTH_CHECK(found != branches_.end());
    branch = found->second.get();
    TROTH_CHECK(branch->state == State::kWorking && branch->session.get() == work.session);
    while (branch->cancelling) changed_.Wait(&mutex_);
    if (branch->doom.has_value()) failure = branch->doom;
    if (!failure.has_value()) failure = branch->session->Broken();
    time_left = milliseconds(branch->deadline_ms - clock_->NowMs());
    if (!failure.has_value() && last && time_left <= milliseconds(0)) {
      failure =
          Refuse(Refused::kDeadline, "the deadline passed before the branch was prepared", true);
    }
    sent = branch->session->PrepareSent();
    TROTH_CHECK(last || !sent);
    if (failure.has_value() && sent) {
      branch->doom = failure;
      branch->Enter(State::kPreparing, clock_->NowMs());
      branch->driven = true;
    } else if (failure.has_value()) {
      leaving = std::move(branch->session);
    } else {
      ++branch->works;
      branch->Enter(last ? State::kPreparing : State::kActive, clock_->NowMs());
      branch->driven = last;
      reply = WorkReply{branch->mark, branch->works, std::nullopt};
    }
  }
  if (failure.has_value() && sent) {
    TROTH_MARK("prepared-with-work-that-is-refused");
    DrivePrepares({branch}, milliseconds(0));
    return *std::move(failure);
  }
  if (failure.has_value()) {
    leaving->Rollback();
    leaving.reset();
    MutexLock lock(&mutex_);
    if (branch->doom.has_value()) {
      End(work.transaction_id, {Ended::How::kRolledBack, true, branch->works, *branch->doom});
    } else {
      branch->doom = failure;
      branch->Enter(State::kFailed, clock_->NowMs());
    }
    changed_.NotifyAll();
    return *std::move(failure);
  }
  changed_.NotifyAll();
  if (!last) return reply;
  DrivePrepares({branch}, time_left);
  MutexLock lock(&mutex_);
  reply.vote = VoteOf(work.transaction_id);
  if (reply.vote->kind == Vote::Kind::kRefused) return reply.vote->refusal;
  if (reply.vote->kind == Vote::Kind::kWorking) {
    TROTH_MARK("early-prepare-not-in-time");
    const auto found = branches_.find(work.transaction_id);
    const Refusal late = Refuse(Refused::kDeadline, "the branch was not prepared in time", true);
    if (found != branches_.end()) found->second->doom = late;  // rolled back when it is prepared
    return late;
  }
  return reply;
}

// Prepare -----------------------------------------------------------------------------------

std::vector<Vote> BranchTable::Prepare(std::span<const PrepareRequest> requests,
                                       milliseconds wait) {
  std::vector<std::optional<Vote>> early(requests.size());
  std::vector<Branch*> to_drive;
  Leaving leaving;
  {
    MutexLock lock(&mutex_);
    for (std::size_t i = 0; i < requests.size(); ++i) {
      early[i] = StartPrepare(requests[i], &to_drive, &leaving);
    }
  }
  Leave(&leaving);
  if (!to_drive.empty()) DrivePrepares(to_drive, wait);
  std::vector<Vote> votes;
  MutexLock lock(&mutex_);
  for (std::size_t i = 0; i < requests.size(); ++i) {
    votes.push_back(early[i].has_value() ? *early[i] : VoteOf(requests[i].transaction_id));
  }
  return votes;
}

// A vote, or nullopt: it is in the database's hands.
std::optional<Vote> BranchTable::StartPrepare(const PrepareRequest& request,
                                              std::vector<Branch*>* to_drive, Leaving* leaving) {
  const std::string& id = request.transaction_id;
  const auto found = branches_.find(id);
  if (found == branches_.end()) {
    if (!TransactionId::Parse(id).ok()) {
      return RefusedVote(Refuse(Refused::kInvalid, "not a transaction id"));
    }
    // The vote binds: work that comes later must find the id ended.
    if (!ended_.contains(id)) End(id, {Ended::How::kRolledBack, false, 0, NoSuchBranch(id)});
    return VoteOf(id);
  }
  Branch* branch = found->second.get();
  std::optional<Refusal> refusal;
  if (request.instance != options_.instance) {
    refusal = NoSuchBranch(id);
  } else if (request.mark != branch->mark || request.works != branch->works) {
    refusal =
        Refuse(Refused::kOutOfNumber,
               "prepare names mark " + request.mark + " and " + std::to_string(request.works) +
                   " pieces of work; the branch of " + id + " here has mark " + branch->mark +
                   " and did " + std::to_string(branch->works));
  }
  switch (branch->state) {
    case State::kOpening:
    case State::kWorking:
      if (!refusal)
        refusal = Refuse(Refused::kOutOfNumber, "work of " + id + " is still under way");
      break;
    case State::kFailed: refusal = branch->doom; break;
    case State::kActive:
      if (!refusal &&
          (clock_->NowMs() >= branch->deadline_ms || request.time_left <= milliseconds(0))) {
        refusal =
            Refuse(Refused::kDeadline, "the deadline passed before the branch was prepared", true);
      }
      break;
    case State::kPreparing:
    case State::kPrepared:
    case State::kFinishing:
      if (refusal) return RefusedVote(*refusal, branch->works);
      if (branch->state == State::kPreparing && !branch->driven) {
        branch->driven = true;
        to_drive->push_back(branch);
      }
      return std::nullopt;
  }
  if (refusal) {
    const int works = branch->works;
    Doom(branch, *refusal, leaving);
    return RefusedVote(*refusal, works);
  }
  branch->Enter(State::kPreparing, clock_->NowMs());
  branch->driven = true;
  to_drive->push_back(branch);
  return std::nullopt;
}

// The branches are kPreparing and `driven` by this thread.
void BranchTable::DrivePrepares(const std::vector<Branch*>& branches, milliseconds wait) {
  std::vector<PrepareItem> items;
  for (Branch* branch : branches) items.push_back({branch->session.get(), std::nullopt});
  resource_manager_->Prepare(items, wait);
  Leaving leaving;
  {
    MutexLock lock(&mutex_);
    for (std::size_t i = 0; i < items.size(); ++i) {
      branches[i]->driven = false;
      if (items[i].result.has_value()) TakePrepared(branches[i], *items[i].result, &leaving);
    }
  }
  changed_.NotifyAll();
  Leave(&leaving);
}

// Of what this branch may have prepared, and nothing else: an earlier branch of the id, which
// voted, may sit under its GID.
FinishOrder BranchTable::RollBackOf(const std::string& id, const PrepareResult& result) const {
  FinishOrder order;
  order.gid = GidOf(id);
  order.only_xid = static_cast<std::uint32_t>(result.evidence.xid);
  return order;
}

void BranchTable::TakePrepared(Branch* branch, const PrepareResult& result, Leaving* leaving) {
  using Kind = PrepareResult::Kind;
  const std::string id = branch->id;
  leaving->give_back.push_back(std::move(branch->session));
  switch (result.kind) {
    case Kind::kPrepared:
      if (!branch->doom.has_value()) {
        branch->evidence = result.evidence;
        branch->generation = result.generation;
        branch->Enter(State::kPrepared, clock_->NowMs());
        branch->prepared_ms = branch->since_ms;
        return;
      }
      TROTH_MARK("prepared-and-aborted-meanwhile");
      leaving->roll_back_prepared.push_back(RollBackOf(id, result));
      End(id, {Ended::How::kRolledBack, false, branch->works, *branch->doom});
      return;
    case Kind::kReadOnly:
      if (branch->doom.has_value()) {
        End(id, {Ended::How::kRolledBack, true, branch->works, *branch->doom});
      } else {
        End(id, {Ended::How::kReadOnly, true, branch->works, {}});
      }
      return;
    case Kind::kRefused: {
      // 42710: somebody else's is prepared under this GID.
      const bool settled = result.refusal.sqlstate != "42710";
      End(id, {Ended::How::kRolledBack, settled, branch->works, result.refusal});
      return;
    }
    case Kind::kUnknown:
      TROTH_MARK("prepare-without-an-answer");
      // Whatever it came to, it was not said: no vote. If it is prepared it goes now, or the
      // sweep finds it.
      leaving->roll_back_prepared.push_back(RollBackOf(id, result));
      End(id, {Ended::How::kRolledBack, false, branch->works, result.refusal});
      return;
  }
}

Vote BranchTable::VoteOf(const std::string& id) const {
  if (const auto live = branches_.find(id); live != branches_.end()) {
    const Branch& branch = *live->second;
    if (branch.state == State::kPrepared || branch.state == State::kFinishing) {
      return Vote{Vote::Kind::kPrepared, branch.works, branch.evidence, {}};
    }
    return Vote{Vote::Kind::kWorking, branch.works, {}, {}};
  }
  const auto past = ended_.find(id);
  if (past == ended_.end()) return RefusedVote(NoSuchBranch(id));
  const Ended& ended = past->second;
  switch (ended.how) {
    case Ended::How::kReadOnly: return Vote{Vote::Kind::kReadOnly, ended.works, {}, {}};
    case Ended::How::kRolledBack: return RefusedVote(ended.why, ended.works);
    case Ended::How::kCommitted: break;
  }
  return RefusedVote(Refuse(Refused::kEnded, "transaction " + id + " is already committed here"));
}

// Ends --------------------------------------------------------------------------------------

void BranchTable::Doom(Branch* branch, const Refusal& why, Leaving* leaving) {
  const std::string id = branch->id;
  if (branch->state == State::kActive || branch->state == State::kFailed) {
    if (branch->session != nullptr) leaving->roll_back.push_back(std::move(branch->session));
    End(id, {Ended::How::kRolledBack, true, branch->works, why});
    return;
  }
  branch->doom = why;
  if (branch->state == State::kWorking && branch->session != nullptr && !branch->cancelling) {
    StartCancel(branch, leaving);
  }
}

void BranchTable::StartCancel(Branch* branch, Leaving* leaving) {
  branch->cancelling = true;
  branch->cancelled_ms = clock_->NowMs();
  leaving->cancel.push_back(branch);
}

void BranchTable::End(const std::string& id, const Ended& ended) {
  const std::string key = id;  // `id` may live in the branch
  branches_.erase(key);
  room_.NotifyOne();
  const auto [entry, fresh] = ended_.insert_or_assign(key, ended);
  if (fresh) ended_order_.emplace_back(clock_->NowMs(), key);
}

void BranchTable::Leave(Leaving* leaving) {
  for (Branch* branch : leaving->cancel) branch->session->Cancel();
  if (!leaving->cancel.empty()) {
    {
      MutexLock lock(&mutex_);
      for (Branch* branch : leaving->cancel) branch->cancelling = false;
    }
    changed_.NotifyAll();
  }
  for (std::unique_ptr<Session>& session : leaving->roll_back) session->Rollback();
  leaving->roll_back.clear();
  leaving->give_back.clear();
  if (leaving->roll_back_prepared.empty()) return;
  std::vector<FinishItem> items;
  for (FinishOrder& order : leaving->roll_back_prepared) items.push_back({std::move(order), {}});
  resource_manager_->Finish(items, kMoment);
}

void BranchTable::ForgetOldEnded() {
  const std::int64_t before = clock_->NowMs() - options_.lease.count();
  while (!ended_order_.empty() && ended_order_.front().first < before) {
    ended_.erase(ended_order_.front().second);
    ended_order_.pop_front();
  }
}

void BranchTable::Tick() {
  std::vector<Branch*> to_drive;
  Leaving leaving;
  {
    MutexLock lock(&mutex_);
    const std::int64_t now = clock_->NowMs();
    std::vector<Branch*> late;
    for (auto& [id, branch] : branches_) {
      if (branch->state == State::kPreparing && !branch->driven) {
        branch->driven = true;
        to_drive.push_back(branch.get());
      }
      const bool open = branch->state == State::kActive || branch->state == State::kFailed ||
                        (branch->state == State::kWorking && !branch->doom.has_value());
      if (open && now >= branch->deadline_ms) late.push_back(branch.get());
      if (branch->state == State::kWorking && branch->doom && branch->session != nullptr &&
          !branch->cancelling && now - branch->cancelled_ms >= kCancelAgain.count()) {
        StartCancel(branch.get(), &leaving);
      }
    }
    const Refusal why = Refuse(Refused::kDeadline, "the transaction's deadline has passed", true);
    for (Branch* branch : late) Doom(branch, why, &leaving);
    ForgetOldEnded();
  }
  changed_.NotifyAll();
  Leave(&leaving);
  if (!to_drive.empty()) DrivePrepares(to_drive, milliseconds(0));
}

void BranchTable::EpochBegan(const std::string& coordinator, std::uint32_t epoch) {
  Leaving leaving;
  {
    MutexLock lock(&mutex_);
    std::uint32_t& known = epochs_[coordinator];
    if (epoch <= known) return;
    known = epoch;
    std::vector<Branch*> over;
    for (auto& [id, branch] : branches_) {
      if (branch->state <= State::kFailed && !branch->doom && OfEndedEpoch(id)) {
        over.push_back(branch.get());
      }
    }
    const Refusal why =
        Refuse(Refused::kEnded, "the coordinator has ended the transaction's epoch", true);
    if (!over.empty()) TROTH_MARK("open-branch-of-an-ended-epoch");
    for (Branch* branch : over) Doom(branch, why, &leaving);
  }
  changed_.NotifyAll();
  Leave(&leaving);
}

bool BranchTable::OfEndedEpoch(const std::string& id) const {
  const Result<TransactionId> parsed = TransactionId::Parse(id);
  if (!parsed.ok()) return false;
  const auto epoch = epochs_.find(parsed->coordinator);
  return epoch != epochs_.end() && parsed->local.epoch.number < epoch->second;
}

bool BranchTable::LooksAfter(const std::string& transaction_id, milliseconds young) const {
  MutexLock lock(&mutex_);
  const auto found = branches_.find(transaction_id);
  if (found == branches_.end()) return false;
  const Branch& branch = *found->second;
  if (branch.state == State::kPrepared) return clock_->NowMs() - branch.since_ms < young.count();
  // What it prepared with its statement would hold its locks as long as the application hangs.
  return branch.state != State::kWorking || clock_->NowMs() - branch.deadline_ms < kGivenUp.count();
}

void BranchTable::Listed(const std::vector<std::string>& transaction_ids, std::int64_t asked_at_ms,
                         std::size_t found) {
  const std::unordered_set<std::string> listed(transaction_ids.begin(), transaction_ids.end());
  MutexLock lock(&mutex_);
  found_ = found;
  room_.NotifyAll();
  std::vector<std::string> gone;
  for (const auto& [id, branch] : branches_) {
    if (branch->state == State::kPrepared && branch->since_ms < asked_at_ms &&
        !listed.contains(id)) {
      gone.push_back(id);
    }
  }
  for (const std::string& id : gone) {
    TROTH_MARK("prepared-branch-is-gone");
    End(id, {Ended::How::kRolledBack, false, 0,
             Refuse(Refused::kEnded, "the branch was settled by another hand")});
  }
}

// Views -------------------------------------------------------------------------------------

BranchCounts BranchTable::Counts() const {
  MutexLock lock(&mutex_);
  BranchCounts counts;
  for (const auto& [id, branch] : branches_) {
    const bool in_doubt = branch->state == State::kPreparing || branch->state == State::kPrepared ||
                          branch->state == State::kFinishing;
    ++(in_doubt ? counts.in_doubt : counts.active);
  }
  counts.found = found_;
  counts.ended = ended_.size();
  counts.heuristics = heuristics_;
  counts.hazards = hazards_;
  counts.overloaded = overloaded_;
  return counts;
}

std::vector<BranchInfo> BranchTable::List(std::size_t limit) const {
  MutexLock lock(&mutex_);
  const std::int64_t now = clock_->NowMs();
  std::vector<BranchInfo> list;
  for (const auto& [id, branch] : branches_) {
    const char* state = "active";
    if (branch->state == State::kFailed) state = "failed";
    if (branch->state == State::kPreparing) state = "preparing";
    if (branch->state == State::kPrepared) state = "prepared";
    if (branch->state == State::kFinishing) state = "finishing";
    list.push_back({id, state, milliseconds(now - branch->begun_ms)});
  }
  std::sort(list.begin(), list.end(),
            [](const BranchInfo& a, const BranchInfo& b) { return a.age > b.age; });
  if (list.size() > limit) list.resize(limit);
  return list;
}

void BranchTable::Drain() {
  MutexLock lock(&mutex_);
  draining_ = true;
  room_.NotifyAll();
}

void BranchTable::AwaitNone(milliseconds wait) {
  const std::int64_t deadline_ms = clock_->NowMs() + wait.count();
  MutexLock lock(&mutex_);
  while (!branches_.empty()) {
    const milliseconds left(deadline_ms - clock_->NowMs());
    if (left <= milliseconds(0)) return;
    changed_.WaitFor(&mutex_, left);
  }
}

void BranchTable::RollbackAll() {
  Leaving leaving;
  {
    MutexLock lock(&mutex_);
    draining_ = true;
    std::vector<Branch*> open;
    for (auto& [id, branch] : branches_) {
      if (branch->state <= State::kFailed) open.push_back(branch.get());
    }
    const Refusal why = Refuse(Refused::kNotServing, "the participant is shutting down", true);
    for (Branch* branch : open) Doom(branch, why, &leaving);
  }
  Leave(&leaving);
}

}  // namespace troth
