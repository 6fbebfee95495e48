// See whole_records.h.
#include "recovery/whole_records.h"

#include <algorithm>
#include <cstring>

#include "common/check.h"

namespace troth {
namespace {

constexpr std::size_t kChunkBytes = 64u << 10;
constexpr std::size_t kLeastCells = 16;

std::uint64_t HashOf(const LocalId& id) {
  std::uint64_t h = std::hash<LocalId>()(id) * 0x9e3779b97f4a7c15u;
  return h ^ (h >> 32);
}

// A cell: the hash's upper bits, then a position. Never kNone: no log has 2^44 live records.
constexpr int kPositionBits = 44;
constexpr std::uint64_t kPositionMask = (std::uint64_t{1} << kPositionBits) - 1;

std::uint64_t PrintIn(std::uint64_t hash_or_cell) { return hash_or_cell & ~kPositionMask; }
std::uint64_t PositionIn(std::uint64_t cell) { return cell & kPositionMask; }
std::uint64_t CellOf(std::uint64_t hash, std::uint64_t position) {
  return PrintIn(hash) | position;
}

}  // namespace

// From the bits that the cell keeps: the id, far away in memory, is not looked at. They tell
// homes apart in shards of up to 2^20 cells, which is 40 million records.
std::size_t PositionIndex::HomeOf(const Shard& shard, std::uint64_t hash_or_cell) {
  return hash_or_cell >> kPositionBits & (shard.cells.size() - 1);
}

std::uint64_t PositionIndex::Find(const LocalId& id) const {
  const std::uint64_t hash = HashOf(id);
  const Shard& shard = shards_[hash % kShards];
  if (shard.used == 0) return kNone;
  const std::size_t mask = shard.cells.size() - 1;
  for (std::size_t at = HomeOf(shard, hash); shard.cells[at] != kNone; at = (at + 1) & mask) {
    const std::uint64_t cell = shard.cells[at];
    if (PrintIn(cell) == PrintIn(hash) && ids_->IdAt(PositionIn(cell)) == id) {
      return PositionIn(cell);
    }
  }
  return kNone;
}

void PositionIndex::Grow(Shard* shard) {
  std::vector<std::uint64_t> old(std::max(kLeastCells, shard->cells.size() * 2), kNone);
  old.swap(shard->cells);
  const std::size_t mask = shard->cells.size() - 1;
  for (const std::uint64_t cell : old) {
    if (cell == kNone) continue;
    std::size_t at = HomeOf(*shard, cell);
    while (shard->cells[at] != kNone) at = (at + 1) & mask;
    shard->cells[at] = cell;
  }
}

void PositionIndex::Add(const LocalId& id, std::uint64_t position) {
  const std::uint64_t hash = HashOf(id);
  Shard& shard = shards_[hash % kShards];
  if ((shard.used + 1) * 3 > shard.cells.size() * 2) Grow(&shard);
  const std::size_t mask = shard.cells.size() - 1;
  std::size_t at = HomeOf(shard, hash);
  while (shard.cells[at] != kNone) at = (at + 1) & mask;
  shard.cells[at] = CellOf(hash, position);
  ++shard.used;
}

void PositionIndex::Remove(const LocalId& id, std::uint64_t position) {
  const std::uint64_t hash = HashOf(id);
  Shard& shard = shards_[hash % kShards];
  const std::size_t mask = shard.cells.size() - 1;
  std::size_t at = HomeOf(shard, hash);
  while (shard.cells[at] != CellOf(hash, position)) {
    TROTH_CHECK(shard.cells[at] != kNone);
    at = (at + 1) & mask;
  }
  // Close the hole: move back whoever a search would no longer reach.
  std::size_t hole = at;
  for (at = (at + 1) & mask; shard.cells[at] != kNone; at = (at + 1) & mask) {
    const std::size_t home = HomeOf(shard, shard.cells[at]);
    if (((at - home) & mask) >= ((at - hole) & mask)) {
      shard.cells[hole] = shard.cells[at];
      hole = at;
    }
  }
  shard.cells[hole] = kNone;
  --shard.used;
}

const LocalId& WholeRecords::IdAt(std::uint64_t position) const {
  if (position >= front_) return queue_[position - front_].id;
  return aside_.find(position)->second.id;
}

std::uint64_t WholeRecords::PositionOf(const LocalId& id) const {
  if (!queue_.empty() && queue_.back().id == id) return front_ + queue_.size() - 1;
  return index_.Find(id);
}

bool WholeRecords::Find(const LocalId& id, Entry* entry) const {
  const std::uint64_t position = PositionOf(id);
  if (position == PositionIndex::kNone) return false;
  if (position >= front_) {
    const Slot& slot = queue_[position - front_];
    *entry = Entry{id, slot.decided_ms, {slot.data, slot.size}, slot.ended};
  } else {
    const Aside& aside = aside_.find(position)->second;
    *entry = Entry{id, aside.decided_ms, aside.bytes, aside.ended};
  }
  return true;
}

const char* WholeRecords::Store(std::string_view bytes) {
  if (chunks_.empty() || chunks_.back().capacity - chunk_used_ < bytes.size()) {
    const std::size_t capacity = std::max(kChunkBytes, bytes.size());
    chunks_.push_back(Chunk{std::unique_ptr<char[]>(new char[capacity]), capacity, 0});
    chunk_used_ = 0;
  }
  char* at = chunks_.back().data.get() + chunk_used_;
  std::memcpy(at, bytes.data(), bytes.size());
  chunk_used_ += bytes.size();
  return at;
}

void WholeRecords::Add(const LocalId& id, std::int64_t decided_ms, std::string_view bytes) {
  const std::uint64_t position = front_ + queue_.size();
  const char* data = Store(bytes);
  chunks_.back().last = position;
  queue_.push_back(Slot{id, decided_ms, data, static_cast<std::uint32_t>(bytes.size()), false});
  index_.Add(id, position);
  bytes_ += bytes.size() + kOverheadBytes;
}

bool WholeRecords::SetEnded(const LocalId& id) {
  const std::uint64_t position = PositionOf(id);
  if (position == PositionIndex::kNone) return false;
  std::size_t size;
  if (position >= front_) {
    Slot& slot = queue_[position - front_];
    if (slot.ended) return true;
    slot.ended = true;
    size = slot.size;
  } else {
    Aside& aside = aside_.find(position)->second;
    if (aside.ended) return true;
    aside.ended = true;
    size = aside.bytes.size();
    aside_ended_.push_back(position);
  }
  ++ended_;
  ended_bytes_ += size + kOverheadBytes;
  return true;
}

bool WholeRecords::SetDecidedAt(const LocalId& id, std::int64_t decided_ms) {
  const std::uint64_t position = PositionOf(id);
  if (position == PositionIndex::kNone) return false;
  if (position >= front_) {
    queue_[position - front_].decided_ms = decided_ms;
  } else {
    aside_.find(position)->second.decided_ms = decided_ms;
  }
  return true;
}

void WholeRecords::PopFront() {
  queue_.pop_front();
  while (!chunks_.empty() && chunks_.front().last <= front_ && chunks_.size() > 1) {
    chunks_.pop_front();
  }
  ++front_;
}

void WholeRecords::Forget(const LocalId& id, std::uint64_t position, std::size_t size, bool ended) {
  index_.Remove(id, position);
  bytes_ -= size + kOverheadBytes;
  if (!ended) return;
  --ended_;
  ended_bytes_ -= size + kOverheadBytes;
}

bool WholeRecords::DropAside(const MayDrop& may_drop, std::uint64_t ended_bytes_limit) {
  if (aside_ended_.empty()) return false;
  const auto it = aside_.find(aside_ended_.front());
  const Aside& aside = it->second;
  if (!may_drop(aside.id, aside.decided_ms, ended_bytes_ > ended_bytes_limit)) return false;
  Forget(aside.id, it->first, aside.bytes.size(), true);
  aside_.erase(it);
  aside_ended_.pop_front();
  return true;
}

bool WholeRecords::DropOne(const MayDrop& may_drop, std::uint64_t ended_bytes_limit) {
  if (DropAside(may_drop, ended_bytes_limit)) return true;
  if (queue_.empty()) return false;
  const Slot slot = queue_.front();
  if (!may_drop(slot.id, slot.decided_ms, ended_bytes_ > ended_bytes_limit)) return false;
  if (slot.ended) {
    Forget(slot.id, front_, slot.size, true);
  } else {
    aside_.emplace(front_,
                   Aside{slot.id, slot.decided_ms, std::string(slot.data, slot.size), false});
  }
  PopFront();
  return true;
}

void WholeRecords::ForEach(const std::function<void(const Entry&)>& fn) const {
  for (const auto& [position, aside] : aside_) {
    fn(Entry{aside.id, aside.decided_ms, aside.bytes, aside.ended});
  }
  for (const Slot& slot : queue_) {
    fn(Entry{slot.id, slot.decided_ms, {slot.data, slot.size}, slot.ended});
  }
}

}  // namespace troth
