// The time of a simulated cluster: a clock that goes on only when the next thing happens, and what
// is going to happen. Knows nobody to whom it does. docs/testing.md, "The simulator".
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <utility>
#include <vector>

#include "common/clock.h"

namespace troth::sim {

using Us = std::int64_t;

// Time, and what is going to happen: in order of time, and of asking.
class World : public Clock {
 public:
  std::int64_t NowNs() override { return now_us_ * 1000; }
  std::int64_t WallUnixMs() override { return 1'700'000'000'000 + now_us_ / 1000; }
  Us now_us() const { return now_us_; }
  void In(Us us, std::function<void()> what) {
    heap_.push_back({now_us_ + us, ++asked_, std::move(what)});
    std::push_heap(heap_.begin(), heap_.end(), Later);
  }
  // Lets the next thing happen, if it is due by `until`.
  bool Next(Us until) {
    if (heap_.empty() || heap_.front().at > until) return false;
    std::pop_heap(heap_.begin(), heap_.end(), Later);
    Due due = std::move(heap_.back());
    heap_.pop_back();
    now_us_ = due.at;
    due.what();
    return true;
  }

 private:
  struct Due {
    Us at;
    std::uint64_t nth;
    std::function<void()> what;
  };
  static bool Later(const Due& a, const Due& b) {
    return a.at != b.at ? a.at > b.at : a.nth > b.nth;
  }
  std::vector<Due> heap_;
  Us now_us_ = 1'000'000;
  std::uint64_t asked_ = 0;
};

}  // namespace troth::sim
