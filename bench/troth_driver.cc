// bench-troth: the same work as bench-bare, through Troth: an application that links the client
// library and changes one row at each participant, all at the same time. docs/performance.md.
#include <chrono>
#include <cstdlib>
#include <iostream>
#include <random>
#include <string>
#include <vector>

#include <gflags/gflags.h>

#include "BenchParticipant.h"
#include "bench/rounds.h"
#include "client/client.h"
#include "common/program.h"

DEFINE_string(coordinator, "", "client address of the coordinator, HOST:PORT");
DEFINE_int32(participants, 2, "participants of each transaction: p0, p1, ...");
DEFINE_int32(clients, 1, "clients at once");
DEFINE_int32(rows, 10'000, "rows of the table `account`, numbered from 1");
DEFINE_int32(first, 0, "number of the first of these participants");
DEFINE_bool(in_order, false,
            "one participant after the other, so that no locks are had in a circle");
DEFINE_bool(commit_only, false, "the latency told is that of the commit call alone");
DEFINE_int32(pause_ms, 0, "pause of a client after each transaction; of no latency a part");
DEFINE_int32(hot_rows, 0, "if not 0: nine of ten changes go to the first so many rows");

namespace troth::bench {
namespace {

constexpr char kUsage[] =
    "Changes one row at each participant, in rounds, through Troth. Started by bench/run.\n"
    "\n"
    "Standard input: lines `run MODE SECONDS`. Modes: standard-applied, standard-decided,\n"
    "early-applied, early-decided.";

class TrothClient : public RoundClient {
 public:
  TrothClient(Client* client, int number)
      : client_(client), random_(static_cast<unsigned>(number) + 1) {
    for (int i = 0; i < FLAGS_participants; ++i)
      names_.push_back("p" + std::to_string(FLAGS_first + i));
    // Connections are opened, and ids leased, before the clock starts.
    if (!Transact("standard-applied")) {
      std::cerr << "bench-troth: the first transaction was not committed: " << why_ << "\n";
      std::_Exit(2);
    }
  }

  // As an application does it: what ends aborted for a reason that may pass is repeated, within
  // the latency that is measured.
  bool Transact(const std::string& mode) override {
    const bool early = mode.starts_with("early");
    const Wait wait = mode.ends_with("applied") ? Wait::kApplied : Wait::kDecided;
    const Outcome outcome =
        FLAGS_commit_only
            ? TimeCommit(early, wait)
            : RunTransaction(
                  *client_, {}, [&](Transaction& transaction) { return Work(&transaction, early); },
                  wait);
    if (outcome.kind == Outcome::Kind::kCommitted) return true;
    why_ = outcome.failure.message;
    return false;
  }
  std::string Why() const override { return why_; }
  double MeasuredMs() const override { return commit_ms_; }
  int PauseMs() const override { return FLAGS_pause_ms; }

 private:
  Outcome TimeCommit(bool early, Wait wait) {
    Result<Transaction> transaction = client_->Begin();
    Outcome outcome;
    if (!transaction.ok()) {
      outcome.failure.message = transaction.status().message();
      return outcome;
    }
    if (Status worked = Work(&*transaction, early); !worked.ok()) {
      outcome.failure.message = worked.message();
      return outcome;  // the transaction aborts as it goes
    }
    const auto began = std::chrono::steady_clock::now();
    outcome = transaction->Commit(wait);
    commit_ms_ =
        std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - began).count();
    return outcome;
  }

  Status Work(Transaction* transaction, bool early) {
    if (!FLAGS_in_order) return WorkFrom(0, transaction, early);
    for (std::size_t i = 0; i < names_.size(); ++i) {
      TROTH_RETURN_IF_ERROR(transaction->Work<BenchParticipantClient>(
          names_[i],
          [&](BenchParticipantClient& service, const wire::Context& context) {
            ChangeReply reply;
            service.change(reply, context, Row(), i == 0 ? -1 : 1);
            return reply.branch;
          },
          {.last = early}));
    }
    return OkStatus();
  }

  // Sends the work of participant `i`, then that of all behind it, and only then waits for its
  // answer: work at different participants may overlap, and this needs no thread for each.
  Status WorkFrom(std::size_t i, Transaction* transaction, bool early) {
    if (i == names_.size()) return OkStatus();
    Status others;
    const Status own = transaction->Work<BenchParticipantClient>(
        names_[i],
        [&](BenchParticipantClient& service, const wire::Context& context) {
          service.send_change(context, Row(), i == 0 ? -1 : 1);
          others = WorkFrom(i + 1, transaction, early);
          ChangeReply reply;
          service.recv_change(reply);
          return reply.branch;
        },
        {.last = early});
    return own.ok() ? others : own;
  }
  std::int32_t Row() {
    const bool hot = FLAGS_hot_rows > 0 && random_() % 10 != 0;
    return static_cast<std::int32_t>(
        random_() % static_cast<unsigned>(hot ? FLAGS_hot_rows : FLAGS_rows) + 1);
  }

  Client* const client_;
  std::vector<std::string> names_;
  std::mt19937 random_;
  double commit_ms_ = -1;
  std::string why_;
};

int Run() {
  const Result<std::vector<Address>> addresses = Address::ParseList(FLAGS_coordinator);
  if (!addresses.ok()) {
    std::cerr << "bench-troth: --coordinator: " << addresses.status().message() << "\n";
    return 2;
  }
  ClientOptions options;
  options.coordinators = *addresses;
  options.application = "bench-troth";
  options.max_idle_connections = static_cast<std::size_t>(FLAGS_clients) + 8;
  Client client(options);
  return ServeRounds(
      FLAGS_clients,
      [](const std::string& mode) {
        return mode == "standard-applied" || mode == "standard-decided" ||
               mode == "early-applied" || mode == "early-decided";
      },
      [&client](int number) { return std::make_unique<TrothClient>(&client, number); });
}

}  // namespace
}  // namespace troth::bench

int main(int argc, char** argv) {
  if (const auto done = troth::StartProgram(troth::bench::kUsage, &argc, &argv)) return *done;
  if (FLAGS_coordinator.empty() || FLAGS_clients < 1 || FLAGS_participants < 1 || FLAGS_rows < 1 ||
      FLAGS_hot_rows < 0) {
    std::cerr << "bench-troth: --coordinator, and numbers from 1 up, are needed; see --help\n";
    return 2;
  }
  return troth::bench::Run();
}
