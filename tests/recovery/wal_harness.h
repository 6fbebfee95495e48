// A log on a simulated disk, driven in a small language, and the book of what it promised.
// Used by the log's tests and by tests/crash/damage_test.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "recovery/wal.h"
#include "tests/simulation/sim_file_system.h"

namespace troth {

class ManualClock final : public Clock {
 public:
  std::int64_t NowNs() override { return now_ns_; }
  std::int64_t WallUnixMs() override { return 1'700'000'000'000 + now_ns_ / 1'000'000; }
  void AdvanceMs(std::int64_t ms) { now_ns_ += ms * 1'000'000; }

 private:
  std::int64_t now_ns_ = 1'000'000'000;
};

// All of a state, a record a line, in the order of its checkpoint.
std::string TextOf(const RecoveredState& state);

// Records for tests. Sequences of epoch 1-000000e1 below 1'000'000 are reserved by `Prologue`.
inline constexpr Epoch kTestEpoch{1, 0xe1};
LocalId TestId(std::uint64_t sequence);
CommitRecord TestCommit(std::uint64_t sequence, int branches = 2, std::string key = "");
std::vector<LogRecord> Prologue();
// One of each type that the log may hold, checkpoint-only ones left out.
std::vector<LogRecord> OneOfEach();

class WalHarness {
 public:
  explicit WalHarness(std::uint64_t seed = 1);

  SimFileSystem& fs() { return fs_; }
  ManualClock& clock() { return clock_; }
  WalOptions& options() { return options_; }
  Wal& wal() { return *wal_; }
  bool open() const { return wal_ != nullptr; }
  // What replay gave, and what became durable since.
  const RecoveredState& state() const { return *state_; }
  static const std::string& directory();

  Status Init();
  // Init, Open and a durable prologue.
  void Start();
  Status Open();
  // The process ends without a word.
  void Kill();
  void LosePower(const SimFileSystem::PowerLoss& how = {});

  // Appends if there is room; false when not. `appended()` remembers.
  bool Append(const LogRecord& record);
  // One flush of what waits (or a mark); `meanwhile` is called while the batch is being written.
  // Not ok: the process is dead.
  Status Flush(bool mark = false, const std::function<void()>& meanwhile = nullptr);
  Status FlushAll();
  // Maintains until nothing is due.
  Status Maintain();
  // Appends and flushes `count` commits one by one, maintaining in between.
  Status Commits(std::uint64_t first, std::uint64_t count, bool end_too = true);

  // Every record ever handed to a log in this harness, in order, and how many of them this or
  // an earlier process was told are durable.
  const std::vector<LogRecord>& appended() const { return appended_; }
  std::size_t durable() const { return durable_; }
  // Forgets records handed over and not found again after a crash: the state holds the first
  // `count` of them.
  void Truncate(std::size_t count);
  // How many of appended() the state holds: a number from durable() to appended().size(), or
  // -1 when it is no such prefix. Only without retention.
  int PrefixHeld() const;

 private:
  SimFileSystem fs_;
  ManualClock clock_;
  WalOptions options_;
  std::uint64_t next_random_ = 0;
  std::unique_ptr<RecoveredState> state_;
  std::unique_ptr<Wal> wal_;
  std::vector<LogRecord> appended_;
  std::size_t durable_ = 0;
  std::size_t life_base_ = 0;  // appended_.size() when this life began
};

}  // namespace troth
