// See lease_cache.h.
#include "client/lease_cache.h"

#include <algorithm>
#include <utility>

namespace troth {

void LeaseCache::Add(std::string prefix, std::int64_t first, std::int32_t count,
                     std::int64_t ends_in_ms, std::int64_t asked_at_ms) {
  if (count <= 0 || ends_in_ms <= 0) return;
  if (blocks_.size() == kMaxBlocks) blocks_.pop_front();
  blocks_.push_back(
      Block{std::move(prefix), first, first + count, count, asked_at_ms, asked_at_ms + ends_in_ms});
}

void LeaseCache::DropEnded(std::int64_t now_ms) {
  while (!blocks_.empty() && blocks_.front().ends_at_ms <= now_ms) {
    const Block& ended = blocks_.front();
    if (ended.end - ended.next > ended.count / 2) {
      next_count_ = std::max(kMinCount, next_count_ / 2);
    }
    blocks_.pop_front();
  }
}

std::optional<std::string> LeaseCache::Take(std::int64_t now_ms, std::int64_t deadline_ms) {
  DropEnded(now_ms);
  for (auto block = blocks_.begin(); block != blocks_.end(); ++block) {
    if (block->ends_at_ms < deadline_ms) continue;
    std::string id = block->prefix + std::to_string(block->next++);
    if (block->next == block->end) {
      const std::int64_t life_ms = block->ends_at_ms - block->asked_at_ms;
      if (now_ms - block->asked_at_ms < life_ms / 2) {
        next_count_ = std::min(kMaxCount, next_count_ * 2);
      }
      blocks_.erase(block);
    }
    return id;
  }
  return std::nullopt;
}

bool LeaseCache::WantsMore(std::int64_t now_ms, std::int64_t deadline_ms) const {
  std::int64_t usable = 0;
  for (const Block& block : blocks_) {
    if (block.ends_at_ms >= deadline_ms) usable += block.end - block.next;
  }
  if (usable == 0 || usable * 2 < blocks_.back().count) return true;
  // A sixth of its life ahead: long enough to hide the call, too short to pile up blocks.
  const Block& newest = blocks_.back();
  const std::int64_t margin_ms = (newest.ends_at_ms - newest.asked_at_ms) / 6;
  const bool young = now_ms - newest.asked_at_ms < margin_ms;
  return !young && newest.ends_at_ms < deadline_ms + margin_ms;
}

}  // namespace troth
