// See clock.h.
#include "common/clock.h"

#include <ctime>

#include "common/check.h"

namespace troth {
namespace {

std::int64_t ReadNs(clockid_t id) {
  timespec now{};
  TROTH_CHECK(clock_gettime(id, &now) == 0);
  return std::int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
}

class BootTimeClock final : public Clock {
 public:
  std::int64_t NowNs() override { return ReadNs(CLOCK_BOOTTIME); }
  std::int64_t WallUnixMs() override { return ReadNs(CLOCK_REALTIME) / 1'000'000; }
};

}  // namespace

Clock* SystemClock() {
  static BootTimeClock clock;
  return &clock;
}

}  // namespace troth
