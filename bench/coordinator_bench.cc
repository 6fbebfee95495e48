// bench-coordinator: the coordinator alone. Real machine, monitor, crew, log and fdatasync;
// participants answer in memory. Through Thrift, and without. docs/performance.md.
#include <sys/epoll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <iostream>
#include <thread>
#include <vector>

#include <gflags/gflags.h>
#include <glog/logging.h>
#include <thrift/protocol/TCompactProtocol.h>
#include <thrift/transport/TBufferTransports.h>
#include <thrift/transport/TSocket.h>

#include "Coordinator.h"
#include "bench/coordinator_rig.h"
#include "bench/samples.h"
#include "bench/scratch_directory.h"
#include "common/program.h"
#include "coordinator/coordinator_service.h"
#include "coordinator/thrift_channel.h"
#include "troth_constants.h"

DEFINE_string(dir, "",
              "where logs are made and removed again; a local disk (default: $TMPDIR, /tmp)");
DEFINE_double(seconds, 3, "length of each measurement");
DEFINE_int32(rounds, 3, "measurements of each kind, alternating; the median is told");
DEFINE_int32(callers, 64, "callers or connections at once");
DEFINE_int32(client_threads, 2, "threads of the client process that serve its connections");
DEFINE_int32(branches, 2, "branches of a transaction");
DEFINE_int32(inflight, 100'000, "undecided transactions for the measurement of memory");

namespace troth::bench {
namespace {

using SteadyClock = std::chrono::steady_clock;
using apache::thrift::protocol::TCompactProtocolT;
using apache::thrift::transport::TBufferBase;
using apache::thrift::transport::TFramedTransport;
using apache::thrift::transport::TMemoryBuffer;
using apache::thrift::transport::TSocket;

constexpr char kUsage[] =
    "Measures the coordinator alone: participants answer in memory, the log is real.\n"
    "\n"
    "  bench-coordinator [--seconds S] [--rounds N]\n"
    "\n"
    "The last line is\n"
    "  coordinator: thrift_commits_per_s=N inprocess_commits_per_s=N syncs_per_commit_64=X\n"
    "               bytes_per_inflight=N                                       (in one line)\n"
    "syncs_per_commit_64 is the larger one of the two ways in. Exit codes: 0 measured, 1 a\n"
    "commit was not answered committed, 2 it could not run.";

constexpr std::uint32_t kBlock = 10'000;  // ids in a lease

[[noreturn]] void Die(const std::string& what) {
  std::cerr << "bench-coordinator: " << what << "\n";
  std::_Exit(2);
}

std::unique_ptr<CoordinatorRig> OpenRig(const ScratchDirectory& scratch,
                                        ReplySink* replies = nullptr) {
  CoordinatorRig::Options options;
  options.directory = scratch.log();
  options.participants = FLAGS_branches;
  options.replies = replies;
  auto rig = CoordinatorRig::Open(options);
  if (!rig.ok()) Die(rig.status().message());
  return *std::move(rig);
}

struct Figure {
  std::uint64_t commits = 0;
  double seconds = 0;
  double syncs = 0;
  double cpu = 0;  // seconds of the coordinator's process
  std::vector<double> latency_us;
  double per_s() const { return static_cast<double>(commits) / seconds; }
  double syncs_per_commit() const {
    return syncs / static_cast<double>(std::max<std::uint64_t>(commits, 1));
  }
};

void Print(const char* what, int callers, Figure* figure) {
  std::printf("%-12s %7d %12.0f %10.1f %10.1f %12.4f %14.2f\n", what, callers, figure->per_s(),
              Percentile(&figure->latency_us, 0.5), Percentile(&figure->latency_us, 0.99),
              figure->syncs_per_commit(),
              figure->cpu * 1e6 / static_cast<double>(std::max<std::uint64_t>(figure->commits, 1)));
  std::fflush(stdout);
}

// ------------------------------------------------------------------------------- in process

// A caller of the plain kind: a thread that brings a commit and waits for its reply.
void CallInProcess(CoordinatorRig* rig, const std::atomic<bool>* stop,
                   std::vector<double>* latency_us, std::atomic<bool>* wrong) {
  ReplyLease lease;
  std::uint32_t used = 0;
  while (!stop->load(std::memory_order_relaxed)) {
    if (used == lease.count) {
      const Action leased = rig->Ask(LeaseAsked{0, kBlock});
      if (!std::holds_alternative<ReplyLease>(leased)) {
        *wrong = true;
        return;
      }
      lease = std::get<ReplyLease>(leased);
      used = 0;
    }
    const auto began = SteadyClock::now();
    const Action reply = rig->Ask(
        rig->CommitOf({lease.epoch, lease.first + used++}, FLAGS_branches, /*wait_applied=*/true));
    latency_us->push_back(
        std::chrono::duration<double, std::micro>(SteadyClock::now() - began).count());
    const auto* outcome = std::get_if<ReplyOutcome>(&reply);
    if (outcome == nullptr || outcome->kind != OutcomeKind::kCommitted) {
      *wrong = true;
      return;
    }
  }
}

Figure MeasureInProcess(int callers) {
  const ScratchDirectory scratch(FLAGS_dir);
  const auto rig = OpenRig(scratch);
  std::atomic<bool> stop{false}, wrong{false};
  std::vector<std::vector<double>> latency(static_cast<std::size_t>(callers));
  const auto began = SteadyClock::now();
  const double cpu = OwnCpuSeconds();
  const std::uint64_t syncs = rig->coordinator().syncs();
  std::vector<std::thread> threads;
  for (int i = 0; i < callers; ++i) {
    threads.emplace_back(CallInProcess, rig.get(), &stop, &latency[static_cast<std::size_t>(i)],
                         &wrong);
  }
  std::this_thread::sleep_for(std::chrono::duration<double>(FLAGS_seconds));
  stop = true;
  for (std::thread& thread : threads) thread.join();
  Figure figure;
  figure.seconds = std::chrono::duration<double>(SteadyClock::now() - began).count();
  figure.cpu = OwnCpuSeconds() - cpu;
  figure.syncs = static_cast<double>(rig->coordinator().syncs() - syncs);
  for (const std::vector<double>& l : latency) {
    figure.commits += l.size();
    figure.latency_us.insert(figure.latency_us.end(), l.begin(), l.end());
  }
  if (wrong) {
    std::cerr << "bench-coordinator: a commit was not answered committed\n";
    std::_Exit(1);
  }
  return figure;
}

// ---------------------------------------------------------------------------- through Thrift

// A client connection with one commit under way at most. Its bytes are Thrift's; the socket is
// read and written without waiting, so that a few threads serve many connections.
class ClientConnection {
 public:
  explicit ClientConnection(int port) : socket_(std::make_shared<TSocket>("127.0.0.1", port)) {
    socket_->setNoDelay(true);
    socket_->open();
    client_ = std::make_unique<wire::CoordinatorClient>(
        std::make_shared<TCompactProtocolT<TMemoryBuffer>>(in_),
        std::make_shared<TCompactProtocolT<TMemoryBuffer>>(out_));
  }
  int fd() const { return static_cast<int>(socket_->getSocketFD()); }

  // One call by itself, waiting: the first ones of a connection.
  void Greet() {
    wire::ClientHello hello;
    hello.version = wire::g_troth_constants.PROTOCOL_VERSION;
    client_->send_hello(hello);
    Flush();
    AwaitFrame();
    wire::CoordinatorHello reply;
    client_->recv_hello(reply);
    bytes_.clear();
  }
  // Sends the next commit; takes a new lease first when the ids are used up.
  void SendCommit() {
    if (used_ == lease_.count) {
      client_->send_lease(static_cast<std::int32_t>(kBlock));
      Flush();
      AwaitFrame();
      client_->recv_lease(lease_);
      bytes_.clear();
      used_ = 0;
    }
    wire::CommitRequest request;
    request.transaction_id = lease_.prefix + std::to_string(lease_.first + used_++);
    request.deadline_ms = 20'000;
    request.wait = wire::Wait::APPLIED;
    for (int i = 0; i < FLAGS_branches; ++i) {
      wire::BranchClaim claim;
      claim.participant = "p" + std::to_string(i);
      claim.mark = "0123456789abcdef";
      claim.works = 1;
      claim.instance = "fedcba9876543210";
      request.branches.push_back(std::move(claim));
    }
    client_->send_commit(request);
    began_ = SteadyClock::now();
    Flush();
  }
  // Takes what arrived. True: the commit was answered, after `*us` microseconds.
  bool Take(double* us) {
    Receive();
    if (!Whole()) return false;
    *us = std::chrono::duration<double, std::micro>(SteadyClock::now() - began_).count();
    wire::Outcome outcome;
    client_->recv_commit(outcome);
    bytes_.clear();
    if (outcome.kind != wire::OutcomeKind::COMMITTED) {
      throw std::runtime_error("a commit was answered " + std::to_string(outcome.kind));
    }
    return true;
  }

 private:
  void Flush() {
    std::uint8_t* data = nullptr;
    std::uint32_t size = 0;
    out_->getBuffer(&data, &size);
    std::string frame;
    for (int shift = 24; shift >= 0; shift -= 8) frame.push_back(static_cast<char>(size >> shift));
    frame.append(reinterpret_cast<char*>(data), size);
    out_->resetBuffer();
    socket_->write(reinterpret_cast<const std::uint8_t*>(frame.data()),
                   static_cast<std::uint32_t>(frame.size()));
  }
  void Receive() {
    std::array<std::uint8_t, 4096> chunk;
    bytes_.append(reinterpret_cast<char*>(chunk.data()), socket_->read(chunk.data(), chunk.size()));
  }
  void AwaitFrame() {
    while (!Whole()) Receive();
  }
  bool Whole() {
    if (bytes_.size() < 4) return false;
    std::uint32_t size = 0;
    for (int i = 0; i < 4; ++i)
      size = size << 8 | static_cast<unsigned char>(bytes_[static_cast<std::size_t>(i)]);
    if (bytes_.size() < size + 4u) return false;
    in_->resetBuffer(reinterpret_cast<std::uint8_t*>(bytes_.data()) + 4, size);
    return true;
  }

  const std::shared_ptr<TSocket> socket_;
  const std::shared_ptr<TMemoryBuffer> in_ = std::make_shared<TMemoryBuffer>();
  const std::shared_ptr<TMemoryBuffer> out_ = std::make_shared<TMemoryBuffer>();
  std::unique_ptr<wire::CoordinatorClient> client_;
  std::string bytes_;
  wire::Lease lease_;
  std::int32_t used_ = 0;
  SteadyClock::time_point began_;
};

void DriveConnections(int port, int count, std::vector<double>* latency_us) {
  std::vector<std::unique_ptr<ClientConnection>> connections;
  const int poll = epoll_create1(EPOLL_CLOEXEC);
  for (int i = 0; i < count; ++i) {
    connections.push_back(std::make_unique<ClientConnection>(port));
    connections.back()->Greet();
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.ptr = connections.back().get();
    PCHECK(epoll_ctl(poll, EPOLL_CTL_ADD, connections.back()->fd(), &event) == 0);
  }
  const auto until = SteadyClock::now() + std::chrono::duration<double>(FLAGS_seconds);
  for (auto& connection : connections) connection->SendCommit();
  for (int waiting = count; waiting > 0;) {
    std::array<epoll_event, 64> ready;
    const int found = epoll_wait(poll, ready.data(), ready.size(), 10'000);
    PCHECK(found > 0);
    const bool more = SteadyClock::now() < until;
    for (int i = 0; i < found; ++i) {
      auto* connection =
          static_cast<ClientConnection*>(ready[static_cast<std::size_t>(i)].data.ptr);
      double us = 0;
      if (!connection->Take(&us)) continue;
      latency_us->push_back(us);
      if (more) {
        connection->SendCommit();
      } else {
        --waiting;
      }
    }
  }
  close(poll);
}

// In a process of its own: `callers` connections, and the figures as bytes to `out`.
[[noreturn]] void RunClients(int port, int callers, int out) {
  const int threads = std::min(FLAGS_client_threads, callers);
  std::vector<std::vector<double>> latency(static_cast<std::size_t>(threads));
  std::vector<std::thread> running;
  const auto began = SteadyClock::now();
  for (int i = 0; i < threads; ++i) {
    running.emplace_back([&, i] {
      try {
        DriveConnections(port, callers / threads + (i < callers % threads ? 1 : 0),
                         &latency[static_cast<std::size_t>(i)]);
      } catch (const std::exception& e) {
        std::cerr << "bench-coordinator: " << e.what() << "\n";
        std::_Exit(1);
      }
    });
  }
  for (std::thread& thread : running) thread.join();
  const double seconds = std::chrono::duration<double>(SteadyClock::now() - began).count();
  std::FILE* pipe = fdopen(out, "w");
  std::fwrite(&seconds, sizeof seconds, 1, pipe);
  for (const std::vector<double>& l : latency)
    std::fwrite(l.data(), sizeof(double), l.size(), pipe);
  std::fclose(pipe);
  std::_Exit(0);
}

Figure MeasureThrift(int callers) {
  const ScratchDirectory scratch(FLAGS_dir);
  // The clients' process is made before any thread, and starts when it is told the port.
  std::array<int, 2> to{}, from{};
  PCHECK(pipe(to.data()) == 0 && pipe(from.data()) == 0);
  const pid_t child = fork();
  PCHECK(child >= 0);
  if (child == 0) {
    close(to[1]);
    close(from[0]);
    int port = 0;
    if (read(to[0], &port, sizeof port) != sizeof port) std::_Exit(2);
    RunClients(port, callers, from[1]);
  }
  close(to[0]);
  close(from[1]);
  Figure figure;
  {
    const auto rig = OpenRig(scratch);
    ThriftChannel unused({rig->id()});  // the service asks it who is up
    CoordinatorServer::Options options;
    options.coordinator_id = rig->id();
    options.epoch_secret = std::string(32, 's');
    CoordinatorServer server(options, &rig->coordinator(), &rig->crew(), &unused);
    if (Status started = server.Start(); !started.ok()) Die(started.message());
    const double cpu = OwnCpuSeconds();
    const std::uint64_t syncs = rig->coordinator().syncs();
    const int port = server.client_port();
    PCHECK(write(to[1], &port, sizeof port) == sizeof port);
    std::FILE* pipe = fdopen(from[0], "r");
    double value = 0;
    bool first = true;
    while (std::fread(&value, sizeof value, 1, pipe) == 1) {
      if (first) {
        figure.seconds = value;
        figure.syncs = static_cast<double>(rig->coordinator().syncs() - syncs);
        figure.cpu = OwnCpuSeconds() - cpu;
      } else {
        figure.latency_us.push_back(value);
      }
      first = false;
    }
    std::fclose(pipe);
    close(to[1]);
    rig->crew().Stop();
    server.Stop();
  }
  int status = 0;
  waitpid(child, &status, 0);
  if (status != 0) std::_Exit(WIFEXITED(status) ? WEXITSTATUS(status) : 1);
  figure.commits = figure.latency_us.size();
  return figure;
}

// ----------------------------------------------------------------------------------- memory

class Deaf : public ReplySink {
 public:
  void Reply(ReplyToken, Action) override {}
};

// Growth of resident memory over so many transactions whose votes never come, for each.
double MeasureMemory() {
  const ScratchDirectory scratch(FLAGS_dir);
  Deaf deaf;
  const auto rig = OpenRig(scratch, &deaf);
  rig->channel().FallSilent();
  const Epoch epoch = rig->coordinator().epoch();
  // Sequences are granted in order from 1; the leases, and what the log keeps of them, are
  // there before the first look.
  for (std::uint32_t granted = 0; granted < static_cast<std::uint32_t>(FLAGS_inflight);
       granted += kBlock) {
    rig->coordinator().Submit(LeaseAsked{0, kBlock});
    if (Status flushed = rig->coordinator().FlushLog(); !flushed.ok()) Die(flushed.message());
  }
  const std::uint64_t before = ResidentBytes();
  for (std::uint64_t i = 1; i <= static_cast<std::uint64_t>(FLAGS_inflight); ++i) {
    rig->coordinator().Submit(rig->CommitOf({epoch, i}, FLAGS_branches, true));
  }
  std::size_t undecided = 0;
  rig->coordinator().Inspect(
      [&](const CommitProtocol& machine) { undecided = machine.undecided(); });
  const std::uint64_t after = ResidentBytes();
  if (undecided != static_cast<std::size_t>(FLAGS_inflight)) {
    Die("only " + std::to_string(undecided) + " transactions are in flight");
  }
  return static_cast<double>(after - before) / static_cast<double>(undecided);
}

// In a process of its own: memory that another measurement left behind would hide some of it.
double MeasureMemoryApart() {
  std::array<int, 2> pipes{};
  PCHECK(pipe(pipes.data()) == 0);
  const pid_t child = fork();
  PCHECK(child >= 0);
  if (child == 0) {
    const double bytes = MeasureMemory();
    const bool told = write(pipes[1], &bytes, sizeof bytes) == sizeof bytes;
    std::_Exit(told ? 0 : 2);
  }
  close(pipes[1]);
  double bytes = 0;
  const bool told = read(pipes[0], &bytes, sizeof bytes) == sizeof bytes;
  close(pipes[0]);
  int status = 0;
  waitpid(child, &status, 0);
  if (!told || status != 0) Die("the measurement of memory failed");
  return bytes;
}

// The median of rounds, by throughput.
Figure Middle(std::vector<Figure>* figures) {
  std::sort(figures->begin(), figures->end(),
            [](const Figure& a, const Figure& b) { return a.per_s() < b.per_s(); });
  return (*figures)[figures->size() / 2];
}

int Main() {
  const double bytes = MeasureMemoryApart();
  std::printf("%-12s %7s %12s %10s %10s %12s %14s\n", "way in", "callers", "commits/s", "p50 us",
              "p99 us", "syncs/commit", "CPU us/commit");
  struct Way {
    const char* name;
    int callers;
    Figure (*measure)(int);
    std::vector<Figure> figures;
  };
  Way ways[] = {{"in process", 1, MeasureInProcess, {}},
                {"in process", FLAGS_callers, MeasureInProcess, {}},
                {"thrift", 1, MeasureThrift, {}},
                {"thrift", FLAGS_callers, MeasureThrift, {}}};
  for (int round = 0; round < FLAGS_rounds; ++round) {
    for (Way& way : ways) {
      way.figures.push_back(way.measure(way.callers));
      if (FLAGS_rounds > 1) std::printf("  round %d  ", round + 1);
      Print(way.name, way.callers, &way.figures.back());
    }
  }
  std::printf("medians\n");
  std::vector<Figure> middle;
  for (Way& way : ways) {
    middle.push_back(Middle(&way.figures));
    Print(way.name, way.callers, &middle.back());
  }
  std::printf(
      "coordinator: thrift_commits_per_s=%.0f inprocess_commits_per_s=%.0f "
      "syncs_per_commit_64=%.4f bytes_per_inflight=%.0f\n",
      middle[3].per_s(), middle[1].per_s(),
      std::max(middle[1].syncs_per_commit(), middle[3].syncs_per_commit()), bytes);
  return 0;
}

}  // namespace
}  // namespace troth::bench

int main(int argc, char** argv) {
  if (const auto done = troth::StartProgram(troth::bench::kUsage, &argc, &argv)) return *done;
  FLAGS_minloglevel = google::GLOG_WARNING;
  if (FLAGS_seconds <= 0 || FLAGS_rounds < 1 || FLAGS_callers < 1 || FLAGS_client_threads < 1 ||
      FLAGS_branches < 1 || FLAGS_inflight < 1) {
    std::cerr << "bench-coordinator: every number is at least 1; see --help\n";
    return 2;
  }
  return troth::bench::Main();
}
