// See listener.h.
#include "wire/listener.h"

#include <atomic>
#include <condition_variable>
#include <future>
#include <mutex>
#include <thread>

#include <thrift/TOutput.h>
#include <thrift/server/TThreadedServer.h>
#include <thrift/transport/TBufferTransports.h>
#include <thrift/transport/TServerSocket.h>

namespace troth {
namespace {

using apache::thrift::server::TThreadedServer;
using apache::thrift::transport::TBufferedTransport;
using apache::thrift::transport::TFramedTransport;
using apache::thrift::transport::TServerSocket;
using apache::thrift::transport::TTransport;
using apache::thrift::transport::TTransportException;
using apache::thrift::transport::TTransportFactory;

// Framed transports that refuse large frames; Thrift's own limit is 16 MB.
class SmallFrames : public TTransportFactory {
 public:
  std::shared_ptr<TTransport> getTransport(std::shared_ptr<TTransport> under) override {
    auto limits = FrameLimits();
    // The buffer takes in a frame's length and its bytes with one read.
    auto buffered = std::make_shared<TBufferedTransport>(std::move(under), 4096, 512, limits);
    return std::make_shared<TFramedTransport>(std::move(buffered), 512, 64 * 1024, limits);
  }
};

// Tells when it listens, and that it could not.
class Started : public apache::thrift::server::TServerEventHandler {
 public:
  void preServe() override { started_.set_value(OkStatus()); }
  std::future<Status> future() { return started_.get_future(); }
  void Failed(Status status) {
    try {
      started_.set_value(std::move(status));
    } catch (const std::future_error&) {  // it had started: an accept loop that ends later
    }
  }

 private:
  std::promise<Status> started_;
};

}  // namespace

struct Listener::Rep {
  ListenerOptions options;
  std::shared_ptr<TServerSocket> socket;
  std::unique_ptr<TThreadedServer> server;
  std::shared_ptr<Started> started = std::make_shared<Started>();
  std::thread thread;
};

Listener::Listener(ListenerOptions options, std::shared_ptr<apache::thrift::TProcessor> processor)
    : rep_(std::make_unique<Rep>()) {
  // Thrift prints each broken connection to stderr; we report what matters ourselves.
  apache::thrift::GlobalOutput.setOutputFunction([](const char*) {});
  rep_->options = std::move(options);
  rep_->socket = std::make_shared<TServerSocket>(rep_->options.host, rep_->options.port);
  rep_->socket->setRecvTimeout(rep_->options.idle_ms);
  rep_->socket->setSendTimeout(10'000);
  rep_->socket->setAcceptBacklog(1024);
  rep_->server = std::make_unique<TThreadedServer>(
      std::move(processor), rep_->socket, std::make_shared<SmallFrames>(), BoundedProtocols());
  rep_->server->setConcurrentClientLimit(rep_->options.max_connections);
  rep_->server->setServerEventHandler(rep_->started);
}

Listener::~Listener() { Stop(); }

Status Listener::Start() {
  std::future<Status> started = rep_->started->future();
  rep_->thread = std::thread([rep = rep_.get()] {
    try {
      rep->server->serve();
    } catch (const TTransportException& e) {
      rep->started->Failed(Status(
          Code::kUnavailable, "cannot listen for " + rep->options.what + " on " +
                                  rep->options.host + ":" + std::to_string(rep->options.port) +
                                  ": " + e.what() +
                                  ". Is the port taken? Choose another, or 0 for any free one"));
    }
  });
  return started.get();
}

int Listener::port() const { return rep_->socket->getPort(); }

void Listener::Stop() {
  if (!rep_->thread.joinable()) return;
  rep_->server->stop();
  rep_->thread.join();
}

}  // namespace troth
