// The Thrift edge of a participant: values of the wire to values of ours and back, and the
// services that coordinators and administrators call. Here exceptions end, and begin.
// Knows no PostgreSQL. docs/protocol.md, "Messages".
#pragma once

#include <functional>
#include <memory>
#include <string>

#include <thrift/TProcessor.h>

#include "participant/branch_table.h"
#include "participant/epoch_fence.h"
#include "participant_types.h"
#include "troth_types.h"
#include "wire/http_listener.h"
#include "wire/security.h"

namespace troth {

// At most this many entries in a prepare or finish; more are refused (INVALID).
inline constexpr std::size_t kMaxListEntries = 512;
// How long a finish waits for slow entries, and a prepare for those that it brings for the first
// time: long enough for a loaded server, or each is asked for once more.
inline constexpr std::chrono::milliseconds kEntryWait{8};
// How long a prepare waits that brings none but those that were slow before. Beside others these
// hold nobody up.
inline constexpr std::chrono::milliseconds kSlowEntryWait{2};

// What the services need to know beside the table.
struct ServiceContext {
  std::string participant;
  std::string instance;
  DatabaseIdentity database;
  // The database as it was last enrolled: at another address after a failover.
  std::function<DatabaseState()> enrolled;
  BranchTable* table = nullptr;
  EpochFence* fence = nullptr;
  Security* security = nullptr;  // null: plain text
  // For administrators.
  std::function<wire::ParticipantStatusReport()> status;
  std::function<Result<std::vector<wire::PreparedBranch>>(const std::vector<std::string>& ids,
                                                          std::size_t limit)>
      prepared;
  // By order of a person, without a coordinator's answer; kNotFound: no such branch; kRefused: its
  // coordinator is there, and answers otherwise.
  std::function<Result<FinishResult>(const std::string& id, std::uint32_t xid, bool commit,
                                     const std::string& order)>
      settle;
  std::function<std::vector<wire::Finding>()> findings;
  // Ids of the coordinators it has enrolled at.
  std::function<std::vector<std::string>()> coordinators;
};

wire::Refused ToWire(const Refusal& refusal);
// `database` and `mac` are for votes that are prepared; an empty mac is left out.
wire::Vote ToWire(const Vote& vote, const DatabaseIdentity& database, const std::string& mac);
// kInvalid for values out of range.
Granted<WorkRequest> FromWire(const wire::Context& context);

// Throws wire::Refused(VERSION_MISMATCH) unless `version` is ours.
void CheckVersion(std::int32_t version);

// What a participant tells over HTTP: /metrics, /healthz, /readyz.
// `overloaded`: branches refused for load so far. `prepared` is asked for /metrics only.
HttpReply MonitoringPage(const wire::ParticipantStatusReport& report, std::uint64_t overloaded,
                         const std::function<Result<std::vector<wire::PreparedBranch>>()>& prepared,
                         const std::string& path);

// ParticipantPeer and ParticipantAdmin on one connection. `context` outlives it.
std::shared_ptr<apache::thrift::TProcessor> MakePeerProcessor(const ServiceContext* context);

}  // namespace troth
