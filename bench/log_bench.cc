// bench-log: many transactions through one log while it is compacted, and what became of them:
// the directory, the memory, the longest waits, and the outcomes, asked before and after a
// restart. docs/performance.md, "The log".
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <mutex>
#include <random>
#include <thread>
#include <vector>

#include <gflags/gflags.h>
#include <glog/logging.h>

#include "bench/coordinator_rig.h"
#include "bench/samples.h"
#include "bench/scratch_directory.h"
#include "common/program.h"

DEFINE_uint64(transactions, 10'000'000, "committed transactions");
DEFINE_int32(callers, 64, "callers at once");
DEFINE_int64(lease_ms, 1000, "length of a lease: so long a commit record is kept at least");
DEFINE_int64(record_retention, 0, "ms that an ended commit record is kept whole beyond its lease");
DEFINE_uint64(control, 500'000, "transactions of the control, whose log is never compacted");
DEFINE_int32(sampled, 100'000, "outcomes asked for, before and after the restart");
DEFINE_string(dir, "",
              "where logs are made and removed again; a local disk (default: $TMPDIR, /tmp)");

namespace troth::bench {
namespace {

using SteadyClock = std::chrono::steady_clock;

constexpr char kUsage[] =
    "Commits many transactions through one log, with compaction, and audits the outcomes.\n"
    "\n"
    "  bench-log [--transactions N]\n"
    "\n"
    "The last line is\n"
    "  log: transactions=N dir_mib=N rss_mib=N pause_p9999_ms=X sampled=N wrong=N\n"
    "dir_mib: the directory when all leases are over; rss_mib: the most the process ever had;\n"
    "pause_p9999_ms: by how much the wait that one commit in 10,000 exceeds is longer than in a\n"
    "control, half of it before and half after, whose log is never compacted; sampled: outcomes\n"
    "asked for, before and after a restart. Exit codes: 0 measured, 1 an outcome was wrong.";

constexpr std::uint32_t kBlock = 500;    // ids in a lease
constexpr std::uint64_t kUnheard = 100;  // one in so many ids is never asked to commit

bool NeverAsked(std::uint64_t sequence) { return sequence % kUnheard == 0; }

[[noreturn]] void Die(const std::string& what, int code = 2) {
  std::cerr << "bench-log: " << what << "\n";
  std::_Exit(code);
}

// Waits by length: counts per 10 us, so that ten million of them take no memory.
class Waits {
 public:
  void Add(double us) {
    ++counts_[std::min(static_cast<std::size_t>(us / 10), counts_.size() - 1)];
    ++total_;
  }
  void Add(const Waits& other) {
    for (std::size_t i = 0; i < counts_.size(); ++i) counts_[i] += other.counts_[i];
    total_ += other.total_;
  }
  std::uint64_t total() const { return total_; }
  // The wait in ms that a share `q` does not exceed.
  double Quantile(double q) const {
    auto left = static_cast<std::uint64_t>(static_cast<double>(total_) * (1 - q));
    for (std::size_t i = counts_.size(); i-- > 0;) {
      if (counts_[i] > left) return static_cast<double>(i + 1) / 100;
      left -= counts_[i];
    }
    return 0;
  }
  const std::vector<std::uint32_t>& counts() const { return counts_; }
  std::vector<std::uint32_t>& counts() { return counts_; }
  void Recount() {
    total_ = 0;
    for (const std::uint32_t count : counts_) total_ += count;
  }

 private:
  std::vector<std::uint32_t> counts_ = std::vector<std::uint32_t>(100'000);  // up to 1 s
  std::uint64_t total_ = 0;
};

// Ids that were gone through: [first, end) of the one epoch.
struct Stretch {
  std::uint64_t first = 0;
  std::uint64_t end = 0;
};

struct Load {
  CoordinatorRig* rig;
  std::atomic<std::uint64_t> begun{0};
  std::uint64_t wanted = 0;
  std::mutex mutex;
  std::vector<Stretch> stretches;
  Waits waits;
};

// Hands waits over now and then: a table for each caller would be the most of the memory.
class WaitsOfCaller {
 public:
  explicit WaitsOfCaller(Load* load) : load_(load) {}
  ~WaitsOfCaller() { HandOver(); }
  void Add(double us) {
    kept_[used_++] = us;
    if (used_ == kept_.size()) HandOver();
  }

 private:
  void HandOver() {
    const std::lock_guard<std::mutex> lock(load_->mutex);
    for (std::size_t i = 0; i < used_; ++i) load_->waits.Add(kept_[i]);
    used_ = 0;
  }
  Load* const load_;
  std::array<double, 512> kept_{};
  std::size_t used_ = 0;
};

void RunCaller(Load* load) {
  WaitsOfCaller waits(load);
  std::vector<Stretch> stretches;
  ReplyLease lease;
  Stretch now;
  while (load->begun.fetch_add(1, std::memory_order_relaxed) < load->wanted) {
    while (now.end == lease.first + lease.count || NeverAsked(now.end)) {
      if (now.end < lease.first + lease.count) {
        ++now.end;
        continue;
      }
      if (now.end > now.first) stretches.push_back(now);
      const Action reply = load->rig->Ask(LeaseAsked{0, kBlock});
      if (!std::holds_alternative<ReplyLease>(reply)) Die("no lease was granted", 1);
      lease = std::get<ReplyLease>(reply);
      now = {lease.first, lease.first};
    }
    const auto began = SteadyClock::now();
    const Action reply = load->rig->Ask(load->rig->CommitOf({lease.epoch, now.end}, 2, true));
    const auto* outcome = std::get_if<ReplyOutcome>(&reply);
    if (outcome == nullptr) Die("a commit was refused: " + DebugString(reply), 1);
    if (outcome->kind == OutcomeKind::kAborted && (outcome->refusal.reason == Reason::kNotLeased ||
                                                   outcome->refusal.reason == Reason::kDeadline)) {
      // The lease was over, or about to be; what is left of it is of no use.
      lease.count = static_cast<std::uint32_t>(now.end - lease.first);
      load->begun.fetch_sub(1, std::memory_order_relaxed);
      continue;
    }
    if (outcome->kind != OutcomeKind::kCommitted) Die("a commit was " + DebugString(reply), 1);
    waits.Add(std::chrono::duration<double, std::micro>(SteadyClock::now() - began).count());
    ++now.end;
  }
  if (now.end > now.first) stretches.push_back(now);
  const std::lock_guard<std::mutex> lock(load->mutex);
  load->stretches.insert(load->stretches.end(), stretches.begin(), stretches.end());
}

void RunLoad(Load* load) {
  std::vector<std::thread> threads;
  for (int i = 0; i < FLAGS_callers; ++i) threads.emplace_back(RunCaller, load);
  for (std::thread& thread : threads) thread.join();
}

CoordinatorRig::Options RigOptions(const ScratchDirectory& scratch) {
  CoordinatorRig::Options options;
  options.directory = scratch.log();
  options.wal.retention.lease_ms = FLAGS_lease_ms;
  options.wal.retention.record_ms = FLAGS_record_retention;
  options.machine.lease_ms = FLAGS_lease_ms;
  return options;
}

std::unique_ptr<CoordinatorRig> OpenRig(const CoordinatorRig::Options& options) {
  auto rig = CoordinatorRig::Open(options);
  if (!rig.ok()) Die(rig.status().message());
  return *std::move(rig);
}

// Waits of a log with one segment for all: nothing is compacted. In a process of its own, whose
// memory is not this one's.
Waits MeasureControl(std::uint64_t transactions) {
  std::array<int, 2> pipes{};
  PCHECK(pipe(pipes.data()) == 0);
  const pid_t child = fork();
  PCHECK(child >= 0);
  if (child == 0) {
    const ScratchDirectory scratch(FLAGS_dir);
    CoordinatorRig::Options options = RigOptions(scratch);
    // A commit and its end, and what padding batches to blocks may add.
    options.wal.segment_bytes = (transactions * 400 + (64u << 20)) / 4096 * 4096;
    options.wal.segments_ahead = 1;
    Load load;
    {
      const auto rig = OpenRig(options);
      while (rig->wal().MaintenanceDue())
        std::this_thread::sleep_for(std::chrono::milliseconds(10));
      load.rig = rig.get();
      load.wanted = transactions;
      RunLoad(&load);
      if (rig->wal().stats().compactions > 0) Die("the control was compacted");
    }
    const auto& counts = load.waits.counts();
    const std::size_t bytes = counts.size() * sizeof counts[0];
    std::size_t told = 0;
    while (told < bytes) {
      const ssize_t n =
          write(pipes[1], reinterpret_cast<const char*>(counts.data()) + told, bytes - told);
      PCHECK(n > 0);
      told += static_cast<std::size_t>(n);
    }
    scratch.~ScratchDirectory();
    std::_Exit(0);
  }
  close(pipes[1]);
  Waits waits;
  auto& counts = waits.counts();
  std::size_t heard = 0;
  for (;;) {
    const ssize_t n = read(pipes[0], reinterpret_cast<char*>(counts.data()) + heard,
                           counts.size() * sizeof counts[0] - heard);
    if (n <= 0) break;
    heard += static_cast<std::size_t>(n);
  }
  close(pipes[0]);
  int status = 0;
  waitpid(child, &status, 0);
  if (status != 0) Die("the control failed");
  waits.Recount();
  return waits;
}

// Asks for outcomes of random ids that were gone through; how many were answered wrongly.
std::uint64_t Audit(CoordinatorRig* rig, const Epoch& epoch, const std::vector<Stretch>& stretches,
                    bool ended) {
  std::uint64_t total = 0;
  for (const Stretch& s : stretches) total += s.end - s.first;
  std::mt19937_64 random(20);
  std::uint64_t wrong = 0;
  for (int i = 0; i < FLAGS_sampled; ++i) {
    std::uint64_t nth = random() % total;
    std::size_t s = 0;
    while (nth >= stretches[s].end - stretches[s].first) {
      nth -= stretches[s].end - stretches[s].first;
      ++s;
    }
    const std::uint64_t sequence = stretches[s].first + nth;
    const Action reply = rig->Ask(OutcomeAsked{0, {rig->id(), {epoch, sequence}}, 0});
    const auto* outcome = std::get_if<ReplyOutcome>(&reply);
    const OutcomeKind kind = outcome != nullptr ? outcome->kind : OutcomeKind::kPending;
    const bool right = NeverAsked(sequence) ? kind == OutcomeKind::kAborted ||
                                                  (!ended && kind == OutcomeKind::kPending)
                                            : kind == OutcomeKind::kCommitted;
    if (right) continue;
    if (++wrong <= 5) std::cerr << "bench-log: " << sequence << ": " << DebugString(reply) << "\n";
  }
  return wrong;
}

double DirectoryMib(const std::string& path) {
  std::uint64_t bytes = 0;
  for (const auto& entry : std::filesystem::directory_iterator(path)) bytes += entry.file_size();
  return static_cast<double>(bytes) / (1 << 20);
}

// The most memory this process ever had resident.
double PeakRssMib() {
  std::ifstream status("/proc/self/status");
  for (std::string word; status >> word;) {
    double kib = 0;
    if (word == "VmHWM:" && status >> kib) return kib / 1024;
  }
  return 0;
}

int Main() {
  Waits control = MeasureControl(FLAGS_control / 2);
  const ScratchDirectory scratch(FLAGS_dir);
  const CoordinatorRig::Options options = RigOptions(scratch);
  Load load;
  load.wanted = FLAGS_transactions;
  Epoch epoch;
  std::uint64_t wrong = 0;
  double dir_mib = 0;
  {
    const auto rig = OpenRig(options);
    epoch = rig->coordinator().epoch();
    load.rig = rig.get();
    const auto began = SteadyClock::now();
    RunLoad(&load);
    const double seconds = std::chrono::duration<double>(SteadyClock::now() - began).count();
    const auto stats = rig->wal().stats();
    std::printf(
        "%llu commits in %.1f s (%.0f/s), %llu batches, %llu compactions, %.0f MiB logged\n",
        static_cast<unsigned long long>(load.waits.total()), seconds,
        static_cast<double>(load.waits.total()) / seconds,
        static_cast<unsigned long long>(stats.batches),
        static_cast<unsigned long long>(stats.compactions),
        static_cast<double>(stats.record_bytes) / (1 << 20));
    std::fflush(stdout);
    wrong += Audit(rig.get(), epoch, load.stretches, /*ended=*/false);
    // What is kept for the sake of a lease goes when it is over: time is what is awaited here.
    std::this_thread::sleep_for(std::chrono::milliseconds(FLAGS_lease_ms + 500));
    while (rig->wal().MaintenanceDue()) std::this_thread::sleep_for(std::chrono::milliseconds(20));
    dir_mib = DirectoryMib(scratch.log());
  }
  control.Add(MeasureControl(FLAGS_control / 2));
  {
    const auto began = SteadyClock::now();
    const auto rig = OpenRig(options);
    std::printf("opened again after %.2f s\n",
                std::chrono::duration<double>(SteadyClock::now() - began).count());
    wrong += Audit(rig.get(), epoch, load.stretches, /*ended=*/true);
  }
  std::printf(
      "wait of a commit, ms: p50 %.2f, p99 %.2f, p99.99 %.2f; control: p50 %.2f, p99 %.2f, p99.99 "
      "%.2f\n",
      load.waits.Quantile(0.5), load.waits.Quantile(0.99), load.waits.Quantile(0.9999),
      control.Quantile(0.5), control.Quantile(0.99), control.Quantile(0.9999));
  std::printf(
      "log: transactions=%llu dir_mib=%.0f rss_mib=%.0f pause_p9999_ms=%.2f sampled=%d "
      "wrong=%llu\n",
      static_cast<unsigned long long>(load.waits.total()), dir_mib, PeakRssMib(),
      std::max(0.0, load.waits.Quantile(0.9999) - control.Quantile(0.9999)), FLAGS_sampled,
      static_cast<unsigned long long>(wrong));
  return wrong == 0 ? 0 : 1;
}

}  // namespace
}  // namespace troth::bench

int main(int argc, char** argv) {
  if (const auto done = troth::StartProgram(troth::bench::kUsage, &argc, &argv)) return *done;
  FLAGS_minloglevel = google::GLOG_WARNING;
  if (FLAGS_transactions < 1 || FLAGS_callers < 1 || FLAGS_control < 2 || FLAGS_sampled < 1) {
    std::cerr << "bench-log: every number is at least 1; see --help\n";
    return 2;
  }
  return troth::bench::Main();
}
