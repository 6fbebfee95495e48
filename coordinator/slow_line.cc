// See slow_line.h.
#include "coordinator/slow_line.h"

#include <algorithm>
#include <map>
#include <optional>

namespace troth {
namespace {

using What = Happening::What;

// When each participant had answered; nothing: it has not.
using Answers = std::map<ParticipantIndex, std::optional<std::int64_t>>;

struct Phases {
  std::optional<std::int64_t> asked, decided, durable;
  Answers votes, acknowledgements;
};

Phases PhasesOf(const std::vector<Happening>& happenings) {
  Phases phases;
  for (const Happening& h : happenings) {
    switch (h.what) {
      case What::kCommitAsked:
        if (!phases.asked) phases.asked = h.at_ns;  // what is repeated is the same call
        break;
      case What::kPrepareSent: phases.votes.try_emplace(h.participant); break;
      case What::kVotedPrepared:
      case What::kVotedReadOnly:
      case What::kVotedRefused: phases.votes[h.participant] = h.at_ns; break;
      case What::kDecided: phases.decided = h.at_ns; break;
      case What::kDurable: phases.durable = h.at_ns; break;
      case What::kFinishSent: phases.acknowledgements.try_emplace(h.participant); break;
      case What::kAcknowledged:
      case What::kHeuristic:
      case What::kHazard: phases.acknowledgements[h.participant] = h.at_ns; break;
      default: break;
    }
  }
  return phases;
}

std::string Ms(std::int64_t ns) {
  return std::to_string((std::max<std::int64_t>(ns, 0) + 500'000) / 1'000'000);
}

// ` (east 1503, west no vote)`
std::string Each(const Answers& answers, std::int64_t from, const std::vector<std::string>& names,
                 const char* none) {
  std::string text;
  for (const auto& [participant, at] : answers) {
    text += text.empty() ? " (" : ", ";
    text += participant < names.size() ? names[participant] : "?";
    text += at ? " " + Ms(*at - from) : std::string(" ") + none;
  }
  return text.empty() ? text : text + ")";
}

}  // namespace

std::string WhereTimeWent(const std::vector<Happening>& happenings,
                          const std::vector<std::string>& names, std::int64_t now_ns) {
  const Phases phases = PhasesOf(happenings);
  if (!phases.asked) return "";
  const std::int64_t asked = *phases.asked;
  std::int64_t voted = now_ns;
  if (phases.decided) {
    voted = *phases.decided;
  } else if (!phases.votes.empty()) {
    voted = asked;
    for (const auto& [participant, at] : phases.votes) voted = std::max(voted, at.value_or(now_ns));
  }
  std::string line = "prepare " + Ms(voted - asked) + Each(phases.votes, asked, names, "no vote");
  std::int64_t until = voted;
  if (phases.decided) {
    until = phases.durable.value_or(now_ns);
    line += ", log " + Ms(until - *phases.decided);
  }
  if (phases.durable && !phases.acknowledgements.empty()) {
    const std::int64_t from = until;
    for (const auto& [participant, at] : phases.acknowledgements) {
      until = std::max(until, at.value_or(now_ns));
    }
    line += ", finish " + Ms(until - from) +
            Each(phases.acknowledgements, from, names, "not acknowledged");
  }
  return line + ", answer " + Ms(now_ns - until);
}

}  // namespace troth
