// See statement_file.h.
#include "participant/statement_file.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <charconv>
#include <vector>

namespace troth {
namespace {

std::string_view Trim(std::string_view text) {
  while (!text.empty() && std::isspace(static_cast<unsigned char>(text.front())) != 0) {
    text.remove_prefix(1);
  }
  while (!text.empty() && std::isspace(static_cast<unsigned char>(text.back())) != 0) {
    text.remove_suffix(1);
  }
  return text;
}

// The value of `-- key: value`; nullopt: the line is another one.
std::optional<std::string_view> Directive(std::string_view line, std::string_view key) {
  if (!line.starts_with("--")) return std::nullopt;
  line = Trim(line.substr(2));
  if (!line.starts_with(key) || !line.substr(key.size()).starts_with(":")) return std::nullopt;
  return Trim(line.substr(key.size() + 1));
}

Status At(int line, const std::string& what) {
  return Status(Code::kInvalid, "line " + std::to_string(line) + ": " + what);
}

bool IsName(std::string_view name) {
  return !name.empty() && name.size() <= 100 && std::all_of(name.begin(), name.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_' || c == '-';
  });
}

void AppendLine(std::string* text, std::string_view line) {
  if (!text->empty()) *text += "\n";
  *text += line;
}

// Without the semicolon at its end; whether it was the only statement the server will say.
std::string Statement(std::string_view sql) {
  sql = Trim(sql);
  while (sql.ends_with(";")) sql = Trim(sql.substr(0, sql.size() - 1));
  return std::string(sql);
}

Status Check(const AllowedStatement& statement, int line) {
  if (statement.sql.empty()) return At(line, "statement '" + statement.name + "' has no SQL");
  if (const std::optional<std::string> why = WhyNotInBranch(statement.sql)) {
    return At(line, "statement '" + statement.name + "': " + *why);
  }
  if (!statement.message.empty() && !statement.rows.has_value()) {
    return At(line, "statement '" + statement.name + "' has a message but no `-- rows:`");
  }
  return OkStatus();
}

// A directive or a comment of the statement being read.
Status TakeComment(std::string_view line, int number, AllowedStatement* statement) {
  if (const auto rows = Directive(line, "rows")) {
    long long count = 0;
    const auto [end, error] = std::from_chars(rows->data(), rows->data() + rows->size(), count);
    if (error != std::errc() || end != rows->data() + rows->size() || count < 0) {
      return At(number, "'" + std::string(*rows) + "' is no number of rows");
    }
    statement->rows = count;
  } else if (const auto message = Directive(line, "message")) {
    statement->message = *message;
  } else {
    AppendLine(&statement->description, Trim(line.substr(2)));
  }
  return OkStatus();
}

}  // namespace

std::string FirstKeyword(std::string_view sql) {
  for (;;) {
    while (!sql.empty() && (std::isspace(static_cast<unsigned char>(sql.front())) != 0 ||
                            sql.front() == '(' || sql.front() == ';')) {
      sql.remove_prefix(1);
    }
    if (sql.starts_with("--")) {
      sql.remove_prefix(std::min(sql.find('\n'), sql.size()));
    } else if (sql.starts_with("/*")) {
      int depth = 0;  // they nest
      do {
        depth += sql.starts_with("/*") ? 1 : sql.starts_with("*/") ? -1 : 0;
        sql.remove_prefix(sql.starts_with("/*") || sql.starts_with("*/") ? 2 : 1);
      } while (depth > 0 && !sql.empty());
    } else {
      break;
    }
  }
  std::string word;
  for (const char c : sql) {
    if (std::isalpha(static_cast<unsigned char>(c)) == 0) break;
    word.push_back(static_cast<char>(std::toupper(static_cast<unsigned char>(c))));
  }
  return word;
}

std::optional<std::string> WhyNotInBranch(std::string_view sql) {
  const std::string word = FirstKeyword(sql);
  if (word.empty()) return "it has no SQL";
  for (const std::string_view boundary : {"BEGIN", "START", "COMMIT", "END", "ROLLBACK", "ABORT",
                                          "PREPARE", "SAVEPOINT", "RELEASE"}) {
    if (word == boundary) return word + ": the boundaries of a branch belong to its coordinator";
  }
  for (const std::string_view lasting : {"LISTEN", "UNLISTEN", "NOTIFY", "DISCARD", "DEALLOCATE"}) {
    if (word == lasting) return word + " can't be part of a branch";
  }
  if (word == "COPY") return "COPY is not spoken here; use INSERT or SELECT";
  return std::nullopt;
}

Result<std::map<std::string, AllowedStatement>> ParseStatements(std::string_view text) {
  std::map<std::string, AllowedStatement> statements;
  AllowedStatement* current = nullptr;
  int number = 0, begun = 0;
  const auto finish = [&]() -> Status {
    if (current == nullptr) return OkStatus();
    current->sql = Statement(current->sql);
    return Check(*current, begun);
  };
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    const std::string_view line = Trim(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
    ++number;
    if (const auto name = Directive(line, "name")) {
      TROTH_RETURN_IF_ERROR(finish());
      if (!IsName(*name)) {
        return At(number, "'" + std::string(*name) + "' is no name: give [a-z0-9_-]");
      }
      const auto [entry, fresh] = statements.try_emplace(std::string(*name));
      if (!fresh) return At(number, "there are two statements '" + std::string(*name) + "'");
      current = &entry->second;
      current->name = *name;
      begun = number;
    } else if (current == nullptr) {
      if (line.empty() || line.starts_with("--")) continue;  // what the file says of itself
      return At(number, "SQL without a name: write `-- name: ...` above it");
    } else if (current->sql.empty() && (line.empty() || line.starts_with("--"))) {
      if (!line.empty()) TROTH_RETURN_IF_ERROR(TakeComment(line, number, current));
    } else {
      AppendLine(&current->sql, line);
    }
  }
  TROTH_RETURN_IF_ERROR(finish());
  if (statements.empty()) return Status(Code::kInvalid, "there is no `-- name: ...` in it");
  return statements;
}

}  // namespace troth
