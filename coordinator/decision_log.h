// The seam between the coordinator and the place where its decisions become durable: the file
// log (recovery/wal.h), later a replicated one (docs/decisions). Knows nothing of the protocol.
#pragma once

#include <cstdint>

#include "common/status.h"
#include "recovery/log_record.h"

namespace troth {

class DecisionLog {
 public:
  struct Durable {
    std::uint64_t records = 0;  // of all handed over since opening, in order
    std::uint64_t batch = 0;    // where they end
  };

  virtual ~DecisionLog() = default;

  // Hands a record over, behind all before it. No input or output, never fails: room was
  // secured beforehand (RoomBytes). Thread-safe, as all below.
  virtual void Append(const LogRecord& record) = 0;
  // Bytes of records that may be handed over without any more disk space.
  virtual std::uint64_t RoomBytes() const = 0;

  // Every id below `line` is of an ended lease or epoch and not in flight: retention may count
  // from here.
  virtual void SetLeaseLine(const LocalId& line) = 0;

  // Takes all that wait as one batch. False when there is nothing, or a flush is under way.
  // With `mark` also nothing is something: it proves the batch before to be whole.
  virtual bool BeginFlush(bool mark) = 0;
  // Writes and syncs the batch taken; blocks for as long as the disk does. To be called by
  // whoever began it, without locks: others append meanwhile. An error is final (law L15).
  virtual Status Flush() = 0;
  // After a successful Flush: what is durable now.
  virtual Durable EndFlush() = 0;
};

}  // namespace troth
