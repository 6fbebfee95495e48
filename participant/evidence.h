// What a database's memory proves about a branch whose GID is gone (law L13), as pure rules:
// they are given what was read and say what follows. Knows no connection.
// docs/protocol.md, "Laws".
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/thread_annotations.h"
#include "participant/resource_manager.h"

namespace troth {

// What pg_xact_status said of an xid.
enum class XidStatus {
  kCommitted,
  kAborted,
  kInProgress,
  kForgotten,  // NULL: too old, its fate is no longer kept
  kFuture,     // 22023: no such xid was given out yet
};

// Where an older timeline was left for a newer one: a line of a history file.
struct TimelineSwitch {
  std::uint32_t timeline = 0;  // the one that was left
  std::uint64_t position = 0;  // where
};

// Lines of `<timeline>.history`; lines that are none are passed over.
std::vector<TimelineSwitch> ParseTimelineHistory(std::string_view text);

// How far the database was seen to have come, by timeline; tells when it went back in time
// (restored from a copy), which makes all evidence above that point void for good (L13b).
// Thread-safe.
class LogMemory {
 public:
  // What was known before a question was sent: an answer is compared with this, not with what
  // others have learnt since.
  using Known = std::map<std::uint32_t, std::uint64_t>;
  Known Snapshot() const;

  // Takes in where the database stood when it answered a question sent after `known` was
  // taken. False: it has gone back.
  bool Observe(const LogPoint& point, const Known& known);
  // Takes in the point of evidence; it is at or below the present end of an honest log.
  void Remember(const LogPoint& point);

  // Evidence at this point proves nothing: the database was seen below it, later.
  bool Void(const LogPoint& point) const;

 private:
  mutable Mutex mutex_;
  Known highest_ TROTH_GUARDED_BY(mutex_);
  Known void_above_ TROTH_GUARDED_BY(mutex_);
};

// What was read of a branch whose GID is gone, or holds another xid.
struct Findings {
  LogPoint now;  // of the connection that asked
  // Switches in the history of now.timeline; nullopt: it could not be read (`unreadable`
  // says why). Needed only when the vote is of another timeline.
  std::optional<std::vector<TimelineSwitch>> history;
  std::string unreadable;
  XidStatus status = XidStatus::kForgotten;
  bool went_back = false;  // LogMemory::Void of the vote's point
};

// Whether `vote`'s xid can be judged on a database with these findings at all; nullopt: yes.
// Otherwise why it is a hazard.
std::optional<std::string> WhyNoProof(const Evidence& vote, const Findings& findings);

// What the findings say of a branch that was to be committed, or rolled back.
FinishResult Judge(bool commit, const Evidence& vote, const Findings& findings);

}  // namespace troth
