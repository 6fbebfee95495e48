// troth-coordinator: opens its log, begins an epoch, serves until SIGTERM. Flags are explained
// in docs/operations.md. Exit codes: 0 stopped, 1 cannot start, 2 wrong flags, 3 the log failed.
#include <signal.h>
#include <sys/random.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <fstream>
#include <iostream>

#include <gflags/gflags.h>
#include <glog/logging.h>

#include "common/program.h"
#include "common/service_manager.h"
#include "coordinator/console_service.h"
#include "coordinator/coordinator_service.h"
#include "coordinator/diagnosis_service.h"
#include "coordinator/file_decision_log.h"
#include "coordinator/monitoring_service.h"
#include "wire/main_flags.h"

DEFINE_string(wal_dir, "", "directory of the write-ahead log; local disk, one coordinator");
DEFINE_bool(init, false, "make a new, empty log in --wal_dir, as another coordinator, and exit");
DEFINE_string(name, "troth",
              "with --init: name of the coordinator, 1 to 16 of [a-z0-9-]; later, when given: name "
              "or id that the log must have");
DEFINE_string(host, "127.0.0.1", "address the listeners bind to");
DEFINE_int32(client_port, 7711, "port for applications; 0: any free one");
DEFINE_int32(peer_port, 7712, "port for participants; 0: any free one");
DEFINE_int32(admin_port, 7713, "port for administrators; 0: any free one");
DEFINE_int32(http_port, -1,
             "port for the console, /metrics, /healthz and /readyz; 7714 is usual, 0: any free "
             "one, -1: none");
DEFINE_string(port_file, "", "written when ready: JSON with pid, ports and the coordinator's id");
DEFINE_int32(max_clients, 1100, "connections of applications at once");
DEFINE_int32(max_per_certificate, 0,
             "connections of applications at once with one certificate; 0: three quarters of "
             "--max_clients");
DEFINE_int32(max_peers, 256, "connections of participants at once");
DEFINE_int64(idle_ms, 300000, "a connection silent for so long is closed");
DEFINE_int64(lease_ms, 30000,
             "length of a lease of ids; also the longest a transaction may last, up to 30 s");
DEFINE_int64(record_retention_ms, 600000, "how long an ended commit record is kept whole");
DEFINE_uint64(record_retention_bytes, 64u << 20,
              "bound on ended commit records kept whole after their lease");
DEFINE_int64(outcome_retention_ms, 86400000, "how long an outcome can be asked for");
DEFINE_uint32(max_undecided, 100000, "undecided transactions at once; beyond, commits are refused");
DEFINE_uint32(
    max_unacknowledged, 100000,
    "decided transactions one participant may owe; beyond, commits naming it are refused");
DEFINE_bool(early_prepare, true, "accept votes carried by clients");
DEFINE_bool(read_only, true, "accept branches declared read-only");
DEFINE_int64(slow_ms, 1000,
             "commit calls that take so long are logged, with where the time went; 0: none");
DEFINE_int64(drain_ms, 10000, "on SIGTERM: time for transactions under way to end");
DEFINE_uint64(wal_segment_bytes, 4u << 20,
              "size of a log segment, a multiple of 4096, at least 131072");

namespace {

constexpr std::uint64_t kLeastSegmentBytes = 128u << 10;

constexpr char kUsage[] =
    "The coordinator of Troth: commits transactions over several services, or aborts them.\n"
    "\n"
    "  troth-coordinator --init --wal_dir DIR --name NAME     once: make the log\n"
    "  troth-coordinator --wal_dir DIR                        run";

std::string RandomBytes(std::size_t count) {
  std::string bytes(count, '\0');
  PCHECK(getrandom(bytes.data(), count, 0) == static_cast<ssize_t>(count));
  return bytes;
}

// Law L15: death over doubt. Not LOG(FATAL): a core dump of secrets helps nobody.
[[noreturn]] void DieOfLog(const troth::Status& status) {
  LOG(ERROR) << "the log failed, and what is on disk is not known: " << status.message()
             << ". Stopping; opening decides what was durable. Check the disk, then restart";
  google::FlushLogFiles(google::INFO);
  _exit(3);
}

troth::WalOptions LogOptions() {
  troth::WalOptions options;
  options.segment_bytes = FLAGS_wal_segment_bytes;
  if (!FLAGS_init && !gflags::GetCommandLineFlagInfoOrDie("name").is_default) {
    options.coordinator = FLAGS_name;
  }
  options.retention.lease_ms = FLAGS_lease_ms;
  options.retention.record_ms = FLAGS_record_retention_ms;
  options.retention.record_bytes = FLAGS_record_retention_bytes;
  options.retention.outcome_ms = FLAGS_outcome_retention_ms;
  return options;
}

int Init() {
  const auto id =
      troth::Wal::Init(troth::PosixFileSystem(), FLAGS_wal_dir, FLAGS_name, LogOptions());
  if (!id.ok()) {
    std::cerr << "troth-coordinator: " << id.status().message()
              << (id.status().code() == troth::Code::kNotFound
                      ? "; make the directory above it first, on a local disk"
                      : "")
              << "\n";
    return 1;
  }
  std::cout << *id << "\n";
  return 0;
}

troth::ProtocolOptions MachineOptions(const std::string& coordinator_id) {
  troth::ProtocolOptions options;
  options.coordinator_id = coordinator_id;
  options.lease_ms = FLAGS_lease_ms;
  options.max_undecided = FLAGS_max_undecided;
  options.max_unacknowledged = FLAGS_max_unacknowledged;
  options.early_prepare = FLAGS_early_prepare;
  options.read_only = FLAGS_read_only;
  options.retention = LogOptions().retention;
  return options;
}

// Before anything is opened: are certificates and roles of use, may we listen there?
troth::Status Check(troth::Security* security) {
  TROTH_RETURN_IF_ERROR(security->CheckServer());
  TROTH_RETURN_IF_ERROR(security->MayListen(FLAGS_host, "clients and participants"));
  return FLAGS_http_port < 0 ? troth::OkStatus() : security->MayListenPlain(FLAGS_host, "HTTP");
}

// Appears whole or not at all: readers wait for it.
bool WritePortFile(const troth::CoordinatorServer& server, int http_port, const std::string& id) {
  if (FLAGS_port_file.empty()) return true;
  const std::string temporary = FLAGS_port_file + ".tmp";
  std::ofstream out(temporary);
  out << "{\"pid\": " << getpid() << ", \"coordinator\": \"" << id << "\", \"host\": \""
      << FLAGS_host << "\", \"client_port\": " << server.client_port()
      << ", \"peer_port\": " << server.peer_port() << ", \"admin_port\": " << server.admin_port();
  out << ", \"http_port\": " << (FLAGS_http_port < 0 ? -1 : http_port) << "}\n";
  out.close();
  return out.good() && std::rename(temporary.c_str(), FLAGS_port_file.c_str()) == 0;
}

// No new transactions; waits until what is under way has ended, or the time is over.
void Drain(troth::Coordinator* coordinator, troth::Crew* crew) {
  coordinator->Submit(troth::DrainAsked{});
  crew->Nudge();
  const std::size_t left = coordinator->AwaitNone(std::chrono::milliseconds(FLAGS_drain_ms));
  if (left > 0) {
    LOG(WARNING) << left << " transactions are not finished; the next start goes on with them";
  }
}

int Serve() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  ::signal(SIGHUP, SIG_IGN);  // certificates and roles are read anew when they change

  troth::Security security(troth::SecurityFromFlags());
  if (const troth::Status secure = Check(&security); !secure.ok()) {
    std::cerr << "troth-coordinator: " << secure.message() << "\n";
    return 1;
  }

  // Before the log is opened: "not ready" can be told.
  troth::Monitoring monitoring;
  troth::Console console(&monitoring);
  troth::HttpListener http(
      {FLAGS_host, std::max(FLAGS_http_port, 0)}, [&](const troth::HttpRequest& asked) {
        return console.Answers(asked.path) ? console.Page(asked) : monitoring.Page(asked.path);
      });
  if (FLAGS_http_port >= 0) {
    if (const troth::Status listening = http.Start(); !listening.ok()) {
      std::cerr << "troth-coordinator: " << listening.message() << "\n";
      return 1;
    }
  }

  troth::RecoveredState state;
  auto wal = troth::Wal::Open(troth::PosixFileSystem(), troth::SystemClock(), FLAGS_wal_dir,
                              LogOptions(), &state);
  if (!wal.ok()) {
    std::cerr << "troth-coordinator: " << wal.status().message() << "\n";
    return 1;
  }
  for (const std::string& warning : (*wal)->warnings()) LOG(WARNING) << warning;
  const std::string id = (*wal)->coordinator_id();
  const std::uint64_t last_batch = (*wal)->last_batch();
  const std::size_t unended = state.unended();
  const std::string random = RandomBytes(4 + 32);
  std::uint32_t epoch_random = 0;
  std::copy_n(random.begin(), 4, reinterpret_cast<char*>(&epoch_random));

  troth::FileDecisionLog log(*std::move(wal));
  log.SetSyncObserver([&monitoring](double seconds, std::uint64_t records) {
    monitoring.Synced(seconds, records);
  });
  troth::ThriftChannel::Options calling{id};
  calling.security = &security;
  troth::ThriftChannel channel(calling);
  troth::Crew crew(DieOfLog);
  troth::Coordinator coordinator(
      troth::CommitProtocol(MachineOptions(id), std::move(state), epoch_random, last_batch),
      troth::SystemClock(), &log, &channel, &crew);
  troth::Timeline timeline;
  coordinator.Watch(&timeline);
  troth::Inspection inspection(
      id, &coordinator, &crew, &channel, &timeline,
      [&monitoring](troth::TransactionHistory::Phase phase, double seconds) {
        monitoring.Passed(phase, seconds);
      });
  channel.Start(&coordinator, [&crew] { crew.Nudge(); });
  coordinator.Start();
  crew.Start(&coordinator, &channel);
  log.Start(DieOfLog, [&coordinator, &crew] {
    if (const troth::Status flushed = coordinator.FlushLog(/*mark=*/true); !flushed.ok()) {
      DieOfLog(flushed);
    }
    crew.Nudge();
  });
  inspection.Start();

  troth::CoordinatorServer server(
      {id, random.substr(4), FLAGS_host, FLAGS_client_port, FLAGS_peer_port, FLAGS_admin_port,
       FLAGS_max_clients, FLAGS_max_peers, 16, static_cast<int>(FLAGS_idle_ms), &monitoring,
       &inspection,
       [&monitoring, &security] {
         return troth::DiagnoseCoordinator(
             {FLAGS_wal_dir, FLAGS_host, FLAGS_http_port, FLAGS_lease_ms, FLAGS_record_retention_ms,
              FLAGS_outcome_retention_ms, FLAGS_wal_segment_bytes, &security},
             monitoring.State());
       },
       FLAGS_slow_ms, &security, FLAGS_max_per_certificate},
      &coordinator, &crew, &channel);
  const troth::Status listening = server.Start();
  monitoring.Look([&server] { return server.State(); },
                  [&server, &inspection](troth::MetricPage* page) {
                    inspection.TakeNotes();
                    server.FillMetrics(page);
                  });
  if (FLAGS_http_port >= 0) console.Look({id, &coordinator, &crew, &channel, &inspection});
  int exit_code = 0;
  if (!listening.ok() || !WritePortFile(server, http.port(), id)) {
    std::cerr << "troth-coordinator: "
              << (listening.ok() ? "cannot write " + FLAGS_port_file : listening.message()) << "\n";
    exit_code = 1;
  } else {
    LOG(INFO) << "coordinator " << id << ", epoch " << coordinator.epoch().ToString()
              << ", serves clients on " << FLAGS_host << ":" << server.client_port()
              << ", participants on :" << server.peer_port()
              << ", administrators on :" << server.admin_port() << "; " << unended
              << " decided transactions to finish";
    troth::TellReady("serves as " + id + ", epoch " + coordinator.epoch().ToString());
    int signal = 0;
    sigwait(&signals, &signal);
    troth::TellStopping();
    LOG(INFO) << "stopping: no new transactions, decided ones are finished";
    Drain(&coordinator, &crew);
  }
  monitoring.Leave("stopping");
  console.Leave();
  inspection.Stop();
  crew.Stop();
  server.Stop();
  channel.Stop();
  log.Stop();
  if (exit_code == 0) LOG(INFO) << "stopped";
  return exit_code;
}

}  // namespace

int main(int argc, char** argv) {
  if (const auto done = troth::StartProgram(kUsage, &argc, &argv)) return *done;
  if (argc > 1) {
    std::cerr << "troth-coordinator: '" << argv[1] << "' is no flag; see --help\n";
    return 2;
  }
  if (FLAGS_wal_dir.empty()) {
    std::cerr << "troth-coordinator: --wal_dir is required; see --help\n";
    return 2;
  }
  if (FLAGS_wal_segment_bytes < kLeastSegmentBytes) {
    std::cerr << "troth-coordinator: --wal_segment_bytes is at least " << kLeastSegmentBytes
              << ": smaller ones never have the room that a commit asks for\n";
    return 2;
  }
  return FLAGS_init ? Init() : Serve();
}
