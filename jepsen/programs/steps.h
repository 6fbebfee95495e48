// The steps that a fault test's transaction is made of, as SQL. Knows no transaction beyond the
// one piece of work it is given. jepsen/README.md, "The programs".
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <pqxx/dbtransaction>

namespace troth::jepsen {

// Runs the step `name` for transaction `id`; returns what it read (empty when it reads nothing).
//   append K V        V at the end of list K          add K V       V more (or less) in account K
//   read K            list K, from a snapshot         balances 0 0  all accounts, by number
//   lock-read K       list K, FOR SHARE               lock-balances the same, FOR SHARE
//   write K V         register K becomes V            mark 0 0      the id is noted here
//   get K, lock-get K the register                    order K       the id joins row K's order
//   free K, lock-free K  refuses unless register K is 0
// Throws what libpqxx throws, and troth::ApplicationRefusal where the step's rule says no.
std::vector<std::int64_t> RunStep(pqxx::dbtransaction& tx, const std::string& id,
                                  std::string_view name, std::int64_t key, std::int64_t value);

}  // namespace troth::jepsen
