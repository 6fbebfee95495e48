// The parts of a text between separators; empty ones are left out. Header only.
// docs/performance.md.
#pragma once

#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

namespace troth::bench {

inline std::vector<std::string> Split(std::string_view text, char at) {
  std::vector<std::string> parts;
  for (std::size_t from = 0; from < text.size();) {
    const std::size_t end = std::min(text.find(at, from), text.size());
    if (end > from) parts.emplace_back(text.substr(from, end - from));
    from = end + 1;
  }
  return parts;
}

}  // namespace troth::bench
