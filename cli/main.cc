// trothctl: what is in doubt, why, and settling it without guessing. docs/operations.md.
#include <charconv>
#include <iostream>
#include <map>

#include <gflags/gflags.h>

#include "cli/commands.h"
#include "cli/terminal.h"
#include "common/program.h"
#include "wire/main_flags.h"

DEFINE_string(coordinator, "127.0.0.1:7713", "administrators' listener of the coordinator");
DEFINE_bool(json, false, "output for programs");
DEFINE_int32(limit, 100, "list: at most so many");
DEFINE_string(reason, "",
              "who decides, and why; recorded for ever, of discard-report told in the log");
DEFINE_string(transaction, "", "wal dump: only what concerns this transaction");
DEFINE_bool(in_doubt, false, "list: also what participants hold prepared, and whom it blocks");
DEFINE_string(older_than, "", "list: only what is older: 500ms, 30s, 5min, 2h");
DEFINE_string(participant, "", "list: only where this participant is unfinished");
DEFINE_string(database, "",
              "why: words of a connection string (user=... passfile=...) for the database of a "
              "participant that is lost; host and port are known");
DEFINE_bool(commit, false, "resolve: commit it");
DEFINE_bool(abort, false, "resolve: abort it");
DEFINE_bool(decision_lost, false,
            "resolve: nobody who could know the decision is left; a person decides");
DEFINE_bool(yes, false, "resolve: do it at once, without showing it first");
DEFINE_string(token, "",
              "resolve: what the first step printed; carries out exactly what was shown");
DEFINE_string(who, "", "resolve: who orders it; default: the user who runs this, and the host");
DEFINE_int32(wait_s, -1, "drain: wait at most so long for what is under way; -1: until all ended");
DEFINE_string(name, "", "wal: name or id of the coordinator whose log it must be");

namespace {

constexpr char kUsage[] =
    "Sees and settles what a coordinator of Troth has in hand.\n"
    "\n"
    "  trothctl status                            state, counts, participants\n"
    "  trothctl list [--limit N]                  transactions undecided or not applied yet\n"
    "  trothctl list --in_doubt [--older_than AGE] [--participant NAME]\n"
    "                                             these, what participants hold, whom it blocks\n"
    "  trothctl show ID                           one transaction: its state, its branches\n"
    "  trothctl trace ID                          its timeline over all branches\n"
    "  trothctl why ID|GID [--database CONNINFO]  who waits behind it, since when, what ends it\n"
    "  trothctl heuristics                        branches that ended against the decision\n"
    "  trothctl participants [list]               who is registered, up, and owes what\n"
    "  trothctl participants forget|rebind NAME\n"
    "  trothctl resolve ID|GID --commit|--abort --reason TEXT [--decision_lost]\n"
    "                                             settle by hand: shows it first, then does it\n"
    "  trothctl drain [--wait_s N]                stop leasing ids; wait for what is under way\n"
    "  trothctl doctor                            look at the whole deployment, say what to mend\n"
    "  trothctl accept-gap --reason TEXT          a cut log: go on without what is missing\n"
    "  trothctl discard-report NAME --reason TEXT a cut log: the participant is wrong\n"
    "  trothctl audit DIR [--name NAME]           decisions, branches, heuristics: a line of JSON "
    "each\n"
    "  trothctl wal verify|stats|dump DIR [--name NAME]\n"
    "                                             reads a log directory, changes nothing\n"
    "\n"
    "Exit codes: 0 done; 1 refused, not intact, shown and not done, or something is left or "
    "unknown;\n"
    "2 called wrongly; 3 not reachable; 4 sent, and no answer came: it may have been done.";

// `500ms`, `30s`, `30` (seconds), `5min`, `2h`; nothing is 0.
bool ParseAge(const std::string& text, std::int64_t* ms) {
  *ms = 0;
  if (text.empty()) return true;
  const char* const end = text.data() + text.size();
  const auto [unit, error] = std::from_chars(text.data(), end, *ms);
  if (error != std::errc() || *ms < 0 || *ms > 1'000'000'000) return false;
  static const std::map<std::string, std::int64_t> kUnits = {
      {"ms", 1}, {"", 1'000}, {"s", 1'000}, {"min", 60'000}, {"h", 3'600'000}};
  const auto factor = kUnits.find(std::string(unit, end));
  if (factor == kUnits.end()) return false;
  *ms *= factor->second;
  return true;
}

}  // namespace

int main(int argc, char** argv) {
  if (const auto done = troth::StartProgram(kUsage, &argc, &argv)) return *done;
  const troth::Printable shown(std::cout), said(std::cerr);
  using Command = int (*)(const troth::ControlOptions&, const troth::Arguments&);
  static const std::map<std::string, Command> kCommands = {
      {"status", troth::StatusCommand},
      {"list", troth::ListCommand},
      {"show", troth::ShowCommand},
      {"trace", troth::TraceCommand},
      {"why", troth::WhyCommand},
      {"resolve", troth::ResolveCommand},
      {"doctor", troth::DoctorCommand},
      {"audit", troth::AuditCommand},
      {"heuristics", troth::HeuristicsCommand},
      {"participants", troth::ParticipantsCommand},
      {"drain", troth::DrainCommand},
      {"accept-gap", troth::AcceptGapCommand},
      {"discard-report", troth::DiscardReportCommand},
      {"wal", troth::WalCommand},
  };
  const std::string name = argc > 1 ? argv[1] : "";
  const auto command = kCommands.find(name);
  if (command == kCommands.end()) {
    std::cerr << "trothctl: " << (name.empty() ? "no command given" : "no command '" + name + "'")
              << "; see trothctl --help\n";
    return 2;
  }
  troth::ControlOptions options;
  options.coordinator = FLAGS_coordinator;
  options.json = FLAGS_json;
  options.limit = FLAGS_limit;
  options.reason = FLAGS_reason;
  options.transaction = FLAGS_transaction;
  options.name = FLAGS_name;
  options.in_doubt = FLAGS_in_doubt;
  options.participant = FLAGS_participant;
  options.database = FLAGS_database;
  options.commit = FLAGS_commit;
  options.abort = FLAGS_abort;
  options.decision_lost = FLAGS_decision_lost;
  options.yes = FLAGS_yes;
  options.token = FLAGS_token;
  options.who = FLAGS_who;
  options.wait_s = FLAGS_wait_s;
  options.tls = troth::CallerTlsFromFlags();
  if (!ParseAge(FLAGS_older_than, &options.older_than_ms)) {
    std::cerr << "trothctl: --older_than " << FLAGS_older_than
              << ": give a number with ms, s, min or h\n";
    return 2;
  }
  return command->second(options, troth::Arguments(argv + 2, argv + argc));
}
