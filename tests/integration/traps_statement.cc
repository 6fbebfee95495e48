// Traps of work that is one statement, sent together with the opening of its branch.
// docs/traps.md, "Work and PREPARE".
#include <sys/socket.h>
#include <unistd.h>

#include <future>

#include "participant/postgres_session.h"
#include "tests/integration/trap_fixture.h"

namespace troth {
namespace {

class StatementTrap : public TrapTest {
 protected:
  std::optional<Refusal> TakeOne(int t, int account, int work = 0) {
    return DoStatement(t, "UPDATE account SET balance = balance - $1 WHERE id = $2",
                       {"1", std::to_string(account)}, work);
  }
};

TEST_F(StatementTrap, IsPreparedAndCommitted) {
  for (int t = 1; t <= 3; ++t) {  // the first parses it, the others find it parsed
    ASSERT_FALSE(TakeOne(t, 1));
    EXPECT_EQ(answer_.affected, 1u);
    ASSERT_TRUE(Prepared(t));
    ASSERT_EQ(Commit(t).kind, Finished::kDone);
  }
  EXPECT_EQ(Balance(1), 97);
}

TEST_F(StatementTrap, RowsAndNulls) {
  ASSERT_FALSE(
      DoStatement(1, "SELECT $1::int + 1, $2::text FROM generate_series(1, 2)", {"41", {}}));
  ASSERT_EQ(answer_.rows.size(), 2u);
  EXPECT_EQ(answer_.rows[1][0], "42");
  EXPECT_EQ(answer_.rows[1][1], std::nullopt);
  ASSERT_FALSE(DoStatement(1, "SELECT 1 WHERE false", {}, 1));
  EXPECT_EQ(answer_.rows.size(), 0u);
}

TEST_F(StatementTrap, MixesWithLibpqxx) {
  ASSERT_FALSE(TakeOne(1, 1));
  ASSERT_FALSE(Take(1, 1, 1));
  ASSERT_FALSE(TakeOne(1, 1, 2));
  ASSERT_TRUE(Prepared(1));
  ASSERT_EQ(Commit(1).kind, Finished::kDone);
  EXPECT_EQ(Balance(1), 97);
}

TEST_F(StatementTrap, ItsErrorEndsTheBranchAndNotTheConnection) {
  for (int t = 1; t <= 8; ++t) {  // twice as many as there are connections
    const std::optional<Refusal> refused =
        DoStatement(t, "UPDATE account SET balance = balance - 1000 WHERE id = 1");
    ASSERT_TRUE(refused);
    EXPECT_EQ(refused->sqlstate, "23514");
    EXPECT_EQ(Prepare(t).kind, Vote::Kind::kRefused);
  }
  const std::optional<Refusal> unparsed = DoStatement(20, "SELEKT 1");
  ASSERT_TRUE(unparsed);
  EXPECT_EQ(unparsed->sqlstate, "42601");
  ASSERT_FALSE(TakeOne(21, 1));
  ASSERT_TRUE(Prepared(21));
  EXPECT_EQ(PreparedCount(), 1);
}

TEST_F(StatementTrap, ThatEndsTheBlock) {
  int t = 0;
  for (const char* end : {"COMMIT", "COMMIT AND CHAIN", "ROLLBACK", "ROLLBACK AND CHAIN"}) {
    const bool refused_at_once = DoStatement(++t, end).has_value();
    EXPECT_TRUE(refused_at_once || Prepare(t).kind == Vote::Kind::kRefused) << end;
    ASSERT_FALSE(TakeOne(++t, 1));
    EXPECT_TRUE(DoStatement(t, end, {}, 1) || Prepare(t).kind == Vote::Kind::kRefused) << end;
  }
  EXPECT_EQ(PreparedCount(), 0);
}

TEST_F(StatementTrap, TwoInOneAreRefused) {
  const std::optional<Refusal> refused = DoStatement(1, "COMMIT; BEGIN");
  ASSERT_TRUE(refused);
  EXPECT_EQ(refused->sqlstate, "42601");
}

TEST_F(StatementTrap, CopyIsRefusedAtOnce) {
  int t = 0;
  for (const char* copy : {"COPY account TO STDOUT", "COPY account FROM STDIN"}) {
    const std::optional<Refusal> refused = DoStatement(++t, copy);
    ASSERT_TRUE(refused) << copy;
    EXPECT_EQ(refused->sqlstate, "0A000");
    ASSERT_FALSE(TakeOne(++t, 1));
    ASSERT_TRUE(Prepared(t));
    ASSERT_EQ(Commit(t).kind, Finished::kDone);
  }
}

TEST_F(StatementTrap, EmptyOrImpossible) {
  ASSERT_FALSE(DoStatement(1, ";"));
  const auto refused = DoStatement(2, "SELECT $1::text", {std::string("a\0b", 3)});
  ASSERT_TRUE(refused);
  EXPECT_EQ(refused->reason, Refused::kInvalid);
  const std::string cut = TakeSql(1).substr(0, TakeSql(1).find(" WHERE"));
  const auto half = DoStatement(3, cut + '\0' + TakeSql(1).substr(cut.size()));
  ASSERT_TRUE(half) << "without its WHERE";
  EXPECT_EQ(half->reason, Refused::kInvalid);
}

TEST_F(StatementTrap, StatementsPreparedByTheWorkDoNotOutliveIt) {
  for (int t = 1; t <= 8; ++t) {
    ASSERT_FALSE(Do(t, [](pqxx::dbtransaction& tx) { Exec(tx, "PREPARE q AS SELECT 1"); })) << t;
    ASSERT_TRUE(Prepared(t));
  }
}

TEST_F(StatementTrap, ConnectionsLostWhileTheyLayIdle) {
  for (int t = 1; t <= 4; ++t) ASSERT_FALSE(TakeOne(t, t));
  for (int t = 1; t <= 4; ++t) ASSERT_TRUE(Prepared(t));
  cluster_.Sql(
      "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
      " WHERE application_name LIKE 'troth%'");
  Await("SELECT count(*) = 0 FROM pg_stat_activity WHERE application_name LIKE 'troth%'");
  ASSERT_FALSE(TakeOne(5, 5)) << "nothing had been done on the lost one: another serves";
  ASSERT_TRUE(Prepared(5));
}

TEST_F(StatementTrap, ConnectionGivenBackUnusedAndThenLost) {
  // Regression: it counted as new, and its loss as that of the database.
  ASSERT_TRUE(DoStatement(1, "SELECT $1::text", {std::string("a\0b", 3)})) << "refused unsent";
  cluster_.Sql(
      "SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity"
      " WHERE application_name LIKE 'troth%'");
  const auto refused = TakeOne(2, 2);
  EXPECT_FALSE(refused) << refused->message;
}

TEST_F(StatementTrap, TableChangedBehindAParsedStatement) {
  const std::string all = "SELECT * FROM account WHERE id = $1";
  int t = 0;
  for (int i = 0; i < 8; ++i) {  // every connection knows it
    ASSERT_FALSE(DoStatement(++t, all, {"1"}));
    ASSERT_EQ(Abort(t).kind, Finished::kDone);
  }
  cluster_.Sql("ALTER TABLE account ADD COLUMN more int");
  int refused = 0;
  for (int i = 0; i < 12; ++i) {
    if (const auto why = DoStatement(++t, all, {"1"})) {
      EXPECT_EQ(why->sqlstate, "0A000");
      EXPECT_TRUE(why->retryable) << "the next try meets a fresh connection, in the end";
      ++refused;
    }
    ASSERT_EQ(Abort(t).kind, Finished::kDone);
  }
  EXPECT_LE(refused, 4) << "a connection with an outdated statement came back";
  ASSERT_FALSE(DoStatement(++t, all, {"1"}));
  EXPECT_EQ(answer_.rows[0].size(), 3u);
}

TEST_F(StatementTrap, ReadOnly) {
  WorkRequest request;
  request.read_only = true;
  ASSERT_FALSE(DoStatement(1, "SELECT balance FROM account WHERE id = $1", {"1"}, 0, request));
  EXPECT_EQ(Prepare(1).kind, Vote::Kind::kReadOnly);
  const auto refused = DoStatement(2, "UPDATE account SET balance = 1", {}, 0, request);
  ASSERT_TRUE(refused);
  EXPECT_EQ(refused->sqlstate, "25006");
}

TEST_F(StatementTrap, BranchesWriteWhateverTheDefaultIs) {
  const auto set_default = [this](const std::string& value) {
    cluster_.Sql("ALTER SYSTEM SET default_transaction_read_only = " + value);
    cluster_.Sql("SELECT pg_reload_conf()");
    Await("SELECT current_setting('default_transaction_read_only') = '" + value + "'");
  };
  const auto finish = [this](int t) {
    EXPECT_TRUE(Prepared(t));
    EXPECT_EQ(Commit(t).kind, Finished::kDone);
  };
  EXPECT_FALSE(TakeOne(1, 1));
  finish(1);
  set_default("on");
  // The connection that is there hears of it with its next answer: that to BEGIN.
  EXPECT_FALSE(Do(2, [](pqxx::dbtransaction& tx) { Exec(tx, TakeSql(1)); }));
  finish(2);
  set_default("off");
  EXPECT_FALSE(TakeOne(3, 1));
  finish(3);
  set_default("on");
  // Or that to BEGIN and its statement.
  const std::optional<Refusal> refused = TakeOne(4, 1);
  if (refused) {
    EXPECT_EQ(refused->sqlstate, "25006");
    EXPECT_TRUE(refused->retryable);
    EXPECT_EQ(Abort(4).kind, Finished::kDone);
  }
  for (int t = 5; t <= 7; ++t) {
    EXPECT_FALSE(TakeOne(t, 1));
    finish(t);
  }
  set_default("off");
}

TEST_F(StatementTrap, AbortReachesItWhileItWaitsForARow) {
  ASSERT_FALSE(TakeOne(1, 1));
  std::thread waiting([this] {
    const auto refused = TakeOne(2, 1);
    EXPECT_TRUE(refused);
  });
  Await("SELECT count(*) > 0 FROM pg_stat_activity WHERE wait_event_type = 'Lock'");
  EXPECT_EQ(Abort(2).kind, Finished::kDone);
  waiting.join();
  ASSERT_TRUE(Prepared(1));
}

TEST_F(StatementTrap, AbortReachesTheNextStatementToo) {
  std::promise<void> begun, aborted;
  std::thread working([&] {
    const auto began = std::chrono::steady_clock::now();
    EXPECT_TRUE(Do(1, [&](pqxx::dbtransaction& tx) {
      Exec(tx, TakeSql(1));
      begun.set_value();
      aborted.get_future().wait();  // the cancel meets no statement
      Exec(tx, "SELECT pg_sleep(30)");
    }));
    EXPECT_LT(std::chrono::steady_clock::now() - began, std::chrono::seconds(10));
  });
  begun.get_future().wait();
  Abort(1);
  aborted.set_value();
  std::thread ticking([&] {
    for (int i = 0; i < 100 && table_->Counts().active > 0; ++i) {
      table_->Tick();
      std::this_thread::sleep_for(milliseconds(100));
    }
  });
  working.join();
  ticking.join();
}

// What limits a branch in its session: its deadline, unless the connection brings less.
class LimitTrap : public StatementTrap {
 protected:
  PostgresOptions Options() override {
    PostgresOptions options = StatementTrap::Options();
    options.conninfo += " options='" + standing_ + "'";
    return options;
  }
  // "LOCK IDLE FROM", the last where the first was set: "client", the connection string, or
  // "session", the branch.
  std::string Of(int t, milliseconds time_left, bool last = false) {
    WorkRequest request;
    request.time_left = time_left;
    request.last = last;
    if (const auto refusal =
            DoStatement(t,
                        "SELECT current_setting('lock_timeout') || ' ' ||"
                        " current_setting('idle_in_transaction_session_timeout') || ' ' ||"
                        " (SELECT source FROM pg_settings WHERE name = 'lock_timeout')",
                        {}, 0, request)) {
      return refusal->message;
    }
    EXPECT_EQ(prepare_sent_, last);
    EXPECT_EQ(Abort(t).kind, Finished::kDone);
    return answer_.rows[0][0].value_or("");
  }
  void Standing(const std::string& options) {
    standing_ = options;
    Restart();
  }
  std::string standing_;
};

TEST_F(LimitTrap, DeadlineUnlessTheConnectionBringsLess) {
  EXPECT_EQ(Of(1, milliseconds(7'000)), "7s 8s session");
  EXPECT_EQ(Of(2, milliseconds(7'000), true), "7s 8s session");
  Standing("-c lock_timeout=2s -c idle_in_transaction_session_timeout=4s");
  EXPECT_EQ(Of(3, milliseconds(7'000)), "2s 4s client") << "nothing is set again";
  EXPECT_EQ(Of(4, milliseconds(1'000)), "1s 2s session") << "the deadline is earlier";
  EXPECT_EQ(Of(5, milliseconds(2'500)), "2s 3500ms session") << "of an idle block only";
  EXPECT_EQ(Of(6, milliseconds(1'000), true), "1s 2s session") << "waits for locks have one";
  Standing("-c lock_timeout=2s");
  EXPECT_EQ(Of(7, milliseconds(7'000)), "2s 8s session") << "nothing ends an idle block";
  EXPECT_EQ(Of(8, milliseconds(7'000), true), "2s 0 client") << "a block that is never idle";
  Standing("-c idle_in_transaction_session_timeout=4s");
  EXPECT_EQ(Of(9, milliseconds(7'000), true), "7s 4s session") << "it may wait for locks";
}

// They may be taken away while the connection lives.
TEST_F(LimitTrap, LimitsOfTheServersConfigurationAreNotCountedOn) {
  Configure("lock_timeout", "2s");
  Standing("-c application_name=anew");
  EXPECT_EQ(Of(1, milliseconds(7'000), true), "7s 8s session");
  Configure("lock_timeout", "0");
}

// The server has taken back what it held before we clean it.
TEST_F(LimitTrap, FailedBlockHoldsNoRow) {
  Standing("-c lock_timeout=2s");
  WorkRequest request;
  request.one_statement = request.last = true;
  EXPECT_TRUE(DoIn(
      1,
      [this](Session* session) -> std::optional<Refusal> {
        const Granted<Answer> answer = PostgresResourceManager::Run(
            session,
            "WITH taken AS (UPDATE account SET balance = 0 WHERE id = 1 RETURNING balance)"
            " SELECT 1 / balance FROM taken",
            {});
        EXPECT_FALSE(answer.ok());
        cluster_.Sql("SET lock_timeout = 1000; " + TakeSql(1));
        return answer.refusal();
      },
      0, request));
  EXPECT_EQ(Balance(1), 99);
}

// The only statement of a branch, and PREPARE behind it in the same round trip.
class EarlyTrap : public StatementTrap {
 protected:
  std::optional<Refusal> Early(int t, const std::string& statement,
                               std::vector<std::optional<std::string>> parameters = {},
                               milliseconds time_left = milliseconds(10'000)) {
    WorkRequest request;
    request.last = true;
    request.time_left = time_left;
    return DoStatement(t, statement, std::move(parameters), 0, request);
  }
  std::optional<Refusal> EarlyTake(int t, int account) {
    return Early(t, "UPDATE account SET balance = balance - $1 WHERE id = $2",
                 {"1", std::to_string(account)});
  }
  // Early work of transaction 1 that waits for a standby at PREPARE; `then` ends the wait.
  std::optional<Refusal> TakeWhileNoStandbyAnswers(const std::function<void()>& then,
                                                   milliseconds time_left = milliseconds(10'000)) {
    SetWaitForStandby(true);
    auto work = std::async(std::launch::async, [&] { return Early(1, TakeSql(1), {}, time_left); });
    Await("SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event = 'SyncRep'");
    then();
    const std::optional<Refusal> refusal = work.get();
    EXPECT_TRUE(prepare_sent_);
    return refusal;
  }
  void ToEachWhoWaits(const std::string& function) {
    cluster_.Sql("SELECT count(" + function +
                 "(pid)) FROM pg_stat_activity WHERE wait_event = 'SyncRep'");
  }
};

TEST_F(EarlyTrap, IsPreparedInOneRoundTrip) {
  for (int t = 1; t <= 6; ++t) {  // the first parses it; more than there are connections
    ASSERT_FALSE(EarlyTake(t, 1));
    EXPECT_EQ(answer_.affected, 1u);
    EXPECT_TRUE(prepare_sent_);
    EXPECT_EQ(PreparedCount(), 1);
    EXPECT_TRUE(Prepared(t)) << "asked again, it votes the same";
    ASSERT_EQ(Commit(t).kind, Finished::kDone);
  }
  EXPECT_EQ(Balance(1), 94);
}

TEST_F(EarlyTrap, ItsErrorSkipsPrepare) {
  for (int t = 1; t <= 8; ++t) {  // twice as many as there are connections
    const auto refused = Early(t, "UPDATE account SET balance = balance - 1000 WHERE id = 1");
    ASSERT_TRUE(refused);
    EXPECT_EQ(refused->sqlstate, "23514");
    EXPECT_FALSE(prepare_sent_);
  }
  EXPECT_EQ(Early(20, "SELEKT 1")->sqlstate, "42601");
  EXPECT_EQ(PreparedCount(), 0);
  ASSERT_FALSE(EarlyTake(21, 1));
  EXPECT_EQ(PreparedCount(), 1);
}

TEST_F(EarlyTrap, DeferredConstraintFailsAtPrepare) {
  cluster_.Sql(
      "SET client_min_messages = warning; DROP TABLE IF EXISTS entry;"
      "CREATE TABLE entry (account int REFERENCES account (id) DEFERRABLE INITIALLY DEFERRED)");
  for (int t = 1; t <= 5; ++t) {
    EXPECT_EQ(Early(t, "INSERT INTO entry VALUES (999)")->sqlstate, "23503");
    EXPECT_TRUE(prepare_sent_);
    EXPECT_EQ(Abort(t).kind, Finished::kDone);
  }
  EXPECT_FALSE(EarlyTake(6, 1)) << "the connections are fit again";
  EXPECT_EQ(PreparedCount(), 1);
}

TEST_F(EarlyTrap, WhatTheApplicationRefusesIsRolledBack) {
  for (int t = 1; t <= 5; ++t) {
    WorkRequest request;
    request.last = request.one_statement = true;
    const auto refused = DoIn(
        t,
        [&](Session* session) {
          EXPECT_TRUE(PostgresResourceManager::Run(session, TakeSql(1), {}).ok());
          return std::optional(Refusal{Refused::kApplication, "no such account", false, ""});
        },
        0, request);
    EXPECT_EQ(refused->message, "no such account");
    EXPECT_TRUE(prepare_sent_);
    EXPECT_EQ(Prepare(t).refusal.message, "no such account") << "the vote binds";
    EXPECT_EQ(Abort(t).kind, Finished::kDone);
    EXPECT_EQ(PreparedCount(), 0);
  }
  ASSERT_FALSE(EarlyTake(6, 1)) << "the row is free";
  EXPECT_EQ(Balance(1), 100);
}

TEST_F(EarlyTrap, ThatEndsTheBlock) {
  int t = 0;
  for (const char* end : {"COMMIT", "COMMIT AND CHAIN", "ROLLBACK", "ROLLBACK AND CHAIN", "END",
                          "PREPARE TRANSACTION 'another'"}) {
    const auto refused = Early(++t, end);
    ASSERT_TRUE(refused) << end;
    const bool rolled_back = std::string_view(end).starts_with("ROLLBACK");
    EXPECT_EQ(refused->message.find("executed ROLLBACK") != std::string::npos, rolled_back) << end;
    if (cluster_.Sql("SELECT 1 FROM pg_prepared_xacts WHERE gid = 'another'") == "1") {
      cluster_.Sql("ROLLBACK PREPARED 'another'");  // the work's own, which nobody can keep it from
    }
    EXPECT_EQ(Abort(t).kind, Finished::kDone);
    EXPECT_EQ(PreparedCount(), 0) << end;
    ASSERT_FALSE(EarlyTake(++t, 1)) << end;
    ASSERT_EQ(Abort(t).kind, Finished::kDone);
  }
  cluster_.Sql(
      "CREATE OR REPLACE PROCEDURE commits() LANGUAGE plpgsql AS $$BEGIN"
      " UPDATE account SET balance = 1; COMMIT; UPDATE account SET balance = 2; END$$");
  EXPECT_EQ(Early(++t, "CALL commits()")->sqlstate, "2D000");
  EXPECT_EQ(PreparedCount(), 0);
  EXPECT_EQ(Balance(1), 100);
}

TEST_F(EarlyTrap, CopyIsRefusedAndWhatItPreparedToo) {
  int t = 0;
  for (const char* copy : {"COPY account TO STDOUT", "COPY account FROM STDIN"}) {
    EXPECT_TRUE(Early(++t, copy)) << copy;
    EXPECT_EQ(Abort(t).kind, Finished::kDone);
    Await(
        "SELECT count(*) = 0 FROM pg_stat_activity WHERE query LIKE 'COPY%' AND state = 'active'");
    EXPECT_EQ(Abort(t).kind, Finished::kDone);
    EXPECT_EQ(PreparedCount(), 0) << copy;
    ASSERT_FALSE(EarlyTake(++t, 1));
    ASSERT_EQ(Commit(t).kind, Finished::kDone);
  }
}

TEST_F(EarlyTrap, GidInUseIsRefusedAndLeftAlone) {
  cluster_.Sql("BEGIN; " + TakeSql(2) + "; PREPARE TRANSACTION '" + Gid(1) + "'");
  EXPECT_EQ(EarlyTake(1, 1)->sqlstate, "42710");
  EXPECT_EQ(PreparedCount(), 1);
}

TEST_F(EarlyTrap, ReadOnly) {
  WorkRequest request;
  request.read_only = request.last = true;
  ASSERT_FALSE(DoStatement(1, "SELECT balance FROM account WHERE id = $1", {"1"}, 0, request));
  EXPECT_EQ(answer_.rows[0][0], "100");
  EXPECT_EQ(Prepare(1).kind, Vote::Kind::kReadOnly);
  EXPECT_EQ(DoStatement(2, TakeSql(1), {}, 0, request)->sqlstate, "25006");
  EXPECT_TRUE(DoStatement(3, "SET TRANSACTION READ WRITE", {}, 0, request));
  EXPECT_EQ(PreparedCount(), 0);
}

TEST_F(EarlyTrap, WarningsOfTheStatementAreNotThoseOfPrepare) {
  cluster_.Sql(
      "CREATE OR REPLACE FUNCTION warns() RETURNS int LANGUAGE plpgsql AS $$BEGIN"
      " RAISE WARNING 'beware'; UPDATE account SET balance = 7 WHERE id = 1; RETURN 1; END$$");
  ASSERT_FALSE(Early(1, "SELECT warns()"));
  ASSERT_EQ(Commit(1).kind, Finished::kDone);
  EXPECT_EQ(Balance(1), 7);
}

TEST_F(EarlyTrap, DeferredTriggerDoesNotChangeTheOwner) {
  MakeClerk();
  Defer("SET LOCAL ROLE clerk");
  ASSERT_FALSE(EarlyTake(1, 1));
  EXPECT_EQ(cluster_.Sql("SELECT owner FROM pg_prepared_xacts"), "postgres");
  EXPECT_EQ(Commit(1).kind, Finished::kDone);
}

TEST_F(EarlyTrap, DeferredTriggerTurnsSynchronousCommitOff) {
  Defer("SET LOCAL synchronous_commit = local");
  EXPECT_FALSE(TakeWhileNoStandbyAnswers([&] { SetWaitForStandby(false); }));
  EXPECT_EQ(Commit(1).kind, Finished::kDone);
}

TEST_F(EarlyTrap, DeferredTriggerThatWarnsOrFails) {
  Defer("RAISE WARNING 'low'");
  const auto refused = EarlyTake(1, 1);
  ASSERT_FALSE(refused) << refused->message;
  EXPECT_EQ(Commit(1).kind, Finished::kDone);
  cluster_.Sql("DROP TRIGGER late ON account");
  Defer("PERFORM 1 / 0");
  for (int t = 2; t <= 6; ++t) {
    EXPECT_EQ(EarlyTake(t, 1)->message, "division by zero");
    EXPECT_EQ(Abort(t).kind, Finished::kDone);
  }
  EXPECT_EQ(PreparedCount(), 0);
}

TEST_F(EarlyTrap, CancelDuringTheWaitForAStandby) {
  const auto refused = TakeWhileNoStandbyAnswers([&] { ToEachWhoWaits("pg_cancel_backend"); });
  ASSERT_TRUE(refused) << "PREPARE answered success, with warning 01000: that is no vote";
  EXPECT_EQ(refused->sqlstate, "01000");
  SetWaitForStandby(false);
  EXPECT_EQ(Abort(1).kind, Finished::kDone);
  EXPECT_EQ(PreparedCount(), 0);
}

TEST_F(EarlyTrap, TerminatedDuringTheWaitForAStandby) {
  const auto refused = TakeWhileNoStandbyAnswers([&] { ToEachWhoWaits("pg_terminate_backend"); });
  ASSERT_TRUE(refused);
  EXPECT_TRUE(refused->retryable);
  SetWaitForStandby(false);
  EXPECT_EQ(Abort(1).kind, Finished::kDone);
  EXPECT_EQ(PreparedCount(), 0);
}

TEST_F(EarlyTrap, DeadlineDuringTheWaitForAStandby) {
  const auto refused = TakeWhileNoStandbyAnswers([] {}, milliseconds(300));
  ASSERT_TRUE(refused);
  EXPECT_EQ(refused->reason, Refused::kDeadline);
  EXPECT_EQ(PreparedCount(), 1) << "the test tried nothing";
  EXPECT_EQ(Finish(1, false, 1).kind, Finished::kWorking);
  SetWaitForStandby(false);
  Await("SELECT count(*) = 0 FROM pg_stat_activity WHERE wait_event = 'SyncRep'");
  table_->Tick();  // takes the answer in
  for (int i = 0; i < 200 && PreparedCount() > 0; ++i) manager_->Finish({}, milliseconds(5));
  EXPECT_EQ(PreparedCount(), 0) << "its xid came with the answer, nobody else need ask";
  EXPECT_EQ(Abort(1).kind, Finished::kDone);
}

TEST_F(EarlyTrap, AbortReachesItWhileItWaitsForARow) {
  ASSERT_FALSE(TakeOne(1, 1));
  auto waiting = std::async(std::launch::async, [this] { return EarlyTake(2, 1); });
  Await("SELECT count(*) > 0 FROM pg_stat_activity WHERE wait_event_type = 'Lock'");
  EXPECT_EQ(Abort(2).kind, Finished::kDone);
  EXPECT_TRUE(waiting.get());
  EXPECT_EQ(PreparedCount(), 0);
  ASSERT_TRUE(Prepared(1));
}

TEST_F(EarlyTrap, TerminatedWhileItWaitsForARow) {
  ASSERT_FALSE(TakeOne(1, 1));
  auto waiting = std::async(std::launch::async, [this] { return EarlyTake(2, 1); });
  Await("SELECT count(*) > 0 FROM pg_stat_activity WHERE wait_event_type = 'Lock'");
  cluster_.Sql(
      "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
      " WHERE wait_event_type = 'Lock'");
  const auto refused = waiting.get();
  ASSERT_TRUE(refused);
  EXPECT_TRUE(refused->retryable);
  EXPECT_EQ(Abort(2).kind, Finished::kDone);
  EXPECT_EQ(PreparedCount(), 0);
  ASSERT_FALSE(EarlyTake(3, 2));
}

// What stands behind it must not be executed without it.
TEST_F(EarlyTrap, StatementThatLibpqDoesNotTake) {
  constexpr std::size_t kMoreThanAMessage = 2'200'000'000;
  const auto pages = static_cast<std::size_t>(sysconf(_SC_AVPHYS_PAGES));
  if (pages * static_cast<std::size_t>(sysconf(_SC_PAGESIZE)) < 4 * kMoreThanAMessage) {
    GTEST_SKIP() << "takes 9 GB of memory";
  }
  const auto refused =
      Early(1, "UPDATE account SET balance = length($1)", {std::string(kMoreThanAMessage, 'x')});
  ASSERT_TRUE(refused);
  EXPECT_NE(refused->message.find("could not be sent"), std::string::npos) << refused->message;
  EXPECT_EQ(PreparedCount(), 0);
  EXPECT_EQ(Abort(1).kind, Finished::kDone);
  EXPECT_FALSE(EarlyTake(2, 1));
}

// The server goes on with what it was sent, waits for its row, and prepares for nobody.
TEST_F(EarlyTrap, CutWhileItWaitsForARow) {
  ASSERT_FALSE(TakeOne(1, 1));
  std::atomic<int> socket{-1};
  auto waiting = std::async(std::launch::async, [&] {
    WorkRequest request;
    request.one_statement = request.last = true;
    return DoIn(
        2,
        [&](Session* session) {
          socket = static_cast<PostgresSession*>(session)->connection()->socket();
          return std::optional(PostgresResourceManager::Run(session, TakeSql(1), {}).refusal());
        },
        0, request);
  });
  Await("SELECT count(*) > 0 FROM pg_stat_activity WHERE wait_event_type = 'Lock'");
  shutdown(socket, SHUT_RDWR);
  const auto refused = waiting.get();
  ASSERT_TRUE(refused);
  EXPECT_TRUE(refused->retryable);
  EXPECT_EQ(Abort(2).kind, Finished::kDone) << "nothing is prepared yet";
  ASSERT_EQ(Abort(1).kind, Finished::kDone);  // the row is free
  Await("SELECT count(*) = 1 FROM pg_prepared_xacts");
  Sweep sweep("east", manager_.get(), table_.get(), SystemClock());
  ASSERT_TRUE(sweep.Look().ok());
  std::this_thread::sleep_for(Sweep::kPatience);  // only what stays prepared so long is asked about
  const auto due = sweep.Look();
  ASSERT_TRUE(due.ok());
  ASSERT_EQ(due->size(), 1u);
  const SweepAnswer aborted{due->front(), SweepAnswer::Verdict::kAbort, {}};
  sweep.Settle(std::span(&aborted, 1), milliseconds(1'000));
  EXPECT_EQ(PreparedCount(), 0) << "the id had ended as settled";
  EXPECT_EQ(Balance(1), 100);
}

TEST_F(EarlyTrap, ServerCrashWhileItWaitsForARow) {
  ASSERT_FALSE(TakeOne(1, 1));
  auto waiting = std::async(std::launch::async, [this] { return EarlyTake(2, 1); });
  Await("SELECT count(*) > 0 FROM pg_stat_activity WHERE wait_event_type = 'Lock'");
  KillBackend(std::stoi(
      cluster_.Sql("SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' LIMIT 1")));
  const auto refused = waiting.get();
  ASSERT_TRUE(refused);
  EXPECT_EQ(refused->reason, Refused::kDatabaseUnavailable);
  EXPECT_TRUE(refused->retryable);
  EXPECT_EQ(Abort(2).kind, Finished::kDone);
  EXPECT_EQ(PreparedCount(), 0);
  ASSERT_FALSE(EarlyTake(3, 1)) << "a fresh connection serves";
  EXPECT_EQ(Commit(3).kind, Finished::kDone);
}

TEST_F(EarlyTrap, ServerCrashDuringTheWaitForAStandby) {
  const auto refused = TakeWhileNoStandbyAnswers([&] {
    KillBackend(
        std::stoi(cluster_.Sql("SELECT pid FROM pg_stat_activity WHERE wait_event = 'SyncRep'")));
  });
  ASSERT_TRUE(refused) << "prepared, and its answer lost: that is no vote";
  EXPECT_TRUE(refused->retryable);
  EXPECT_EQ(PreparedCount(), 1) << "the test tried nothing";
  SetWaitForStandby(false);
  EXPECT_EQ(Abort(1).kind, Finished::kDone);
  EXPECT_EQ(PreparedCount(), 0);
}

// Of two branches of one id, the one that never voted must not touch the other.
class TwoTablesTrap : public StatementTrap {
 protected:
  void SetUp() override {
    StatementTrap::SetUp();
    auto opened = PostgresResourceManager::Open(Options());
    ASSERT_TRUE(opened.ok());
    other_manager_ = std::move(*opened);
    other_ = std::make_unique<BranchTable>(BranchTableOptions{"east", "other", 50},
                                           other_manager_.get(), SystemClock(), [] { return 77; });
  }
  void TearDown() override {
    other_.reset();
    other_manager_.reset();
    StatementTrap::TearDown();
  }
  std::unique_ptr<PostgresResourceManager> other_manager_;
  std::unique_ptr<BranchTable> other_;
};

TEST_F(TwoTablesTrap, LostPrepareOfALateDuplicateLeavesTheVoteAlone) {
  ASSERT_FALSE(TakeOne(1, 1));
  ASSERT_TRUE(Prepared(1));
  WorkRequest late;
  late.transaction_id = Id(1);
  late.time_left = milliseconds(10'000);
  Granted<Work> started = other_->StartWork(late);
  ASSERT_TRUE(started.ok());
  const int pid = PostgresResourceManager::BackendPid(started->session);
  const std::string gone =
      "SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = " + std::to_string(pid);
  cluster_.Sql("SELECT pg_terminate_backend(" + std::to_string(pid) + ")");
  Await(gone);
  EXPECT_FALSE(other_->EndWork(*started, std::nullopt, /*last=*/true).ok());
  EXPECT_EQ(PreparedCount(), 1) << "the branch that voted was rolled back";
  ASSERT_EQ(Commit(1).kind, Finished::kDone);
  EXPECT_EQ(Balance(1), 99);
}

}  // namespace
}  // namespace troth
