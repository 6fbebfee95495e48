// See http_listener.h.
#include "wire/http_listener.h"

#include <algorithm>
#include <chrono>
#include <optional>
#include <thread>

#include <glog/logging.h>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>

namespace troth {
namespace {

namespace beast = boost::beast;
namespace http = beast::http;
using boost::asio::ip::tcp;
using boost::system::error_code;

constexpr std::uint32_t kMaxHeaderBytes = 8 * 1024;
constexpr std::chrono::milliseconds kAcceptAgain{100};
constexpr char kForThisMachine[] =
    "this page is for this machine only: ask for it by 127.0.0.1, ::1 or localhost (a proxy in "
    "front of it sends one of these as Host)\n";

using Reply = http::response<http::string_body>;

// The byte that two hexadecimal digits stand for; -1 when they are none.
int FromHex(char high, char low) {
  const auto digit = [](char c) {
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
  };
  return digit(high) < 0 || digit(low) < 0 ? -1 : digit(high) * 16 + digit(low);
}

// Whether a Host that a browser sends is an address, or a name that nobody else can give an
// address to. A page from elsewhere whose name was made to lead to us (DNS rebinding) has another.
bool IsOurs(beast::string_view host) {
  if (!host.empty() && host.front() == '[') {
    host = host.substr(1, host.find(']') - 1);
  } else {
    host = host.substr(0, host.rfind(':'));
  }
  error_code error;
  boost::asio::ip::make_address(std::string(host), error);
  return !error || beast::iequals(host, "localhost");
}

// An address of this machine; of `localhost` the older one, which more callers try.
boost::asio::ip::address AddressOf(boost::asio::io_context* io, const std::string& host,
                                   error_code* error) {
  auto address = boost::asio::ip::make_address(host, *error);
  if (!*error) return address;
  const auto found = tcp::resolver(*io).resolve(host, "", tcp::resolver::passive, *error);
  if (*error || found.empty()) return address;
  address = found.begin()->endpoint().address();
  for (const auto& one : found) {
    if (one.endpoint().address().is_v4()) return one.endpoint().address();
  }
  return address;
}

}  // namespace

std::string QueryValue(const std::string& query, const std::string& key) {
  for (std::size_t at = 0; at <= query.size();) {
    const std::size_t end = std::min(query.find('&', at), query.size());
    const std::string pair = query.substr(at, end - at);
    at = end + 1;
    if (pair.compare(0, key.size() + 1, key + "=") != 0) continue;
    std::string value;
    for (std::size_t i = key.size() + 1; i < pair.size(); ++i) {
      if (pair[i] != '%') {
        value.push_back(pair[i] == '+' ? ' ' : pair[i]);
        continue;
      }
      const int byte = i + 2 < pair.size() ? FromHex(pair[i + 1], pair[i + 2]) : -1;
      if (byte < 0) return "";
      value.push_back(static_cast<char>(byte));
      i += 2;
    }
    return value;
  }
  return "";
}

struct HttpListener::Rep {
  Options options;
  HttpPages pages;
  boost::asio::io_context io{1};
  tcp::acceptor acceptor{io};
  boost::asio::steady_timer rest{io};
  int port = 0;
  bool for_this_machine = false;  // bound to loopback
  int connections = 0;            // of the serving thread
  std::thread thread;

  class Session;
  void Accept();
  HttpReply Ask(const std::string& target) const;
  Reply Answer(const http::request<http::empty_body>& request) const;
};

// One connection; keeps itself alive by what it waits for.
class HttpListener::Rep::Session : public std::enable_shared_from_this<Session> {
 public:
  Session(Rep* rep, tcp::socket socket) : rep_(rep), stream_(std::move(socket)) {
    ++rep_->connections;
  }
  ~Session() { --rep_->connections; }

  void Read() {
    parser_.emplace();
    parser_->header_limit(kMaxHeaderBytes);
    parser_->body_limit(0);
    stream_.expires_after(std::chrono::milliseconds(rep_->options.patience_ms));
    http::async_read(stream_, buffer_, *parser_,
                     [self = shared_from_this()](error_code error, std::size_t) {
                       if (!error) self->Write();
                     });
  }

 private:
  void Write() {
    reply_ = rep_->Answer(parser_->get());
    stream_.expires_after(std::chrono::milliseconds(rep_->options.patience_ms));
    if (parser_->get().method() == http::verb::head) {
      head_.emplace(reply_);
      http::async_write_header(
          stream_, *head_,
          [self = shared_from_this()](error_code error, std::size_t) { self->Next(error); });
      return;
    }
    http::async_write(stream_, reply_, [self = shared_from_this()](error_code error, std::size_t) {
      self->Next(error);
    });
  }
  void Next(error_code error) {
    if (!error && reply_.keep_alive()) return Read();
    stream_.socket().shutdown(tcp::socket::shutdown_send, error);
  }

  Rep* const rep_;
  beast::tcp_stream stream_;
  beast::flat_buffer buffer_{2 * kMaxHeaderBytes};
  std::optional<http::request_parser<http::empty_body>> parser_;
  Reply reply_;
  std::optional<http::response_serializer<http::string_body>> head_;
};

void HttpListener::Rep::Accept() {
  acceptor.async_accept([this](error_code error, tcp::socket socket) {
    if (error == boost::asio::error::operation_aborted) return;
    if (error) {  // out of descriptors, most likely: the connection that waits would spin us
      rest.expires_after(kAcceptAgain);
      rest.async_wait([this](error_code) { Accept(); });
      return;
    }
    if (connections < options.max_connections) {
      std::make_shared<Session>(this, std::move(socket))->Read();
    }
    Accept();
  });
}

// A page that fails is no reason to end the process.
HttpReply HttpListener::Rep::Ask(const std::string& target) const {
  const std::size_t mark = std::min(target.find('?'), target.size());
  try {
    return pages({target.substr(0, mark), target.substr(std::min(mark + 1, target.size()))});
  } catch (const std::exception& e) {
    LOG_EVERY_T(ERROR, 1) << "a page of HTTP failed: " << e.what();
    return {500, "text/plain; charset=utf-8", "this page failed; the log says why\n"};
  }
}

Reply HttpListener::Rep::Answer(const http::request<http::empty_body>& request) const {
  HttpReply page;
  if (request.method() != http::verb::get && request.method() != http::verb::head) {
    page = {405, "text/plain; charset=utf-8", "only GET and HEAD\n"};
  } else if (const auto host = request.find(http::field::host);
             for_this_machine && host != request.end() && !IsOurs(host->value())) {
    page = {421, "text/plain; charset=utf-8", kForThisMachine};
  } else {
    page = Ask(std::string(request.target()));
  }
  Reply reply(static_cast<http::status>(page.status), request.version());
  reply.set(http::field::content_type, page.type);
  reply.set(http::field::cache_control, "no-store");
  reply.set("X-Content-Type-Options", "nosniff");
  for (const auto& [name, value] : page.headers) reply.set(name, value);
  reply.keep_alive(request.keep_alive());
  reply.body() = std::move(page.body);
  reply.prepare_payload();
  return reply;
}

HttpListener::HttpListener(Options options, HttpPages pages) : rep_(std::make_unique<Rep>()) {
  rep_->options = std::move(options);
  rep_->pages = std::move(pages);
}

HttpListener::~HttpListener() { Stop(); }

Status HttpListener::Start() {
  if (rep_->options.port < 0 || rep_->options.port > 65'535) {
    return Status(Code::kInvalid, "no port for HTTP is " + std::to_string(rep_->options.port));
  }
  error_code error;
  const auto address = AddressOf(&rep_->io, rep_->options.host, &error);
  if (error) {
    return Status(Code::kUnavailable, "cannot listen for HTTP on '" + rep_->options.host + "': " +
                                          error.message() + ". Is it an address of this machine?");
  }
  rep_->for_this_machine = address.is_loopback();
  const tcp::endpoint endpoint(address, static_cast<unsigned short>(rep_->options.port));
  rep_->acceptor.open(endpoint.protocol(), error);
  if (!error) rep_->acceptor.set_option(tcp::acceptor::reuse_address(true), error);
  if (!error) rep_->acceptor.bind(endpoint, error);
  if (!error) rep_->acceptor.listen(128, error);
  if (error) {
    return Status(Code::kUnavailable, "cannot listen for HTTP on " + rep_->options.host + ":" +
                                          std::to_string(rep_->options.port) + ": " +
                                          error.message() +
                                          ". Is the port taken? Choose another, or 0 for any");
  }
  rep_->port = rep_->acceptor.local_endpoint().port();
  rep_->Accept();
  rep_->thread = std::thread([rep = rep_.get()] { rep->io.run(); });
  return OkStatus();
}

int HttpListener::port() const { return rep_->port; }

void HttpListener::Stop() {
  if (!rep_->thread.joinable()) return;
  rep_->io.stop();
  rep_->thread.join();
}

}  // namespace troth
