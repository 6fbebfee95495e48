// See epoch_fence.h.
#include "participant/epoch_fence.h"

#include <vector>

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
    entries_[seen.coordinator] = Entry{seen, seen.position, seen.epoch};
  }
  return OkStatus();
}

std::optional<Refusal> EpochFence::Check(const SeenCoordinator& sender) {
  {
    MutexLock lock(&mutex_);
    Entry& entry = entries_[sender.coordinator];
    SeenCoordinator& seen = entry.seen;
    if (sender.epoch < seen.epoch) {
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
    // Positions run on over epochs. A lower one is what a cut log looks like: reported with the
    // epoch that it was seen in, until the coordinator has been told and has begun another.
    seen = sender;
    entry.stored_epoch = sender.epoch;
    entry.stored_position = sender.position;
  }
  Store(sender);
  return std::nullopt;
}

void EpochFence::Store(const SeenCoordinator& seen) {
  if (resource_manager_->StoreSeen(seen).ok()) return;
  MutexLock lock(&mutex_);
  entries_[seen.coordinator].stored_epoch = 0;  // again at the next Tick
}

std::optional<SeenCoordinator> EpochFence::Seen(const std::string& coordinator) const {
  MutexLock lock(&mutex_);
  const auto found = entries_.find(coordinator);
  if (found == entries_.end()) return std::nullopt;
  return found->second.seen;
}

std::map<std::string, SeenCoordinator> EpochFence::All() const {
  MutexLock lock(&mutex_);
  std::map<std::string, SeenCoordinator> all;
  for (const auto& [name, entry] : entries_) all.emplace(name, entry.seen);
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
      if (entry.seen.epoch == 0 || (entry.seen.position == entry.stored_position &&
                                    entry.seen.epoch == entry.stored_epoch)) {
        continue;
      }
      entry.stored_position = entry.seen.position;
      entry.stored_epoch = entry.seen.epoch;
      grown.push_back(entry.seen);
    }
  }
  for (const SeenCoordinator& seen : grown) Store(seen);
}

}  // namespace troth
