// See world.h.
#include "tests/protocol/world.h"

#include <charconv>
#include <cstdlib>
#include <iostream>

namespace troth {
namespace {

// A test that says what cannot be said ends here.
void Must(bool condition, std::string_view what = "a transcript's command") {
  if (condition) return;
  std::cerr << "wrong: " << what << std::endl;
  std::abort();
}

constexpr char kCoordinator[] = "bank-0123456789ab";

std::vector<std::string> Split(std::string_view text, char separator) {
  std::vector<std::string> parts;
  std::size_t from = 0;
  while (from <= text.size()) {
    const std::size_t to = std::min(text.find(separator, from), text.size());
    if (to > from) parts.emplace_back(text.substr(from, to - from));
    from = to + 1;
  }
  return parts;
}

std::uint64_t Number(std::string_view text, int base = 10) {
  if (!text.empty() && text[0] == '+') text.remove_prefix(1);
  std::uint64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number, base);
  Must(error == std::errc() && end == text.data() + text.size(), text);
  return number;
}

// `a` is database 7001/5, `b` 7002/5, ...
DatabaseId DefaultDatabase(std::string_view name) {
  return DatabaseId{7000u + static_cast<unsigned char>(name[0]) - 'a' + 1, 5};
}

DatabaseId Database(std::string_view text) {
  const auto parts = Split(text, '/');
  return DatabaseId{Number(parts.at(0)), static_cast<std::uint32_t>(Number(parts.at(1)))};
}

// What a log gives back: a field that is not written is not there after a restart.
LogRecord AsWritten(const LogRecord& record) {
  std::string bytes;
  EncodeRecord(record, &bytes);
  std::string_view in = bytes;
  Result<LogRecord> read = DecodeRecord(&in);
  Must(read.ok() && in.empty(), "a record's bytes");
  return *std::move(read);
}

BranchVote Prepared(std::uint64_t xid, std::uint32_t works, DatabaseId database) {
  BranchVote vote;
  vote.ballot = Ballot::kPrepared;
  vote.works = works;
  vote.database = database;
  vote.xid = xid;
  vote.timeline = 1;
  vote.position = 0x16000000 + xid;
  return vote;
}

}  // namespace

// A command line: its words, and its `key=value`s apart.
struct World::Words {
  explicit Words(std::string_view line) {
    for (std::string& word : Split(line, ' ')) {
      const std::size_t equals = word.find('=');
      if (equals == std::string::npos || word.find(':') < equals) {
        plain.push_back(std::move(word));
      } else {
        named.emplace_back(word.substr(0, equals), word.substr(equals + 1));
      }
    }
  }
  const std::string& operator[](std::size_t i) const { return plain.at(i); }
  std::string Get(std::string_view key, std::string otherwise = "") const {
    for (const auto& [k, v] : named) {
      if (k == key) return v;
    }
    return otherwise;
  }
  template <typename T>
  void Set(std::string_view key, T* value) const {
    const std::string text = Get(key);
    if (!text.empty()) *value = static_cast<T>(Number(text));
  }
  std::vector<std::string> plain;
  std::vector<std::pair<std::string, std::string>> named;
};

World::World() { options_.coordinator_id = kCoordinator; }
World::~World() = default;

std::string World::Run(std::string_view commands) {
  said_.clear();
  actions_.clear();
  for (const std::string& line : Split(commands, '\n')) {
    const Words words(line);
    if (!words.plain.empty() && words[0][0] != '#') Command(words);
  }
  return said_;
}

// ----------------------------------------------------------------------- machine and log

void World::Begin() {
  RecoveredState state;
  for (const auto& [record, at] : durable_) {
    const Status applied = state.Apply(record, at);
    Must(applied.ok(), applied.message());
  }
  undurable_.clear();
  numbered_ = 0;
  machine_ = std::make_unique<CommitProtocol>(
      options_, std::move(state), 0x0a0a0a00u + static_cast<std::uint32_t>(lives_.size()) + 1,
      batch_);
  lives_.push_back(machine_->epoch());
  now_ = machine_->now();
  Say("> begin life " + std::to_string(lives_.size()) + " epoch " + machine_->epoch().ToString());
  const std::size_t from = actions_.size();
  machine_->Start(&actions_);
  Take(from);
}

void World::Feed(const Event& event) {
  Say("> " + troth::DebugString(event));
  const std::size_t from = actions_.size();
  machine_->Step(event, &actions_);
  machine_->CheckInvariants();
  Take(from);
}

void World::Take(std::size_t from) {
  for (std::size_t i = from; i < actions_.size(); ++i) {
    Say("  " + troth::DebugString(actions_[i]));
    if (const auto* append = std::get_if<AppendRecord>(&actions_[i])) {
      undurable_.emplace_back(append->record, now_);
      handed_over_.push_back(append->record);
    }
  }
}

void World::Durable(std::size_t count) {
  count = std::min(count, undurable_.size());
  for (std::size_t i = 0; i < count; ++i) {
    durable_.emplace_back(AsWritten(undurable_[i].first), undurable_[i].second);
  }
  undurable_.erase(undurable_.begin(), undurable_.begin() + static_cast<std::ptrdiff_t>(count));
  numbered_ += count;
  Feed(RecordsDurable{numbered_, ++batch_});
}

void World::Time(RunningMs passes) {
  const RunningMs until = now_ + passes;
  while (now_ < until) {
    now_ = std::min(until, machine_->NextTimer());
    const std::size_t from = actions_.size();
    machine_->Step(TimePassed{now_, 0}, &actions_);
    machine_->CheckInvariants();
    // Steps in which nothing happens are not shown.
    if (actions_.size() > from || now_ == until) Say("> time " + std::to_string(now_));
    Take(from);
  }
}

// ------------------------------------------------------------------------------- values

TransactionId World::Id(std::string_view text) const {
  const auto parts = Split(text, '.');
  TransactionId id{kCoordinator, {lives_.back(), Number(parts.back())}};
  if (parts.size() == 2) id.local.epoch = lives_.at(Number(parts[0]) - 1);
  return id;
}

ParticipantIndex World::Index(std::string_view name) const {
  const Registry& registry = machine_->registry();
  for (ParticipantIndex i = static_cast<ParticipantIndex>(registry.size()); i-- > 0;) {
    if (registry.at(i).record.name == name) return i;
  }
  Must(false, name);
  return 0;
}

BranchClaim World::Claim(std::string_view text) const {
  const auto parts = Split(text, ':');
  BranchClaim claim;
  claim.participant = parts.at(0);
  claim.mark = parts.size() > 1 ? parts[1] : "m";
  claim.works = parts.size() > 2 ? static_cast<std::uint32_t>(Number(parts[2])) : 1;
  claim.instance = "i-" + claim.participant;
  for (std::size_t i = 3; i < parts.size(); ++i) {
    if (parts[i] == "read-only") {
      claim.read_only = true;
      continue;
    }
    const auto vote = Split(parts[i], '=');
    Must(vote.at(0) == "voted" || vote.at(0) == "forged", text);
    claim.carries_vote = true;
    claim.authentic = vote[0] == "voted";
    claim.vote = Prepared(Number(vote.at(1)), claim.works, DefaultDatabase(claim.participant));
  }
  return claim;
}

SeenPosition World::Seen(std::string_view text) const {
  SeenPosition seen;
  if (text.empty()) return seen;
  const auto parts = Split(text, '@');
  const auto epoch = Split(parts.at(0), '-');
  seen.epoch = epoch.size() == 1 ? lives_.at(Number(epoch[0]) - 1)
                                 : Epoch{static_cast<std::uint32_t>(Number(epoch[0])),
                                         static_cast<std::uint32_t>(Number(epoch[1], 16))};
  seen.position = Number(parts.at(1));
  return seen;
}

EnrolmentAsked World::Enrolment(const Words& w) const {
  EnrolmentAsked e;
  e.participant.name = w[1];
  e.participant.database =
      w.Get("database").empty() ? DefaultDatabase(w[1]) : Database(w.Get("database"));
  e.participant.database_address = w.Get("address", "db-" + w[1] + ":5432");
  e.participant.peer_host = w[1];
  e.participant.peer_port = 7001;
  w.Set("port", &e.participant.peer_port);
  e.instance = "i-" + w[1];
  e.seen = Seen(w.Get("saw"));
  return e;
}

// ----------------------------------------------------------------------------- commands

void World::Command(const Words& w) {
  const std::string& verb = w[0];
  if (verb == "open") {
    w.Set("lease_ms", &options_.lease_ms);
    w.Set("record_ms", &options_.retention.record_ms);
    w.Set("outcome_ms", &options_.retention.outcome_ms);
    w.Set("hear_ms", &options_.hear_ms);
    w.Set("reserve", &options_.reserve_block);
    w.Set("max_undecided", &options_.max_undecided);
    w.Set("max_leased", &options_.max_leased);
    w.Set("max_unacknowledged", &options_.max_unacknowledged);
    w.Set("max_branches", &options_.max_branches);
    options_.retention.lease_ms = options_.lease_ms;
    options_.early_prepare = w.Get("early") != "no";
    options_.read_only = w.Get("read_only") != "no";
    Begin();
  } else if (verb == "crash") {
    std::size_t keep = 0;
    w.Set("keep", &keep);
    for (std::size_t i = 0; i < keep; ++i) {
      durable_.emplace_back(AsWritten(undurable_.at(i).first), undurable_.at(i).second);
    }
    if (keep > 0) ++batch_;
    Begin();
  } else if (verb == "cut") {
    Must(durable_.size() >= Number(w[1]));
    durable_.resize(durable_.size() - Number(w[1]));
    --batch_;
    Begin();
  } else if (verb == "durable") {
    Durable(w.plain.size() > 1 ? Number(w[1]) : undurable_.size());
  } else if (verb == "time") {
    Time(static_cast<RunningMs>(Number(w[1])));
  } else if (verb == "show") {
    for (std::size_t i = 1; i < w.plain.size(); ++i) {
      Say(machine_->DebugString(Id(w[i]).local));
    }
  } else if (verb == "log") {
    for (const auto& [record, at] : durable_) Say(troth::DebugString(record));
  } else {
    CommandOfClients(w);
  }
}

void World::CommandOfClients(const Words& w) {
  const std::string& verb = w[0];
  if (verb == "lease") {
    Feed(LeaseAsked{++token_, static_cast<std::uint32_t>(Number(w[1]))});
  } else if (verb == "commit") {
    CommitAsked e;
    e.token = ++token_;
    e.id = Id(w[1]);
    for (std::size_t i = 2; i < w.plain.size(); ++i) e.branches.push_back(Claim(w[i]));
    e.deadline = now_ + static_cast<RunningMs>(Number(w.Get("deadline", "+10000")));
    e.wait_applied = w.Get("wait") != "decided";
    e.key = w.Get("key");
    Feed(e);
  } else if (verb == "abort") {
    AbortAsked e{++token_, Id(w[1]), {}, ""};
    for (std::size_t i = 2; i < w.plain.size(); ++i) e.branches.push_back(Claim(w[i]));
    Feed(e);
  } else if (verb == "outcome") {
    Feed(OutcomeAsked{++token_, Id(w[1]),
                      now_ + static_cast<RunningMs>(Number(w.Get("wait", "0")))});
  } else if (verb == "key" || verb == "close-key") {
    Feed(KeyAsked{++token_, w[1], verb == "close-key"});
  } else {
    CommandOfParticipants(w);
  }
}

void World::CommandOfParticipants(const Words& w) {
  const std::string& verb = w[0];
  if (verb == "ready") {
    for (std::size_t i = 1; i < w.plain.size(); ++i) Feed(Enrolment(Words("enroll " + w[i])));
    Durable(undurable_.size());
    for (std::size_t i = 1; i < w.plain.size(); ++i) Feed(ParticipantUp{Index(w[i])});
  } else if (verb == "enroll") {
    EnrolmentAsked e = Enrolment(w);
    e.token = ++token_;
    Feed(e);
  } else if (verb == "up" || verb == "down") {
    for (std::size_t i = 1; i < w.plain.size(); ++i) {
      if (verb == "up") {
        Feed(ParticipantUp{Index(w[i])});
      } else {
        Feed(ParticipantDown{Index(w[i])});
      }
    }
  } else if (verb == "vote") {
    VoteArrived e{Id(w[2]).local, Index(w[1]), w.Get("mark", "m"), {}};
    std::uint32_t works = 1;
    w.Set("works", &works);
    if (const std::string xid = w.Get("prepared"); !xid.empty()) {
      e.vote =
          Prepared(Number(xid), works,
                   w.Get("database").empty() ? DefaultDatabase(w[1]) : Database(w.Get("database")));
    } else {
      e.vote.works = works;
      Must(w[3] == "read-only" || w[3] == "refused" || w[3] == "working");
      e.vote.ballot = w[3] == "read-only" ? Ballot::kReadOnly
                      : w[3] == "refused" ? Ballot::kRefused
                                          : Ballot::kWorking;
      if (e.vote.ballot == Ballot::kRefused) {
        e.vote.refusal = Refusal{Reason::kConflict, true, "deadlock detected", w[1], "40P01"};
      }
    }
    Feed(e);
  } else if (verb == "finished") {
    const std::string how = w.plain.size() > 3 ? w[3] : "done";
    FinishArrived e{Id(w[2]).local, Index(w[1]), how != "abort", Finished::kDone, ""};
    if (how == "working") e.finished = Finished::kWorking;
    if (how == "heuristic") e.finished = Finished::kHeuristic;
    if (how == "hazard") e.finished = Finished::kHazard;
    if (how == "heuristic" || how == "hazard") e.message = "found " + how;
    Feed(e);
  } else if (verb == "inquiry") {
    Inquired e{++token_, w[1], {}, Seen(w.Get("saw"))};
    for (std::size_t i = 2; i < w.plain.size(); ++i) {
      const auto item = Split(w[i], ':');
      e.items.push_back(
          InquiryItem{Id(item.at(0)), static_cast<std::uint32_t>(Number(item.at(1)))});
    }
    Feed(e);
  } else {
    CommandOfOperators(w);
  }
}

void World::CommandOfOperators(const Words& w) {
  const std::string& verb = w[0];
  if (verb == "room") {
    Feed(LogRoom{w[1] == "yes"});
  } else if (verb == "drain") {
    Feed(DrainAsked{++token_});
  } else if (verb == "forget") {
    Feed(ForgetAsked{++token_, w[1]});
  } else if (verb == "rebind") {
    Feed(RebindAsked{++token_, w[1]});
  } else if (verb == "accept-gap") {
    Feed(AcceptGapAsked{++token_, "tested"});
  } else if (verb == "order") {
    Feed(HeuristicAsked{++token_, Id(w[2]).local, w[1], "ordered to abort by ann: tested"});
  } else if (verb == "discard-report") {
    Feed(DiscardReportAsked{++token_, w[1]});
  } else {
    Must(false, verb);
  }
}

}  // namespace troth
