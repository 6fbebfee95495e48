// Time behind a seam. Protocol and retention use only the monotone clock, which also runs while
// the machine is suspended; wall-clock time is shown to people and never compared.
#pragma once

#include <cstdint>

namespace troth {

class Clock {
 public:
  virtual ~Clock() = default;
  // Nanoseconds since an arbitrary point; never goes back; runs through suspension.
  virtual std::int64_t NowNs() = 0;
  // Milliseconds since 1970, for people only; may jump.
  virtual std::int64_t WallUnixMs() = 0;

  std::int64_t NowMs() { return NowNs() / 1'000'000; }
};

// The machine's clock (CLOCK_BOOTTIME). Any thread; lives for ever.
Clock* SystemClock();

}  // namespace troth
