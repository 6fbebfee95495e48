// The blocks of transaction ids that a coordinator leased to this process: which id may be
// used for a transaction, and when to ask for more. Pure: no clock, no wire, no lock; times are
// boot time in milliseconds, handed in. docs/protocol.md, "Leases".
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <string>

namespace troth {

class LeaseCache {
 public:
  // Sizes of the blocks asked for. A block that is used up within half its life makes the next
  // twice as large, one that ends with more than half unused makes it half as large.
  static constexpr std::int32_t kMinCount = 32;
  static constexpr std::int32_t kMaxCount = 4096;

  // A block granted in answer to a call that was begun at `asked_at_ms`; its life is counted
  // from there, so it ends here before it ends at the coordinator.
  void Add(std::string prefix, std::int64_t first, std::int32_t count, std::int64_t ends_in_ms,
           std::int64_t asked_at_ms);

  // An id for a transaction that is over by `deadline_ms`, from a block that outlives it. No id
  // is returned twice.
  std::optional<std::string> Take(std::int64_t now_ms, std::int64_t deadline_ms);

  // True when fewer than half a block's ids are left that outlive `deadline_ms`, or the newest
  // block is so old that it soon can't serve deadlines as far away as this one.
  bool WantsMore(std::int64_t now_ms, std::int64_t deadline_ms) const;

  // How many ids to ask for next.
  std::int32_t next_count() const { return next_count_; }

  // The coordinator began another life: nothing leased before can commit.
  void Clear() { blocks_.clear(); }

 private:
  struct Block {
    std::string prefix;
    std::int64_t next;
    std::int64_t end;
    std::int32_t count;
    std::int64_t asked_at_ms;
    std::int64_t ends_at_ms;
  };

  void DropEnded(std::int64_t now_ms);

  // Oldest first. Bounded: a client that asks for far deadlines only would pile them up.
  static constexpr std::size_t kMaxBlocks = 8;
  std::deque<Block> blocks_;
  std::int32_t next_count_ = kMinCount;
};

}  // namespace troth
