// What a process finds when it looks at its own certificate: read at all, and for how long still.
// docs/operations.md, "Look at the whole deployment".
#pragma once

#include <cstdint>
#include <optional>

#include "common/status.h"
#include "participant_types.h"
#include "wire/security.h"

namespace troth {

// `left`: seconds until it ends, or why that can't be told. A warning from 14 days on.
wire::Finding FindingOfCertificate(const Result<std::int64_t>& left);

// The same of the certificate in use; nothing without TLS. Reads the files again if they have
// changed.
std::optional<wire::Finding> LookAtCertificate(Security* security);

}  // namespace troth
