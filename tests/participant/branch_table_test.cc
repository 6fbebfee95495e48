// The rules of a participant, on the simulated database. Cases speak a small language:
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
#include <gtest/gtest.h>

#include <sstream>

#include "participant/branch_table.h"
#include "participant/sweep.h"
#include "tests/simulation/sim_resource_manager.h"

namespace troth {
namespace {

using std::chrono::milliseconds;

class ManualClock : public Clock {
 public:
  std::int64_t NowNs() override { return now_ms * 1'000'000; }
  std::int64_t WallUnixMs() override { return now_ms; }
  std::int64_t now_ms = 1'000'000;
};

std::string ReasonName(const Refusal& refusal) {
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
    Granted<BranchView> view = table_->EndWork(work, std::move(failure), last);
    if (!view.ok()) return ReasonName(view.refusal());
    marks_[t] = view->mark;
    if (!view->vote) return "ok";
    evidence_[t] = view->vote->evidence;
    return VoteName(*view->vote);
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

TEST_F(BranchTableTest, CommitsABranch) {
  EXPECT_EQ(Do("work 1 a"), "ok");
  EXPECT_EQ(Do("cont 1 1"), "ok");
  EXPECT_EQ(Do("add 1 a 4"), "ok");
  EXPECT_EQ(Do("done 1"), "ok");
  EXPECT_EQ(Do("prepare 1 2"), "prepared");
  EXPECT_EQ(database_.Read("a"), std::nullopt);
  EXPECT_EQ(Do("commit 1"), "done");
  EXPECT_EQ(database_.Read("a"), 5);
  EXPECT_EQ(table_->Counts().in_doubt, 0u);
}

TEST_F(BranchTableTest, RepeatsAreAnsweredAlike) {
  Do("work 1 a");
  EXPECT_EQ(Do("prepare 1"), "prepared");
  const Evidence first = evidence_["1"];
  EXPECT_EQ(Do("prepare 1"), "prepared");
  EXPECT_EQ(evidence_["1"], first);
  EXPECT_EQ(Do("commit 1"), "done");
  EXPECT_EQ(Do("commit 1"), "done");
  EXPECT_EQ(Do("abort 1"), "heuristic") << "the decision changed";
  Do("work 2 b");
  EXPECT_EQ(Do("abort 2"), "done");
  EXPECT_EQ(Do("abort 2"), "done");
  EXPECT_EQ(Do("prepare 2"), "ended");
}

TEST_F(BranchTableTest, HalfABranchIsNeverPrepared) {
  Do("work 1 a");
  EXPECT_EQ(Do("open 1"), "out-of-number") << "a late duplicate of work 0";
  EXPECT_EQ(Do("cont 1 2"), "out-of-number");
  EXPECT_EQ(Do("cont 1 1 0000000000000063"), "out-of-number");
  EXPECT_EQ(Do("cont 1 1"), "ok") << "refusals left the branch as it was";
  EXPECT_EQ(Do("cont 1 2"), "out-of-number") << "one thing at a time";
  EXPECT_EQ(Do("done 1"), "ok");
  EXPECT_EQ(Do("prepare 1 1"), "out-of-number");
  EXPECT_EQ(Do("prepare 1 2"), "out-of-number") << "a refused vote binds";
  EXPECT_EQ(Do("cont 1 2"), "ended");
  Do("work 2 b");
  EXPECT_EQ(Do("prepare 2 1 0000000000000063"), "out-of-number");
  EXPECT_TRUE(database_.Prepared().empty());
}

TEST_F(BranchTableTest, RestartLosesTheFirstHalfAndRefusesTheSecond) {
  Do("work 1 a");
  Restart();
  EXPECT_EQ(Do("cont 1 1"), "no-such-branch");
  EXPECT_EQ(Do("prepare 1 1"), "no-such-branch");
  EXPECT_EQ(Do("open 1"), "ended") << "the vote bound";
}

TEST_F(BranchTableTest, AnotherInstancesBranchIsNotPreparedHere) {
  Do("work 1 a");
  instance_ = "another";
  EXPECT_EQ(Do("prepare 1"), "no-such-branch");
  EXPECT_TRUE(database_.Prepared().empty());
}

TEST_F(BranchTableTest, AbortBeforeWorkBinds) {
  EXPECT_EQ(Do("abort 1"), "done");
  EXPECT_EQ(Do("open 1"), "ended");
  EXPECT_EQ(Do("prepare 1"), "ended");
}

TEST_F(BranchTableTest, PrepareWithoutWorkBinds) {
  EXPECT_EQ(Do("prepare 1"), "no-such-branch");
  EXPECT_EQ(Do("open 1"), "ended");
}

TEST_F(BranchTableTest, WorkAfterAFailureIsRefusedUntilAborted) {
  Do("open 1");
  Do("add 1 a");
  EXPECT_EQ(Do("fail 1"), "application");
  EXPECT_EQ(Do("work 2 a"), "ok") << "its locks are free at once";
  EXPECT_EQ(Do("cont 1 1 0000000000000001"), "ended");
  EXPECT_EQ(Do("open 1"), "out-of-number");
  EXPECT_EQ(Do("abort 1"), "done");
  EXPECT_EQ(Do("open 1"), "ended");
}

TEST_F(BranchTableTest, AVoteAfterAFailureSaysWhy) {
  Do("open 1");
  EXPECT_EQ(Do("fail 1"), "application");
  EXPECT_EQ(Do("prepare 1 0"), "application");
}

TEST_F(BranchTableTest, AnErrorTheApplicationSwallowedFailsTheWork) {
  Do("open 1");
  Do("bad 1");
  EXPECT_EQ(Do("done 1"), "database");
  EXPECT_EQ(Do("prepare 1 1"), "database");
}

TEST_F(BranchTableTest, AbortCancelsWorkUnderWay) {
  Do("open 1");
  Do("add 1 a");
  EXPECT_EQ(Do("abort 1"), "working");
  EXPECT_EQ(Do("done 1"), "ended");
  EXPECT_EQ(Do("abort 1"), "done");
  EXPECT_EQ(Do("work 2 a"), "ok");
}

TEST_F(BranchTableTest, PrepareDuringWorkIsRefusedAndBinds) {
  Do("open 1");
  EXPECT_EQ(Do("prepare 1 1"), "out-of-number");
  EXPECT_EQ(Do("done 1"), "out-of-number");
  EXPECT_EQ(Do("prepare 1 1"), "out-of-number");
  EXPECT_TRUE(database_.Prepared().empty());
}

TEST_F(BranchTableTest, AbortWaitsBehindPrepare) {
  Do("work 1 a");
  database_.slowness = [](const std::string& what, const std::string&) {
    return what == "PREPARE" ? 2 : 0;
  };
  EXPECT_EQ(Do("prepare 1"), "working");
  EXPECT_EQ(Do("abort 1"), "working");
  EXPECT_EQ(Do("prepare 1"), "working");
  EXPECT_EQ(Do("pass 10"), "ok") << "the tick takes the answer in, and rolls back";
  EXPECT_EQ(Do("prepare 1"), "ended");
  EXPECT_EQ(Do("abort 1"), "done");
  EXPECT_TRUE(database_.Prepared().empty());
}

TEST_F(BranchTableTest, EarlyWorkIsPreparedWithItsStatement) {
  meanwhile = [&] { EXPECT_EQ(database_.Prepared().size(), 1u); };
  EXPECT_EQ(Do("early 1 a"), "prepared");
  EXPECT_EQ(Do("prepare 1 1"), "prepared");
  EXPECT_EQ(Do("commit 1"), "done");
  EXPECT_EQ(database_.Read("a"), 1);
}

TEST_F(BranchTableTest, EarlyWorkThatIsRefusedLeavesNothingPrepared) {
  EXPECT_EQ(Do("early-fail 1 a"), "application");
  EXPECT_TRUE(database_.Prepared().empty());
  EXPECT_EQ(Do("prepare 1 1"), "application") << "the vote binds";
  EXPECT_EQ(Do("early 1 a"), "ended");
  EXPECT_EQ(Do("abort 1"), "done");
  EXPECT_EQ(Do("early 2 a"), "prepared") << "its locks are free";
}

TEST_F(BranchTableTest, EarlyWorkThatIsAbortedMeanwhileLeavesNothingPrepared) {
  meanwhile = [&] { EXPECT_EQ(Do("abort 1"), "working"); };
  EXPECT_EQ(Do("early 1 a"), "ended");
  EXPECT_TRUE(database_.Prepared().empty());
  EXPECT_EQ(Do("abort 1"), "done");
}

TEST_F(BranchTableTest, EarlyWorkPastItsDeadlineLeavesNothingPrepared) {
  meanwhile = [&] { Do("pass 6000"); };
  EXPECT_EQ(Do("early 1 a"), "deadline");
  EXPECT_TRUE(database_.Prepared().empty());
}

TEST_F(BranchTableTest, EarlyWorkWhoseRollBackIsLostIsFinishedByItsAbort) {
  database_.fate = [](const std::string& what, const std::string&) {
    return what == "ROLLBACK" ? SimDatabase::Fate::kLostBefore : SimDatabase::Fate::kNormal;
  };
  EXPECT_EQ(Do("early-fail 1 a"), "application");
  EXPECT_EQ(database_.Prepared().size(), 1u) << "the test tried nothing";
  database_.fate = nullptr;
  EXPECT_EQ(Do("abort 1"), "done");
  EXPECT_TRUE(database_.Prepared().empty()) << "ended, and taken for settled";
}

TEST_F(BranchTableTest, EarlyWorkWhoseAnswerIsLateOrLostIsNoVote) {
  using Fate = SimDatabase::Fate;
  int t = 0;
  for (const Fate fate : {Fate::kLostBefore, Fate::kLostAfter, Fate::kWarning}) {
    database_.fate = [fate](const std::string& what, const std::string&) {
      return what == "PREPARE" ? fate : Fate::kNormal;
    };
    const std::string id = std::to_string(++t);
    EXPECT_EQ(Do("early " + id + " a"), fate == Fate::kWarning ? "database" : "unavailable");
    EXPECT_EQ(database_.Prepared().size(), fate == Fate::kLostAfter ? 1u : 0u) << "of what xid?";
    EXPECT_EQ(Do("abort " + id), "done");
    EXPECT_TRUE(database_.Prepared().empty());
  }
  database_.fate = nullptr;
  database_.slowness = [](const std::string& what, const std::string&) {
    return what == "PREPARE" ? 2 : 0;
  };
  EXPECT_EQ(Do("early 9 a"), "deadline");
  EXPECT_EQ(Do("abort 9"), "working") << "PREPARE is under way";
  for (int i = 0; i < 3; ++i) Do("pass 10");
  EXPECT_TRUE(database_.Prepared().empty());
  EXPECT_EQ(Do("abort 9"), "done");
}

TEST_F(BranchTableTest, ASlowBranchIsAskedAgain) {
  Do("work 1 a");
  database_.slowness = [](const std::string&, const std::string&) { return 1; };
  EXPECT_EQ(Do("prepare 1"), "working");
  EXPECT_EQ(Do("prepare 1"), "prepared");
  EXPECT_EQ(Do("commit 1"), "working");
  EXPECT_EQ(Do("commit 1"), "done");
  EXPECT_EQ(database_.Read("a"), 1);
}

TEST_F(BranchTableTest, AnUnheardAnswerToPrepareIsNoVote) {
  Do("work 1 a");
  database_.fate = [](const std::string& what, const std::string&) {
    return what == "PREPARE" ? SimDatabase::Fate::kLostAfter : SimDatabase::Fate::kNormal;
  };
  EXPECT_EQ(Do("prepare 1"), "unavailable");
  EXPECT_TRUE(database_.Prepared().empty()) << "it was rolled back at once";
  EXPECT_EQ(Do("prepare 1"), "unavailable");
}

TEST_F(BranchTableTest, L12a_AWarningAtPrepareIsNoVote) {
  Do("work 1 a");
  database_.fate = [](const std::string& what, const std::string&) {
    return what == "PREPARE" ? SimDatabase::Fate::kWarning : SimDatabase::Fate::kNormal;
  };
  EXPECT_EQ(Do("prepare 1"), "database");
  EXPECT_TRUE(database_.Prepared().empty());
}

TEST_F(BranchTableTest, IdleBranchesAreRolledBackAtTheirDeadline) {
  Do("work 1 a");
  Do("pass 4999");
  EXPECT_EQ(table_->Counts().active, 1u);
  Do("pass 1");
  EXPECT_EQ(table_->Counts().active, 0u);
  EXPECT_EQ(Do("prepare 1"), "deadline");
  EXPECT_EQ(Do("work 2 a"), "ok");
  Do("open 3");
  Do("pass 5000");
  EXPECT_EQ(Do("done 3"), "deadline") << "work past its deadline is cancelled";
}

TEST_F(BranchTableTest, L7a_OpenBranchesOfAnEndedEpochAreRolledBack) {
  Do("work 1 a");
  Do("open 2");
  Do("work 3 c");
  EXPECT_EQ(Do("prepare 3"), "prepared");
  table_->EpochBegan("main-0123456789ab", 1);
  table_->EpochBegan("other-0123456789ab", 7);
  EXPECT_EQ(table_->Counts().active, 2u) << "the epoch goes on, and others are others";
  table_->EpochBegan("main-0123456789ab", 2);
  EXPECT_EQ(Do("done 2"), "ended") << "work under way is cancelled";
  EXPECT_EQ(table_->Counts().active, 0u);
  EXPECT_EQ(Do("prepare 1"), "ended");
  EXPECT_EQ(Do("open 4"), "ended");
  EXPECT_EQ(table_->Counts().in_doubt, 1u) << "what is prepared waits for its decision";
  EXPECT_EQ(Do("commit 3"), "done");
}

TEST_F(BranchTableTest, APreparedBranchHasNoDeadline) {
  Do("work 1 a");
  Do("prepare 1");
  Do("pass 3600000");
  EXPECT_EQ(Do("commit 1"), "done");
  EXPECT_EQ(database_.Read("a"), 1);
}

TEST_F(BranchTableTest, EndedIdsAreRememberedForALease) {
  EXPECT_EQ(Do("abort 1"), "done");
  Do("pass 30000");
  EXPECT_EQ(Do("open 1"), "ended");
  Do("pass 1");
  EXPECT_EQ(Do("open 1"), "ok");
}

TEST_F(BranchTableTest, BoundOnBranchesInDoubt) {
  for (const char* t : {"1", "2", "3", "4"})
    EXPECT_EQ(Do(std::string("work ") + t + " k" + t), "ok");
  EXPECT_EQ(Do("open 5"), "overloaded");
  Do("prepare 1");
  EXPECT_EQ(Do("open 5"), "overloaded") << "prepared ones count";
  Do("commit 1");
  EXPECT_EQ(Do("open 5"), "ok") << "overloaded leaves the id unheard";
  Do("abort 2");
  table_->Listed({}, 0, 2);
  EXPECT_EQ(Do("open 6"), "overloaded") << "what the sweep found counts";
}

TEST_F(BranchTableTest, ReadOnlyBranch) {
  Do("open-ro 1");
  EXPECT_EQ(Do("done 1"), "ok");
  EXPECT_EQ(Do("prepare 1"), "read-only");
  EXPECT_EQ(Do("prepare 1"), "read-only");
  EXPECT_EQ(Do("cont 1 1"), "ended");
}

TEST_F(BranchTableTest, EarlyPrepare) {
  Do("open 1");
  Do("add 1 a");
  EXPECT_EQ(Do("last 1"), "prepared");
  EXPECT_EQ(Do("cont 1 1"), "ended");
  EXPECT_EQ(Do("prepare 1"), "prepared") << "the vote is repeated for who asks";
  EXPECT_EQ(Do("commit 1"), "done");
  EXPECT_EQ(database_.Read("a"), 1);
}

TEST_F(BranchTableTest, EarlyPrepareThatFailsIsRolledBack) {
  Do("open 1");
  Do("bad 1");
  EXPECT_EQ(Do("last 1"), "database");
  EXPECT_TRUE(database_.Prepared().empty());
  Do("open 2");
  database_.slowness = [](const std::string& what, const std::string&) {
    return what == "PREPARE" ? 5 : 0;
  };
  EXPECT_EQ(Do("last 2"), "deadline");
  for (int i = 0; i < 10; ++i) Do("pass 10");
  EXPECT_TRUE(database_.Prepared().empty()) << "a vote nobody got is not kept";
}

TEST_F(BranchTableTest, L13d_CommitOfAnotherXidRollsTheLiveOneBack) {
  Do("work 1 a");
  Do("prepare 1");
  evidence_["1"].xid += 1;  // decided for a branch that is not this one
  EXPECT_EQ(Do("commit 1"), "hazard");
  EXPECT_EQ(database_.Read("a"), std::nullopt);
  EXPECT_TRUE(database_.Prepared().empty());
}

TEST_F(BranchTableTest, L13c_CommitAfterARestartGoesByTheEvidence) {
  Do("work 1 a");
  Do("prepare 1");
  Restart();
  EXPECT_EQ(Do("commit 1"), "done");
  EXPECT_EQ(database_.Read("a"), 1);
  Restart();
  EXPECT_EQ(Do("commit 1"), "done");
}

// Each time nothing is prepared under the GID, and each time it ended otherwise.
TEST_F(BranchTableTest, L13a_NotFoundProvesNothing) {
  const SimDatabase::State backup = database_.Copy();
  Do("work 1 a");
  Do("prepare 1");
  database_.SettleByHand(Gid("1"), false);
  EXPECT_EQ(Do("commit 1"), "heuristic");
  EXPECT_EQ(Do("commit 1"), "heuristic");
  EXPECT_GE(table_->Counts().heuristics, 1u);
  Do("work 2 a");
  Do("prepare 2");
  database_.SettleByHand(Gid("2"), true);
  EXPECT_EQ(Do("commit 2"), "done");
  Do("work 3 a");
  Do("prepare 3");
  database_.RestoreFrom(backup);
  EXPECT_EQ(Do("commit 3"), "hazard");
}

// A finish that came to nothing makes the vote no younger.
TEST_F(BranchTableTest, L13d_TrustEndsASecondAfterTheVote) {
  Do("work 1 a");
  Do("prepare 1");
  database_.fate = [](const std::string&, const std::string&) { return SimDatabase::Fate::kBusy; };
  Do("pass 900");
  EXPECT_EQ(Do("commit 1"), "working");
  database_.fate = {};
  database_.SettleByHand(Gid("1"), true);  // another instance
  BeginOptions options;
  options.gid = Gid("1");
  options.mark = "m";
  Granted<std::unique_ptr<Session>> late = manager_->Begin(options);  // its late duplicate
  ASSERT_FALSE(static_cast<SimSession*>(late->get())->Add("b", 1));
  PrepareItem items[] = {{late->get(), std::nullopt}};
  manager_->Prepare(items, milliseconds(0));
  ASSERT_EQ(items[0].result->kind, PrepareResult::Kind::kPrepared);
  Do("pass 900");
  EXPECT_EQ(Do("commit 1"), "done");
  EXPECT_EQ(database_.Read("a"), 1);
  EXPECT_EQ(database_.Read("b"), std::nullopt) << "what never voted was committed";
}

TEST_F(BranchTableTest, L13b_ADatabaseThatWentBackIsAHazard) {
  const SimDatabase::State backup = database_.Copy();
  Do("work 1 a");
  Do("prepare 1");
  database_.RestoreFrom(backup);
  EXPECT_EQ(Do("commit 1"), "hazard");
}

TEST_F(BranchTableTest, L13b_EvidenceStaysVoidWhenTheDatabaseRanPastIt) {
  const SimDatabase::State backup = database_.Copy();
  Do("work 1 a");
  Do("prepare 1");
  const Evidence vote = evidence_["1"];
  database_.RestoreFrom(backup);
  Do("work 2 b");
  for (int i = 3; database_.Copy().point.position <= vote.point.position; ++i) {
    const std::string t = std::to_string(i);
    Do("work " + t + " c");
    Do("prepare " + t);
    Do("commit " + t);
  }
  evidence_["1"] = vote;
  EXPECT_EQ(Do("commit 1"), "hazard") << "the xid belongs to another branch by now";
}

TEST_F(BranchTableTest, L13c_FailOver) {
  Do("work 1 a");
  const SimDatabase::State before = database_.Copy();
  Do("prepare 1");
  const SimDatabase::State after = database_.Copy();
  database_.FailOverTo(after);
  EXPECT_EQ(Do("commit 1"), "done") << "the standby had the prepare";
  EXPECT_EQ(database_.Read("a"), 1);
  EXPECT_EQ(Do("commit 1"), "done");
  database_.FailOverTo(before);
  Restart();
  EXPECT_EQ(Do("commit 1"), "hazard") << "it had not";
}

TEST_F(BranchTableTest, DrainRefusesNewBranchesOnly) {
  Do("work 1 a");
  table_->Drain();
  EXPECT_EQ(Do("open 2"), "not-serving");
  EXPECT_EQ(Do("prepare 1"), "prepared");
  EXPECT_EQ(Do("commit 1"), "done");
  Do("pass 10");
  table_->RollbackAll();
  EXPECT_EQ(table_->Counts().active, 0u);
}

// The sweep --------------------------------------------------------------------------------

class SweepTest : public BranchTableTest {
 protected:
  std::vector<SweepInquiry> Look(Sweep* sweep) {
    auto due = sweep->Look();
    EXPECT_TRUE(due.ok());
    return *due;
  }
  SweepAnswer Answer(const SweepInquiry& inquiry, SweepAnswer::Verdict verdict) {
    return {inquiry, verdict, {}};
  }
};

TEST_F(SweepTest, AsksAboutWhatNobodyLooksAfter) {
  Do("work 1 a");
  Do("prepare 1");
  Do("work 2 b");
  Do("prepare 2");
  const Evidence one = evidence_["1"];
  Restart();
  Sweep sweep("east", manager_.get(), table_.get(), &clock_);
  EXPECT_TRUE(Look(&sweep).empty()) << "seen for the first time";
  EXPECT_EQ(sweep.counts().found, 2u);
  Do("pass 1000");
  const std::vector<SweepInquiry> due = Look(&sweep);
  ASSERT_EQ(due.size(), 2u);
  EXPECT_EQ(due[0].coordinator, "main-0123456789ab");
  SweepAnswer commit = Answer(due[0], SweepAnswer::Verdict::kCommit);
  commit.evidence = one;
  const SweepAnswer answers[] = {commit, Answer(due[1], SweepAnswer::Verdict::kAbort)};
  sweep.Settle(answers, milliseconds(0));
  EXPECT_EQ(database_.Read("a"), 1);
  EXPECT_EQ(database_.Read("b"), std::nullopt);
  EXPECT_TRUE(database_.Prepared().empty());
  EXPECT_TRUE(Look(&sweep).empty());
  EXPECT_EQ(sweep.counts().settled, 2u);
}

TEST_F(SweepTest, SettlesWhatIsPreparedWithWorkThatDoesNotComeBack) {
  Sweep sweep("east", manager_.get(), table_.get(), &clock_);
  meanwhile = [&] {
    Do("pass 5000");  // its deadline
    EXPECT_TRUE(Look(&sweep).empty()) << "it is told to end, and may";
    Do("pass 1000");
    EXPECT_TRUE(Look(&sweep).empty()) << "seen for the first time";
    Do("pass 1000");
    const std::vector<SweepInquiry> due = Look(&sweep);
    ASSERT_EQ(due.size(), 1u);
    const SweepAnswer answers[] = {Answer(due[0], SweepAnswer::Verdict::kAbort)};
    sweep.Settle(answers, milliseconds(0));
    EXPECT_TRUE(database_.Prepared().empty()) << "it would hold its locks for ever";
    EXPECT_EQ(sweep.counts().settled, 1u);
  };
  EXPECT_EQ(Do("early 1 a"), "ended");
  EXPECT_EQ(Do("abort 1"), "done");
  meanwhile = nullptr;
  EXPECT_EQ(Do("early 2 a"), "prepared") << "its locks are free";
}

TEST_F(SweepTest, LeavesALivePreparedBranchAloneForAMoment) {
  Do("work 1 a");
  Do("prepare 1");
  Sweep sweep("east", manager_.get(), table_.get(), &clock_);
  Do("pass 999");
  EXPECT_TRUE(Look(&sweep).empty());
  EXPECT_EQ(sweep.counts().found, 0u);
  Do("pass 1");
  Look(&sweep);
  Do("pass 1000");
  EXPECT_EQ(Look(&sweep).size(), 1u) << "its coordinator forgot it";
}

TEST_F(SweepTest, L14_AbortTouchesOnlyTheXidThatWasSeen) {
  Do("work 1 a");
  Do("prepare 1");
  Restart();
  Sweep sweep("east", manager_.get(), table_.get(), &clock_);
  Look(&sweep);
  Do("pass 1000");
  const std::vector<SweepInquiry> due = Look(&sweep);
  ASSERT_EQ(due.size(), 1u);
  database_.SettleByHand(Gid("1"), false);
  EXPECT_EQ(Do("work 1 b"), "ok");
  EXPECT_EQ(Do("prepare 1"), "prepared");
  const SweepAnswer answers[] = {Answer(due[0], SweepAnswer::Verdict::kAbort)};
  sweep.Settle(answers, milliseconds(0));
  EXPECT_EQ(Do("commit 1"), "done") << "an answer about another branch rolled it back";
  EXPECT_EQ(database_.Read("b"), 1);
}

TEST_F(SweepTest, KeepsWhatNobodyCanSettle) {
  Do("work 1 a");
  Do("prepare 1");
  Do("work 2 b");
  Do("prepare 2");
  Restart();
  Sweep sweep("east", manager_.get(), table_.get(), &clock_);
  Look(&sweep);
  Do("pass 1000");
  const std::vector<SweepInquiry> due = Look(&sweep);
  const SweepAnswer answers[] = {Answer(due[0], SweepAnswer::Verdict::kExpired),
                                 Answer(due[1], SweepAnswer::Verdict::kNotMine)};
  sweep.Settle(answers, milliseconds(0));
  EXPECT_EQ(database_.Prepared().size(), 2u);
  EXPECT_TRUE(Look(&sweep).empty());
  EXPECT_EQ(sweep.counts().expired, 1u);
  EXPECT_EQ(sweep.counts().not_mine, 1u);
  Do("pass 10000");
  EXPECT_EQ(Look(&sweep).size(), 2u) << "an operator may have acted";
}

TEST_F(SweepTest, ACoordinatorThatHasJustEnrolledIsAskedAtOnce) {
  Do("work 1 a");
  Do("prepare 1");
  Restart();
  Sweep sweep("east", manager_.get(), table_.get(), &clock_);
  Look(&sweep);
  Do("pass 1000");
  const SweepAnswer answers[] = {Answer(Look(&sweep).at(0), SweepAnswer::Verdict::kNotMine)};
  sweep.Settle(answers, milliseconds(0));
  EXPECT_TRUE(Look(&sweep).empty());
  sweep.AskAgain();
  EXPECT_EQ(Look(&sweep).size(), 1u);
}

TEST_F(SweepTest, OwnBranchesThatWaitLongCountOnce) {
  Do("work 1 a");
  Do("prepare 1");
  Do("pass 2000");
  Sweep sweep("east", manager_.get(), table_.get(), &clock_);
  Look(&sweep);
  EXPECT_EQ(sweep.counts().found, 0u);
  EXPECT_EQ(table_->Counts().in_doubt, 1u);
}

TEST_F(SweepTest, PendingIsAskedAgain) {
  Do("work 1 a");
  Do("prepare 1");
  Restart();
  Sweep sweep("east", manager_.get(), table_.get(), &clock_);
  Look(&sweep);
  Do("pass 1000");
  for (int i = 0; i < 3; ++i) {
    const std::vector<SweepInquiry> due = Look(&sweep);
    ASSERT_EQ(due.size(), 1u);
    const SweepAnswer answers[] = {Answer(due[0], SweepAnswer::Verdict::kPending)};
    sweep.Settle(answers, milliseconds(0));
  }
  EXPECT_EQ(database_.Prepared().size(), 1u);
}

TEST_F(SweepTest, ABranchSettledByAnotherHandLeavesTheTable) {
  Do("work 1 a");
  Do("prepare 1");
  Do("pass 10");
  database_.SettleByHand(Gid("1"), false);
  Sweep sweep("east", manager_.get(), table_.get(), &clock_);
  Look(&sweep);
  EXPECT_EQ(table_->Counts().in_doubt, 0u) << "it would count for ever";
  EXPECT_EQ(Do("commit 1"), "heuristic");
}

TEST_F(SweepTest, ForeignGidsAreNeverTouched) {
  Do("work 1 a");
  Do("prepare 1");
  BeginOptions options;
  options.gid = "troth:east:by hand";
  options.mark = "m";
  Granted<std::unique_ptr<Session>> session = manager_->Begin(options);
  PrepareItem items[] = {{session->get(), std::nullopt}};
  manager_->Prepare(items, milliseconds(0));
  Restart();
  Sweep sweep("east", manager_.get(), table_.get(), &clock_);
  Look(&sweep);
  Do("pass 60000");
  EXPECT_EQ(Look(&sweep).size(), 1u);
  EXPECT_EQ(sweep.counts().foreign, 1u);
}

}  // namespace
}  // namespace troth
