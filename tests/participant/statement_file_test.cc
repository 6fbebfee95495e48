// The file of allowed statements: what is understood, and what is refused with its line.
#include "participant/statement_file.h"

#include <gtest/gtest.h>

namespace troth {
namespace {

std::string Error(std::string_view text) {
  const auto parsed = ParseStatements(text);
  return parsed.ok() ? "" : parsed.status().message();
}

TEST(StatementFile, ReadsNamesDescriptionsRulesAndSql) {
  const auto parsed = ParseStatements(
      "-- What this file is for.\n\n"
      "-- name: take\n-- Takes $2 out of $1.\n-- And no more.\n-- rows: 1\n"
      "-- message: not enough: nothing was taken\n\n"
      "UPDATE account\n   SET balance = balance - $2  -- a comment\n WHERE number = $1 ;\n\n"
      "-- name: look\nSELECT 1");
  ASSERT_TRUE(parsed.ok()) << parsed.status().message();
  ASSERT_EQ(parsed->size(), 2u);
  const AllowedStatement& take = parsed->at("take");
  EXPECT_EQ(take.description, "Takes $2 out of $1.\nAnd no more.");
  EXPECT_EQ(take.rows, 1);
  EXPECT_EQ(take.message, "not enough: nothing was taken");
  EXPECT_EQ(take.sql,
            "UPDATE account\nSET balance = balance - $2  -- a comment\nWHERE number = $1");
  EXPECT_EQ(parsed->at("look").sql, "SELECT 1");
  EXPECT_FALSE(parsed->at("look").rows.has_value());
}

TEST(StatementFile, RefusesWithTheLine) {
  EXPECT_EQ(Error(""), "there is no `-- name: ...` in it");
  EXPECT_EQ(Error("SELECT 1"), "line 1: SQL without a name: write `-- name: ...` above it");
  EXPECT_EQ(Error("-- name: a\n-- name: b\nSELECT 1"), "line 1: statement 'a' has no SQL");
  EXPECT_EQ(Error("-- name: a\nSELECT 1;\n-- name: a\nSELECT 2"),
            "line 3: there are two statements 'a'");
  EXPECT_EQ(Error("-- name: A b\nSELECT 1"), "line 1: 'A b' is no name: give [a-z0-9_-]");
  EXPECT_EQ(Error("-- name: a\n-- rows: one\nSELECT 1"), "line 2: 'one' is no number of rows");
  EXPECT_EQ(Error("-- name: a\n-- message: no\nSELECT 1"),
            "line 1: statement 'a' has a message but no `-- rows:`");
  EXPECT_EQ(Error("-- name: a\ncommit"),
            "line 1: statement 'a': COMMIT: the boundaries of a branch belong to its coordinator");
}

TEST(StatementFile, LooksThroughCommentsForTheFirstWord) {
  EXPECT_EQ(FirstKeyword("  select 1"), "SELECT");
  EXPECT_EQ(FirstKeyword("-- begin\n /* commit /* nested */ */ ((VALUES (1)))"), "VALUES");
  EXPECT_EQ(FirstKeyword("/* open"), "");
  EXPECT_EQ(FirstKeyword("/*"), "");
  EXPECT_EQ(FirstKeyword(""), "");
  for (const char* sql : {"COMMIT", "/**/rollback to x", "; END", "PREPARE TRANSACTION 'x'",
                          "Begin", "copy t from stdin", "LISTEN x", "--", ""}) {
    EXPECT_TRUE(WhyNotInBranch(sql).has_value()) << sql;
  }
  for (const char* sql : {"SELECT 1", "WITH a AS (DELETE FROM t RETURNING 1) SELECT * FROM a",
                          "INSERT INTO t VALUES (1)", "SET LOCAL search_path = x", "BEGINNING"}) {
    EXPECT_FALSE(WhyNotInBranch(sql).has_value()) << sql;
  }
}

}  // namespace
}  // namespace troth
