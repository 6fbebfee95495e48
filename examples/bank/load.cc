// See load.h.
#include "examples/bank/load.h"

#include <fcntl.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <random>
#include <thread>

#include "common/thread_annotations.h"
#include "examples/bank/transfer.h"

namespace troth::bank {
namespace {

std::int64_t BootMicros() {
  timespec now;
  clock_gettime(CLOCK_BOOTTIME, &now);
  return std::int64_t{now.tv_sec} * 1'000'000 + now.tv_nsec / 1000;
}

// Nearest rank; 0 when there is nothing.
double Percentile(std::vector<float>* values, double fraction) {
  if (values->empty()) return 0;
  const std::size_t rank = std::min(
      values->size() - 1, static_cast<std::size_t>(fraction * static_cast<double>(values->size())));
  std::nth_element(values->begin(), values->begin() + rank, values->end());
  return (*values)[rank];
}

// What all clients of the load share.
class Board {
 public:
  explicit Board(int journal) : journal_(journal) {}

  void Began() { ++in_flight_; }

  // A transaction was answered. Its line is in the journal (not on disk) on return.
  void Ended(const Outcome& outcome, const std::vector<TransferLeg>& legs, std::int64_t begun_us) {
    const std::int64_t ended_us = BootMicros();
    --in_flight_;
    Write(outcome, legs, begun_us, ended_us);
    MutexLock lock(&mutex_);
    if (outcome.committed()) {
      ++total_.committed;
      const float ms = static_cast<float>(ended_us - begun_us) / 1000;
      latencies_.push_back(ms);
      recent_.push_back(ms);
    } else {
      ++(outcome.kind == Outcome::Kind::kAborted ? total_.aborted : total_.unknown);
    }
  }

  void NotBegun() {
    --in_flight_;
    MutexLock lock(&mutex_);
    ++total_.not_begun;
  }

  bool journal_failed() const { return journal_failed_; }

  void PrintSecond(double at_seconds) {
    std::vector<float> recent;
    LoadResult total;
    {
      MutexLock lock(&mutex_);
      recent.swap(recent_);
      total = total_;
    }
    std::printf(
        "{\"second\": %.0f, \"tps\": %zu, \"p50_ms\": %.3f, \"p99_ms\": %.3f, "
        "\"committed\": %lld, \"aborted\": %lld, \"unknown\": %lld, \"not_begun\": %lld, "
        "\"in_flight\": %d}\n",
        at_seconds, recent.size(), Percentile(&recent, 0.5), Percentile(&recent, 0.99),
        static_cast<long long>(total.committed), static_cast<long long>(total.aborted),
        static_cast<long long>(total.unknown), static_cast<long long>(total.not_begun),
        in_flight_.load());
    std::fflush(stdout);
  }

  LoadResult Total(double seconds) {
    MutexLock lock(&mutex_);
    LoadResult total = total_;
    total.seconds = seconds;
    total.p50_ms = Percentile(&latencies_, 0.5);
    total.p99_ms = Percentile(&latencies_, 0.99);
    return total;
  }

 private:
  void Write(const Outcome& outcome, const std::vector<TransferLeg>& legs, std::int64_t begun_us,
             std::int64_t ended_us) {
    if (journal_ < 0) return;
    std::string line(OutcomeName(outcome.kind));
    line += "\t" + outcome.transaction_id + "\t" + std::to_string(begun_us) + "\t" +
            std::to_string(ended_us) + "\t";
    for (std::size_t i = 0; i < legs.size(); ++i) line += (i > 0 ? " " : "") + legs[i].ToString();
    line += "\n";
    // O_APPEND: lines of several threads do not mix.
    if (write(journal_, line.data(), line.size()) != static_cast<ssize_t>(line.size())) {
      journal_failed_ = true;
    }
  }

  const int journal_;
  std::atomic<bool> journal_failed_{false};
  std::atomic<int> in_flight_{0};
  Mutex mutex_;
  LoadResult total_ TROTH_GUARDED_BY(mutex_);
  std::vector<float> latencies_ TROTH_GUARDED_BY(mutex_);
  std::vector<float> recent_ TROTH_GUARDED_BY(mutex_);
};

std::vector<TransferLeg> RandomLegs(const LoadOptions& options, std::mt19937_64& random) {
  const auto pick = [&](std::int64_t from, std::int64_t to) {
    return std::uniform_int_distribution<std::int64_t>(from, to)(random);
  };
  const std::size_t banks = options.banks.size();
  const std::size_t from = pick(0, banks - 1);
  // Another bank, where there is one.
  const std::size_t to = banks == 1 ? 0 : (from + pick(1, banks - 1)) % banks;
  std::vector<TransferLeg> legs(2);
  legs[0].account = {options.banks[from], pick(1, options.accounts)};
  legs[0].amount = -pick(1, options.max_amount);
  legs[1].account = {options.banks[to], pick(1, options.accounts)};
  legs[1].amount = -legs[0].amount;
  return legs;
}

void RunClient(Client& client, const LoadOptions& options, std::uint64_t seed,
               const std::function<bool()>& goes_on, Board* board) {
  std::mt19937_64 random(seed);
  TransactionOptions transaction_options;
  transaction_options.deadline_ms = options.deadline_ms;
  while (goes_on()) {
    std::vector<TransferLeg> legs = RandomLegs(options, random);
    if (!Arrange(&legs).ok()) continue;  // the same account twice
    const std::int64_t begun_us = BootMicros();
    board->Began();
    // Not RunTransaction: each transaction is journalled with its own answer.
    Result<Transaction> transaction = client.Begin(transaction_options);
    if (!transaction.ok()) {
      board->NotBegun();
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
      continue;
    }
    const Status worked = DoTransfer(*transaction, legs, "load", options.early);
    const Outcome outcome = transaction->Commit(options.wait);
    board->Ended(outcome, legs, begun_us);
    // A bank that is away is not asked a thousand times a second.
    if (!worked.ok() && worked.code() != Code::kRefused) {
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
  }
}

}  // namespace

Result<LoadResult> RunLoad(Client& client, const LoadOptions& options, const volatile int* stop) {
  int journal = -1;
  if (!options.journal.empty()) {
    journal = open(options.journal.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    if (journal < 0) {
      return Status(Code::kIo, "the journal " + options.journal +
                                   " cannot be written: " + std::strerror(errno));
    }
  }
  Board board(journal);
  using Clock = std::chrono::steady_clock;
  const Clock::time_point began = Clock::now();
  const auto seconds_gone = [&] {
    return std::chrono::duration<double>(Clock::now() - began).count();
  };
  const std::function<bool()> goes_on = [&] {
    return *stop == 0 && !board.journal_failed() && seconds_gone() < options.seconds;
  };
  std::vector<std::thread> clients;
  std::random_device seed;
  for (int i = 0; i < options.clients; ++i) {
    clients.emplace_back([&, s = seed()] { RunClient(client, options, s, goes_on, &board); });
  }
  for (double second = 1; goes_on(); second += 1) {
    while (goes_on() && seconds_gone() < second) {
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    board.PrintSecond(second);
  }
  const double seconds = seconds_gone();
  for (std::thread& thread : clients) thread.join();
  if (journal >= 0) close(journal);
  if (board.journal_failed()) {
    return Status(Code::kIo, "the journal " + options.journal + " could not be written to");
  }
  return board.Total(seconds);
}

}  // namespace troth::bank
