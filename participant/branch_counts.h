// How many branches a participant has, by what is happening to them; for status and metrics.
// Knows no branch. docs/operations.md, "Monitoring".
#pragma once

#include <cstddef>
#include <cstdint>

namespace troth {

struct BranchCounts {
  std::size_t active = 0;    // open, not yet prepared
  std::size_t in_doubt = 0;  // being prepared, prepared, being finished here
  std::size_t found = 0;     // prepared, and nobody's here: what the sweep works on
  std::size_t ended = 0;     // remembered
  std::uint64_t heuristics = 0;
  std::uint64_t hazards = 0;
  std::uint64_t overloaded = 0;  // refused for load before they began
};

}  // namespace troth
