// A coordinator and a bank branch in this process, over real sockets, that do as they are told:
// each call goes to a function the test may replace. Fault model: a call's reply can be lost
// (done, connection closed), a call can be swallowed, and the server can be gone and back at the
// same port.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include <thrift/protocol/TCompactProtocol.h>
#include <thrift/server/TThreadedServer.h>
#include <thrift/transport/TBufferTransports.h>
#include <thrift/transport/TServerSocket.h>
#include <thrift/transport/TSocket.h>

#include "BankBranch.h"
#include "Coordinator.h"

namespace troth {

// Thrown by a call's function: what it did stays done, the caller gets no reply.
struct LoseReply {};

// Serves one processor on a port of 127.0.0.1 until Stop; each connection has a handler.
class FakeServer {
 public:
  using Factory = std::shared_ptr<apache::thrift::TProcessorFactory>;
  FakeServer(Factory factory, int port = 0);
  ~FakeServer() { Stop(); }
  int port() const { return port_; }
  // Closes the port and every connection.
  void Stop();

 private:
  std::shared_ptr<apache::thrift::transport::TServerSocket> socket_;
  std::unique_ptr<apache::thrift::server::TThreadedServer> server_;
  std::thread thread_;
  int port_ = 0;
};

// What a fake coordinator does; replace any of it before the call. Called from server threads.
struct CoordinatorScript {
  wire::Sender sender;
  std::int64_t lease_ms = 30'000;
  std::atomic<int> hellos{0}, leases{0}, commits{0}, aborts{0}, outcomes{0}, resolves{0};
  std::atomic<std::int64_t> next_sequence{1};
  std::function<void(wire::Lease&, std::int32_t)> lease;
  std::function<void(wire::Outcome&, const wire::CommitRequest&)> commit;
  std::function<void(wire::Outcome&, const wire::AbortRequest&)> abort;
  std::function<void(wire::Outcome&, const std::string&, std::int64_t)> outcome;
  std::function<void(std::vector<wire::ParticipantAddress>&, const std::vector<std::string>&)>
      resolve;

  CoordinatorScript();
  std::string Prefix() const;
};
FakeServer::Factory MakeFakeCoordinator(CoordinatorScript* script);

// What a fake branch of a bank does.
struct BranchScript {
  std::string name;
  std::string instance = "i1";
  std::atomic<int> hellos{0}, applies{0};
  std::mutex mutex;
  std::vector<wire::Context> contexts;  // of every apply, in order; under mutex
  std::function<void(bank::ApplyReply&, const wire::Context&)> apply;

  explicit BranchScript(std::string name);
  // As a good participant answers: mark "m-<name>", works = work + 1.
  void Answer(bank::ApplyReply& reply, const wire::Context& context) const;
};
FakeServer::Factory MakeFakeBranch(BranchScript* script);

}  // namespace troth
