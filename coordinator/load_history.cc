// See load_history.h.
#include "coordinator/load_history.h"

#include <utility>

#include "common/check.h"

namespace troth {

double QuantileMs(const LatencyTotals& before, const LatencyTotals& after, double share) {
  TROTH_CHECK(after.counts.size() == after.bounds_s.size() + 1 || after.counts.empty());
  const auto grown = [&](std::size_t i) {
    return after.counts[i] - (i < before.counts.size() ? before.counts[i] : 0);
  };
  std::uint64_t all = 0;
  for (std::size_t i = 0; i < after.counts.size(); ++i) all += grown(i);
  if (all == 0) return -1;
  const double wanted = share * static_cast<double>(all);
  double below = 0;
  for (std::size_t i = 0; i < after.bounds_s.size(); ++i) {
    const auto here = static_cast<double>(grown(i));
    if (here > 0 && below + here >= wanted) {
      const double from = i == 0 ? 0 : after.bounds_s[i - 1];
      return 1e3 * (from + (after.bounds_s[i] - from) * (wanted - below) / here);
    }
    below += here;
  }
  return after.bounds_s.empty() ? -1 : 1e3 * after.bounds_s.back();
}

void LoadHistory::Add(LoadTotals totals) {
  if (begun_ && totals.at_ns <= last_.at_ns) return;
  if (begun_) {
    const double seconds = static_cast<double>(totals.at_ns - last_.at_ns) / 1e9;
    const auto rate = [seconds](std::uint64_t now, std::uint64_t before) {
      return static_cast<double>(now - before) / seconds;
    };
    LoadSample sample;
    sample.at_unix_ms = totals.at_unix_ms;
    sample.committed_per_s = rate(totals.committed, last_.committed);
    sample.aborted_per_s = rate(totals.aborted, last_.aborted);
    sample.read_only_per_s = rate(totals.read_only, last_.read_only);
    sample.syncs_per_s = rate(totals.syncs, last_.syncs);
    sample.in_flight = totals.in_flight;
    sample.unacknowledged = totals.unacknowledged;
    sample.commit_p50_ms = QuantileMs(last_.commits, totals.commits, 0.5);
    sample.commit_p99_ms = QuantileMs(last_.commits, totals.commits, 0.99);
    sample.sync_p99_ms = QuantileMs(last_.log_syncs, totals.log_syncs, 0.99);
    samples_.push_back(sample);
    if (samples_.size() > limit_) samples_.pop_front();
  }
  begun_ = true;
  last_ = std::move(totals);
}

std::vector<LoadSample> LoadHistory::After(std::int64_t unix_ms) const {
  const bool set_back = !samples_.empty() && samples_.back().at_unix_ms < unix_ms;
  std::vector<LoadSample> later;
  for (const LoadSample& sample : samples_) {
    if (set_back || sample.at_unix_ms > unix_ms) later.push_back(sample);
  }
  return later;
}

}  // namespace troth
