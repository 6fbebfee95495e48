// The client library at work, against a scripted coordinator and scripted branches: numbered work,
// work that fails, the wire. How transactions end: outcome_test.cc.
#include "client/client.h"

#include <csignal>

#include <atomic>
#include <condition_variable>
#include <cstdio>
#include <fstream>
#include <mutex>
#include <set>
#include <thread>

#include <unistd.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "client/boot_time.h"
#include "tests/client/client_fixture.h"

namespace troth {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::SizeIs;
using Kind = Outcome::Kind;

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
  wire::AbortRequest asked;
  coordinator_.abort = [&](wire::Outcome& reply, const wire::AbortRequest& request) {
    asked = request;
    reply.kind = wire::OutcomeKind::ABORTED;
  };
  Result<Transaction> tx = client_->Begin();
  EXPECT_FALSE(Apply(*tx, "east").ok());
  EXPECT_EQ(east_.applies, 1);
  const Outcome outcome = tx->Commit();
  EXPECT_EQ(outcome.kind, Kind::kAborted);
  EXPECT_TRUE(outcome.failure.retryable);
  EXPECT_EQ(coordinator_.commits, 0);
  EXPECT_EQ(coordinator_.aborts, 1) << "a branch may be there: it is named";
  ASSERT_THAT(asked.branches, SizeIs(1));
  EXPECT_EQ(asked.branches[0].instance, "i1") << "another process of east knows no such branch";
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
  // Was believed, and the work after it, "after the last", ended the application's process.
  tamper([](wire::Branch& branch) {
    wire::Vote vote;
    vote.ballot = wire::Ballot::PREPARED;
    branch.__set_vote(vote);
  });
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

// Our ends of connections to a port whose other end was closed.
int Forsaken(int port) {
  std::ifstream table("/proc/self/net/tcp");
  int count = 0;
  for (std::string line; std::getline(table, line);) {
    unsigned to = 0, state = 0;
    if (std::sscanf(line.c_str(), " %*d: %*8x:%*4x %*8x:%4x %2x", &to, &state) != 2) continue;
    if (to == static_cast<unsigned>(port) && state == 8) ++count;  // CLOSE_WAIT
  }
  return count;
}

// Each move of a participant left descriptors open for ever.
TEST_F(ClientTest, ConnectionsToWhereNobodyIsAnyMoreAreClosed) {
  ASSERT_TRUE(ApplyOnce(client_->Begin(), "east").ok());
  const int port = east_server_->port();
  east_server_->Stop();
  ASSERT_EQ(Forsaken(port), 1);
  ASSERT_TRUE(ApplyOnce(client_->Begin(), "west").ok());
  EXPECT_EQ(Forsaken(port), 0) << "asking where west is should have closed it";
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

// What the calls below send; the reply tells which one it belongs to.
int ApplyAs(bank::BankBranchClient& branch, int work) {
  wire::Context context;
  context.work = work;
  bank::ApplyReply reply;
  branch.apply(reply, context, {}, "");
  return reply.branch.works - 1;
}

// The caller may do without an answer; the next call was given it.
TEST_F(ClientTest, ALateReplyIsNotTheNextCalls) {
  for (const bool by_one_caller : {false, true}) {
    Gate gate;
    east_.apply = [&](bank::ApplyReply& reply, const wire::Context& context) {
      if (context.work == 1) gate.Pass();
      east_.Answer(reply, context);
    };
    int answered = 0;
    // The place is known and a connection is there: 1 ms is for the call alone.
    EXPECT_TRUE(client_
                    ->Call<bank::BankBranchClient>(
                        "east", 5000, [&](auto& branch) { answered = ApplyAs(branch, 3); })
                    .ok());
    EXPECT_EQ(std::exchange(answered, 0), 3);
    const auto first = [&](bank::BankBranchClient& branch) {
      try {
        answered = ApplyAs(branch, 1);
      } catch (const apache::thrift::TException&) {
      }
    };
    const auto second = [&](bank::BankBranchClient& branch) {
      gate.Open();
      answered = ApplyAs(branch, 2);
    };
    if (by_one_caller) {
      const Status done = client_->Call<bank::BankBranchClient>("east", 1, [&](auto& branch) {
        first(branch);
        second(branch);
      });
      EXPECT_EQ(done.code(), Code::kUnknown);
      EXPECT_EQ(answered, 0);
    } else {
      EXPECT_TRUE(client_->Call<bank::BankBranchClient>("east", 1, first).ok());
      EXPECT_TRUE(client_->Call<bank::BankBranchClient>("east", 5000, second).ok());
      EXPECT_EQ(answered, 2);
    }
    const int port = east_server_->port();
    east_server_->Stop();  // nobody is at the gate any more
    east_server_ = std::make_unique<FakeServer>(MakeFakeBranch(&east_), port);
  }
}

// While it lives, the thread that made it takes a signal at each Send; each ends a system call.
class Signals {
 public:
  Signals() {
    struct sigaction action = {};
    action.sa_handler = [](int) { ++seen_; };
    action.sa_flags = SA_RESTART;
    sigaction(SIGUSR1, &action, &before_);
  }
  ~Signals() { sigaction(SIGUSR1, &before_, nullptr); }
  void Send() {
    const int seen_before = seen_;
    pthread_kill(thread_, SIGUSR1);
    while (seen_ == seen_before) usleep(100);
    usleep(1'000);  // it waits again
  }

 private:
  inline static std::atomic<int> seen_{0};
  const pthread_t thread_ = pthread_self();
  struct sigaction before_;
};

// An application with a timer (a profiler's) lost every call that took a few of its signals, and
// must not wait for ever instead.
TEST_F(ClientTest, SignalsEndNoCallAndPutOffNoDeadline) {
  Signals signals;
  std::atomic<bool> over{false};
  east_.apply = [&](bank::ApplyReply& reply, const wire::Context& context) {
    for (int i = 0; i < context.work && !over; ++i) signals.Send();
    east_.Answer(reply, context);
  };
  const auto call = [&](int signals_before_answer, std::int64_t timeout_ms) {
    return client_->Call<bank::BankBranchClient>(
        "east", timeout_ms, [&](auto& branch) { ApplyAs(branch, signals_before_answer); });
  };
  const Status done = call(30, 5000);
  EXPECT_TRUE(done.ok()) << done.ToString();
  const Status late = call(2000, 1);
  EXPECT_EQ(late.code(), Code::kUnknown) << late.ToString();
  EXPECT_THAT(late.message(), HasSubstr("did not answer in time"));
  over = true;
  east_server_->Stop();  // sends no more
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
