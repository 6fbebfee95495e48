// See rounds.h.
#include "bench/rounds.h"

#include <atomic>
#include <barrier>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <iostream>
#include <sstream>
#include <thread>
#include <vector>

#include "bench/samples.h"

namespace troth::bench {
namespace {

using SteadyClock = std::chrono::steady_clock;

// What the clients of a round share.
struct Round {
  std::string mode;
  std::atomic<bool> stop{false};
  bool over = false;  // no more rounds
};

struct Tally {
  std::vector<double> latency_ms;
  std::uint64_t failed = 0;
  std::string why;  // the last one that failed
};

void RunClient(RoundClient* client, std::barrier<>* turn, const Round* round, Tally* tally) {
  for (;;) {
    turn->arrive_and_wait();  // a round begins
    if (round->over) return;
    tally->latency_ms.clear();
    tally->failed = 0;
    while (!round->stop.load(std::memory_order_relaxed)) {
      const auto began = SteadyClock::now();
      if (client->Transact(round->mode)) {
        const double part = client->MeasuredMs();
        tally->latency_ms.push_back(
            part >= 0
                ? part
                : std::chrono::duration<double, std::milli>(SteadyClock::now() - began).count());
      } else {
        ++tally->failed;
        tally->why = client->Why();
      }
      // A part of the load, as a think time; nothing is awaited.
      if (const int pause = client->PauseMs(); pause > 0) {
        std::this_thread::sleep_for(std::chrono::milliseconds(pause));
      }
    }
    turn->arrive_and_wait();  // and ends
  }
}

void Tell(const std::vector<Tally>& tallies, double seconds, double cpu) {
  std::vector<double> all;
  std::uint64_t failed = 0;
  for (const Tally& tally : tallies) {
    all.insert(all.end(), tally.latency_ms.begin(), tally.latency_ms.end());
    failed += tally.failed;
  }
  for (const Tally& tally : tallies) {
    if (tally.failed == 0) continue;
    std::cerr << failed << " rolled back, one because " << tally.why << "\n";
    break;
  }
  const double p50 = Percentile(&all, 0.5), p99 = Percentile(&all, 0.99);
  std::printf(
      "{\"done\": %zu, \"failed\": %llu, \"seconds\": %.6f, \"p50_ms\": %.4f, "
      "\"p99_ms\": %.4f, \"cpu_s\": %.4f}\n",
      all.size(), static_cast<unsigned long long>(failed), seconds, p50, p99, cpu);
  std::fflush(stdout);
}

}  // namespace

int ServeRounds(int clients, const std::function<bool(const std::string& mode)>& known,
                const std::function<std::unique_ptr<RoundClient>(int number)>& make) {
  Round round;
  std::barrier<> turn(clients + 1);
  std::vector<Tally> tallies(static_cast<std::size_t>(clients));
  std::vector<std::thread> threads;
  for (int i = 0; i < clients; ++i) {
    threads.emplace_back([&, i] {
      const std::unique_ptr<RoundClient> client = make(i);
      turn.arrive_and_wait();  // connected
      RunClient(client.get(), &turn, &round, &tallies[static_cast<std::size_t>(i)]);
    });
  }
  turn.arrive_and_wait();
  std::printf("ready\n");
  std::fflush(stdout);
  int code = 0;
  std::string line;
  while (code == 0 && std::getline(std::cin, line)) {
    std::istringstream words(line);
    std::string run;
    double seconds = 0;
    if (!(words >> run >> round.mode >> seconds) || run != "run" || !known(round.mode) ||
        seconds <= 0) {
      std::cerr << "'" << line << "' is no round: run MODE SECONDS is\n";
      code = 2;
      break;
    }
    round.stop = false;
    const double cpu = OwnCpuSeconds();
    const auto began = SteadyClock::now();
    turn.arrive_and_wait();
    std::this_thread::sleep_for(std::chrono::duration<double>(seconds));
    round.stop = true;
    turn.arrive_and_wait();
    Tell(tallies, std::chrono::duration<double>(SteadyClock::now() - began).count(),
         OwnCpuSeconds() - cpu);
  }
  round.over = true;
  turn.arrive_and_wait();
  for (std::thread& thread : threads) thread.join();
  return code;
}

}  // namespace troth::bench
