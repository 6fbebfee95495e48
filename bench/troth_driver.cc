// bench-troth: the same work as bench-bare, through Troth: an application that links the client
// library and changes one row at each participant, all at the same time. docs/performance.md.
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
    for (int i = 0; i < FLAGS_participants; ++i) names_.push_back("p" + std::to_string(i));
    // Connections are opened, and ids leased, before the clock starts.
    if (!Transact("standard-applied")) {
      std::cerr << "bench-troth: the first transaction was not committed: " << why_ << "\n";
      std::_Exit(2);
    }
  }

  bool Transact(const std::string& mode) override {
    Result<Transaction> transaction = client_->Begin();
    if (!transaction.ok()) {
      why_ = transaction.status().message();
      return false;
    }
    const bool early = mode.starts_with("early");
    if (Status worked = WorkFrom(0, &*transaction, early); !worked.ok()) {
      why_ = worked.message();
      return false;  // the transaction aborts as it goes
    }
    const Outcome outcome =
        transaction->Commit(mode.ends_with("applied") ? Wait::kApplied : Wait::kDecided);
    if (outcome.kind == Outcome::Kind::kCommitted) return true;
    why_ = outcome.failure.message;
    return false;
  }

 private:
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
  if (FLAGS_coordinator.empty() || FLAGS_clients < 1 || FLAGS_participants < 1 ||
      FLAGS_rows < 1 || FLAGS_hot_rows < 0) {
    std::cerr << "bench-troth: --coordinator, and numbers from 1 up, are needed; see --help\n";
    return 2;
  }
  return troth::bench::Run();
}
