// bench-micro: microbenchmarks (Google Benchmark) of the machine's steps, the log's append, and
// records to bytes and back. docs/performance.md.
#include <benchmark/benchmark.h>

#include "bench/hot_paths.h"
#include "bench/scratch_directory.h"
#include "common/codec.h"
#include "common/failpoint.h"

namespace troth::bench {
namespace {

void Step(benchmark::State& state) {
  StepPath path;
  for (auto _ : state) path.CommitOne();
  state.SetItemsProcessed(state.iterations());
}
BENCHMARK(Step)->Name("commit_of_two_branches_through_the_machine");

void Append(benchmark::State& state) {
  const ScratchDirectory scratch("");
  AppendPath path(scratch.log());
  for (auto _ : state) path.AppendOne();
  state.SetItemsProcessed(state.iterations());
}
BENCHMARK(Append)->Name("append_in_batches_of_32_without_sync");

void Codec(benchmark::State& state) {
  CodecPath path;
  for (auto _ : state) path.RoundTripOne();
  state.SetItemsProcessed(state.iterations());
}
BENCHMARK(Codec)->Name("commit_record_to_bytes_and_back");

void Checksum(benchmark::State& state) {
  const std::string bytes(static_cast<std::size_t>(state.range(0)), 'x');
  std::uint32_t sum = 0;
  for (auto _ : state) benchmark::DoNotOptimize(sum = Crc32c(bytes, sum));
  state.SetBytesProcessed(state.iterations() * state.range(0));
}
BENCHMARK(Checksum)->Name("crc32c")->Arg(4096)->Arg(1 << 20);

// Arg 0: nothing was ever enabled, as in production; 1: another point is.
void Failpoint(benchmark::State& state) {
  if (state.range(0) == 1) (void)failpoint::Enable("bench-other-point=error");
  for (auto _ : state) benchmark::DoNotOptimize(TROTH_FAILPOINT("bench-point"));
  failpoint::DisableAll();
}
BENCHMARK(Failpoint)->Name("failpoint")->Arg(0)->Arg(1);

}  // namespace
}  // namespace troth::bench

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
}
