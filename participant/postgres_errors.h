// SQLSTATE to Refusal: what PostgreSQL's errors mean to a transaction. Decides by code, never by
// text: messages are translated.
#pragma once

#include <exception>
#include <optional>
#include <string>
#include <string_view>

#include "participant/refusal.h"

namespace troth {

// Of work or PREPARE. An empty code: the connection was lost.
Refusal RefusalOf(std::string_view sqlstate, std::string message);

// Of an exception of libpqxx 6.4, whose serialisation failures and deadlocks are no sql_error and
// bear no code. nullopt: it is not libpqxx's.
std::optional<Refusal> RefusalOf(const std::exception& error);

// The connection is gone, or about to be: what was sent may have been done.
bool ConnectionLost(std::string_view sqlstate);

}  // namespace troth
