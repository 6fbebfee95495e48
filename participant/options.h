// What a participant process is told at its start. A main fills it from its flags; the
// comments here are the flags' help. docs/operations.md.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "wire/security_options.h"

namespace troth {

struct ParticipantOptions {
  // The participant's name: [a-z0-9-], in GIDs and commit lists. Required.
  std::string name;
  // libpq connection string of the database. Required.
  std::string conninfo;

  // Where applications reach it. Port 0: any free one.
  std::string host = "127.0.0.1";
  int port = 0;
  // Where the coordinator reaches it, on the same host. Port 0: any free one.
  int peer_port = 0;
  // For /metrics, /healthz and /readyz. 0: any free one; -1: none.
  int http_port = -1;
  // Address the listeners bind to.
  std::string bind = "127.0.0.1";

  // Coordinators' peer addresses, "host:port". At least one.
  std::vector<std::string> coordinators;

  // Connections for branches: as many branches can be open, not yet prepared, at once.
  int pool_size = 32;
  // Connections for phase two.
  int finish_connections = 8;
  // Branches open or in doubt at once. max_prepared_transactions must be at least this.
  int max_in_doubt = 200;
  // Connections accepted at once by the work listener and by the peer listener.
  int max_work_connections = 256;
  int max_peer_connections = 32;
  // Pieces of work that take so long are logged, with where the time went. 0: none.
  std::int64_t slow_ms = 1'000;
  // A connection on which nothing is asked for so long is closed.
  std::int64_t idle_connection_ms = 300'000;

  // TLS, who may do what, and whether plain text may leave this machine.
  SecurityOptions security;
};

}  // namespace troth
