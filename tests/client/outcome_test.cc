// How transactions end for the client library, against a scripted coordinator and scripted
// branches: honest outcomes, leases, forks, and the repeating of whole transactions.
#include <future>
#include <set>
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include "client/boot_time.h"
#include "tests/client/client_fixture.h"

namespace troth {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::SizeIs;
using Kind = Outcome::Kind;

// How many of five rounds take as long as the limit: the machine may hold one up.
template <typename Round>
int LateRounds(std::int64_t limit_ms, const Round& round) {
  int late = 0;
  for (int i = 0; i < 5; ++i) {
    const std::int64_t began_ms = BootMs();
    round();
    if (BootMs() - began_ms >= limit_ms) ++late;
  }
  return late;
}

// ---- Honest outcomes.

TEST_F(ClientTest, RepeatsACommitWhoseReplyWasLost) {
  std::vector<std::string> asked;
  coordinator_.commit = [&](wire::Outcome& reply, const wire::CommitRequest& request) {
    asked.push_back(request.transaction_id);
    if (asked.size() < 3) throw LoseReply();
    reply.kind = wire::OutcomeKind::COMMITTED;
    reply.transaction_id = request.transaction_id;
  };
  Result<Transaction> tx = client_->Begin();
  ASSERT_TRUE(Apply(*tx, "east").ok());
  EXPECT_EQ(tx->Commit().kind, Kind::kCommitted);
  EXPECT_THAT(asked, ElementsAre(tx->id(), tx->id(), tx->id()));
}

TEST_F(ClientTest, UnknownNamesTheIdWhenNobodyAnswers) {
  coordinator_.commit = [](auto&, const auto&) -> void { throw LoseReply(); };
  TransactionOptions options;
  options.deadline_ms = 400;
  ASSERT_TRUE(ApplyOnce(client_->Begin(), "east").ok());  // connected
  const auto round = [&] {
    coordinator_.commits = 0;
    Result<Transaction> tx = client_->Begin(options);
    ASSERT_TRUE(Apply(*tx, "east").ok());
    const Outcome outcome = tx->Commit();
    EXPECT_EQ(outcome.kind, Kind::kUnknown);
    EXPECT_EQ(outcome.transaction_id, tx->id());
    EXPECT_THAT(outcome.ToString(), HasSubstr(tx->id()));
    EXPECT_GT(coordinator_.commits, 1);
  };
  EXPECT_LE(LateRounds(1'500, round), 1);
}

TEST_F(ClientTest, UnknownWhenACoordinatorThatHeardIsGoneUntilTheDeadline) {
  std::promise<void> heard;
  coordinator_.commit = [&](auto&, const auto&) -> void {
    if (coordinator_.commits == 1) heard.set_value();
    throw LoseReply();
  };
  TransactionOptions options;
  options.deadline_ms = 500;
  Result<Transaction> tx = client_->Begin(options);
  ASSERT_TRUE(Apply(*tx, "east").ok());
  std::thread stop([&] {
    heard.get_future().wait();
    StopCoordinator();
  });
  const Outcome outcome = tx->Commit();
  stop.join();
  EXPECT_EQ(outcome.kind, Kind::kUnknown);
  EXPECT_EQ(outcome.transaction_id, tx->id());
}

TEST_F(ClientTest, AbortedWhenNoCommitCouldBeSentUntilTheDeadline) {
  TransactionOptions options;
  options.deadline_ms = 500;
  Result<Transaction> tx = client_->Begin(options);
  ASSERT_TRUE(Apply(*tx, "east").ok());
  StopCoordinator();
  const std::int64_t began_ms = BootMs();
  const Outcome outcome = tx->Commit();
  EXPECT_EQ(outcome.kind, Kind::kAborted) << outcome.ToString();
  EXPECT_EQ(outcome.failure.reason, wire::Reason::NOT_SERVING);
  EXPECT_TRUE(outcome.failure.retryable);
  EXPECT_EQ(outcome.transaction_id, tx->id());
  EXPECT_EQ(coordinator_.commits, 0);
  EXPECT_GE(BootMs() - began_ms, 350);
}

TEST_F(ClientTest, ACoordinatorThatComesBackWithinTheDeadlineAnswers) {
  Result<Transaction> tx = client_->Begin();
  ASSERT_TRUE(Apply(*tx, "east").ok());
  StopCoordinator();
  std::thread restart([&] {
    usleep(200'000);
    StartCoordinator();
  });
  EXPECT_EQ(tx->Commit().kind, Kind::kCommitted);
  restart.join();
}

TEST_F(ClientTest, ARefusalAfterALostReplyIsNoAbort) {
  // The first call committed; the second is refused on some ground of its own.
  coordinator_.commit = [&](auto&, const auto&) -> void {
    if (coordinator_.commits == 1) throw LoseReply();
    throw MakeRefused(wire::Reason::NOT_LEASED, "its lease is over");
  };
  coordinator_.outcome = [&](wire::Outcome& reply, const std::string& id, std::int64_t) {
    reply.kind = wire::OutcomeKind::COMMITTED;
    reply.transaction_id = id;
  };
  Result<Transaction> tx = client_->Begin();
  ASSERT_TRUE(Apply(*tx, "east").ok());
  EXPECT_EQ(tx->Commit().kind, Kind::kCommitted);
  EXPECT_EQ(coordinator_.outcomes, 1);
}

// A coordinator that stops breaks calls off; its record may be durable, and the next life may
// refuse for a while (found in review: the stop was told as a refusal, and read as an abort).
TEST_F(ClientTest, ACommitBrokenOffByAStopIsNoAbort) {
  coordinator_.commit = [&](wire::Outcome&, const wire::CommitRequest&) {
    if (coordinator_.commits == 1) throw apache::thrift::TException("the coordinator stops");
    throw MakeRefused(wire::Reason::NOT_SERVING, "the coordinator is opening its log", true);
  };
  TransactionOptions options;
  options.deadline_ms = 300;
  Result<Transaction> tx = client_->Begin(options);
  ASSERT_TRUE(Apply(*tx, "east").ok());
  const Outcome outcome = tx->Commit();
  EXPECT_EQ(outcome.kind, Kind::kUnknown) << outcome.ToString();
  EXPECT_GE(coordinator_.commits, 2);
  EXPECT_EQ(coordinator_.aborts, 0);
}

TEST_F(ClientTest, NotMineAfterALostReplyIsUnknown) {
  coordinator_.commit = [&](auto&, const auto&) -> void {
    if (coordinator_.commits == 1) throw LoseReply();
    throw MakeRefused(wire::Reason::NOT_MINE, "another log");
  };
  coordinator_.outcome = [](auto&, const auto&, auto) -> void {
    throw MakeRefused(wire::Reason::NOT_MINE, "another log");
  };
  Result<Transaction> tx = client_->Begin();
  ASSERT_TRUE(Apply(*tx, "east").ok());
  EXPECT_EQ(tx->Commit().kind, Kind::kUnknown);
}

TEST_F(ClientTest, ARefusedFirstCommitIsAborted) {
  coordinator_.commit = [](auto&, const auto&) -> void {
    throw MakeRefused(wire::Reason::KEY_TAKEN, "order-7 belongs to another transaction");
  };
  Result<Transaction> tx = client_->Begin();
  ASSERT_TRUE(Apply(*tx, "east").ok());
  const Outcome outcome = tx->Commit();
  EXPECT_EQ(outcome.kind, Kind::kAborted);
  EXPECT_EQ(outcome.failure.reason, wire::Reason::KEY_TAKEN);
  EXPECT_EQ(coordinator_.aborts, 1) << "the branches are released";
}

TEST_F(ClientTest, WaitsOutAnOverloadedCoordinator) {
  coordinator_.commit = [&](wire::Outcome& reply, const wire::CommitRequest&) {
    if (coordinator_.commits < 4) throw MakeRefused(wire::Reason::OVERLOADED, "full", true);
    reply.kind = wire::OutcomeKind::COMMITTED;
  };
  Result<Transaction> tx = client_->Begin();
  ASSERT_TRUE(Apply(*tx, "east").ok());
  EXPECT_EQ(tx->Commit().kind, Kind::kCommitted);
}

TEST_F(ClientTest, OverloadedUntilTheDeadlineIsAborted) {
  coordinator_.commit = [](auto&, const auto&) -> void {
    throw MakeRefused(wire::Reason::OVERLOADED, "full", true);
  };
  TransactionOptions options;
  options.deadline_ms = 300;
  Result<Transaction> tx = client_->Begin(options);
  ASSERT_TRUE(Apply(*tx, "east").ok());
  const Outcome outcome = tx->Commit();
  EXPECT_EQ(outcome.kind, Kind::kAborted) << "each call said: nothing was done";
  EXPECT_TRUE(outcome.failure.retryable);
}

TEST_F(ClientTest, NoCommitIsAskedForAfterTheDeadline) {
  ASSERT_TRUE(ApplyOnce(client_->Begin(), "east").ok());  // what connecting takes is not its matter
  TransactionOptions options;
  options.deadline_ms = 1'000;
  Result<Transaction> tx = client_->Begin(options);
  ASSERT_TRUE(Apply(*tx, "east").ok());
  while (tx->left_ms() > 0) usleep(1000);
  EXPECT_EQ(tx->Commit().kind, Kind::kAborted);
  EXPECT_EQ(coordinator_.commits, 0);
}

TEST_F(ClientTest, TheDestructorAborts) {
  {
    Result<Transaction> tx = client_->Begin();
    ASSERT_TRUE(Apply(*tx, "east").ok());
  }
  EXPECT_EQ(coordinator_.aborts, 1);
}

TEST_F(ClientTest, AskOutcomeTellsPendingAndNotMine) {
  Result<Outcome> pending = client_->AskOutcome("main-0123456789ab.1-00000007.5", 100);
  ASSERT_TRUE(pending.ok());
  EXPECT_EQ(pending->kind, Kind::kPending);
  coordinator_.outcome = [](auto&, const auto&, auto) -> void {
    throw MakeRefused(wire::Reason::NOT_MINE, "another log");
  };
  EXPECT_EQ(client_->AskOutcome("x", 100).status().code(), Code::kRefused);
}

// ---- Leases.

TEST_F(ClientTest, ADeadlineLongerThanALeaseIsInvalid) {
  coordinator_.lease_ms = 2000;
  TransactionOptions options;
  options.deadline_ms = 3000;
  EXPECT_EQ(client_->Begin(options).status().code(), Code::kInvalid);
  options.deadline_ms = 2000;
  EXPECT_TRUE(client_->Begin(options).ok());
  options.deadline_ms = 0;
  EXPECT_EQ(client_->Begin(options).status().code(), Code::kInvalid);
}

TEST_F(ClientTest, AnIdWhoseLeaseEndsBeforeTheDeadlineIsNotUsed) {
  coordinator_.lease_ms = 1000;
  TransactionOptions options;
  options.deadline_ms = 900;
  ASSERT_TRUE(client_->Begin(options).ok());
  EXPECT_EQ(coordinator_.leases, 1);
  usleep(200'000);  // now the block ends before a deadline 900 ms ahead
  ASSERT_TRUE(client_->Begin(options).ok());
  EXPECT_EQ(coordinator_.leases, 2);
}

TEST_F(ClientTest, IdsOfAnEndedLifeAreDropped) {
  Result<Transaction> before = client_->Begin();
  ASSERT_THAT(before->id(), HasSubstr(".1-"));
  ASSERT_TRUE(Apply(*before, "east").ok());
  StopCoordinator();
  ++coordinator_.sender.epoch;
  StartCoordinator();
  before->Commit();  // meets the new life
  Result<Transaction> after = client_->Begin();
  EXPECT_THAT(after->id(), HasSubstr(".2-"));
}

TEST_F(ClientTest, BeginSaysThatNothingWasBegun) {
  StopCoordinator();
  TransactionOptions options;
  options.deadline_ms = 200;
  const Result<Transaction> tx = client_->Begin(options);
  EXPECT_EQ(tx.status().code(), Code::kUnavailable);
  EXPECT_THAT(tx.status().message(), HasSubstr("nothing was begun"));
}

TEST_F(ClientTest, AForkedChildSharesNothing) {
  Result<Transaction> tx = client_->Begin();
  ASSERT_TRUE(Apply(*tx, "east").ok());
  const std::string parents_id = tx->id();
  int pipe_fds[2];
  ASSERT_EQ(pipe(pipe_fds), 0);
  const pid_t child = fork();
  if (child == 0) {
    std::string told;
    if (Apply(*tx, "east").ok()) told += "worked-in-parents;";
    if (tx->Commit().kind != Kind::kUnknown) told += "committed-parents;";
    Result<Transaction> own = client_->Begin();
    told += own.ok() ? own->id() : own.status().ToString();
    if (own.ok() && Apply(*own, "east").ok() && own->Commit().committed()) told += ";committed";
    (void)!write(pipe_fds[1], told.data(), told.size());
    tx = std::move(own);  // the parent's copy is destroyed here: no abort may leave
    client_.reset();
    _exit(0);
  }
  close(pipe_fds[1]);
  std::string told;
  char buffer[256];
  for (ssize_t n; (n = read(pipe_fds[0], buffer, sizeof buffer)) > 0;) told.append(buffer, n);
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  ASSERT_EQ(status, 0) << told;
  EXPECT_THAT(told, ::testing::EndsWith(";committed"));
  EXPECT_THAT(told, ::testing::Not(HasSubstr("parents")));
  EXPECT_EQ(coordinator_.leases, 2) << "the child leased for itself";
  EXPECT_EQ(told.find(parents_id + ";"), std::string::npos);
  EXPECT_EQ(coordinator_.aborts, 0);
  EXPECT_TRUE(tx->Commit().committed()) << "the parent's connections still work";
}

// ---- Repeating the whole transaction.

TEST_F(ClientTest, RunTransactionRepeatsUnderNewIds) {
  std::set<std::string> ids;
  coordinator_.commit = [&](wire::Outcome& reply, const wire::CommitRequest& request) {
    ids.insert(request.transaction_id);
    reply.kind = ids.size() < 3 ? wire::OutcomeKind::ABORTED : wire::OutcomeKind::COMMITTED;
    reply.transaction_id = request.transaction_id;
    reply.__set_retryable(true);
    reply.__set_reason(wire::Reason::CONFLICT);
  };
  const Outcome outcome =
      RunTransaction(*client_, {}, [](Transaction& tx) { return Apply(tx, "east"); });
  EXPECT_TRUE(outcome.committed());
  EXPECT_THAT(ids, SizeIs(3));
}

TEST_F(ClientTest, RunTransactionDoesNotRepeatWhatWillNotPass) {
  int runs = 0;
  east_.apply = [](auto&, const auto&) -> void {
    throw MakeRefused(wire::Reason::APPLICATION, "insufficient funds");
  };
  Outcome outcome = RunTransaction(*client_, {}, [&](Transaction& tx) {
    ++runs;
    return Apply(tx, "east");
  });
  EXPECT_EQ(outcome.kind, Kind::kAborted);
  EXPECT_EQ(runs, 1);
  outcome = RunTransaction(*client_, {}, [&](Transaction&) {
    ++runs;
    return Status(Code::kInvalid, "the body's own");
  });
  EXPECT_EQ(outcome.failure.message, "the body's own");
  EXPECT_EQ(runs, 2);
}

TEST_F(ClientTest, ABodyMayEndItsTransaction) {
  const auto run = [&](const std::function<Status(Transaction&)>& end) {
    return RunTransaction(*client_, {}, [&](Transaction& tx) {
      Status done = Apply(tx, "east");
      if (done.ok()) done = end(tx);
      return done;
    });
  };
  const Status own(Code::kInvalid, "the body's own");
  Outcome outcome = run([&](Transaction& tx) { return tx.Commit().ok() ? OkStatus() : own; });
  EXPECT_EQ(outcome.kind, Kind::kCommitted);
  outcome = run([&](Transaction& tx) { return tx.Commit().ok() ? own : OkStatus(); });
  EXPECT_EQ(outcome.kind, Kind::kCommitted) << "whatever the body says afterwards";
  EXPECT_EQ(coordinator_.commits, 2);
  outcome = run([](Transaction& tx) {
    tx.Abort();
    return OkStatus();
  });
  EXPECT_EQ(outcome.kind, Kind::kAborted);
  EXPECT_FALSE(outcome.failure.retryable);
  EXPECT_EQ(coordinator_.commits, 2);

  // As one does it whose work failed: repeated as if the body had left the end to us.
  east_.apply = [&](bank::ApplyReply& reply, const wire::Context& context) {
    if (east_.applies == 4) throw MakeRefused(wire::Reason::CONFLICT, "deadlock", true);
    east_.Answer(reply, context);
  };
  outcome = RunTransaction(*client_, {}, [](Transaction& tx) {
    Status done = Apply(tx, "east");
    if (!done.ok()) tx.Abort();
    return done;
  });
  EXPECT_EQ(outcome.kind, Kind::kCommitted);
  EXPECT_EQ(east_.applies, 5);
}

// The body tells of the abort in words of its own: it is its transaction's still.
TEST_F(ClientTest, ABodysCommitThatWasAbortedIsRepeated) {
  coordinator_.commit = [&](wire::Outcome& reply, const wire::CommitRequest& request) {
    reply.transaction_id = request.transaction_id;
    reply.kind =
        coordinator_.commits < 3 ? wire::OutcomeKind::ABORTED : wire::OutcomeKind::COMMITTED;
    reply.__set_retryable(coordinator_.commits < 2);
    reply.__set_reason(wire::Reason::CONFLICT);
    reply.__set_participant("east");
    reply.__set_message("a deadlock");
  };
  const Outcome outcome = RunTransaction(*client_, {}, [](Transaction& tx) {
    const Status done = Apply(tx, "east");
    if (!done.ok() || tx.Commit().ok()) return done;
    return Status(Code::kInvalid, "no commit");
  });
  EXPECT_EQ(coordinator_.commits, 2);
  EXPECT_EQ(outcome.kind, Kind::kAborted);
  EXPECT_EQ(outcome.failure.message, "a deadlock");
}

// An error in the service's code comes again: nothing is gained by repeating it.
TEST_F(ClientTest, WhatAServiceCannotHandleIsNotRepeated) {
  east_.apply = [](auto&, const auto&) -> void {
    throw std::runtime_error("a bug of the service");
  };
  const Outcome outcome =
      RunTransaction(*client_, {}, [](Transaction& tx) { return Apply(tx, "east"); });
  EXPECT_EQ(outcome.kind, Kind::kAborted);
  EXPECT_EQ(outcome.failure.reason, wire::Reason::APPLICATION);
  EXPECT_THAT(outcome.failure.message, HasSubstr("could not handle the call"));
  EXPECT_EQ(east_.applies, 1);
}

// Two callers with one id: what is committed is the other's list, which says nothing of our work.
TEST_F(ClientTest, TheOutcomeOfAnotherListIsNotOurs) {
  coordinator_.commit = [](auto&, const auto&) -> void {
    throw MakeRefused(wire::Reason::OTHER_PARTICIPANTS, "bound to another list");
  };
  wire::OutcomeKind::type kind = wire::OutcomeKind::COMMITTED;
  coordinator_.outcome = [&](wire::Outcome& reply, const auto& id, auto) {
    reply.kind = kind;
    reply.transaction_id = id;
  };
  const auto end = [&] {
    Result<Transaction> tx = client_->Begin();
    EXPECT_TRUE(Apply(*tx, "east").ok());
    return tx->Commit();
  };
  const Outcome outcome = end();
  EXPECT_EQ(outcome.kind, Kind::kUnknown);
  EXPECT_THAT(outcome.ToString(), HasSubstr("another list of participants"));
  kind = wire::OutcomeKind::ABORTED;
  EXPECT_EQ(end().kind, Kind::kAborted) << "nothing commits under this id";
}

TEST_F(ClientTest, RunTransactionNeverRepeatsTheUnknown) {
  coordinator_.commit = [](auto&, const auto&) -> void { throw LoseReply(); };
  int runs = 0;
  TransactionOptions options;
  options.deadline_ms = 200;
  const Outcome outcome = RunTransaction(*client_, options, [&](Transaction& tx) {
    ++runs;
    return Apply(tx, "east");
  });
  EXPECT_EQ(outcome.kind, Kind::kUnknown);
  EXPECT_EQ(runs, 1);
}

// Found in review: the reason got lost on its way, and load was taken for a coordinator that is
// away.
TEST_F(ClientTest, RunTransactionTellsWhyNothingWasBegun) {
  wire::Refused refused = MakeRefused(wire::Reason::FORBIDDEN, "not for 'shop'");
  coordinator_.lease = [&](auto&, auto) -> void { throw refused; };
  const auto body = [](Transaction&) { return OkStatus(); };
  TransactionOptions options;
  options.deadline_ms = 100;
  RetryOptions retry;
  retry.first_overloaded_backoff_ms = retry.max_overloaded_backoff_ms = 1'000'000'000'000;
  const auto run = [&] { return RunTransaction(*client_, options, body, Wait::kApplied, retry); };
  Outcome outcome = run();
  EXPECT_EQ(outcome.kind, Kind::kAborted);
  EXPECT_EQ(outcome.failure.reason, wire::Reason::FORBIDDEN);
  EXPECT_FALSE(outcome.failure.retryable);
  EXPECT_EQ(coordinator_.leases, 1);

  refused = MakeRefused(wire::Reason::OVERLOADED, "full", true);
  const std::int64_t began_ms = BootMs();
  outcome = run();
  EXPECT_EQ(outcome.failure.reason, wire::Reason::OVERLOADED);
  EXPECT_TRUE(outcome.failure.retryable);
  EXPECT_LT(BootMs() - began_ms, retry.total_ms / 2) << "no time is left behind such a pause";

  Failure why;
  EXPECT_EQ(client_->Begin(options, &why).status().code(), Code::kOverloaded);
  EXPECT_EQ(why.reason, wire::Reason::OVERLOADED);
}

TEST_F(ClientTest, RunTransactionStopsAtItsTotal) {
  int runs = 0;
  east_.apply = [&](auto&, const auto&) -> void {
    ++runs;
    throw MakeRefused(wire::Reason::CONFLICT, "deadlock", true);
  };
  RetryOptions retry;
  retry.total_ms = 200;
  const auto round = [&] {
    runs = 0;
    const Outcome outcome = RunTransaction(
        *client_, {}, [](Transaction& tx) { return Apply(tx, "east"); }, Wait::kApplied, retry);
    EXPECT_EQ(outcome.kind, Kind::kAborted);
  };
  EXPECT_LE(LateRounds(1'000, round), 1);
  EXPECT_GT(runs, 1);
  EXPECT_LT(runs, 40) << "it does not back off";
}

TEST_F(ClientTest, RepeatsWhatWasRefusedForLoadAtAPaceOfItsOwn) {
  wire::Reason::type reason = wire::Reason::CONFLICT;
  east_.apply = [&](bank::ApplyReply& reply, const wire::Context& context) {
    if (east_.applies % 3 != 0) throw MakeRefused(reason, "later", true);
    east_.Answer(reply, context);
  };
  RetryOptions retry;
  retry.first_backoff_ms = 1;
  retry.first_overloaded_backoff_ms = retry.max_overloaded_backoff_ms = 1'000'000'000'000;
  const auto run = [&] {
    return RunTransaction(
        *client_, {}, [&](Transaction& tx) { return Apply(tx, "east"); }, Wait::kApplied, retry);
  };
  EXPECT_EQ(run().kind, Kind::kCommitted);
  EXPECT_EQ(east_.applies, 3);
  reason = wire::Reason::OVERLOADED;
  EXPECT_EQ(run().kind, Kind::kAborted) << "no time is left behind such a pause";
  EXPECT_EQ(east_.applies, 4);
}

}  // namespace
}  // namespace troth
