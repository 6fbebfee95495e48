// See socket.h.
#include "wire/socket.h"

#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <limits>

#include <glog/logging.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <thrift/transport/TTransportException.h>

namespace troth {
namespace {

using apache::thrift::transport::TSocket;
using apache::thrift::transport::TTransportException;
using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr int kGoodbyeMs = 200;

int FdOf(BIO* bio) { return static_cast<int>(reinterpret_cast<std::intptr_t>(BIO_get_data(bio))); }

// OpenSSL's own BIO of a socket would raise SIGPIPE, and wait where the descriptor does.
int BioWrite(BIO* bio, const char* data, int size) {
  BIO_clear_retry_flags(bio);
  for (;;) {
    const ssize_t sent =
        send(FdOf(bio), data, static_cast<std::size_t>(size), MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent >= 0) return static_cast<int>(sent);
    if (errno == EINTR) continue;
    if (errno == EAGAIN || errno == EWOULDBLOCK) BIO_set_retry_write(bio);
    return -1;
  }
}

int BioRead(BIO* bio, char* buffer, int size) {
  BIO_clear_retry_flags(bio);
  for (;;) {
    const ssize_t got = recv(FdOf(bio), buffer, static_cast<std::size_t>(size), MSG_DONTWAIT);
    if (got >= 0) return static_cast<int>(got);
    if (errno == EINTR) continue;
    if (errno == EAGAIN || errno == EWOULDBLOCK) BIO_set_retry_read(bio);
    return -1;
  }
}

long BioControl(BIO*, int command, long, void*) {  // NOLINT(google-runtime-int): OpenSSL's
  return command == BIO_CTRL_FLUSH ? 1 : 0;
}

BIO* MakeBio(int fd) {
  static BIO_METHOD* const method = [] {
    BIO_METHOD* made = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "troth socket");
    BIO_meth_set_write(made, BioWrite);
    BIO_meth_set_read(made, BioRead);
    BIO_meth_set_ctrl(made, BioControl);
    return made;
  }();
  BIO* bio = BIO_new(method);
  BIO_set_data(bio, reinterpret_cast<void*>(static_cast<std::intptr_t>(fd)));
  BIO_set_init(bio, 1);
  return bio;
}

steady_clock::time_point After(int timeout_ms) {
  return timeout_ms <= 0 ? steady_clock::time_point::max()
                         : steady_clock::now() + milliseconds(timeout_ms);
}

}  // namespace

WireSocket::WireSocket(TlsContext* tls, const std::string& host, int port)
    : TSocket(host, port), tls_(tls), called_(false) {}

WireSocket::WireSocket(TlsContext* tls, THRIFT_SOCKET fd, std::shared_ptr<THRIFT_SOCKET> interrupt,
                       const Patience& patience, std::shared_ptr<Doorkeeper> doors)
    : TSocket(fd, std::move(interrupt)),
      tls_(tls),
      called_(true),
      patience_(patience),
      doors_(std::move(doors)) {
  if (doors_ != nullptr) doors_->Came(fd);
}

WireSocket::~WireSocket() { WireSocket::close(); }

void WireSocket::open() {
  TSocket::open();
  if (tls_ == nullptr || ssl_ != nullptr) return;
  try {
    ShakeHands();
  } catch (...) {
    close();
    throw;
  }
}

void WireSocket::close() {
  if (ssl_ != nullptr) {
    // One try: who does not read our goodbye is not waited for.
    if (SSL_is_init_finished(ssl_)) SSL_shutdown(ssl_);
    ERR_clear_error();
    SSL_free(ssl_);
    ssl_ = nullptr;
  }
  if (socket_ != THRIFT_INVALID_SOCKET && doors_ != nullptr) doors_->Leaves(socket_);
  TSocket::close();
}

void WireSocket::Await(short events, TimePoint until) {  // NOLINT(google-runtime-int): poll's
  for (;;) {
    int left_ms = -1;
    if (until != TimePoint::max()) {
      const auto left = std::chrono::ceil<milliseconds>(until - steady_clock::now()).count();
      left_ms = static_cast<int>(std::clamp<std::int64_t>(left, 0, 1'000'000'000));
    }
    pollfd fds[2] = {{socket_, events, 0}, {-1, POLLIN, 0}};
    if (interruptListener_ != nullptr) fds[1].fd = *interruptListener_;
    const int ready = poll(fds, 2, left_ms);
    if (ready < 0 && errno == EINTR) continue;
    if (ready < 0) throw TTransportException(TTransportException::UNKNOWN, "poll", errno);
    if (ready == 0) throw TTransportException(TTransportException::TIMED_OUT, "timed out");
    if (fds[1].revents != 0) {
      throw TTransportException(TTransportException::INTERRUPTED, "the listener stops");
    }
    return;
  }
}

bool WireSocket::Retry(int result, TimePoint until) {
  switch (SSL_get_error(ssl_, result)) {
    case SSL_ERROR_WANT_READ: Await(POLLIN, until); return true;
    case SSL_ERROR_WANT_WRITE: Await(POLLOUT, until); return true;
    default: return false;
  }
}

void WireSocket::Greet() {
  const TimePoint until = After(called_ ? patience_.handshake_ms : std::max(connTimeout_, 1'000));
  for (;;) {
    ERR_clear_error();
    const int result = SSL_do_handshake(ssl_);
    if (result == 1) break;
    if (!Retry(result, until)) {
      throw TTransportException(TTransportException::NOT_OPEN, "no TLS: " + TlsFailure(ssl_));
    }
  }
  Result<std::string> name = PeerName(ssl_);
  if (!name.ok()) {
    throw TTransportException(TTransportException::NOT_OPEN, "no TLS: " + name.status().message());
  }
  peer_name_ = *std::move(name);
}

void WireSocket::ShakeHands() {
  Result<ssl_st*> made = tls_->Connection(called_ ? "" : getHost());
  if (!made.ok()) {
    throw TTransportException(TTransportException::NOT_OPEN, made.status().message());
  }
  ssl_ = *made;
  BIO* const bio = MakeBio(socket_);
  SSL_set_bio(ssl_, bio, bio);
  try {
    Greet();
    if (!called_ || doors_ == nullptr || doors_->Proved(socket_, peer_name_)) return;
    throw TTransportException(
        TTransportException::NOT_OPEN,
        "certificate '" + peer_name_ + "', or all together, have too many connections");
  } catch (const TTransportException& e) {
    if (!called_) throw;
    LOG_EVERY_T(WARNING, 1) << "closing a connection from " << getPeerAddress() << ": " << e.what();
    // The other side should read why, not find the connection reset by what it had sent.
    ::shutdown(socket_, SHUT_WR);
    const TimePoint until = After(kGoodbyeMs);
    std::array<char, 4096> unread;
    try {
      do {
        Await(POLLIN, until);
      } while (recv(socket_, unread.data(), unread.size(), MSG_DONTWAIT) > 0);
    } catch (const TTransportException&) {  // it was given its time
    }
    throw;
  }
}

void WireSocket::BeginFrame() {
  if (frame_reads_ > 1) recvTimeout_ = idle_ms_;
  frame_reads_ = 0;
}

// The second read of a frame, and each that follows: most frames come with one.
void WireSocket::HoldToFrame() {
  if (frame_reads_ == 1) {
    frame_until_ = After(patience_.frame_ms);
    idle_ms_ = recvTimeout_;
  }
  ++frame_reads_;
  const auto left = std::chrono::ceil<milliseconds>(frame_until_ - steady_clock::now()).count();
  if (left <= 0) {
    throw TTransportException(TTransportException::TIMED_OUT, "a frame took too long");
  }
  recvTimeout_ = static_cast<int>(left);  // poll's; the descriptor's own does not matter
}

std::uint32_t WireSocket::read(std::uint8_t* buffer, std::uint32_t size) {
  if (called_) {
    if (doors_ != nullptr && doors_->closed()) {
      throw TTransportException(TTransportException::INTERRUPTED, "the listener stops");
    }
    if (tls_ != nullptr && ssl_ == nullptr) ShakeHands();
    if (frame_reads_ > 0) {
      HoldToFrame();
    } else {
      frame_reads_ = 1;
    }
  }
  if (tls_ == nullptr) return called_ ? TSocket::read(buffer, size) : ReadPlain(buffer, size);
  if (ssl_ == nullptr) throw TTransportException(TTransportException::NOT_OPEN, "not connected");
  TimePoint until = After(recvTimeout_);
  for (bool first = true;; first = false) {
    ERR_clear_error();
    const int got = SSL_read(ssl_, buffer, static_cast<int>(size));
    if (got > 0) return static_cast<std::uint32_t>(got);
    // A record began, and is not whole: from here its patience counts.
    if (!first && called_) until = std::min(until, After(patience_.frame_ms));
    if (Retry(got, until)) continue;
    if (called_ || SSL_get_error(ssl_, got) != SSL_ERROR_SSL) return 0;
    // With TLS 1.3 a server judges our certificate when our handshake is done already.
    throw TTransportException(TTransportException::END_OF_FILE,
                              "broken off by the other side: " + TlsFailure(ssl_));
  }
}

// A signal ends the wait of a recv() that has a time limit, even with SA_RESTART. TSocket begins it
// anew, with all its time, and gives up at the sixth.
std::uint32_t WireSocket::ReadPlain(std::uint8_t* buffer, std::uint32_t size) {
  const TimePoint until = After(recvTimeout_);
  for (;;) {
    const ssize_t got = recv(socket_, buffer, size, 0);
    if (got >= 0) return static_cast<std::uint32_t>(got);
    if (errno == ECONNRESET) return 0;
    if (errno == EAGAIN || errno == EWOULDBLOCK) {
      throw TTransportException(TTransportException::TIMED_OUT, "timed out");
    }
    if (errno != EINTR) throw TTransportException(TTransportException::UNKNOWN, "recv", errno);
    Await(POLLIN, until);
  }
}

void WireSocket::write(const std::uint8_t* data, std::uint32_t size) {
  if (tls_ == nullptr) return TSocket::write(data, size);
  for (std::uint32_t sent = 0; sent < size;) sent += write_partial(data + sent, size - sent);
}

std::uint32_t WireSocket::write_partial(const std::uint8_t* data, std::uint32_t size) {
  if (tls_ == nullptr) return TSocket::write_partial(data, size);
  if (ssl_ == nullptr) throw TTransportException(TTransportException::NOT_OPEN, "not connected");
  const TimePoint until = After(sendTimeout_);
  for (;;) {
    ERR_clear_error();
    const int sent = SSL_write(ssl_, data, static_cast<int>(size));
    if (sent > 0) return static_cast<std::uint32_t>(sent);
    if (!Retry(sent, until)) {
      throw TTransportException(TTransportException::NOT_OPEN, "lost: " + TlsFailure(ssl_));
    }
  }
}

bool WireSocket::peek() {
  if (tls_ == nullptr) return TSocket::peek();
  if (called_ && ssl_ == nullptr) ShakeHands();
  if (ssl_ == nullptr) return false;
  const TimePoint until = After(recvTimeout_);
  for (;;) {
    char byte;
    ERR_clear_error();
    const int got = SSL_peek(ssl_, &byte, 1);
    if (got > 0) return true;
    if (!Retry(got, until)) return false;
  }
}

bool WireSocket::hasPendingDataToRead() {
  if (tls_ == nullptr) return TSocket::hasPendingDataToRead();
  return ssl_ != nullptr && SSL_has_pending(ssl_) != 0;
}

ssize_t WireSocket::TakeNow(char* buffer, std::size_t size) {
  if (tls_ == nullptr) {
    for (;;) {
      const ssize_t got = recv(socket_, buffer, size, MSG_DONTWAIT);
      if (got > 0) return got;
      if (got < 0 && errno == EINTR) continue;
      return got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK) ? 0 : -1;
    }
  }
  ERR_clear_error();
  const int most = static_cast<int>(std::min<std::size_t>(size, std::numeric_limits<int>::max()));
  const int got = ssl_ == nullptr ? -1 : SSL_read(ssl_, buffer, most);
  if (got > 0) return got;
  return ssl_ != nullptr && SSL_get_error(ssl_, got) == SSL_ERROR_WANT_READ ? 0 : -1;
}

bool WireSocket::GiveNow(const char* data, std::size_t size) {
  if (tls_ == nullptr) {
    return send(socket_, data, size, MSG_DONTWAIT | MSG_NOSIGNAL) == static_cast<ssize_t>(size);
  }
  ERR_clear_error();
  return ssl_ != nullptr && SSL_write(ssl_, data, static_cast<int>(size)) == static_cast<int>(size);
}

bool WireSocket::Quiet() {
  pollfd fd{socket_, POLLIN | POLLRDHUP, 0};
  if (tls_ == nullptr) return poll(&fd, 1, 0) == 0;
  if (ssl_ == nullptr || SSL_has_pending(ssl_) != 0) return false;
  if (poll(&fd, 1, 0) == 0) return true;
  char byte;  // what is TLS's own (another's tickets) is taken, and is no news
  ERR_clear_error();
  const int got = SSL_peek(ssl_, &byte, 1);
  return got <= 0 && SSL_get_error(ssl_, got) == SSL_ERROR_WANT_READ;
}

}  // namespace troth
