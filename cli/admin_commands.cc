// See commands.h: what asks a running coordinator.
#include <algorithm>
#include <chrono>
#include <iostream>
#include <thread>

#include <nlohmann/json.hpp>

#include "cli/admin_call.h"
#include "cli/table.h"
#include "wire/report_json.h"

namespace troth {
namespace {

using nlohmann::json;

json Json(const wire::CoordinatorStatus& s) {
  json participants = json::array();
  for (const wire::ParticipantStatus& p : s.participants) {
    participants.push_back({{"participant", p.participant},
                            {"up", p.up},
                            {"address", p.address},
                            {"system_identifier", p.system_identifier},
                            {"database_oid", p.database_oid},
                            {"unacknowledged", p.unacknowledged},
                            {"silent_ms", p.silent_ms}});
  }
  return {{"coordinator", s.sender.coordinator},
          {"epoch", s.sender.epoch},
          {"position", s.sender.position},
          {"state", s.state},
          {"why", s.why},
          {"in_flight", s.in_flight},
          {"unacknowledged", s.unacknowledged},
          {"committed", s.committed},
          {"aborted", s.aborted},
          {"read_only", s.read_only},
          {"syncs", s.syncs},
          {"uptime_ms", s.uptime_ms},
          {"heuristics", s.heuristics},
          {"participants", participants}};
}

void PrintParticipants(const wire::CoordinatorStatus& s) {
  Table table({"participant", "state", "owes", "last heard", "address", "database"});
  for (const wire::ParticipantStatus& p : s.participants) {
    table.Add({p.participant, p.up ? "up" : "DOWN", std::to_string(p.unacknowledged),
               p.silent_ms < 0 ? "never" : Age(p.silent_ms) + " ago", p.address,
               p.system_identifier + "/" + std::to_string(p.database_oid)});
  }
  table.Print(std::cout);
}

}  // namespace

int StatusCommand(const ControlOptions& options, const Arguments& arguments) {
  if (!arguments.empty()) return Usage("status");
  return Call(options, [&](wire::CoordinatorAdminClient* admin) {
    wire::CoordinatorStatus s;
    admin->status(s);
    if (options.json) {
      std::cout << JsonText(Json(s), 2);
      return;
    }
    std::cout << "coordinator " << s.sender.coordinator << ", epoch " << s.sender.epoch << ", "
              << s.state << ", up for " << Age(s.uptime_ms) << "\n";
    if (!s.why.empty()) std::cout << "  because " << s.why << "\n";
    std::cout << "in flight " << s.in_flight << ", decided and not applied everywhere "
              << s.unacknowledged << ", heuristics " << s.heuristics << "\n"
              << "since its start: committed " << s.committed << ", aborted " << s.aborted
              << ", read-only " << s.read_only << ", log syncs " << s.syncs << "\n\n";
    PrintParticipants(s);
  });
}

int HeuristicsCommand(const ControlOptions& options, const Arguments& arguments) {
  if (!arguments.empty()) return Usage("heuristics");
  return Call(options, [&](wire::CoordinatorAdminClient* admin) {
    std::vector<wire::Heuristic> list;
    admin->heuristics(list);
    json rows = json::array();
    Table table({"transaction", "participant", "kind", "what"});
    for (const wire::Heuristic& h : list) {
      const char* kind = h.hazard ? "hazard" : "heuristic";
      table.Add({h.transaction_id, h.participant, kind, h.what});
      rows.push_back({{"transaction_id", h.transaction_id},
                      {"participant", h.participant},
                      {"kind", kind},
                      {"what", h.what},
                      {"at_unix_ms", h.at_unix_ms}});
    }
    if (options.json) {
      std::cout << JsonText(rows, 2);
    } else {
      table.Print(std::cout);
    }
  });
}

int ParticipantsCommand(const ControlOptions& options, const Arguments& arguments) {
  if (arguments.empty() || (arguments.size() == 1 && arguments[0] == "list")) {
    return Call(options, [&](wire::CoordinatorAdminClient* admin) {
      wire::CoordinatorStatus s;
      admin->status(s);
      if (options.json) {
        std::cout << JsonText(Json(s)["participants"], 2);
      } else {
        PrintParticipants(s);
      }
    });
  }
  if (arguments.size() == 2 && (arguments[0] == "forget" || arguments[0] == "rebind")) {
    return Call(options, [&](wire::CoordinatorAdminClient* admin) {
      if (arguments[0] == "forget") {
        admin->forget(arguments[1]);
        std::cout << "forgot " << arguments[1] << "\n";
      } else {
        admin->rebind(arguments[1]);
        std::cout << "the next enrolment of " << arguments[1] << " binds the name anew\n";
      }
    });
  }
  return Usage("participants [list | forget NAME | rebind NAME]");
}

int DrainCommand(const ControlOptions& options, const Arguments& arguments) {
  if (!arguments.empty()) return Usage("drain [--wait_s N]");
  using Clock = std::chrono::steady_clock;
  std::int64_t left = 0;
  const int code = Call(options, [&](wire::CoordinatorAdminClient* admin) {
    admin->drain();
    if (!options.json) std::cout << "draining: no more ids, no new commits" << std::endl;
    const auto end = Clock::now() + std::chrono::seconds(std::max(options.wait_s, 0));
    std::int64_t told = -1;
    for (;;) {
      wire::CoordinatorStatus s;
      admin->status(s);
      left = s.in_flight + s.unacknowledged;
      if (left != told && !options.json) {
        std::cout << s.in_flight << " undecided, " << s.unacknowledged
                  << " decided and not applied everywhere";
        for (const wire::ParticipantStatus& p : s.participants) {
          if (p.unacknowledged > 0 && !p.up) std::cout << "; " << p.participant << " is DOWN";
        }
        std::cout << std::endl;
      }
      told = left;
      if (left == 0 || (options.wait_s >= 0 && Clock::now() >= end)) return;
      std::this_thread::sleep_for(std::chrono::milliseconds(200));
    }
  });
  if (code != 0) return code;
  if (options.json) std::cout << JsonText(json{{"left", left}});
  if (left == 0 && !options.json) std::cout << "drained: the coordinator may be stopped\n";
  if (left > 0) std::cerr << "trothctl: " << left << " transactions are not finished\n";
  return left == 0 ? 0 : 1;
}

int AcceptGapCommand(const ControlOptions& options, const Arguments& arguments) {
  if (!arguments.empty() || options.reason.empty()) {
    return Usage("accept-gap --reason \"who decided so, and why\"");
  }
  return Call(options, [&](wire::CoordinatorAdminClient* admin) {
    admin->accept_gap(options.reason);
    std::cout << "recorded. Restart the coordinator: its next epoch lies above the gap\n";
  });
}

int DiscardReportCommand(const ControlOptions& options, const Arguments& arguments) {
  if (arguments.size() != 1 || options.reason.empty()) {
    return Usage("discard-report PARTICIPANT --reason \"who decided so, and why\"");
  }
  return Call(options, [&](wire::CoordinatorAdminClient* admin) {
    admin->discard_report(arguments[0], options.reason);
    std::cout << "discarded what " << arguments[0] << " reported\n";
  });
}

}  // namespace troth
