// See evidence.h.
#include "participant/evidence.h"

#include <algorithm>
#include <cstdio>
#include <sstream>

#include "common/mark.h"

namespace troth {
namespace {

std::string Lsn(std::uint64_t position) {
  char text[24];
  std::snprintf(text, sizeof text, "%X/%X", static_cast<unsigned>(position >> 32),
                static_cast<unsigned>(position & 0xffffffffu));
  return text;
}

std::string At(const LogPoint& point) {
  return "timeline " + std::to_string(point.timeline) + " at " + Lsn(point.position);
}

FinishResult Make(FinishResult::Kind kind, std::string message) {
  return FinishResult{kind, std::move(message), ""};
}

}  // namespace

std::vector<TimelineSwitch> ParseTimelineHistory(std::string_view text) {
  std::vector<TimelineSwitch> switches;
  std::istringstream lines{std::string(text)};
  for (std::string line; std::getline(lines, line);) {
    unsigned timeline = 0;
    unsigned high = 0;
    unsigned low = 0;
    if (std::sscanf(line.c_str(), "%u %X/%X", &timeline, &high, &low) == 3) {
      switches.push_back({timeline, std::uint64_t{high} << 32 | low});
    }
  }
  return switches;
}

LogMemory::Known LogMemory::Snapshot() const {
  MutexLock lock(&mutex_);
  return highest_;
}

bool LogMemory::Observe(const LogPoint& point, const Known& known) {
  MutexLock lock(&mutex_);
  std::uint64_t& highest = highest_[point.timeline];
  const auto before = known.find(point.timeline);
  const bool back = before != known.end() && point.position < before->second;
  if (back) {
    auto [entry, fresh] = void_above_.try_emplace(point.timeline, point.position);
    if (!fresh) entry->second = std::min(entry->second, point.position);
    highest = point.position;  // from here on it is another history
  } else {
    highest = std::max(highest, point.position);
  }
  return !back;
}

void LogMemory::Remember(const LogPoint& point) {
  MutexLock lock(&mutex_);
  std::uint64_t& highest = highest_[point.timeline];
  highest = std::max(highest, point.position);
}

bool LogMemory::Void(const LogPoint& point) const {
  MutexLock lock(&mutex_);
  const auto entry = void_above_.find(point.timeline);
  return entry != void_above_.end() && point.position > entry->second;
}

std::optional<std::string> WhyNoProof(const Evidence& vote, const Findings& findings) {
  const std::string voted = "the vote was given on " + At(vote.point);
  if (findings.went_back) {
    return voted + ", and the database was since seen below it: it was restored from a copy";
  }
  if (vote.point.timeline == findings.now.timeline) {
    if (findings.now.position >= vote.point.position) return std::nullopt;
    return voted + ", but the database stands on " + At(findings.now) +
           ": it was restored from a copy";
  }
  if (!findings.history.has_value()) {
    return voted + ", the database is on timeline " + std::to_string(findings.now.timeline) +
           ", and its history could not be read (" + findings.unreadable +
           "): GRANT EXECUTE ON FUNCTION pg_read_file(text) to the participant's role";
  }
  for (const TimelineSwitch& left : *findings.history) {
    if (left.timeline != vote.point.timeline) continue;
    if (left.position >= vote.point.position) return std::nullopt;
    return voted + ", but timeline " + std::to_string(findings.now.timeline) +
           " left it already at " + Lsn(left.position) +
           ": the prepared branch was lost in a failover";
  }
  return voted + ", which is no ancestor of the database's timeline " +
         std::to_string(findings.now.timeline);
}

FinishResult Judge(bool commit, const Evidence& vote, const Findings& findings) {
  using Kind = FinishResult::Kind;
  const std::string xid = "transaction " + std::to_string(vote.xid);
  if (const std::optional<std::string> why = WhyNoProof(vote, findings)) {
    TROTH_MARK("evidence-is-void");
    return Make(Kind::kHazard,
                xid + " is not prepared (any more), and nothing proves how it ended: " + *why);
  }
  switch (findings.status) {
    case XidStatus::kCommitted:
      if (commit) TROTH_MARK("known-committed-by-evidence");
      if (commit) return Make(Kind::kDone, "");
      return Make(Kind::kHeuristic,
                  xid + " was committed by another hand; it was to be rolled back");
    case XidStatus::kAborted:
      if (!commit) return Make(Kind::kDone, "");
      return Make(Kind::kHeuristic,
                  xid + " was rolled back by another hand; it was to be committed");
    case XidStatus::kInProgress:
      return Make(Kind::kHazard,
                  xid + " is in progress and not prepared: it is not the one that voted");
    case XidStatus::kForgotten:
      return Make(Kind::kHazard, xid + " ended so long ago that the database forgot how");
    case XidStatus::kFuture:
      return Make(Kind::kHazard,
                  xid + " has not happened yet in this database: it is not the one that voted");
  }
  return Make(Kind::kHazard, xid + ": unknown state");
}

}  // namespace troth
