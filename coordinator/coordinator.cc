// See coordinator.h.
#include "coordinator/coordinator.h"

#include <algorithm>
#include <utility>

#include "common/failpoint.h"

namespace troth {
namespace {

// Room that must be there before another commit is decided: the largest commit record, and an
// end record for each transaction that has one coming.
constexpr std::uint64_t kRoomForOne = 64 * 1024;
constexpr std::uint64_t kRoomPerTransaction = 32;

}  // namespace

Coordinator::Coordinator(CommitProtocol protocol, Clock* clock, DecisionLog* log,
                         ParticipantChannel* channel, ReplySink* replies)
    : clock_(clock),
      log_(log),
      channel_(channel),
      replies_(replies),
      opened_at_ms_(clock->NowMs()),
      running_base_(protocol.now()),
      epoch_(protocol.epoch()),
      protocol_(std::move(protocol)) {
  durable_batch_ = protocol_.durable_batch();
}

RunningMs Coordinator::Now() const { return running_base_ + (clock_->NowMs() - opened_at_ms_); }

void Coordinator::Start() {
  MutexLock lock(&mutex_);
  running_ = true;
  mutex_.Unlock();
  protocol_.Start(&actions_);
  Dispatch();
  const RunningMs next = protocol_.NextTimer();
  mutex_.Lock();
  next_timer_ = next;
  Run();
}

void Coordinator::Enqueue(Event event) {
  MutexLock lock(&mutex_);
  waiting_.push_back(std::move(event));
}

void Coordinator::Lead() {
  MutexLock lock(&mutex_);
  if (!running_) Run();
}

void Coordinator::Submit(Event event) {
  MutexLock lock(&mutex_);
  waiting_.push_back(std::move(event));
  if (!running_) Run();
}

void Coordinator::Submit(std::vector<Event> events) {
  MutexLock lock(&mutex_);
  std::move(events.begin(), events.end(), std::back_inserter(waiting_));
  if (!running_) Run();
}

// The leader's part. The others left their events in waiting_ and went on.
void Coordinator::Run() {
  running_ = true;
  while (!waiting_.empty()) {
    round_.clear();
    round_.swap(waiting_);
    mutex_.Unlock();
    StepAll(&round_);
    const RunningMs next = protocol_.NextTimer();
    mutex_.Lock();
    next_timer_ = next;
  }
  running_ = false;
  idle_.NotifyAll();
}

void Coordinator::StepAll(std::vector<Event>* events) {
  if (timeline_ != nullptr) timeline_->Now(clock_->NowNs());
  protocol_.Step(TimePassed{std::max(Now(), protocol_.now()), clock_->WallUnixMs()}, &actions_);
  Dispatch();
  for (Event& event : *events) {
    if (std::holds_alternative<TimePassed>(event)) continue;  // told above, and later than this
    TellRoom();
    Note(event);
    if (const auto* durable = std::get_if<RecordsDurable>(&event)) {
      durable_batch_.store(durable->batch, std::memory_order_release);
    }
    protocol_.Step(event, &actions_);
    Dispatch();
  }
  replies_->EndOfRound();
  channel_->Push();
  if (protocol_.now() - line_told_at_ >= 1000) {
    line_told_at_ = protocol_.now();
    log_->SetLeaseLine(protocol_.lease_line());
  }
}

// Room is secured before a record is handed over; without it the machine refuses commits.
void Coordinator::TellRoom() {
  const std::uint64_t needed =
      kRoomForOne + kRoomPerTransaction * (protocol_.undecided() + protocol_.unacknowledged());
  const bool enough = log_->RoomBytes() >= needed;
  if (enough == told_room_) return;
  told_room_ = enough;
  protocol_.Step(LogRoom{enough}, &actions_);
  Dispatch();
}

void Coordinator::Dispatch() {
  for (Action& action : actions_) Perform(&action);
  actions_.clear();
}

void Coordinator::Perform(Action* action) {
  struct Visitor {
    Coordinator* self;
    Action* whole;
    void operator()(const SendPrepare& a) {
      self->Note(a);
      self->channel_->Send(a);
    }
    void operator()(const SendFinish& a) {
      self->Note(a);
      self->channel_->Send(a);
    }
    void operator()(const AppendRecord& a) {
      self->Note(a);
      self->log_->Append(a.record);
      ++self->appended_;
      if (a.force) self->forced_.store(self->appended_);
    }
    void operator()(const Connect& a) { self->channel_->Connect(a); }
    void operator()(const Disconnect& a) { self->channel_->Disconnect(a.participant); }
    void operator()(const ReplyOutcome& a) {
      self->Note(a);
      Reply(a.token);
    }
    void operator()(const ReplyRefused& a) { Reply(a.token); }
    void operator()(const ReplyLease& a) { Reply(a.token); }
    void operator()(const ReplyEnrolled& a) { Reply(a.token); }
    void operator()(const ReplyAnswers& a) { Reply(a.token); }
    void operator()(const ReplyDone& a) { Reply(a.token); }
    void Reply(ReplyToken token) {
      if (token != 0) self->replies_->Reply(token, std::move(*whole));
    }
  };
  std::visit(Visitor{this, action}, *action);
}

Status Coordinator::FlushLog(bool mark) {
  if (!BeginFlush(mark)) return OkStatus();
  return EndFlush();
}

bool Coordinator::BeginFlush(bool mark) {
  if (flushing_.exchange(true)) return false;
  if (log_->BeginFlush(mark)) return true;
  flushing_.store(false);
  return false;
}

Status Coordinator::EndFlush() {
  // A crash before this leaves records undecided: never told of, absent or whole after opening.
  if (TROTH_FAILPOINT("record-handed-over")) return Status(Code::kIo, "failpoint");
  TROTH_RETURN_IF_ERROR(log_->Flush());
  const DecisionLog::Durable durable = log_->EndFlush();
  syncs_.fetch_add(1, std::memory_order_relaxed);
  // A crash here leaves decisions durable and untold: recovery finishes them.
  if (TROTH_FAILPOINT("record-durable")) return Status(Code::kIo, "failpoint");
  durable_.store(durable.records);
  // Before the next flush can begin: these events arrive in order.
  Submit(RecordsDurable{durable.records, durable.batch});
  flushing_.store(false);
  return OkStatus();
}

RunningMs Coordinator::NextTimer() const {
  MutexLock lock(&mutex_);
  return next_timer_;
}

void Coordinator::Tick() {
  MutexLock lock(&mutex_);
  if (running_) {
    // Whoever leads tells the time too; asked again at once, this would fill waiting_.
    idle_.Wait(&mutex_);
    return;
  }
  waiting_.push_back(TimePassed{Now(), clock_->WallUnixMs()});
  Run();
}

void Coordinator::Inspect(const std::function<void(const CommitProtocol&)>& look) {
  MutexLock lock(&mutex_);
  while (running_) idle_.Wait(&mutex_);
  running_ = true;
  mutex_.Unlock();
  look(protocol_);
  mutex_.Lock();
  Run();
}

std::size_t Coordinator::AwaitNone(std::chrono::milliseconds limit) {
  const auto until = std::chrono::steady_clock::now() + limit;
  MutexLock lock(&mutex_);
  for (;;) {
    while (running_) idle_.Wait(&mutex_);
    const std::size_t left = protocol_.undecided() + protocol_.unacknowledged();
    if (left == 0 || !idle_.WaitUntil(&mutex_, until)) return left;
  }
}

}  // namespace troth
