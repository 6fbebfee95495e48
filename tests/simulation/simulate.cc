// troth-simulate: whole clusters in one thread, each run drawn from one seed; replays a run to
// the byte. docs/testing.md, "The simulator".
#include <chrono>
#include <csignal>
#include <cstdio>
#include <ctime>
#include <iostream>

#include <gflags/gflags.h>
#include <malloc.h>
#include <unistd.h>

#include "common/mark.h"
#include "common/program.h"
#include "tests/simulation/sim_cluster.h"

DEFINE_uint64(seed, 1, "seed of the first run; run i uses seed + i");
DEFINE_uint64(runs, 100, "so many runs");
DEFINE_double(minutes, 0, "runs for so long instead of --runs");
DEFINE_int32(transactions, 400, "transactions of a run");
DEFINE_string(profile, "default",
              "what goes wrong: default, stormy, calm, disk, network, retention, failover");
DEFINE_bool(trace, false, "one run only; its timeline on stdout, the closing line on stderr");
DEFINE_bool(require_marks, false, "fails when a marked path of the product was never reached");
DEFINE_bool(shrink, true, "makes a failing run smaller while it still fails");
DEFINE_uint32(without, 0, "faults switched off, as a sum of bits (printed by a shrunk run)");

namespace troth::sim {
namespace {

constexpr char kUsage[] =
    "Usage: troth-simulate [--seed=N] [--runs=N | --minutes=M] [--profile=NAME]\n"
    "                      [--require-marks] [--trace]\n"
    "Simulates clusters of Troth: the real coordinator, log and branch tables; disk, network,\n"
    "databases, clients and time are simulated. Exit code 1 when a law is broken.\n";

// Of the run under way, for the words that a CHECK leaves behind.
Options running;

std::string Command(const Options& o) {
  std::string text = "troth-simulate --seed=" + std::to_string(o.seed) +
                     " --transactions=" + std::to_string(o.transactions) +
                     " --profile=" + o.profile;
  if (o.without != 0) text += " --without=" + std::to_string(o.without);
  return text + " --trace";
}

void OnAbort(int) {
  std::signal(SIGABRT, SIG_DFL);
  std::fprintf(stderr, "violation: a CHECK of the product, seed %llu\n  %s\n",
               static_cast<unsigned long long>(running.seed), Command(running).c_str());
  _exit(1);
}

// Fewer transactions, then fewer kinds of faults, while it still fails.
Options Shrink(Options options, Report* report) {
  for (int n = options.transactions / 2; n >= 1; n /= 2) {
    Options fewer = options;
    fewer.transactions = n;
    running = fewer;
    const Report r = Run(fewer);
    if (r.violation.empty()) break;
    options = fewer;
    *report = r;
  }
  for (std::uint32_t fault = 0; fault < kFaults; ++fault) {
    Options without = options;
    without.without |= 1u << fault;
    running = without;
    const Report r = Run(without);
    if (r.violation.empty()) continue;
    options = without;
    *report = r;
  }
  return options;
}

int Main() {
  if (!KnownProfile(FLAGS_profile)) {
    std::cerr << "troth-simulate: no profile is named '" << FLAGS_profile << "'\n";
    return 2;
  }
  std::signal(SIGABRT, OnAbort);
  // A run needs what the one before needed: keep the memory.
  mallopt(M_MMAP_THRESHOLD, 1 << 30);
  mallopt(M_TRIM_THRESHOLD, 1 << 30);
  using SteadyClock = std::chrono::steady_clock;
  const auto began = SteadyClock::now();
  auto seconds = [began] {
    return std::chrono::duration<double>(SteadyClock::now() - began).count();
  };
  const std::uint64_t runs = FLAGS_trace ? 1 : FLAGS_minutes > 0 ? ~std::uint64_t{0} : FLAGS_runs;
  Report sum;
  std::uint64_t done = 0, violations = 0;
  for (; done < runs && (FLAGS_minutes <= 0 || FLAGS_trace || seconds() < FLAGS_minutes * 60);
       ++done) {
    Options options;
    options.seed = FLAGS_seed + done;
    options.profile = FLAGS_profile;
    options.transactions = FLAGS_transactions;
    options.without = FLAGS_without;
    options.trace = FLAGS_trace;
    running = options;
    Report report = Run(options);
    sum.transactions += report.transactions;
    sum.committed += report.committed;
    sum.crashes += report.crashes;
    sum.faults += report.faults;
    if (report.violation.empty()) continue;
    ++violations;
    std::cerr << "violation, seed " << options.seed << ": " << report.violation << "\n";
    if (!FLAGS_trace && FLAGS_shrink) options = Shrink(options, &report);
    std::cerr << "  smallest found: " << report.violation << "\n  " << Command(options) << "\n";
    if (violations >= 5) break;
  }
  // Of machine time: what else runs here does not count.
  const double took = static_cast<double>(std::clock()) / CLOCKS_PER_SEC;
  std::uint64_t missed = 0;
  for (const Mark* mark : Marks()) {
    if (mark->count() > 0) continue;
    ++missed;
    if (FLAGS_require_marks) std::cerr << "never reached: " << mark->name() << "\n";
  }
  std::fprintf(
      FLAGS_trace ? stderr : stdout,
      "simulate: runs=%llu transactions=%llu committed=%llu crashes=%llu faults=%llu "
      "tx_per_s=%.0f marks_missed=%llu violations=%llu\n",
      static_cast<unsigned long long>(done), static_cast<unsigned long long>(sum.transactions),
      static_cast<unsigned long long>(sum.committed), static_cast<unsigned long long>(sum.crashes),
      static_cast<unsigned long long>(sum.faults), static_cast<double>(sum.transactions) / took,
      static_cast<unsigned long long>(missed), static_cast<unsigned long long>(violations));
  return violations == 0 && (!FLAGS_require_marks || missed == 0) ? 0 : 1;
}

}  // namespace
}  // namespace troth::sim

int main(int argc, char** argv) {
  if (const std::optional<int> done = troth::StartProgram(troth::sim::kUsage, &argc, &argv)) {
    return *done;
  }
  return troth::sim::Main();
}
