// Random transfers from many clients at once, and a journal of what each was answered.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "client/client.h"
#include "common/status.h"

namespace troth::bank {

struct LoadOptions {
  std::vector<std::string> banks;  // at least one
  std::int64_t accounts = 100;     // in each: 1 ... accounts
  int clients = 8;
  double seconds = 10;
  std::int64_t max_amount = 10;
  std::int64_t deadline_ms = 5000;
  bool early = false;
  Wait wait = Wait::kApplied;
  // One line for each transaction that got an id, appended; empty: none. Tab-separated:
  //   outcome  id  begun_us  ended_us  leg leg ...
  // times are CLOCK_BOOTTIME in microseconds, a leg is `east/17=-5`.
  std::string journal;
};

struct LoadResult {
  std::int64_t committed = 0, aborted = 0, unknown = 0;
  std::int64_t not_begun = 0;  // no id could be had: the coordinator was away
  double seconds = 0;
  double p50_ms = 0, p99_ms = 0;  // of committed ones
  double tps() const { return seconds > 0 ? static_cast<double>(committed) / seconds : 0; }
};

// Runs the load; prints a line of JSON on stdout each second and one at the end. Stops early when
// `stop` becomes non-zero. kIo: the journal can't be written.
Result<LoadResult> RunLoad(Client& client, const LoadOptions& options, const volatile int* stop);

}  // namespace troth::bank
