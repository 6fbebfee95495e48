// The coordinator's Thrift edge: three listeners (clients, peers, administrators) so that a
// full one never blocks another. Turns calls into events and replies into answers, and an
// administrator's order into the steps of its plan; decides nothing. thrift/coordinator.thrift has
// the contract of each call.
#pragma once

#include <memory>
#include <string>

#include "common/status.h"
#include "coordinator/coordinator.h"
#include "coordinator/crew.h"
#include "coordinator/inspection_service.h"
#include "coordinator/monitoring_service.h"
#include "coordinator/thrift_channel.h"
#include "wire/security.h"

namespace troth {

class CoordinatorServer {
 public:
  struct Options {
    std::string coordinator_id;
    std::string epoch_secret;  // random, of this life; secrets of participants derive from it
    std::string host = "127.0.0.1";
    int client_port = 0;  // 0: any free one
    int peer_port = 0;
    int admin_port = 0;
    int max_clients = 1'000;
    int max_peers = 256;
    int max_administrators = 16;
    int idle_ms = 300'000;
    Monitoring* monitoring = nullptr;  // told how commits end; outlives the server
    Inspection* inspection = nullptr;  // asked by administrators; outlives the server
    // What this process finds when it looks at itself.
    std::function<std::vector<wire::Finding>()> findings;
    // Commit calls that take so long are told in the log, with where the time went; 0: none.
    std::int64_t slow_ms = 0;
    Security* security = nullptr;  // null: plain text; else it outlives the server
    int max_per_certificate = 0;   // clients' connections; 0: three quarters
  };

  // Borrows all; they must outlive it.
  CoordinatorServer(Options options, Coordinator* coordinator, Crew* crew, ThriftChannel* channel);
  ~CoordinatorServer();

  // Opens the listeners. On an error none is open.
  Status Start();
  // Closes them; calls under way end first, so the crew must be stopped before.
  void Stop();

  // "serving", or why not: as CoordinatorStatus.state.
  std::string State() const;
  // The values of this moment, for /metrics.
  void FillMetrics(MetricPage* page) const;

  int client_port() const;
  int peer_port() const;
  int admin_port() const;

  struct Rep;

 private:
  std::unique_ptr<Rep> rep_;
};

}  // namespace troth
