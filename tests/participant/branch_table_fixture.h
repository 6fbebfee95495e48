// A participant's table on the simulated database, for the tests of its rules and of the sweep.
// Cases speak a small language:
//   open T / open-ro T      work 0 of transaction T: begins; the application holds the block
//   cont T N [MARK]         work N begins (MARK: the branch's, unless another is given)
//   add T KEY N             what the application does in the block
//   bad T                   a statement fails, and the application goes on
//   done T / fail T / last T   the work ends: well, with the application's refusal, early prepare
//   work T KEY              open, add 1, done
//   early T KEY / early-fail T KEY   its only statement, PREPARE with it; the application's refusal
//   prepare T [WORKS [MARK]]   the coordinator asks for the vote
//   commit T / abort T      the coordinator's decision; commit names the vote's evidence
//   pass MS                 time goes by, then a tick
// and answer with a few words: ok, prepared, read-only, working, done, heuristic, hazard, or the
// reason of a refusal.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <sstream>
#include <string>

#include <gtest/gtest.h>

#include "participant/branch_table.h"
#include "tests/simulation/sim_resource_manager.h"

namespace troth {

using std::chrono::milliseconds;

class ManualClock : public Clock {
 public:
  std::int64_t NowNs() override { return now_ms * 1'000'000; }
  std::int64_t WallUnixMs() override { return now_ms; }
  std::int64_t now_ms = 1'000'000;
};

inline std::string ReasonName(const Refusal& refusal) {
  switch (refusal.reason) {
    case Refused::kInvalid: return "invalid";
    case Refused::kOverloaded: return "overloaded";
    case Refused::kDeadline: return "deadline";
    case Refused::kNoSuchBranch: return "no-such-branch";
    case Refused::kOutOfNumber: return "out-of-number";
    case Refused::kEnded: return "ended";
    case Refused::kConflict: return "conflict";
    case Refused::kDatabase: return "database";
    case Refused::kDatabaseUnavailable: return "unavailable";
    case Refused::kNotServing: return "not-serving";
    case Refused::kApplication: return "application";
    default: return "?";
  }
}

class BranchTableTest : public testing::Test {
 protected:
  BranchTableTest() { Restart(); }

  // A new life of the participant, over the same database.
  void Restart() {
    table_.reset();
    open_.clear();
    manager_ = std::make_unique<SimResourceManager>(&database_);
    table_ = std::make_unique<BranchTable>(
        BranchTableOptions{"east", "i" + std::to_string(++lives_), 4, milliseconds(30'000), 100},
        manager_.get(), &clock_, [this] { return ++drawn_; });
    instance_ = "i" + std::to_string(lives_);
  }

  static std::string Id(const std::string& t) { return "main-0123456789ab.1-00000001." + t; }
  static std::string Gid(const std::string& t) { return "troth:east:" + Id(t); }

  std::string Do(const std::string& line) {
    std::istringstream in(line);
    std::string verb, t;
    in >> verb >> t;
    if (verb == "open" || verb == "open-ro") return Start(t, 0, "", verb == "open-ro");
    if (verb == "cont") {
      int n = 0;
      std::string mark = marks_[t];
      in >> n;
      std::string given;
      if (in >> given) mark = given;
      return Start(t, n, mark, false);
    }
    if (verb == "add") {
      std::string key;
      int n = 1;
      in >> key >> n;
      const auto refusal = static_cast<SimSession*>(open_.at(t).session)->Add(key, n);
      return refusal ? ReasonName(*refusal) : "ok";
    }
    if (verb == "bad") {
      static_cast<SimSession*>(open_.at(t).session)->FailStatement();
      return "ok";
    }
    if (verb == "done") return End(t, std::nullopt, false);
    if (verb == "last") return End(t, std::nullopt, true);
    if (verb == "fail") return End(t, Refusal{Refused::kApplication, "no", false, ""}, false);
    if (verb == "early" || verb == "early-fail") {
      std::string key;
      in >> key;
      return Early(t, key, verb == "early-fail");
    }
    if (verb == "work") {
      std::string key;
      in >> key;
      std::string answer = Do("open " + t);
      if (answer == "ok") answer = Do("add " + t + " " + key);
      return answer == "ok" ? Do("done " + t) : answer;
    }
    if (verb == "prepare") {
      int works = 1;
      std::string mark = marks_[t];
      in >> works;
      std::string given;
      if (in >> given) mark = given;
      return Prepare(t, works, mark);
    }
    if (verb == "commit") return Finish({Id(t), true, evidence_.at(t), {}});
    if (verb == "abort") return Finish({Id(t), false, {}, {}});
    if (verb == "pass") {
      clock_.now_ms += std::stoll(t);
      table_->Tick();
      return "ok";
    }
    ADD_FAILURE() << "unknown: " << line;
    return "";
  }

  std::string Start(const std::string& t, int n, const std::string& mark, bool read_only) {
    WorkRequest request;
    request.transaction_id = Id(t);
    request.work = n;
    request.time_left = milliseconds(5'000);
    request.mark = mark;
    request.read_only = read_only;
    Granted<Work> work = table_->StartWork(request);
    if (!work.ok()) return ReasonName(work.refusal());
    open_[t] = *work;
    return "ok";
  }
  std::string Early(const std::string& t, const std::string& key, bool refuses) {
    WorkRequest request;
    request.transaction_id = Id(t);
    request.time_left = milliseconds(5'000);
    request.one_statement = request.last = true;
    Granted<Work> work = table_->StartWork(request);
    if (!work.ok()) return ReasonName(work.refusal());
    open_[t] = *work;
    std::optional<Refusal> failure = manager_->Run(static_cast<SimSession*>(work->session), key, 1);
    if (meanwhile) meanwhile();
    if (!failure && refuses) failure = Refusal{Refused::kApplication, "no", false, ""};
    return End(t, std::move(failure), true);
  }
  std::string End(const std::string& t, std::optional<Refusal> failure, bool last) {
    const Work work = open_.at(t);
    open_.erase(t);
    Granted<WorkReply> reply = table_->EndWork(work, std::move(failure), last);
    if (!reply.ok()) return ReasonName(reply.refusal());
    marks_[t] = reply->mark;
    if (!reply->vote) return "ok";
    evidence_[t] = reply->vote->evidence;
    return VoteName(*reply->vote);
  }
  std::string Prepare(const std::string& t, int works, const std::string& mark) {
    const PrepareRequest requests[] = {{Id(t), mark, works, milliseconds(5'000), instance_}};
    const Vote vote = table_->Prepare(requests, milliseconds(0))[0];
    if (vote.kind == Vote::Kind::kPrepared) evidence_[t] = vote.evidence;
    return VoteName(vote);
  }
  static std::string VoteName(const Vote& vote) {
    switch (vote.kind) {
      case Vote::Kind::kPrepared: return "prepared";
      case Vote::Kind::kReadOnly: return "read-only";
      case Vote::Kind::kWorking: return "working";
      case Vote::Kind::kRefused: return ReasonName(vote.refusal);
    }
    return "?";
  }
  std::string Finish(const FinishRequest& request) {
    const FinishRequest requests[] = {request};
    switch (table_->Finish(requests, milliseconds(0))[0].kind) {
      case FinishResult::Kind::kDone: return "done";
      case FinishResult::Kind::kWorking: return "working";
      case FinishResult::Kind::kHeuristic: return "heuristic";
      case FinishResult::Kind::kHazard: return "hazard";
    }
    return "?";
  }

  std::function<void()> meanwhile;  // between an early statement and the end of its work
  ManualClock clock_;
  SimDatabase database_{{"7000000000000000001", 5}};
  std::unique_ptr<SimResourceManager> manager_;
  std::unique_ptr<BranchTable> table_;
  std::string instance_;
  int lives_ = 0;
  std::uint64_t drawn_ = 0;
  std::map<std::string, Work> open_;
  std::map<std::string, std::string> marks_;
  std::map<std::string, Evidence> evidence_;
};

}  // namespace troth
