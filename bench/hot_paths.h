// The hot path in three pieces with fixed inputs, for the microbenchmarks and for the check that
// their instruction counts have not grown: the machine's steps for one transaction, the log's
// append and batch, a record to bytes and back. No threads, no clock, no random number.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "coordinator/commit_protocol.h"
#include "recovery/wal.h"

namespace troth::bench {

// A machine in its epoch, two participants up, that commits one transaction after the other:
// commit asked, two votes, record durable, two acknowledgements.
class StepPath {
 public:
  StepPath();
  void CommitOne();

 private:
  void Step(const Event& event);
  void MakeDurable();

  CommitProtocol machine_;
  Actions actions_;
  CommitAsked commit_;
  std::uint64_t sequence_ = 0;
  std::uint64_t leased_end_ = 0;
  std::uint64_t appended_ = 0;
  std::uint64_t batch_ = 0;
};

// A log on the real file system, opened in an empty directory; what a batch of 32 commit records
// costs up to, and without, its write.
class AppendPath {
 public:
  explicit AppendPath(const std::string& directory);
  ~AppendPath();
  void AppendOne();

 private:
  std::unique_ptr<Wal> wal_;
  CommitRecord record_;
};

// A commit record, encoded, checked and decoded.
class CodecPath {
 public:
  CodecPath();
  void RoundTripOne();

 private:
  LogRecord record_;
  std::string bytes_;
  std::uint32_t sum_ = 0;
};

}  // namespace troth::bench
