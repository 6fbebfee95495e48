// See commands.h: settling a transaction by hand, in two steps. What may be done is decided by the
// coordinator (coordinator/resolve_service.h).
#include <pwd.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <iostream>

#include <nlohmann/json.hpp>

#include "cli/admin_call.h"
#include "cli/report_text.h"
#include "wire/report_json.h"

namespace troth {
namespace {

using nlohmann::json;

std::string UserAndHost() {
  std::array<char, 256> host{};
  if (gethostname(host.data(), host.size() - 1) != 0) host[0] = '?';
  const char* user = std::getenv("SUDO_USER");
  const passwd* const entry = getpwuid(getuid());
  if (user == nullptr && entry != nullptr) user = entry->pw_name;
  return (user == nullptr ? "uid " + std::to_string(getuid()) : std::string(user)) + "@" +
         host.data();
}

void PrintSteps(const wire::Resolution& resolution, bool done) {
  std::cout << "\n" << (done ? "done:" : "this would be done:") << "\n";
  for (const std::string& step : resolution.steps) std::cout << "  - " << step << "\n";
}

// A person at a terminal types the id; anybody else comes back with the token.
bool Confirmed(const ControlOptions& options, const std::string& id, const std::string& token) {
  if (options.yes) return true;
  if (isatty(STDIN_FILENO) == 0 || isatty(STDOUT_FILENO) == 0) {
    std::cout << "\nnothing is done yet. To have it done: the same command with --token " << token
              << "\n";
    return false;
  }
  std::cout << "\ntype the transaction's id to have it done: " << std::flush;
  std::string typed;
  std::getline(std::cin, typed);
  if (typed == id) return true;
  std::cout << "that is not the id: nothing was done\n";
  return false;
}

}  // namespace

int ResolveCommand(const ControlOptions& options, const Arguments& arguments) {
  if (arguments.size() != 1 || options.commit == options.abort || options.reason.empty()) {
    return Usage(
        "resolve ID|GID --commit|--abort --reason \"why\" [--who NAME] [--decision_lost] "
        "[--yes | --token TOKEN]");
  }
  const std::optional<Asked> asked = ParseAsked(arguments[0]);
  if (!asked) return 2;
  const std::string& id = asked->transaction_id;
  wire::ResolveRequest request;
  request.transaction_id = id;
  request.commit = options.commit;
  request.who = options.who.empty() ? UserAndHost() : options.who;
  request.reason = options.reason;
  request.decision_lost = options.decision_lost;
  bool done = false;
  const int code = Call(options, [&](wire::CoordinatorAdminClient* admin) {
    wire::Resolution resolution;
    if (options.token.empty()) {
      admin->resolve(resolution, request);
      if (options.json && (!options.yes || resolution.steps.empty())) {
        std::cout << JsonText(json{{"done", false},
                                   {"steps", resolution.steps},
                                   {"token", resolution.token},
                                   {"report", ToJson(resolution.report)}},
                              2);
        done = resolution.steps.empty();
        return;
      }
      if (!options.json) PrintReport(resolution.report, std::cout);
      if (resolution.steps.empty()) {
        std::cout << "\nthere is nothing to do: " << resolution.report.why << "\n";
        done = true;
        return;
      }
      if (!options.json) PrintSteps(resolution, false);
      if (!Confirmed(options, id, resolution.token)) return;
      request.__set_token(resolution.token);
    } else {
      request.__set_token(options.token);
    }
    admin->resolve(resolution, request);
    if (options.json) {
      std::cout << JsonText(json{{"done", true}, {"steps", resolution.steps}}, 2);
    } else {
      PrintSteps(resolution, true);
    }
    done = !PrintUnknown(resolution.report, std::cerr);
  });
  if (code != 0) return code;
  return done ? 0 : 1;
}

}  // namespace troth
