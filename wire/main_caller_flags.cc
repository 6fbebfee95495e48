// See main_flags.h: programs that only call.
#include <gflags/gflags.h>

#include "wire/main_flags.h"

DEFINE_string(tls_cert, "", "TLS: file of our certificate (PEM); read anew when it changes");
DEFINE_string(tls_key, "", "TLS: file of its private key (PEM, mode 600)");
DEFINE_string(tls_ca, "", "TLS: file of the authority's certificate (PEM) that vouches for others");

namespace troth {

TlsFiles CallerTlsFromFlags() { return {FLAGS_tls_cert, FLAGS_tls_key, FLAGS_tls_ca}; }

}  // namespace troth
