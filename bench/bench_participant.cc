// bench-participant: a service with one table that takes part in transactions; as thin as such
// a service can be, so that what bench/run measures is Troth. docs/performance.md.
#include <unistd.h>

#include <cstdio>
#include <fstream>
#include <iostream>
#include <thread>

#include <gflags/gflags.h>
#include <glog/logging.h>

#include "BenchParticipant.h"
#include "common/program.h"
#include "participant/participant.h"

DEFINE_string(name, "", "name of the participant");
DEFINE_string(conninfo, "", "libpq connection string of its database, with a table `account`");
DEFINE_string(coordinator, "", "peer address of the coordinator, HOST:PORT");
DEFINE_int32(port, 0, "port for clients; 0: any free one");
DEFINE_int32(peer_port, 0, "port for the coordinator; 0: any free one");
DEFINE_int32(pool_size, 64, "connections for branches");
DEFINE_int32(finish_connections, 8, "connections for phase two");
DEFINE_int32(max_work_connections, 256, "connections accepted from clients");
DEFINE_string(port_file, "", "written when ready: JSON with pid and ports");

namespace troth::bench {
namespace {

constexpr char kUsage[] =
    "A participant with one table, for measurements. Started by bench/run.\n"
    "\n"
    "  bench-participant --name p0 --conninfo DATABASE --coordinator HOST:PORT";

class Handler : public BenchParticipantIf {
 public:
  explicit Handler(Participant* participant) : participant_(participant) {}

  void hello(wire::ParticipantHello& reply, const std::int32_t version) override {
    participant_->Hello(version, &reply);
  }

  void change(ChangeReply& reply, const wire::Context& context, const std::int32_t id,
              const std::int32_t amount) override {
    const Statement change{"UPDATE account SET balance = balance + $1 WHERE id = $2",
                           {std::to_string(amount), std::to_string(id)}};
    reply.branch = participant_->Execute(context, change, [&](const Rows& changed) {
      if (changed.affected != 1) throw ApplicationRefusal("no row " + std::to_string(id));
    });
  }

 private:
  Participant* const participant_;
};

// Appears whole or not at all: readers wait for it.
bool WritePortFile(const Participant& participant) {
  if (FLAGS_port_file.empty()) return true;
  const std::string temporary = FLAGS_port_file + ".tmp";
  std::ofstream out(temporary);
  out << "{\"pid\": " << getpid() << ", \"port\": " << participant.port()
      << ", \"peer_port\": " << participant.peer_port() << "}\n";
  out.close();
  return out.good() && std::rename(temporary.c_str(), FLAGS_port_file.c_str()) == 0;
}

int Run() {
  ParticipantOptions options;
  options.name = FLAGS_name;
  options.conninfo = FLAGS_conninfo;
  options.port = FLAGS_port;
  options.peer_port = FLAGS_peer_port;
  options.coordinators = {FLAGS_coordinator};
  options.pool_size = FLAGS_pool_size;
  options.finish_connections = FLAGS_finish_connections;
  options.max_work_connections = FLAGS_max_work_connections;
  Result<std::unique_ptr<Participant>> participant = Participant::Open(options);
  if (!participant.ok()) {
    std::cerr << "bench-participant: " << participant.status().message() << "\n";
    return 1;
  }
  std::thread announcer([&] {
    if (!(*participant)->WaitUntilServing() || WritePortFile(**participant)) return;
    std::cerr << "bench-participant: cannot write " << FLAGS_port_file << "\n";
    (*participant)->Stop();
  });
  const Status ended = (*participant)
                           ->Serve(std::make_shared<BenchParticipantProcessor>(
                               std::make_shared<Handler>(participant->get())));
  announcer.join();
  if (ended.ok()) return 0;
  std::cerr << "bench-participant: " << ended.message() << "\n";
  return 1;
}

}  // namespace
}  // namespace troth::bench

int main(int argc, char** argv) {
  if (const auto done = troth::StartProgram(troth::bench::kUsage, &argc, &argv)) return *done;
  if (FLAGS_name.empty() || FLAGS_conninfo.empty() || FLAGS_coordinator.empty()) {
    std::cerr << "bench-participant: --name, --conninfo and --coordinator are needed; see --help\n";
    return 2;
  }
  return troth::bench::Run();
}
