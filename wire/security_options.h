// What a process is told of TLS and roles: paths only, nothing in here is secret. Apart, for what
// includes it is installed. docs/operations.md, "Security".
#pragma once

#include <string>

namespace troth {

// PEM: our certificate (with those between it and the authority, if any), its private key, and the
// certificates of the authorities that callers and called are vouched for by. All or none.
struct TlsFiles {
  std::string certificate, key, authorities;
  bool none() const { return certificate.empty() && key.empty() && authorities.empty(); }
};

// Without files of TLS all traffic is plain text.
struct SecurityOptions {
  TlsFiles tls;
  // Who may do what; processes that serve need it with TLS.
  std::string roles;
  // Plain text on other addresses than this machine's own.
  bool allow_plain_text = false;
};

}  // namespace troth
