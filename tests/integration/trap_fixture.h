// What the tests of PostgreSQL's traps share: a participant's rules over a real server, spoken
// to as an application and a coordinator would. Started by tests/integration/traps.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <thread>

#include <gtest/gtest.h>
#include <pqxx/pqxx>

#include "common/clock.h"
#include "participant/branch_table.h"
#include "participant/postgres.h"
#include "participant/postgres_errors.h"
#include "participant/sweep.h"
#include "tests/postgres/private_cluster.h"

namespace troth {

using std::chrono::milliseconds;
using Finished = FinishResult::Kind;
using Sql = std::function<void(pqxx::dbtransaction&)>;

class TrapTest : public testing::Test {
 protected:
  TrapTest() : cluster_(PrivateCluster::Given(1)) {}
  explicit TrapTest(PrivateCluster cluster) : cluster_(std::move(cluster)) {}

  void SetUp() override {
    cluster_.Sql(
        "SET client_min_messages = warning; DROP TABLE IF EXISTS account CASCADE;"
        "CREATE TABLE account (id int PRIMARY KEY, balance int CHECK (balance >= 0));"
        "INSERT INTO account SELECT i, 100 FROM generate_series(1, 10) i");
    Restart();
  }
  void TearDown() override {
    table_.reset();
    manager_.reset();
    for (std::string gid; !(gid = cluster_.Sql("SELECT gid FROM pg_prepared_xacts WHERE database ="
                                               " current_database()"))
                               .empty();) {
      cluster_.Sql("ROLLBACK PREPARED '" + gid + "'");
    }
  }

  virtual PostgresOptions Options() {
    PostgresOptions options;
    options.conninfo = cluster_.conninfo();
    options.participant = "east";
    options.pool_size = 4;
    options.max_in_doubt = 50;
    return options;
  }
  // A new life of the participant.
  void Restart() {
    table_.reset();
    manager_.reset();
    auto opened = PostgresResourceManager::Open(Options());
    ASSERT_TRUE(opened.ok()) << opened.status().ToString();
    manager_ = std::move(*opened);
    instance_ = "i" + std::to_string(++lives_);
    table_ =
        std::make_unique<BranchTable>(BranchTableOptions{"east", instance_, 50}, manager_.get(),
                                      SystemClock(), [this] { return ++drawn_; });
  }

  static std::string Id(int t) { return "main-0123456789ab.1-00000001." + std::to_string(t); }
  static std::string Gid(int t) { return "troth:east:" + Id(t); }

  // One piece of work. nullopt: done; the branch's mark is kept.
  std::optional<Refusal> Do(int t, const Sql& sql, int work = 0, WorkRequest request = {}) {
    return DoIn(
        t,
        [&sql](Session* session) {
          std::optional<Refusal> failure;
          try {
            sql(PostgresResourceManager::Transaction(session));
          } catch (const std::exception& e) {
            failure = RefusalOf(e);
            if (!failure.has_value()) throw;
          }
          return failure;
        },
        work, request);
  }
  // Work that is one statement; its answer is in answer_.
  std::optional<Refusal> DoStatement(int t, const std::string& statement,
                                     std::vector<std::optional<std::string>> parameters = {},
                                     int work = 0, WorkRequest request = {}) {
    request.one_statement = true;
    return DoIn(
        t,
        [&](Session* session) {
          Granted<Answer> answer = PostgresResourceManager::Run(session, statement, parameters);
          if (!answer.ok()) return std::optional<Refusal>(answer.refusal());
          answer_ = *std::move(answer);
          return std::optional<Refusal>();
        },
        work, request);
  }
  std::optional<Refusal> DoIn(int t, const std::function<std::optional<Refusal>(Session*)>& what,
                              int work, WorkRequest request) {
    request.transaction_id = Id(t);
    request.work = work;
    if (request.time_left == milliseconds(0)) request.time_left = milliseconds(10'000);
    if (work > 0) request.mark = marks_[t];
    request.patience = milliseconds(100);
    Granted<Work> started = table_->StartWork(request);
    if (!started.ok()) return started.refusal();
    const std::optional<Refusal> failure = what(started->session);
    prepare_sent_ = started->session->PrepareSent();
    Granted<WorkReply> reply = table_->EndWork(*started, failure, request.last);
    if (!reply.ok()) return reply.refusal();
    marks_[t] = reply->mark;
    works_[t] = reply->works;
    if (reply->vote.has_value()) evidence_[t] = reply->vote->evidence;
    return std::nullopt;
  }
  // Work that takes 1 from an account.
  std::optional<Refusal> Take(int t, int account, int work = 0) {
    return Do(
        t, [&](pqxx::dbtransaction& tx) { Exec(tx, TakeSql(account)); }, work);
  }
  static std::string TakeSql(int account) {
    return "UPDATE account SET balance = balance - 1 WHERE id = " + std::to_string(account);
  }
  static void Exec(pqxx::dbtransaction& tx, const std::string& sql) { tx.exec(sql); }
  // Executes and swallows whatever comes, as a careless application does.
  static void Careless(pqxx::dbtransaction& tx, const std::string& sql) {
    try {
      tx.exec(sql);
    } catch (const std::exception&) {
    }
  }

  Vote Prepare(int t) {
    const PrepareRequest requests[] = {
        {Id(t), marks_[t], works_[t], milliseconds(10'000), instance_}};
    Vote vote;
    for (int i = 0; i < 200; ++i) {
      vote = table_->Prepare(requests, milliseconds(50))[0];
      if (vote.kind != Vote::Kind::kWorking) break;
    }
    if (vote.kind == Vote::Kind::kPrepared) evidence_[t] = vote.evidence;
    return vote;
  }
  bool Prepared(int t) { return Prepare(t).kind == Vote::Kind::kPrepared; }
  std::string RefusedState(int t) {
    const Vote vote = Prepare(t);
    EXPECT_EQ(vote.kind, Vote::Kind::kRefused);
    return vote.refusal.sqlstate;
  }
  FinishResult Finish(int t, bool commit, int patience = 100) {
    FinishRequest request{Id(t), commit, std::nullopt, std::nullopt};
    if (commit) request.evidence = evidence_.at(t);
    const FinishRequest requests[] = {request};
    FinishResult result;
    for (int i = 0; i < patience; ++i) {
      result = table_->Finish(requests, milliseconds(50))[0];
      if (result.kind != Finished::kWorking) break;
    }
    return result;
  }
  FinishResult Commit(int t) { return Finish(t, true); }
  FinishResult Abort(int t) { return Finish(t, false); }

  int Balance(int account) {
    return std::stoi(
        cluster_.Sql("SELECT balance FROM account WHERE id = " + std::to_string(account)));
  }
  // A trigger of an application's that fires at the end of the block.
  void Defer(const std::string& what) {
    cluster_.Sql(
        "SET client_min_messages = warning;"
        "CREATE OR REPLACE FUNCTION late() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN " +
        what +
        "; RETURN NULL; END$$;"
        "CREATE CONSTRAINT TRIGGER late AFTER UPDATE ON account DEFERRABLE INITIALLY DEFERRED"
        " FOR EACH ROW EXECUTE FUNCTION late()");
  }
  // A role without rights, which is not the participant's own.
  void MakeClerk() {
    cluster_.Sql(
        "DO $$BEGIN CREATE ROLE clerk; EXCEPTION WHEN duplicate_object THEN NULL; END$$;"
        "GRANT ALL ON account TO clerk");
  }
  int PreparedCount() { return std::stoi(cluster_.Sql("SELECT count(*) FROM pg_prepared_xacts")); }
  // Waits, watching the server, until the query says t.
  void Await(const std::string& condition) {
    for (int i = 0; i < 2000; ++i) {
      if (cluster_.Sql(condition) == "t") return;
      std::this_thread::sleep_for(milliseconds(5));
    }
    FAIL() << "never came true: " << condition;
  }
  // kill -9 of one backend: the server ends all others, and recovers. Returns when it has. (A stop
  // meanwhile would hang: PostgreSQL 15, asked for a fast one while it recovers, waits for ever.)
  void KillBackend(int pid) {
    const std::unique_ptr<PGconn, decltype(&PQfinish)> witness(
        PQconnectdb(cluster_.conninfo().c_str()), &PQfinish);
    ASSERT_EQ(PQstatus(witness.get()), CONNECTION_OK);
    ASSERT_EQ(kill(pid, SIGKILL), 0);
    PQclear(PQexec(witness.get(), "SELECT pg_sleep(60)"));
    ASSERT_EQ(PQstatus(witness.get()), CONNECTION_BAD) << "the server went on as if nothing were";
    for (int i = 0; i < 12'000 && PQping(cluster_.conninfo().c_str()) != PQPING_OK; ++i) {
      std::this_thread::sleep_for(milliseconds(5));
    }
  }
  // A setting of the server's configuration; returns when new sessions have it.
  void Configure(const std::string& setting, const std::string& value) {
    cluster_.Sql("ALTER SYSTEM SET " + setting + " = '" + value + "'");
    cluster_.Sql("SELECT pg_reload_conf()");
    Await("SELECT current_setting('" + setting + "') = '" + value + "'");
  }
  // Every commit waits for a standby that does not exist; or no more.
  void SetWaitForStandby(bool on) { Configure("synchronous_standby_names", on ? "nobody" : ""); }

  PrivateCluster cluster_;
  std::unique_ptr<PostgresResourceManager> manager_;
  std::unique_ptr<BranchTable> table_;
  std::string instance_;
  int lives_ = 0;
  std::uint64_t drawn_ = 0;
  Answer answer_;
  bool prepare_sent_ = false;  // with the statement, when the last work ended
  std::map<int, std::string> marks_;
  std::map<int, int> works_;
  std::map<int, Evidence> evidence_;
};

}  // namespace troth
