// Commit records kept whole, tightly: their encoded bytes in the order of decision, found by
// id. Those that can't be dropped when their turn comes (a branch has not acknowledged) move
// aside, so that one slow participant pins no others' memory. Pure, one thread at a time.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "common/transaction_id.h"

namespace troth {

// Positions of records, found by the ids they belong to: open addressing, 8 bytes a cell, in
// shards, so that growing never stops the caller for long. The ids themselves live elsewhere;
// a cell holds some bits of the hash, so that they are seldom looked at in vain.
class PositionIndex {
 public:
  class Ids {
   public:
    virtual const LocalId& IdAt(std::uint64_t position) const = 0;

   protected:
    ~Ids() = default;
  };
  explicit PositionIndex(const Ids* ids) : ids_(ids) {}
  // kNone when there is none.
  std::uint64_t Find(const LocalId& id) const;
  void Add(const LocalId& id, std::uint64_t position);  // not there yet
  void Remove(const LocalId& id, std::uint64_t position);
  static constexpr std::uint64_t kNone = ~std::uint64_t{0};

 private:
  static constexpr std::size_t kShards = 64;
  struct Shard {
    std::vector<std::uint64_t> cells;  // kNone: free; a power of two of them
    std::size_t used = 0;
  };
  static std::size_t HomeOf(const Shard& shard, std::uint64_t hash_or_cell);
  void Grow(Shard* shard);

  const Ids* const ids_;
  std::vector<Shard> shards_{kShards};
};

class WholeRecords final : private PositionIndex::Ids {
 public:
  // What a record costs in memory beyond its bytes, for bounds.
  static constexpr std::uint64_t kOverheadBytes = 64;

  struct Entry {
    LocalId id;
    std::int64_t decided_ms = 0;
    std::string_view bytes;  // encoded; valid until the next call that is not const
    bool ended = false;
  };

  WholeRecords() : index_(this) {}
  WholeRecords(const WholeRecords&) = delete;
  WholeRecords& operator=(const WholeRecords&) = delete;

  // False when there is none. Fills `*entry`.
  bool Find(const LocalId& id, Entry* entry) const;
  // The id is not there yet.
  void Add(const LocalId& id, std::int64_t decided_ms, std::string_view bytes);
  // False when there is none.
  bool SetEnded(const LocalId& id);
  bool SetDecidedAt(const LocalId& id, std::int64_t decided_ms);

  // `over`: ended records cost more than the limit.
  using MayDrop = std::function<bool(const LocalId&, std::int64_t decided_ms, bool over)>;
  // Looks at one record, the next in turn, and drops it if it ended and `may_drop` says so. False
  // when there is nothing to do now.
  bool DropOne(const MayDrop& may_drop, std::uint64_t ended_bytes_limit);

  // Oldest decision first.
  void ForEach(const std::function<void(const Entry&)>& fn) const;

  std::size_t size() const { return aside_.size() + queue_.size(); }
  std::size_t ended() const { return ended_; }
  // Bytes of all, overhead included.
  std::uint64_t bytes() const { return bytes_; }

 private:
  struct Slot {
    LocalId id;
    std::int64_t decided_ms;
    const char* data;
    std::uint32_t size;
    bool ended;
  };
  struct Aside {
    LocalId id;
    std::int64_t decided_ms;
    std::string bytes;
    bool ended;
  };
  struct Chunk {
    std::unique_ptr<char[]> data;
    std::size_t capacity;
    std::uint64_t last;  // position of the last record in it
  };

  const LocalId& IdAt(std::uint64_t position) const override;
  // Position of `id`, which is likely the one added last.
  std::uint64_t PositionOf(const LocalId& id) const;
  const char* Store(std::string_view bytes);
  void PopFront();
  bool DropAside(const MayDrop& may_drop, std::uint64_t ended_bytes_limit);
  void Forget(const LocalId& id, std::uint64_t position, std::size_t size, bool ended);

  std::deque<Slot> queue_;  // positions from front_ on
  std::uint64_t front_ = 0;
  std::deque<Chunk> chunks_;               // bytes of the queue
  std::size_t chunk_used_ = 0;             // of chunks_.back()
  std::map<std::uint64_t, Aside> aside_;   // by position, all below front_
  std::deque<std::uint64_t> aside_ended_;  // in the order in which they ended
  PositionIndex index_;
  std::size_t ended_ = 0;
  std::uint64_t bytes_ = 0;
  std::uint64_t ended_bytes_ = 0;
};

}  // namespace troth
