// Where the time of a slow transaction went, as one line of the coordinator's log. Made of what the
// timeline noted; knows no clock and no machine. docs/operations.md, "Tracing".
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "coordinator/timeline.h"

namespace troth {

// The phases that `happenings` (of one transaction, oldest first) tell of, up to `now_ns`, in
// milliseconds: `prepare 1503 (east 1503, west 3), log 4, finish 12 (east 10, west 12), answer 1`.
// A participant that has not answered stands as `west no vote`; a phase not reached is left out.
// `names` by ParticipantIndex. Empty when nothing is known.
std::string WhereTimeWent(const std::vector<Happening>& happenings,
                          const std::vector<std::string>& names, std::int64_t now_ns);

}  // namespace troth
