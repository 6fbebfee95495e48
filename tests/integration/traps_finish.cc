// PostgreSQL's traps around COMMIT PREPARED, crashes, copies and failovers (law L13).
#include <atomic>
#include <csignal>
#include <filesystem>

#include "participant/inspection_service.h"
#include "participant/options.h"
#include "participant/postgres_connection.h"
#include "tests/integration/trap_fixture.h"

namespace troth {
namespace {

class PhaseTwo : public TrapTest {};

TEST_F(PhaseTwo, BackendsTerminatedBeforePhaseTwo) {
  for (int t = 1; t <= 3; ++t) {
    ASSERT_FALSE(Take(t, t));
    ASSERT_TRUE(Prepared(t));
    cluster_.Sql(
        "SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity"
        " WHERE application_name = 'troth east'");
    EXPECT_EQ(Commit(t).kind, Finished::kDone);
    EXPECT_EQ(Balance(t), 99);
  }
}

TEST_F(PhaseTwo, BackendTerminatedInsidePhaseTwo) {
  ASSERT_FALSE(Take(1, 1));
  ASSERT_TRUE(Prepared(1));
  SetWaitForStandby(true);
  EXPECT_EQ(Finish(1, true, 1).kind, Finished::kWorking);
  Await("SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event = 'SyncRep'");
  cluster_.Sql(
      "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE wait_event = 'SyncRep'");
  SetWaitForStandby(false);
  EXPECT_EQ(Commit(1).kind, Finished::kDone) << "57P01 is no outcome: the evidence is";
  EXPECT_EQ(Balance(1), 99);
}

// What is acknowledged is soon forgotten by its coordinator: a standby that has it prepared still,
// once promoted, would ask in vain.
TEST_F(PhaseTwo, CancelDuringTheWaitForAStandby) {
  PostgresOptions options = Options();
  options.conninfo += " options='-c client_min_messages=error'";
  auto opened = PostgresResourceManager::Open(options);
  ASSERT_TRUE(opened.ok()) << opened.status().ToString();
  ASSERT_FALSE(Take(1, 1));
  ASSERT_TRUE(Prepared(1));
  const auto finish = [&](int wait) {
    FinishItem items[] = {{{Gid(1), true, evidence_[1], {}, {}}, {}}};
    (*opened)->Finish(items, milliseconds(wait));
    return items[0].result;
  };
  const auto end_wait = [&](const std::string& how, const std::string& statement) {
    Await("SELECT count(" + how +
          "(pid)) = 1 FROM pg_stat_activity WHERE wait_event ="
          " 'SyncRep' AND query LIKE '" +
          statement + "%'");
  };
  SetWaitForStandby(true);
  EXPECT_EQ(finish(100).kind, Finished::kWorking);
  end_wait("pg_cancel_backend", "COMMIT PREPARED");
  // The GID is gone, and it is known to be committed: by this server.
  Await("SELECT NOT EXISTS (SELECT FROM pg_prepared_xacts)");
  EXPECT_EQ(finish(300).kind, Finished::kWorking);
  for (const char* how : {"pg_cancel_backend", "pg_terminate_backend"}) {
    end_wait(how, "SELECT pg_catalog.pg_logical_emit_message");
    EXPECT_EQ(finish(300).kind, Finished::kWorking) << how;
  }
  SetWaitForStandby(false);
  EXPECT_EQ(finish(10'000).kind, Finished::kDone);
  EXPECT_EQ(Balance(1), 99);
}

TEST_F(PhaseTwo, WarningOfACommitBehindItsStatement) {
  // The notice takes the end of the statement with it, ahead of the warning.
  cluster_.Sql(
      "SET client_min_messages = warning;"
      "CREATE OR REPLACE FUNCTION warn() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN"
      " RAISE NOTICE 'soon'; PERFORM pg_sleep(0.3); RAISE WARNING 'now'; RETURN NULL; END$$;"
      "CREATE CONSTRAINT TRIGGER warns AFTER UPDATE ON account DEFERRABLE INITIALLY DEFERRED"
      " FOR EACH ROW EXECUTE FUNCTION warn()");
  const auto opened = PgConnection::Open(cluster_.conninfo(), "test", milliseconds(5'000));
  ASSERT_TRUE(opened.ok());
  const auto deadline = std::chrono::steady_clock::now() + milliseconds(10'000);
  const Answer answer = (*opened)->Execute(TakeSql(1), {}, deadline);
  EXPECT_TRUE(answer.ok) << answer.message;
  EXPECT_EQ(answer.warning, "01000");
  EXPECT_EQ((*opened)->Execute("SELECT 1", {}, deadline).warning, "");
}

TEST_F(PhaseTwo, StatementTimeoutDoesNotEndTheWaitForAStandby) {
  PostgresOptions options = Options();
  options.conninfo += " options='-c statement_timeout=500'";
  auto opened = PostgresResourceManager::Open(options);
  ASSERT_TRUE(opened.ok()) << opened.status().ToString();
  ASSERT_FALSE(Take(1, 1));
  ASSERT_TRUE(Prepared(1));
  SetWaitForStandby(true);
  FinishItem items[] = {{{Gid(1), true, evidence_[1], {}, {}}, {}}};
  (*opened)->Finish(items, milliseconds(1'500));
  EXPECT_EQ(items[0].result.kind, Finished::kWorking);
  EXPECT_EQ(PreparedCount(), 1) << "it waits no more";
  SetWaitForStandby(false);
  (*opened)->Finish(items, milliseconds(10'000));
  EXPECT_EQ(items[0].result.kind, Finished::kDone);
}

TEST_F(PhaseTwo, Busy55000IsAskedAgain) {
  ASSERT_FALSE(Take(1, 1));
  ASSERT_TRUE(Prepared(1));
  SetWaitForStandby(true);
  std::thread other([&] {
    pqxx::connection connection(cluster_.conninfo());
    pqxx::nontransaction tx(connection);
    tx.exec("COMMIT PREPARED '" + Gid(1) + "'");
  });
  Await("SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event = 'SyncRep'");
  const FinishResult busy = Finish(1, true, 3);
  EXPECT_EQ(busy.kind, Finished::kWorking);
  SetWaitForStandby(false);
  other.join();
  EXPECT_EQ(Commit(1).kind, Finished::kDone);
  EXPECT_EQ(Balance(1), 99);
}

TEST_F(PhaseTwo, AnOrderThatComesAgainWaitsForTheFirst) {
  // Else a coordinator that asks again would be answered "working" as fast as it can ask.
  ASSERT_FALSE(Take(1, 1));
  ASSERT_TRUE(Prepared(1));
  SetWaitForStandby(true);
  EXPECT_EQ(Finish(1, true, 1).kind, Finished::kWorking);
  std::thread release([&] {
    std::this_thread::sleep_for(milliseconds(200));
    SetWaitForStandby(false);
  });
  const FinishRequest requests[] = {{Id(1), true, evidence_[1], std::nullopt}};
  EXPECT_EQ(table_->Finish(requests, milliseconds(20'000))[0].kind, Finished::kDone);
  release.join();
  EXPECT_EQ(Balance(1), 99);
}

TEST_F(PhaseTwo, ServerKilledAndRestartedWithPreparedBranches) {
  ASSERT_FALSE(Take(1, 1));
  ASSERT_TRUE(Prepared(1));
  ASSERT_FALSE(Take(2, 2));
  ASSERT_TRUE(Prepared(2));
  cluster_.Kill();
  const FinishResult away = Finish(1, true, 1);
  EXPECT_EQ(away.kind, Finished::kWorking);
  cluster_.Start();
  EXPECT_EQ(Commit(1).kind, Finished::kDone);
  EXPECT_EQ(Abort(2).kind, Finished::kDone);
  EXPECT_EQ(Balance(1), 99);
  EXPECT_EQ(Balance(2), 100);
  EXPECT_EQ(PreparedCount(), 0);
}

TEST_F(PhaseTwo, OneBackendKilledAndXidsUsedAgain) {
  // An xid that was never flushed is given out again after the crash restart. A vote is never
  // of such a one: PREPARE has flushed it.
  ASSERT_FALSE(Take(1, 1));
  ASSERT_TRUE(Prepared(1));
  std::string unprepared;
  ASSERT_FALSE(Do(2, [&](pqxx::dbtransaction& tx) {
    Exec(tx, TakeSql(2));
    unprepared = tx.exec("SELECT pg_current_xact_id()")[0][0].c_str();
  }));
  const int victim = std::stoi(
      cluster_.Sql("SELECT pid FROM pg_stat_activity WHERE state = 'idle in transaction' LIMIT 1"));
  KillBackend(victim);
  EXPECT_EQ(Prepare(2).kind, Vote::Kind::kRefused);
  bool used_again = false;
  for (int i = 0; i < 5 && !used_again; ++i) {
    used_again = cluster_.Sql("SELECT pg_current_xact_id()") == unprepared;
  }
  std::cout << "xid " << unprepared << (used_again ? " was" : " was not") << " used again\n";
  EXPECT_EQ(Commit(1).kind, Finished::kDone);
  EXPECT_EQ(Balance(1), 99);
  EXPECT_EQ(Balance(2), 100);
}

TEST_F(PhaseTwo, SettledByHandTheOtherWay) {
  ASSERT_FALSE(Take(1, 1));
  ASSERT_TRUE(Prepared(1));
  cluster_.Sql("ROLLBACK PREPARED '" + Gid(1) + "'");
  const FinishResult result = Commit(1);
  EXPECT_EQ(result.kind, Finished::kHeuristic) << result.message;
  EXPECT_EQ(table_->Counts().heuristics, 1u);
}

TEST_F(PhaseTwo, SettledByHandAsDecided) {
  ASSERT_FALSE(Take(1, 1));
  ASSERT_TRUE(Prepared(1));
  cluster_.Sql("COMMIT PREPARED '" + Gid(1) + "'");
  EXPECT_EQ(Commit(1).kind, Finished::kDone);
}

TEST_F(PhaseTwo, NotFoundIsNotCommitted) {
  ASSERT_FALSE(Take(1, 1));
  ASSERT_TRUE(Prepared(1));
  Restart();
  cluster_.Sql("ROLLBACK PREPARED '" + Gid(1) + "'");
  EXPECT_EQ(Commit(1).kind, Finished::kHeuristic);
}

TEST_F(PhaseTwo, NoFreeSlotIsToBeRepeated) {
  const PrivateCluster small = PrivateCluster::Make("slots", {{"max_prepared_transactions", "1"}});
  PostgresOptions options = Options();
  options.conninfo = small.conninfo();
  options.max_in_doubt = 1;
  auto opened = PostgresResourceManager::Open(options);
  ASSERT_TRUE(opened.ok()) << opened.status().ToString();
  small.Sql("BEGIN; PREPARE TRANSACTION 'taken'");
  BeginOptions begin;
  begin.gid = Gid(1);
  begin.mark = "m";
  begin.time_left = milliseconds(5'000);
  Granted<std::unique_ptr<Session>> session = (*opened)->Begin(begin);
  ASSERT_TRUE(session.ok());
  PrepareItem items[] = {{session->get(), std::nullopt}};
  (*opened)->Prepare(items, milliseconds(5'000));
  ASSERT_TRUE(items[0].result.has_value());
  EXPECT_EQ(items[0].result->refusal.sqlstate, "53200");
  EXPECT_TRUE(items[0].result->refusal.retryable);
}

TEST_F(PhaseTwo, TwoDatabasesInOneServer) {
  if (cluster_.Sql("SELECT count(*) FROM pg_database WHERE datname = 'second'") == "0") {
    cluster_.Sql("CREATE DATABASE second");
  }
  PostgresOptions options = Options();
  options.conninfo = cluster_.conninfo("second");
  auto second = PostgresResourceManager::Open(options);  // the same participant's name
  ASSERT_TRUE(second.ok());
  ASSERT_FALSE(Take(1, 1));
  ASSERT_TRUE(Prepared(1));
  EXPECT_EQ((*(*second)->ListPrepared("troth:east:")).size(), 0u) << "another database's";
  FinishItem items[] = {{{Gid(1), true, evidence_[1], {}, {}}, {}}};
  (*second)->Finish(items, milliseconds(1'000));
  EXPECT_NE(items[0].result.kind, Finished::kDone);
  EXPECT_EQ(PreparedCount(), 1) << "it can be finished only from its own";
  EXPECT_NE((*(*second)->Look()).identity.oid, (*manager_->Look()).identity.oid);
  EXPECT_EQ(Commit(1).kind, Finished::kDone);
}

TEST_F(PhaseTwo, NamesThatLikeWouldMatch) {
  pqxx::connection connection(cluster_.conninfo());
  pqxx::nontransaction tx(connection);
  tx.exec("BEGIN");
  tx.exec("PREPARE TRANSACTION 'troth:e_st:main-0123456789ab.1-00000001.1'");
  tx.exec("BEGIN");
  tx.exec("PREPARE TRANSACTION 'troth:east2:main-0123456789ab.1-00000001.1'");
  EXPECT_EQ((*manager_->ListPrepared("troth:east:")).size(), 0u);
  EXPECT_EQ((*manager_->ListPrepared("troth:e_st:")).size(), 1u);
}

// Regression: one * of an application's own, nearer to numeric * integer than PostgreSQL's, and
// nothing that is prepared was found any more.
TEST_F(PhaseTwo, OperatorsOfTheApplicationDoNotStopTheSweep) {
  cluster_.Sql(
      "SET client_min_messages = warning; DROP SCHEMA IF EXISTS angry CASCADE;"
      "CREATE SCHEMA angry; DO $do$ DECLARE one record; BEGIN FOR one IN SELECT * FROM (VALUES"
      " ('*', 'numeric', 'integer', 'numeric'), ('-', 'timestamptz', 'timestamptz', 'interval'),"
      " ('<', 'bigint', 'bigint', 'boolean'), ('=', 'name', 'name', 'boolean'),"
      " ('=', 'text', 'text', 'boolean')) AS v (name, l, r, result) LOOP "
      "EXECUTE pg_catalog.format('CREATE FUNCTION angry.no(%s, %s) RETURNS %s LANGUAGE plpgsql AS"
      " $$BEGIN RAISE ''an operator of the application''; END$$', one.l, one.r, one.result);"
      "EXECUTE pg_catalog.format('CREATE OPERATOR angry.%s (leftarg = %s, rightarg = %s,"
      " function = angry.no)', one.name, one.l, one.r);"
      "END LOOP; END$do$");
  ASSERT_FALSE(Take(1, 1));
  ASSERT_TRUE(Prepared(1));
  PostgresOptions options = Options();
  options.conninfo += " options='-c search_path=angry,pg_catalog,public'";
  const auto opened = PostgresResourceManager::Open(options);
  ASSERT_TRUE(opened.ok()) << opened.status().ToString();
  const Result<std::vector<PreparedBranch>> listed = (*opened)->ListPrepared("troth:east:");
  ASSERT_TRUE(listed.ok()) << listed.status().ToString();
  EXPECT_EQ(listed->size(), 1u);
  for (const std::uint64_t position : {1, 2}) {
    const Status noted = (*opened)->StoreSeen({"main-0123456789ab", 1, 1, position});
    EXPECT_TRUE(noted.ok()) << noted.ToString();
  }
  FinishItem items[] = {{{Gid(1), true, evidence_[1], {}, {}}, {}}};
  (*opened)->Finish(items, milliseconds(10'000));
  EXPECT_EQ(items[0].result.kind, Finished::kDone) << items[0].result.message;
  ParticipantOptions diagnosed;
  diagnosed.conninfo = options.conninfo;
  const wire::Finding first = DiagnoseDatabase(diagnosed, milliseconds(5'000)).front();
  EXPECT_EQ(first.verdict, "good") << first.what;
  cluster_.Sql("DELETE FROM troth_seen; DROP SCHEMA angry CASCADE");
}

TEST_F(PhaseTwo, LateDuplicatePreparedUnderTheSameGidIsRolledBack) {
  ASSERT_FALSE(Take(1, 1));
  ASSERT_TRUE(Prepared(1));
  ASSERT_EQ(Commit(1).kind, Finished::kDone);
  pqxx::connection connection(cluster_.conninfo());
  pqxx::nontransaction tx(connection);
  tx.exec("BEGIN");
  tx.exec(TakeSql(1));
  tx.exec("PREPARE TRANSACTION '" + Gid(1) + "'");
  Restart();  // nobody remembers
  EXPECT_EQ(Commit(1).kind, Finished::kDone);
  EXPECT_EQ(Balance(1), 99);
  EXPECT_EQ(PreparedCount(), 0);
}

TEST_F(PhaseTwo, LocalisedMessages) {
  const std::string place = std::string(std::getenv("TROTH_PG_ROOT")) + "/locale";
  const std::string make = "mkdir -p " + place + " && chmod 755 " + place +
                           " && localedef -i de_DE -f UTF-8 " + place + "/de_DE.UTF-8";
  if (std::system(make.c_str()) != 0) GTEST_SKIP() << "no German locale can be made here";
  setenv("LOCPATH", place.c_str(), 1);
  cluster_ = PrivateCluster::Make(
      "german", {{"lc_messages", "de_DE.UTF-8"}, {"max_prepared_transactions", "60"}});
  unsetenv("LOCPATH");
  SetUp();
  std::string message;
  ASSERT_FALSE(Do(1, [&](pqxx::dbtransaction& tx) {
    Exec(tx, TakeSql(1));
    pqxx::subtransaction attempt(tx);
    try {
      attempt.exec("SELECT 1/0");
    } catch (const pqxx::sql_error& e) {
      message = e.what();
    }
  }));
  EXPECT_NE(message.find("Division durch Null"), std::string::npos) << message;
  ASSERT_TRUE(Prepared(1));
  EXPECT_EQ(Commit(1).kind, Finished::kDone);
  EXPECT_EQ(Commit(1).kind, Finished::kDone);
  Restart();
  EXPECT_EQ(Commit(1).kind, Finished::kDone);
  SetWaitForStandby(true);
  ASSERT_FALSE(Take(2, 2));
  const PrepareRequest requests[] = {{Id(2), marks_[2], 1, milliseconds(10'000), instance_}};
  EXPECT_EQ(table_->Prepare(requests, milliseconds(100))[0].kind, Vote::Kind::kWorking);
  Await("SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event = 'SyncRep'");
  cluster_.Sql(
      "SELECT count(pg_cancel_backend(pid)) FROM pg_stat_activity WHERE wait_event = 'SyncRep'");
  EXPECT_EQ(Prepare(2).kind, Vote::Kind::kRefused) << "a warning is a warning in any language";
  SetWaitForStandby(false);
}

TEST_F(PhaseTwo, XidsBeyond32Bits) {
  const PrivateCluster late = PrivateCluster::Make("epoch", {{"max_prepared_transactions", "60"}});
  late.Stop();
  const std::string reset =
      "runuser -u postgres -- /usr/lib/postgresql/15/bin/pg_resetwal --epoch=1 " + late.dir() +
      "/data > /dev/null";
  ASSERT_EQ(std::system(reset.c_str()), 0);
  late.Start();
  cluster_ = late;
  SetUp();
  ASSERT_FALSE(Take(1, 1));
  ASSERT_TRUE(Prepared(1));
  EXPECT_GT(evidence_[1].xid, std::uint64_t{1} << 32);
  Restart();  // so that xids are compared
  EXPECT_EQ(Commit(1).kind, Finished::kDone);
  EXPECT_EQ(Balance(1), 99);
  Restart();
  EXPECT_EQ(Commit(1).kind, Finished::kDone) << "the evidence is asked for with all 64 bits";
}

TEST_F(PhaseTwo, DatabaseRestoredFromACopyAndRunPastTheVote) {
  cluster_ = PrivateCluster::Make("copied", {{"max_prepared_transactions", "60"}});
  SetUp();
  cluster_.Sql("CHECKPOINT");
  cluster_.Stop();
  const std::string data = cluster_.dir() + "/data";
  ASSERT_EQ(std::system(("cp -a " + data + " " + data + ".copy").c_str()), 0);
  cluster_.Start();
  ASSERT_FALSE(Take(1, 1));
  ASSERT_TRUE(Prepared(1));
  const std::uint64_t lost_xid = evidence_[1].xid;
  cluster_.Stop();
  ASSERT_EQ(std::system(("rm -rf " + data + " && mv " + data + ".copy " + data).c_str()), 0);
  cluster_.Start();
  // The copy meets us before it has run past the vote (L13b), and again after.
  EXPECT_EQ(Finish(1, true).kind, Finished::kHazard);
  for (int i = 0; i < 50; ++i) cluster_.Sql("UPDATE account SET balance = 50 WHERE id = 1");
  ASSERT_EQ(cluster_.Sql("SELECT pg_xact_status('" + std::to_string(lost_xid) + "'::xid8)"),
            "committed")
      << "the xid now belongs to somebody else";
  const FinishResult result = Commit(1);
  EXPECT_EQ(result.kind, Finished::kHazard) << "a lost branch was taken for a committed one";
}

TEST_F(PhaseTwo, PositionsToldAreDurable) {
  // Regression: what is written and not flushed is lost with the machine's power, and a vote that
  // names such a position would make a database that lost nothing look gone back in time.
  cluster_ = PrivateCluster::Make(
      "flushed",
      {{"max_prepared_transactions", "60"}, {"wal_buffers", "32kB"}, {"wal_writer_delay", "10s"}});
  SetUp();
  cluster_.Sql("CREATE TABLE noise (text text)");
  std::atomic<bool> over{false};
  const auto write = [&] {  // its pages are written as the buffers fill, and flushed by nobody
    pqxx::connection connection(cluster_.conninfo());
    pqxx::nontransaction tx(connection);
    tx.exec("BEGIN");
    while (!over) {
      tx.exec("INSERT INTO noise SELECT repeat(md5(i::text), 60) FROM generate_series(1, 2000) i");
    }
    tx.exec("ROLLBACK");
  };
  std::thread writers[] = {std::thread(write), std::thread(write), std::thread(write)};
  const auto flushed = [&] { return ParseLsn(cluster_.Sql("SELECT pg_current_wal_flush_lsn()")); };
  int unflushed = 0;
  for (int t = 1; t <= 60; ++t) {
    EXPECT_FALSE(Take(t, 1 + t % 10));
    EXPECT_TRUE(Prepared(t));
    const std::uint64_t voted = evidence_[t].point.position;
    EXPECT_LE(voted, flushed()) << "vote " << t;
    const Result<DatabaseState> state = manager_->Look();
    EXPECT_TRUE(state.ok());
    EXPECT_LE(state->point.position, flushed());
    unflushed += cluster_.Sql("SELECT pg_current_wal_lsn() > pg_current_wal_flush_lsn()") == "t";
    EXPECT_EQ(Commit(t).kind, Finished::kDone);
  }
  over = true;
  for (std::thread& writer : writers) writer.join();
  EXPECT_GT(unflushed, 5) << "there was next to nothing that was not durable: nothing was tried";
}

class FailoverTrap : public TrapTest {
 protected:
  FailoverTrap()
      : TrapTest(
            PrivateCluster::Make("primary" + std::to_string(++made),
                                 {{"max_prepared_transactions", "60"}, {"wal_level", "replica"}})),
        standby_(cluster_.MakeStandby("standby" + std::to_string(made))) {}
  void AwaitReplay() {
    const std::string end = cluster_.Sql("SELECT pg_current_wal_lsn()");
    for (int i = 0; i < 2000; ++i) {
      if (standby_.Sql("SELECT pg_last_wal_replay_lsn() >= '" + end + "'") == "t") return;
      std::this_thread::sleep_for(milliseconds(5));
    }
    FAIL() << "the standby did not catch up";
  }
  // The participant is told of the new primary, as an operator or a virtual address would.
  void FailOver() {
    cluster_.Kill();
    standby_.Promote();
    cluster_ = standby_;
    Restart();
  }
  PrivateCluster standby_;
  static inline int made = 0;
};

TEST_F(FailoverTrap, WithThePrepareReceived) {
  ASSERT_FALSE(Take(1, 1));
  ASSERT_TRUE(Prepared(1));
  ASSERT_FALSE(Take(2, 2));
  ASSERT_TRUE(Prepared(2));
  ASSERT_EQ(Commit(2).kind, Finished::kDone);
  AwaitReplay();
  FailOver();
  EXPECT_EQ(Commit(1).kind, Finished::kDone);
  EXPECT_EQ(Commit(2).kind, Finished::kDone) << "no false alarm: the history shows the vote";
  EXPECT_EQ(Balance(1), 99);
  EXPECT_EQ(Balance(2), 99);
  ASSERT_FALSE(Take(3, 3));
  ASSERT_TRUE(Prepared(3));
  EXPECT_EQ(evidence_[3].point.timeline, 2u);
  EXPECT_EQ(Commit(3).kind, Finished::kDone);
}

TEST_F(FailoverTrap, WithoutThePrepare) {
  AwaitReplay();
  standby_.Stop();
  ASSERT_FALSE(Take(1, 1));
  ASSERT_TRUE(Prepared(1));
  cluster_.Kill();
  standby_.Start();
  FailOver();
  const FinishResult result = Commit(1);
  EXPECT_EQ(result.kind, Finished::kHazard) << result.message;
  EXPECT_NE(result.message.find("failover"), std::string::npos) << result.message;
  EXPECT_EQ(Balance(1), 100);
}

// Regression: nothing but an answer, or a dead socket, ended the wait, and the GID was taken.
class SilentTrap : public FailoverTrap {
 protected:
  // Whichever of the two listens; as behind a proxy, what is open stays where it is.
  PostgresOptions Options() override {
    PostgresOptions options = FailoverTrap::Options();
    options.conninfo = "host=127.0.0.1,127.0.0.1 port=" + cluster_.Sql("SHOW port") + "," +
                       standby_.Sql("SHOW port") + " dbname=postgres user=postgres";
    return options;
  }
  void TearDown() override {
    FailoverTrap::TearDown();
    for (const int pid : silent_) kill(pid, SIGKILL);
  }
  // A server process stands still; who is connected to it sees nothing of that.
  void Silence(const std::string& statement) {
    silent_.push_back(std::stoi(cluster_.Sql(
        "SELECT pid FROM pg_stat_activity WHERE application_name = 'troth east' AND query LIKE '" +
        statement + "%'")));
    kill(silent_.back(), SIGSTOP);
  }
  // The listener alone is killed: of its children only those end that don't stand still.
  void FailOverLeavingConnections() {
    AwaitReplay();
    kill(std::stoi(cluster_.Sql("SELECT split_part(pg_read_file('postmaster.pid'), E'\\n', 1)")),
         SIGKILL);
    while (PQping(cluster_.conninfo().c_str()) == PQPING_OK) std::this_thread::yield();
    standby_.Promote();
    cluster_ = standby_;
  }
  std::vector<int> silent_;
};

TEST_F(SilentTrap, PhaseTwoLeavesASilentConnection) {
  for (const int t : {1, 2}) {
    ASSERT_FALSE(Take(t, t));
    ASSERT_TRUE(Prepared(t));
  }
  ASSERT_EQ(Commit(2).kind, Finished::kDone);
  Silence("COMMIT PREPARED");
  EXPECT_EQ(Finish(1, true, 1).kind, Finished::kWorking);
  FailOverLeavingConnections();
  ASSERT_FALSE(Take(3, 3)) << "the new primary is not met";
  const FinishResult result = Commit(1);
  EXPECT_EQ(result.kind, Finished::kDone) << result.message;
  EXPECT_EQ(Balance(1), 99);
}

TEST_F(SilentTrap, PrepareLeavesASilentConnection) {
  ASSERT_FALSE(Take(1, 1));
  Silence("UPDATE account");
  const PrepareRequest requests[] = {{Id(1), marks_[1], 1, milliseconds(10'000), instance_}};
  EXPECT_EQ(table_->Prepare(requests, milliseconds(50))[0].kind, Vote::Kind::kWorking);
  FailOverLeavingConnections();
  ASSERT_FALSE(Take(3, 3)) << "the new primary is not met";
  const Vote vote = Prepare(1);
  EXPECT_EQ(vote.kind, Vote::Kind::kRefused);
  EXPECT_EQ(vote.refusal.reason, Refused::kDatabaseUnavailable);
  EXPECT_EQ(Abort(1).kind, Finished::kDone);
}

TEST_F(SilentTrap, IdleConnectionsToItAreNotUsed) {
  for (const int t : {1, 2}) {
    ASSERT_FALSE(Take(t, t));
    ASSERT_TRUE(Prepared(t));
  }
  ASSERT_EQ(Commit(2).kind, Finished::kDone);
  ASSERT_TRUE(manager_->Look().ok());
  Silence("COMMIT PREPARED");
  Silence("SELECT pg_catalog.pg_current_wal_flush_lsn()");
  FailOverLeavingConnections();
  ASSERT_FALSE(Take(3, 3)) << "the new primary is not met";
  const FinishRequest requests[] = {{Id(1), true, evidence_[1], std::nullopt}};
  EXPECT_EQ(table_->Finish(requests, milliseconds(5'000))[0].kind, Finished::kDone);
  const Status looked = manager_->Look().status();
  EXPECT_TRUE(looked.ok()) << looked.ToString();
}

TEST_F(SilentTrap, IdleConnectionsOfThePoolToItAreNotUsed) {
  ASSERT_FALSE(Take(1, 1));
  ASSERT_TRUE(Prepared(1));
  Silence("RESET ALL");
  FailOverLeavingConnections();
  ASSERT_TRUE(manager_->Look().ok()) << "the new primary is not met";
  WorkRequest last;
  last.last = true;
  last.time_left = milliseconds(3'000);
  const auto refused = DoStatement(2, TakeSql(2), {}, 0, last);
  EXPECT_FALSE(refused) << refused->message;
}

// A hazard is for good: what passes must not make one.
TEST_F(FailoverTrap, AHistoryThatCannotBeReadNow) {
  ASSERT_FALSE(Take(1, 1));
  ASSERT_TRUE(Prepared(1));
  ASSERT_EQ(Commit(1).kind, Finished::kDone);
  AwaitReplay();
  FailOver();
  const std::filesystem::path history =
      cluster_.Sql("SHOW data_directory") + "/pg_wal/00000002.history";
  const std::filesystem::path away = history.string() + ".away";
  std::filesystem::rename(history, away);
  std::filesystem::create_directory(history);
  FinishResult result = Finish(1, true, 1);
  EXPECT_EQ(result.kind, Finished::kWorking) << result.message;
  std::filesystem::remove(history);
  result = Finish(1, true, 1);
  EXPECT_EQ(result.kind, Finished::kHazard) << result.message;
  std::filesystem::rename(away, history);
}

TEST_F(FailoverTrap, AStandbyIsRefused) {
  PostgresOptions options = Options();
  options.conninfo = standby_.conninfo();
  const auto opened = PostgresResourceManager::Open(options);
  ASSERT_FALSE(opened.ok());
  EXPECT_NE(opened.status().message().find("is a standby"), std::string::npos);
}

// Start-up: each refusal names the setting and the statement ---------------------------------

class StartUp : public TrapTest {
 protected:
  // Why a participant would not start on a server with these settings.
  std::string Refusal(const std::map<std::string, std::string>& settings,
                      const std::string& sql = "") {
    const PrivateCluster server =
        PrivateCluster::Make("startup" + std::to_string(++made), settings);
    if (!sql.empty()) server.Sql(sql);
    PostgresOptions options = Options();
    options.conninfo = server.conninfo("postgres", sql.empty() ? "postgres" : "teller");
    const auto opened = PostgresResourceManager::Open(options);
    return opened.ok() ? "" : opened.status().message();
  }
  static void Has(const std::string& text, const std::string& part) {
    EXPECT_NE(text.find(part), std::string::npos) << text;
  }
  static inline int made = 0;
};

TEST_F(StartUp, MaxPreparedTransactions) {
  Has(Refusal({{"max_prepared_transactions", "0"}}),
      "ALTER SYSTEM SET max_prepared_transactions = 50");
}
TEST_F(StartUp, Fsync) { Has(Refusal({{"fsync", "off"}}), "ALTER SYSTEM SET fsync = on"); }
// ... and comes back otherwise, or is set otherwise before more connections are made.
TEST_F(StartUp, FsyncTurnedOffLater) {
  Configure("fsync", "off");
  const std::optional<troth::Refusal> refused = Take(1, 1);
  Configure("fsync", "on");
  ASSERT_TRUE(refused);
  EXPECT_EQ(refused->reason, Refused::kDatabaseUnavailable);
  EXPECT_TRUE(refused->retryable);
  Has(refused->message, "ALTER SYSTEM SET fsync = on");
  EXPECT_FALSE(Take(1, 1));
}
// Regression: the connection that recovery lives on was refused too.
TEST_F(StartUp, RecoveryGoesOnAtAServerThatCameBackUnfit) {
  ASSERT_FALSE(Take(1, 1));
  ASSERT_TRUE(Prepared(1));
  Configure("full_page_writes", "off");
  cluster_.Kill();
  cluster_.Start();
  const Result<std::vector<PreparedBranch>> listed = manager_->ListPrepared("troth:east:");
  const Status looked = manager_->Look().status();
  const bool held = manager_->HoldSweep("east");
  const std::optional<troth::Refusal> refused = Take(2, 2);
  Configure("full_page_writes", "on");
  ASSERT_TRUE(listed.ok()) << listed.status().ToString();
  EXPECT_EQ(listed->size(), 1u);
  EXPECT_TRUE(looked.ok()) << looked.ToString();
  EXPECT_TRUE(held);
  ASSERT_TRUE(refused);
  Has(refused->message, "ALTER SYSTEM SET full_page_writes = on");
  EXPECT_EQ(Commit(1).kind, Finished::kDone);
}
TEST_F(StartUp, ReadOnlyByDefault) {
  cluster_.Sql("ALTER ROLE CURRENT_USER SET default_transaction_read_only = on");
  Restart();
  const Status noted = manager_->StoreSeen({"main-0123456789ab", 1, 1, 1});
  cluster_.Sql(
      "BEGIN READ WRITE; ALTER ROLE CURRENT_USER RESET default_transaction_read_only; COMMIT");
  EXPECT_TRUE(noted.ok()) << noted.ToString();
  cluster_.Sql("DELETE FROM troth_seen");
}
TEST_F(StartUp, FullPageWrites) {
  Has(Refusal({{"full_page_writes", "off"}}), "ALTER SYSTEM SET full_page_writes = on");
}
TEST_F(StartUp, SynchronousCommitOffWithStandbys) {
  Has(Refusal({{"synchronous_commit", "off"}, {"synchronous_standby_names", "other"}}),
      "ALTER SYSTEM SET synchronous_commit = on");
}
TEST_F(StartUp, RoleThatBecomesAnother) {
  Has(Refusal({},
              "CREATE ROLE clerk; CREATE ROLE teller LOGIN IN ROLE clerk; ALTER ROLE teller SET "
              "role = clerk"),
      "ALTER ROLE teller RESET role");
}
TEST_F(StartUp, RoleThatMayNotKeepNotes) {
  Has(Refusal({}, "CREATE ROLE teller LOGIN"), "GRANT SELECT, INSERT, UPDATE ON public.troth_seen");
}
TEST_F(StartUp, BranchesOfAnotherRole) {
  Has(Refusal({},
              "CREATE ROLE teller LOGIN; GRANT CREATE ON SCHEMA public TO teller; COMMIT; BEGIN;"
              "PREPARE TRANSACTION 'troth:east:main-0123456789ab.1-00000001.1'"),
      "Connect as postgres");
}

// The sweep ----------------------------------------------------------------------------------

TEST_F(PhaseTwo, SweepSettlesWhatARestartLeft) {
  for (int t = 1; t <= 3; ++t) {
    ASSERT_FALSE(Take(t, t));
    ASSERT_TRUE(Prepared(t));
  }
  const auto votes = evidence_;
  Restart();
  ASSERT_TRUE(manager_->HoldSweep("east"));
  {
    auto rival = PostgresResourceManager::Open(Options());
    EXPECT_FALSE((*rival)->HoldSweep("east")) << "one instance at a time";
  }
  Sweep sweep("east", manager_.get(), table_.get(), SystemClock());
  ASSERT_TRUE(sweep.Look().ok());
  std::this_thread::sleep_for(Sweep::kPatience);
  auto due = sweep.Look();
  ASSERT_TRUE(due.ok());
  ASSERT_EQ((*due).size(), 3u);
  std::vector<SweepAnswer> answers;
  for (const SweepInquiry& inquiry : *due) {
    SweepAnswer answer{inquiry, SweepAnswer::Verdict::kAbort, {}};
    if (inquiry.transaction_id == Id(1)) {
      answer.verdict = SweepAnswer::Verdict::kCommit;
      answer.evidence = votes.at(1);
    }
    answers.push_back(answer);
  }
  sweep.Settle(answers, milliseconds(2'000));
  EXPECT_EQ(PreparedCount(), 0);
  EXPECT_EQ(Balance(1), 99);
  EXPECT_EQ(Balance(2), 100);
  EXPECT_EQ(Balance(3), 100);
}

}  // namespace
}  // namespace troth
