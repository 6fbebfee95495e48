// One test per law, and sub-law, of docs/protocol.md that the commit protocol can break, named
// after it. The laws of the participant have their tests there: L12a, L12b, L13a, L13b, L13d
// and the sweep's half of L14 in tests/participant; L15 and the log's half of L7b in
// tests/recovery; what contradicts the log (L7d) in cut_log_test.cc.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <string>

#include "recovery/heuristics.h"
#include "tests/protocol/laws_fixture.h"

namespace troth {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

// Whether anything among `actions` tells of a commit (law L5).
bool TellsOfCommit(const Actions& actions) {
  return std::any_of(actions.begin(), actions.end(), [](const Action& action) {
    if (const auto* finish = std::get_if<SendFinish>(&action)) return finish->commit;
    if (const auto* reply = std::get_if<ReplyOutcome>(&action)) {
      return reply->kind == OutcomeKind::kCommitted;
    }
    if (const auto* reply = std::get_if<ReplyAnswers>(&action)) {
      return std::any_of(reply->answers.begin(), reply->answers.end(), [](const InquiryAnswer& a) {
        return a.answer == InDoubtAnswer::kCommitted || a.answer == InDoubtAnswer::kCommittedBit;
      });
    }
    return false;
  });
}

// L1: the branches that voted are told one end, whatever comes in between.
TEST_F(Laws, L1_NoTwoBranchesEndDifferently) {
  // Every order of the two votes, an abort and the deadline.
  std::vector<std::string> steps = {"vote a 1 prepared=700", "vote b 1 prepared=900", "abort 1",
                                    "time +10000"};
  std::sort(steps.begin(), steps.end());
  do {
    World w;
    w.Run("open\n ready a b\n lease 9\n commit 1 a b");
    bool committed = false, aborted = false;
    for (const std::string& step : steps) {
      w.Run(step + "\n durable");
      for (const SendFinish& f : Of<SendFinish>(w.actions())) {
        (f.commit ? committed : aborted) = true;
      }
    }
    EXPECT_NE(committed, aborted);
  } while (std::next_permutation(steps.begin(), steps.end()));
}

TEST_F(Laws, L2_NoCommitWithoutEveryVote) {
  Run("commit 1 a b c\n vote a 1 prepared=700\n vote b 1 prepared=900\n durable");
  EXPECT_EQ(CommitRecords(world), 0u);
  Expect("vote c 1 refused\n durable", "aborted");
  EXPECT_EQ(CommitRecords(world), 0u);
}

TEST_F(Laws, L2_NoVoteCountsTwice) {
  Run("commit 1 a b\n vote a 1 prepared=700\n vote a 1 prepared=700\n vote a 1 prepared=701");
  EXPECT_EQ(CommitRecords(world), 0u);
}

TEST_F(Laws, L2_NoVoteOfAnotherAttemptCounts) {
  Run("commit 1 a:new:1 b\n vote a 1 prepared=700 mark=old\n vote b 1 prepared=900");
  EXPECT_EQ(CommitRecords(world), 0u);
  Run("vote a 1 prepared=701 mark=new");
  EXPECT_EQ(CommitRecords(world), 1u);
}

TEST_F(Laws, L2_NoVoteWithOtherWorkCounts) {
  Expect("commit 1 a:m:2 b\n vote b 1 prepared=900\n vote a 1 prepared=700 works=1",
         "aborted out-of-number");
  Expect("commit 2 a:m:2:voted=700 b\n vote b 2 prepared=900 works=2", "aborted out-of-number");
  EXPECT_EQ(CommitRecords(world), 0u);
}

TEST_F(Laws, L2_NoVoteOfAnotherDatabaseCounts) {
  Expect("commit 1 a b\n vote b 1 prepared=900\n vote a 1 prepared=700 database=1/1",
         "aborted name-taken");
  EXPECT_EQ(CommitRecords(world), 0u);
}

TEST_F(Laws, L2_NoForgedVoteCounts) {
  Expect("commit 1 a:m:1:forged=700 b:m:1:voted=900", "aborted forbidden");
  EXPECT_EQ(CommitRecords(world), 0u);
}

TEST_F(Laws, L2_ReadOnlyOnlyIfDeclared) {
  Expect("commit 1 a b\n vote b 1 prepared=900\n vote a 1 read-only", "aborted invalid");
  EXPECT_EQ(CommitRecords(world), 0u);
}

TEST_F(Laws, L3_CommitWhenAllVoteAndNothingFails) {
  Run("commit 1 a b c:m:1:read-only\n vote c 1 read-only\n vote b 1 prepared=900\n"
      "vote a 1 prepared=700");
  EXPECT_EQ(CommitRecords(world), 1u);
  Expect("durable\n finished a 1\n finished b 1", "reply ->2 committed");
}

TEST_F(Laws, L4_NoDeadlineAbortsAfterTheHandOver) {
  Run("commit 1 a b deadline=+100\n vote a 1 prepared=700\n vote b 1 prepared=900");
  ExpectNo("time +40000\n abort 1\n down a b\n room no", "aborted");
  Expect("durable", "committed");
}

TEST_F(Laws, L4_TheRecordHoldsTheEvidenceOfEachBranch) {
  Decide("1");
  const auto* record = std::get_if<CommitRecord>(&world.handed_over().back());
  ASSERT_NE(record, nullptr);
  ASSERT_EQ(record->branches.size(), 2u);
  EXPECT_EQ(record->branches[0], (BranchRecord{0, {7001, 5}, 701, 1, 0x16000000 + 701}));
  EXPECT_EQ(record->branches[1], (BranchRecord{1, {7002, 5}, 901, 1, 0x16000000 + 901}));
}

TEST_F(Laws, L4_ADecisionSurvivesAndDoesNotChange) {
  Decide("1");
  Run("durable\n crash\n ready a b c");
  Expect("abort 1.1", "committed");
  Expect("commit 1.1 a b wait=decided", "committed");
  Expect("outcome 1.1", "committed");
}

// L5: whatever is asked while the record is under way, nothing tells of the commit.
TEST_F(Laws, L5_NothingTellsBeforeTheRecordIsDurable) {
  Decide("1");
  EXPECT_FALSE(TellsOfCommit(world.actions()));
  for (const char* step :
       {"outcome 1", "inquiry a 1:701", "commit 1 a b wait=decided", "abort 1", "down a", "up a",
        "time +5000", "vote a 1 prepared=701", "finished a 1", "enroll a", "time +30000",
        "outcome 1 wait=100", "time +100", "durable 0", "crash", "ready a b c", "inquiry a 1.1:701",
        "outcome 1.1", "commit 1.1 a b"}) {
    Run(step);
    EXPECT_FALSE(TellsOfCommit(world.actions())) << step;
  }
}

TEST_F(Laws, L5_DurabilityIsCountedInRecords) {
  Decide("1");
  Decide("2");
  Run("durable 1");
  EXPECT_THAT(Run("show 1 2"), AllOf(HasSubstr(".1 committed"), HasSubstr(".2 pending")));
}

TEST_F(Laws, L6_AnUnheardIdOfALiveLeaseIsPending) {
  Expect("outcome 1\n inquiry a 1:700", "1=pending");
  ExpectNo("outcome 1", "aborted");
}

TEST_F(Laws, L6_InFlightIsPendingWhateverTheLease) {
  Decide("1");
  Expect("time +40000\n inquiry a 1:701 2:702", "1-0a0a0a01.1=pending 1-0a0a0a01.2=aborted");
  Expect("durable\n inquiry a 1:701", "1-0a0a0a01.1=committed:commit");
}

TEST_F(Laws, L6_AbsenceMeansAbortOnceTheLeaseIsOver) {
  Expect("time +29999\n outcome 1", "pending");
  Expect("time +1\n outcome 1", "aborted");
  Expect("commit 1 a b", "aborted not-leased");
}

TEST_F(Laws, L6_AbsenceMeansAbortInAnEpochThatEnded) {
  Run("crash\n ready a b c");
  Expect("outcome 1.1", "aborted");
}

TEST_F(Laws, L6_AbsenceSaysNothingAboveWhatWasHandedOut) {
  Expect("outcome 10", "not-mine");
  Run("crash\n ready a b c");
  Expect("outcome 1.10000", "aborted");
  Expect("outcome 1.10001", "not-mine");
}

TEST_F(Laws, L6_AnotherLogsIdIsNotMine) {
  Decide("1");
  Run("durable");
  TransactionId other{"bank-ba9876543210", {world.machine().epoch(), 1}};
  world.Feed(OutcomeAsked{90, other, 0});
  world.Feed(CommitAsked{91, other, {}, 1'000, true, ""});
  world.Feed(AbortAsked{92, other, {}, ""});
  world.Feed(Inquired{93, "a", {{other, 701}}, {}});
  EXPECT_TRUE(Of<ReplyOutcome>(world.actions()).empty());
  EXPECT_EQ(Of<ReplyRefused>(world.actions()).size(), 3u);
  const auto answers = Of<ReplyAnswers>(world.actions());
  ASSERT_EQ(answers.size(), 1u);
  EXPECT_EQ(answers[0].answers[0].answer, InDoubtAnswer::kNotMine);
}

TEST_F(Laws, L7a_AnEndedEpochCommitsNothing) {
  Run("commit 1 a b\n vote a 1 prepared=700\n crash\n ready a b c");
  Run("vote a 1.1 prepared=700\n vote b 1.1 prepared=900\n commit 1.1 a b\n"
      "commit 1.2 a:m:1:voted=700 b:m:1:voted=900\n durable");
  EXPECT_EQ(CommitRecords(world), 0u);
}

TEST_F(Laws, L7a_NoEpochTwice) {
  const Epoch first = world.machine().epoch();
  Run("crash");
  EXPECT_GT(world.machine().epoch().number, first.number);
  const Epoch second = world.machine().epoch();
  // Its record never became durable, so it handed out nothing; its number may come again, told
  // apart by its random bits.
  Run("crash");
  EXPECT_NE(world.machine().epoch(), second);
}

TEST_F(Laws, L7a_NoIdBeforeTheEpochIsDurable) {
  World w;
  EXPECT_TRUE(Of<ReplyLease>((w.Run("open\n lease 1"), w.actions())).empty());
  w.Run("durable 1");
  EXPECT_TRUE(Of<ReplyLease>(w.actions()).empty());  // the reserve is not durable
  w.Run("durable");
  EXPECT_EQ(Of<ReplyLease>(w.actions()).size(), 1u);
}

// Found by the simulator: participants were told an epoch whose record a crash then took, and
// reported it to the next life for ever, which took its log for a cut one.
TEST_F(Laws, L7c_NobodyHearsOfAnEpochBeforeItIsDurable) {
  Run("crash\n enroll a\n inquiry a 1.1:700\n time +20\n up a");
  EXPECT_TRUE(Of<Connect>(world.actions()).empty());
  EXPECT_TRUE(Of<ReplyEnrolled>(world.actions()).empty());
  Run("durable");
  EXPECT_FALSE(Of<Connect>(world.actions()).empty());
  EXPECT_EQ(Of<ReplyEnrolled>(world.actions()).size(), 1u);
}

TEST_F(Laws, L7a_NoIdAboveTheReserve) {
  World w;
  w.Run("open reserve=10\n durable\n lease 10");
  EXPECT_EQ(Of<ReplyLease>(w.actions()).size(), 1u);
  w.Run("lease 10\n lease 10");
  EXPECT_TRUE(Of<ReplyLease>(w.actions()).empty());
  w.Run("durable\n durable\n durable");
  const auto leases = Of<ReplyLease>(w.actions());
  ASSERT_EQ(leases.size(), 2u);
  EXPECT_EQ(leases[0].first + leases[0].count, leases[1].first);  // never shared
}

TEST_F(Laws, L7d_AbsenceWaitsUntilAllWereHeard) {
  Run("crash\n enroll a\n enroll b\n durable");
  Expect("outcome 1.1", "pending");
  Expect("enroll c\n outcome 1.1", "aborted");
}

TEST_F(Laws, L7d_AbsenceWaitsTenSecondsAtMost) {
  Run("crash\n durable\n time +9999");
  Expect("outcome 1.1", "pending");
  Expect("time +1\n outcome 1.1", "aborted");
}

// Found in review: a process whose enrolment was refused counted as heard when it inquired.
TEST_F(Laws, L7d_WhoeverIsNotEnrolledIsNotHeard) {
  Run("crash\n enroll a\n enroll b\n durable\n enroll c database=9999/5\n inquiry c");
  Expect("outcome 1.1", "pending");
  Expect("enroll c\n outcome 1.1", "aborted");
}

TEST_F(Laws, L8_AParticipantThatComesBackIsServedAtOnce) {
  Decide("1");
  Run("down a\n durable");
  Expect("up a", "finish p0 1-0a0a0a01.1 commit");
  Run("commit 2 a b");
  Run("down a");
  Expect("up a", "prepare p0 1-0a0a0a01.2");
}

TEST_F(Laws, L8_RetryIntervalsAreCapped) {
  Decide("1");
  Run("durable\n finished b 1");
  for (int i = 0; i < 12; ++i) Run("finished a 1 working\n time +1000");
  Run("finished a 1 working");
  Expect("time +1000", "finish p0 1-0a0a0a01.1 commit");
}

// Found by measuring: each deadline woke the coordinator, also of transactions that had ended.
TEST_F(Laws, NobodyIsWokenForTransactionsThatEnded) {
  Decide("1");
  Run("commit 2 a b deadline=+500");
  Run("durable\n finished a 1\n finished b 1\n time +1");
  EXPECT_EQ(world.machine().NextTimer(), 500);  // that of the one that is left
  Run("vote a 2 refused\n commit 3 c deadline=+300\n vote c 3 prepared=803\n durable");
  Run("finished c 3\n time +1");
  EXPECT_EQ(world.machine().NextTimer(), world.now() + 1000);
}

TEST_F(Laws, L8_OneDeadParticipantDelaysNoOther) {
  Run("down a");
  Run("commit 1 a b\n commit 2 b c\n vote b 2 prepared=902\n vote c 2 prepared=802\n durable");
  Expect("finished b 2\n finished c 2", "committed");
}

TEST_F(Laws, L8_FinishesGoOnAfterARestart) {
  Decide("1");
  Run("durable\n finished a 1\n crash\n enroll a\n enroll b\n durable");
  Expect("up b", "finish p1 1-0a0a0a01.1 commit xid=901");
}

// Found in review: its branch of a committed transaction was answered `abort`.
TEST_F(Laws, L9b_AParticipantThatWasForgottenHearsOfItsCommits) {
  Decide("1");
  Run("durable\n finished a 1\n finished b 1\n durable\n forget b\n durable");
  Expect("inquiry b 1:901", "1-0a0a0a01.1=committed:commit");
  Run("enroll b database=9999/5\n durable");
  Expect("inquiry b 1:901", "1-0a0a0a01.1=committed:commit");
  Expect("inquiry b 1:902", "1-0a0a0a01.1=committed:other-xid-abort");
  Expect("crash\n ready a b c\n inquiry b 1.1:901", "1-0a0a0a01.1=committed:commit");
  Expect("inquiry c 1.1:901", "1-0a0a0a01.1=committed:other-xid-abort");
}

// Found by reading: between asking to forget a participant and its record being durable a commit
// that names it could be decided, and nobody would ever have finished its branch.
TEST_F(Laws, L8_NoCommitNamesAParticipantThatIsBeingForgotten) {
  Run("commit 1 a b\n vote a 1 prepared=700");
  Expect("forget b", "refused");
  Run("vote b 1 prepared=900\n durable");
  Expect("forget b", "refused");
  Run("finished a 1\n finished b 1\n durable\n forget b");
  Expect("commit 2 a b", "unknown-participant");
  Expect("enroll b", "refused not-serving");
  Expect("rebind b", "unknown-participant");
  Run("durable");
  Expect("enroll b\n durable", "enrolled b");
  Run("crash");
  EXPECT_EQ(world.machine().registry().size(), 4u);
}

TEST_F(Laws, L9a_ARecordStaysWholeUntilAllAcknowledged) {
  Decide("1");
  Run("durable\n finished a 1\n time +90000000");
  Expect("inquiry b 1:901", "1=committed:commit");
}

TEST_F(Laws, L9a_ARecordStaysWholeForItsRetention) {
  Decide("1");
  Run("durable\n finished a 1\n finished b 1\n durable\n time +590000");
  Expect("inquiry b 1:901 1:5", "1=committed:commit 1-0a0a0a01.1=committed:other-xid-abort");
  Run("time +50000");
  Expect("inquiry b 1:901", "1=committed-bit");
  Expect("outcome 1", "committed");
}

// Found in review: one claim of 600 KB made a participant's calls larger than a frame, again and
// again.
TEST_F(Laws, L11_LongMarksAndInstancesAreRefused) {
  const std::string most(64, 'm');
  Expect("commit 1 a:" + most + "m:1 b", "refused invalid");
  EXPECT_TRUE(Of<SendPrepare>(world.actions()).empty());
  Expect("commit 1 a:" + most + ":1 b", "prepare p0");
}

// Found in review: a text that no record holds ended the process.
TEST_F(Laws, AnEnrolmentWithLongTextsIsRefused) {
  const std::string most(256, 'x');
  Expect("enroll d address=" + most + "x", "refused invalid");
  Expect("enroll d address=" + most + "\n durable", "enrolled d");
}

// Regression: a socket's folder is called the same on each machine; a copy of the database, met
// there on another one, was taken for the participant.
TEST_F(Laws, L1_ACopyOnAnotherMachineIsRefused) {
  Run("enroll d address=/run:5432@aa\n durable\n up d");
  Expect("enroll d address=/run:5432@bb port=7009", "on machine aa; this one is");
  Run("down d");
  Expect("enroll d address=/run:5432@bb port=7009", "refused name-taken");
  Expect("crash\n enroll d address=/run:5432@bb port=7009", "refused name-taken");
  Expect("enroll d address=/run:5432@aa port=7009\n durable", "enrolled d");
  Expect("rebind d\n durable\n enroll d address=/run:5432@bb\n durable", "enrolled d");
}

// What was enrolled before machines were told goes on, and is of the machine that is told first;
// who does not tell one is let in, and changes nothing.
TEST_F(Laws, AnAddressWithoutAMachineMayBeOfAny) {
  Run("enroll d address=/run:5432\n durable\n up d");
  Expect("enroll d address=/run:5432@aa port=7009\n durable", "at='/run:5432@aa'");
  Expect("enroll d address=/run:5432@bb", "refused name-taken");
  // Found in review: a process on another machine, let in before, stayed connected.
  Run("enroll f address=/run:5432 port=7008\n durable\n up f");
  Expect("enroll f address=/run:5432@aa port=7009\n durable", "disconnect p4");
  Run("down d");
  Expect("enroll d address=/run:5432\n durable", "at='/run:5432@aa'");
  Expect("enroll d address=/run:5432@bb", "refused name-taken");
  // Without room for the record it is let in all the same.
  Run("enroll e address=/run:5432\n durable\n room no");
  Expect("enroll e address=/run:5432@aa", "enrolled e");
  Expect("room yes\n enroll e address=/run:5432@aa\n durable", "at='/run:5432@aa'");
}

// Found in review: what is appended beside commits was appended without room, too.
TEST_F(Laws, L15_NothingIsAppendedWithoutRoom) {
  Decide("1");
  Run("durable\n room no");
  for (const std::string ask : {"rebind c", "forget c", "enroll d", "lease 1", "order a 1"}) {
    Expect(ask, "not-serving");
    EXPECT_TRUE(Of<AppendRecord>(world.actions()).empty()) << ask;
  }
  Run("finished a 1 heuristic");
  EXPECT_TRUE(Of<AppendRecord>(world.actions()).empty());
  Expect("time +2000", "finish p0");  // asked again, so the answer comes again
  Expect("room yes\n finished a 1 heuristic\n durable", "heuristic 1-");
  Run("finished b 1\n durable");
  EXPECT_EQ(world.machine().unacknowledged(), 0u);
}

// Found in review: after a rebind, finishes that were owed went to the new database.
TEST_F(Laws, L13c_NoFinishGoesToAnotherDatabase) {
  Decide("1");
  Run("down a\n durable\n rebind a\n durable\n enroll a database=9999/5\n durable");
  ExpectNo("up a\n time +2000", "finish p0");
  EXPECT_EQ(world.machine().counters().hazards, 1u);
  Expect("finished b 1\n durable\n log", "hazard 1-0a0a0a01.1 at 0 'bound to another database");
  EXPECT_EQ(world.machine().unacknowledged(), 0u);
  Expect("outcome 1", "committed");
}

// Found by reading: with a branch known to be rolled back by hand, the client heard that all is
// applied.
TEST_F(Laws, L10_WhatEndedOtherwiseIsNotToldAsApplied) {
  Decide("1");
  Run("durable\n finished a 1 heuristic");
  Expect("finished b 1", "committed unapplied=a");
  Expect("durable\n outcome 1", "committed unapplied=a");
  Expect("crash\n ready a b c\n outcome 1.1", "committed unapplied=a");
}

// Nor are orders counted that do what was decided, or that are of another coordinator's
// transaction.
TEST_F(Laws, L10_AnOrderToCommitLeavesNothingUnapplied) {
  Decide("1");
  Run("durable\n finished a 1\n finished b 1\n durable");
  const Epoch epoch = world.machine().epoch();
  world.Feed(HeuristicAsked{0, {epoch, 1}, "a", OrderText(true, "ann", "tested")});
  world.Feed(HeuristicAsked{0,
                            {epoch, 1},
                            "b",
                            HeuristicText("bank-0123456789ab", {"shop-0123456789ab", {epoch, 1}},
                                          OrderText(false, "ann", "tested"))});
  Expect("durable\n outcome 1", "committed\n");
}

// Found by reading: a process that came back on another port waited for room, and with it what was
// decided.
TEST_F(Laws, L8_AnotherPortNeedsNoRoom) {
  Decide("1");
  Run("down b\n durable\n finished a 1\n room no");
  Expect("enroll b port=7009", "connect p1");
  EXPECT_TRUE(Of<AppendRecord>(world.actions()).empty());
  Expect("up b", "finish p1");
}

// The order is carried out when it was answered (coordinator_service); so this is what counts.
TEST_F(Laws, L13e_AnOrderIsDurableBeforeItIsAnswered) {
  ExpectNo("order a 1", "reply");
  const auto appended = Of<AppendRecord>(world.actions());
  ASSERT_EQ(appended.size(), 1u);
  EXPECT_TRUE(appended[0].force);
  Expect("durable", "done");
  const std::string kept = "heuristic 1-0a0a0a01.1 at 0 'ordered to abort by ann: tested'";
  Expect("log", kept);
  // For ever: also when the transaction is long forgotten.
  Run("time +90000000\n crash\n ready a b c");
  Expect("log", kept);
  ASSERT_EQ(world.machine().state().heuristics().size(), 1u);
}

TEST_F(Laws, L13e_ACrashBeforeLosesAnOrderThatNobodyWasTold) {
  ExpectNo("order a 1\n crash\n ready a b c\n durable", "done");
  EXPECT_TRUE(world.machine().state().heuristics().empty());
}

TEST_F(Laws, L13e_AnOrderThatCannotBeRecordedChangesNothing) {
  for (const std::string ask : {"order z 1", "room no\n order a 1"}) {
    Expect(ask, "refused");
    EXPECT_TRUE(Of<AppendRecord>(world.actions()).empty()) << ask;
  }
  Expect("order z 1", "refused not-serving retryable");
  Expect("room yes\n order z 1", "refused unknown-participant");
  Run("forget c\n durable");
  Expect("order c 1", "refused unknown-participant");
  EXPECT_EQ(world.machine().counters().heuristics, 0u);
  EXPECT_TRUE(world.machine().state().heuristics().empty());
}

TEST_F(Laws, L13c_AlsoWhenAllWereReboundWhileDeciding) {
  Run("rebind a\n rebind b\n durable");
  Decide("1");
  Run("enroll a database=9999/5\n enroll b database=9998/5");
  ExpectNo("durable\n up a b\n time +2000\n durable", "finish p");
  EXPECT_EQ(world.machine().counters().hazards, 2u);
  EXPECT_EQ(world.machine().unacknowledged(), 0u);
}

// A rebind with much owed: a step appends no more than the room that is kept for it.
TEST_F(Laws, L13c_ManyAtOnceAreSpread) {
  Run("lease 500");
  for (int s = 10; s < 310; ++s) {
    const std::string n = std::to_string(s);
    Run("commit " + n + " a wait=decided\n vote a " + n + " prepared=7" + n);
  }
  Run("down a\n durable\n rebind a\n durable\n enroll a database=9999/5\n durable\n up a");
  std::size_t steps = 0;
  while (world.machine().unacknowledged() > 0 && steps < 100) {
    Run("time +1");
    ++steps;
    EXPECT_LE(Of<AppendRecord>(world.actions()).size(), 2u * 64);
  }
  EXPECT_EQ(steps, 5u);
  EXPECT_EQ(world.machine().counters().hazards, 300u);
}

// Found in review: leases without end took memory without bound.
TEST_F(Laws, LiveLeasesAreBounded) {
  Run("open max_leased=1000\n ready a\n lease 600");
  Expect("lease 401", "refused overloaded");
  Expect("lease 400", "[601, 1001)");
  Expect("lease 1", "refused overloaded");
  Expect("time +30000\n lease 1000", "[1001, 2001)");
}

// Found by bench/log: 4,096 records were let go a second, and a busy coordinator's memory grew by
// all that came beyond.
TEST_F(Laws, L9a_RecordsGoAsFastAsTheyCame) {
  Run("open lease_ms=1000 record_ms=0\n ready a b c\n lease 5000");
  std::string commands;
  for (int i = 1; i <= 5000; ++i) {
    const std::string s = std::to_string(i);
    commands += "commit " + s + " a:m:1:voted=" + s + "\n durable\n finished a " + s + "\n";
  }
  Run(commands + "durable");
  EXPECT_EQ(world.machine().state().whole(), 5000u);
  Run("time +1100\n time +10\n time +10");
  EXPECT_EQ(world.machine().state().whole(), 0u);
}

TEST_F(Laws, L9a_AnOutcomeStaysForItsRetentionThenItIsExpired) {
  Decide("1");
  Run("durable\n finished a 1\n finished b 1\n durable\n time +86000000");
  Expect("outcome 1\n outcome 2", "committed");
  Run("time +3000000");
  ExpectNo("outcome 1\n outcome 2", "committed");
  Expect("outcome 1", "expired");
  Expect("outcome 2", "expired");  // never aborted: it can't be told from a committed one
}

TEST_F(Laws, L9a_TimeIsTheCoordinatorsRunningTime) {
  Decide("1");
  Run("durable\n finished a 1\n finished b 1\n durable\n time +300000\n lease 1");
  Decide("10");
  Run("durable");
  // The machine was off for however long: nothing of that counts.
  Run("crash\n ready a b c");
  EXPECT_EQ(world.now(), 300000);
  Expect("time +290000\n inquiry a 1.1:701", "1.1=committed:commit");
}

TEST_F(Laws, L9b_AnotherXidUnderTheSameIdNeverVoted) {
  Decide("1");
  Run("durable");
  Expect("inquiry a 1:701", "1=committed:commit");
  Expect("inquiry a 1:702", "1=committed:other-xid-abort");
  Expect("inquiry c 1:701", "1=committed:other-xid-abort");
}

TEST_F(Laws, L10_TheOutcomesOfOneTransactionAgree) {
  Run("commit 1 a b wait=decided\n commit 1 a b\n outcome 1 wait=9000\n vote a 1 prepared=700");
  Run("vote b 1 prepared=900\n durable\n finished a 1\n finished b 1\n outcome 1");
  for (const ReplyOutcome& reply : Of<ReplyOutcome>(world.actions())) {
    EXPECT_EQ(reply.kind, OutcomeKind::kCommitted);
  }
}

TEST_F(Laws, L10_CommittedNamesWhereItIsNotApplied) {
  Run("commit 1 a b c:m:1:read-only wait=decided\n vote a 1 prepared=700\n vote b 1 prepared=900\n"
      "vote c 1 read-only\n durable\n finished a 1\n outcome 1");
  const auto replies = Of<ReplyOutcome>(world.actions());
  ASSERT_EQ(replies.size(), 2u);
  EXPECT_THAT(replies[0].unapplied, testing::ElementsAre("a", "b"));
  EXPECT_THAT(replies[1].unapplied, testing::ElementsAre("b"));
}

TEST_F(Laws, L10_NoneYetIsNotAborted) {
  ExpectNo("key k", "aborted");
  Run("commit 1 a b key=k");
  ExpectNo("key k", "aborted");
}

TEST_F(Laws, L10_AtMostOneCommitBearsAKey) {
  Run("commit 1 a b key=k");
  Expect("commit 2 a b key=k", "aborted key-taken");
  Run("vote a 1 prepared=700\n vote b 1 prepared=900");
  Expect("commit 3 a b key=k", "aborted key-taken");
  Run("durable\n crash\n ready a b c\n lease 2");
  Expect("commit 1 a b key=k", "aborted key-taken");
  Expect("key k", "committed");
}

// Found in review: a list that named one participant thousands of times made as many messages.
TEST_F(Laws, AnAbortTellsEachParticipantOnce) {
  EXPECT_THAT(Run("abort 1 a b a a b"), testing::Not(testing::ContainsRegex("(finish[^f]*){3}")));
  EXPECT_THAT(Run("abort 2 a b a a b"), testing::ContainsRegex("(finish[^f]*){2}"));
}

// L11: whoever caused the abort, a later commit fails, with votes in hand too.
TEST_F(Laws, L11_EveryAbortBinds) {
  const std::string again = "a:m:1:voted=700 b:m:1:voted=900";
  Expect("abort 1 a b\n commit 1 " + again, "aborted ended");
  Expect("commit 2 a b\n vote a 2 refused\n commit 2 a b", "aborted ended");
  Expect("commit 3 a b deadline=+10\n time +10\n commit 3 a b", "aborted ended");
  Expect("commit 4 a:m:1:forged=700 b\n commit 4 a b", "aborted ended");
  Run("room no");
  Expect("commit 5 " + again + "\n room yes\n commit 5 " + again, "aborted ended");
  Run("durable");
  EXPECT_EQ(CommitRecords(world), 0u);
  // And whoever was told nothing at its lease's end.
  Expect("time +30000\n commit 6 " + again, "aborted not-leased");
  Run("durable");
  EXPECT_EQ(CommitRecords(world), 0u);
}

TEST_F(Laws, L11_ARefusalThatIsNoAbortLeavesTheIdUnheard) {
  Run("drain");  // in a world of its own: draining does not end
  Expect("commit 1 a b", "refused not-serving");
  Run("crash\n ready a b c\n lease 9");
  Expect("commit 1 a z\n commit 1 a b", "prepare p0 2-0a0a0a02.1");
}

TEST_F(Laws, L14_AnswersOnlyWhatTheLogSays) {
  Decide("1");
  Run("durable");
  Decide("2");
  Run("crash\n ready a b c");
  Expect("inquiry a 1.1:701 1.2:702 1.3:703",
         "1.1=committed:commit 1-0a0a0a01.2=aborted 1-0a0a0a01.3=aborted");
}

// Random commands, thousands of them, with the invariants checked after each step, and the
// outcomes that were told compared: no law in particular, all of them together.
TEST(LawsAtRandom, OutcomesNeverDisagree) {
  for (unsigned seed = 1; seed <= 40; ++seed) {
    std::mt19937 random(seed);
    auto below = [&random](unsigned n) { return static_cast<unsigned>(random() % n); };
    World world;
    world.Run("open lease_ms=3000 record_ms=4000\n ready a b c\n lease 20");
    int life = 1;
    std::map<LocalId, OutcomeKind> told;
    for (int i = 0; i < 400; ++i) {
      const std::string s = std::to_string(1 + below(12));
      const std::string of = std::to_string(life) + "." + s;
      const std::string p(1, static_cast<char>('a' + below(3)));
      std::string command;
      switch (below(15)) {
        case 0:
        case 1: command = "commit " + of + " a b" + (below(2) ? "" : " wait=decided"); break;
        case 2:
        case 3:
        case 4: command = "vote " + p + " " + of + " prepared=7" + s; break;
        case 5: command = "finished " + p + " " + of + (below(3) ? "" : " working"); break;
        case 6:
        case 7: command = "durable"; break;
        case 8: command = "time +" + std::to_string(below(500)); break;
        case 9: command = (below(2) ? "down " : "up ") + p; break;
        case 10: command = "up a b c"; break;
        case 11: command = below(6) == 0 ? "abort " + of : "outcome " + of; break;
        case 12: command = "inquiry " + p + " " + of + ":7" + s; break;
        case 13: command = below(3) ? "lease 3" : "durable 1"; break;
        case 14:
          if (below(8) == 0) {
            command = "crash keep=0\n ready a b c\n lease 12";
            ++life;
          } else {
            command = "vote " + p + " " + of + " refused";
          }
          break;
      }
      world.Run(command);
      for (const ReplyOutcome& reply : Of<ReplyOutcome>(world.actions())) {
        if (reply.kind != OutcomeKind::kCommitted && reply.kind != OutcomeKind::kAborted) continue;
        const auto [known, first] = told.emplace(reply.id.local, reply.kind);
        EXPECT_EQ(known->second, reply.kind)
            << "seed " << seed << ", " << reply.id.ToString() << ", after " << command;
      }
    }
    EXPECT_FALSE(told.empty());
  }
}

}  // namespace
}  // namespace troth
