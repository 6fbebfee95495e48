// Traps of what a branch holds and how long: locks, the table's shape, dead rows, connections,
// deadlines. docs/traps.md lists them; docs/participants.md says what work may do.
#include <future>

#include "tests/integration/trap_fixture.h"

namespace troth {
namespace {

using std::chrono::steady_clock;

class BranchTrap : public TrapTest {
 protected:
  static WorkRequest Soon(int milliseconds_left) {
    WorkRequest request;
    request.time_left = milliseconds(milliseconds_left);
    return request;
  }
  // SQLSTATE of a statement on a connection of its own; empty: it worked.
  std::string StateOf(const std::string& sql) {
    pqxx::connection connection(cluster_.conninfo());
    pqxx::nontransaction tx(connection);
    try {
      tx.exec(sql);
      return "";
    } catch (const std::exception& e) {
      return RefusalOf(e).value_or(Refusal{}).sqlstate;
    }
  }
  // As the participant's own clock does, until no branch is open.
  void TickUntilNoneIsOpen() {
    for (int i = 0; i < 2000 && table_->Counts().active > 0; ++i) {
      table_->Tick();
      std::this_thread::sleep_for(milliseconds(5));
    }
    EXPECT_EQ(table_->Counts().active, 0u);
  }
};

// What shows no xid and is not read only -------------------------------------------------------

TEST_F(BranchTrap, LocksWithoutAnXidAreNoReadOnlyBranch) {
  const struct {
    const char* work;
    const char* held;  // by the prepared branch
  } cases[] = {
      {"LOCK TABLE account IN SHARE MODE",
       "SELECT EXISTS (SELECT FROM pg_locks WHERE relation = 'account'::regclass"
       " AND mode = 'ShareLock' AND pid IS NULL)"},
      {"SELECT pg_advisory_xact_lock(4713)",
       "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND objid = 4713"
       " AND pid IS NULL)"},
      {"SELECT FROM account WHERE id = 999 FOR SHARE",
       "SELECT EXISTS (SELECT FROM pg_locks WHERE relation = 'account'::regclass"
       " AND mode = 'RowShareLock' AND pid IS NULL)"},
  };
  int t = 0;
  for (const auto& c : cases) {
    ASSERT_FALSE(DoStatement(++t, c.work)) << c.work;
    EXPECT_TRUE(Prepared(t)) << c.work;
    EXPECT_EQ(cluster_.Sql(c.held), "t") << c.work;
    EXPECT_EQ(Commit(t).kind, Finished::kDone);
    EXPECT_EQ(cluster_.Sql(c.held), "f") << c.work;
  }
}

TEST_F(BranchTrap, CursorWithHoldOverAWritingFunction) {
  // It runs at the end of the block: a COMMIT would let its write slip out.
  cluster_.Sql(
      "CREATE OR REPLACE FUNCTION writes() RETURNS int LANGUAGE sql AS"
      " 'UPDATE account SET balance = 1 WHERE id = 4 RETURNING balance'");
  const std::string declare = "DECLARE held CURSOR WITH HOLD FOR SELECT writes()";
  WorkRequest read_only;
  read_only.read_only = true;
  ASSERT_FALSE(Do(
      1, [&](pqxx::dbtransaction& tx) { Exec(tx, declare); }, 0, read_only));
  EXPECT_EQ(Prepare(1).kind, Vote::Kind::kReadOnly);
  EXPECT_EQ(Balance(4), 100) << "a write slipped out of a read-only branch";
  ASSERT_FALSE(Do(2, [&](pqxx::dbtransaction& tx) { Exec(tx, declare); }));
  EXPECT_EQ(RefusedState(2), "0A000");
  EXPECT_EQ(Balance(4), 100);
}

// What others wait for -------------------------------------------------------------------------

TEST_F(BranchTrap, SchemaChangeWhileTheDecisionIsDelayed) {
  ASSERT_FALSE(Take(1, 1));
  ASSERT_TRUE(Prepared(1));
  EXPECT_EQ(StateOf("SET lock_timeout = 50; ALTER TABLE account ADD COLUMN later int"), "55P03");
  // One that is ready to wait makes all others wait, until their deadlines.
  std::thread change([&] { EXPECT_EQ(StateOf("ALTER TABLE account ADD COLUMN later int"), ""); });
  Await("SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'");
  const auto refusal = Do(
      2, [](pqxx::dbtransaction& tx) { Exec(tx, TakeSql(2)); }, 0, Soon(200));
  EXPECT_TRUE(refusal.has_value() && refusal->retryable);
  EXPECT_EQ(Commit(1).kind, Finished::kDone) << "phase two waits for no lock";
  change.join();
  EXPECT_EQ(Balance(1), 99);
  ASSERT_FALSE(Take(3, 2));
  ASSERT_TRUE(Prepared(3));
  EXPECT_EQ(Commit(3).kind, Finished::kDone);
}

TEST_F(BranchTrap, PreparedBranchHoldsBackVacuumAndIsSaid) {
  cluster_.Sql("CREATE EXTENSION IF NOT EXISTS pgstattuple");
  const auto dead_after_vacuum = [&] {
    cluster_.Sql("VACUUM account");
    return std::stoi(cluster_.Sql("SELECT dead_tuple_count FROM pgstattuple('account')"));
  };
  EXPECT_EQ(dead_after_vacuum(), 0);
  ASSERT_FALSE(Take(1, 1));
  ASSERT_TRUE(Prepared(1));
  Restart();  // nobody here looks after it any more
  cluster_.Sql("UPDATE account SET balance = balance WHERE id > 1");
  EXPECT_GT(dead_after_vacuum(), 0);
  Sweep sweep("east", manager_.get(), table_.get(), SystemClock());
  ASSERT_TRUE(sweep.Look().ok());
  EXPECT_EQ(sweep.counts().found, 1u);
  EXPECT_GT(sweep.counts().oldest.count(), 0) << "its age is what an operator is told";
  EXPECT_EQ(Commit(1).kind, Finished::kDone);
  EXPECT_EQ(dead_after_vacuum(), 0);
}

TEST_F(BranchTrap, StatementTimeoutDoesNotEndTheWaitForAStandby) {
  ASSERT_FALSE(Do(1, [](pqxx::dbtransaction& tx) {
    Exec(tx, "SET LOCAL statement_timeout = 50");
    Exec(tx, TakeSql(1));
  }));
  SetWaitForStandby(true);
  const PrepareRequest requests[] = {{Id(1), marks_[1], 1, milliseconds(10'000), instance_}};
  EXPECT_EQ(table_->Prepare(requests, milliseconds(300))[0].kind, Vote::Kind::kWorking);
  SetWaitForStandby(false);
  EXPECT_TRUE(Prepared(1));
  EXPECT_EQ(Commit(1).kind, Finished::kDone);
}

// Connections and limits -----------------------------------------------------------------------

TEST_F(BranchTrap, FirstWorkWaitsAMomentForAConnection) {
  bool served = false;
  int t = 0;
  for (int attempt = 0; attempt < 10 && !served; ++attempt) {  // a slow machine may need more
    const int first = t + 1;
    for (int account = 1; account <= 4; ++account) ASSERT_FALSE(Take(++t, account));
    std::thread giver([&] {
      // By then the other waits for a connection; nothing but time tells.
      std::this_thread::sleep_for(milliseconds(20));
      Abort(first);
    });
    served = !DoStatement(100 + attempt, "SELECT 1");
    giver.join();
    for (int i = first; i <= t; ++i) Abort(i);
    Abort(100 + attempt);
  }
  EXPECT_TRUE(served) << "a connection that came back at once was not taken";
}

TEST_F(BranchTrap, FirstWorkWaitsNoLongerThanAMoment) {
  for (int t = 1; t <= 4; ++t) ASSERT_FALSE(Take(t, t));
  auto shortest = steady_clock::duration::max();
  for (int attempt = 0; attempt < 5; ++attempt) {
    const auto began = steady_clock::now();
    ASSERT_EQ(Take(5, 5)->reason, Refused::kOverloaded);
    shortest = std::min(shortest, steady_clock::now() - began);
  }
  EXPECT_GE(shortest, milliseconds(95));
  EXPECT_LE(shortest, milliseconds(150));
}

TEST_F(BranchTrap, BoundOnBranchesInDoubtSaysWhich) {
  table_ = std::make_unique<BranchTable>(BranchTableOptions{"east", instance_, 2}, manager_.get(),
                                         SystemClock(), [this] { return ++drawn_; });
  ASSERT_FALSE(Take(1, 1));
  ASSERT_TRUE(Prepared(1));
  ASSERT_FALSE(Take(2, 2));
  const auto began = steady_clock::now();
  const auto refusal = Take(3, 3);
  EXPECT_GE(steady_clock::now() - began, milliseconds(95)) << "it waits for a place";
  ASSERT_TRUE(refusal.has_value());
  EXPECT_EQ(refusal->reason, Refused::kOverloaded);
  EXPECT_TRUE(refusal->retryable && refusal->unheard);
  EXPECT_EQ(table_->Counts().overloaded, 1u);
  EXPECT_NE(refusal->message.find("max_in_doubt = 2"), std::string::npos) << refusal->message;
  ASSERT_EQ(Commit(1).kind, Finished::kDone);
  EXPECT_FALSE(Take(3, 3)) << "the id is still unheard";
}

// Each of two places is handed on within the time that work waits for one, to whoever waits.
TEST_F(BranchTrap, FirstWorkWaitsAMomentForBranchesInDoubt) {
  table_ = std::make_unique<BranchTable>(BranchTableOptions{"east", instance_, 2}, manager_.get(),
                                         SystemClock(), [this] { return ++drawn_; });
  int waited = 0;
  for (int t = 1; t <= 40 && waited < 3; t += 4) {  // a slow machine may need more
    ASSERT_FALSE(Take(t, 1));
    ASSERT_FALSE(Take(t + 1, 2));
    ASSERT_TRUE(Prepared(t) && Prepared(t + 1));
    WorkRequest request;
    request.patience = milliseconds(100);
    request.time_left = milliseconds(10'000);
    std::vector<std::future<bool>> works;
    for (int i = 2; i <= 3; ++i) {
      request.transaction_id = Id(t + i);
      works.push_back(std::async(std::launch::async, [this, request] {
        const auto began = steady_clock::now();
        Granted<Work> work = table_->StartWork(request);
        const bool woken = steady_clock::now() - began < milliseconds(95);
        return work.ok() && table_->EndWork(*work, std::nullopt, false).ok() && woken;
      }));
    }
    for (const int prepared : {t, t + 1}) ASSERT_EQ(Commit(prepared).kind, Finished::kDone);
    const bool first = works[0].get();
    waited += first & works[1].get();
    for (const int opened : {t + 2, t + 3}) ASSERT_EQ(Abort(opened).kind, Finished::kDone);
  }
  EXPECT_EQ(waited, 3);
}

TEST_F(BranchTrap, ConnectionIsResetAfterARollbackToo) {
  // Four connections: one that is not clean is met by one of the next four.
  for (int t = 1; t <= 4; ++t) {
    ASSERT_FALSE(Do(t, [](pqxx::dbtransaction& tx) {
      Exec(tx, "SET work_mem = '77MB'; SET search_path = pg_temp; SET ROLE postgres");
      Exec(tx, "SELECT pg_advisory_lock(4714)");
      Exec(tx, "SELECT pg_advisory_unlock_all(); SELECT pg_advisory_lock_shared(4714)");
    }));
    ASSERT_EQ(Abort(t).kind, Finished::kDone);
  }
  Await("SELECT NOT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND objid = 4714)");
  for (int t = 5; t <= 8; ++t) {
    ASSERT_FALSE(DoStatement(t,
                             "SELECT current_setting('work_mem'), current_setting('role'),"
                             " current_setting('search_path')"));
    EXPECT_NE(answer_.rows[0][0], "77MB");
    EXPECT_EQ(answer_.rows[0][1], "none");
    EXPECT_NE(answer_.rows[0][2], "pg_temp");
  }
}

TEST_F(BranchTrap, StatementDeallocatedBehindOurBack) {
  // No command tag tells of it; whoever gets the connection next pays, and is told to repeat.
  ASSERT_FALSE(DoStatement(1, "SELECT 1"));
  ASSERT_EQ(Abort(1).kind, Finished::kDone);
  ASSERT_FALSE(Do(2, [](pqxx::dbtransaction& tx) {
    Exec(tx, "DO $$BEGIN EXECUTE 'DEALLOCATE troth_app_0'; END$$");
  }));
  ASSERT_EQ(Abort(2).kind, Finished::kDone);
  const auto refusal = DoStatement(3, "SELECT 1");
  ASSERT_TRUE(refusal.has_value()) << "the connection was not the same: the test tried nothing";
  EXPECT_EQ(refusal->sqlstate, "26000");
  EXPECT_TRUE(refusal->retryable);
  ASSERT_EQ(Abort(3).kind, Finished::kDone);
  EXPECT_FALSE(DoStatement(4, "SELECT 1"));
}

TEST_F(BranchTrap, OurOwnStatementsDeallocatedBehindOurBack) {
  int t = 0;
  for (const char* ours : {"troth_begin", "troth_limit", "troth_open"}) {
    for (const bool one_statement : {false, true}) {
      ASSERT_FALSE(Do(++t, [&](pqxx::dbtransaction& tx) {
        Exec(tx, std::string("DO $$BEGIN EXECUTE 'DEALLOCATE ") + ours + "'; END$$");
      }));
      ASSERT_EQ(Abort(t).kind, Finished::kDone);
      ++t;
      const auto refusal = one_statement ? DoStatement(t, "SELECT 1") : Take(t, 1);
      if (one_statement && refusal) {
        EXPECT_TRUE(refusal->retryable) << ours;
      } else {
        EXPECT_FALSE(refusal) << ours << ": " << refusal->message;
      }
      ASSERT_EQ(Abort(t).kind, Finished::kDone);
      EXPECT_FALSE(Take(++t, 1)) << ours << ": an unfit connection came back";
      ASSERT_EQ(Abort(t).kind, Finished::kDone);
    }
  }
}

// Deadlines, isolation, calls ------------------------------------------------------------------

TEST_F(BranchTrap, DeadlineReachesTheServer) {
  for (const bool one_statement : {false, true}) {
    const int t = one_statement ? 2 : 1;
    const std::string ask =
        "SELECT current_setting('lock_timeout')::interval,"
        " current_setting('idle_in_transaction_session_timeout')::interval";
    std::string lock, idle;
    if (one_statement) {
      ASSERT_FALSE(DoStatement(t, ask, {}, 0, Soon(7'000)));
      lock = answer_.rows[0][0].value_or("");
      idle = answer_.rows[0][1].value_or("");
    } else {
      ASSERT_FALSE(Do(
          t,
          [&](pqxx::dbtransaction& tx) {
            const pqxx::result rows = tx.exec(ask);
            lock = rows[0][0].c_str();
            idle = rows[0][1].c_str();
          },
          0, Soon(7'000)));
    }
    EXPECT_EQ(lock, "00:00:07");
    EXPECT_EQ(idle, "00:00:08") << "the server's own end comes a second after ours";
    ASSERT_EQ(Abort(t).kind, Finished::kDone);
  }
}

TEST_F(BranchTrap, ClientThatVanishes) {
  for (int t = 1; t <= 5; ++t) {  // more than there are connections
    ASSERT_FALSE(Do(
        t, [](pqxx::dbtransaction& tx) { Exec(tx, TakeSql(1)); }, 0, Soon(700)));
    TickUntilNoneIsOpen();
    EXPECT_EQ(Take(t, 2, 1)->reason, Refused::kEnded);
  }
  EXPECT_EQ(Balance(1), 100);
  EXPECT_EQ(StateOf("SET lock_timeout = 1000; " + TakeSql(1)), "") << "the row is free";
}

TEST_F(BranchTrap, ParticipantThatStandsStill) {
  // Nothing of ours runs: the server ends the block, a second after the deadline.
  ASSERT_FALSE(Do(
      1, [](pqxx::dbtransaction& tx) { Exec(tx, TakeSql(1)); }, 0, Soon(700)));
  EXPECT_EQ(StateOf("SET lock_timeout = '20s'; " + TakeSql(1)), "") << "the row is free";
  EXPECT_EQ(Balance(1), 99);
  const Vote vote = Prepare(1);
  EXPECT_EQ(vote.kind, Vote::Kind::kRefused);
  EXPECT_EQ(PreparedCount(), 0);
}

TEST_F(BranchTrap, IsolationIsOfTheTransaction) {
  const struct {
    Isolation asked;
    const char* got;
  } cases[] = {{Isolation::kDefault, "read committed"},
               {Isolation::kSerializable, "serializable"},
               {Isolation::kReadCommitted, "read committed"},
               {Isolation::kRepeatableRead, "repeatable read"},
               {Isolation::kDefault, "read committed"}};
  int t = 0;
  for (const auto& c : cases) {
    for (const bool read_only : {false, true}) {
      WorkRequest request;
      request.isolation = c.asked;
      request.read_only = read_only;
      ASSERT_FALSE(DoStatement(++t, "SHOW transaction_isolation", {}, 0, request));
      EXPECT_EQ(answer_.rows[0][0], c.got);
      EXPECT_EQ(Prepare(t).kind, read_only ? Vote::Kind::kReadOnly : Vote::Kind::kPrepared);
      if (!read_only) {
        EXPECT_EQ(Commit(t).kind, Finished::kDone);
      }
    }
  }
}

TEST_F(BranchTrap, SeveralCallsToOneBranch) {
  for (int work = 0; work < 5; ++work) ASSERT_FALSE(Take(1, 1, work));
  const int done = std::exchange(works_[1], 4);
  EXPECT_EQ(Prepare(1).kind, Vote::Kind::kRefused) << "one call less was named";
  EXPECT_EQ(Balance(1), 100);
  for (int work = 0; work < done; ++work) ASSERT_FALSE(Take(2, 1, work));
  ASSERT_TRUE(Prepared(2));
  EXPECT_EQ(Commit(2).kind, Finished::kDone);
  EXPECT_EQ(Balance(1), 95);
}

TEST_F(BranchTrap, SecondCallWhileOneIsUnderWay) {
  ASSERT_FALSE(Take(1, 1));
  std::promise<void> begun, refused;
  std::thread first([&] {
    EXPECT_FALSE(Do(
        1,
        [&](pqxx::dbtransaction& tx) {
          begun.set_value();
          refused.get_future().wait();
          Exec(tx, TakeSql(1));
        },
        1));
  });
  begun.get_future().wait();
  for (const int work : {1, 2}) {
    const auto refusal = Take(1, 2, work);
    EXPECT_TRUE(refusal.has_value() && refusal->reason == Refused::kOutOfNumber) << work;
  }
  refused.set_value();
  first.join();
  ASSERT_TRUE(Prepared(1)) << "the refused calls changed nothing";
  EXPECT_EQ(Commit(1).kind, Finished::kDone);
  EXPECT_EQ(Balance(1), 98);
  EXPECT_EQ(Balance(2), 100);
}

TEST_F(BranchTrap, WorkAfterAnErrorIsRefusedUntilAborted) {
  ASSERT_FALSE(Take(1, 1));
  ASSERT_TRUE(DoStatement(1, "SELECT 1/0", {}, 1));
  for (const int work : {1, 2}) EXPECT_EQ(Take(1, 2, work)->reason, Refused::kEnded);
  EXPECT_EQ(StateOf("SET lock_timeout = 1000; " + TakeSql(1)), "") << "rolled back at once";
  EXPECT_EQ(Abort(1).kind, Finished::kDone);
  EXPECT_EQ(Balance(2), 100);
}

}  // namespace
}  // namespace troth
