// trothctl: what is in doubt, why, and settling it without guessing. docs/operations.md.
#include <iostream>
#include <map>

#include <gflags/gflags.h>

#include "cli/commands.h"
#include "common/program.h"

DEFINE_string(coordinator, "127.0.0.1:7713", "administrators' listener of the coordinator");
DEFINE_bool(json, false, "output for programs");
DEFINE_int32(limit, 100, "list: at most so many");
DEFINE_string(reason, "", "who decides, and why; kept for ever");
DEFINE_string(transaction, "", "wal dump: only what concerns this transaction");
DEFINE_string(name, "", "wal: name or id of the coordinator whose log it must be");

namespace {

constexpr char kUsage[] =
    "Sees and settles what a coordinator of Troth has in hand.\n"
    "\n"
    "  trothctl status                            state, counts, participants\n"
    "  trothctl list [--limit N]                  transactions undecided or not applied yet\n"
    "  trothctl heuristics                        branches that ended against the decision\n"
    "  trothctl participants [list]               who is registered, up, and owes what\n"
    "  trothctl participants forget|rebind NAME\n"
    "  trothctl drain                             stop leasing ids; end what is under way\n"
    "  trothctl accept-gap --reason TEXT          a cut log: go on without what is missing\n"
    "  trothctl discard-report NAME --reason TEXT a cut log: the participant is wrong\n"
    "  trothctl wal verify|stats|dump DIR [--name NAME]\n"
    "                                             reads a log directory, changes nothing\n"
    "\n"
    "Exit codes: 0 done, 1 refused or not intact, 2 called wrongly, 3 not reachable.";

}  // namespace

int main(int argc, char** argv) {
  if (const auto done = troth::StartProgram(kUsage, &argc, &argv)) return *done;
  using Command = int (*)(const troth::ControlOptions&, const troth::Arguments&);
  static const std::map<std::string, Command> kCommands = {
      {"status", troth::StatusCommand},
      {"list", troth::ListCommand},
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
  const troth::ControlOptions options{FLAGS_coordinator, FLAGS_json,        FLAGS_limit,
                                      FLAGS_reason,      FLAGS_transaction, FLAGS_name};
  return command->second(options, troth::Arguments(argv + 2, argv + argc));
}
