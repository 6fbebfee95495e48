// What a coordinator finds when it looks at itself: its disk, its log, its flags, its clock. Reads
// only. docs/operations.md, "Look at the whole deployment".
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "coordinator_types.h"
#include "wire/security.h"

namespace troth {

// As the flags of the program say.
struct DiagnosisOptions {
  std::string wal_dir;
  std::string host;
  int http_port = -1;
  std::int64_t lease_ms = 0;
  std::int64_t record_retention_ms = 0;
  std::int64_t outcome_retention_ms = 0;
  std::uint64_t segment_bytes = 0;
  Security* security = nullptr;
};

// `state` as /readyz tells it. Blocks for two looks at the file system.
std::vector<wire::Finding> DiagnoseCoordinator(const DiagnosisOptions& options,
                                               const std::string& state);

}  // namespace troth
