// The protocol's values of this moment, for /metrics and status: copied while the machine is
// looked at. docs/monitoring/ has the dashboard and alerts that use them.
#pragma once

#include "coordinator/commit_protocol.h"
#include "coordinator/thrift_channel.h"
#include "wire/metrics.h"

namespace troth {

// As CoordinatorStatus.state.
const char* StateOf(const CommitProtocol& protocol);

void FillTransactions(const CommitProtocol& protocol, MetricPage* page);
void FillParticipants(const CommitProtocol& protocol, const ThriftChannel& channel,
                      MetricPage* page);
void FillCalls(const ThriftChannel::Stats& calls, MetricPage* page);

}  // namespace troth
