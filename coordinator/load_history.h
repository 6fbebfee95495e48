// The last minutes of a coordinator's load, a sample a second: rates and latencies, made of
// totals that only grow. Pure: no clock, no page. docs/operations.md, "Console".
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <vector>

namespace troth {

// How long things took, counted by bucket; both only grow.
struct LatencyTotals {
  std::vector<double> bounds_s;       // upper bounds in seconds, ascending; the same for ever
  std::vector<std::uint64_t> counts;  // one more than bounds: the last is what took longer
};

// The `share`-quantile (0 to 1) in milliseconds of what `after` counts and `before` does not;
// within a bucket taken as evenly spread, so an estimate as fine as the buckets are. What took
// longer than the last bound counts as that. -1 when nothing was counted.
double QuantileMs(const LatencyTotals& before, const LatencyTotals& after, double share);

// Totals at one moment.
struct LoadTotals {
  std::int64_t at_ns = 0;       // monotone
  std::int64_t at_unix_ms = 0;  // for people
  std::uint64_t committed = 0, aborted = 0, read_only = 0, syncs = 0;
  std::size_t in_flight = 0, unacknowledged = 0;
  LatencyTotals commits, log_syncs;
};

struct LoadSample {
  std::int64_t at_unix_ms = 0;
  double committed_per_s = 0, aborted_per_s = 0, read_only_per_s = 0, syncs_per_s = 0;
  std::size_t in_flight = 0, unacknowledged = 0;
  double commit_p50_ms = -1, commit_p99_ms = -1, sync_p99_ms = -1;  // -1: there were none
};

// Not thread-safe.
class LoadHistory {
 public:
  // Keeps at most `limit` samples; the oldest go first.
  explicit LoadHistory(std::size_t limit) : limit_(limit) {}

  // The first only begins; each other makes a sample of what happened since the one before.
  // Totals of no time at all are passed over.
  void Add(LoadTotals totals);
  // Samples later than this, oldest first. (Of people's time: when that was set back, all.)
  std::vector<LoadSample> After(std::int64_t unix_ms) const;

 private:
  const std::size_t limit_;
  bool begun_ = false;
  LoadTotals last_;
  std::deque<LoadSample> samples_;
};

}  // namespace troth
