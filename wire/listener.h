// A listener: one Thrift service on one port, with limits. A thread per connection, framed,
// compact; measured to be the cheapest for many short calls. Knows no service.
// docs/architecture.md, "The wire".
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include <thrift/TProcessor.h>

#include "common/status.h"
#include "wire/protocol.h"

namespace troth {

struct ListenerOptions {
  std::string what;                // for messages: "clients", "peers", ...
  std::string host = "127.0.0.1";  // address to bind
  int port = 0;                    // 0: any free one
  int max_connections = 1000;      // beyond, connections wait in the kernel unaccepted
  int idle_ms = 300'000;           // a connection silent for so long is closed
};

class Listener {
 public:
  Listener(ListenerOptions options, std::shared_ptr<apache::thrift::TProcessor> processor);
  // Stops.
  ~Listener();
  Listener(const Listener&) = delete;
  Listener& operator=(const Listener&) = delete;

  // Binds, listens, and serves on threads of its own until Stop. kUnavailable when the port is
  // taken or the address is not this machine's; the message says which.
  Status Start();
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
