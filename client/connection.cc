// See connection.h.
#include "client/connection.h"

#include <algorithm>
#include <charconv>
#include <limits>
#include <utility>

#include <thrift/TApplicationException.h>
#include <thrift/protocol/TProtocolException.h>
#include <thrift/transport/TBufferTransports.h>
#include <thrift/transport/TTransportException.h>

#include "common/check.h"
#include "wire/protocol.h"
#include "wire/socket.h"

namespace troth {

// Knows whether a reply is owed: generated clients look at no number of a message.
class CallProtocol : public apache::thrift::protocol::TCompactProtocolT<
                         apache::thrift::transport::TFramedTransport> {
 public:
  explicit CallProtocol(std::shared_ptr<apache::thrift::transport::TFramedTransport> transport)
      : TCompactProtocolT(std::move(transport), kMaxFrameBytes, kMaxElements) {}
  bool owes_reply() const { return owes_reply_; }

 private:
  std::uint32_t writeMessageBegin_virt(const std::string& name,
                                       apache::thrift::protocol::TMessageType type,
                                       std::int32_t number) override {
    if (owes_reply_ && !oneway_) {
      throw apache::thrift::transport::TTransportException("its last call was not answered");
    }
    owes_reply_ = true;
    oneway_ = type == apache::thrift::protocol::T_ONEWAY;
    return TCompactProtocolT::writeMessageBegin_virt(name, type, number);
  }
  std::uint32_t readMessageEnd_virt() override {
    owes_reply_ = false;
    return TCompactProtocolT::readMessageEnd_virt();
  }

  bool owes_reply_ = false;
  bool oneway_ = false;  // whether it was sent whole is not told
};

namespace {

using apache::thrift::TException;
using apache::thrift::transport::TBufferedTransport;
using apache::thrift::transport::TFramedTransport;
using apache::thrift::transport::TTransportException;

constexpr std::int64_t kTimeoutStepMs = 64;

int ClampMs(std::int64_t ms) {
  return static_cast<int>(std::clamp<std::int64_t>(ms, 1, std::numeric_limits<int>::max() / 2));
}

}  // namespace

Result<Address> Address::Parse(std::string_view text) {
  const std::size_t colon = text.rfind(':');
  Address address;
  if (colon != text.npos && colon > 0) {
    address.host = text.substr(0, colon);
    const char* const end = text.data() + text.size();
    const auto [stop, error] = std::from_chars(text.data() + colon + 1, end, address.port);
    if (error == std::errc() && stop == end && address.port > 0 && address.port < 65536) {
      return address;
    }
  }
  return Status(Code::kInvalid, "'" + std::string(text) + "' is no address: HOST:PORT is");
}

Result<std::vector<Address>> Address::ParseList(std::string_view text) {
  std::vector<Address> addresses;
  for (;;) {
    const std::size_t comma = text.find(',');
    Result<Address> address = Parse(text.substr(0, comma));
    if (!address.ok()) return address.status();
    addresses.push_back(*std::move(address));
    if (comma == text.npos) return addresses;
    text.remove_prefix(comma + 1);
  }
}

CallReport CallReport::NotSent(std::string error) {
  CallReport report;
  report.end = End::kNotSent;
  report.error = std::move(error);
  return report;
}

Connection::Connection(const Address& address, std::shared_ptr<WireSocket> socket)
    : address_(address), socket_(std::move(socket)) {
  const auto config = FrameLimits();
  // The buffer takes in a frame's length and its bytes with one read.
  auto buffered = std::make_shared<TBufferedTransport>(socket_, 4096, 512, config);
  auto framed = std::make_shared<TFramedTransport>(std::move(buffered), config);
  calls_ = std::make_shared<CallProtocol>(std::move(framed));
  protocol_ = calls_;
}

Connection::~Connection() {
  try {
    socket_->close();
  } catch (const TException&) {
    // The descriptor is given back in any case.
  }
}

Result<std::unique_ptr<Connection>> Connection::Open(const Address& address,
                                                     std::int64_t timeout_ms, TlsContext* tls) {
  auto socket = std::make_shared<WireSocket>(tls, address.host, address.port);
  socket->setConnTimeout(ClampMs(timeout_ms));
  socket->setNoDelay(true);
  // Closing must not throw away what the other side has not read yet.
  socket->setLinger(false, 0);
  socket->setKeepAlive(true);
  try {
    socket->open();
  } catch (const TException& e) {
    return Status(Code::kUnavailable, "no connection to " + address.ToString() + ": " + e.what());
  }
  return std::unique_ptr<Connection>(new Connection(address, std::move(socket)));
}

bool Connection::Idle() const { return socket_->Quiet(); }

bool Connection::owes_reply() const { return calls_->owes_reply(); }

CallReport Connection::Run(std::int64_t timeout_ms, const std::function<void()>& call) {
  // In steps, up: most calls then find it set already, which spares two system calls.
  timeout_ms = (timeout_ms / kTimeoutStepMs + 1) * kTimeoutStepMs;
  if (timeout_ms != timeout_ms_) {
    timeout_ms_ = timeout_ms;
    socket_->setRecvTimeout(ClampMs(timeout_ms));
    socket_->setSendTimeout(ClampMs(timeout_ms));
  }
  CallReport report;
  try {
    call();
  } catch (const wire::Refused& e) {
    report.end = CallReport::End::kRefused;
    report.refusal = e;
  } catch (const TTransportException& e) {
    report.end = CallReport::End::kUnanswered;
    report.error = e.getType() == TTransportException::TIMED_OUT
                       ? address_.ToString() + " did not answer in time"
                       : "connection to " + address_.ToString() + " lost: " + e.what();
  } catch (const apache::thrift::protocol::TProtocolException& e) {
    report.end = CallReport::End::kUnanswered;
    report.error = address_.ToString() + " sent what is no reply: " + e.what();
  } catch (const apache::thrift::TApplicationException& e) {
    report.end = CallReport::End::kOtherFault;
    report.error = address_.ToString() + " could not handle the call: " + e.what();
  } catch (const TException& e) {
    report.end = CallReport::End::kOtherFault;
    report.error = e.what();
  }
  return report;
}

std::unique_ptr<Connection> ConnectionPool::Take(const Address& address) {
  for (;;) {
    std::unique_ptr<Connection> connection;
    {
      MutexLock lock(&mutex_);
      const auto found = idle_.find(address);
      if (found == idle_.end() || found->second.empty()) return nullptr;
      connection = std::move(found->second.back());
      found->second.pop_back();
    }
    if (connection->Idle()) return connection;
  }
}

void ConnectionPool::Give(std::unique_ptr<Connection> connection) {
  TROTH_CHECK(connection != nullptr);
  if (connection->owes_reply()) return;
  MutexLock lock(&mutex_);
  std::vector<std::unique_ptr<Connection>>& idle = idle_[connection->address()];
  if (idle.size() < max_idle_) idle.push_back(std::move(connection));
}

void ConnectionPool::Drop(const Address& address) {
  std::vector<std::unique_ptr<Connection>> dropped;
  MutexLock lock(&mutex_);
  const auto found = idle_.find(address);
  if (found != idle_.end()) dropped.swap(found->second);
}

void ConnectionPool::Sweep() {
  MutexLock lock(&mutex_);
  for (auto& [address, idle] : idle_) {
    std::erase_if(idle, [](const auto& connection) { return !connection->Idle(); });
  }
  std::erase_if(idle_, [](const auto& at) { return at.second.empty(); });
}

}  // namespace troth
