// A small HTTP/1.1 server for people and monitoring: GET and HEAD only, one thread, short
// answers; on loopback, only for who asks by an address or for localhost. Knows no page.
// docs/operations.md, "Monitoring".
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "common/status.h"

namespace troth {

struct HttpRequest {
  std::string path;   // without the query
  std::string query;  // what follows '?', as it came; empty if nothing does
};

struct HttpReply {
  int status = 200;
  std::string type = "text/plain; charset=utf-8";
  std::string body;
  std::vector<std::pair<std::string, std::string>> headers = {};  // beside those of length and type
};

// The value of `key` in a query, with %XX and '+' read; empty when it is not there, or not
// written as a URL is.
std::string QueryValue(const std::string& query, const std::string& key);

// Called by one thread at a time; must be short, as nobody else is answered meanwhile. What it
// throws is logged, and answered with 500.
using HttpPages = std::function<HttpReply(const HttpRequest& request)>;

class HttpListener {
 public:
  struct Options {
    std::string host = "127.0.0.1";
    int port = 0;              // 0: any free one
    int max_connections = 64;  // beyond, a new one is closed at once
    int patience_ms = 5'000;   // for a request to be whole, and for its answer to be taken
  };

  HttpListener(Options options, HttpPages pages);
  // Stops.
  ~HttpListener();
  HttpListener(const HttpListener&) = delete;
  HttpListener& operator=(const HttpListener&) = delete;

  // Binds and serves on a thread of its own. kUnavailable when the port is taken or the host is
  // no address of this machine, kInvalid when the port is none.
  Status Start();
  int port() const;
  // Closes all connections and waits for the thread. Any number of times.
  void Stop();

 private:
  struct Rep;
  std::unique_ptr<Rep> rep_;
};

}  // namespace troth
