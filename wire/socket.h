// The socket under every connection of Troth, plain or TLS, called or calling. Plain text costs
// what Thrift's own socket costs. Knows no service. docs/operations.md, "Security".
#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>

#include <thrift/transport/TSocket.h>

#include "wire/doorkeeper.h"
#include "wire/tls.h"

namespace troth {

// Used by one thread at a time. Failures are TTransportExceptions. OpenSSL reads and writes
// without waiting; waiting is poll's, with limits: the descriptor blocks or not, as it was.
class WireSocket : public apache::thrift::transport::TSocket {
 public:
  // How long a caller may take.
  struct Patience {
    int handshake_ms = 5'000;  // as a whole
    int frame_ms = 10'000;     // from the first bytes of a frame to its last
  };

  // To call; connects, and shakes hands, when opened, within the connect timeout. The other side's
  // certificate must name `host`. Without `tls`, which outlives it: plain text.
  WireSocket(TlsContext* tls, const std::string& host, int port);
  // A connection that was accepted. Shakes hands at the first read. `doors` may be null.
  WireSocket(TlsContext* tls, THRIFT_SOCKET fd, std::shared_ptr<THRIFT_SOCKET> interrupt,
             const Patience& patience, std::shared_ptr<Doorkeeper> doors);
  ~WireSocket() override;

  void open() override;
  void close() override;
  std::uint32_t read(std::uint8_t* buffer, std::uint32_t size) override;
  void write(const std::uint8_t* data, std::uint32_t size) override;
  std::uint32_t write_partial(const std::uint8_t* data, std::uint32_t size) override;
  bool peek() override;
  bool hasPendingDataToRead() override;

  // The name in the other side's certificate; empty in plain text, and before the handshake.
  const std::string& peer_name() const { return peer_name_; }
  bool encrypted() const { return tls_ != nullptr; }

  // A frame is about to be read: until the next call its patience counts.
  void BeginFrame();

  // Without waiting, beside the calls above. Takes what is there: number of bytes; 0: nothing now;
  // -1: the connection has ended. Call until 0: what OpenSSL holds makes no descriptor readable.
  ssize_t TakeNow(char* buffer, std::size_t size);
  // Writes all of it, or false: the connection is of no use any more.
  bool GiveNow(const char* data, std::size_t size);
  // Nothing came, not even the end. No waiting.
  bool Quiet();

 private:
  using TimePoint = std::chrono::steady_clock::time_point;

  void ShakeHands();
  void Greet();
  // Waits until the descriptor is ready for `events`. TIMED_OUT, or INTERRUPTED: we stop.
  void Await(short events, TimePoint until);  // NOLINT(google-runtime-int): poll's
  // Of one who calls, in plain text.
  std::uint32_t ReadPlain(std::uint8_t* buffer, std::uint32_t size);
  // After an unfinished step: waits for what OpenSSL needs; false: it is over.
  bool Retry(int result, TimePoint until);
  void HoldToFrame();

  TlsContext* const tls_;
  const bool called_;
  const Patience patience_;
  const std::shared_ptr<Doorkeeper> doors_;
  ssl_st* ssl_ = nullptr;
  std::string peer_name_;
  int idle_ms_ = 0;
  int frame_reads_ = 0;
  TimePoint frame_until_;
};

}  // namespace troth
