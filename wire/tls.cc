// See tls.h.
#include "wire/tls.h"

#include <arpa/inet.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <memory>

#include <glog/logging.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

namespace troth {
namespace {

constexpr std::size_t kMaxNameBytes = 128;

std::string FirstError() {
  const unsigned long error = ERR_get_error();  // NOLINT(google-runtime-int): OpenSSL's
  ERR_clear_error();
  if (error == 0) return "no reason is known";
  const char* reason = ERR_reason_error_string(error);
  return reason != nullptr ? reason : "error " + std::to_string(error);
}

Status Useless(const std::string& flag, const std::string& path, const std::string& why) {
  return Status(Code::kInvalid, "TLS: " + flag + " '" + path + "': " + why);
}

// Others than its owner, and a group that root chose, must not be able to read a key.
Status CheckKeyMode(const std::string& path) {
  struct stat info;
  if (stat(path.c_str(), &info) != 0) return Useless("--tls_key", path, std::strerror(errno));
  const mode_t forbidden = info.st_uid == 0 ? 037 : 077;
  if ((info.st_mode & forbidden) == 0) return OkStatus();
  return Useless("--tls_key", path, "others may read it; run: chmod 600 " + path);
}

bool IsNameByte(unsigned char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
         c == '_' || c == '@' || c == '-';
}

bool IsAddress(const std::string& host) {
  unsigned char bytes[16];
  return inet_pton(AF_INET, host.c_str(), bytes) == 1 ||
         inet_pton(AF_INET6, host.c_str(), bytes) == 1;
}

}  // namespace

FileStamp FileStamp::Of(const std::string& path) {
  struct stat info;
  if (path.empty() || stat(path.c_str(), &info) != 0) return {};
  return {info.st_ino, info.st_ctim.tv_sec * 1'000'000'000 + info.st_ctim.tv_nsec, info.st_size};
}

TlsContext::TlsContext(TlsFiles files) : files_(std::move(files)) {}

TlsContext::~TlsContext() { SSL_CTX_free(context_); }

TlsContext::Stamps TlsContext::Look() const {
  return {FileStamp::Of(files_.certificate), FileStamp::Of(files_.key),
          FileStamp::Of(files_.authorities)};
}

Result<ssl_ctx_st*> TlsContext::Read() const {
  if (files_.certificate.empty() || files_.key.empty() || files_.authorities.empty()) {
    return Status(Code::kInvalid,
                  "TLS needs all three of --tls_cert, --tls_key and --tls_ca, or none of them");
  }
  TROTH_RETURN_IF_ERROR(CheckKeyMode(files_.key));
  ERR_clear_error();
  std::unique_ptr<SSL_CTX, decltype(&SSL_CTX_free)> context(SSL_CTX_new(TLS_method()),
                                                            SSL_CTX_free);
  if (context == nullptr) return Status(Code::kInvalid, "TLS: OpenSSL: " + FirstError());
  SSL_CTX* const c = context.get();
  SSL_CTX_set_min_proto_version(c, TLS1_2_VERSION);
  SSL_CTX_set_options(c, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION | SSL_OP_NO_TICKET |
                             SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_IGNORE_UNEXPECTED_EOF);
  SSL_CTX_set_num_tickets(c, 0);
  SSL_CTX_set_session_cache_mode(c, SSL_SESS_CACHE_OFF);
  SSL_CTX_set_mode(c, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
  SSL_CTX_set_verify(c, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, nullptr);
  // Of TLS 1.2 only what gives forward secrecy and authenticates as it encrypts.
  if (SSL_CTX_set_cipher_list(c, "ECDHE+AESGCM:ECDHE+CHACHA20") != 1) {
    return Status(Code::kInvalid, "TLS: OpenSSL has no ciphers: " + FirstError());
  }
  // No password is asked for on a terminal: a key that has one cannot be read.
  SSL_CTX_set_default_passwd_cb(c, [](char*, int, int, void*) { return 0; });
  if (SSL_CTX_load_verify_file(c, files_.authorities.c_str()) != 1) {
    return Useless("--tls_ca", files_.authorities, FirstError());
  }
  if (SSL_CTX_use_certificate_chain_file(c, files_.certificate.c_str()) != 1) {
    return Useless("--tls_cert", files_.certificate, FirstError());
  }
  if (SSL_CTX_use_PrivateKey_file(c, files_.key.c_str(), SSL_FILETYPE_PEM) != 1 ||
      SSL_CTX_check_private_key(c) != 1) {
    return Useless("--tls_key", files_.key, FirstError());
  }
  return context.release();
}

Status TlsContext::Load() {
  const Stamps stamps = Look();
  MutexLock lock(&mutex_);
  // What failed is tried again: it need not be the files, descriptors may have been short.
  if (context_ != nullptr && last_.ok() && stamps == tried_) return OkStatus();
  tried_ = stamps;
  Result<ssl_ctx_st*> read = Read();
  const bool told = !last_.ok() && read.status().message() == last_.message();
  last_ = read.status();
  if (read.ok()) {
    if (context_ != nullptr) LOG(INFO) << "TLS: read " << files_.certificate << " anew";
    SSL_CTX_free(context_);  // open connections keep what they were made of
    context_ = *read;
    return OkStatus();
  }
  if (context_ == nullptr) return last_;
  if (!told) LOG(ERROR) << last_.message() << "; what was read before serves on";
  return OkStatus();
}

Result<ssl_st*> TlsContext::Connection(const std::string& host) {
  TROTH_RETURN_IF_ERROR(Load());
  SSL* connection = nullptr;
  {
    MutexLock lock(&mutex_);
    connection = SSL_new(context_);
  }
  if (connection == nullptr) return Status(Code::kUnavailable, "TLS: OpenSSL: " + FirstError());
  if (host.empty()) {
    SSL_set_accept_state(connection);
    return connection;
  }
  SSL_set_connect_state(connection);
  X509_VERIFY_PARAM* const wanted = SSL_get0_param(connection);
  X509_VERIFY_PARAM_set_hostflags(
      wanted, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS | X509_CHECK_FLAG_NEVER_CHECK_SUBJECT);
  const bool set = IsAddress(host) ? X509_VERIFY_PARAM_set1_ip_asc(wanted, host.c_str()) == 1
                                   : X509_VERIFY_PARAM_set1_host(wanted, host.c_str(), 0) == 1 &&
                                         SSL_set_tlsext_host_name(connection, host.c_str()) == 1;
  if (set) return connection;
  SSL_free(connection);
  return Status(Code::kInvalid, "TLS: '" + host + "' is no name and no address");
}

Result<std::int64_t> TlsContext::SecondsLeft() {
  TROTH_RETURN_IF_ERROR(Load());
  MutexLock lock(&mutex_);
  TROTH_RETURN_IF_ERROR(last_);
  const X509* const certificate = SSL_CTX_get0_certificate(context_);
  int days = 0, seconds = 0;
  if (certificate == nullptr ||
      ASN1_TIME_diff(&days, &seconds, nullptr, X509_get0_notAfter(certificate)) != 1) {
    return Useless("--tls_cert", files_.certificate, "its end cannot be read");
  }
  return std::int64_t{days} * 86'400 + seconds;
}

Result<std::string> PeerName(ssl_st* connection) {
  X509* const certificate = SSL_get0_peer_certificate(connection);
  if (certificate == nullptr) return Status(Code::kForbidden, "no certificate was shown");
  X509_NAME* const subject = X509_get_subject_name(certificate);
  const int at = X509_NAME_get_index_by_NID(subject, NID_commonName, -1);
  if (at < 0 || X509_NAME_get_index_by_NID(subject, NID_commonName, at) >= 0) {
    return Status(Code::kForbidden, "the certificate has not exactly one common name");
  }
  unsigned char* bytes = nullptr;
  const int size =
      ASN1_STRING_to_UTF8(&bytes, X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, at)));
  const std::string name(reinterpret_cast<char*>(bytes), size > 0 ? size : 0);
  OPENSSL_free(bytes);
  bool fit = !name.empty() && name.size() <= kMaxNameBytes;
  for (const char c : name) fit = fit && IsNameByte(static_cast<unsigned char>(c));
  if (!fit) {
    return Status(Code::kForbidden,
                  "the certificate's common name is not 1 to 128 of "
                  "[A-Za-z0-9._@-]");
  }
  return name;
}

std::string TlsFailure(ssl_st* connection) {
  const long verdict = SSL_get_verify_result(connection);  // NOLINT(google-runtime-int): OpenSSL's
  const std::string reason = FirstError();
  if (verdict == X509_V_OK) return reason;
  return std::string("its certificate: ") + X509_verify_cert_error_string(verdict);
}

}  // namespace troth
