// Time as a client counts it: CLOCK_BOOTTIME, which runs on while the machine is suspended, so
// that no lease looks alive after a night in a closed laptop. docs/protocol.md, "Leases".
#pragma once

#include <algorithm>
#include <cstdint>

#include <time.h>

namespace troth {

// Milliseconds since the machine was started, suspension included. Never goes back.
inline std::int64_t BootMs() {
  timespec now;
  clock_gettime(CLOCK_BOOTTIME, &now);
  return std::int64_t{now.tv_sec} * 1000 + now.tv_nsec / 1'000'000;
}

// A point of boot time by which something must be over. Travels as milliseconds left.
class Deadline {
 public:
  // `ms` from now.
  static Deadline In(std::int64_t ms) { return Deadline(BootMs() + ms); }
  explicit Deadline(std::int64_t at_ms) : at_ms_(at_ms) {}

  std::int64_t at_ms() const { return at_ms_; }
  // Milliseconds left, never negative.
  std::int64_t left_ms() const { return std::max<std::int64_t>(0, at_ms_ - BootMs()); }
  bool passed() const { return left_ms() == 0; }
  Deadline Plus(std::int64_t ms) const { return Deadline(at_ms_ + ms); }

 private:
  std::int64_t at_ms_;
};

}  // namespace troth
