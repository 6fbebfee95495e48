// EpochFence: which sender a participant listens to (law L7c). Keeps the highest (epoch,
// position) seen of each coordinator and refuses lower epochs. Knows no wire.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>

#include "common/clock.h"
#include "common/thread_annotations.h"
#include "participant/refusal.h"
#include "participant/resource_manager.h"

namespace troth {

// Thread-safe.
class EpochFence {
 public:
  // `resource_manager` keeps the notes; it and `clock` outlive the fence.
  EpochFence(ResourceManager* resource_manager, Clock* clock);

  // Reads what earlier lives of this participant noted. To be called before the first Check.
  Status Load();

  // nullopt: the sender is of the highest epoch seen, or of a higher one; what it says is taken
  // in. Otherwise STALE_EPOCH. What was seen in the epoch before stays what Seen says, and what
  // is stored, until that has been told to the new epoch (Told): a coordinator that begins an
  // epoch on a log cut short must hear of what it lost, whoever speaks first (law L7d).
  std::optional<Refusal> Check(const SeenCoordinator& sender);
  // The coordinator took what Seen said into account, and goes on: it answered an enrolment.
  // The new epoch is durable on return (if the database can be reached; best effort).
  void Told(const SeenCoordinator& sender);

  // What is to be told at enrolment and with inquiries.
  std::optional<SeenCoordinator> Seen(const std::string& coordinator) const;
  // Of all of them; for a coordinator whose name is not known yet.
  std::map<std::string, SeenCoordinator> All() const;

  // At least once a second: writes down positions that have grown, and takes in what other
  // instances of this participant wrote, so that an epoch begun at one ends the old at all.
  void Tick();
  // Why the last note was not written, which Tick tries again; empty: it was.
  std::string NotNoted() const;

 private:
  struct Entry {
    SeenCoordinator seen;
    std::optional<SeenCoordinator> untold;  // of the epoch before
    std::optional<Refusal> Take(const SeenCoordinator& sender);
    const SeenCoordinator& told() const { return untold ? *untold : seen; }
    std::uint64_t stored_position = 0;
    std::uint32_t stored_epoch = 0;
  };
  void Store(const SeenCoordinator& seen);
  void TakeInNotes();

  ResourceManager* const resource_manager_;
  Clock* const clock_;
  mutable Mutex mutex_;
  std::map<std::string, Entry> entries_ TROTH_GUARDED_BY(mutex_);
  std::int64_t stored_ms_ TROTH_GUARDED_BY(mutex_) = 0;
  std::string not_noted_ TROTH_GUARDED_BY(mutex_);
};

}  // namespace troth
