// See epoch_fence.h.
#include "participant/epoch_fence.h"

#include <vector>

#include "common/mark.h"

namespace troth {

namespace {
constexpr std::int64_t kStoreEveryMs = 1'000;
}

EpochFence::EpochFence(ResourceManager* resource_manager, Clock* clock)
    : resource_manager_(resource_manager), clock_(clock) {}

Status EpochFence::Load() {
  Result<std::vector<SeenCoordinator>> rows = resource_manager_->LoadSeen();
  if (!rows.ok()) return rows.status();
  MutexLock lock(&mutex_);
  for (const SeenCoordinator& seen : *rows) {
    entries_[seen.coordinator] = Entry{seen, std::nullopt, seen.position, seen.epoch};
  }
  return OkStatus();
}

std::optional<Refusal> EpochFence::Check(const SeenCoordinator& sender) {
  {
    MutexLock lock(&mutex_);
    Entry& entry = entries_[sender.coordinator];
    const bool first = entry.seen.epoch == 0;
    if (std::optional<Refusal> stale = entry.Take(sender)) return stale;
    if (!first) return std::nullopt;
    entry.stored_epoch = entry.seen.epoch;
    entry.stored_position = entry.seen.position;
  }
  Store(sender);  // once; phase two does not wait for a database that takes no notes
  return std::nullopt;
}

std::optional<Refusal> EpochFence::Entry::Take(const SeenCoordinator& sender) {
  if (sender.epoch < seen.epoch) {
    TROTH_MARK("stale-epoch-refused");
    return Refusal{Refused::kStaleEpoch,
                   "coordinator " + sender.coordinator + " has begun epoch " +
                       std::to_string(seen.epoch) + "; a sender of epoch " +
                       std::to_string(sender.epoch) + " must not decide any more",
                   false, ""};
  }
  if (sender.epoch == seen.epoch) {
    // Two epochs with one number come of a restored log. What was seen first is kept, so that
    // the coordinator learns of it.
    if (sender.epoch_random == seen.epoch_random && sender.position > seen.position) {
      seen.position = sender.position;
    }
    return std::nullopt;
  }
  if (!untold && seen.epoch != 0) untold = seen;
  seen = sender;
  return std::nullopt;
}

void EpochFence::Told(const SeenCoordinator& sender) {
  SeenCoordinator now;
  {
    MutexLock lock(&mutex_);
    Entry& entry = entries_[sender.coordinator];
    if (entry.seen.epoch != sender.epoch || entry.seen.epoch_random != sender.epoch_random) return;
    if (!entry.untold && entry.stored_epoch == entry.seen.epoch) return;
    entry.untold.reset();
    entry.stored_epoch = entry.seen.epoch;
    entry.stored_position = entry.seen.position;
    now = entry.seen;
  }
  Store(now);
}

void EpochFence::Store(const SeenCoordinator& seen) {
  const Status stored = resource_manager_->StoreSeen(seen);
  MutexLock lock(&mutex_);
  not_noted_ = stored.ok() ? "" : stored.ToString();
  if (!stored.ok()) entries_[seen.coordinator].stored_epoch = 0;  // again at the next Tick
}

std::string EpochFence::NotNoted() const {
  MutexLock lock(&mutex_);
  return not_noted_;
}

std::optional<SeenCoordinator> EpochFence::Seen(const std::string& coordinator) const {
  MutexLock lock(&mutex_);
  const auto found = entries_.find(coordinator);
  if (found == entries_.end()) return std::nullopt;
  return found->second.told();
}

std::map<std::string, SeenCoordinator> EpochFence::All() const {
  MutexLock lock(&mutex_);
  std::map<std::string, SeenCoordinator> all;
  for (const auto& [name, entry] : entries_) all.emplace(name, entry.told());
  return all;
}

void EpochFence::Tick() {
  std::vector<SeenCoordinator> grown;
  {
    MutexLock lock(&mutex_);
    const std::int64_t now = clock_->NowMs();
    if (now - stored_ms_ < kStoreEveryMs) return;
    stored_ms_ = now;
    for (auto& [name, entry] : entries_) {
      if (entry.seen.epoch == 0 || entry.untold ||
          (entry.seen.position == entry.stored_position &&
           entry.seen.epoch == entry.stored_epoch)) {
        continue;
      }
      entry.stored_position = entry.seen.position;
      entry.stored_epoch = entry.seen.epoch;
      grown.push_back(entry.seen);
    }
  }
  for (const SeenCoordinator& seen : grown) Store(seen);
  TakeInNotes();
}

void EpochFence::TakeInNotes() {
  Result<std::vector<SeenCoordinator>> rows = resource_manager_->LoadSeen();
  if (!rows.ok()) return;  // best effort, and again in a second
  MutexLock lock(&mutex_);
  for (const SeenCoordinator& row : *rows) {
    Entry& entry = entries_[row.coordinator];
    // Of a new epoch: what we saw of the one before stays to be told by us. Of the same: what the
    // other saw is told by us too, should it die before it tells (law L7d).
    if (entry.Take(row).has_value() || entry.seen.position != row.position) continue;
    entry.stored_epoch = row.epoch;
    entry.stored_position = row.position;
  }
}

}  // namespace troth
