// See contract_world.h.
#include "tests/participant/contract_world.h"
#include "tests/simulation/sim_resource_manager.h"

namespace troth {
namespace {

class SimWorld : public ContractWorld {
 public:
  ResourceManager* manager() override { return &manager_; }
  std::unique_ptr<ResourceManager> NewManager() override {
    return std::make_unique<SimResourceManager>(&database_);
  }
  std::optional<Refusal> Add(Session* session, const std::string& key, std::int64_t n) override {
    return Of(session)->Add(key, n);
  }
  std::optional<Refusal> AddAsStatement(Session* session, const std::string& key,
                                        std::int64_t n) override {
    return manager_.Run(Of(session), key, n);
  }
  std::optional<std::int64_t> Read(const std::string& key) override { return database_.Read(key); }
  std::size_t PreparedCount() override { return database_.Prepared().size(); }
  void EndBlock(Session* session, bool commit, bool chain) override {
    Of(session)->EndBlock(commit, chain);
  }
  void FailStatement(Session* session) override { Of(session)->FailStatement(); }
  void LoseConnection(Session* session) override { Of(session)->LoseConnection(); }
  void Restart() override { database_.Crash(); }
  void SettleByHand(const std::string& gid, bool commit) override {
    database_.SettleByHand(gid, commit);
  }

 private:
  static SimSession* Of(Session* session) { return static_cast<SimSession*>(session); }
  SimDatabase database_{{"7000000000000000001", 5}};
  SimResourceManager manager_{&database_};
};

}  // namespace

std::unique_ptr<ContractWorld> MakeSimWorld() { return std::make_unique<SimWorld>(); }

}  // namespace troth
