// troth-participant: lets others' transactions into a PostgreSQL database with no service code at
// all. Reads flags and the file of statements; the rest is participant.h and sql_service.h.
// docs/participants.md, "No code at all".
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <sstream>

#include <gflags/gflags.h>

#include "common/program.h"
#include "common/service_manager.h"
#include "participant/conninfo.h"
#include "participant/main_serve.h"
#include "participant/sql_service.h"
#include "wire/main_flags.h"

DEFINE_string(name, "", "name of the participant, [a-z0-9-]: `east`");
DEFINE_string(conninfo, "",
              "libpq connection string of its database; passwords belong into ~/.pgpass");
DEFINE_string(statements, "", "file of the statements that callers may name");
DEFINE_bool(free_sql, false,
            "callers may send SQL of their own, with all rights of the participant's role");
DEFINE_int32(max_rows, 1'000, "rows that a statement gives back at most");
DEFINE_string(coordinators, "127.0.0.1:7712", "peer addresses of the coordinator, HOST:PORT,...");
DEFINE_string(host, "127.0.0.1", "where clients and the coordinator reach it");
DEFINE_string(bind, "127.0.0.1", "address the listeners bind to");
DEFINE_int32(port, 0, "port for clients; 0: any free one");
DEFINE_int32(peer_port, 0, "port for the coordinator; 0: any free one");
DEFINE_int32(http_port, -1, "port for /metrics, /healthz and /readyz; 0: any free one, -1: none");
DEFINE_int32(pool_size, 32, "connections for branches");
DEFINE_int32(max_in_doubt, 200,
             "branches open or in doubt at once; max_prepared_transactions "
             "must be at least this");
DEFINE_int64(slow_ms, 1'000,
             "pieces of work that take so long are logged, with where the time went; 0: none");
DEFINE_string(port_file, "", "written when ready: JSON with pid and ports");
DEFINE_bool(check, false, "have the database parse the statements, print them, and exit");

namespace troth {
namespace {

constexpr char kUsage[] =
    "Takes part in transactions with a PostgreSQL database, without a line of service code:\n"
    "callers execute SQL statements by the names that a file gives them.\n"
    "\n"
    "  troth-participant --name east --conninfo DATABASE --statements FILE     run until SIGTERM\n"
    "  troth-participant --conninfo DATABASE --statements FILE --check         only look at FILE\n"
    "\n"
    "The file: one statement after another, each as in\n"
    "\n"
    "  -- name: withdraw\n"
    "  -- Takes $2 out of account $1.\n"
    "  -- rows: 1\n"
    "  -- message: there is no such account, or not enough in it\n"
    "  UPDATE account SET balance = balance - $2 WHERE number = $1 AND balance >= $2;\n"
    "\n"
    "`rows` (optional): work that touches another number of rows is refused with `message`.\n"
    "\n"
    "Exit codes: 0 stopped, 1 cannot start (or the statements are wrong), 2 wrong flags.";

int Fail(const std::string& message) {
  std::cerr << "troth-participant: " << message << "\n";
  return 1;
}

Result<std::map<std::string, AllowedStatement>> ReadStatements() {
  if (FLAGS_statements.empty()) return std::map<std::string, AllowedStatement>();
  std::ifstream file(FLAGS_statements, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  if (!file.good()) return Status(Code::kInvalid, "it cannot be read");
  return ParseStatements(text.str());
}

int PrintStatements(const std::map<std::string, StatementShape>& shapes) {
  for (const auto& [name, shape] : shapes) {
    std::cout << name << "(";
    for (std::size_t i = 0; i < shape.parameter_types.size(); ++i) {
      std::cout << (i > 0 ? ", " : "") << shape.parameter_types[i];
    }
    std::cout << ")";
    for (std::size_t i = 0; i < shape.columns.size(); ++i) {
      std::cout << (i > 0 ? ", " : " -> ") << shape.columns[i];
    }
    std::cout << "\n";
  }
  return 0;
}

int Serve(SqlServiceOptions service, std::map<std::string, StatementShape> shapes) {
  ParticipantOptions options;
  options.name = FLAGS_name;
  options.conninfo = FLAGS_conninfo;
  options.host = FLAGS_host;
  options.port = FLAGS_port;
  options.peer_port = FLAGS_peer_port;
  options.http_port = FLAGS_http_port;
  options.bind = FLAGS_bind;
  options.coordinators = SplitAtCommas(FLAGS_coordinators);
  options.pool_size = FLAGS_pool_size;
  options.slow_ms = FLAGS_slow_ms;
  options.max_in_doubt = FLAGS_max_in_doubt;
  options.security = SecurityFromFlags();
  Result<std::unique_ptr<Participant>> participant = Participant::Open(options);
  if (!participant.ok()) return Fail(participant.status().message());
  auto processor = MakeSqlProcessor(participant->get(), std::move(service), std::move(shapes));
  return ServeUntilSignal({"troth-participant", FLAGS_name, FLAGS_host, FLAGS_port_file,
                           [] { TellReady("serves as " + FLAGS_name); }},
                          participant->get(), std::move(processor));
}

int Run() {
  Result<std::map<std::string, AllowedStatement>> statements = ReadStatements();
  if (!statements.ok()) return Fail(FLAGS_statements + ": " + statements.status().message());
  Result<std::map<std::string, StatementShape>> shapes =
      DescribeStatements(FLAGS_conninfo, *statements);
  if (!shapes.ok()) {
    const bool wrong = shapes.status().code() == Code::kInvalid;
    return Fail((wrong ? FLAGS_statements + ": " : "") + shapes.status().message());
  }
  if (FLAGS_check) return PrintStatements(*shapes);
  return Serve({*std::move(statements), FLAGS_free_sql, FLAGS_max_rows}, *std::move(shapes));
}

int Wrong(const std::string& what) {
  std::cerr << "troth-participant: " << what << "; see --help\n";
  return 2;
}

}  // namespace
}  // namespace troth

int main(int argc, char** argv) {
  if (const auto done = troth::StartProgram(troth::kUsage, &argc, &argv)) return *done;
  if (argc > 1) return troth::Wrong(std::string("'") + argv[1] + "' is no flag");
  if (FLAGS_conninfo.empty()) return troth::Wrong("--conninfo is required");
  if (const troth::Status fit = troth::CheckNoSecret(FLAGS_conninfo); !fit.ok()) {
    return troth::Wrong(fit.message());
  }
  if (FLAGS_name.empty() && !FLAGS_check) return troth::Wrong("--name is required");
  if (FLAGS_statements.empty() && (!FLAGS_free_sql || FLAGS_check)) {
    return troth::Wrong("--statements names the file of allowed statements (or give --free_sql)");
  }
  if (FLAGS_max_rows < 0 || FLAGS_max_rows > 100'000) {
    return troth::Wrong("--max_rows is 0 to 100000");
  }
  // What the wire calls a string is UTF-8.
  setenv("PGCLIENTENCODING", "UTF8", 1);
  return troth::Run();
}
