// See console_service.h.
#include "coordinator/console_service.h"

#include <algorithm>
#include <charconv>
#include <exception>
#include <functional>
#include <map>
#include <utility>

#include <glog/logging.h>
#include <nlohmann/json.hpp>

#include "common/clock.h"
#include "common/transaction_id.h"
#include "coordinator/commit_protocol_views.h"
#include "coordinator/console_files.h"
#include "recovery/heuristics.h"
#include "wire/report_json.h"

namespace troth {
namespace {

using nlohmann::json;

constexpr std::size_t kSamples = 600;     // ten minutes
constexpr std::size_t kMaxInDoubt = 200;  // rows of a page
constexpr std::size_t kLooked = 1'000;    // transactions that they are chosen from
constexpr std::size_t kHeuristics = 100;  // the newest
constexpr std::int64_t kWorthAWordMs = 500;
constexpr std::chrono::seconds kSampleEvery{1};
constexpr std::chrono::milliseconds kStale{5'000};  // who waits is not told from older answers

// Nothing but what this port serves; no inline script or style, no frame around it.
constexpr char kPolicy[] =
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for "
    "'script'";

struct File {
  const char* path;
  const char* type;
  const char* text;
};
constexpr File kFiles[] = {
    {"/", "text/html; charset=utf-8", console::kPage},
    {"/console.css", "text/css; charset=utf-8", console::kStyle},
    {"/console.js", "text/javascript; charset=utf-8", console::kScript},
    {"/icon.svg", "image/svg+xml", console::kIcon},
};

// Changes with the files: a page that is older than the coordinator asks to be loaded anew.
std::string PageVersion() {
  std::string all;
  for (const File& file : kFiles) all += file.text;
  return std::to_string(std::hash<std::string>()(all));
}

HttpReply Json(int status, std::string text) {
  return {status, "application/json; charset=utf-8", std::move(text), {}};
}

json OrNull(double value) { return value < 0 ? json() : json(value); }

json SampleJson(const LoadSample& sample) {
  return {{"at_unix_ms", sample.at_unix_ms},
          {"committed_per_s", sample.committed_per_s},
          {"aborted_per_s", sample.aborted_per_s},
          {"read_only_per_s", sample.read_only_per_s},
          {"log_syncs_per_s", sample.syncs_per_s},
          {"in_flight", sample.in_flight},
          {"unacknowledged", sample.unacknowledged},
          {"commit_p50_ms", OrNull(sample.commit_p50_ms)},
          {"commit_p99_ms", OrNull(sample.commit_p99_ms)},
          {"log_sync_p99_ms", OrNull(sample.sync_p99_ms)}};
}

// The two questions for which participants are asked, each by a thread of its own.
std::string AskInDoubt(Inspection* inspection) {
  wire::InDoubtFilter filter;
  filter.__set_older_than_ms(kWorthAWordMs);
  filter.__set_limit(static_cast<std::int32_t>(kLooked));
  try {
    std::vector<wire::TransactionReport> list = inspection->InDoubt(filter);
    // Who could not be asked stands among the participants.
    if (!list.empty() && list.back().transaction_id.empty()) list.pop_back();
    return JsonText(ToJson(list));
  } catch (const std::exception& e) {
    LOG(WARNING) << "the console could not ask what is in doubt: " << e.what();
    return "[]";
  }
}

std::string AskTransaction(Inspection* inspection, const std::string& id) {
  try {
    const Result<wire::TransactionReport> report = inspection->Inspect(id);
    if (!report.ok()) return JsonText({{"error", report.status().message()}});
    return JsonText({{"asked_unix_ms", SystemClock()->WallUnixMs()}, {"report", ToJson(*report)}});
  } catch (const std::exception& e) {
    return JsonText({{"error", std::string("could not ask: ") + e.what()}});
  }
}

// What the last look at participants said of the transactions that are stuck, by id.
std::map<std::string, json> ReportsOf(const AnswerCache::Answer& answer) {
  std::map<std::string, json> reports;
  if (!answer.known || answer.age > kStale) return reports;
  for (json& report : json::parse(answer.text)) {
    std::string id = report["transaction_id"];
    reports.emplace(std::move(id), std::move(report));
  }
  return reports;
}

// A prepared branch in it is one that no commit that is known names.
bool HasUnnamed(const json& report) {
  const json& branches = report["branches"];
  return std::any_of(branches.begin(), branches.end(), [](const json& branch) {
    return branch["state"] == "unheard-of" || branch["state"] == "left-out";
  });
}

// What a state other than serving asks of an operator; docs/operations.md has more.
std::string Explain(const std::string& state, const std::string& suspicion) {
  if (state == "draining") return "no new transactions; wait, then stop or restart it";
  if (state == "log-full") return "no room for another commit record: free disk space";
  if (state == "log-suspect") return suspicion;
  if (state == "opening" || state == "opening the log") return "recovery is under way; wait";
  if (state == "stopping") return "it finishes what is decided, and ends";
  return "";
}

}  // namespace

Console::Console(Monitoring* monitoring) : monitoring_(monitoring), history_(kSamples) {}

Console::~Console() { Leave(); }

void Console::Look(Sources sources) {
  MutexLock lock(&mutex_);
  sources_ = std::move(sources);
  began_unix_ms_ = SystemClock()->WallUnixMs();
  looking_ = true;
  Inspection* const inspection = sources_.inspection;
  doubt_ = std::make_unique<AnswerCache>(
      AnswerCache::Options{}, [inspection](const std::string&) { return AskInDoubt(inspection); });
  transactions_ = std::make_unique<AnswerCache>(
      AnswerCache::Options{},
      [inspection](const std::string& id) { return AskTransaction(inspection, id); });
  sampler_ = std::thread([this] { RunSampler(); });
}

void Console::Leave() {
  std::unique_ptr<AnswerCache> doubt, transactions;  // end when the mutex is free again
  {
    MutexLock lock(&mutex_);
    looking_ = false;
    doubt = std::move(doubt_);
    transactions = std::move(transactions_);
    changed_.NotifyAll();
  }
  if (sampler_.joinable()) sampler_.join();
}

bool Console::Answers(const std::string& path) const {
  return path.compare(0, 5, "/api/") == 0 ||
         std::any_of(std::begin(kFiles), std::end(kFiles),
                     [&](const File& file) { return path == file.path; });
}

HttpReply Console::Page(const HttpRequest& request) {
  const std::string& path = request.path;
  for (const File& file : kFiles) {
    if (path != file.path) continue;
    return {200,
            file.type,
            file.text,
            {{"Content-Security-Policy", kPolicy}, {"Referrer-Policy", "no-referrer"}}};
  }
  MutexLock lock(&mutex_);
  if (path == "/api/status") return Json(200, Status());
  if (!looking_) {
    return Json(503, JsonText({{"error", "not there (yet): " + monitoring_->State()}}));
  }
  if (path == "/api/load") {
    const std::string after = QueryValue(request.query, "after");
    std::int64_t unix_ms = 0;
    std::from_chars(after.data(), after.data() + after.size(), unix_ms);
    return Json(200, Load(unix_ms));
  }
  if (path == "/api/in-doubt") return Json(200, InDoubt());
  if (path == "/api/participants") return Json(200, Participants());
  if (path == "/api/transaction") return Transaction(QueryValue(request.query, "id"));
  return Json(404, JsonText({{"error",
                              "there are /api/status, /api/load, /api/in-doubt, /api/participants "
                              "and /api/transaction?id=ID"}}));
}

void Console::Inspect(const std::function<void(const CommitProtocol&)>& look) {
  sources_.coordinator->Inspect(look);
  // This thread may have run the machine for others meanwhile, and what it did must go on.
  sources_.crew->Nudge();
}

std::string Console::Status() {
  const std::string state = monitoring_->State();
  json status = {{"state", state},
                 {"why", Explain(state, "")},
                 {"page", PageVersion()},
                 {"now_unix_ms", SystemClock()->WallUnixMs()}};
  if (!looking_) return JsonText(status);
  status["coordinator"] = sources_.coordinator_id;
  status["epoch"] = sources_.coordinator->epoch().ToString();
  status["began_unix_ms"] = began_unix_ms_;
  status["log_syncs"] = sources_.coordinator->syncs();
  const RunningMs now = sources_.coordinator->Now();
  Inspect([&](const CommitProtocol& protocol) {
    mutex_.AssertHeld();  // by the caller of this method
    const auto& counters = protocol.counters();
    status["why"] = Explain(state, protocol.suspicion());
    status["committed"] = counters.committed;
    status["aborted"] = counters.aborted;
    status["read_only"] = counters.read_only;
    status["in_flight"] = protocol.undecided();
    status["unacknowledged"] = protocol.unacknowledged();
    const auto oldest = protocol.List(1);
    status["oldest_ms"] =
        oldest.empty() ? json() : json(std::max<RunningMs>(now - oldest[0].began, 0));
    const auto& heuristics = protocol.state().heuristics();
    status["heuristics_count"] = heuristics.size();
    json& newest = status["heuristics"] = json::array();
    for (auto h = heuristics.rbegin(); h != heuristics.rend() && newest.size() < kHeuristics; ++h) {
      newest.push_back({{"transaction_id", TransactionOf(*h, sources_.coordinator_id).ToString()},
                        {"participant", protocol.registry().at(h->participant).record.name},
                        {"hazard", h->hazard},
                        {"what", h->what},
                        {"at_unix_ms", h->at_unix_ms}});
    }
  });
  return JsonText(status);
}

std::string Console::Load(std::int64_t after_unix_ms) {
  json samples = json::array();
  for (const LoadSample& sample : history_.After(after_unix_ms))
    samples.push_back(SampleJson(sample));
  return JsonText({{"interval_ms", 1000}, {"samples", std::move(samples)}});
}

std::string Console::InDoubt() {
  struct Stuck {
    TransactionView view;
    RunningMs age = 0;
  };
  const RunningMs now = sources_.coordinator->Now();
  std::vector<Stuck> stuck;
  std::size_t all = 0;
  Inspect([&](const CommitProtocol& protocol) {
    all = protocol.undecided() + protocol.unacknowledged();
    for (auto& view : protocol.List(kLooked)) {
      const RunningMs age = std::max<RunningMs>(now - view.began, 0);
      if (age >= kWorthAWordMs) stuck.push_back({std::move(view), age});
    }
  });
  std::stable_sort(stuck.begin(), stuck.end(),
                   [](const Stuck& a, const Stuck& b) { return a.age > b.age; });
  if (stuck.size() > kMaxInDoubt) stuck.resize(kMaxInDoubt);
  // The machine says what there is; participants, what they were last heard to hold.
  std::map<std::string, json> reports = ReportsOf(doubt_->Get(""));
  json transactions = json::array();
  for (const Stuck& one : stuck) {
    const std::string id = TransactionId{sources_.coordinator_id, one.view.id}.ToString();
    const auto report = reports.find(id);
    const bool seen = report != reports.end() && report->second["state"] == one.view.state;
    transactions.push_back({{"transaction_id", id},
                            {"state", one.view.state},
                            {"age_ms", one.age},
                            {"waiting_for", one.view.waiting_for},
                            {"why", seen ? std::move(report->second["why"]) : json()},
                            {"branches", seen ? std::move(report->second["branches"]) : json()}});
    if (report != reports.end()) reports.erase(report);
  }
  for (auto& [id, report] : reports) {
    if (!HasUnnamed(report)) continue;  // ended since
    transactions.push_back({{"transaction_id", id},
                            {"state", std::move(report["state"])},
                            {"age_ms", std::move(report["age_ms"])},
                            {"waiting_for", json::array()},
                            {"why", std::move(report["why"])},
                            {"branches", std::move(report["branches"])}});
  }
  return JsonText({{"now_unix_ms", SystemClock()->WallUnixMs()},
                   {"under_way", all},
                   {"transactions", std::move(transactions)}});
}

HttpReply Console::Transaction(const std::string& id) {
  if (const Result<TransactionId> parsed = TransactionId::Parse(id); !parsed.ok()) {
    return Json(400, JsonText({{"error", parsed.status().message()}}));
  }
  const AnswerCache::Answer answer = transactions_->Get(id);
  if (answer.full) {
    return Json(503,
                JsonText({{"error", "too many transactions are looked at; try again in 5 s"}}));
  }
  if (!answer.known) return Json(200, JsonText({{"asked_unix_ms", nullptr}, {"report", nullptr}}));
  return Json(answer.text.compare(0, 8, R"({"error")") == 0 ? 500 : 200, answer.text);
}

std::string Console::Participants() {
  SeeReach();
  json participants = json::array();
  const RunningMs now = sources_.coordinator->Now();
  const std::int64_t now_unix_ms = SystemClock()->WallUnixMs();
  Inspect([&](const CommitProtocol& protocol) {
    mutex_.AssertHeld();
    const Registry& registry = protocol.registry();
    for (ParticipantIndex i = 0; i < registry.size() && i < reach_.size(); ++i) {
      const Registry::Participant& p = registry.at(i);
      if (p.record.forgotten) continue;
      participants.push_back(
          {{"participant", p.record.name},
           {"up", reach_[i].up},
           {"since_unix_ms", reach_[i].since_unix_ms},
           {"heard_unix_ms", p.heard_at < 0 ? json() : json(now_unix_ms - (now - p.heard_at))},
           {"unacknowledged", p.unacknowledged},
           {"address", p.record.peer_host + ":" + std::to_string(p.record.peer_port)},
           {"database_address", p.record.database_address},
           {"system_identifier", std::to_string(p.record.database.system_identifier)},
           {"database_oid", p.record.database.oid},
           {"contradiction", p.contradiction}});
    }
  });
  return JsonText({{"now_unix_ms", now_unix_ms}, {"participants", std::move(participants)}});
}

void Console::SeeReach() {
  std::size_t count = 0;
  Inspect([&](const CommitProtocol& protocol) { count = protocol.registry().size(); });
  while (reach_.size() < count) reach_.push_back({false, began_unix_ms_});
  for (ParticipantIndex i = 0; i < reach_.size(); ++i) {
    const ThriftChannel::Whereabouts where = sources_.channel->Where(i);
    const std::int64_t now_unix_ms = SystemClock()->WallUnixMs();
    if (where.up != reach_[i].up) {
      reach_[i] = {where.up, where.up ? now_unix_ms : now_unix_ms - where.down_ms};
    }
  }
}

void Console::Sample() {
  LoadTotals totals;
  totals.at_ns = SystemClock()->NowNs();
  totals.at_unix_ms = SystemClock()->WallUnixMs();
  totals.syncs = sources_.coordinator->syncs();
  Inspect([&](const CommitProtocol& protocol) {
    totals.committed = protocol.counters().committed;
    totals.aborted = protocol.counters().aborted;
    totals.read_only = protocol.counters().read_only;
    totals.in_flight = protocol.undecided();
    totals.unacknowledged = protocol.unacknowledged();
  });
  monitoring_->AddLatencies(&totals);
  history_.Add(std::move(totals));
}

void Console::RunSampler() {
  MutexLock lock(&mutex_);
  auto next = std::chrono::steady_clock::now();
  while (looking_) {
    Sample();
    SeeReach();
    next += kSampleEvery;
    while (looking_ && changed_.WaitUntil(&mutex_, next)) {
    }
  }
}

}  // namespace troth
