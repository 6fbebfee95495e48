// See crew.h.
#include "coordinator/crew.h"

#include <algorithm>

#include "common/check.h"

namespace troth {

// A poll lasts no longer, and nobody waits longer for the next: so long it may take to notice that
// a participant is gone of which nothing is asked.
constexpr RunningMs kLookMs = 1'000;

Crew::Crew(std::function<void(const Status&)> on_fatal) : on_fatal_(std::move(on_fatal)) {}

Crew::~Crew() { Stop(); }

void Crew::Start(Coordinator* coordinator, AnswerSource* answers) {
  coordinator_ = coordinator;
  answers_ = answers;
  keeper_ = std::thread([this] { KeeperLoop(); });
}

void Crew::Stop() {
  if (!keeper_.joinable()) return;
  std::vector<Call*> asleep;
  {
    MutexLock lock(&mutex_);
    stopping_ = true;
    while (!waiting_.empty()) asleep.push_back(Raise(waiting_.front()));
    keeper_woken_.NotifyOne();
  }
  for (Call* call : asleep) Wake(call);
  answers_->Interrupt();
  keeper_.join();
}

// A duty that nobody has and that somebody should: the one question of leader and followers.
// Who waits for a reply reads answers and keeps time, even if no call is under way yet.
bool Crew::DutiesOpen() const {
  return (!flushing_ && coordinator_->FlushDue()) ||
         (!polling_ && (!waiting_.empty() || answers_->Outstanding()));
}

// Does one duty, if one is open; the mutex is given back meanwhile. `call` is that of the
// working thread, null for the keeper.
bool Crew::WorkOnce(Call* call) {
  if (!flushing_ && coordinator_->FlushDue()) {
    flushing_ = true;
    mutex_.Unlock();
    const Status flushed = coordinator_->FlushLog();
    if (!flushed.ok()) on_fatal_(flushed);
    mutex_.Lock();
    flushing_ = false;
    return true;
  }
  if (!polling_ && (call != nullptr || answers_->Outstanding())) {
    polling_ = true;
    poller_ = call;
    poller_thread_ = pthread_self();
    const RunningMs now = coordinator_->Now();
    const RunningMs until = std::clamp<RunningMs>(coordinator_->NextTimer(), now, now + kLookMs);
    poll_until_ = until;
    polled_at_ = now;
    mutex_.Unlock();
    answers_->Poll(until - now);
    if (coordinator_->NextTimer() <= coordinator_->Now()) coordinator_->Tick();
    mutex_.Lock();
    polling_ = false;
    return true;
  }
  return false;
}

// Takes a sleeping call out of the row; it must be woken then.
Crew::Call* Crew::Raise(Call* call) {
  waiting_.erase(call->seat_);
  call->asleep_ = false;
  return call;
}

void Crew::Wake(Call* call) {
  if (call != nullptr) sem_post(&call->woken_);
}

// Called by a thread that leaves: what it did must go on.
Crew::Call* Crew::Promote() {
  // What it stepped may want to be told of the time before the poll under way ends.
  if (polling_ && coordinator_->NextTimer() < poll_until_) answers_->Interrupt();
  if (promoted_ > 0 || !DutiesOpen()) return nullptr;  // one is on its way already
  if (waiting_.empty()) {
    keeper_wanted_ = true;
    keeper_woken_.NotifyOne();
    return nullptr;
  }
  ++promoted_;
  waiting_.front()->promoted_ = true;
  return Raise(waiting_.front());
}

void Crew::Nudge() {
  mutex_.Lock();
  Call* const next = Promote();
  mutex_.Unlock();
  Wake(next);
}

std::optional<Action> Crew::Await(Call* call) {
  mutex_.Lock();
  while (!call->done_ && !stopping_) {
    if (WorkOnce(call)) continue;
    // Others do what there is to do. Between that look and falling asleep the mutex is held,
    // and whoever ends a duty takes it: no wake-up is lost.
    if (coordinator_->NextTimer() < poll_until_) answers_->Interrupt();
    call->asleep_ = true;
    call->seat_ = waiting_.insert(waiting_.end(), call);
    mutex_.Unlock();
    while (sem_wait(&call->woken_) != 0) {
    }
    // Who slept until the reply came has begun nothing that must go on. (Who was promoted may be
    // replied to at this moment.)
    if (!call->promoted_ && call->done_) return std::move(call->reply_);
    mutex_.Lock();
    if (std::exchange(call->promoted_, false)) --promoted_;
  }
  Call* const next = Promote();
  const bool done = call->done_;
  mutex_.Unlock();
  Wake(next);
  if (!done) return std::nullopt;
  return std::move(call->reply_);
}

void Crew::Reply(ReplyToken token, Action reply) {
  replies_.emplace_back(reinterpret_cast<Call*>(token), std::move(reply));
}

void Crew::EndOfRound() {
  if (replies_.empty()) return;
  {
    MutexLock lock(&mutex_);
    for (auto& [call, reply] : replies_) {
      if (stopping_) break;  // the calls may be gone
      TROTH_CHECK(!call->done_);
      call->reply_ = std::move(reply);
      call->done_ = true;
      if (call->asleep_) {
        woken_.push_back(Raise(call));
      } else if (polling_ && poller_ == call && !pthread_equal(poller_thread_, pthread_self())) {
        answers_->Interrupt();  // its thread reads answers of others meanwhile
      }
    }
  }
  for (Call* call : woken_) Wake(call);
  woken_.clear();
  replies_.clear();
}

// Leads only while no caller waits: it is one hand-off more than the caller's own thread.
void Crew::KeeperLoop() {
  MutexLock lock(&mutex_);
  while (!stopping_) {
    if (waiting_.empty() && WorkOnce(nullptr)) continue;
    Wake(Promote());
    if (keeper_wanted_) {
      keeper_wanted_ = false;
      continue;
    }
    // Not by the machine's timer alone: each event moves its next second away.
    const RunningMs now = coordinator_->Now();
    const RunningMs left = std::min(coordinator_->NextTimer(), polled_at_ + kLookMs) - now;
    if (left <= 0) {
      polled_at_ = now;
      if (!polling_) {
        // Nobody waits for an answer: a participant that is gone is noticed all the same.
        polling_ = true;
        poller_ = nullptr;
        poll_until_ = now;
        mutex_.Unlock();
        answers_->Poll(0);
        mutex_.Lock();
        polling_ = false;
        Wake(Promote());
      }
      mutex_.Unlock();
      coordinator_->Tick();
      mutex_.Lock();
      continue;
    }
    keeper_woken_.WaitFor(&mutex_, std::chrono::milliseconds(left));
    keeper_wanted_ = false;
  }
}

}  // namespace troth
