// bench-hops: the messages of a transaction with early prepare, and nothing in them: what Troth's
// shape costs before anything is said. A client, a coordinator with a log and a participant for
// each server, as processes of their own that call each other over TCP, a thread for each
// connection, leader and followers, the same round trips to PostgreSQL. No Thrift, no deadlines, no
// votes, nothing that is checked, nothing that survives a failure: any error ends it.
// docs/performance.md, "What the messages alone cost".
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <semaphore.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <condition_variable>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <iostream>
#include <memory>
#include <mutex>
#include <random>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include <gflags/gflags.h>
#include <libpq-fe.h>

#include "bench/rounds.h"
#include "bench/split.h"
#include "common/program.h"

DEFINE_string(databases, "", "libpq connection strings, separated by ';'");
DEFINE_int32(clients, 1, "clients at once");
DEFINE_int32(rows, 10'000, "rows of the table `account`, numbered from 1");
DEFINE_string(log, "", "the coordinator's log, a new file; without rotation");

namespace troth::bench {
namespace {

constexpr char kUsage[] =
    "Sends the messages of Troth's early prepare between processes of its own, in rounds, with\n"
    "nothing in them. Started by bench/run --hops.\n"
    "\n"
    "Standard input: lines `run early SECONDS`.";

constexpr std::size_t kFinishConnections = 8;  // of a participant, as Troth's default
constexpr std::size_t kLogBytes = 64 << 20;

// Sizes of Troth's messages and records, about.
constexpr std::size_t kContextBytes = 100, kVoteBytes = 150, kOutcomeBytes = 60, kRecordBytes = 220;

[[noreturn]] void Die(const std::string& what) {
  std::cerr << "bench-hops: " << what << "\n";
  std::_Exit(2);
}
int Sure(int result, const char* what) {
  if (result < 0) Die(std::string(what) + ": " + std::strerror(errno));
  return result;
}

// Frames over TCP: four bytes of length, then the rest.
class Wire {
 public:
  explicit Wire(int socket) : socket_(socket) {
    const int on = 1;
    setsockopt(socket_, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  }
  Wire(Wire&& other) noexcept
      : socket_(std::exchange(other.socket_, -1)), taken_(std::move(other.taken_)) {}
  ~Wire() {
    if (socket_ >= 0) close(socket_);
  }

  static Wire To(const sockaddr_in& address) {
    const int socket = Sure(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket");
    Sure(connect(socket, reinterpret_cast<const sockaddr*>(&address), sizeof address), "connect");
    return Wire(socket);
  }
  void Send(std::string_view body) {
    const auto length = static_cast<std::uint32_t>(body.size());
    std::string frame(reinterpret_cast<const char*>(&length), sizeof length);
    frame += body;
    if (send(socket_, frame.data(), frame.size(), MSG_NOSIGNAL) !=
        static_cast<ssize_t>(frame.size())) {
      Die("a message could not be sent whole");
    }
  }
  // False: the other side has gone.
  bool Take(std::string* body) {
    for (;;) {
      std::uint32_t length = 0;
      if (taken_.size() >= sizeof length) {
        std::memcpy(&length, taken_.data(), sizeof length);
        if (taken_.size() >= sizeof length + length) {
          body->assign(taken_, sizeof length, length);
          taken_.erase(0, sizeof length + length);
          return true;
        }
      }
      std::array<char, 16384> piece;
      const ssize_t got = recv(socket_, piece.data(), piece.size(), 0);
      if (got <= 0) return false;
      taken_.append(piece.data(), static_cast<std::size_t>(got));
    }
  }
  std::string Take() {
    std::string body;
    if (!Take(&body)) Die("a process has gone");
    return body;
  }

 private:
  int socket_;
  std::string taken_;
};

// Open before the processes part, so that nobody has to be told an address; closed by all but the
// one that serves it, so that it ends with that.
struct Listening {
  Listening() : socket(Sure(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket")) {
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    Sure(bind(socket, reinterpret_cast<sockaddr*>(&address), sizeof address), "bind");
    Sure(listen(socket, 1024), "listen");
    socklen_t size = sizeof address;
    getsockname(socket, reinterpret_cast<sockaddr*>(&address), &size);
  }
  // A thread for each connection; never returns.
  [[noreturn]] void Serve(const std::function<std::string(const std::string&)>& answer) const {
    for (;;) {
      Wire wire(Sure(accept4(socket, nullptr, nullptr, SOCK_CLOEXEC), "accept"));
      std::thread([wire = std::move(wire), &answer]() mutable {
        std::string asked;
        while (wire.Take(&asked)) wire.Send(answer(asked));
      }).detach();
    }
  }
  int socket;
  sockaddr_in address{};
};

// Participant: "W ROW AMOUNT GID" works and prepares, "F GID GID ..." finishes.
class HopsParticipant {
 public:
  explicit HopsParticipant(const std::string& conninfo) {
    for (int i = 0; i < FLAGS_clients; ++i) working_.push_back(OpenWorking(conninfo));
    for (std::size_t i = 0; i < kFinishConnections; ++i) {
      finishing_.push_back(Open(conninfo));
      PQenterPipelineMode(finishing_.back());
    }
  }
  std::string Answer(const std::string& asked) {
    const std::vector<std::string> words = Split(asked, ' ');
    if (asked[0] == 'W') {
      Work(words[1], words[2], words[3]);
      return std::string(kVoteBytes, 'v');
    }
    Finish(std::vector(words.begin() + 1, words.end()));
    return "F";
  }

 private:
  static PGconn* Open(const std::string& conninfo) {
    PGconn* connection = PQconnectdb(conninfo.c_str());
    if (PQstatus(connection) != CONNECTION_OK) Die(PQerrorMessage(connection));
    return connection;
  }
  // The last three stand for the guard, the position with what is cleaned, and RESET ALL.
  static PGconn* OpenWorking(const std::string& conninfo) {
    PGconn* connection = Open(conninfo);
    for (const auto& [name, sql] :
         {std::pair{"begin", "BEGIN"},
          std::pair{"work", "UPDATE account SET balance = balance + $1::int WHERE id = $2::int"},
          std::pair{"guard", "SELECT pg_current_xact_id()"},
          std::pair{"clean", "SELECT pg_current_wal_flush_lsn()"}, std::pair{"reset", "RESET ALL"}})
      Check(PQprepare(connection, name, sql, 0, nullptr));
    PQenterPipelineMode(connection);
    return connection;
  }
  static void Check(PGresult* result) {
    const ExecStatusType status = PQresultStatus(result);
    if (status == PGRES_FATAL_ERROR) Die(PQresultErrorMessage(result));
    PQclear(result);
  }
  static void AwaitSync(PGconn* connection) {
    for (bool ended = false; !ended;) {
      PGresult* result = PQgetResult(connection);
      if (result == nullptr) continue;  // between two statements
      ended = PQresultStatus(result) == PGRES_PIPELINE_SYNC;
      Check(result);
    }
  }
  void Work(const std::string& row, const std::string& amount, const std::string& gid) {
    PGconn* connection = TakeWorking();
    const char* values[] = {amount.c_str(), row.c_str()};
    const auto send = [&](const char* statement, int count = 0) {
      PQsendQueryPrepared(connection, statement, count, values, nullptr, nullptr, 0);
    };
    send("begin");
    send("work", 2);
    send("guard");
    PQsendQueryParams(connection, ("PREPARE TRANSACTION '" + gid + "'").c_str(), 0, nullptr,
                      nullptr, nullptr, nullptr, 0);
    send("clean");
    send("reset");
    PQpipelineSync(connection);
    AwaitSync(connection);
    const std::lock_guard lock(mutex_);
    working_.push_back(connection);
  }
  // As many as there are clients: one is free. The last used is the first taken.
  PGconn* TakeWorking() {
    const std::lock_guard lock(mutex_);
    PGconn* connection = working_.back();
    working_.pop_back();
    return connection;
  }
  void Finish(const std::vector<std::string>& gids) {
    std::vector<PGconn*> lanes;
    {
      std::unique_lock lock(mutex_);
      freed_.wait(lock, [&] { return !finishing_.empty(); });
      while (!finishing_.empty() && lanes.size() < gids.size()) {
        lanes.push_back(finishing_.back());
        finishing_.pop_back();
      }
    }
    const std::size_t count = lanes.size();
    for (std::size_t i = 0; i < gids.size(); ++i) {
      PQsendQueryParams(lanes[i % count], ("COMMIT PREPARED '" + gids[i] + "'").c_str(), 0, nullptr,
                        nullptr, nullptr, nullptr, 0);
      PQpipelineSync(lanes[i % count]);
    }
    for (std::size_t i = 0; i < gids.size(); ++i) AwaitSync(lanes[i % count]);
    {
      const std::lock_guard lock(mutex_);
      finishing_.insert(finishing_.end(), lanes.begin(), lanes.end());
    }
    freed_.notify_one();
  }

  std::mutex mutex_;
  std::condition_variable freed_;
  std::vector<PGconn*> working_, finishing_;
};

// Coordinator: who finds the log free, or a participant's line, does the work for all who wait (the
// crew of coordinator/crew.h). Asked "GID", the branches' GIDs are that and the participant's
// number.
class HopsCoordinator {
 public:
  explicit HopsCoordinator(const std::vector<Listening>& participants)
      : log_(Sure(open(FLAGS_log.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600), "open")) {
    const std::string zeros(kLogBytes, '\0');
    if (pwrite(log_, zeros.data(), zeros.size(), 0) < 0) Die("the log cannot be written");
    Sure(fsync(log_), "fsync");
    for (const Listening& participant : participants) {
      lines_.push_back(std::make_unique<Line>(Wire::To(participant.address)));
    }
  }
  std::string Commit(const std::string& gid) {
    // Of the connection's thread: whoever wakes it may do so when it has gone on already.
    static thread_local Caller self;
    self.gid = gid;
    self.left = lines_.size();
    self.applied = false;
    std::unique_lock lock(mutex_);
    to_log_.push_back(&self);
    while (!self.applied) {
      if (FinishDue()) {
        Finish(&lock, &self);
      } else if (LogDue()) {
        Log(&lock);
      } else {
        lock.unlock();
        sem_wait(&self.wake);
        // Asleep it led nothing, and what it was woken to lead has been led.
        if (self.applied) return Outcome();
        lock.lock();
      }
    }
    PassOn();
    return Outcome();
  }

 private:
  struct Caller {
    Caller() { sem_init(&wake, 0, 0); }
    std::string gid;
    std::size_t left = 0;  // acknowledgements
    std::atomic<bool> applied{false};
    sem_t wake;
  };
  // To a participant; at most one call is under way.
  struct Line {
    explicit Line(Wire to) : wire(std::move(to)) {}
    Wire wire;
    bool busy = false;
    std::vector<Caller*> due;
  };

  static std::string Outcome() { return std::string(kOutcomeBytes, 'o'); }
  bool LogDue() const { return !logging_ && !to_log_.empty(); }
  static bool Due(const std::unique_ptr<Line>& line) { return !line->busy && !line->due.empty(); }
  bool FinishDue() const { return std::any_of(lines_.begin(), lines_.end(), Due); }
  // What is left to do is done by one of those it is left for.
  void PassOn() {
    if (LogDue()) sem_post(&to_log_.front()->wake);
    const auto line = std::find_if(lines_.begin(), lines_.end(), Due);
    if (line != lines_.end()) sem_post(&(*line)->due.front()->wake);
  }
  void Log(std::unique_lock<std::mutex>* lock) {
    logging_ = true;
    const std::vector<Caller*> batch = std::exchange(to_log_, {});
    lock->unlock();
    std::string records;
    for (const Caller* caller : batch) records += caller->gid + std::string(kRecordBytes, 'r');
    records.resize((records.size() + 511) / 512 * 512);
    if (end_ + records.size() > kLogBytes) end_ = 0;
    if (pwrite(log_, records.data(), records.size(), static_cast<off_t>(end_)) < 0) {
      Die("the log cannot be written");
    }
    Sure(fdatasync(log_), "fdatasync");
    end_ += records.size();
    lock->lock();
    logging_ = false;
    for (const auto& line : lines_) line->due.insert(line->due.end(), batch.begin(), batch.end());
    if (!to_log_.empty()) sem_post(&to_log_.front()->wake);
  }
  // On all lines that are free.
  void Finish(std::unique_lock<std::mutex>* lock, const Caller* self) {
    std::vector<std::pair<std::size_t, std::vector<Caller*>>> calls;
    for (std::size_t i = 0; i < lines_.size(); ++i) {
      if (!Due(lines_[i])) continue;
      lines_[i]->busy = true;
      calls.emplace_back(i, std::exchange(lines_[i]->due, {}));
    }
    lock->unlock();
    for (const auto& [i, batch] : calls) {
      std::string asked = "F";
      for (const Caller* caller : batch) asked += " " + caller->gid + std::to_string(i);
      lines_[i]->wire.Send(asked);
    }
    for (std::size_t n = 0; n < calls.size(); ++n) {
      Line& line = *lines_[calls[n].first];
      line.wire.Take();
      std::vector<Caller*> applied;
      lock->lock();
      line.busy = false;
      for (Caller* caller : calls[n].second) {
        if (--caller->left == 0) applied.push_back(caller);
      }
      // While this thread waits for another line, somebody else has to lead here.
      if (!line.due.empty() && n + 1 < calls.size()) sem_post(&line.due.front()->wake);
      lock->unlock();
      for (Caller* caller : applied) {
        caller->applied = true;
        if (caller != self) sem_post(&caller->wake);
      }
    }
    lock->lock();
  }

  const int log_;
  std::size_t end_ = 0;  // of the log; whoever logs
  std::mutex mutex_;
  bool logging_ = false;
  std::vector<Caller*> to_log_;
  std::vector<std::unique_ptr<Line>> lines_;
};

class HopsClient : public RoundClient {
 public:
  HopsClient(int number, const Listening& coordinator, const std::vector<Listening>& participants)
      : number_(number),
        random_(static_cast<unsigned>(number) + 1),
        gid_("hops:" + std::to_string(getpid()) + ":" + std::to_string(number) + ":"),
        coordinator_(Wire::To(coordinator.address)) {
    for (const Listening& one : participants) participants_.push_back(Wire::To(one.address));
  }
  bool Transact(const std::string& /*mode*/) override {
    const std::string gid = gid_ + std::to_string(++count_) + ":";
    for (std::size_t i = 0; i < participants_.size(); ++i) {
      participants_[i].Send("W " + std::to_string(Row()) + (i == 0 ? " -1 " : " 1 ") + gid +
                            std::to_string(i) + " " + std::string(kContextBytes, 'c'));
    }
    for (Wire& participant : participants_) participant.Take();
    coordinator_.Send(gid);
    coordinator_.Take();
    return true;
  }

 private:
  // Of this client alone: nothing is refused, and nobody waits for a lock.
  int Row() {
    const int each = std::max(FLAGS_rows / FLAGS_clients, 1);
    return static_cast<int>(random_() % static_cast<unsigned>(each)) * FLAGS_clients + number_ + 1;
  }

  const int number_;
  std::mt19937 random_;
  const std::string gid_;
  std::uint64_t count_ = 0;
  Wire coordinator_;
  std::vector<Wire> participants_;
};

int Run(const std::vector<std::string>& databases) {
  const std::vector<Listening> participants(databases.size());
  const Listening coordinator;
  const auto close_all_but = [&](const Listening* own) {
    for (const Listening& one : participants) {
      if (&one != own) close(one.socket);
    }
    if (&coordinator != own) close(coordinator.socket);
  };
  // A process of its own, which ends with this one.
  const auto part = [&](const Listening& own, const std::function<void()>& serve) {
    const pid_t parent = getpid();
    if (Sure(fork(), "fork") != 0) return;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) std::_Exit(2);  // it has gone already
    close_all_but(&own);
    serve();
  };
  // The coordinator is the first child: bench/run.py counts on it.
  part(coordinator, [&] {
    HopsCoordinator self(participants);
    coordinator.Serve([&](const std::string& gid) { return self.Commit(gid); });
  });
  for (std::size_t i = 0; i < databases.size(); ++i) {
    part(participants[i], [&] {
      HopsParticipant self(databases[i]);
      participants[i].Serve([&](const std::string& asked) { return self.Answer(asked); });
    });
  }
  close_all_but(nullptr);
  return ServeRounds(
      FLAGS_clients, [](const std::string& mode) { return mode == "early"; },
      [&](int number) {
        auto client = std::make_unique<HopsClient>(number, coordinator, participants);
        client->Transact("early");  // everybody is up
        return client;
      });
}

}  // namespace
}  // namespace troth::bench

int main(int argc, char** argv) {
  if (const auto done = troth::StartProgram(troth::bench::kUsage, &argc, &argv)) return *done;
  const std::vector<std::string> databases = troth::bench::Split(FLAGS_databases, ';');
  if (databases.empty() || FLAGS_log.empty() || FLAGS_clients < 1 || FLAGS_rows < FLAGS_clients) {
    std::cerr << "bench-hops: --databases, --log and numbers from 1 up are needed; see --help\n";
    return 2;
  }
  return troth::bench::Run(databases);
}
