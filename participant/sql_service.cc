// See sql_service.h.
#include "participant/sql_service.h"

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <optional>

#include <libpq-fe.h>
#include <pqxx/pqxx>

#include "SqlParticipant.h"

namespace troth {
namespace {

constexpr std::size_t kMaxStatements = 100;
// A frame holds 1 MiB; what is beside the rows has room in the rest.
constexpr std::size_t kMaxReplyBytes = 900'000;
// A query's rows come in portions, so that rows too wide for a reply do not all come here first.
constexpr std::int64_t kFirstPortion = 10, kLargestPortion = 500;
constexpr char kCursor[] = "troth_rows";

// pg_type.oid of what does not come as text.
enum Type : pqxx::oid {
  kBool = 16,
  kBytea = 17,
  kInt8 = 20,
  kInt2 = 21,
  kInt4 = 23,
  kOid = 26,
  kFloat4 = 700,
  kFloat8 = 701,
};

wire::Refused Invalid(const std::string& message) {
  wire::Refused refused;
  refused.reason = wire::Reason::INVALID;
  refused.message = message;
  refused.retryable = false;
  return refused;
}

void CheckNoZero(const std::string& text, const char* what) {
  if (text.find('\0') != text.npos) throw Invalid(std::string(what) + " bears a byte of zero");
}

std::string TextOf(double real) {
  char text[40];
  std::snprintf(text, sizeof text, "%.17g", real);  // "nan" and "inf" are understood as well
  return text;
}

std::string HexOf(const std::string& bytes) {
  std::string hex = "\\x";
  for (const char byte : bytes) {
    char two[3];
    std::snprintf(two, sizeof two, "%02x", static_cast<unsigned>(static_cast<unsigned char>(byte)));
    hex += two;
  }
  return hex;
}

// PostgreSQL's text form; nullopt: NULL.
std::optional<std::string> ParameterOf(const sql::Value& value) {
  const auto& is = value.__isset;
  if (is.text + is.integer + is.real + is.boolean + is.bytes > 1) {
    throw Invalid("a value has one of its fields set, or none for NULL");
  }
  if (is.text) {
    CheckNoZero(value.text, "a text parameter");
    return value.text;
  }
  if (is.integer) return std::to_string(value.integer);
  if (is.real) return TextOf(value.real);
  if (is.boolean) return value.boolean ? "true" : "false";
  if (is.bytes) return HexOf(value.bytes);
  return std::nullopt;
}

sql::Value ValueOf(const pqxx::field& field) {
  sql::Value value;
  if (field.is_null()) return value;
  const std::string_view text(field.c_str(), field.size());
  switch (field.type()) {
    case kBool: value.__set_boolean(text == "t"); break;
    case kInt2:
    case kInt4:
    case kInt8:
    case kOid: {
      std::int64_t integer = 0;
      std::from_chars(text.data(), text.data() + text.size(), integer);
      value.__set_integer(integer);
      break;
    }
    case kFloat4:
    case kFloat8: value.__set_real(std::strtod(field.c_str(), nullptr)); break;
    case kBytea: value.__set_bytes(pqxx::binarystring(field).str()); break;
    default: value.__set_text(std::string(text));
  }
  return value;
}

// A statement of a call, looked up and checked, before anything is executed.
struct Order {
  std::string sql;
  std::vector<std::optional<std::string>> parameters;
  std::int32_t max_rows = 0;
  const AllowedStatement* rule = nullptr;  // null: free SQL

  bool IsQuery() const {
    const std::string word = FirstKeyword(sql);
    return word == "SELECT" || word == "VALUES" || word == "TABLE";
  }

  std::vector<const char*> Pointers() const {
    std::vector<const char*> pointers;
    for (const auto& one : parameters) pointers.push_back(one ? one->c_str() : nullptr);
    return pointers;
  }
};

class Handler : public sql::SqlParticipantIf {
 public:
  Handler(Participant* participant, SqlServiceOptions options,
          std::map<std::string, StatementShape> shapes)
      : participant_(participant), options_(std::move(options)), shapes_(std::move(shapes)) {}

  void hello(wire::ParticipantHello& reply, const std::int32_t version) override {
    participant_->Hello(version, &reply);
  }

  void execute(sql::ExecuteReply& reply, const wire::Context& context,
               const std::vector<sql::Statement>& statements) override {
    if (statements.empty() || statements.size() > kMaxStatements) {
      throw Invalid("a call executes 1 to " + std::to_string(kMaxStatements) + " statements");
    }
    std::vector<Order> orders;
    for (const sql::Statement& statement : statements) orders.push_back(OrderOf(statement));
    reply.branch = participant_->Execute(context, [&](pqxx::dbtransaction& tx) {
      std::size_t bytes = 0;
      for (const Order& order : orders) reply.results.push_back(Execute(tx, order, &bytes));
    });
  }

  void statements(std::vector<sql::KnownStatement>& reply) override {
    for (const auto& [name, statement] : options_.statements) {
      sql::KnownStatement& known = reply.emplace_back();
      known.name = name;
      known.description = statement.description;
      known.parameter_types = shapes_[name].parameter_types;
      known.columns = shapes_[name].columns;
    }
  }

 private:
  Order OrderOf(const sql::Statement& statement) const {
    Order order;
    if (statement.__isset.name == statement.__isset.sql) {
      throw Invalid("a statement has either a name or SQL");
    }
    if (statement.__isset.name) {
      const auto found = options_.statements.find(statement.name);
      if (found == options_.statements.end()) {
        throw Invalid("there is no statement '" + statement.name.substr(0, 100) + "' here");
      }
      order.rule = &found->second;
      order.sql = found->second.sql;
      const std::size_t wanted = shapes_.at(statement.name).parameter_types.size();
      if (statement.parameters.size() != wanted) {
        throw Invalid("statement '" + statement.name + "' takes " + std::to_string(wanted) +
                      " parameters, not " + std::to_string(statement.parameters.size()));
      }
    } else {
      if (!options_.free_sql) {
        throw Invalid("this participant takes no SQL, only the names of its statements");
      }
      CheckNoZero(statement.sql, "the SQL");
      if (const auto why = WhyNotInBranch(statement.sql)) throw Invalid(*why);
      order.sql = statement.sql;
    }
    for (const sql::Value& value : statement.parameters) {
      order.parameters.push_back(ParameterOf(value));
    }
    order.max_rows = options_.max_rows;
    if (statement.__isset.max_rows) {
      if (statement.max_rows < 0) throw Invalid("max_rows is negative");
      order.max_rows = std::min(statement.max_rows, options_.max_rows);
    }
    return order;
  }

  // Appends them to `out`, and their bytes to `bytes`.
  static void Keep(const pqxx::result& rows, std::int64_t most, sql::StatementResult* out,
                   std::size_t* bytes) {
    const auto known = static_cast<pqxx::row::size_type>(out->columns.size());
    for (pqxx::row::size_type c = known; c < rows.columns(); ++c) {
      sql::Column& column = out->columns.emplace_back();
      column.name = rows.column_name(c);
      column.type_oid = rows.column_type(c);
      *bytes += column.name.size() + 8;
    }
    if (rows.columns() == 0) return;
    const auto kept = std::min(rows.size(), static_cast<pqxx::result::size_type>(most));
    for (pqxx::result::size_type r = 0; r < kept; ++r) {
      std::vector<sql::Value>& values = out->rows.emplace_back();
      for (const pqxx::field& field : rows[r]) {
        values.push_back(ValueOf(field));
        *bytes += field.size() + 8;
      }
      if (*bytes > kMaxReplyBytes) {
        throw Invalid("the rows fill more than " + std::to_string(kMaxReplyBytes) +
                      " bytes: ask for fewer (max_rows)");
      }
    }
  }

  // How many rows there were. A query is fetched through a cursor, so that a large result stays
  // where it is.
  static std::int64_t Fetch(pqxx::dbtransaction& tx, const Order& order, sql::StatementResult* out,
                            std::size_t* bytes) {
    const std::vector<const char*> pointers = order.Pointers();
    const auto parameters = pqxx::prepare::make_dynamic_params(pointers);
    if (!order.IsQuery()) {
      const pqxx::result rows = tx.exec_params(order.sql, parameters);
      Keep(rows, order.max_rows, out, bytes);
      return static_cast<std::int64_t>(rows.columns() > 0 ? rows.size() : rows.affected_rows());
    }
    const std::string cursor = kCursor;
    tx.exec_params("DECLARE " + cursor + " NO SCROLL CURSOR FOR " + order.sql, parameters);
    const std::size_t before = *bytes;
    std::int64_t count = 0, portion = std::min<std::int64_t>(kFirstPortion, order.max_rows);
    bool more = true;
    do {
      const pqxx::result rows =
          tx.exec_params("FETCH FORWARD " + std::to_string(portion) + " FROM " + cursor);
      Keep(rows, portion, out, bytes);
      const auto got = static_cast<std::int64_t>(rows.size());
      count += got;
      more = got == portion;
      const auto each =
          static_cast<std::int64_t>(*bytes - before) / std::max<std::int64_t>(count, 1);
      const auto fit = static_cast<std::int64_t>(kMaxReplyBytes - *bytes) / (each + 1) + 1;
      portion = std::min({4 * portion, kLargestPortion, fit, order.max_rows - count});
    } while (more && portion > 0);
    // Its effects, and its locks, are those of the whole query, whatever comes back of it.
    if (more) count += tx.exec("MOVE FORWARD ALL FROM " + cursor).affected_rows();
    tx.exec_params("CLOSE " + cursor);
    return count;
  }

  static sql::StatementResult Execute(pqxx::dbtransaction& tx, const Order& order,
                                      std::size_t* bytes) {
    sql::StatementResult out;
    const std::int64_t touched = Fetch(tx, order, &out, bytes);
    if (order.rule != nullptr && order.rule->rows && touched != *order.rule->rows) {
      throw ApplicationRefusal(order.rule->message.empty()
                                   ? "statement '" + order.rule->name + "' is to touch " +
                                         std::to_string(*order.rule->rows) + " rows"
                                   : order.rule->message);
    }
    out.more = !out.columns.empty() && touched > order.max_rows;
    out.affected = order.IsQuery() ? static_cast<std::int64_t>(out.rows.size()) : touched;
    return out;
  }

  Participant* const participant_;
  const SqlServiceOptions options_;
  std::map<std::string, StatementShape> shapes_;
};

struct Close {
  void operator()(PGconn* connection) const { PQfinish(connection); }
  void operator()(PGresult* result) const { PQclear(result); }
};
using PgConn = std::unique_ptr<PGconn, Close>;
using PgRows = std::unique_ptr<PGresult, Close>;

// libpq ends its messages with the end of a line.
std::string MessageOf(PGconn* connection) {
  std::string message = PQerrorMessage(connection);
  message.erase(message.find_last_not_of(" \n") + 1);
  return message;
}

Status Describe(PGconn* connection, const AllowedStatement& statement, StatementShape* shape) {
  const auto wrong = [&] {
    return Status(Code::kInvalid, "statement '" + statement.name + "': " + MessageOf(connection));
  };
  PgRows made(PQprepare(connection, "", statement.sql.c_str(), 0, nullptr));
  if (PQresultStatus(made.get()) != PGRES_COMMAND_OK) return wrong();
  PgRows told(PQdescribePrepared(connection, ""));
  if (PQresultStatus(told.get()) != PGRES_COMMAND_OK) return wrong();
  for (int i = 0; i < PQnfields(told.get()); ++i) {
    shape->columns.push_back(PQfname(told.get(), i));
  }
  for (int i = 0; i < PQnparams(told.get()); ++i) {
    const std::string oid = std::to_string(PQparamtype(told.get(), i));
    const char* const values[] = {oid.c_str()};
    PgRows name(PQexecParams(connection, "SELECT pg_catalog.format_type($1::pg_catalog.oid, NULL)",
                             1, nullptr, values, nullptr, nullptr, 0));
    if (PQresultStatus(name.get()) != PGRES_TUPLES_OK) return wrong();
    shape->parameter_types.push_back(PQgetvalue(name.get(), 0, 0));
  }
  return OkStatus();
}

}  // namespace

Result<std::map<std::string, StatementShape>> DescribeStatements(
    const std::string& conninfo, const std::map<std::string, AllowedStatement>& statements) {
  std::map<std::string, StatementShape> shapes;
  PgConn connection(PQconnectdb(conninfo.c_str()));
  if (PQstatus(connection.get()) != CONNECTION_OK) {
    return Status(Code::kUnavailable,
                  "the database (--conninfo) cannot be reached: " + MessageOf(connection.get()));
  }
  for (const auto& [name, statement] : statements) {
    TROTH_RETURN_IF_ERROR(Describe(connection.get(), statement, &shapes[name]));
  }
  return shapes;
}

std::shared_ptr<apache::thrift::TProcessor> MakeSqlProcessor(
    Participant* participant, SqlServiceOptions options,
    std::map<std::string, StatementShape> shapes) {
  return std::make_shared<sql::SqlParticipantProcessor>(
      std::make_shared<Handler>(participant, std::move(options), std::move(shapes)));
}

}  // namespace troth
