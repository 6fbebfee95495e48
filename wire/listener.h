// A listener: one Thrift service on one port, with limits. A thread per connection, framed,
// compact; measured to be the cheapest for many short calls. Knows no service.
// docs/operations.md, "Slow and greedy callers".
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include <thrift/TProcessor.h>

#include "common/status.h"
#include "wire/doorkeeper.h"
#include "wire/protocol.h"
#include "wire/security.h"

namespace troth {

struct ListenerOptions {
  std::string what;                // for messages: "clients", "peers", ...
  std::string host = "127.0.0.1";  // address to bind
  int port = 0;                    // 0: any free one
  int max_connections = 1000;      // beyond, connections wait in the kernel unaccepted; with TLS
                                   // they are closed, and those that have shown no certificate yet
                                   // (a quarter, 8 at least) have places of their own
  int idle_ms = 300'000;           // a connection silent for so long is closed
  int frame_ms = 10'000;           // so is one whose frame takes longer to arrive
  Security* security = nullptr;    // null: plain text; else it outlives the listener
  // With TLS: how long a handshake may take, and connections of one certificate (0: three
  // quarters).
  int handshake_ms = 5'000;
  int max_per_certificate = 0;
};

// The name in the certificate of the caller whose call this thread handles; empty in plain text.
const std::string& CallerName();
// For processors that look at the caller first: waits until the next call is here (and with the
// first one, that the caller is known), on the protocol that a listener gave. False: none comes.
bool AwaitCall(apache::thrift::protocol::TProtocol* in);

class Listener {
 public:
  Listener(ListenerOptions options, std::shared_ptr<apache::thrift::TProcessor> processor);
  // Stops.
  ~Listener();
  Listener(const Listener&) = delete;
  Listener& operator=(const Listener&) = delete;

  // Binds, listens, and serves on threads of its own until Stop. kUnavailable when the port is
  // taken or the address is not this machine's; the message says which. kForbidden where plain
  // text may not be spoken.
  Status Start();
  // Who is connected; all 0 without TLS.
  Doorkeeper::Counts doors() const;
  // The port it listens on, once started.
  int port() const;
  // Accepts no more, closes connections that wait for a request, lets calls under way end, and
  // waits for that. Any number of times.
  void Stop();

 private:
  struct Rep;
  std::unique_ptr<Rep> rep_;
};

}  // namespace troth
