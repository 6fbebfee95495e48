// See inspection_service.h.
#include "coordinator/inspection_service.h"

#include <algorithm>
#include <future>
#include <map>
#include <optional>
#include <set>
#include <system_error>
#include <thread>
#include <utility>

#include <glog/logging.h>
#include <thrift/transport/TBufferTransports.h>

#include "ParticipantAdmin.h"
#include "common/thread_annotations.h"
#include "coordinator/slow_line.h"
#include "recovery/heuristics.h"
#include "wire/protocol.h"
#include "wire/socket.h"

namespace troth {
namespace {

constexpr std::size_t kMost = 1'000;
// Of a list; a single report shows all. The answer stays below the limit of a frame.
constexpr std::size_t kWaitingInList = 500;
constexpr int kConnectMs = 1'000;
constexpr int kAnswerMs = 3'000;
constexpr std::chrono::milliseconds kTakeEvery{1'000};

// A participant as the registry and the channel know it.
struct Member {
  ParticipantIndex index = 0;
  std::string name;
  std::string database_address;
  std::string address;
  ThriftChannel::Whereabouts where;
};
using Members = std::map<std::string, Member>;  // by name

// What a participant's database holds prepared, or why nobody knows.
using Prepared = Result<std::vector<wire::PreparedBranch>>;

std::string AgeText(std::int64_t ms) {
  if (ms < 120'000) return std::to_string(ms / 1000) + " s";
  if (ms < 7'200'000) return std::to_string(ms / 60'000) + " min";
  return std::to_string(ms / 3'600'000) + " h";
}

// One call to a participant's administrators' service.
Status Ask(Security* security, const ThriftChannel::Whereabouts& where,
           const std::function<void(wire::ParticipantAdminClient*)>& call) {
  using apache::thrift::transport::TFramedTransport;
  try {
    auto socket = std::make_shared<WireSocket>(security == nullptr ? nullptr : security->tls(),
                                               where.host, static_cast<int>(where.port));
    socket->setConnTimeout(kConnectMs);
    socket->setRecvTimeout(kAnswerMs);
    socket->setSendTimeout(kAnswerMs);
    auto framed = std::make_shared<TFramedTransport>(socket, FrameLimits());
    wire::ParticipantAdminClient client(BoundedProtocol(framed));
    framed->open();
    if (security != nullptr) {
      if (const auto why = security->WhyNot(socket->peer_name(), Role::kParticipant)) {
        return Status(Code::kForbidden, *why);
      }
    }
    call(&client);
  } catch (const wire::Refused& refused) {
    const bool never = refused.reason == wire::Reason::INVALID;  // as participants in Python say
    return Status(never ? Code::kRefused : Code::kUnavailable, refused.message);
  } catch (const apache::thrift::TException& e) {
    return Status(Code::kUnavailable, std::string("it does not answer: ") + e.what());
  }
  return OkStatus();
}

Prepared AskPrepared(Security* security, const ThriftChannel::Whereabouts& where,
                     const std::vector<std::string>& ids) {
  std::vector<wire::PreparedBranch> branches;
  TROTH_RETURN_IF_ERROR(Ask(security, where, [&](wire::ParticipantAdminClient* client) {
    client->prepared(branches, ids, static_cast<std::int32_t>(kMost));
  }));
  return branches;
}

wire::Diagnosis AskDiagnosis(Security* security, const Member& member) {
  wire::Diagnosis diagnosis;
  diagnosis.process = "participant " + member.name;
  Status asked(Code::kUnavailable, "down for " + AgeText(member.where.down_ms));
  if (member.where.up) {
    asked = Ask(security, member.where,
                [&](wire::ParticipantAdminClient* client) { client->diagnose(diagnosis); });
  }
  if (!asked.ok()) {
    wire::Finding& finding = diagnosis.findings.emplace_back();
    finding.about = "participant";
    finding.verdict = "wrong";
    finding.what = asked.message();
    finding.advice = "start it, or see why it cannot be reached at " + member.address +
                     "; gone for good: trothctl participants forget " + member.name +
                     ", and if it owes acknowledgements rebind it first to an empty database "
                     "(docs/operations.md, \"Move or replace a participant's database\")";
  }
  if (asked.code() == Code::kRefused) {
    diagnosis.findings.back().verdict = "warning";
    diagnosis.findings.back().advice = "look at its database and its log";
  }
  return diagnosis;
}

bool Unfinished(const wire::BranchReport& branch) {
  return branch.state != "acknowledged" && branch.state != "read-only";
}

// "east (down for 12 s), west"
std::string Names(const wire::TransactionReport& report, bool (*which)(const wire::BranchReport&)) {
  std::string text;
  for (const wire::BranchReport& branch : report.branches) {
    if (!which(branch)) continue;
    text += (text.empty() ? "" : ", ") + branch.participant;
    if (!branch.up) text += " (down for " + AgeText(branch.down_ms) + ")";
  }
  return text;
}

bool Prepares(const wire::BranchReport& branch) {
  return branch.state == "not-asked" || branch.state == "asked";
}
bool Stray(const wire::BranchReport& branch) { return branch.state == "unheard-of"; }
bool LeftOut(const wire::BranchReport& branch) { return branch.state == "left-out"; }
bool Owed(const wire::BranchReport& branch) { return Unfinished(branch) && !LeftOut(branch); }
bool Holds(const wire::BranchReport& branch) { return branch.__isset.prepared; }
bool Unknown(const wire::BranchReport& branch) { return branch.state == "unknown"; }

std::string WhyOf(const wire::TransactionReport& report) {
  const std::string& state = report.state;
  if (state == "preparing") {
    return "not decided: waits for the vote of " + Names(report, Prepares) +
           "; aborted when its deadline passes";
  }
  if (state == "deciding") return "all voted; its commit record is not durable yet";
  if (state == "committed" && report.in_doubt && !Names(report, Stray).empty()) {
    return "committed, and the record that names its branches is kept no more: nobody can prove "
           "that what " +
           Names(report, Stray) + " holds is of it; an operator settles it (trothctl resolve)";
  }
  if (state == "committed" && report.in_doubt) {
    const std::string owed = Names(report, Owed), left_out = Names(report, LeftOut);
    std::string why = "decided to commit";
    why += owed.empty() ? ", and applied at all that it names" : "; not applied at " + owed;
    if (!left_out.empty()) {
      why += "; it does not name " + left_out + ", where what is prepared is rolled back";
    }
    return why;
  }
  const std::string holders = Names(report, Holds);
  if (holders.empty()) {
    return state == "committed" ? "committed, and applied everywhere"
           : state == "aborted" ? "aborted, or never asked to commit"
           : state == "pending" ? "its commit was not asked here yet"
           : state == "expired"
               ? "too old: its outcome is kept no more"
               : "of another coordinator, or of an epoch that this log never began";
  }
  if (state == "aborted") {
    return "aborted; " + holders + " rolls back what it prepared as soon as it asks";
  }
  if (state == "pending") {
    return "prepared at " + holders +
           ", and its commit was not asked here yet; aborted when its lease ends, or all "
           "participants were heard";
  }
  if (state == "expired") {
    return "too old: its outcome is kept no more, and " + holders +
           " holds it prepared; an operator settles it (trothctl resolve)";
  }
  return "of another coordinator, or of an epoch that this log never began; " + holders +
         " holds it prepared; an operator settles it (trothctl resolve)";
}

const char* StateOf(InDoubtAnswer answer) {
  switch (answer) {
    case InDoubtAnswer::kCommitted:
    case InDoubtAnswer::kCommittedBit: return "committed";
    case InDoubtAnswer::kAborted: return "aborted";
    case InDoubtAnswer::kPending: return "pending";
    case InDoubtAnswer::kExpired: return "expired";
    case InDoubtAnswer::kNotMine: return "not-mine";
  }
  return "";
}

void SetEvidence(const BranchRecord& evidence, wire::BranchReport* branch) {
  if (evidence.xid == 0) return;
  branch->__set_xid(static_cast<std::int64_t>(evidence.xid));
  branch->__set_timeline(static_cast<std::int32_t>(evidence.timeline));
  branch->__set_position(static_cast<std::int64_t>(evidence.position));
}

wire::BranchReport BranchOf(const Member& member, const std::string& id, std::string state) {
  wire::BranchReport branch;
  branch.participant = member.name;
  branch.gid = GidPrefix(member.name) + id;
  branch.state = std::move(state);
  branch.up = member.where.up;
  branch.down_ms = member.where.down_ms;
  branch.address = member.address;
  branch.database_address = member.database_address;
  return branch;
}

// Of a transaction whose commit is known with all its branches: what others hold is not of it.
void LeaveOut(wire::TransactionReport* report) {
  if (report->state != "committed" && report->state != "deciding") return;
  for (wire::BranchReport& branch : report->branches) {
    if (Stray(branch)) branch.state = "left-out";
  }
}

// Adds whoever could not be asked: nothing here tells whether it holds a branch of this.
void AddUnknown(const Members& members, const std::map<std::string, Prepared>& held,
                wire::TransactionReport* report) {
  for (const auto& [name, prepared] : held) {
    if (prepared.ok()) continue;
    wire::BranchReport& branch = report->branches.emplace_back(
        BranchOf(members.at(name), report->transaction_id, "unknown"));
    branch.__set_unseen(prepared.status().message());
  }
}

}  // namespace

struct Inspection::Rep {
  const std::string coordinator_id;
  Coordinator* const coordinator;
  Crew* const crew;
  ThriftChannel* const channel;
  Timeline* const timeline;

  mutable Mutex mutex;
  CondVar wake;
  bool stopping TROTH_GUARDED_BY(mutex) = false;
  TransactionHistory history TROTH_GUARDED_BY(mutex);
  std::uint64_t lost TROTH_GUARDED_BY(mutex) = 0;
  std::thread thread;

  Rep(std::string id, Coordinator* the_coordinator, Crew* the_crew, ThriftChannel* the_channel,
      Timeline* the_timeline, TransactionHistory::Observer observer)
      : coordinator_id(std::move(id)),
        coordinator(the_coordinator),
        crew(the_crew),
        channel(the_channel),
        timeline(the_timeline),
        history(std::move(observer)) {}

  void Look(const std::function<void(const CommitProtocol&)>& look) const {
    coordinator->Inspect(look);
    crew->Nudge();
  }
  void Take() TROTH_REQUIRES(mutex);
  void Run();

  Members MembersOf(const CommitProtocol& protocol) const;
  void Find(Members* members) const;
  wire::TransactionReport ReportOf(const TransactionView& view, RunningMs now,
                                   const Members& members) const;
  void Attach(const Members& members, const std::map<std::string, Prepared>& held,
              std::map<std::string, wire::TransactionReport>* reports) const;
  void Judge(std::map<std::string, wire::TransactionReport>* reports) const;
  std::vector<wire::TimelineEvent> TimelineOf(const LocalId& id,
                                              const std::vector<std::string>& names);
};

// On a thread of its own; when there is none to be had, by whoever waits for the answer.
template <typename Question>
static auto AskAside(Question question) {
  try {
    return std::async(std::launch::async, question);
  } catch (const std::system_error& e) {
    LOG_EVERY_T(ERROR, 1) << "participants are asked one after the other: " << e.what();
    return std::async(std::launch::deferred, question);
  }
}

// Asks all of them at once.
static std::map<std::string, Prepared> AskAll(Security* security, const Members& members,
                                              const std::vector<std::string>& ids) {
  std::map<std::string, std::future<Prepared>> asked;
  for (const auto& [name, member] : members) {
    if (!member.where.up) continue;
    asked[name] = AskAside(
        [security, whom = &member, &ids] { return AskPrepared(security, whom->where, ids); });
  }
  std::map<std::string, Prepared> held;
  for (const auto& [name, member] : members) {
    const auto answer = asked.find(name);
    held.emplace(name, answer != asked.end()
                           ? answer->second.get()
                           : Prepared(Status(Code::kUnavailable, "it is down: ask its database")));
  }
  return held;
}

// ------------------------------------------------------------------------------ the machine

Members Inspection::Rep::MembersOf(const CommitProtocol& protocol) const {
  Members members;
  for (ParticipantIndex i = 0; i < protocol.registry().size(); ++i) {
    const ParticipantRecord& record = protocol.registry().at(i).record;
    if (record.forgotten) continue;
    members[record.name] = {i,
                            record.name,
                            record.database_address,
                            record.peer_host + ":" + std::to_string(record.peer_port),
                            {}};
  }
  return members;
}

// Where they are now; outside the machine.
void Inspection::Rep::Find(Members* members) const {
  for (auto& [name, member] : *members) {
    member.where = channel->Where(member.index);
    if (member.where.port != 0) {
      member.address = member.where.host + ":" + std::to_string(member.where.port);
    }
  }
}

wire::TransactionReport Inspection::Rep::ReportOf(const TransactionView& view, RunningMs now,
                                                  const Members& members) const {
  wire::TransactionReport report;
  report.transaction_id = TransactionId{coordinator_id, view.id}.ToString();
  report.state = view.state;
  report.in_doubt = true;
  report.age_ms = now - view.began;
  if (!view.key.empty()) report.__set_key(view.key);
  for (const BranchView& one : view.branches) {
    const auto member = members.find(one.participant);
    const Member& whose =
        member != members.end() ? member->second : Member{0, one.participant, {}, {}, {}};
    wire::BranchReport branch = BranchOf(whose, report.transaction_id, one.state);
    SetEvidence(one.evidence, &branch);
    report.branches.push_back(std::move(branch));
  }
  return report;
}

// By the record of a commit, which names its branches. What was held of it, and ended since it was
// asked for, is dropped.
static void AccountFor(const CommitProtocol& protocol, const LocalId& id,
                       wire::TransactionReport* report) {
  LeaveOut(report);
  const std::optional<TransactionView> view = protocol.Find(id);
  for (const BranchRecord& named : protocol.state().FindCommit(id)->branches) {
    const std::string& name = protocol.registry().at(named.participant).record.name;
    std::erase_if(report->branches, [&](wire::BranchReport& branch) {
      if (branch.participant == name) branch.state = "prepared";
      return branch.participant == name && !view;
    });
  }
}

// Adds what participants hold to the reports, and reports of what nobody here accounts for.
void Inspection::Rep::Attach(const Members& members, const std::map<std::string, Prepared>& held,
                             std::map<std::string, wire::TransactionReport>* reports) const {
  for (const auto& [name, prepared] : held) {
    if (!prepared.ok()) {
      for (auto& [id, report] : *reports) {
        for (wire::BranchReport& branch : report.branches) {
          if (branch.participant != name || !Unfinished(branch)) continue;
          branch.__set_unseen(prepared.status().message());
        }
      }
      continue;
    }
    for (const wire::PreparedBranch& one : *prepared) {
      auto [report, fresh] = reports->try_emplace(one.transaction_id);
      if (fresh) {
        report->second.transaction_id = one.transaction_id;
        report->second.age_ms = -1;
      }
      auto& branches = report->second.branches;
      auto branch =
          std::find_if(branches.begin(), branches.end(),
                       [&whose = name](const auto& known) { return known.participant == whose; });
      if (branch == branches.end()) {
        branches.push_back(BranchOf(members.at(name), one.transaction_id, "unheard-of"));
        branch = branches.end() - 1;
      }
      branch->__set_prepared(one);
      report->second.age_ms = std::max(report->second.age_ms, one.prepared_ms);
    }
  }
}

// Says of those that the machine does not work on what it would answer an inquiry. A branch that
// ended while participants were asked is dropped.
void Inspection::Rep::Judge(std::map<std::string, wire::TransactionReport>* reports) const {
  Look([&](const CommitProtocol& protocol) {
    for (auto report = reports->begin(); report != reports->end();) {
      const Result<TransactionId> id = TransactionId::Parse(report->first);
      if (!report->second.state.empty() || !id.ok()) {
        LeaveOut(&report->second);
        ++report;
        continue;
      }
      const InDoubtAnswer answer = protocol.Resolve(*id);
      report->second.state = StateOf(answer);
      report->second.in_doubt = true;
      if (answer == InDoubtAnswer::kCommitted) {
        AccountFor(protocol, id->local, &report->second);
      }
      report = report->second.branches.empty() ? reports->erase(report) : std::next(report);
    }
  });
  for (auto& [id, report] : *reports) report.why = WhyOf(report);
}

// ----------------------------------------------------------------------------- the timeline

void Inspection::Rep::Take() {
  std::vector<Happening> taken;
  std::uint64_t missed = 0;
  Look([&](const CommitProtocol&) { missed = timeline->Take(&taken); });
  lost += missed;
  history.Add(taken, missed);
}

void Inspection::Rep::Run() {
  MutexLock lock(&mutex);
  while (!stopping) {
    Take();
    wake.WaitFor(&mutex, kTakeEvery);
  }
}

std::vector<wire::TimelineEvent> Inspection::Rep::TimelineOf(
    const LocalId& id, const std::vector<std::string>& names) {
  std::vector<Happening> happenings;
  {
    MutexLock lock(&mutex);
    Take();
    happenings = history.Of(id);
  }
  const std::int64_t now_ns = SystemClock()->NowNs();
  std::vector<wire::TimelineEvent> events;
  for (const Happening& happening : happenings) {
    wire::TimelineEvent& event = events.emplace_back();
    event.ago_us = (now_ns - happening.at_ns) / 1000;
    event.what = WhatName(happening.what);
    if (AtParticipant(happening.what) && happening.participant < names.size()) {
      event.participant = names[happening.participant];
    }
  }
  return events;
}

// ------------------------------------------------------------------------------- the answers

Inspection::Inspection(std::string coordinator_id, Coordinator* coordinator, Crew* crew,
                       ThriftChannel* channel, Timeline* timeline,
                       TransactionHistory::Observer observer)
    : rep_(std::make_unique<Rep>(std::move(coordinator_id), coordinator, crew, channel, timeline,
                                 std::move(observer))) {}

Inspection::~Inspection() { Stop(); }

void Inspection::Start() {
  rep_->thread = std::thread([rep = rep_.get()] { rep->Run(); });
}

void Inspection::Stop() {
  {
    MutexLock lock(&rep_->mutex);
    rep_->stopping = true;
    rep_->wake.NotifyAll();
  }
  if (rep_->thread.joinable()) rep_->thread.join();
}

std::string Inspection::WhereTimeWent(const TransactionId& id) {
  std::vector<std::string> names;
  rep_->Look([&](const CommitProtocol& protocol) {
    for (ParticipantIndex i = 0; i < protocol.registry().size(); ++i) {
      names.push_back(protocol.registry().at(i).record.name);
    }
  });
  MutexLock lock(&rep_->mutex);
  rep_->Take();
  return troth::WhereTimeWent(rep_->history.Of(id.local), names, SystemClock()->NowNs());
}

void Inspection::TakeNotes() {
  MutexLock lock(&rep_->mutex);
  rep_->Take();
}

std::uint64_t Inspection::lost() const {
  MutexLock lock(&rep_->mutex);
  return rep_->lost;
}

std::vector<wire::TransactionReport> Inspection::InDoubt(const wire::InDoubtFilter& filter) {
  Members members;
  std::vector<TransactionView> views;
  RunningMs now = 0;
  rep_->Look([&](const CommitProtocol& protocol) {
    members = rep_->MembersOf(protocol);
    views = protocol.List(kMost);
    now = protocol.now();
  });
  rep_->Find(&members);
  std::map<std::string, wire::TransactionReport> reports;
  for (const TransactionView& view : views) {
    wire::TransactionReport report = rep_->ReportOf(view, now, members);
    reports.emplace(report.transaction_id, std::move(report));
  }
  const auto held = AskAll(rep_->channel->security(), members, {});
  rep_->Attach(members, held, &reports);
  rep_->Judge(&reports);

  std::vector<wire::TransactionReport> list;
  for (auto& [id, report] : reports) {
    if (filter.__isset.older_than_ms && report.age_ms < filter.older_than_ms) continue;
    const auto wanted = [&](const wire::BranchReport& branch) {
      return branch.participant == filter.participant && Unfinished(branch);
    };
    if (filter.__isset.participant &&
        std::none_of(report.branches.begin(), report.branches.end(), wanted)) {
      continue;
    }
    list.push_back(std::move(report));
  }
  std::stable_sort(list.begin(), list.end(),
                   [](const auto& a, const auto& b) { return a.age_ms > b.age_ms; });
  const auto limit = static_cast<std::size_t>(
      filter.__isset.limit ? std::clamp(filter.limit, 1, static_cast<int>(kMost))
                           : static_cast<int>(kMost));
  if (list.size() > limit) list.resize(limit);
  std::size_t room = kWaitingInList;
  for (wire::TransactionReport& report : list) {
    for (wire::BranchReport& branch : report.branches) {
      auto& waiting = branch.prepared.waiting;
      if (waiting.size() > room) waiting.resize(room);
      room -= waiting.size();
    }
  }
  // What those hold whom nobody could ask belongs to this list, and is not in it.
  wire::TransactionReport unasked;
  unasked.state = "unknown";
  unasked.age_ms = -1;
  AddUnknown(members, held, &unasked);
  if (filter.__isset.participant) {
    std::erase_if(unasked.branches, [&](const wire::BranchReport& branch) {
      return branch.participant != filter.participant;
    });
  }
  unasked.why = "could not be asked what they hold: " + Names(unasked, Unknown);
  if (!unasked.branches.empty()) list.push_back(std::move(unasked));
  return list;
}

Status Inspection::Settle(const wire::BranchReport& branch, bool commit, const std::string& order) {
  Members members;
  rep_->Look([&](const CommitProtocol& protocol) { members = rep_->MembersOf(protocol); });
  rep_->Find(&members);
  const auto member = members.find(branch.participant);
  if (member == members.end() || !member->second.where.up) {
    return Status(Code::kUnavailable, "it is down");
  }
  wire::FinishReply reply;
  Security* const security = rep_->channel->security();
  TROTH_RETURN_IF_ERROR(
      Ask(security, member->second.where, [&](wire::ParticipantAdminClient* client) {
        client->settle(reply, branch.prepared.transaction_id, branch.prepared.xid, commit, order);
      }));
  if (reply.finished == wire::Finished::DONE) return OkStatus();
  return Status(Code::kUnavailable, "not settled there: " + reply.message);
}

std::vector<wire::Diagnosis> Inspection::Diagnose() {
  Members members;
  rep_->Look([&](const CommitProtocol& protocol) { members = rep_->MembersOf(protocol); });
  rep_->Find(&members);
  std::vector<std::future<wire::Diagnosis>> asked;
  for (const auto& [name, member] : members) {
    asked.push_back(AskAside([security = rep_->channel->security(), whom = &member] {
      return AskDiagnosis(security, *whom);
    }));
  }
  std::vector<wire::Diagnosis> list;
  for (auto& answer : asked) list.push_back(answer.get());
  return list;
}

Result<wire::TransactionReport> Inspection::Inspect(const std::string& transaction_id) {
  const Result<TransactionId> id = TransactionId::Parse(transaction_id);
  if (!id.ok()) return id.status();
  const bool ours = id->coordinator == rep_->coordinator_id;
  Members members;
  std::optional<TransactionView> view;
  std::optional<CommitRecord> record;
  std::vector<wire::Heuristic> heuristics;
  std::vector<std::string> names;
  InDoubtAnswer answer = InDoubtAnswer::kNotMine;
  RunningMs now = 0;
  rep_->Look([&](const CommitProtocol& protocol) {
    members = rep_->MembersOf(protocol);
    for (ParticipantIndex i = 0; i < protocol.registry().size(); ++i) {
      names.push_back(protocol.registry().at(i).record.name);
    }
    now = protocol.now();
    answer = protocol.Resolve(*id);
    for (const HeuristicRecord& one : protocol.state().heuristics()) {
      if (one.id != id->local || TransactionOf(one, rep_->coordinator_id) != *id) continue;
      wire::Heuristic& heuristic = heuristics.emplace_back();
      heuristic.transaction_id = transaction_id;
      heuristic.participant = names[one.participant];
      heuristic.hazard = one.hazard;
      heuristic.what = one.what;
      heuristic.at_unix_ms = one.at_unix_ms;
    }
    if (!ours) return;
    view = protocol.Find(id->local);
    if (const CommitRecord* whole = protocol.state().FindCommit(id->local)) record = *whole;
  });
  rep_->Find(&members);
  std::map<std::string, wire::TransactionReport> reports;
  wire::TransactionReport& report = reports[transaction_id];
  if (view) {
    report = rep_->ReportOf(*view, now, members);
  } else {
    report.transaction_id = transaction_id;
    report.state = StateOf(answer);
    report.age_ms = -1;
    if (record && !record->key.empty()) report.__set_key(record->key);
    for (const BranchRecord& one : record ? record->branches : std::vector<BranchRecord>()) {
      const auto member = members.find(names[one.participant]);
      const Member gone{one.participant, names[one.participant], {}, {}, {}};
      wire::BranchReport branch =
          BranchOf(member != members.end() ? member->second : gone, transaction_id, "acknowledged");
      SetEvidence(one, &branch);
      report.branches.push_back(std::move(branch));
    }
  }
  const auto held = AskAll(rep_->channel->security(), members, {transaction_id});
  rep_->Attach(members, held, &reports);
  if (view || record) LeaveOut(&report);
  for (const wire::BranchReport& branch : report.branches) {
    report.in_doubt = report.in_doubt || branch.__isset.prepared;
  }
  report.heuristics = std::move(heuristics);
  report.why = WhyOf(report);
  // Of the others the coordinator knows the branches, or has an answer when they ask.
  if (!view && !record && answer != InDoubtAnswer::kAborted && answer != InDoubtAnswer::kPending) {
    AddUnknown(members, held, &report);
    const std::string unknown = Names(report, Unknown);
    if (!unknown.empty() && report.state == "committed" && !report.in_doubt) {
      report.why = "committed, and the record that names its branches is kept no more";
    }
    if (!unknown.empty()) report.why += "; nobody knows what is held by " + unknown;
  }
  if (ours) report.timeline = rep_->TimelineOf(id->local, names);
  for (const wire::BranchReport& branch : report.branches) {
    if (!branch.__isset.prepared) continue;
    wire::TimelineEvent& event = report.timeline.emplace_back();
    event.ago_us = branch.prepared.prepared_ms * 1000;
    event.participant = branch.participant;
    event.what = "prepared in its database";
  }
  std::stable_sort(report.timeline.begin(), report.timeline.end(),
                   [](const auto& a, const auto& b) { return a.ago_us > b.ago_us; });
  return report;
}

}  // namespace troth
