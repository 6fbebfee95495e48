// The embedded home of decisions: the write-ahead log of recovery/wal.h, and the thread that
// maintains it (segments made ready, compaction, marks) beside the commits.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <thread>

#include "common/thread_annotations.h"
#include "coordinator/decision_log.h"
#include "recovery/wal.h"

namespace troth {

class FileDecisionLog : public DecisionLog {
 public:
  explicit FileDecisionLog(std::unique_ptr<Wal> wal) : wal_(std::move(wal)) {}
  ~FileDecisionLog() override { Stop(); }

  // Told how long each write and sync took, in seconds, and how many records it made durable.
  void SetSyncObserver(std::function<void(double, std::uint64_t)> observer) {
    observer_ = std::move(observer);
  }
  // Starts maintenance. `on_fatal` is told when it fails (law L15) and must not return.
  // `flush_mark` is called when an idle log wants its mark: to flush, like anyone.
  void Start(std::function<void(const Status&)> on_fatal, std::function<void()> flush_mark);
  // Ends maintenance, and writes the mark of a clean stop; its failure goes to `on_fatal` too.
  // Nobody appends any more.
  void Stop();

  void Append(const LogRecord& record) override { wal_->Append(record); }
  std::uint64_t RoomBytes() const override { return wal_->RoomBytes(); }
  void SetLeaseLine(const LocalId& line) override { wal_->SetLeaseLine(line); }
  bool BeginFlush(bool mark) override;
  Status Flush() override;
  Durable EndFlush() override;

  const Wal& wal() const { return *wal_; }

 private:
  void MaintainLoop();

  const std::unique_ptr<Wal> wal_;
  std::optional<FlushJob> job_;  // of whoever began the flush under way
  std::function<void(const Status&)> on_fatal_;
  std::function<void()> flush_mark_;
  std::function<void(double, std::uint64_t)> observer_;
  double took_s_ = 0;                  // the flush under way
  std::uint64_t durable_records_ = 0;  // of all flushes
  std::thread maintainer_;
  Mutex mutex_;
  CondVar wake_;
  bool stopping_ TROTH_GUARDED_BY(mutex_) = false;
};

}  // namespace troth
