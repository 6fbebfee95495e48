// What the contract test of ResourceManager needs of a database, so that one test runs on
// PostgreSQL and on the simulated one.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "participant/resource_manager.h"

namespace troth {

class ContractWorld {
 public:
  virtual ~ContractWorld() = default;
  // A resource manager that has met the database before; and one that has just met it.
  virtual ResourceManager* manager() = 0;
  virtual std::unique_ptr<ResourceManager> NewManager() = 0;

  // Adds to a key's value inside a branch.
  virtual std::optional<Refusal> Add(Session* session, const std::string& key, std::int64_t n) = 0;
  // The same as a branch's first statement, of a block that is opened with it.
  virtual std::optional<Refusal> AddAsStatement(Session* session, const std::string& key,
                                                std::int64_t n) = 0;
  // Committed value, seen from outside.
  virtual std::optional<std::int64_t> Read(const std::string& key) = 0;
  virtual std::size_t PreparedCount() = 0;

  // What application code may do wrong, catching every error.
  virtual void EndBlock(Session* session, bool commit, bool chain) = 0;
  virtual void FailStatement(Session* session) = 0;
  virtual void LoseConnection(Session* session) = 0;

  // What may befall a database.
  virtual void Restart() = 0;
  virtual void SettleByHand(const std::string& gid, bool commit) = 0;
};

std::unique_ptr<ContractWorld> MakeSimWorld();
std::unique_ptr<ContractWorld> MakePostgresWorld();

}  // namespace troth
