// See main_flags.h: programs that serve.
#include <gflags/gflags.h>

#include "wire/main_flags.h"

DEFINE_string(tls_roles, "", "TLS: file that says which certificate may do what");
DEFINE_bool(allow_plain_text, false,
            "without TLS: listen on other addresses than this machine's own, too");

namespace troth {

SecurityOptions SecurityFromFlags() {
  return {CallerTlsFromFlags(), FLAGS_tls_roles, FLAGS_allow_plain_text};
}

}  // namespace troth
