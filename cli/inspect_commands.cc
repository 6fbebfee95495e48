// See commands.h: transactions in doubt, one of them from all sides, and who waits behind it.
#include <algorithm>
#include <cstdlib>
#include <iostream>
#include <optional>
#include <sstream>

#include <nlohmann/json.hpp>

#include "cli/admin_call.h"
#include "cli/report_text.h"
#include "cli/table.h"
#include "common/transaction_id.h"
#include "participant/conninfo.h"
#include "participant/inspection_service.h"
#include "recovery/log_record.h"
#include "wire/report_json.h"

namespace troth {
namespace {

using nlohmann::json;

constexpr std::chrono::milliseconds kDatabaseTime{3'000};
constexpr int kMost = 1'000;  // that a coordinator lists

std::string Value(const std::string& text) {
  std::string quoted = "'";
  for (const char c : text) {
    if (c == '\'' || c == '\\') quoted += '\\';
    quoted += c;
  }
  return quoted + "'";
}

// How to reach the database of a lost participant: where it was enrolled, then what --database
// says (a later word wins in a connection string), then the environment (PGUSER, PGPASSFILE, ...).
std::string ConnectionTo(const ControlOptions& options, const std::string& server,
                         const std::string& database) {
  std::string text = "connect_timeout=2";
  const std::size_t colon = server.rfind(':');
  if (colon != std::string::npos) {
    text += " host=" + Value(server.substr(0, colon)) + " port=" + Value(server.substr(colon + 1));
  }
  if (std::getenv("PGDATABASE") == nullptr) text += " dbname='postgres'";
  text += " " + options.database;
  if (!database.empty()) text += " dbname=" + Value(database);
  return text;
}

// What the database holds under the branch's GID; asked twice, because only from inside a database
// have its relations names. kUnavailable when it can't be asked, or it is not the participant's.
Result<std::optional<wire::PreparedBranch>> AskDatabase(const ControlOptions& options,
                                                        const wire::BranchReport& branch,
                                                        const std::string& system_identifier) {
  const DatabaseAddress address = DatabaseAddress::Of(branch.database_address);
  // There is no telling a copy of the server by its system identifier.
  const bool elsewhere = !address.machine.empty() && address.machine != MachineOf("/", "");
  if (elsewhere && !NamesHost(options.database)) {
    return Status(Code::kUnavailable,
                  "that is an address of another machine: ask there, or name its host");
  }
  PreparedQuestion question;
  question.gids = {branch.gid};
  question.this_database = false;
  question.system_identifier = system_identifier;
  std::optional<wire::PreparedBranch> found;
  for (int round = 0; round < 2; ++round) {
    const std::string conninfo =
        ConnectionTo(options, address.server, found ? found->database : "");
    auto held = LookAtPrepared(conninfo, question, kDatabaseTime);
    if (!held.ok()) {
      if (found) break;
      return held.status();
    }
    if (held->empty()) return std::optional<wire::PreparedBranch>();
    found = std::move(held->front());
  }
  return found;
}

// Fills in what the coordinator could not see: the branches of participants that are lost.
// `participants` says whose databases theirs are; empty when no coordinator answered.
void LookIntoDatabases(const ControlOptions& options,
                       const std::vector<wire::ParticipantStatus>& participants,
                       wire::TransactionReport* report) {
  for (wire::BranchReport& branch : report->branches) {
    if (!branch.__isset.unseen) continue;
    std::string system_identifier;
    for (const wire::ParticipantStatus& one : participants) {
      if (one.participant == branch.participant) system_identifier = one.system_identifier;
    }
    auto held = AskDatabase(options, branch, system_identifier);
    if (!held.ok()) {
      branch.unseen += "; and its database at " + branch.database_address +
                       " cannot be asked: " + held.status().message() +
                       " (--database 'host=... user=... passfile=...' says how)";
      continue;
    }
    branch.__isset.unseen = false;
    if (held->has_value()) branch.__set_prepared(**held);
  }
}

int Inspect(const ControlOptions& options, const Arguments& arguments, const std::string& name,
            const std::function<void(wire::TransactionReport*)>& print) {
  if (arguments.size() != 1) return Usage(name + " ID");
  const std::optional<Asked> asked = ParseAsked(arguments[0]);
  if (!asked) return 2;
  return Call(options, [&](wire::CoordinatorAdminClient* admin) {
    wire::TransactionReport report;
    admin->inspect(report, asked->transaction_id);
    print(&report);
  });
}

int ListInDoubt(const ControlOptions& options) {
  wire::InDoubtFilter filter;
  filter.__set_limit(std::clamp(options.limit, 1, kMost));
  if (options.older_than_ms > 0) filter.__set_older_than_ms(options.older_than_ms);
  if (!options.participant.empty()) filter.__set_participant(options.participant);
  bool whole = true;
  const int code = Call(options, [&](wire::CoordinatorAdminClient* admin) {
    std::vector<wire::TransactionReport> list;
    admin->in_doubt(list, filter);
    wire::TransactionReport unasked;
    if (!list.empty() && list.back().transaction_id.empty()) {
      unasked = std::move(list.back());
      list.pop_back();
    }
    if (options.json) {
      std::cout << JsonText(ToJson(list), 2);
    } else {
      PrintInDoubt(list, std::cout);
    }
    whole = !PrintUnknown(unasked, std::cerr);
  });
  return code == 0 && !whole ? 1 : code;
}

}  // namespace

std::optional<Asked> ParseAsked(const std::string& text) {
  Asked asked{text, ""};
  const std::size_t colon = text.starts_with("troth:") ? text.find(':', 6) : std::string::npos;
  if (colon != std::string::npos) asked = {text.substr(colon + 1), text.substr(6, colon - 6)};
  if (TransactionId::Parse(asked.transaction_id).ok()) return asked;
  std::cerr << "trothctl: '" << text << "' is no transaction id, nor a GID of Troth\n";
  return std::nullopt;
}

int ListCommand(const ControlOptions& options, const Arguments& arguments) {
  if (!arguments.empty()) {
    return Usage("list [--in_doubt] [--older_than AGE] [--participant NAME] [--limit N]");
  }
  if (options.in_doubt) return ListInDoubt(options);
  return Call(options, [&](wire::CoordinatorAdminClient* admin) {
    std::vector<wire::TransactionStatus> list;
    const bool all = options.participant.empty() && options.older_than_ms == 0;
    admin->transactions(list, all ? options.limit : kMost);
    const auto limit = static_cast<std::size_t>(std::clamp(options.limit, 1, kMost));
    json rows = json::array();
    Table table({"transaction", "state", "age", "waiting for"});
    for (const wire::TransactionStatus& t : list) {
      if (rows.size() == limit) break;
      const auto& names = t.waiting_for;
      if (t.age_ms < options.older_than_ms) continue;
      if (!options.participant.empty() &&
          std::find(names.begin(), names.end(), options.participant) == names.end()) {
        continue;
      }
      std::string waiting;
      for (const std::string& name : names) waiting += (waiting.empty() ? "" : ", ") + name;
      table.Add({t.transaction_id, t.state, Age(t.age_ms), waiting});
      rows.push_back({{"transaction_id", t.transaction_id},
                      {"state", t.state},
                      {"age_ms", t.age_ms},
                      {"waiting_for", t.waiting_for}});
    }
    if (options.json) {
      std::cout << JsonText(rows, 2);
    } else {
      table.Print(std::cout);
    }
    if (!all && rows.size() < limit && list.size() == kMost) {
      std::cerr << "trothctl: only the " << kMost
                << " oldest transactions were looked at; there may be more\n";
    }
  });
}

int ShowCommand(const ControlOptions& options, const Arguments& arguments) {
  return Inspect(options, arguments, "show", [&](wire::TransactionReport* report) {
    if (options.json) {
      std::cout << JsonText(ToJson(*report), 2);
    } else {
      PrintReport(*report, std::cout);
    }
  });
}

int TraceCommand(const ControlOptions& options, const Arguments& arguments) {
  return Inspect(options, arguments, "trace", [&](wire::TransactionReport* report) {
    if (options.json) {
      std::cout << JsonText(ToJson(*report), 2);
    } else {
      PrintTimeline(*report, std::cout);
    }
  });
}

int WhyCommand(const ControlOptions& options, const Arguments& arguments) {
  if (arguments.size() != 1) return Usage("why ID|GID [--database CONNINFO]");
  const std::optional<Asked> asked = ParseAsked(arguments[0]);
  if (!asked) return 2;
  if (const Status secret = CheckNoSecret(options.database, "--database"); !secret.ok()) {
    std::cerr << "trothctl: " << secret.message() << "\n";
    return 2;
  }
  wire::TransactionReport report;
  wire::CoordinatorStatus status;
  int code = Call(options, [&](wire::CoordinatorAdminClient* admin) {
    admin->status(status);
    admin->inspect(report, asked->transaction_id);
  });
  if ((code == 3 || code == 4) && !asked->participant.empty() && !options.database.empty()) {
    // The coordinator is away: what its database shows of the one branch is better than nothing.
    report.transaction_id = asked->transaction_id;
    report.state = "unknown";
    report.why = "no coordinator answers: nobody else can decide, and nobody guesses";
    wire::BranchReport& branch = report.branches.emplace_back();
    branch.participant = asked->participant;
    branch.gid = arguments[0];
    branch.state = "unknown";
    branch.__set_unseen("no coordinator answers");
    code = 0;
  }
  if (code != 0) return code;
  LookIntoDatabases(options, status.participants, &report);
  if (!asked->participant.empty()) {
    std::erase_if(report.branches, [&](const wire::BranchReport& branch) {
      return branch.participant != asked->participant;
    });
  }
  if (options.json) {
    std::cout << JsonText(ToJson(report), 2);
  } else {
    PrintWhy(report, std::cout);
  }
  return 0;
}

}  // namespace troth
