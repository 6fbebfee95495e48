// TROTH_CHECK: an assertion that is on in release too. A program that finds its own state
// impossible must not decide anything more: it says where, and stops.
#pragma once

namespace troth {
// Prints `condition` and its place to stderr and aborts.
[[noreturn]] void CheckFailed(const char* condition, const char* file, int line);
}  // namespace troth

#define TROTH_CHECK(condition)                       \
  (__builtin_expect(static_cast<bool>(condition), 1) \
       ? static_cast<void>(0)                        \
       : ::troth::CheckFailed(#condition, __FILE__, __LINE__))
