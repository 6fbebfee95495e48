// The flags of TLS and roles, for main files: two libraries, one for programs that only call and
// one for those that serve. docs/operations.md, "Security".
#pragma once

#include <string>

#include "wire/security.h"

namespace troth {

// --tls_cert, --tls_key, --tls_ca. Of the target troth_caller_flags.
TlsFiles CallerTlsFromFlags();

// These, --tls_roles and --allow_plain_text. Of the target troth_security_flags.
SecurityOptions SecurityFromFlags();

}  // namespace troth
