// What a process finds when it looks at its own certificate: read at all, and for how long still.
// docs/operations.md, "Look at the whole deployment".
#pragma once

#include <optional>

#include "participant_types.h"
#include "wire/security.h"

namespace troth {

// Nothing without TLS. Reads the files again if they have changed.
std::optional<wire::Finding> LookAtCertificate(Security* security);

}  // namespace troth
