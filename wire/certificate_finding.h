// What a process finds when it looks at its own certificate and file of roles: read at all, and for
// how long still.
// docs/operations.md, "Look at the whole deployment".
#pragma once

#include <cstdint>
#include <vector>

#include "common/status.h"
#include "participant_types.h"
#include "wire/security.h"

namespace troth {

// `left`: seconds until it ends, or why that can't be told. A warning from 14 days on.
wire::Finding FindingOfCertificate(const Result<std::int64_t>& left);

// Of one that serves: the same of the certificate in use, and of the file of roles; nothing without
// TLS. Reads the files again if they have changed; wrong if they are of no use as they are now,
// though what was read before serves on: a restart would end that.
std::vector<wire::Finding> LookAtSecurity(Security* security);

}  // namespace troth
