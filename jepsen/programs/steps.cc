// See steps.h.
#include "jepsen/programs/steps.h"

#include <charconv>

#include <pqxx/pqxx>

#include "participant/participant.h"

namespace troth::jepsen {

namespace {

using Values = std::vector<std::int64_t>;

// PostgreSQL's text of a bigint[] without nulls: {1,2,3}.
Values ParseArray(std::string_view text) {
  Values values;
  const char* at = text.data() + 1;
  const char* const end = text.data() + text.size() - 1;
  while (at < end) {
    std::int64_t value = 0;
    const auto [next, error] = std::from_chars(at, end, value);
    if (error != std::errc())
      throw std::runtime_error("not a list of numbers: " + std::string(text));
    values.push_back(value);
    at = next + 1;
  }
  return values;
}

// The one row that a statement must have touched: all keys exist beforehand.
void ExpectOne(const pqxx::result& result, std::string_view what, std::int64_t key) {
  if (result.affected_rows() == 1) return;
  throw ApplicationRefusal("there is no " + std::string(what) + " " + std::to_string(key));
}

Values Read(pqxx::dbtransaction& tx, std::int64_t key, std::string_view lock) {
  const pqxx::result rows =
      tx.exec_params("SELECT v FROM list WHERE k = $1" + std::string(lock), key);
  ExpectOne(rows, "list", key);
  return ParseArray(rows[0][0].c_str());
}

std::int64_t Get(pqxx::dbtransaction& tx, std::int64_t key, std::string_view lock) {
  const pqxx::result rows =
      tx.exec_params("SELECT v FROM register WHERE k = $1" + std::string(lock), key);
  ExpectOne(rows, "register", key);
  return rows[0][0].as<std::int64_t>();
}

Values Balances(pqxx::dbtransaction& tx, std::string_view lock) {
  Values balances;
  const pqxx::result rows = tx.exec("SELECT balance FROM account ORDER BY k" + std::string(lock));
  for (const pqxx::row& row : rows) balances.push_back(row[0].as<std::int64_t>());
  return balances;
}

void Add(pqxx::dbtransaction& tx, const std::string& id, std::int64_t key, std::int64_t value) {
  try {
    ExpectOne(tx.exec_params("WITH changed AS (UPDATE account SET balance = balance + $2 "
                             "WHERE k = $1 RETURNING k) INSERT INTO entry (id, account, amount) "
                             "SELECT $3, k, $2 FROM changed",
                             key, value, id),
              "account", key);
  } catch (const pqxx::check_violation&) {
    throw ApplicationRefusal("insufficient funds in account " + std::to_string(key));
  }
}

void Order(pqxx::dbtransaction& tx, const std::string& id, std::int64_t key) {
  ExpectOne(tx.exec_params("WITH head AS (UPDATE row_head SET place = place + 1 WHERE k = $1 "
                           "RETURNING k, place) INSERT INTO row_order (k, place, id) "
                           "SELECT k, place, $2 FROM head",
                           key, id),
            "row", key);
}

Values Free(pqxx::dbtransaction& tx, std::int64_t key, std::string_view lock) {
  if (Get(tx, key, lock) != 0) {
    throw ApplicationRefusal("register " + std::to_string(key) + " is taken");
  }
  return {};
}

}  // namespace

std::vector<std::int64_t> RunStep(pqxx::dbtransaction& tx, const std::string& id,
                                  std::string_view name, std::int64_t key, std::int64_t value) {
  constexpr std::string_view kShare = " FOR SHARE";
  if (name == "read") return Read(tx, key, "");
  if (name == "lock-read") return Read(tx, key, kShare);
  if (name == "get") return {Get(tx, key, "")};
  if (name == "lock-get") return {Get(tx, key, kShare)};
  if (name == "free") return Free(tx, key, "");
  if (name == "lock-free") return Free(tx, key, kShare);
  if (name == "balances") return Balances(tx, "");
  if (name == "lock-balances") return Balances(tx, kShare);
  if (name == "append") {
    ExpectOne(tx.exec_params("UPDATE list SET v = v || $2::bigint WHERE k = $1", key, value),
              "list", key);
  } else if (name == "write") {
    ExpectOne(tx.exec_params("UPDATE register SET v = $2 WHERE k = $1", key, value), "register",
              key);
  } else if (name == "add") {
    Add(tx, id, key, value);
  } else if (name == "mark") {
    tx.exec_params("INSERT INTO marker (id) VALUES ($1)", id);
  } else if (name == "order") {
    Order(tx, id, key);
  } else {
    throw ApplicationRefusal("there is no step '" + std::string(name) + "'");
  }
  return {};
}

}  // namespace troth::jepsen
