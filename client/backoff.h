// Capped exponential back-off with full jitter: how long to wait before trying again.
#pragma once

#include <algorithm>
#include <cstdint>
#include <random>

namespace troth {

class Backoff {
 public:
  Backoff(std::int64_t first_ms, std::int64_t max_ms)
      : bound_ms_(std::max<std::int64_t>(1, first_ms)), max_ms_(std::max(bound_ms_, max_ms)) {}

  // A random time in [1, min(max, first * 2^n)] ms, n counting the calls before this one.
  std::int64_t NextMs() {
    // Seeded when first needed: on a virtual machine that takes tens of microseconds.
    thread_local std::minstd_rand random(std::random_device{}());
    const std::int64_t wait_ms = std::uniform_int_distribution<std::int64_t>(1, bound_ms_)(random);
    bound_ms_ = std::min(max_ms_, bound_ms_ * 2);
    return wait_ms;
  }

 private:
  std::int64_t bound_ms_;
  const std::int64_t max_ms_;
};

}  // namespace troth
