// The `traceparent` of W3C's Trace Context, as applications hand it in: whether a text is one.
// Knows neither traces nor where they go. docs/operations.md, "Tracing".
#pragma once

#include <algorithm>
#include <string_view>

namespace troth {

// `<version>-<trace id>-<parent id>-<flags>`: 2, 32, 16 and 2 lower-case hex digits; the ids not
// all zero, the version not ff. What is none is passed over in silence, as the standard wants it:
// nobody's transaction fails for a tracer's mistake.
inline bool IsTraceparent(std::string_view text) {
  if (text.size() != 55 || text[2] != '-' || text[35] != '-' || text[52] != '-') return false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    const bool hex = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
    if (!hex && i != 2 && i != 35 && i != 52) return false;
  }
  const auto zero = [](std::string_view id) {
    return std::all_of(id.begin(), id.end(), [](char c) { return c == '0'; });
  };
  return text.substr(0, 2) != "ff" && !zero(text.substr(3, 32)) && !zero(text.substr(36, 16));
}

}  // namespace troth
