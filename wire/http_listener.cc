// See http_listener.h.
#include "wire/http_listener.h"

#include <algorithm>
#include <chrono>
#include <optional>
#include <thread>

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>

namespace troth {
namespace {

namespace beast = boost::beast;
namespace http = beast::http;
using boost::asio::ip::tcp;
using boost::system::error_code;

constexpr std::uint32_t kMaxHeaderBytes = 8 * 1024;

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
  int port = 0;
  int connections = 0;  // of the serving thread
  std::thread thread;

  class Session;
  void Accept();
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
    if (!error && connections < options.max_connections) {
      std::make_shared<Session>(this, std::move(socket))->Read();
    }
    Accept();
  });
}

Reply HttpListener::Rep::Answer(const http::request<http::empty_body>& request) const {
  HttpReply page;
  if (request.method() != http::verb::get && request.method() != http::verb::head) {
    page = {405, "text/plain; charset=utf-8", "only GET and HEAD\n"};
  } else {
    const std::string target(request.target());
    const std::size_t mark = std::min(target.find('?'), target.size());
    page = pages({target.substr(0, mark), target.substr(std::min(mark + 1, target.size()))});
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
  error_code error;
  const auto address = boost::asio::ip::make_address(rep_->options.host, error);
  const tcp::endpoint endpoint(address, static_cast<unsigned short>(rep_->options.port));
  if (!error) rep_->acceptor.open(endpoint.protocol(), error);
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
