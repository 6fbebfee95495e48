// See contract_world.h.
#include <gtest/gtest.h>
#include <pqxx/pqxx>

#include "participant/postgres.h"
#include "participant/postgres_errors.h"
#include "tests/participant/contract_world.h"
#include "tests/postgres/private_cluster.h"

namespace troth {
namespace {

constexpr char kAdd[] =
    "INSERT INTO kv VALUES ($1, $2) ON CONFLICT (key) DO UPDATE SET value = kv.value + $2";

class PostgresWorld : public ContractWorld {
 public:
  PostgresWorld() {
    cluster_.Sql(
        "SET client_min_messages = warning;"
        "CREATE TABLE IF NOT EXISTS kv (key text PRIMARY KEY, value bigint); TRUNCATE kv");
    manager_ = Open();
  }
  ~PostgresWorld() override {
    for (std::string gid; !(gid = cluster_.Sql("SELECT gid FROM pg_prepared_xacts")).empty();) {
      cluster_.Sql("ROLLBACK PREPARED '" + gid + "'");
    }
  }
  ResourceManager* manager() override { return manager_.get(); }
  std::unique_ptr<ResourceManager> NewManager() override { return Open(); }

  std::optional<Refusal> Add(Session* session, const std::string& key, std::int64_t n) override {
    return Try([&] { PostgresResourceManager::Transaction(session).exec_params(kAdd, key, n); });
  }
  std::optional<Refusal> AddAsStatement(Session* session, const std::string& key,
                                        std::int64_t n) override {
    const std::optional<std::string> parameters[] = {key, std::to_string(n)};
    Granted<Answer> answer = PostgresResourceManager::Run(session, kAdd, parameters);
    if (answer.ok()) return std::nullopt;
    return answer.refusal();
  }
  std::optional<std::int64_t> Read(const std::string& key) override {
    const std::string value = cluster_.Sql("SELECT value FROM kv WHERE key = '" + key + "'");
    if (value.empty()) return std::nullopt;
    return std::stoll(value);
  }
  std::size_t PreparedCount() override {
    return std::stoul(cluster_.Sql("SELECT count(*) FROM pg_prepared_xacts"));
  }
  void EndBlock(Session* session, bool commit, bool chain) override {
    Try([&] {
      PostgresResourceManager::Transaction(session).exec(
          std::string(commit ? "COMMIT" : "ROLLBACK") + (chain ? " AND CHAIN" : ""));
    });
  }
  void FailStatement(Session* session) override {
    Try([&] { PostgresResourceManager::Transaction(session).exec("SELECT 1/0"); });
  }
  void LoseConnection(Session* session) override {
    const std::string pid = std::to_string(PostgresResourceManager::BackendPid(session));
    cluster_.Sql("SELECT pg_terminate_backend(" + pid + ", 5000)");
  }
  void Restart() override {
    cluster_.Kill();
    cluster_.Start();
  }
  void SettleByHand(const std::string& gid, bool commit) override {
    cluster_.Sql((commit ? "COMMIT PREPARED '" : "ROLLBACK PREPARED '") + gid + "'");
  }

 private:
  std::unique_ptr<PostgresResourceManager> Open() {
    PostgresOptions options;
    options.conninfo = cluster_.conninfo();
    options.participant = "east";
    options.pool_size = 4;
    auto opened = PostgresResourceManager::Open(options);
    if (!opened.ok()) std::fprintf(stderr, "%s\n", opened.status().ToString().c_str());
    TROTH_CHECK(opened.ok());
    return std::move(*opened);
  }
  template <typename Function>
  static std::optional<Refusal> Try(Function function) {
    try {
      function();
      return std::nullopt;
    } catch (const std::exception& e) {
      return RefusalOf(e).value_or(RefusalOf("XX000", e.what()));
    }
  }

  const PrivateCluster cluster_ = PrivateCluster::Given(1);
  std::unique_ptr<PostgresResourceManager> manager_;
};

}  // namespace

std::unique_ptr<ContractWorld> MakePostgresWorld() { return std::make_unique<PostgresWorld>(); }

}  // namespace troth
