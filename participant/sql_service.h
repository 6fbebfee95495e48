// The service of troth-participant: SQL statements of others' transactions, by name from a file of
// the operator's or, where allowed, as text. Two-phase commit is troth::Participant's; here are
// values, rows and their limits. thrift/sql.thrift, docs/participants.md, "No code at all".
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include <thrift/TProcessor.h>

#include "common/status.h"
#include "participant/participant.h"
#include "participant/statement_file.h"

namespace troth {

struct SqlServiceOptions {
  std::map<std::string, AllowedStatement> statements;  // by name
  // Callers may send SQL of their own.
  bool free_sql = false;
  // Rows that one statement gives back at most.
  std::int32_t max_rows = 1'000;
};

// What the server says of a statement.
struct StatementShape {
  std::vector<std::string> parameter_types;  // as SQL names them
  std::vector<std::string> columns;
};

// Has each statement parsed by the database of `conninfo`, on a connection of its own. kInvalid,
// with the server's words, when one is wrong; kUnavailable when nobody answers.
Result<std::map<std::string, StatementShape>> DescribeStatements(
    const std::string& conninfo, const std::map<std::string, AllowedStatement>& statements);

// The generated processor around the service. `participant` outlives it.
std::shared_ptr<apache::thrift::TProcessor> MakeSqlProcessor(
    Participant* participant, SqlServiceOptions options,
    std::map<std::string, StatementShape> shapes);

}  // namespace troth
