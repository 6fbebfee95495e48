// bench-replay: how fast a log is read back, and how soon a coordinator with much left to finish
// answers its first new commit. docs/performance.md, "The log".
#include <chrono>
#include <cstdio>
#include <iostream>

#include <gflags/gflags.h>
#include <glog/logging.h>

#include "bench/coordinator_rig.h"
#include "bench/scratch_directory.h"
#include "common/program.h"

DEFINE_uint64(records, 5'000'000, "records to replay: half commits, half ends");
DEFINE_uint64(unacknowledged, 100'000, "decided, unacknowledged transactions of the restart");
DEFINE_string(dir, "",
              "where logs are made and removed again; a local disk (default: $TMPDIR, /tmp)");

namespace troth::bench {
namespace {

using SteadyClock = std::chrono::steady_clock;

constexpr char kUsage[] =
    "Measures opening a log: replay of many records, and a restart with much to finish.\n"
    "\n"
    "  bench-replay [--records N] [--unacknowledged N]\n"
    "\n"
    "The last line is\n"
    "  replay: records=N records_per_s=N first_commit_s=X\n"
    "records_per_s: records over the whole of opening, which reads, checks and rewrites them;\n"
    "first_commit_s: from the begin of opening to the answer to a new commit.";

[[noreturn]] void Die(const std::string& what) {
  std::cerr << "bench-replay: " << what << "\n";
  std::_Exit(2);
}

void Check(const Status& status) {
  if (!status.ok()) Die(status.message());
}

// A log of one segment, so that everything is still there to be replayed.
WalOptions OneSegment(std::uint64_t records) {
  WalOptions options;
  options.segment_bytes = (records * 150 + (16u << 20)) / 4096 * 4096;
  options.segments_ahead = 1;
  return options;
}

CommitRecord CommitNumber(const LocalId& id) {
  CommitRecord commit;
  commit.id = id;
  for (ParticipantIndex p = 0; p < 2; ++p) {
    commit.branches.push_back({p,
                               {7'000'000'000'000'000'001, 16384 + p},
                               1000 + id.sequence,
                               1,
                               0x16B3748 + 500 * id.sequence});
  }
  return commit;
}

void Flush(Wal* wal) {
  if (auto job = wal->BeginFlush()) {
    Check(wal->Flush(&*job));
    wal->EndFlush(*std::move(job));
  }
}

// Writes an epoch with `transactions` commits, each with its end or none, behind what is there.
void WriteLog(const std::string& directory, const WalOptions& options, std::uint64_t transactions,
              bool ended) {
  RecoveredState state;
  auto opened = Wal::Open(PosixFileSystem(), SystemClock(), directory, options, &state);
  if (!opened.ok()) Die(opened.status().message());
  Wal* const wal = opened->get();
  const std::uint32_t number = state.epochs().empty() ? 1 : state.epochs().back().epoch.number + 1;
  const Epoch epoch{number, 0x1234567};
  while (wal->MaintenanceDue()) Check(wal->Maintain());
  wal->Append(EpochRecord{epoch, wal->last_batch()});
  wal->Append(ReserveRecord{epoch, transactions + 1});
  for (std::uint64_t i = 1; i <= transactions; ++i) {
    const LocalId id{epoch, i};
    wal->Append(CommitNumber(id));
    if (ended) wal->Append(EndRecord{id});
    if (i % 4096 == 0) {
      Flush(wal);
      if (wal->RoomBytes() < (1u << 20)) Die("the segment was estimated too small");
    }
  }
  while (wal->FlushPending()) Flush(wal);
}

double Since(SteadyClock::time_point began) {
  return std::chrono::duration<double>(SteadyClock::now() - began).count();
}

double ReplaySeconds(std::uint64_t* records) {
  const ScratchDirectory scratch(FLAGS_dir);
  const WalOptions options = OneSegment(FLAGS_records);
  const auto made = Wal::Init(PosixFileSystem(), scratch.log(), "bench", options);
  if (!made.ok()) Die(made.status().message());
  WriteLog(scratch.log(), options, FLAGS_records / 2, /*ended=*/true);
  RecoveredState state;
  const auto began = SteadyClock::now();
  const auto wal = Wal::Open(PosixFileSystem(), SystemClock(), scratch.log(), WalOptions(), &state);
  const double seconds = Since(began);
  if (!wal.ok()) Die(wal.status().message());
  const Epoch epoch = state.epochs().back().epoch;
  for (const std::uint64_t i : {std::uint64_t{1}, FLAGS_records / 2}) {
    if (!state.Committed({epoch, i})) Die("a commit was not read back");
  }
  *records = FLAGS_records / 2 * 2 + 2;
  return seconds;
}

double FirstCommitSeconds() {
  const ScratchDirectory scratch(FLAGS_dir);
  CoordinatorRig::Options options;
  options.directory = scratch.log();
  { const auto rig = CoordinatorRig::Open(options); }  // makes the log, enrols the participants
  WriteLog(scratch.log(), OneSegment(FLAGS_unacknowledged), FLAGS_unacknowledged, /*ended=*/false);
  const auto began = SteadyClock::now();
  auto rig = CoordinatorRig::Open(options);
  if (!rig.ok()) Die(rig.status().message());
  const Action leased = (*rig)->Ask(LeaseAsked{0, 1});
  const auto* lease = std::get_if<ReplyLease>(&leased);
  if (lease == nullptr) Die("no lease: " + DebugString(leased));
  const Action reply =
      (*rig)->Ask((*rig)->CommitOf({lease->epoch, lease->first}, 2, /*wait_applied=*/true));
  const double seconds = Since(began);
  const auto* outcome = std::get_if<ReplyOutcome>(&reply);
  if (outcome == nullptr || outcome->kind != OutcomeKind::kCommitted) {
    Die("the first commit was answered " + DebugString(reply));
  }
  return seconds;
}

int Main() {
  std::uint64_t records = 0;
  const double replay = ReplaySeconds(&records);
  std::printf("opening a log of %llu records took %.2f s\n",
              static_cast<unsigned long long>(records), replay);
  const double first = FirstCommitSeconds();
  std::printf("replay: records=%llu records_per_s=%.0f first_commit_s=%.2f\n",
              static_cast<unsigned long long>(records), static_cast<double>(records) / replay,
              first);
  return 0;
}

}  // namespace
}  // namespace troth::bench

int main(int argc, char** argv) {
  if (const auto done = troth::StartProgram(troth::bench::kUsage, &argc, &argv)) return *done;
  FLAGS_minloglevel = google::GLOG_WARNING;
  return troth::bench::Main();
}
