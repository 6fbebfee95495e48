// The statements that an operator of troth-participant allows: read from a file, each with a name,
// a description and what it promises. Knows neither wire nor database. docs/participants.md,
// "No code at all", has the format.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "common/status.h"

namespace troth {

struct AllowedStatement {
  std::string name;
  std::string description;  // the comment lines that are no directives
  std::string sql;          // without the semicolon at its end
  // Directive `-- rows: N`: it must return, insert, change or delete exactly so many rows, or the
  // work is refused with `message` (directive `-- message:`).
  std::optional<long long> rows;
  std::string message;
};

// Parses the text of a file:
//
//   -- name: withdraw
//   -- Takes $2 out of account $1.
//   -- rows: 1
//   -- message: there is no such account, or not enough in it
//   UPDATE account SET balance = balance - $2 WHERE number = $1 AND balance >= $2;
//
// kInvalid, with the number of the line: no name, a name twice or not of [a-z0-9_-], no SQL, a
// wrong number, or a statement that no branch may execute.
Result<std::map<std::string, AllowedStatement>> ParseStatements(std::string_view text);

// The first word of a statement, in capitals; comments and parentheses before it are skipped.
std::string FirstKeyword(std::string_view sql);

// Why a branch must not execute it, judged by its first word: it would begin or end the block,
// can't be prepared, or speaks another protocol (COPY). nullopt: it may. What this overlooks, the
// branch itself notices.
std::optional<std::string> WhyNotInBranch(std::string_view sql);

}  // namespace troth
