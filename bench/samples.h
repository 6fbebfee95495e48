// Figures out of samples: percentiles, medians, and where the CPU time of a process stands.
// Header only; knows nothing of what was measured. docs/performance.md.
#pragma once

#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <vector>

namespace troth::bench {

// The value that a share `q` (0 to 1) of the samples does not exceed. Reorders them. 0 of none.
inline double Percentile(std::vector<double>* samples, double q) {
  if (samples->empty()) return 0;
  const auto last = static_cast<double>(samples->size() - 1);
  const auto nth = samples->begin() + static_cast<std::ptrdiff_t>(last * q + 0.5);
  std::nth_element(samples->begin(), nth, samples->end());
  return *nth;
}

inline double Median(std::vector<double> samples) { return Percentile(&samples, 0.5); }

// CPU time of this process so far, in seconds.
inline double OwnCpuSeconds() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& t) {
    return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) / 1e6;
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

// Resident memory of this process now, in bytes.
inline std::uint64_t ResidentBytes() {
  std::FILE* statm = std::fopen("/proc/self/statm", "re");
  if (statm == nullptr) return 0;
  unsigned long long size = 0, resident = 0;
  const int read = std::fscanf(statm, "%llu %llu", &size, &resident);
  std::fclose(statm);
  return read == 2 ? resident * static_cast<std::uint64_t>(sysconf(_SC_PAGESIZE)) : 0;
}

}  // namespace troth::bench
