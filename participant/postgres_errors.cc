// See postgres_errors.h.
#include "participant/postgres_errors.h"

#include <algorithm>

#include <pqxx/except>

namespace troth {
namespace {

bool IsOneOf(std::string_view state, std::initializer_list<std::string_view> states) {
  return std::find(states.begin(), states.end(), state) != states.end();
}

}  // namespace

bool ConnectionLost(std::string_view sqlstate) {
  // 57P01-05: shutdown, crash, starting up, database dropped, idle session; 25P03: idle in
  // transaction; all end the session.
  return sqlstate.empty() || sqlstate.starts_with("08") || sqlstate == "25P03" ||
         IsOneOf(sqlstate, {"57P01", "57P02", "57P03", "57P04", "57P05"});
}

Refusal RefusalOf(std::string_view sqlstate, std::string message) {
  Refusal refusal;
  refusal.sqlstate = sqlstate;
  refusal.message = std::move(message);
  if (ConnectionLost(sqlstate) || sqlstate == "53300") {
    refusal.reason = Refused::kDatabaseUnavailable;
    refusal.retryable = true;
    if (refusal.message.empty()) refusal.message = "the connection to the database was lost";
  } else if (sqlstate.starts_with("40") || IsOneOf(sqlstate, {"55P03", "57014"})) {
    // Serialisation failure (40001), deadlock (40P01), lock timeout, statement timeout.
    refusal.reason = Refused::kConflict;
    refusal.retryable = true;
  } else if (sqlstate.starts_with("53")) {
    // 53200 at PREPARE: no free slot among max_prepared_transactions; disk full, memory.
    refusal.reason = Refused::kOverloaded;
    refusal.retryable = true;
  } else {
    refusal.reason = Refused::kDatabase;
  }
  return refusal;
}

std::optional<Refusal> RefusalOf(const std::exception& error) {
  if (const auto* sql = dynamic_cast<const pqxx::sql_error*>(&error)) {
    return RefusalOf(sql->sqlstate(), sql->what());
  }
  if (dynamic_cast<const pqxx::broken_connection*>(&error) != nullptr) {
    return RefusalOf("", error.what());
  }
  if (dynamic_cast<const pqxx::serialization_failure*>(&error) != nullptr) {
    return RefusalOf("40001", error.what());
  }
  if (dynamic_cast<const pqxx::deadlock_detected*>(&error) != nullptr) {
    return RefusalOf("40P01", error.what());
  }
  if (dynamic_cast<const pqxx::transaction_rollback*>(&error) != nullptr) {
    return RefusalOf("40000", error.what());
  }
  return std::nullopt;
}

}  // namespace troth
