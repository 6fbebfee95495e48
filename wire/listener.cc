// See listener.h.
#include "wire/listener.h"

#include <algorithm>
#include <chrono>
#include <future>
#include <system_error>
#include <thread>

#include <glog/logging.h>
#include <thrift/TOutput.h>
#include <thrift/concurrency/ThreadFactory.h>
#include <thrift/server/TThreadedServer.h>
#include <thrift/transport/TBufferTransports.h>
#include <thrift/transport/TServerSocket.h>

#include "wire/socket.h"

namespace troth {
namespace {

using apache::thrift::concurrency::Runnable;
using apache::thrift::concurrency::Thread;
using apache::thrift::concurrency::ThreadFactory;
using apache::thrift::protocol::TProtocol;
using apache::thrift::server::TThreadedServer;
using apache::thrift::transport::TBufferedTransport;
using apache::thrift::transport::TFramedTransport;
using apache::thrift::transport::TServerSocket;
using apache::thrift::transport::TSocket;
using apache::thrift::transport::TTransport;
using apache::thrift::transport::TTransportException;
using apache::thrift::transport::TTransportFactory;

constexpr std::chrono::milliseconds kAcceptAgain{50};

// Tells the socket where a frame begins, so that each has its time.
class Frames : public TFramedTransport {
 public:
  Frames(WireSocket* socket, std::shared_ptr<TTransport> under,
         std::shared_ptr<apache::thrift::TConfiguration> limits)
      : TFramedTransport(std::move(under), 512, 64 * 1024, std::move(limits)), socket_(socket) {}
  WireSocket* socket() const { return socket_; }
  bool Await() { return rBase_ < rBound_ || readFrame(); }

 protected:
  bool readFrame() override {
    socket_->BeginFrame();
    return TFramedTransport::readFrame();
  }

 private:
  WireSocket* const socket_;
};

// Makes the sockets of connections that were accepted.
class ServerSocket : public TServerSocket {
 public:
  explicit ServerSocket(const ListenerOptions& options)
      : TServerSocket(options.host, options.port),
        what_(options.what),
        tls_(options.security == nullptr ? nullptr : options.security->tls()),
        patience_{options.handshake_ms, std::min(options.frame_ms, options.idle_ms)},
        doors_(tls_ == nullptr
                   ? nullptr
                   : std::make_shared<Doorkeeper>(Unproven(options),
                                                  static_cast<std::size_t>(options.max_connections),
                                                  PerName(options))) {}
  const std::shared_ptr<Doorkeeper>& doors() const { return doors_; }
  // Connections at once. With TLS the unproven have theirs besides, and there is one more: the next
  // must be accepted for the oldest of them to be broken off.
  static int Places(const ListenerOptions& options) {
    if (options.security == nullptr || options.security->tls() == nullptr)
      return options.max_connections;
    return options.max_connections + static_cast<int>(Unproven(options)) + 1;
  }
  // A caller that never lets its connection run dry is told too: the descriptor that Thrift's own
  // sockets look at is polled only when there is nothing to read.
  void interruptChildren() override {
    if (doors_ != nullptr) doors_->Close();
    TServerSocket::interruptChildren();
  }

 protected:
  std::shared_ptr<TSocket> createSocket(THRIFT_SOCKET client) override {
    return std::make_shared<WireSocket>(tls_, client, pChildInterruptSockReader_, patience_,
                                        doors_);
  }
  // Thrift's server ends for good at an error of accept(). Out of descriptors, most likely: others
  // must end first, and whoever waits to be accepted goes on waiting.
  std::shared_ptr<TTransport> acceptImpl() override {
    for (;;) {
      try {
        return TServerSocket::acceptImpl();
      } catch (const TTransportException& e) {
        if (e.getType() != TTransportException::UNKNOWN) throw;  // we stop
        LOG_EVERY_T(ERROR, 1) << "no connection of " << what_ << " can be taken: " << e.what();
      }
      std::this_thread::sleep_for(kAcceptAgain);  // nothing tells when a descriptor is free
    }
  }

 private:
  static std::size_t Unproven(const ListenerOptions& options) {
    return static_cast<std::size_t>(std::max(8, options.max_connections / 4));
  }
  static std::size_t PerName(const ListenerOptions& options) {
    if (options.max_per_certificate > 0)
      return static_cast<std::size_t>(options.max_per_certificate);
    return static_cast<std::size_t>(std::max(1, options.max_connections / 4 * 3));
  }

  const std::string what_;
  TlsContext* const tls_;
  const WireSocket::Patience patience_;
  const std::shared_ptr<Doorkeeper> doors_;
};

// The connection that this thread serves.
thread_local const WireSocket* this_connection = nullptr;

// The thread of a connection, made before Thrift counts on it; it runs when it is started.
class ReadyThread : public Thread {
 public:
  // Throws std::system_error when there is no thread to be had. `detached`, for the base: that has
  // no thread to join.
  explicit ReadyThread(std::shared_ptr<Runnable> runnable)
      : Thread(/*detached=*/true, std::move(runnable)), thread_([this] {
          if (start_.get_future().get()) this->runnable()->run();
        }) {}
  ~ReadyThread() override {
    if (!thread_.joinable()) return;
    start_.set_value(false);
    thread_.join();
  }
  void start() override { start_.set_value(true); }
  void join() override { thread_.join(); }

 private:
  std::promise<bool> start_;
  std::thread thread_;  // the last member: it uses the others
};

// Lets a connection go for which there is no thread; Thrift's own ends the process then.
class ReadyThreads : public ThreadFactory {
 public:
  std::shared_ptr<Thread> newThread(std::shared_ptr<Runnable> runnable) const override {
    try {
      auto thread = std::make_shared<ReadyThread>(runnable);
      runnable->thread(thread);
      return thread;
    } catch (const std::system_error& e) {
      LOG_EVERY_T(ERROR, 1) << "closing a connection, there is no thread for it: " << e.what();
      throw TTransportException(TTransportException::CLIENT_DISCONNECT, "no thread");
    }
  }
};

// Framed transports that refuse large frames; Thrift's own limit is 16 MB.
class SmallFrames : public TTransportFactory {
 public:
  std::shared_ptr<TTransport> getTransport(std::shared_ptr<TTransport> under) override {
    auto* const socket = static_cast<WireSocket*>(under.get());  // as ServerSocket makes them
    auto limits = FrameLimits();
    // The buffer takes in a frame's length and its bytes with one read.
    auto buffered = std::make_shared<TBufferedTransport>(std::move(under), 4096, 512, limits);
    return std::make_shared<Frames>(socket, std::move(buffered), std::move(limits));
  }
};

// Tells when it listens, and that it could not; and each thread what it serves.
class Started : public apache::thrift::server::TServerEventHandler {
 public:
  void preServe() override { started_.set_value(OkStatus()); }
  // On the thread of a connection, at its begin and end.
  void* createContext(std::shared_ptr<TProtocol> in, std::shared_ptr<TProtocol>) override {
    this_connection = static_cast<Frames*>(in->getTransport().get())->socket();
    return nullptr;
  }
  void deleteContext(void*, std::shared_ptr<TProtocol>, std::shared_ptr<TProtocol>) override {
    this_connection = nullptr;
  }
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

const std::string& CallerName() {
  static const std::string nobody;
  return this_connection == nullptr ? nobody : this_connection->peer_name();
}

bool AwaitCall(TProtocol* in) { return static_cast<Frames*>(in->getTransport().get())->Await(); }

struct Listener::Rep {
  ListenerOptions options;
  std::shared_ptr<ServerSocket> socket;
  std::unique_ptr<TThreadedServer> server;
  std::shared_ptr<Started> started = std::make_shared<Started>();
  std::thread thread;
};

Listener::Listener(ListenerOptions options, std::shared_ptr<apache::thrift::TProcessor> processor)
    : rep_(std::make_unique<Rep>()) {
  // Thrift prints each broken connection to stderr; we report what matters ourselves.
  apache::thrift::GlobalOutput.setOutputFunction([](const char*) {});
  rep_->options = std::move(options);
  rep_->socket = std::make_shared<ServerSocket>(rep_->options);
  rep_->socket->setRecvTimeout(rep_->options.idle_ms);
  rep_->socket->setSendTimeout(10'000);
  rep_->socket->setAcceptBacklog(1024);
  rep_->server = std::make_unique<TThreadedServer>(
      std::move(processor), rep_->socket, std::make_shared<SmallFrames>(), BoundedProtocols(),
      std::make_shared<ReadyThreads>());
  rep_->server->setConcurrentClientLimit(ServerSocket::Places(rep_->options));
  rep_->server->setServerEventHandler(rep_->started);
}

Listener::~Listener() { Stop(); }

Status Listener::Start() {
  const ListenerOptions& options = rep_->options;
  Security plain{{}};
  Security* const security = options.security == nullptr ? &plain : options.security;
  TROTH_RETURN_IF_ERROR(security->MayListen(options.host, options.what));
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

Doorkeeper::Counts Listener::doors() const {
  const auto& doors = rep_->socket->doors();
  return doors == nullptr ? Doorkeeper::Counts() : doors->counts();
}

int Listener::port() const { return rep_->socket->getPort(); }

void Listener::Stop() {
  if (!rep_->thread.joinable()) return;
  rep_->server->stop();
  rep_->thread.join();
}

}  // namespace troth
