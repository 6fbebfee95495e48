// TLS for every hop, with a certificate on both sides: files, read again when they change, made
// into OpenSSL's connections. Knows no role and no socket. docs/operations.md, "Security".
#pragma once

#include <array>
#include <cstdint>
#include <string>

#include "common/status.h"
#include "common/thread_annotations.h"
#include "wire/security_options.h"

struct ssl_st;      // OpenSSL's SSL
struct ssl_ctx_st;  // and SSL_CTX

namespace troth {

// Tells a file from what it was before: replaced, rewritten, gone.
struct FileStamp {
  std::uint64_t inode = 0;
  std::int64_t changed_ns = -1;  // its mode too; -1: there is none
  std::int64_t size = 0;
  bool operator==(const FileStamp&) const = default;
  static FileStamp Of(const std::string& path);
};

// Thread-safe. TLS 1.2 and 1.3 (RFC 8446) with forward secrecy; no resumption, so that each
// connection is vouched for anew; no renegotiation, no compression.
class TlsContext {
 public:
  // Reads nothing yet.
  explicit TlsContext(TlsFiles files);
  ~TlsContext();
  TlsContext(const TlsContext&) = delete;
  TlsContext& operator=(const TlsContext&) = delete;

  // Reads the files if that was not done yet, or if they have changed. kInvalid: they are of no
  // use, and never were; the message names the file. Files that turn bad later (half copied, say)
  // are logged, and what was read before serves on.
  Status Load() TROTH_EXCLUDES(mutex_);

  // One side of a new connection, with what Load finds; both sides must show a certificate. The
  // caller frees it (SSL_free). `host`: whom we call, by name or address, to be found in its
  // certificate; empty: we are called.
  Result<ssl_st*> Connection(const std::string& host) TROTH_EXCLUDES(mutex_);

  // Seconds until our own certificate ends, of what Load finds; negative: it has. kInvalid also
  // when the files as they are now are of no use, and what was read before serves on.
  Result<std::int64_t> SecondsLeft() TROTH_EXCLUDES(mutex_);

 private:
  using Stamps = std::array<FileStamp, 3>;
  Result<ssl_ctx_st*> Read() const;
  Stamps Look() const;

  const TlsFiles files_;
  Mutex mutex_;
  Stamps tried_ TROTH_GUARDED_BY(mutex_);
  ssl_ctx_st* context_ TROTH_GUARDED_BY(mutex_) = nullptr;
  Status last_ TROTH_GUARDED_BY(mutex_);
};

// The name in the certificate of the other side: its one common name. kForbidden when there is
// none, more than one, or it is more than 128 bytes or other bytes than [A-Za-z0-9._@-].
Result<std::string> PeerName(ssl_st* connection);

// Why a step of TLS on `connection` failed, for people; empties OpenSSL's queue of errors.
std::string TlsFailure(ssl_st* connection);

}  // namespace troth
