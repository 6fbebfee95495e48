// bench-micro: microbenchmarks (Google Benchmark) of the machine's steps, the log's append, records
// to bytes and back, and of a call. docs/performance.md.
#include <benchmark/benchmark.h>

#include "BenchParticipant.h"
#include "bench/hot_paths.h"
#include "bench/scratch_directory.h"
#include "common/codec.h"
#include "common/failpoint.h"
#include "wire/listener.h"
#include "wire/socket.h"

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

// Answers at once, as if the row had been changed.
class NoWork : public BenchParticipantIf {
 public:
  void hello(wire::ParticipantHello&, std::int32_t) override {}
  void change(ChangeReply& reply, const wire::Context& context, std::int32_t,
              std::int32_t) override {
    reply.branch.participant = "p0";
    reply.branch.mark = "00000000000000aa";
    reply.branch.works = context.work + 1;
    reply.branch.instance = "0123456789abcdef";
  }
};

// What a call costs both sides, nothing being done in it; CPU is that of the whole process.
void Call(benchmark::State& state) {
  static Listener* const listener = [] {
    auto* made =
        new Listener({}, std::make_shared<BenchParticipantProcessor>(std::make_shared<NoWork>()));
    if (!made->Start().ok()) std::abort();
    return made;
  }();
  using Framed = apache::thrift::transport::TFramedTransport;
  const auto socket = std::make_shared<WireSocket>(nullptr, "127.0.0.1", listener->port());
  socket->open();
  BenchParticipantClient client(BoundedProtocol(std::make_shared<Framed>(socket, FrameLimits())));
  wire::Context context;
  context.transaction_id = "bench-0123456789ab.1-00000001.1234567";
  context.deadline_ms = 10'000;
  ChangeReply reply;
  for (auto _ : state) client.change(reply, context, 1234, -1);
  state.SetItemsProcessed(state.iterations());
}
BENCHMARK(Call)
    ->Name("call_with_no_work")
    ->Threads(1)
    ->Threads(32)
    ->MeasureProcessCPUTime()
    ->UseRealTime();

}  // namespace
}  // namespace troth::bench

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
}
