// See fake_services.h.
#include "tests/client/fake_services.h"

#include <future>
#include <utility>

namespace troth {
namespace {

using apache::thrift::TConnectionInfo;
using apache::thrift::server::TThreadedServer;
using apache::thrift::transport::TFramedTransportFactory;
using apache::thrift::transport::TServerSocket;
using apache::thrift::transport::TSocket;

class Ready : public apache::thrift::server::TServerEventHandler {
 public:
  void preServe() override { ready_.set_value(); }
  void Wait() { ready_.get_future().wait(); }

 private:
  std::promise<void> ready_;
};

std::shared_ptr<TSocket> SocketOf(const TConnectionInfo& info) {
  auto framed = std::dynamic_pointer_cast<apache::thrift::transport::TFramedTransport>(
      info.input->getTransport());
  return std::dynamic_pointer_cast<TSocket>(framed->getUnderlyingTransport());
}

// Runs a call's function; on LoseReply closes the connection before a reply can leave.
template <typename F>
void Play(const std::shared_ptr<TSocket>& socket, F&& call) {
  try {
    call();
  } catch (const LoseReply&) {
    socket->close();
  }
}

class CoordinatorHandler : public wire::CoordinatorNull {
 public:
  CoordinatorHandler(CoordinatorScript* script, std::shared_ptr<TSocket> socket)
      : script_(script), socket_(std::move(socket)) {}

  void hello(wire::CoordinatorHello& reply, const wire::ClientHello&) override {
    ++script_->hellos;
    reply.version = 1;
    reply.sender = script_->sender;
  }
  void lease(wire::Lease& reply, const std::int32_t count) override {
    ++script_->leases;
    Play(socket_, [&] { script_->lease(reply, count); });
  }
  void commit(wire::Outcome& reply, const wire::CommitRequest& request) override {
    ++script_->commits;
    Play(socket_, [&] { script_->commit(reply, request); });
  }
  void abort(wire::Outcome& reply, const wire::AbortRequest& request) override {
    ++script_->aborts;
    Play(socket_, [&] { script_->abort(reply, request); });
  }
  void outcome(wire::Outcome& reply, const std::string& id, const std::int64_t wait_ms) override {
    ++script_->outcomes;
    Play(socket_, [&] { script_->outcome(reply, id, wait_ms); });
  }
  void resolve(std::vector<wire::ParticipantAddress>& reply,
               const std::vector<std::string>& names) override {
    ++script_->resolves;
    Play(socket_, [&] { script_->resolve(reply, names); });
  }

 private:
  CoordinatorScript* const script_;
  const std::shared_ptr<TSocket> socket_;
};

class BranchHandler : public bank::BankBranchNull {
 public:
  BranchHandler(BranchScript* script, std::shared_ptr<TSocket> socket)
      : script_(script), socket_(std::move(socket)) {}

  void hello(wire::ParticipantHello& reply, const std::int32_t) override {
    ++script_->hellos;
    reply.version = 1;
    reply.participant = script_->name;
    reply.instance = script_->instance;
  }
  void apply(bank::ApplyReply& reply, const wire::Context& context, const std::vector<bank::Leg>&,
             const std::string&) override {
    ++script_->applies;
    {
      std::lock_guard<std::mutex> lock(script_->mutex);
      script_->contexts.push_back(context);
    }
    Play(socket_, [&] { script_->apply(reply, context); });
  }

 private:
  BranchScript* const script_;
  const std::shared_ptr<TSocket> socket_;
};

// A handler for each connection, so that it can close its own.
template <typename Handler, typename Processor, typename Script>
class PerConnection : public apache::thrift::TProcessorFactory {
 public:
  explicit PerConnection(Script* script) : script_(script) {}
  std::shared_ptr<apache::thrift::TProcessor> getProcessor(const TConnectionInfo& info) override {
    return std::make_shared<Processor>(std::make_shared<Handler>(script_, SocketOf(info)));
  }

 private:
  Script* const script_;
};

}  // namespace

FakeServer::FakeServer(Factory factory, int port)
    : socket_(std::make_shared<TServerSocket>("127.0.0.1", port)) {
  server_ = std::make_unique<TThreadedServer>(
      std::move(factory), socket_, std::make_shared<TFramedTransportFactory>(),
      std::make_shared<apache::thrift::protocol::TCompactProtocolFactory>());
  auto ready = std::make_shared<Ready>();
  server_->setServerEventHandler(ready);
  thread_ = std::thread([this] { server_->serve(); });
  ready->Wait();
  port_ = socket_->getPort();
}

void FakeServer::Stop() {
  if (!thread_.joinable()) return;
  server_->stop();
  thread_.join();
}

CoordinatorScript::CoordinatorScript() {
  sender.coordinator = "main-0123456789ab";
  sender.epoch = 1;
  sender.epoch_random = 7;
  sender.position = 1;
  lease = [this](wire::Lease& reply, std::int32_t count) {
    reply.prefix = Prefix();
    reply.first = next_sequence.fetch_add(count);
    reply.count = count;
    reply.ends_in_ms = lease_ms;
  };
  commit = [](wire::Outcome& reply, const wire::CommitRequest& request) {
    reply.kind = wire::OutcomeKind::COMMITTED;
    reply.transaction_id = request.transaction_id;
  };
  abort = [](wire::Outcome& reply, const wire::AbortRequest& request) {
    reply.kind = wire::OutcomeKind::ABORTED;
    reply.transaction_id = request.transaction_id;
  };
  outcome = [](wire::Outcome& reply, const std::string& id, std::int64_t) {
    reply.kind = wire::OutcomeKind::PENDING;
    reply.transaction_id = id;
  };
  resolve = [](auto& reply, const auto&) { reply.clear(); };
}

std::string CoordinatorScript::Prefix() const {
  return sender.coordinator + "." + std::to_string(sender.epoch) + "-00000007.";
}

FakeServer::Factory MakeFakeCoordinator(CoordinatorScript* script) {
  return std::make_shared<
      PerConnection<CoordinatorHandler, wire::CoordinatorProcessor, CoordinatorScript>>(script);
}

BranchScript::BranchScript(std::string name) : name(std::move(name)) {
  apply = [this](bank::ApplyReply& reply, const wire::Context& context) { Answer(reply, context); };
}

void BranchScript::Answer(bank::ApplyReply& reply, const wire::Context& context) const {
  reply.branch.participant = name;
  reply.branch.mark = "m-" + name;
  reply.branch.works = context.work + 1;
  reply.branch.instance = instance;
}

FakeServer::Factory MakeFakeBranch(BranchScript* script) {
  return std::make_shared<PerConnection<BranchHandler, bank::BankBranchProcessor, BranchScript>>(
      script);
}

}  // namespace troth
