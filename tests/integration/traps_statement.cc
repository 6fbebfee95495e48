// Traps of work that is one statement, sent together with the opening of its branch.
// docs/participants.md, "Connections".
#include <future>

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
