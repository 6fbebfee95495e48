// The hand-overs of leader and followers under many threads: machine, log and channel are each
// served by whoever finds them free. A lost wake-up shows as a test that hangs, a race as a
// report of the thread sanitizer (preset tsan); a single-threaded simulator sees neither.
#include <atomic>
#include <memory>
#include <optional>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "tests/coordinator/in_memory.h"

namespace troth {
namespace {

constexpr DatabaseId kDatabase{7, 16384};

class HandoverTest : public testing::Test {
 protected:
  HandoverTest() : channel_(kDatabase), crew_([](const Status&) { std::abort(); }) {
    ProtocolOptions options;
    options.coordinator_id = "test-0123456789ab";
    RecoveredState state;
    for (ParticipantIndex i = 0; i < 2; ++i) {
      ParticipantRecord record;
      record.index = i;
      record.name = i == 0 ? "east" : "west";
      record.database = kDatabase;
      EXPECT_TRUE(state.Apply(record, 0).ok());
    }
    coordinator_ = std::make_unique<Coordinator>(CommitProtocol(options, std::move(state), 1, 0),
                                                 SystemClock(), &log_, &channel_, &crew_);
    channel_.Start(coordinator_.get());
    coordinator_->Start();
    crew_.Start(coordinator_.get(), &channel_);
  }
  ~HandoverTest() override { crew_.Stop(); }

  template <typename E>
  std::optional<Action> TryAsk(E event) {
    Crew::Call call;
    event.token = Crew::TokenOf(&call);
    coordinator_->Submit(Event(std::move(event)));
    return crew_.Await(&call);
  }
  template <typename E>
  Action Ask(E event) {
    return TryAsk(std::move(event)).value();
  }

  // `count` transactions over both participants; returns how many were answered committed.
  int CommitMany(int count, bool wait_applied) {
    const Action leased = Ask(LeaseAsked{0, static_cast<std::uint32_t>(count)});
    const auto& lease = std::get<ReplyLease>(leased);
    int committed = 0;
    for (int i = 0; i < count; ++i) {
      CommitAsked commit;
      commit.id = {"test-0123456789ab", {lease.epoch, lease.first + static_cast<unsigned>(i)}};
      commit.branches = {{"east", "m", "i", 1, false, false, false, {}},
                         {"west", "m", "i", 1, false, false, false, {}}};
      commit.deadline = coordinator_->Now() + 20'000;
      commit.wait_applied = wait_applied;
      const Action reply = Ask(commit);
      const auto* outcome = std::get_if<ReplyOutcome>(&reply);
      if (outcome == nullptr || outcome->kind != OutcomeKind::kCommitted) continue;
      // Law L5, seen from outside.
      EXPECT_TRUE(log_.IsDurable(commit.id.local));
      EXPECT_TRUE(!wait_applied || outcome->unapplied.empty());
      ++committed;
    }
    return committed;
  }

  MemoryLog log_;
  MemoryChannel channel_;
  Crew crew_;
  std::unique_ptr<Coordinator> coordinator_;
};

TEST_F(HandoverTest, OneCallerDoesAllAlone) {
  EXPECT_EQ(CommitMany(200, true), 200);
  // One sync a commit, and a few for epoch, reserve and marks: nothing else asks for one.
  EXPECT_LE(coordinator_->syncs(), 210u);
}

TEST_F(HandoverTest, ManyCallersShareSyncs) {
  constexpr int kThreads = 16, kEach = 300;
  std::atomic<int> committed{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] { committed += CommitMany(kEach, t % 2 == 0); });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(committed, kThreads * kEach);
  coordinator_->Inspect([](const CommitProtocol& machine) { machine.CheckInvariants(); });
}

TEST_F(HandoverTest, LooksAndAsksBesideCommits) {
  std::atomic<bool> stop{false};
  std::thread looker([&] {
    while (!stop) {
      coordinator_->Inspect([](const CommitProtocol& machine) { machine.CheckInvariants(); });
      Ask(OutcomeAsked{0, {"test-0123456789ab", {coordinator_->epoch(), 1}}, 0});
      coordinator_->Tick();
      crew_.Nudge();
    }
  });
  std::vector<std::thread> threads;
  std::atomic<int> committed{0};
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] { committed += CommitMany(300, false); });
  }
  for (std::thread& thread : threads) thread.join();
  stop = true;
  looker.join();
  EXPECT_EQ(committed, 1200);
}

TEST_F(HandoverTest, StopReleasesWhoWaitsAndTellsNothing) {
  const Action leased = Ask(LeaseAsked{0, 1});
  const auto& lease = std::get<ReplyLease>(leased);
  channel_.FallSilent();
  CommitAsked commit;
  commit.id = {"test-0123456789ab", {lease.epoch, lease.first}};
  commit.branches = {{"east", "m", "i", 1, false, false, false, {}}};
  commit.deadline = coordinator_->Now() + 20'000;
  std::optional<Action> reply = ReplyDone();
  const auto began = std::chrono::steady_clock::now();
  std::thread waiter([&] { reply = TryAsk(commit); });
  std::size_t undecided = 0;
  while (undecided == 0) {
    coordinator_->Inspect([&](const CommitProtocol& machine) { undecided = machine.undecided(); });
  }
  crew_.Stop();
  waiter.join();
  EXPECT_LT(std::chrono::steady_clock::now() - began, std::chrono::seconds(5));
  // Nor is it a refusal: clients take that for `nothing was done` (law L10).
  EXPECT_FALSE(reply.has_value());
}

// Found in a test of the console: events that come more than once a second, and whose replies
// nobody has to wait for, kept everybody from noticing that a participant was gone.
TEST_F(HandoverTest, LooksForTheDeadBesideEventsThatWaitForNothing) {
  EXPECT_EQ(CommitMany(1, /*wait_applied=*/true), 1);
  const int before = channel_.polls();
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(6);
  while (channel_.polls() < before + 3 && std::chrono::steady_clock::now() < end) {
    coordinator_->Submit(ParticipantUp{0});
    crew_.Nudge();
    std::this_thread::sleep_for(std::chrono::milliseconds(50));  // the pace of the events
  }
  EXPECT_GE(channel_.polls(), before + 3);
}

TEST_F(HandoverTest, DeadlinesPassWhileAllSleep) {
  channel_.FallSilent();
  constexpr std::chrono::milliseconds kLimit(900);
  int late = 0;
  for (int round = 0; round < 5; ++round) {
    const Action leased = Ask(LeaseAsked{0, 8});
    const auto& lease = std::get<ReplyLease>(leased);
    std::vector<std::thread> threads;
    std::atomic<int> aborted{0};
    const auto began = std::chrono::steady_clock::now();
    for (unsigned i = 0; i < 8; ++i) {
      threads.emplace_back([&, i] {
        CommitAsked commit;
        commit.id = {"test-0123456789ab", {lease.epoch, lease.first + i}};
        commit.branches = {{"west", "m", "i", 1, false, false, false, {}}};
        commit.deadline = coordinator_->Now() + 50 + 20 * (8 - i);  // later callers, earlier ends
        const Action reply = Ask(commit);
        const auto* outcome = std::get_if<ReplyOutcome>(&reply);
        if (outcome != nullptr && outcome->refusal.reason == Reason::kDeadline) ++aborted;
      });
    }
    for (std::thread& thread : threads) thread.join();
    EXPECT_EQ(aborted, 8);
    if (std::chrono::steady_clock::now() - began >= kLimit) ++late;
  }
  EXPECT_LE(late, 1) << "the machine may hold one round up";
}

}  // namespace
}  // namespace troth
