// The commands of trothctl. Each prints to stdout what was asked for, to stderr why not, and
// returns the exit code: 0 done, 1 refused, or the answer is no, 2 called wrongly, 3 not reachable,
// 4 no answer came, so that nobody knows what was done.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "wire/security_options.h"

namespace troth {

struct ControlOptions {
  std::string coordinator;  // host:port of the administrators' listener
  bool json = false;
  int limit = 100;
  std::string reason;
  std::string transaction;  // wal dump: only this one
  std::string name;         // wal: whose log it must be; empty: anybody's
  bool in_doubt = false;    // list: with what participants hold
  std::int64_t older_than_ms = 0;
  std::string participant;  // list: where something is unfinished
  bool commit = false;      // resolve
  bool abort = false;
  bool decision_lost = false;
  bool yes = false;
  std::string token;
  std::string who;
  int wait_s = -1;       // drain: at most so long; -1: until all has ended
  std::string database;  // why: how to reach a lost participant's database
  TlsFiles tls;          // none: plain text
};

using Arguments = std::vector<std::string>;

// A transaction as people name it: `<transaction id>`, or a GID, `troth:<participant>:<id>`.
struct Asked {
  std::string transaction_id;
  std::string participant;  // of a GID
};
// None: said on stderr.
std::optional<Asked> ParseAsked(const std::string& text);

// Against a running coordinator.
int StatusCommand(const ControlOptions& options, const Arguments& arguments);
int ListCommand(const ControlOptions& options, const Arguments& arguments);
int ShowCommand(const ControlOptions& options, const Arguments& arguments);
int TraceCommand(const ControlOptions& options, const Arguments& arguments);
int WhyCommand(const ControlOptions& options, const Arguments& arguments);
int ResolveCommand(const ControlOptions& options, const Arguments& arguments);
int DoctorCommand(const ControlOptions& options, const Arguments& arguments);
int HeuristicsCommand(const ControlOptions& options, const Arguments& arguments);
int ParticipantsCommand(const ControlOptions& options, const Arguments& arguments);
int DrainCommand(const ControlOptions& options, const Arguments& arguments);
int AcceptGapCommand(const ControlOptions& options, const Arguments& arguments);
int DiscardReportCommand(const ControlOptions& options, const Arguments& arguments);

// On a log directory; read only, on a live one too.
int AuditCommand(const ControlOptions& options, const Arguments& arguments);
int WalCommand(const ControlOptions& options, const Arguments& arguments);

}  // namespace troth
