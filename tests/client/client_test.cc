// The client library against a scripted coordinator and scripted branches: numbered work,
// leases, lost replies, honest outcomes, forks.
#include "client/client.h"

#include <chrono>
#include <condition_variable>
#include <set>
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include "client/boot_time.h"
#include "tests/client/fake_services.h"

namespace troth {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::SizeIs;
using Kind = Outcome::Kind;

wire::Refused MakeRefused(wire::Reason::type reason, const std::string& message,
                          bool retryable = false) {
  wire::Refused refused;
  refused.reason = reason;
  refused.message = message;
  refused.retryable = retryable;
  return refused;
}

// A place to wait at until another thread opens it.
class Gate {
 public:
  void Open() {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      open_ = true;
    }
    opened_.notify_all();
  }
  void Pass() {
    std::unique_lock<std::mutex> lock(mutex_);
    opened_.wait(lock, [&] { return open_; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable opened_;
  bool open_ = false;
};

class ClientTest : public ::testing::Test {
 protected:
  ClientTest() : east_("east"), west_("west") {
    east_server_ = std::make_unique<FakeServer>(MakeFakeBranch(&east_));
    west_server_ = std::make_unique<FakeServer>(MakeFakeBranch(&west_));
    coordinator_.resolve = [this](auto& reply, const auto& names) {
      for (const std::string& name : names) {
        if (name == "east") reply.push_back(Place(east_, *east_server_));
        if (name == "west") reply.push_back(Place(west_, *west_server_));
      }
    };
    coordinator_server_ = std::make_unique<FakeServer>(MakeFakeCoordinator(&coordinator_));
    port_ = coordinator_server_->port();
    client_ = MakeClient();
  }

  std::unique_ptr<Client> MakeClient() {
    ClientOptions options;
    options.coordinators = {Address{"127.0.0.1", port_}};
    options.connect_timeout_ms = 500;
    options.grace_ms = 100;
    return std::make_unique<Client>(options);
  }

  static wire::ParticipantAddress Place(const BranchScript& branch, const FakeServer& server) {
    wire::ParticipantAddress place;
    place.participant = branch.name;
    place.instance = branch.instance;
    place.host = "127.0.0.1";
    place.port = server.port();
    place.up = true;
    return place;
  }

  void StopCoordinator() { coordinator_server_.reset(); }
  void StartCoordinator() {
    coordinator_server_ = std::make_unique<FakeServer>(MakeFakeCoordinator(&coordinator_), port_);
  }

  static Status Apply(Transaction& tx, const std::string& bank, const WorkOptions& options = {}) {
    return tx.Work<bank::BankBranchClient>(
        bank,
        [](bank::BankBranchClient& branch, const wire::Context& context) {
          bank::ApplyReply reply;
          branch.apply(reply, context, {}, "");
          return reply.branch;
        },
        options);
  }

  // In a transaction that is aborted at once.
  static Status ApplyOnce(Result<Transaction> tx, const std::string& bank) {
    return Apply(*tx, bank);
  }

  CoordinatorScript coordinator_;
  BranchScript east_, west_;
  std::unique_ptr<FakeServer> coordinator_server_, east_server_, west_server_;
  int port_ = 0;
  std::unique_ptr<Client> client_;
};

// ---- Work and commit.

TEST_F(ClientTest, NumbersWorkPerBranchAndNamesAllInCommit) {
  wire::CommitRequest asked;
  coordinator_.commit = [&](wire::Outcome& reply, const wire::CommitRequest& request) {
    asked = request;
    reply.kind = wire::OutcomeKind::COMMITTED;
    reply.transaction_id = request.transaction_id;
  };
  TransactionOptions options;
  options.isolation = wire::Isolation::SERIALIZABLE;
  options.key = "order-7";
  Result<Transaction> tx = client_->Begin(options);
  ASSERT_TRUE(tx.ok()) << tx.status().ToString();
  ASSERT_TRUE(Apply(*tx, "east").ok());
  ASSERT_TRUE(Apply(*tx, "west").ok());
  ASSERT_TRUE(Apply(*tx, "east").ok());
  const Outcome outcome = tx->Commit();
  EXPECT_EQ(outcome.kind, Kind::kCommitted) << outcome.ToString();
  EXPECT_EQ(outcome.transaction_id, tx->id());

  ASSERT_THAT(east_.contexts, SizeIs(2));
  const wire::Context &first = east_.contexts[0], &second = east_.contexts[1];
  EXPECT_EQ(first.transaction_id, tx->id());
  EXPECT_EQ(first.work, 0);
  EXPECT_FALSE(first.__isset.mark);
  EXPECT_EQ(first.isolation, wire::Isolation::SERIALIZABLE);
  EXPECT_GT(first.deadline_ms, 4000);
  EXPECT_LE(first.deadline_ms, 5000);
  EXPECT_EQ(second.work, 1);
  EXPECT_EQ(second.mark, "m-east");
  EXPECT_FALSE(second.__isset.isolation);

  ASSERT_THAT(asked.branches, SizeIs(2));
  EXPECT_EQ(asked.branches[0].participant, "east");
  EXPECT_EQ(asked.branches[0].works, 2);
  EXPECT_EQ(asked.branches[0].mark, "m-east");
  EXPECT_EQ(asked.branches[0].instance, "i1");
  EXPECT_EQ(asked.branches[1].participant, "west");
  EXPECT_EQ(asked.branches[1].works, 1);
  EXPECT_EQ(asked.wait, wire::Wait::APPLIED);
  EXPECT_EQ(asked.key, "order-7");
  EXPECT_EQ(coordinator_.aborts, 0);
}

TEST_F(ClientTest, TellsWhereTheTimeOfASlowTransactionWent) {
  std::vector<std::string> lines;
  ClientOptions options;
  options.coordinators = {Address{"127.0.0.1", port_}};
  options.on_slow = [&](const std::string& line) { lines.push_back(line); };
  options.slow_ms = 3'000;
  static constexpr char kTrace[] = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
  TransactionOptions traced;
  traced.traceparent = kTrace;
  {
    Client patient(options);
    Result<Transaction> tx = patient.Begin(traced);
    ASSERT_TRUE(Apply(*tx, "east").ok());
    ASSERT_TRUE(tx->Commit().committed());
  }
  EXPECT_THAT(lines, SizeIs(0)) << "it took less than slow_ms";
  EXPECT_EQ(east_.contexts.at(0).traceparent, kTrace);

  options.slow_ms = 20;
  coordinator_.commit = [](wire::Outcome& reply, const wire::CommitRequest& request) {
    EXPECT_EQ(request.traceparent, kTrace);
    usleep(30'000);  // what is slow
    reply.kind = wire::OutcomeKind::COMMITTED;
    reply.transaction_id = request.transaction_id;
  };
  Client client(options);
  Result<Transaction> tx = client.Begin(traced);
  ASSERT_TRUE(Apply(*tx, "east").ok());
  ASSERT_TRUE(tx->Commit().committed());
  ASSERT_THAT(lines, SizeIs(1));
  EXPECT_THAT(lines[0], HasSubstr("slow transaction " + tx->id() + ": committed after "));
  EXPECT_THAT(lines[0], HasSubstr("work at east "));
  EXPECT_THAT(lines[0], HasSubstr(std::string("; traceparent ") + kTrace));
}

TEST_F(ClientTest, BeginCostsNoCallAfterTheFirst) {
  std::set<std::string> ids;
  for (int i = 0; i < 8; ++i) {
    Result<Transaction> tx = client_->Begin();
    ASSERT_TRUE(tx.ok());
    EXPECT_TRUE(ids.insert(tx->id()).second) << tx->id();
  }
  EXPECT_EQ(coordinator_.leases, 1);
  EXPECT_EQ(coordinator_.aborts, 0) << "a transaction without branches has nothing to abort";
}

TEST_F(ClientTest, AsksForTheNextBlockBeforeThisOneIsUsedUp) {
  Gate gate;
  coordinator_.lease = [&](wire::Lease& reply, std::int32_t) {
    if (coordinator_.leases == 2) gate.Pass();
    reply.prefix = coordinator_.Prefix();
    reply.first = coordinator_.next_sequence.fetch_add(10);
    reply.count = 10;
    reply.ends_in_ms = 30'000;
  };
  std::set<std::string> ids;
  // The second block is asked for within the first ten, and its answer is not waited for.
  for (int i = 0; i < 10; ++i) ids.insert(client_->Begin()->id());
  for (int tries = 0; coordinator_.leases < 2 && tries < 500; ++tries) usleep(10'000);
  EXPECT_EQ(coordinator_.leases, 2);
  gate.Open();
  for (int i = 0; i < 5; ++i) ids.insert(client_->Begin()->id());
  EXPECT_THAT(ids, SizeIs(15));
  EXPECT_EQ(coordinator_.leases, 2) << "the reply that was sent for ahead is the one used";
}

TEST_F(ClientTest, ManyThreadsNeverShareAnId) {
  std::mutex mutex;
  std::set<std::string> ids;
  std::vector<std::thread> threads;
  for (int t = 0; t < 8; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 200; ++i) {
        Result<Transaction> tx = client_->Begin();
        ASSERT_TRUE(tx.ok());
        ASSERT_TRUE(Apply(*tx, "east").ok());
        ASSERT_TRUE(tx->Commit().committed());
        std::lock_guard<std::mutex> lock(mutex);
        ids.insert(tx->id());
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_THAT(ids, SizeIs(1600));
}

TEST_F(ClientTest, WithoutWorkNothingIsDecided) {
  Result<Transaction> tx = client_->Begin();
  EXPECT_EQ(tx->Commit().kind, Kind::kReadOnly);
  EXPECT_EQ(coordinator_.commits, 0);
}

TEST_F(ClientTest, DeclaresReadOnlyAtWorkZeroAndInCommit) {
  wire::CommitRequest asked;
  coordinator_.commit = [&](wire::Outcome& reply, const wire::CommitRequest& request) {
    asked = request;
    reply.kind = wire::OutcomeKind::READ_ONLY;
    reply.transaction_id = request.transaction_id;
  };
  TransactionOptions options;
  options.read_only = true;
  Result<Transaction> tx = client_->Begin(options);
  ASSERT_TRUE(Apply(*tx, "east").ok());
  EXPECT_EQ(tx->Commit().kind, Kind::kReadOnly);
  EXPECT_TRUE(east_.contexts[0].read_only);
  EXPECT_TRUE(asked.branches[0].read_only);
}

TEST_F(ClientTest, CarriesTheVoteOfALastWork) {
  east_.apply = [&](bank::ApplyReply& reply, const wire::Context& context) {
    east_.Answer(reply, context);
    wire::Vote vote;
    vote.ballot = wire::Ballot::PREPARED;
    vote.works = 1;
    vote.__set_mac("mac");
    reply.branch.__set_vote(vote);
  };
  wire::CommitRequest asked;
  coordinator_.commit = [&](wire::Outcome& reply, const wire::CommitRequest& request) {
    asked = request;
    reply.kind = wire::OutcomeKind::COMMITTED;
  };
  Result<Transaction> tx = client_->Begin();
  ASSERT_TRUE(Apply(*tx, "east", {.last = true}).ok());
  EXPECT_TRUE(tx->Commit(Wait::kDecided).committed());
  EXPECT_TRUE(east_.contexts[0].last);
  EXPECT_EQ(asked.branches[0].vote.mac, "mac");
  EXPECT_EQ(asked.wait, wire::Wait::DECIDED);
}

TEST_F(ClientTest, ARefusedEarlyVoteAborts) {
  east_.apply = [&](bank::ApplyReply& reply, const wire::Context& context) {
    east_.Answer(reply, context);
    wire::Vote vote;
    vote.ballot = wire::Ballot::REFUSED;
    vote.__set_reason(wire::Reason::CONFLICT);
    vote.__set_retryable(true);
    vote.__set_message("deadlock");
    reply.branch.__set_vote(vote);
  };
  Result<Transaction> tx = client_->Begin();
  EXPECT_FALSE(Apply(*tx, "east", {.last = true}).ok());
  const Outcome outcome = tx->Commit();
  EXPECT_EQ(outcome.kind, Kind::kAborted);
  EXPECT_TRUE(outcome.failure.retryable);
  EXPECT_EQ(coordinator_.commits, 0);
}

// ---- Work that fails.

TEST_F(ClientTest, RefusedWorkCanOnlyBeAborted) {
  ASSERT_TRUE(ApplyOnce(client_->Begin(), "west").ok());
  const int aborts = coordinator_.aborts;
  wire::AbortRequest asked;
  coordinator_.abort = [&](wire::Outcome& reply, const wire::AbortRequest& request) {
    asked = request;
    reply.kind = wire::OutcomeKind::ABORTED;
  };
  east_.apply = [](auto&, const auto&) -> void {
    throw MakeRefused(wire::Reason::APPLICATION, "account 17: insufficient funds");
  };
  Result<Transaction> tx = client_->Begin();
  ASSERT_TRUE(Apply(*tx, "west").ok());
  const Status work = Apply(*tx, "east");
  EXPECT_EQ(work.code(), Code::kRefused);
  EXPECT_EQ(work.message(), "account 17: insufficient funds");
  EXPECT_FALSE(Apply(*tx, "west").ok()) << "no more work goes into it";
  EXPECT_EQ(west_.applies, 2);
  const Outcome outcome = tx->Commit();
  EXPECT_EQ(outcome.kind, Kind::kAborted);
  EXPECT_EQ(outcome.failure.participant, "east");
  EXPECT_EQ(outcome.failure.reason, wire::Reason::APPLICATION);
  EXPECT_EQ(coordinator_.commits, 0);
  EXPECT_EQ(coordinator_.aborts, aborts + 1);
  ASSERT_THAT(asked.branches, SizeIs(2));
}

TEST_F(ClientTest, WorkIsNotRepeatedWhenItsReplyIsLost) {
  east_.apply = [](auto&, const auto&) -> void { throw LoseReply(); };
  Result<Transaction> tx = client_->Begin();
  EXPECT_FALSE(Apply(*tx, "east").ok());
  EXPECT_EQ(east_.applies, 1);
  const Outcome outcome = tx->Commit();
  EXPECT_EQ(outcome.kind, Kind::kAborted);
  EXPECT_TRUE(outcome.failure.retryable);
  EXPECT_EQ(coordinator_.commits, 0);
  EXPECT_EQ(coordinator_.aborts, 1) << "a branch may be there: it is named";
}

// Found under load: the aborts of what was never begun kept those waiting that held places.
TEST_F(ClientTest, WhatWasSurelyNotBegunIsNotAborted) {
  std::vector<std::string> aborted;
  coordinator_.abort = [&](wire::Outcome& reply, const wire::AbortRequest& request) {
    for (const wire::BranchClaim& branch : request.branches) aborted.push_back(branch.participant);
    reply.kind = wire::OutcomeKind::ABORTED;
  };
  wire::Refused refused = MakeRefused(wire::Reason::OVERLOADED, "full", true);
  std::int32_t refused_work = 0;
  east_.apply = [&](bank::ApplyReply& reply, const wire::Context& context) {
    if (context.work == refused_work) throw refused;
    east_.Answer(reply, context);
  };
  const auto end = [&](Result<Transaction> tx) {
    aborted.clear();
    EXPECT_EQ(Apply(*tx, "east").ok(), refused_work > 0);
    if (refused_work > 0) {
      EXPECT_FALSE(Apply(*tx, "east").ok());
    }
    const Outcome outcome = tx->Commit();
    EXPECT_EQ(outcome.kind, Kind::kAborted);
    EXPECT_TRUE(outcome.failure.retryable);
  };

  end(client_->Begin());
  EXPECT_THAT(aborted, ElementsAre("east")) << "it may have begun, for all that was said";
  refused.__set_unheard(true);
  const int aborts = coordinator_.aborts;
  end(client_->Begin());
  EXPECT_EQ(coordinator_.aborts, aborts) << "nothing was begun anywhere";
  Result<Transaction> tx = client_->Begin();
  ASSERT_TRUE(Apply(*tx, "west").ok());
  end(std::move(tx));
  EXPECT_THAT(aborted, ElementsAre("west"));
  refused_work = 1;
  end(client_->Begin());
  EXPECT_THAT(aborted, ElementsAre("east")) << "its first work was done";
  EXPECT_EQ(coordinator_.commits, 0);
}

TEST_F(ClientTest, AnswersThatDoNotFitFailTheTransaction) {
  const auto tamper = [&](const std::function<void(wire::Branch&)>& change) {
    east_.apply = [&, change](bank::ApplyReply& reply, const wire::Context& context) {
      east_.Answer(reply, context);
      if (context.work == 1) change(reply.branch);
    };
    Result<Transaction> tx = client_->Begin();
    EXPECT_TRUE(Apply(*tx, "east").ok());
    EXPECT_FALSE(Apply(*tx, "east").ok());
    EXPECT_EQ(tx->Commit().kind, Kind::kAborted);
  };
  tamper([](wire::Branch& branch) { branch.mark = "another"; });
  tamper([](wire::Branch& branch) { branch.works = 1; });
  tamper([](wire::Branch& branch) { branch.participant = "west"; });
  EXPECT_EQ(coordinator_.commits, 0);
}

TEST_F(ClientTest, UnknownParticipantIsSaidByName) {
  Result<Transaction> tx = client_->Begin();
  const Status work = Apply(*tx, "nowhere");
  EXPECT_EQ(work.code(), Code::kNotFound);
  EXPECT_THAT(work.message(), HasSubstr("'nowhere'"));
  EXPECT_FALSE(tx->Commit().failure.retryable);
}

TEST_F(ClientTest, ParticipantDownAbortsWithinTheDeadline) {
  east_server_->Stop();
  coordinator_.abort = [](wire::Outcome& reply, const wire::AbortRequest& request) {
    ASSERT_THAT(request.branches, SizeIs(1)) << "nothing was sent to the other";
    EXPECT_EQ(request.branches[0].participant, "west");
    reply.kind = wire::OutcomeKind::ABORTED;
  };
  TransactionOptions options;
  options.deadline_ms = 3000;
  Result<Transaction> tx = client_->Begin(options);
  ASSERT_TRUE(Apply(*tx, "west").ok());
  EXPECT_EQ(Apply(*tx, "east").code(), Code::kUnavailable);
  EXPECT_GT(tx->left_ms(), 0);
  const Outcome outcome = tx->Commit();
  EXPECT_EQ(outcome.kind, Kind::kAborted);
  EXPECT_TRUE(outcome.failure.retryable);
  EXPECT_EQ(coordinator_.aborts, 1) << "the other branch is released at once";
}

TEST_F(ClientTest, FollowsAParticipantToAnotherAddress) {
  ASSERT_TRUE(ApplyOnce(client_->Begin(), "east").ok());
  const int resolves = coordinator_.resolves;
  east_server_->Stop();
  east_.instance = "i2";
  auto moved = std::make_unique<FakeServer>(MakeFakeBranch(&east_));
  east_server_.swap(moved);
  Result<Transaction> tx = client_->Begin();
  EXPECT_TRUE(Apply(*tx, "east").ok());
  EXPECT_TRUE(tx->Commit().committed());
  EXPECT_GT(coordinator_.resolves, resolves);
}

TEST_F(ClientTest, LaterWorkGoesToTheProcessThatHoldsTheBranch) {
  for (const bool same_port : {true, false}) {
    const int port = east_server_->port();
    Result<Transaction> tx = client_->Begin();
    ASSERT_TRUE(Apply(*tx, "east").ok());
    const int applies = east_.applies;
    east_server_->Stop();
    east_.instance += "'";
    east_server_ = std::make_unique<FakeServer>(MakeFakeBranch(&east_), same_port ? port : 0);
    EXPECT_FALSE(Apply(*tx, "east").ok());
    EXPECT_EQ(east_.applies, applies) << "another process must not continue a branch";
    EXPECT_EQ(tx->failure()->reason, wire::Reason::NO_SUCH_BRANCH);
    EXPECT_TRUE(tx->failure()->retryable);
  }
}

TEST_F(ClientTest, AClosedIdleConnectionIsNotUsed) {
  ASSERT_TRUE(ApplyOnce(client_->Begin(), "east").ok());
  const int port = east_server_->port();
  east_server_->Stop();
  east_server_ = std::make_unique<FakeServer>(MakeFakeBranch(&east_), port);
  Result<Transaction> tx = client_->Begin();
  EXPECT_TRUE(Apply(*tx, "east").ok()) << "work is not repeated, so it must not meet a dead one";
}

TEST_F(ClientTest, ExceptionsOfTheCallerGoThroughAndFailTheTransaction) {
  Result<Transaction> tx = client_->Begin();
  const auto boom = [](bank::BankBranchClient&, const wire::Context&) -> wire::Branch {
    throw std::runtime_error("boom");
  };
  EXPECT_THROW((void)tx->Work<bank::BankBranchClient>("east", boom), std::runtime_error);
  EXPECT_EQ(tx->Commit().kind, Kind::kAborted);
  EXPECT_EQ(coordinator_.commits, 0);
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
  Result<Transaction> tx = client_->Begin(options);
  ASSERT_TRUE(Apply(*tx, "east").ok());
  const std::int64_t began_ms = BootMs();
  const Outcome outcome = tx->Commit();
  EXPECT_EQ(outcome.kind, Kind::kUnknown);
  EXPECT_EQ(outcome.transaction_id, tx->id());
  EXPECT_THAT(outcome.ToString(), HasSubstr(tx->id()));
  EXPECT_GT(coordinator_.commits, 1);
  EXPECT_LT(BootMs() - began_ms, 1500);
}

TEST_F(ClientTest, UnknownWhenTheCoordinatorIsGoneUntilTheDeadline) {
  TransactionOptions options;
  options.deadline_ms = 500;
  Result<Transaction> tx = client_->Begin(options);
  ASSERT_TRUE(Apply(*tx, "east").ok());
  StopCoordinator();
  const std::int64_t began_ms = BootMs();
  const Outcome outcome = tx->Commit();
  EXPECT_EQ(outcome.kind, Kind::kUnknown);
  EXPECT_EQ(outcome.transaction_id, tx->id());
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

TEST_F(ClientTest, NoCommitIsAskedForAfterTheDeadline) {
  TransactionOptions options;
  options.deadline_ms = 50;
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

TEST_F(ClientTest, RunTransactionStopsAtItsTotal) {
  int runs = 0;
  east_.apply = [&](auto&, const auto&) -> void {
    ++runs;
    throw MakeRefused(wire::Reason::CONFLICT, "deadlock", true);
  };
  RetryOptions retry;
  retry.total_ms = 200;
  const std::int64_t began_ms = BootMs();
  const Outcome outcome = RunTransaction(
      *client_, {}, [](Transaction& tx) { return Apply(tx, "east"); }, Wait::kApplied, retry);
  EXPECT_EQ(outcome.kind, Kind::kAborted);
  EXPECT_LT(BootMs() - began_ms, 1000);
  EXPECT_GT(runs, 1);
  EXPECT_LT(runs, 40) << "it does not back off";
}

// ---- The wire.

TEST_F(ClientTest, AConnectionOutlivesManyBytes) {
  // The bound on a message must not add up over messages.
  const std::vector<std::string> names(1000, "east");
  for (int i = 0; i < 300; ++i) {
    const auto places = client_->Resolve(names, 1000);
    ASSERT_TRUE(places.ok()) << i;
    ASSERT_THAT(*places, SizeIs(1000));
  }
  EXPECT_EQ(coordinator_.hellos, 1);
}

TEST_F(ClientTest, AnOversizedReplyIsNotRead) {
  coordinator_.resolve = [](auto& reply, const auto&) {
    wire::ParticipantAddress place;
    place.host.assign(2 << 20, 'x');
    reply.push_back(place);
  };
  EXPECT_FALSE(client_->Resolve({}, 200).ok());
}

TEST(Address, ParsesHostAndPort) {
  EXPECT_EQ(Address::Parse("h:7400")->port, 7400);
  for (const char* wrong : {"", "h", "h:", ":7", "h:0", "h:65536", "h:7x", "h:-1"}) {
    EXPECT_FALSE(Address::Parse(wrong).ok()) << wrong;
  }
  EXPECT_THAT(*Address::ParseList("a:1,b:2"), SizeIs(2));
  EXPECT_FALSE(Address::ParseList("a:1,").ok());
}

}  // namespace
}  // namespace troth
