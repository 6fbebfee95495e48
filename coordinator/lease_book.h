// Leases of transaction ids (docs/protocol.md, "Leases"): which sequences may still be asked
// to commit, and what became of those that were. Pure; part of the protocol machine.
#pragma once

#include <cstdint>
#include <deque>
#include <string>
#include <vector>

#include "common/transaction_id.h"

namespace troth {

class LeaseBook {
 public:
  // What is known of one sequence of a live lease.
  enum class Mark : std::uint8_t { kUnheard = 0, kInFlight, kAborted, kCommitted, kReadOnly };

  struct Grant {
    std::uint64_t first = 0;
    std::uint32_t count = 0;
    std::int64_t end_ms = 0;
  };

  explicit LeaseBook(std::int64_t lease_ms) : lease_ms_(lease_ms) {}

  // Sequences below `end` are reserved, durably.
  void Reserved(std::uint64_t end);
  std::uint64_t reserved() const { return reserved_; }
  // First sequence never granted.
  std::uint64_t next() const { return next_; }
  bool CanGrant(std::uint32_t count) const { return next_ + count <= reserved_; }
  // Leases the next `count` sequences until now_ms + the lease length. CanGrant must hold.
  Grant GrantBlock(std::uint32_t count, std::int64_t now_ms);

  // Leases that end at or before `now_ms` are over: their sequences leave the book.
  void Expire(std::int64_t now_ms);
  // Every sequence below is of an ended lease.
  std::uint64_t line() const;
  // End of the oldest live lease; INT64_MAX when there is none.
  std::int64_t NextEnd() const;

  // Granted, and its lease not over.
  bool Live(std::uint64_t sequence) const { return sequence >= line() && sequence < next_; }
  // Live(sequence) must hold for these three.
  std::int64_t EndOf(std::uint64_t sequence) const;
  Mark MarkOf(std::uint64_t sequence) const;
  // Fingerprint of the participant list bound to the sequence, 0 before one is.
  std::uint32_t ListOf(std::uint64_t sequence) const;

  // Notes what became of a sequence; without effect once its lease is over.
  // An abort binds: kAborted never changes again (law L11).
  void Set(std::uint64_t sequence, Mark mark, std::uint32_t list = 0);

  // See CommitProtocol::AppendSituation.
  void AppendSituation(std::int64_t now_ms, std::string* out) const;

 private:
  struct Lease {
    std::uint64_t first;
    std::uint32_t count;
    std::int64_t end_ms;
    std::vector<std::uint8_t> marks;
    std::vector<std::uint32_t> lists;
  };
  const Lease* Find(std::uint64_t sequence) const;

  const std::int64_t lease_ms_;
  std::uint64_t reserved_ = 1;
  std::uint64_t next_ = 1;    // sequence 0 is never used
  std::deque<Lease> leases_;  // by first, so by end too: all are of one length
};

}  // namespace troth
