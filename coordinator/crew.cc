// See crew.h.
#include "coordinator/crew.h"

#include <algorithm>

#include "common/check.h"

namespace troth {

Crew::Crew(std::function<void(const Status&)> on_fatal) : on_fatal_(std::move(on_fatal)) {}

Crew::~Crew() { Stop(); }

void Crew::Start(Coordinator* coordinator, AnswerSource* answers) {
  coordinator_ = coordinator;
  answers_ = answers;
  keeper_ = std::thread([this] { KeeperLoop(); });
}

void Crew::Stop() {
  if (!keeper_.joinable()) return;
  {
    MutexLock lock(&mutex_);
    stopping_ = true;
    for (Call* call : waiting_) call->woken_.NotifyOne();
    keeper_woken_.NotifyOne();
  }
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
    const RunningMs now = coordinator_->Now();
    const RunningMs until = std::clamp<RunningMs>(coordinator_->NextTimer(), now, now + 1000);
    poll_until_ = until;
    mutex_.Unlock();
    answers_->Poll(until - now);
    if (coordinator_->NextTimer() <= coordinator_->Now()) coordinator_->Tick();
    mutex_.Lock();
    polling_ = false;
    return true;
  }
  return false;
}

// Called by a thread that leaves: what it did must go on.
void Crew::Promote() {
  // What it stepped may want to be told of the time before the poll under way ends.
  if (polling_ && coordinator_->NextTimer() < poll_until_) answers_->Interrupt();
  if (!DutiesOpen()) return;
  for (Call* call : waiting_) {
    if (call->promoted_) return;  // on its way already
  }
  if (!waiting_.empty()) {
    waiting_.front()->promoted_ = true;
    waiting_.front()->woken_.NotifyOne();
  } else {
    keeper_wanted_ = true;
    keeper_woken_.NotifyOne();
  }
}

void Crew::Nudge() {
  MutexLock lock(&mutex_);
  Promote();
}

std::optional<Action> Crew::Await(Call* call) {
  MutexLock lock(&mutex_);
  while (!call->done_ && !stopping_) {
    if (WorkOnce(call)) continue;
    // Others do what there is to do. Between that look and falling asleep the mutex is held,
    // and whoever ends a duty takes it: no wake-up is lost.
    if (coordinator_->NextTimer() < poll_until_) answers_->Interrupt();
    call->waiting_ = true;
    auto seat = waiting_.insert(waiting_.end(), call);
    while (!call->done_ && !call->promoted_ && !stopping_) call->woken_.Wait(&mutex_);
    waiting_.erase(seat);
    call->waiting_ = false;
    call->promoted_ = false;
  }
  Promote();
  if (!call->done_) return std::nullopt;
  return std::move(call->reply_);
}

void Crew::Reply(ReplyToken token, Action reply) {
  auto* call = reinterpret_cast<Call*>(token);
  MutexLock lock(&mutex_);
  if (stopping_) return;  // the call may be gone
  TROTH_CHECK(!call->done_);
  call->reply_ = std::move(reply);
  call->done_ = true;
  if (call->waiting_) {
    call->woken_.NotifyOne();
  } else if (polling_ && poller_ == call) {
    answers_->Interrupt();  // its thread reads answers of others meanwhile
  }
}

// Leads only while no caller waits: it is one hand-off more than the caller's own thread.
void Crew::KeeperLoop() {
  MutexLock lock(&mutex_);
  while (!stopping_) {
    if (waiting_.empty() && WorkOnce(nullptr)) continue;
    Promote();
    if (keeper_wanted_) {
      keeper_wanted_ = false;
      continue;
    }
    const RunningMs left = coordinator_->NextTimer() - coordinator_->Now();
    if (left <= 0) {
      if (!polling_) {
        // Nobody waits for an answer: a participant that is gone is noticed all the same.
        polling_ = true;
        poller_ = nullptr;
        poll_until_ = coordinator_->Now();
        mutex_.Unlock();
        answers_->Poll(0);
        mutex_.Lock();
        polling_ = false;
        Promote();
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
