// bench-hot-path: runs one piece of the hot path a fixed number of times, for callgrind to count.
// bench/instructions compares the counts with those recorded.
#include <iostream>

#include <gflags/gflags.h>

#include "bench/hot_paths.h"
#include "bench/scratch_directory.h"
#include "common/program.h"

DEFINE_uint64(count, 1000, "how many times");

int main(int argc, char** argv) {
  constexpr char kUsage[] =
      "Runs a piece of the hot path --count times: step, append or codec.\n"
      "\n"
      "  bench-hot-path --count 1000 step";
  if (const auto done = troth::StartProgram(kUsage, &argc, &argv)) return *done;
  const std::string piece = argc == 2 ? argv[1] : "";
  if (piece == "step") {
    troth::bench::StepPath path;
    for (std::uint64_t i = 0; i < FLAGS_count; ++i) path.CommitOne();
  } else if (piece == "append") {
    const troth::bench::ScratchDirectory scratch("");
    troth::bench::AppendPath path(scratch.log());
    for (std::uint64_t i = 0; i < FLAGS_count; ++i) path.AppendOne();
  } else if (piece == "codec") {
    troth::bench::CodecPath path;
    for (std::uint64_t i = 0; i < FLAGS_count; ++i) path.RoundTripOne();
  } else {
    std::cerr << "bench-hot-path: name a piece: step, append or codec\n";
    return 2;
  }
  return 0;
}
