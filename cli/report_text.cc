// See report_text.h.
#include "cli/report_text.h"

#include <algorithm>
#include <cstdio>
#include <map>
#include <ostream>
#include <set>
#include <string>

#include "cli/table.h"

namespace troth {
namespace {

bool Unfinished(const wire::BranchReport& branch) {
  return branch.state != "acknowledged" && branch.state != "read-only";
}

std::string AgeOf(const wire::TransactionReport& report) {
  return report.age_ms < 0 ? "-" : Age(report.age_ms);
}

std::string PlaceOf(const wire::BranchReport& branch) {
  return branch.up ? "up" : "DOWN for " + Age(branch.down_ms);
}

// `0/16B3748`, as PostgreSQL writes it.
std::string Lsn(std::int64_t position) {
  char text[32];
  const auto bits = static_cast<std::uint64_t>(position);
  std::snprintf(text, sizeof text, "%X/%X", static_cast<unsigned>(bits >> 32),
                static_cast<unsigned>(bits));
  return text;
}

std::string Count(std::size_t number, const std::string& one) {
  return std::to_string(number) + " " + one + (number == 1 ? "" : "s");
}

void PrintHead(const wire::TransactionReport& report, std::ostream& out) {
  out << "transaction " << report.transaction_id << ": " << report.state;
  if (report.age_ms >= 0) out << ", for " << Age(report.age_ms);
  out << "\n";
  if (!report.why.empty()) out << "  " << report.why << "\n";
  if (report.__isset.key) out << "  business key " << report.key << "\n";
}

void PrintHeuristics(const wire::TransactionReport& report, std::ostream& out) {
  for (const wire::Heuristic& heuristic : report.heuristics) {
    out << (heuristic.hazard ? "HAZARD" : "HEURISTIC") << " at " << heuristic.participant << ": "
        << heuristic.what << "\n";
  }
}

void PrintWaiting(const std::vector<wire::WaitingSession>& waiting, std::ostream& out) {
  Table table({"pid", "waits", "behind", "for", "application", "user", "statement"});
  for (const wire::WaitingSession& session : waiting) {
    std::string behind;
    for (const std::int32_t pid : session.behind) {
      behind += (behind.empty() ? "" : ", ") + std::to_string(pid);
    }
    if (behind.empty()) behind = "the branch";
    table.Add({std::to_string(session.pid), Age(session.waiting_ms), behind, session.lock,
               session.application, session.user, session.statement});
  }
  table.Print(out);
}

std::string Ends(const wire::TransactionReport& report, const wire::BranchReport& branch) {
  const std::string& name = branch.participant;
  const std::string resolve = "trothctl resolve " + report.transaction_id;
  if (report.state == "committed" && branch.state == "unheard-of") {
    return "you: " + resolve + " --commit --reason \"...\"";
  }
  if (report.state == "committed" && branch.state == "unknown") {
    return "you: its record is kept no more (docs/operations.md, Who could not be asked)";
  }
  if (report.state == "aborted" || branch.state == "left-out") {
    return branch.up ? name + " is up: it rolls the branch back within a second or two"
                     : "start " + name + ": it rolls the branch back within a second or two";
  }
  if (report.state == "committed") {
    return branch.up ? name + " is up: it is asked again each second"
                     : "start " + name + ": it commits the branch within a second or two";
  }
  if (report.state == "preparing" || report.state == "pending") {
    return "the decision: a lease's length (30 s) after its begin at the latest; or " + resolve +
           " --abort --reason \"...\"";
  }
  if (report.state == "deciding") return "the coordinator's disk: its log is being written";
  if (report.state == "unknown") return "the coordinator: start it";
  return "you: " + resolve + " (docs/operations.md, Settle by hand)";
}

void PrintBranchWhy(const wire::TransactionReport& report, const wire::BranchReport& branch,
                    std::ostream& out) {
  out << "\nbranch at " << branch.participant << " (" << PlaceOf(branch) << "), "
      << branch.database_address << "\n";
  if (branch.__isset.unseen) {
    out << "  cannot be seen: " << branch.unseen << "\n";
    return;
  }
  if (!branch.__isset.prepared) {
    out << "  holds nothing: not prepared in its database\n";
    return;
  }
  const wire::PreparedBranch& held = branch.prepared;
  out << "  prepared for " << Age(held.prepared_ms) << " in database " << held.database << ", xid "
      << held.xid << ", owner " << held.owner << "\n";
  if (!held.relations.empty()) {
    out << "  locks of";
    for (const std::string& relation : held.relations) out << " " << relation;
    out << "\n";
  }
  out << "  vacuum: "
      << Count(static_cast<std::size_t>(std::max<std::int64_t>(held.xmin_age, 0)), "transaction")
      << " begun since"
      << (held.holds_vacuum ? "; nothing else holds back what vacuum may remove" : "") << "\n";
  if (held.waiting.empty()) {
    out << "  nobody waits for it now\n";
  } else {
    out << "  " << Count(held.waiting.size(), "session") << " waiting, the longest for "
        << Age(held.waiting.front().waiting_ms) << ":\n";
    PrintWaiting(held.waiting, out);
  }
  out << "  a commit keeps its changes, an abort undoes them; either releases its locks"
      << (held.waiting.empty() ? "" : ", and those who wait go on") << "\n"
      << "  what ends it: " << Ends(report, branch) << "\n";
}

// Drawing: a lane for the coordinator, one for each participant.
class Lanes {
 public:
  explicit Lanes(const std::set<std::string>& participants) {
    std::size_t next = 0;
    lane_[""] = 0;
    widths_.push_back(kFirst);
    for (const std::string& name : participants) {
      lane_[name] = ++next;
      widths_.push_back(std::max<std::size_t>(name.size() + 4, kLane));
    }
  }
  std::string Head() const {
    std::string line(At(widths_.size()), ' ');
    for (const auto& [name, lane] : lane_)
      Put(name.empty() ? "coordinator" : name, At(lane), &line);
    return Trimmed(line);
  }
  // Something at one place.
  std::string Mark(const std::string& participant, const std::string& what) const {
    std::string line = Bars();
    const std::size_t at = At(Lane(participant));
    Put("* " + what, at, &line);
    return Trimmed(line);
  }
  // Something between the coordinator and a participant.
  std::string Arrow(const std::string& participant, const std::string& what, bool there) const {
    std::string line = Bars();
    const std::size_t from = At(0) + 1, to = At(Lane(participant));
    for (std::size_t i = from; i < to; ++i) line[i] = '-';
    line[there ? to - 1 : from] = there ? '>' : '<';
    Put(" " + what + " ", from + 2, &line);
    return Trimmed(line);
  }

 private:
  static constexpr std::size_t kFirst = 24;
  static constexpr std::size_t kLane = 20;

  std::size_t Lane(const std::string& participant) const {
    const auto lane = lane_.find(participant);
    return lane == lane_.end() ? 0 : lane->second;
  }
  std::size_t At(std::size_t lane) const {
    std::size_t at = 0;
    for (std::size_t i = 0; i < lane && i < widths_.size(); ++i) at += widths_[i];
    return at;
  }
  std::string Bars() const {
    std::string line(At(widths_.size()), ' ');
    for (std::size_t lane = 0; lane < widths_.size(); ++lane) line[At(lane)] = '|';
    return line;
  }
  static void Put(const std::string& text, std::size_t at, std::string* line) {
    if (line->size() < at + text.size()) line->resize(at + text.size(), ' ');
    line->replace(at, text.size(), text);
  }
  static std::string Trimmed(std::string line) {
    line.erase(line.find_last_not_of(' ') + 1);
    return line;
  }

  std::map<std::string, std::size_t> lane_;
  std::vector<std::size_t> widths_;
};

// Of what travels: its direction and its name in the drawing.
bool Travels(const std::string& what, std::string* text, bool* there) {
  const std::string sent = " sent";
  *there = what.size() > sent.size() && what.ends_with(sent);
  *text = *there ? what.substr(0, what.size() - sent.size()) : what;
  return *there || what == "voted prepared" || what == "voted read-only" || what == "refused" ||
         what == "no vote yet" || what == "acknowledged" || what == "not finished yet" ||
         what == "found ended otherwise" || what == "end cannot be told";
}

std::string Milliseconds(std::int64_t us) {
  char text[32];
  std::snprintf(text, sizeof text, "%10.3f", static_cast<double>(us) / 1e3);
  return text;
}

}  // namespace

void PrintInDoubt(const std::vector<wire::TransactionReport>& list, std::ostream& out) {
  Table table({"transaction", "state", "age", "blocks", "why"});
  for (const wire::TransactionReport& report : list) {
    std::size_t waiting = 0;
    bool unseen = false;
    for (const wire::BranchReport& branch : report.branches) {
      waiting += branch.prepared.waiting.size();
      unseen = unseen || branch.__isset.unseen;
    }
    const std::string blocks = Count(waiting, "session") + (unseen ? " + ?" : "");
    table.Add({report.transaction_id, report.state, AgeOf(report),
               unseen && waiting == 0 ? "?" : blocks, report.why});
  }
  table.Print(out);
}

void PrintReport(const wire::TransactionReport& report, std::ostream& out) {
  PrintHead(report, out);
  out << "\n";
  Table table(
      {"participant", "is", "branch", "xid", "timeline", "position", "prepared for", "waiting"});
  for (const wire::BranchReport& branch : report.branches) {
    const bool held = branch.__isset.prepared;
    const bool unseen = branch.__isset.unseen;
    table.Add({branch.participant, PlaceOf(branch), branch.state,
               branch.__isset.xid ? std::to_string(branch.xid)
               : held             ? std::to_string(branch.prepared.xid)
                                  : "-",
               branch.__isset.timeline ? std::to_string(branch.timeline) : "-",
               branch.__isset.position ? Lsn(branch.position) : "-",
               held     ? Age(branch.prepared.prepared_ms)
               : unseen ? "?"
                        : "-",
               held     ? std::to_string(branch.prepared.waiting.size())
               : unseen ? "?"
                        : "-"});
  }
  table.Print(out);
  for (const wire::BranchReport& branch : report.branches) {
    if (branch.__isset.unseen) out << branch.participant << ": " << branch.unseen << "\n";
  }
  PrintHeuristics(report, out);
}

bool PrintUnknown(const wire::TransactionReport& report, std::ostream& out) {
  bool any = false;
  for (const wire::BranchReport& branch : report.branches) {
    if (branch.state != "unknown") continue;
    any = true;
    out << "trothctl: " << branch.participant
        << " could not be asked what it holds: " << branch.unseen << "\n";
  }
  if (any) {
    out << "trothctl: start it, and repeat this; or ask its database: operations.md, Who could "
           "not be asked\n";
  }
  return any;
}

void PrintTimeline(const wire::TransactionReport& report, std::ostream& out) {
  PrintHead(report, out);
  PrintHeuristics(report, out);
  if (report.timeline.empty()) {
    out << "nothing is known of when what happened: it ended long ago, or in an earlier life of "
           "the "
           "coordinator\n";
    return;
  }
  std::set<std::string> names;
  for (const wire::BranchReport& branch : report.branches) names.insert(branch.participant);
  for (const wire::TimelineEvent& event : report.timeline) {
    if (!event.participant.empty()) names.insert(event.participant);
  }
  const Lanes lanes(names);
  const std::int64_t began = report.timeline.front().ago_us;
  out << "\n"
      << "        ms  " << lanes.Head() << "\n";
  for (const wire::TimelineEvent& event : report.timeline) {
    std::string text;
    bool there = false;
    const bool travels = Travels(event.what, &text, &there) && !event.participant.empty();
    out << Milliseconds(began - event.ago_us) << "  "
        << (travels ? lanes.Arrow(event.participant, text, there)
                    : lanes.Mark(event.participant, text))
        << "\n";
  }
  if (report.in_doubt) {
    out << Milliseconds(began) << "  now: ";
    bool first = true;
    for (const wire::BranchReport& branch : report.branches) {
      if (!Unfinished(branch)) continue;
      out << (first ? "" : "; ") << branch.participant << " is " << PlaceOf(branch) << ", branch "
          << branch.state;
      first = false;
    }
    out << "\n";
  }
}

void PrintWhy(const wire::TransactionReport& report, std::ostream& out) {
  PrintHead(report, out);
  PrintHeuristics(report, out);
  for (const wire::BranchReport& branch : report.branches) {
    if (Unfinished(branch) || branch.__isset.prepared) PrintBranchWhy(report, branch, out);
  }
}

}  // namespace troth
