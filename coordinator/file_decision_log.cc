// See file_decision_log.h.
#include "coordinator/file_decision_log.h"

#include <algorithm>
#include <chrono>

namespace troth {

void FileDecisionLog::Start(std::function<void(const Status&)> on_fatal,
                            std::function<void()> flush_mark) {
  on_fatal_ = std::move(on_fatal);
  flush_mark_ = std::move(flush_mark);
  maintainer_ = std::thread([this] { MaintainLoop(); });
}

void FileDecisionLog::Stop() {
  if (!maintainer_.joinable()) return;
  {
    MutexLock lock(&mutex_);
    stopping_ = true;
    wake_.NotifyAll();
  }
  maintainer_.join();
  // End records that nobody waited for, then the mark.
  for (bool marked = false; !marked;) {
    marked = !wal_->FlushPending();
    auto job = wal_->BeginFlush(/*mark=*/true);
    if (!job) return;
    const Status flushed = wal_->Flush(&*job);
    if (!flushed.ok()) on_fatal_(flushed);
    wal_->EndFlush(std::move(*job));
  }
}

bool FileDecisionLog::BeginFlush(bool mark) {
  auto job = wal_->BeginFlush(mark);
  if (!job) return false;
  job_ = std::move(job);
  return true;
}

Status FileDecisionLog::Flush() {
  const auto began = std::chrono::steady_clock::now();
  const Status flushed = wal_->Flush(&*job_);
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - began;
  took_s_ = took.count();
  return flushed;
}

DecisionLog::Durable FileDecisionLog::EndFlush() {
  const auto durable = wal_->EndFlush(std::move(*job_));
  if (observer_) observer_(took_s_, durable.records - durable_records_);
  durable_records_ = durable.records;
  return Durable{durable.records, durable.batch};
}

void FileDecisionLog::MaintainLoop() {
  MutexLock lock(&mutex_);
  while (!stopping_) {
    mutex_.Unlock();
    if (wal_->MaintenanceDue()) {
      const Status maintained = wal_->Maintain();
      if (!maintained.ok()) on_fatal_(maintained);
    }
    if (wal_->MarkDue()) flush_mark_();
    // Segments run out no faster than they are made: a look each few ms is early enough.
    const auto pause =
        std::chrono::milliseconds(std::clamp<std::int64_t>(wal_->MsUntilDue(), 5, 100));
    mutex_.Lock();
    if (!stopping_) wake_.WaitFor(&mutex_, pause);
  }
}

}  // namespace troth
