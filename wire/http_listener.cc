// See http_listener.h.
#include "wire/http_listener.h"

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

}  // namespace

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
    page = pages(target.substr(0, target.find('?')));
  }
  Reply reply(static_cast<http::status>(page.status), request.version());
  reply.set(http::field::content_type, page.type);
  reply.set(http::field::cache_control, "no-store");
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
