// PostgreSQL's traps around work and PREPARE TRANSACTION (laws L12a, L12b).
#include <atomic>
#include <csignal>
#include <future>

#include "tests/integration/trap_fixture.h"

namespace troth {
namespace {

class Trap : public TrapTest {
 protected:
  void ExpectPrepareWaitsForStandby(int i) {
    SetWaitForStandby(true);
    const PrepareRequest requests[] = {{Id(i), marks_[i], 1, milliseconds(10'000), instance_}};
    EXPECT_EQ(table_->Prepare(requests, milliseconds(300))[0].kind, Vote::Kind::kWorking)
        << "it waits for the standby all the same";
    SetWaitForStandby(false);
    EXPECT_TRUE(Prepared(i));
  }
};

TEST_F(Trap, PrepareOfAFailedBlockAnswersSuccess) {
  const auto refusal = Do(1, [](pqxx::dbtransaction& tx) {
    Exec(tx, TakeSql(1));
    Careless(tx, "SELECT 1/0");
  });
  ASSERT_TRUE(refusal.has_value());
  EXPECT_EQ(refusal->sqlstate, "25P02");
  EXPECT_EQ(Prepare(1).kind, Vote::Kind::kRefused);
  EXPECT_EQ(PreparedCount(), 0);
}

TEST_F(Trap, DeferredConstraintFailsAtPrepare) {
  cluster_.Sql(
      "SET client_min_messages = warning; DROP TABLE IF EXISTS entry;"
      "CREATE TABLE entry (account int REFERENCES account (id) DEFERRABLE INITIALLY DEFERRED)");
  ASSERT_FALSE(Do(1, [](pqxx::dbtransaction& tx) { Exec(tx, "INSERT INTO entry VALUES (999)"); }));
  EXPECT_EQ(RefusedState(1), "23503");
  EXPECT_EQ(Abort(1).kind, Finished::kDone);
  EXPECT_FALSE(Take(2, 1));
  EXPECT_TRUE(Prepared(2)) << "the connection is fit again";
}

TEST_F(Trap, RefusedPrepareKeepsItsConnectionAndCleansIt) {
  cluster_.Sql(
      "SET client_min_messages = warning; DROP TABLE IF EXISTS entry;"
      "CREATE TABLE entry (account int REFERENCES account (id) DEFERRABLE INITIALLY DEFERRED)");
  std::string first, second, memory;
  ASSERT_FALSE(Do(1, [&](pqxx::dbtransaction& tx) {
    first = tx.exec("SELECT pg_backend_pid()")[0][0].c_str();
    Exec(tx, "SELECT pg_advisory_lock(4712)");
    Exec(tx, "INSERT INTO entry VALUES (999)");
  }));
  EXPECT_EQ(RefusedState(1), "23503");
  Await("SELECT NOT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND objid = 4712)");
  ASSERT_FALSE(Do(2, [&](pqxx::dbtransaction& tx) {
    second = tx.exec("SELECT pg_backend_pid()")[0][0].c_str();
  }));
  EXPECT_EQ(first, second);
}

TEST_F(Trap, CommitByTheWork) {
  const auto refusal = Do(1, [](pqxx::dbtransaction& tx) {
    Exec(tx, TakeSql(1));
    Exec(tx, "COMMIT");
  });
  ASSERT_TRUE(refusal.has_value());
  EXPECT_EQ(refusal->reason, Refused::kInvalid);
  EXPECT_EQ(Prepare(1).kind, Vote::Kind::kRefused);
}

TEST_F(Trap, CommitAndBeginByTheWork) {
  const auto refusal =
      Do(1, [](pqxx::dbtransaction& tx) { Exec(tx, TakeSql(1) + "; COMMIT; BEGIN"); });
  EXPECT_TRUE(refusal.has_value()) << "three statements in one query, and an open block at its end";
}

TEST_F(Trap, CommitAndChain) {
  ASSERT_TRUE(Do(1, [](pqxx::dbtransaction& tx) {
    Exec(tx, TakeSql(1));
    Exec(tx, "COMMIT AND CHAIN");
    Exec(tx, TakeSql(2));
  }));
  EXPECT_EQ(PreparedCount(), 0);
  EXPECT_EQ(Balance(2), 100);
}

TEST_F(Trap, RollbackAndChainIsCaughtByTheGuard) {
  // Its tag, ROLLBACK, is that of ROLLBACK TO SAVEPOINT too: only the guard can tell.
  ASSERT_FALSE(Do(1, [](pqxx::dbtransaction& tx) {
    Exec(tx, TakeSql(1));
    Exec(tx, "ROLLBACK AND CHAIN");
    Exec(tx, TakeSql(2));
  }));
  EXPECT_EQ(RefusedState(1), "22012");
  EXPECT_EQ(PreparedCount(), 0);
  EXPECT_EQ(Balance(2), 100);
}

TEST_F(Trap, CommitInsideAProcedure) {
  // CALL has its own tag; inside an explicit block PostgreSQL refuses the COMMIT.
  cluster_.Sql("CREATE OR REPLACE PROCEDURE commits() LANGUAGE plpgsql AS $$BEGIN COMMIT; END$$");
  const auto refusal = Do(1, [](pqxx::dbtransaction& tx) { Exec(tx, "CALL commits()"); });
  ASSERT_TRUE(refusal.has_value());
  EXPECT_EQ(refusal->sqlstate, "2D000");
}

TEST_F(Trap, CommitThroughLibpqxx) {
  EXPECT_THROW((void)Do(1,
                        [](pqxx::dbtransaction& tx) {
                          try {
                            tx.commit();
                          } catch (const pqxx::usage_error&) {
                            throw std::runtime_error("refused, as it should be");
                          }
                        }),
               std::runtime_error);
}

TEST_F(Trap, SavepointsAreTheWorksOwn) {
  ASSERT_FALSE(Do(1, [](pqxx::dbtransaction& tx) {
    Exec(tx, TakeSql(1));
    pqxx::subtransaction attempt(tx, "attempt");
    try {
      attempt.exec("SELECT 1/0");
    } catch (const pqxx::sql_error&) {
      attempt.abort();
    }
  }));
  EXPECT_TRUE(Prepared(1));
  EXPECT_EQ(Commit(1).kind, Finished::kDone);
  EXPECT_EQ(Balance(1), 99);
}

TEST_F(Trap, ConnectionLostAndTheApplicationGoesOn) {
  // libpqxx 6.4 by itself reconnects, and the third statement's row stays.
  int executed = 0;
  const auto refusal = Do(1, [&](pqxx::dbtransaction& tx) {
    Exec(tx, TakeSql(1));
    const int pid = tx.exec("SELECT pg_backend_pid()")[0][0].as<int>();
    cluster_.Sql("SELECT pg_terminate_backend(" + std::to_string(pid) + ", 5000)");
    for (int i = 0; i < 5; ++i) {
      try {
        tx.exec(TakeSql(2));
        ++executed;
      } catch (const std::exception&) {
      }
    }
  });
  ASSERT_TRUE(refusal.has_value());
  EXPECT_EQ(refusal->reason, Refused::kDatabaseUnavailable);
  EXPECT_EQ(executed, 0);
  EXPECT_EQ(Balance(1), 100);
  EXPECT_EQ(Balance(2), 100);
  EXPECT_FALSE(Take(2, 1)) << "the pool replaces the connection";
}

TEST_F(Trap, ConnectionLostBetweenTwoPiecesOfWork) {
  ASSERT_FALSE(Take(1, 1));
  cluster_.Sql(
      "SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity"
      " WHERE application_name = 'troth east'");
  EXPECT_TRUE(Take(1, 2, 1).has_value());
  EXPECT_EQ(Prepare(1).kind, Vote::Kind::kRefused);
  EXPECT_EQ(Balance(1), 100);
  EXPECT_EQ(Balance(2), 100);
}

TEST_F(Trap, ConnectionLostBeforePrepare) {
  ASSERT_FALSE(Take(1, 1));
  cluster_.Sql(
      "SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity"
      " WHERE application_name = 'troth east'");
  const Vote vote = Prepare(1);
  EXPECT_EQ(vote.kind, Vote::Kind::kRefused);
  EXPECT_EQ(vote.refusal.reason, Refused::kDatabaseUnavailable);
  EXPECT_EQ(PreparedCount(), 0);
}

TEST_F(Trap, SetRoleDoesNotChangeTheOwner) {
  MakeClerk();
  ASSERT_FALSE(Do(1, [](pqxx::dbtransaction& tx) {
    Exec(tx, "SET LOCAL ROLE clerk");
    Exec(tx, TakeSql(1));
  }));
  ASSERT_TRUE(Prepared(1));
  EXPECT_EQ(cluster_.Sql("SELECT owner FROM pg_prepared_xacts"), "postgres");
  EXPECT_EQ(Commit(1).kind, Finished::kDone);
}

TEST_F(Trap, SynchronousCommitOffInsideTheBlock) {
  ASSERT_FALSE(Do(1, [](pqxx::dbtransaction& tx) {
    Exec(tx, "SET synchronous_commit = off");
    Exec(tx, TakeSql(1));
  }));
  ExpectPrepareWaitsForStandby(1);
}

// Regression: deferred triggers fired inside PREPARE, behind the guard.
TEST_F(Trap, DeferredTriggerDoesNotChangeTheOwner) {
  MakeClerk();
  Defer("SET LOCAL ROLE clerk");
  ASSERT_FALSE(Take(1, 1));
  ASSERT_TRUE(Prepared(1));
  EXPECT_EQ(cluster_.Sql("SELECT owner FROM pg_prepared_xacts"), "postgres");
  EXPECT_EQ(Commit(1).kind, Finished::kDone);
}

TEST_F(Trap, DeferredTriggerTurnsSynchronousCommitOff) {
  Defer("SET LOCAL synchronous_commit = local");
  ASSERT_FALSE(Take(1, 1));
  ExpectPrepareWaitsForStandby(1);
}

TEST_F(Trap, WarningsOfADeferredTriggerAreNotThoseOfPrepare) {
  Defer("RAISE WARNING 'low'");
  ASSERT_FALSE(Take(1, 1));
  const Vote vote = Prepare(1);
  EXPECT_EQ(vote.kind, Vote::Kind::kPrepared) << vote.refusal.message;
}

TEST_F(Trap, ErrorsOfADeferredTriggerAreItsOwn) {
  std::string first, second;
  int t = 0;
  // The guard's own state, one of a lost connection, one to repeat.
  for (const std::string state : {"22012", "57P01", "40001"}) {
    cluster_.Sql("DROP TRIGGER IF EXISTS late ON account");
    Defer("RAISE EXCEPTION 'mine' USING ERRCODE = '" + state + "'");
    ASSERT_FALSE(Do(++t, [&](pqxx::dbtransaction& tx) {
      first = tx.exec("SELECT pg_backend_pid()")[0][0].c_str();
      Exec(tx, TakeSql(1));
    }));
    const Vote vote = Prepare(t);
    EXPECT_EQ(vote.kind, Vote::Kind::kRefused);
    EXPECT_EQ(vote.refusal.sqlstate, state);
    EXPECT_EQ(vote.refusal.message, "mine");
    EXPECT_EQ(vote.refusal.retryable, state != "22012");
    ASSERT_FALSE(Do(++t, [&](pqxx::dbtransaction& tx) {
      second = tx.exec("SELECT pg_backend_pid()")[0][0].c_str();
    }));
    EXPECT_EQ(first, second) << "the connection goes on";
    EXPECT_EQ(Abort(t).kind, Finished::kDone);
  }
  EXPECT_EQ(PreparedCount(), 0);
}

TEST_F(Trap, CancelDuringTheWaitForAStandby) {
  ASSERT_FALSE(Take(1, 1));
  SetWaitForStandby(true);
  const PrepareRequest requests[] = {{Id(1), marks_[1], 1, milliseconds(10'000), instance_}};
  EXPECT_EQ(table_->Prepare(requests, milliseconds(100))[0].kind, Vote::Kind::kWorking);
  Await("SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event = 'SyncRep'");
  cluster_.Sql(
      "SELECT count(pg_cancel_backend(pid)) FROM pg_stat_activity WHERE wait_event = 'SyncRep'");
  // PREPARE answers success, with warning 01000.
  const Vote vote = Prepare(1);
  EXPECT_EQ(vote.kind, Vote::Kind::kRefused);
  EXPECT_EQ(vote.refusal.sqlstate, "01000");
  SetWaitForStandby(false);
  EXPECT_EQ(Abort(1).kind, Finished::kDone);
  EXPECT_EQ(PreparedCount(), 0);
}

// The warning is all that tells: an application that hides warnings must not hide this one.
TEST_F(Trap, CancelDuringTheWaitForAStandbyWithWarningsHidden) {
  ASSERT_FALSE(Do(1, [](pqxx::dbtransaction& tx) {
    Exec(tx, "SET client_min_messages = error");
    Exec(tx, TakeSql(1));
  }));
  SetWaitForStandby(true);
  const PrepareRequest requests[] = {{Id(1), marks_[1], 1, milliseconds(10'000), instance_}};
  EXPECT_EQ(table_->Prepare(requests, milliseconds(100))[0].kind, Vote::Kind::kWorking);
  Await("SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event = 'SyncRep'");
  cluster_.Sql(
      "SELECT count(pg_cancel_backend(pid)) FROM pg_stat_activity WHERE wait_event = 'SyncRep'");
  EXPECT_EQ(Prepare(1).kind, Vote::Kind::kRefused);
  SetWaitForStandby(false);
  EXPECT_EQ(Abort(1).kind, Finished::kDone);
  EXPECT_EQ(PreparedCount(), 0);
}

TEST_F(Trap, TerminatedDuringTheWaitForAStandby) {
  ASSERT_FALSE(Take(1, 1));
  SetWaitForStandby(true);
  const PrepareRequest requests[] = {{Id(1), marks_[1], 1, milliseconds(10'000), instance_}};
  EXPECT_EQ(table_->Prepare(requests, milliseconds(100))[0].kind, Vote::Kind::kWorking);
  Await("SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event = 'SyncRep'");
  cluster_.Sql(
      "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE wait_event = 'SyncRep'");
  EXPECT_EQ(Prepare(1).kind, Vote::Kind::kRefused);
  SetWaitForStandby(false);
  EXPECT_EQ(Abort(1).kind, Finished::kDone);
  EXPECT_EQ(PreparedCount(), 0);
}

TEST_F(Trap, ThingsThatCannotBePrepared) {
  const char* const things[] = {
      "CREATE TEMP TABLE t (a int)",
      "LISTEN bell",
      "NOTIFY bell",
      "DECLARE c CURSOR WITH HOLD FOR SELECT 1",
      "SELECT pg_export_snapshot()",
  };
  int t = 10;
  for (const char* thing : things) {
    ASSERT_FALSE(Do(t, [&](pqxx::dbtransaction& tx) { Exec(tx, thing); })) << thing;
    EXPECT_EQ(RefusedState(t), "0A000") << thing;
    ++t;
  }
  EXPECT_EQ(PreparedCount(), 0);
  EXPECT_FALSE(Take(1, 1));
  EXPECT_TRUE(Prepared(1)) << "the connections are fit again";
}

TEST_F(Trap, ForeignTables) {
  cluster_.Sql(
      "CREATE EXTENSION IF NOT EXISTS postgres_fdw;"
      "DROP SERVER IF EXISTS back CASCADE;"
      "CREATE SERVER back FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '127.0.0.1', port '" +
      cluster_.Sql("SHOW port") +
      "', dbname 'postgres');"
      "CREATE USER MAPPING FOR postgres SERVER back OPTIONS (user 'postgres');"
      "CREATE FOREIGN TABLE far (id int, balance int) SERVER back OPTIONS (table_name 'account')");
  const auto write = [](pqxx::dbtransaction& tx) {
    Exec(tx, "UPDATE far SET balance = 1 WHERE id = 3");
  };
  ASSERT_FALSE(Do(1, write));
  EXPECT_EQ(RefusedState(1), "0A000");
  EXPECT_EQ(Balance(3), 100);
  // No xid of ours: a branch is not read-only for the lack of one.
  WorkRequest read_only;
  read_only.read_only = true;
  const auto refused = Do(2, write, 0, read_only);
  if (!refused) Prepare(2);
  EXPECT_EQ(Balance(3), 100) << "a write slipped out of a read-only branch";
}

TEST_F(Trap, NotifyDoesNotSlipOutOfAReadOnlyBranch) {
  pqxx::connection listener(cluster_.conninfo());
  struct Bell : pqxx::notification_receiver {
    explicit Bell(pqxx::connection_base& c) : notification_receiver(c, "bell") {}
    void operator()(const std::string&, int) override { ++rung; }
    int rung = 0;
  } bell(listener);
  listener.get_notifs();
  WorkRequest read_only;
  read_only.read_only = true;
  ASSERT_FALSE(Do(
      1, [](pqxx::dbtransaction& tx) { Exec(tx, "NOTIFY bell"); }, 0, read_only));
  EXPECT_EQ(Prepare(1).kind, Vote::Kind::kReadOnly);
  EXPECT_EQ(listener.await_notification(0, 300'000), 0);
}

TEST_F(Trap, ReadOnlyBranchSwitchedToReadWrite) {
  WorkRequest read_only;
  read_only.read_only = true;
  const auto refusal = Do(
      1,
      [](pqxx::dbtransaction& tx) {
        Exec(tx, "SET TRANSACTION READ WRITE");
        Exec(tx, TakeSql(1));
      },
      0, read_only);
  if (!refusal) {
    EXPECT_EQ(Prepare(1).kind, Vote::Kind::kRefused);
  }
  EXPECT_EQ(Balance(1), 100);
}

TEST_F(Trap, LockTimeoutComesFromTheDeadline) {
  ASSERT_FALSE(Take(1, 1));
  WorkRequest soon;
  soon.time_left = milliseconds(300);
  const auto refusal = Do(
      2, [](pqxx::dbtransaction& tx) { Exec(tx, TakeSql(1)); }, 0, soon);
  ASSERT_TRUE(refusal.has_value());
  EXPECT_EQ(refusal->sqlstate, "55P03");
  EXPECT_TRUE(refusal->retryable);
}

TEST_F(Trap, StatementTimeoutOfTheWork) {
  const auto refusal = Do(1, [](pqxx::dbtransaction& tx) {
    Exec(tx, "SET LOCAL statement_timeout = 50");
    Exec(tx, "SELECT pg_sleep(5)");
  });
  ASSERT_TRUE(refusal.has_value());
  EXPECT_EQ(refusal->sqlstate, "57014");
  EXPECT_EQ(refusal->reason, Refused::kConflict);
}

TEST_F(Trap, WorkPastItsDeadlineIsCancelled) {
  WorkRequest soon;
  soon.time_left = milliseconds(200);
  std::atomic<bool> ended{false};
  std::thread ticker([&] {  // as a participant does: time is what is waited for
    for (; !ended; std::this_thread::sleep_for(milliseconds(20))) table_->Tick();
  });
  const auto refusal = Do(
      1, [](pqxx::dbtransaction& tx) { Exec(tx, "SELECT pg_sleep(30)"); }, 0, soon);
  ended = true;
  ticker.join();
  ASSERT_TRUE(refusal.has_value());
  EXPECT_EQ(refusal->reason, Refused::kDeadline);
}

TEST_F(Trap, AbortReachesWorkThatWaitsForARow) {
  ASSERT_FALSE(Take(1, 1));
  std::optional<Refusal> refusal;
  std::thread waiter([&] { refusal = Take(2, 1); });
  Await("SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'");
  EXPECT_EQ(Abort(2).kind, Finished::kDone);
  waiter.join();
  ASSERT_TRUE(refusal.has_value());
  EXPECT_TRUE(Prepared(1));
  EXPECT_EQ(Commit(1).kind, Finished::kDone);
}

TEST_F(Trap, CancelWhileTheServerTakesNoConnections) {
  // Regression: the request is a connection of its own, and all that stood behind it waited too.
  ASSERT_FALSE(Take(1, 1));
  ASSERT_TRUE(Prepared(1));
  ASSERT_FALSE(Take(2, 2));
  std::optional<Refusal> refusal;
  std::thread waiter([&] { refusal = Take(3, 2); });
  Await("SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'");
  const int postmaster =
      std::stoi(cluster_.Sql("SELECT split_part(pg_read_file('postmaster.pid'), E'\\n', 1)"));
  ASSERT_EQ(Finish(4, false).kind, Finished::kDone);  // a connection for phase two
  kill(postmaster, SIGSTOP);
  const FinishRequest requests[] = {{Id(3), false, std::nullopt, std::nullopt},
                                    {Id(1), true, evidence_[1], std::nullopt}};
  std::future<std::vector<FinishResult>> finished =
      std::async(std::launch::async, [&] { return table_->Finish(requests, milliseconds(1'000)); });
  EXPECT_EQ(finished.wait_for(std::chrono::seconds(10)), std::future_status::ready);
  kill(postmaster, SIGCONT);
  EXPECT_EQ(finished.get()[1].kind, Finished::kDone);
  waiter.join();
  ASSERT_TRUE(refusal.has_value());
  EXPECT_EQ(refusal->reason, Refused::kEnded) << refusal->message;
}

TEST_F(Trap, SerialisationFailure) {
  WorkRequest serialisable;
  serialisable.isolation = Isolation::kSerializable;
  ASSERT_FALSE(Do(
      1, [](pqxx::dbtransaction& tx) { Exec(tx, "SELECT balance FROM account WHERE id = 1"); }, 0,
      serialisable));
  cluster_.Sql(TakeSql(1));
  const auto refusal = Take(1, 1, 1);
  ASSERT_TRUE(refusal.has_value());
  EXPECT_EQ(refusal->sqlstate, "40001");
  EXPECT_TRUE(refusal->retryable);
}

TEST_F(Trap, Deadlock) {
  cluster_.Sql("ALTER SYSTEM SET deadlock_timeout = '50ms'");
  cluster_.Sql("SELECT pg_reload_conf()");
  ASSERT_FALSE(Take(1, 1));
  ASSERT_FALSE(Take(2, 2));
  std::optional<Refusal> first;
  std::thread waiter([&] { first = Take(1, 2, 1); });
  Await("SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'");
  const std::optional<Refusal> second = Take(2, 1, 1);
  waiter.join();
  ASSERT_NE(first.has_value(), second.has_value());
  EXPECT_EQ((first ? first : second)->sqlstate, "40P01");
}

TEST_F(Trap, SettingsAndSessionLocksDoNotOutliveTheBranch) {
  ASSERT_FALSE(Do(1, [](pqxx::dbtransaction& tx) {
    Exec(tx, "SET work_mem = '77MB'");
    Exec(tx, "SET SESSION AUTHORIZATION postgres");
    Exec(tx, "SET search_path = pg_temp, public");
    Exec(tx, "SELECT pg_advisory_lock(4711)");
    Exec(tx, "UPDATE public.account SET balance = balance - 1 WHERE id = 1");
  }));
  ASSERT_TRUE(Prepared(1));
  ASSERT_EQ(Commit(1).kind, Finished::kDone);
  Await("SELECT NOT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND objid = 4711)");
  std::string memory, path;
  ASSERT_FALSE(Do(2, [&](pqxx::dbtransaction& tx) {
    memory = tx.exec("SHOW work_mem")[0][0].c_str();
    path = tx.exec("SHOW search_path")[0][0].c_str();
  }));
  EXPECT_NE(memory, "77MB");
  EXPECT_EQ(path.find("pg_temp"), std::string::npos);
}

TEST_F(Trap, OperatorsOfTheApplicationDoNotDeceiveTheGuard) {
  cluster_.Sql(
      "CREATE SCHEMA IF NOT EXISTS evil;"
      "CREATE OR REPLACE FUNCTION evil.yes(xid8, xid8) RETURNS bool LANGUAGE sql AS 'SELECT true';"
      "CREATE OR REPLACE FUNCTION evil.yes(text, text) RETURNS bool LANGUAGE sql AS 'SELECT true';"
      "DROP OPERATOR IF EXISTS evil.= (xid8, xid8); DROP OPERATOR IF EXISTS evil.= (text, text);"
      "CREATE OPERATOR evil.= (leftarg = xid8, rightarg = xid8, function = evil.yes);"
      "CREATE OPERATOR evil.= (leftarg = text, rightarg = text, function = evil.yes)");
  ASSERT_FALSE(Do(1, [](pqxx::dbtransaction& tx) {
    Exec(tx, "SET search_path = evil, pg_catalog, public");
    Exec(tx, "ROLLBACK AND CHAIN");
    Exec(tx, "SET search_path = evil, pg_catalog, public");
    Exec(tx, TakeSql(1));
  }));
  EXPECT_EQ(RefusedState(1), "22012");
}

TEST_F(Trap, TheWorkForgetsOurStatements) {
  ASSERT_FALSE(Do(1, [](pqxx::dbtransaction& tx) {
    Exec(tx, TakeSql(1));
    Exec(tx, "DEALLOCATE ALL");
  }));
  EXPECT_EQ(RefusedState(1), "26000");
  for (int t = 2; t < 8; ++t) {
    ASSERT_FALSE(Take(t, t)) << "an unfit connection came back";
    ASSERT_TRUE(Prepared(t));
  }
}

TEST_F(Trap, LateDuplicatesOfWorkAndPrepare) {
  ASSERT_FALSE(Take(1, 1));
  EXPECT_EQ(Take(1, 1)->reason, Refused::kOutOfNumber);
  ASSERT_TRUE(Prepared(1));
  EXPECT_EQ(Take(1, 1)->reason, Refused::kOutOfNumber);
  ASSERT_EQ(Commit(1).kind, Finished::kDone);
  EXPECT_EQ(Take(1, 1)->reason, Refused::kEnded);
  EXPECT_EQ(Prepare(1).kind, Vote::Kind::kRefused);
  EXPECT_EQ(Balance(1), 99);
  EXPECT_EQ(PreparedCount(), 0);
}

TEST_F(Trap, WorkAfterTheParticipantRestarted) {
  ASSERT_FALSE(Take(1, 1));
  Restart();
  EXPECT_EQ(Take(1, 2, 1)->reason, Refused::kNoSuchBranch);
  EXPECT_EQ(Prepare(1).kind, Vote::Kind::kRefused);
  EXPECT_EQ(Balance(1), 100);
  EXPECT_EQ(Balance(2), 100);
}

TEST_F(Trap, PoolIsBoundedAndSaysSo) {
  for (int t = 1; t <= 4; ++t) ASSERT_FALSE(Take(t, t));
  const auto started = std::chrono::steady_clock::now();
  const auto refusal = Take(5, 5);
  ASSERT_TRUE(refusal.has_value());
  EXPECT_EQ(refusal->reason, Refused::kOverloaded);
  EXPECT_TRUE(refusal->unheard);
  EXPECT_EQ(table_->Counts().overloaded, 1u);
  EXPECT_NE(refusal->message.find("4 connections"), std::string::npos) << refusal->message;
  EXPECT_LT(std::chrono::steady_clock::now() - started, milliseconds(2'000));
  ASSERT_TRUE(Prepared(1));
  EXPECT_FALSE(Take(5, 5)) << "the id is still unheard";
}

}  // namespace
}  // namespace troth
