// troth-jepsen-client: an application for harnesses in any language. A request is a line, and so
// is its answer; what :ok, :fail and :info mean is settled here, once, for all of them.
// jepsen/README.md, "The programs".
#include <condition_variable>
#include <deque>
#include <iostream>
#include <map>
#include <mutex>
#include <thread>

#include <gflags/gflags.h>
#include <nlohmann/json.hpp>

#include "Workload.h"
#include "client/client.h"
#include "common/program.h"

DEFINE_string(coordinators, "127.0.0.1:7711", "client addresses of the coordinator, HOST:PORT,...");

namespace troth::jepsen {
namespace {

using Json = nlohmann::json;

constexpr char kUsage[] =
    "Runs transactions that it reads as lines, and answers each with a line.\n"
    "\n"
    "  [WORKER, \"txn\", DEADLINE_MS, WAIT, ISOLATION, FLAGS, [[PARTICIPANT, [[STEP, K, V], ...]], "
    "...]]\n"
    "  [WORKER, \"outcome\", WAIT_MS, [ID, ...]]\n"
    "\n"
    "WORKER is a number: requests of one worker follow each other, those of several run at once.\n"
    "WAIT: applied, decided. ISOLATION: default, read-committed, repeatable-read, serializable.\n"
    "FLAGS: a word or several: read-only, early (the last work of each participant is marked as\n"
    "its last). Each [PARTICIPANT, STEPS] is one piece of work. The answer:\n"
    "\n"
    "  [WORKER, \"begun\", ID]       (txn; so that a client that dies leaves the id)\n"
    "  [WORKER, \"ok\" | \"fail\" | \"info\", ID, [RESULT, ...], WORDS]\n"
    "\n"
    "txn: fail is surely not done, now or ever; info is: nobody could tell. RESULT is a list of\n"
    "numbers for each step. outcome: each RESULT is committed, aborted, read-only, pending,\n"
    "expired or unknown. Requests and answers are JSON, and without null also EDN.";

void Say(const Json& line) {
  static std::mutex mutex;
  const std::string text = line.dump() + "\n";
  const std::lock_guard lock(mutex);
  std::cout << text << std::flush;
}

Json Answer(const Json& worker, const char* type, const std::string& id, Json results,
            const std::string& words) {
  return Json::array({worker, type, id, std::move(results), words});
}

std::string Words(const Failure& failure) {
  std::string words = ReasonName(failure.reason);
  if (!failure.participant.empty()) words += " at " + failure.participant;
  if (!failure.sqlstate.empty()) words += " (" + failure.sqlstate + ")";
  return words + ": " + failure.message;
}

std::optional<wire::Isolation::type> ParseIsolation(const std::string& word) {
  if (word == "read-committed") return wire::Isolation::READ_COMMITTED;
  if (word == "repeatable-read") return wire::Isolation::REPEATABLE_READ;
  if (word == "serializable") return wire::Isolation::SERIALIZABLE;
  if (word != "default") throw std::invalid_argument("no isolation '" + word + "'");
  return std::nullopt;
}

std::vector<Step> ParseSteps(const Json& list) {
  std::vector<Step> steps;
  for (const Json& item : list) {
    Step step;
    step.name = item.at(0).get<std::string>();
    step.key = item.at(1).get<std::int64_t>();
    step.value = item.at(2).get<std::int64_t>();
    steps.push_back(std::move(step));
  }
  return steps;
}

// Does all pieces of work in their order; stops at the first that fails. `results` gets what
// was read so far.
Status DoWork(Transaction& transaction, const Json& works, bool early, Json* results) {
  std::map<std::string, std::size_t> last;
  for (std::size_t i = 0; i < works.size(); ++i) last[works[i].at(0).get<std::string>()] = i;
  for (std::size_t i = 0; i < works.size(); ++i) {
    const std::string participant = works[i].at(0).get<std::string>();
    const std::vector<Step> steps = ParseSteps(works[i].at(1));
    WorkOptions options;
    options.last = early && last[participant] == i;
    TROTH_RETURN_IF_ERROR(transaction.Work<WorkloadClient>(
        participant,
        [&](WorkloadClient& service, const wire::Context& context) {
          RunReply reply;
          service.run(reply, context, steps);
          for (auto& result : reply.results) results->push_back(std::move(result));
          return reply.branch;
        },
        options));
  }
  return OkStatus();
}

Json RunTxn(Client& client, const Json& request) {
  TransactionOptions options;
  options.deadline_ms = request.at(2).get<std::int64_t>();
  const Wait wait = request.at(3) == "decided" ? Wait::kDecided : Wait::kApplied;
  options.isolation = ParseIsolation(request.at(4).get<std::string>());
  const std::string flags = request.at(5).get<std::string>();
  options.read_only = flags.find("read-only") != flags.npos;
  Result<Transaction> transaction = client.Begin(options);
  if (!transaction.ok()) {
    return Answer(request.at(0), "fail", "", Json::array(),
                  "begin: " + std::string(transaction.status().message()));
  }
  const std::string id = transaction->id();
  Say(Json::array({request.at(0), "begun", id}));
  Json results = Json::array();
  const Status worked =
      DoWork(*transaction, request.at(6), flags.find("early") != flags.npos, &results);
  if (!worked.ok()) {
    // A commit was never asked for, and from here on never will be.
    const auto failure = transaction->failure();
    transaction->Abort();
    return Answer(request.at(0), "fail", id, Json::array(),
                  "work: " + (failure ? Words(*failure) : std::string(worked.message())));
  }
  const Outcome outcome = transaction->Commit(wait);
  if (outcome.ok()) {
    std::string words;
    for (const std::string& at : outcome.unapplied)
      words += (words.empty() ? "unapplied at " : ", ") + at;
    return Answer(request.at(0), "ok", id, std::move(results), words);
  }
  const bool surely_not = outcome.kind == Outcome::Kind::kAborted;
  return Answer(request.at(0), surely_not ? "fail" : "info", id, Json::array(),
                std::string(OutcomeName(outcome.kind)) + ": " + Words(outcome.failure));
}

Json AskOutcomes(Client& client, const Json& request) {
  Json results = Json::array();
  std::string words;
  for (const Json& id : request.at(3)) {
    const auto outcome = client.AskOutcome(id.get<std::string>(), request.at(2).get<int>());
    results.push_back(outcome.ok() ? std::string(OutcomeName(outcome->kind)) : "unknown");
    if (!outcome.ok()) words = outcome.status().message();
  }
  return Answer(request.at(0), "ok", "", std::move(results), words);
}

// One thread that serves requests in their order.
class Worker {
 public:
  explicit Worker(Client* client) : client_(client), thread_([this] { Serve(); }) {}
  ~Worker() {
    Post(Json());
    thread_.join();
  }
  void Post(Json request) {
    const std::lock_guard lock(mutex_);
    requests_.push_back(std::move(request));
    arrived_.notify_one();
  }

 private:
  void Serve() {
    for (;;) {
      std::unique_lock lock(mutex_);
      arrived_.wait(lock, [this] { return !requests_.empty(); });
      const Json request = std::move(requests_.front());
      requests_.pop_front();
      lock.unlock();
      if (request.is_null()) return;
      try {
        const std::string command = request.at(1).get<std::string>();
        if (command == "txn")
          Say(RunTxn(*client_, request));
        else if (command == "outcome")
          Say(AskOutcomes(*client_, request));
        else
          throw std::invalid_argument("no command '" + command + "'");
      } catch (const std::exception& e) {
        // Whatever it was, a commit may have been asked for.
        Say(Answer(request.at(0), "info", "", Json::array(), e.what()));
      }
    }
  }

  Client* const client_;
  std::mutex mutex_;
  std::condition_variable arrived_;
  std::deque<Json> requests_;
  std::thread thread_;
};

int Run() {
  const auto addresses = Address::ParseList(FLAGS_coordinators);
  if (!addresses.ok()) {
    std::cerr << "troth-jepsen-client: --coordinators: " << addresses.status().message() << "\n";
    return 2;
  }
  ClientOptions options;
  options.coordinators = *addresses;
  options.application = "jepsen";
  Client client(options);
  std::map<std::int64_t, std::unique_ptr<Worker>> workers;
  for (std::string line; std::getline(std::cin, line);) {
    const Json request = Json::parse(line, nullptr, /*allow_exceptions=*/false);
    if (!request.is_array() || request.size() < 4 || !request[0].is_number_integer()) {
      std::cerr << "troth-jepsen-client: not a request: " << line << "\n";
      return 1;
    }
    auto& worker = workers[request[0].get<std::int64_t>()];
    if (worker == nullptr) worker = std::make_unique<Worker>(&client);
    worker->Post(request);
  }
  return 0;
}

}  // namespace
}  // namespace troth::jepsen

int main(int argc, char** argv) {
  if (const auto done = troth::StartProgram(troth::jepsen::kUsage, &argc, &argv)) return *done;
  return troth::jepsen::Run();
}
