// troth-jepsen-branch: the participant of the fault tests. Runs the steps of workload.thrift in
// branches; all of two-phase commit is troth::Participant's. jepsen/README.md, "The programs".
#include <iostream>

#include <gflags/gflags.h>
#include <glog/logging.h>
#include <pqxx/pqxx>

#include "Workload.h"
#include "common/program.h"
#include "jepsen/programs/schema.h"
#include "jepsen/programs/steps.h"
#include "participant/main_serve.h"
#include "participant/participant.h"

DEFINE_string(name, "", "name of the participant, [a-z0-9-]");
DEFINE_string(conninfo, "", "libpq connection string of its database");
DEFINE_string(coordinators, "127.0.0.1:7712", "peer addresses of the coordinator, HOST:PORT,...");
DEFINE_string(host, "127.0.0.1", "where clients and the coordinator reach it");
DEFINE_string(bind, "", "address the listeners bind to; empty: --host");
DEFINE_int32(port, 0, "port for clients; 0: any free one");
DEFINE_int32(peer_port, 0, "port for the coordinator; 0: any free one");
DEFINE_int32(pool_size, 32, "connections for branches");
DEFINE_int32(max_in_doubt, 200, "branches open or in doubt at once");
DEFINE_string(port_file, "", "written when ready: JSON with pid and ports");
DEFINE_bool(init, false, "make the tables in the database of --conninfo, and exit");
DEFINE_int32(lists, 20000, "with --init: lists, numbered from 0");
DEFINE_int32(registers, 40000, "with --init: registers, numbered from 0");
DEFINE_int32(accounts, 8, "with --init: accounts, numbered from 0");
DEFINE_int64(balance, 100, "with --init: in each account");
DEFINE_int32(rows, 64, "with --init: rows whose order of changes is kept, numbered from 0");

namespace troth::jepsen {
namespace {

constexpr char kUsage[] =
    "The participant of the fault tests: small steps on a few tables, in any mix.\n"
    "\n"
    "  troth-jepsen-branch --init --conninfo DATABASE               once: make the tables\n"
    "  troth-jepsen-branch --name p1 --conninfo DATABASE            run until SIGTERM\n"
    "\n"
    "Exit codes: 0 stopped, 1 cannot start, 2 wrong flags.";

class Handler : public WorkloadIf {
 public:
  explicit Handler(troth::Participant* participant) : participant_(participant) {}

  void hello(wire::ParticipantHello& reply, const std::int32_t version) override {
    participant_->Hello(version, &reply);
  }

  void run(RunReply& reply, const wire::Context& context, const std::vector<Step>& steps) override {
    reply.branch = participant_->Execute(context, [&](pqxx::dbtransaction& tx) {
      reply.results.clear();
      for (const Step& step : steps) {
        reply.results.push_back(
            RunStep(tx, context.transaction_id, step.name, step.key, step.value));
      }
    });
  }

 private:
  troth::Participant* const participant_;
};

int Init() {
  try {
    pqxx::connection connection(FLAGS_conninfo);
    pqxx::work transaction(connection);
    transaction.exec(kSchema);
    const auto fill = [&](const std::string& table, std::int64_t count) {
      transaction.exec_params(
          "INSERT INTO " + table + " SELECT pg_catalog.generate_series(0, $1::bigint - 1)", count);
    };
    fill("list (k)", FLAGS_lists);
    fill("register (k)", FLAGS_registers);
    fill("row_head (k)", FLAGS_rows);
    transaction.exec_params(
        "INSERT INTO account SELECT pg_catalog.generate_series(0, $1::bigint - 1), $2",
        FLAGS_accounts, FLAGS_balance);
    transaction.commit();
  } catch (const std::exception& e) {
    std::cerr << "troth-jepsen-branch: the tables could not be made: " << e.what() << "\n";
    return 1;
  }
  return 0;
}

int Run() {
  ParticipantOptions options;
  options.name = FLAGS_name;
  options.conninfo = FLAGS_conninfo;
  options.host = FLAGS_host;
  options.port = FLAGS_port;
  options.peer_port = FLAGS_peer_port;
  options.bind = FLAGS_bind.empty() ? FLAGS_host : FLAGS_bind;
  options.coordinators = SplitAtCommas(FLAGS_coordinators);
  options.pool_size = FLAGS_pool_size;
  options.max_in_doubt = FLAGS_max_in_doubt;
  options.security.allow_plain_text = true;  // its networks are nobody else's
  Result<std::unique_ptr<troth::Participant>> participant = troth::Participant::Open(options);
  if (!participant.ok()) {
    std::cerr << "troth-jepsen-branch: " << participant.status().message() << "\n";
    return 1;
  }
  auto handler = std::make_shared<Handler>(participant->get());
  return ServeUntilSignal({"troth-jepsen-branch", FLAGS_name, FLAGS_host, FLAGS_port_file, {}},
                          participant->get(), std::make_shared<WorkloadProcessor>(handler));
}

}  // namespace
}  // namespace troth::jepsen

int main(int argc, char** argv) {
  if (const auto done = troth::StartProgram(troth::jepsen::kUsage, &argc, &argv)) return *done;
  if (argc > 1 || FLAGS_conninfo.empty() || (!FLAGS_init && FLAGS_name.empty())) {
    std::cerr << "troth-jepsen-branch: it needs --conninfo, and --name or --init, and no "
                 "arguments; see --help\n";
    return 2;
  }
  return FLAGS_init ? troth::jepsen::Init() : troth::jepsen::Run();
}
