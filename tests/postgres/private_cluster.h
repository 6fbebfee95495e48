// Private PostgreSQL servers as tests in C++ see them: given by tests/postgres/with_clusters in
// the environment, killed and started again through private_cluster.py.
#pragma once

#include <cstdlib>
#include <map>
#include <memory>
#include <string>

#include <libpq-fe.h>

#include "common/check.h"

namespace troth {

class PrivateCluster {
 public:
  // The n-th server (from 1) that with_clusters started.
  static PrivateCluster Given(int n) {
    const std::string name = "TROTH_PG_" + std::to_string(n);
    return PrivateCluster(Environment(name), Environment(name + "_DIR"));
  }
  static bool AnyGiven() { return std::getenv("TROTH_PG_1") != nullptr; }
  // One more, made below the same root, so that it is stopped with the others. `settings`: of
  // postgresql.conf.
  static PrivateCluster Make(const std::string& name,
                             const std::map<std::string, std::string>& settings) {
    const std::string dir = Environment("TROTH_PG_ROOT") + "/" + name;
    return PrivateCluster(Tool("create --name " + name + " --dir " + dir + Flags(settings)), dir);
  }
  // A streaming standby of this one.
  PrivateCluster MakeStandby(const std::string& name,
                             const std::map<std::string, std::string>& settings = {}) const {
    const std::string dir = Environment("TROTH_PG_ROOT") + "/" + name;
    return PrivateCluster(
        Tool("standby --name " + name + " --of " + dir_ + " --dir " + dir + Flags(settings)), dir);
  }

  // A libpq connection string.
  std::string conninfo(const std::string& database = "postgres",
                       const std::string& user = "postgres") const {
    std::string text = conninfo_;
    Replace("dbname=postgres", "dbname=" + database, &text);
    Replace("user=postgres", "user=" + user, &text);
    return text;
  }
  const std::string& dir() const { return dir_; }

  // SIGKILL to the postmaster and all its children.
  void Kill() const { Tool("kill --dir " + dir_); }
  void Start() const { Tool("start --dir " + dir_); }
  void Stop(const std::string& mode = "fast") const {
    Tool("stop --mode " + mode + " --dir " + dir_);
  }
  void Promote() const { Tool("promote --dir " + dir_); }

  // Runs SQL on a connection of its own; the first value of the last statement, "" if none.
  // CHECKs that it works.
  std::string Sql(const std::string& sql, const std::string& database = "postgres") const {
    const std::unique_ptr<PGconn, decltype(&PQfinish)> conn(PQconnectdb(conninfo(database).c_str()),
                                                            &PQfinish);
    const std::unique_ptr<PGresult, decltype(&PQclear)> result(PQexec(conn.get(), sql.c_str()),
                                                               &PQclear);
    const ExecStatusType status = PQresultStatus(result.get());
    if (status != PGRES_COMMAND_OK && status != PGRES_TUPLES_OK) {
      std::fprintf(stderr, "%s: %s\n", sql.c_str(), PQerrorMessage(conn.get()));
    }
    TROTH_CHECK(status == PGRES_COMMAND_OK || status == PGRES_TUPLES_OK);
    return PQntuples(result.get()) > 0 ? PQgetvalue(result.get(), 0, 0) : "";
  }

  // Runs the tool; what it prints, without the end of the line.
  static std::string Tool(const std::string& arguments) {
    const std::string command = Environment("TROTH_PG_TOOL") + " " + arguments;
    FILE* pipe = popen(command.c_str(), "r");
    TROTH_CHECK(pipe != nullptr);
    std::string out;
    char buffer[512];
    while (std::fgets(buffer, sizeof buffer, pipe) != nullptr) out += buffer;
    TROTH_CHECK(pclose(pipe) == 0);
    while (!out.empty() && out.back() == '\n') out.pop_back();
    return out;
  }

 private:
  PrivateCluster(std::string conninfo, std::string dir)
      : conninfo_(std::move(conninfo)), dir_(std::move(dir)) {}
  static std::string Environment(const std::string& name) {
    const char* value = std::getenv(name.c_str());
    if (value == nullptr) {
      std::fprintf(stderr, "%s is not set: run this through tests/postgres/with_clusters\n",
                   name.c_str());
    }
    TROTH_CHECK(value != nullptr);
    return value;
  }
  static std::string Flags(const std::map<std::string, std::string>& settings) {
    std::string flags;
    for (const auto& [key, value] : settings) flags += " --set '" + key + "=" + value + "'";
    return flags;
  }
  static void Replace(const std::string& from, const std::string& to, std::string* text) {
    const std::size_t at = text->find(from);
    TROTH_CHECK(at != std::string::npos);
    text->replace(at, from.size(), to);
  }

  std::string conninfo_;
  std::string dir_;
};

}  // namespace troth
