// Where applications reach participants: what enrolments said, kept in memory only. After a
// restart participants enroll again at once, and every 10 s; an instance that does not is gone.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "common/thread_annotations.h"
#include "recovery/log_record.h"

namespace troth {

// Thread-safe.
class ParticipantDirectory {
 public:
  struct Entry {
    std::string participant;
    std::string instance;
    std::string host;
    std::int32_t port = 0;
    ParticipantIndex index = 0;
    std::chrono::steady_clock::time_point heard;  // set by Set
  };
  // An enrolment was accepted.
  void Set(Entry entry) TROTH_EXCLUDES(mutex_);
  // Of the participants named; of all, if none is.
  std::vector<Entry> Copy(const std::vector<std::string>& names) const TROTH_EXCLUDES(mutex_);

 private:
  mutable Mutex mutex_;
  std::map<std::string, std::vector<Entry>> entries_ TROTH_GUARDED_BY(mutex_);
};

}  // namespace troth
