// See participant_directory.h.
#include "coordinator/participant_directory.h"

#include <algorithm>
#include <utility>

namespace troth {

// Two enrolments of a process that lives, and time to spare.
constexpr std::chrono::seconds kForgetAfter{25};

void ParticipantDirectory::Set(Entry entry) {
  entry.heard = std::chrono::steady_clock::now();
  MutexLock lock(&mutex_);
  std::vector<Entry>& instances = entries_[entry.participant];
  // What was at its address, or bore its name, is what enrolls now; of others that are silent
  // one is kept: the participant is registered, and may come back.
  const auto silent = entry.heard - kForgetAfter;
  std::erase_if(instances, [&](const Entry& known) {
    return known.instance == entry.instance || known.heard < silent ||
           (known.host == entry.host && known.port == entry.port) || known.index != entry.index;
  });
  instances.push_back(std::move(entry));
}

std::vector<ParticipantDirectory::Entry> ParticipantDirectory::Copy(
    const std::vector<std::string>& names) const {
  MutexLock lock(&mutex_);
  std::vector<Entry> copy;
  for (const auto& [name, instances] : entries_) {
    if (!names.empty() && std::find(names.begin(), names.end(), name) == names.end()) continue;
    copy.insert(copy.end(), instances.begin(), instances.end());
  }
  return copy;
}

}  // namespace troth
