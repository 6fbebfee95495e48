// Connections to coordinators and participants: framed, compact, one call at a time each, and
// where Thrift's exceptions end. Knows no transaction. docs/protocol.md, "Messages".
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "client/address.h"
#include "common/status.h"
#include "common/thread_annotations.h"
#include "troth_types.h"
#include "wire/tls.h"

namespace apache::thrift {
namespace protocol {
class TProtocol;
}
}  // namespace apache::thrift

namespace troth {

class CallProtocol;
class WireSocket;

// How a call ended.
struct CallReport {
  enum class End {
    kAnswered,    // the reply was read
    kRefused,     // the other side says: surely not done
    kNotSent,     // no connection, so that no byte of the call left: surely not done
    kUnanswered,  // sent, maybe in part, and no reply: maybe done
    kOtherFault,  // an exception that is none of Troth's: the service declared it, or is another
  };
  End end = End::kAnswered;
  wire::Refused refusal;  // kRefused
  std::string error;      // otherwise, unless kAnswered

  bool ok() const { return end == End::kAnswered; }
  static CallReport NotSent(std::string error);
};

// One connection. Not thread-safe.
class Connection {
 public:
  // Connects within `timeout_ms`; blocks that long, and for the resolver of host names.
  // kUnavailable when nobody answers there. With `tls`, which outlives it, the handshake too must
  // succeed within that time; null: plain text.
  static Result<std::unique_ptr<Connection>> Open(const Address& address, std::int64_t timeout_ms,
                                                  TlsContext* tls);
  ~Connection();
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  const Address& address() const { return address_; }
  const std::shared_ptr<apache::thrift::protocol::TProtocol>& protocol() const { return protocol_; }
  // True while the other side has neither closed it nor sent what nobody asked for. No call.
  bool Idle() const;

  // Runs `call`, which makes one call over protocol() and may wait `timeout_ms` for the reply.
  // Unless the report says kAnswered or kRefused the connection is of no use any more, nor while
  // owes_reply(). Thrift's exceptions stop here; others pass through.
  CallReport Run(std::int64_t timeout_ms, const std::function<void()>& call);

  // A message was sent, maybe in part, and no reply was read, whatever `call` made of that: no
  // other message can be sent, as it would be answered with the reply that is still to come. So too
  // after a oneway message, behind which only `call` itself may send more.
  bool owes_reply() const;

  // Who answered the first call, where that is known; set by the one who made it.
  std::string participant;
  std::string instance;

 private:
  Connection(const Address& address, std::shared_ptr<WireSocket> socket);

  const Address address_;
  const std::shared_ptr<WireSocket> socket_;
  std::shared_ptr<CallProtocol> calls_;
  std::shared_ptr<apache::thrift::protocol::TProtocol> protocol_;  // calls_, to those who call
  std::int64_t timeout_ms_ = -1;
};

// Idle connections by address, newest first. Thread-safe.
class ConnectionPool {
 public:
  explicit ConnectionPool(std::size_t max_idle) : max_idle_(max_idle) {}

  // An idle connection that still looks alive, or null.
  std::unique_ptr<Connection> Take(const Address& address) TROTH_EXCLUDES(mutex_);
  // After a call that was answered or refused. Closes it when enough are idle, or a reply is owed.
  void Give(std::unique_ptr<Connection> connection) TROTH_EXCLUDES(mutex_);
  // Closes all idle ones to an address whose server seems to be gone.
  void Drop(const Address& address) TROTH_EXCLUDES(mutex_);
  // Closes all that do not look alive any more, also to addresses that nobody takes from again.
  void Sweep() TROTH_EXCLUDES(mutex_);

 private:
  const std::size_t max_idle_;
  Mutex mutex_;
  std::map<Address, std::vector<std::unique_ptr<Connection>>> idle_ TROTH_GUARDED_BY(mutex_);
};

}  // namespace troth
