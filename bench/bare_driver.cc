// bench-bare: the work that everything else is measured against, done by libpq alone: one row
// changed on each server, no coordinator, no log, no calls between processes. Not safe: a crash
// leaves prepared transactions that nobody decides. docs/performance.md.
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <iostream>
#include <random>
#include <string>
#include <vector>

#include <gflags/gflags.h>
#include <libpq-fe.h>

#include "bench/rounds.h"
#include "bench/split.h"
#include "common/program.h"

DEFINE_string(databases, "", "libpq connection strings, separated by ';'");
DEFINE_int32(clients, 1, "clients at once, each with a connection to every database");
DEFINE_int32(rows, 10'000, "rows of the table `account`, numbered from 1");

DEFINE_int32(hot_rows, 0, "if not 0: nine of ten changes go to the first so many rows");
DEFINE_bool(commit_only, false,
            "one-by-one: the latency told is that of PREPARE and COMMIT PREPARED alone");
DEFINE_bool(in_order, false,
            "changes on one server after the other, so that no locks are had in a circle");

namespace troth::bench {
namespace {

constexpr char kUsage[] =
    "Changes one row on each server, in rounds, with libpq alone. Started by bench/run.\n"
    "\n"
    "Standard input: lines `run MODE SECONDS`. Modes:\n"
    "  local        autocommit on every server: not atomic\n"
    "  one-by-one   BEGIN, UPDATE, PREPARE, COMMIT PREPARED, each in a round trip of its own\n"
    "  batched      BEGIN, UPDATE and PREPARE in one round trip, then COMMIT PREPARED\n"
    "All servers at the same time; no log.";

// A connection with at most one query under way.
class Server {
 public:
  explicit Server(const std::string& conninfo) : connection_(PQconnectdb(conninfo.c_str())) {
    if (PQstatus(connection_) != CONNECTION_OK) Die();
  }
  Server(Server&& other) noexcept : connection_(std::exchange(other.connection_, nullptr)) {}
  ~Server() {
    if (connection_ != nullptr) PQfinish(connection_);
  }
  void Send(const std::string& sql) {
    if (PQsendQuery(connection_, sql.c_str()) != 1) Die();
  }
  // The end of what was sent; false when the server refused it.
  bool Take() {
    bool good = true;
    while (PGresult* result = PQgetResult(connection_)) {
      const ExecStatusType status = PQresultStatus(result);
      if (status != PGRES_COMMAND_OK && status != PGRES_TUPLES_OK) good = false;
      PQclear(result);
    }
    if (PQstatus(connection_) != CONNECTION_OK) Die();
    return good;
  }
  bool in_block() const { return PQtransactionStatus(connection_) != PQTRANS_IDLE; }

 private:
  [[noreturn]] void Die() {
    std::cerr << "bench-bare: " << PQerrorMessage(connection_);
    std::_Exit(2);
  }
  PGconn* connection_;
};

class BareClient : public RoundClient {
 public:
  explicit BareClient(int number)
      : random_(static_cast<unsigned>(number) + 1),
        gid_("'bare:" + std::to_string(getpid()) + ":" + std::to_string(number) + ":") {
    for (const std::string& conninfo : Split(FLAGS_databases, ';')) servers_.emplace_back(conninfo);
  }

  bool Transact(const std::string& mode) override {
    if (mode == "local") {
      return Everywhere([this](std::size_t i) { return Change(i); });
    }
    ++count_;
    const bool prepared =
        mode == "batched"
            ? Everywhere([&](std::size_t i) {
                return "BEGIN;" + Change(i) + ";PREPARE TRANSACTION " + Gid(i);
              })
            : Everywhere([](std::size_t) { return std::string("BEGIN"); }) && Changes() &&
                  WorkDone() &&
                  Everywhere([&](std::size_t i) { return "PREPARE TRANSACTION " + Gid(i); });
    if (!prepared) {
      Undo();
      return false;
    }
    if (!Everywhere([&](std::size_t i) { return "COMMIT PREPARED " + Gid(i); })) {
      std::cerr << "bench-bare: COMMIT PREPARED " << Gid(0) << " failed\n";
      std::_Exit(2);
    }
    return true;
  }
  double MeasuredMs() const override {
    if (!FLAGS_commit_only) return -1;
    return std::chrono::duration<double, std::milli>(Now() - worked_).count();
  }

 private:
  // Databases of one server share its GIDs.
  std::string Gid(std::size_t i) const {
    return gid_ + std::to_string(count_) + ":" + std::to_string(i) + "'";
  }
  static std::chrono::steady_clock::time_point Now() { return std::chrono::steady_clock::now(); }
  bool WorkDone() {
    worked_ = Now();
    return true;
  }
  // Sends a statement to every server, then waits for every answer.
  template <typename F>
  bool Everywhere(F&& statement) {
    for (std::size_t i = 0; i < servers_.size(); ++i) servers_[i].Send(statement(i));
    bool good = true;
    for (Server& server : servers_) good = server.Take() && good;
    return good;
  }
  bool Changes() {
    if (!FLAGS_in_order) return Everywhere([this](std::size_t i) { return Change(i); });
    for (std::size_t i = 0; i < servers_.size(); ++i) {
      servers_[i].Send(Change(i));
      if (!servers_[i].Take()) return false;
    }
    return true;
  }
  std::string Change(std::size_t i) {
    const bool hot = FLAGS_hot_rows > 0 && random_() % 10 != 0;
    const unsigned row = random_() % static_cast<unsigned>(hot ? FLAGS_hot_rows : FLAGS_rows) + 1;
    return std::string("UPDATE account SET balance = balance ") + (i == 0 ? "- 1" : "+ 1") +
           " WHERE id = " + std::to_string(row);
  }
  // A lock timeout on one server leaves the others open, or prepared.
  void Undo() {
    for (std::size_t i = 0; i < servers_.size(); ++i) {
      servers_[i].Send(servers_[i].in_block() ? "ROLLBACK" : "ROLLBACK PREPARED " + Gid(i));
      servers_[i].Take();
    }
  }

  std::vector<Server> servers_;
  std::mt19937 random_;
  const std::string gid_;
  std::uint64_t count_ = 0;
  std::chrono::steady_clock::time_point worked_;  // commit_only, one-by-one: PREPARE begins
};

}  // namespace
}  // namespace troth::bench

int main(int argc, char** argv) {
  if (const auto done = troth::StartProgram(troth::bench::kUsage, &argc, &argv)) return *done;
  if (FLAGS_databases.empty() || FLAGS_clients < 1 || FLAGS_rows < 1) {
    std::cerr << "bench-bare: --databases, and numbers from 1 up, are needed; see --help\n";
    return 2;
  }
  return troth::bench::ServeRounds(
      FLAGS_clients,
      [](const std::string& mode) {
        return mode == "one-by-one" ||
               (!FLAGS_commit_only && (mode == "local" || mode == "batched"));
      },
      [](int number) { return std::make_unique<troth::bench::BareClient>(number); });
}
