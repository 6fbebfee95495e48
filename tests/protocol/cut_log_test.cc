// Law L7d: what contradicts the log, what then no longer happens, and how an operator ends it.
#include "tests/protocol/laws_fixture.h"

namespace troth {
namespace {

class CutLog : public Laws {
 protected:
  void ExpectSuspect() {
    EXPECT_FALSE(world.machine().suspicion().empty());
    ExpectNo("lease 1", "lease 2-");
    Expect("outcome 1.1", "pending");
    Expect("inquiry b 1.1:1", "1.1=pending");
    const std::size_t before = CommitRecords(world);
    Run("commit 1 a b\n vote a 1 prepared=700\n vote b 1 prepared=900");
    EXPECT_EQ(CommitRecords(world), before);
  }
};

TEST_F(CutLog, L7d_BeyondTheEndOfItsEpoch) {
  Run("crash\n ready a b c\n lease 2\n enroll a saw=1@1");
  EXPECT_TRUE(world.machine().suspicion().empty());
  Run("enroll a saw=1@2");
  ExpectSuspect();
}

// Found by a transcript: an enrolment that came before the new epoch was durable was not
// compared, and absence was answered as abort.
TEST_F(CutLog, L7d_AlsoBeforeTheNewEpochIsDurable) {
  Run("crash\n enroll a saw=1@9");
  EXPECT_FALSE(world.machine().suspicion().empty());
  Run("ready b c\n durable");
  ExpectSuspect();
}

TEST_F(CutLog, L7d_AnEpochNeverBegun) {
  Run("crash\n ready a b c\n lease 2\n inquiry a saw=9-0badcafe@1 1.2:5");
  ExpectSuspect();
}

TEST_F(CutLog, L7d_TheSameNumberWithOtherBits) {
  Run("crash\n ready a b c\n lease 2\n enroll a saw=2-0badcafe@1");
  ExpectSuspect();
}

TEST_F(CutLog, L7d_BeyondThisEpochsOwnPosition) {
  Run("crash\n ready a b c\n lease 2\n enroll a saw=2@99");
  ExpectSuspect();
}

TEST_F(CutLog, L7d_APreparedIdAboveTheReserve) {
  Run("crash\n ready a b c\n lease 2\n inquiry a 1.10000:5");
  EXPECT_TRUE(world.machine().suspicion().empty());
  Run("inquiry a 1.10001:5");
  ExpectSuspect();
}

TEST_F(CutLog, L7d_RecordedCommitsAreStillDelivered) {
  Decide("1");
  Run("durable\n crash\n ready a\n enroll b saw=1@99");
  EXPECT_FALSE(world.machine().suspicion().empty());
  Expect("up b", "finish p1 1-0a0a0a01.1 commit");
  Expect("inquiry b 1.1:901", "1.1=committed:commit");
}

// Found by reading: leases that waited for the epoch's record were granted under suspicion.
TEST_F(CutLog, L7d_WhoeverWaitsForALeaseGetsNone) {
  Run("crash\n lease 1\n enroll a saw=1@99");
  ExpectNo("durable", "lease 2-");
}

TEST_F(CutLog, L7d_ADiscardedReportStaysDiscarded) {
  Run("crash\n ready a b c\n enroll a saw=1@99");
  Expect("discard-report a\n durable", "done");
  EXPECT_TRUE(world.machine().suspicion().empty());
  // Also when the participant moves, and over a restart.
  Run("enroll a port=7009\n durable\n enroll a port=7009 saw=1@99");
  EXPECT_TRUE(world.machine().suspicion().empty());
  Run("crash\n enroll a port=7009 saw=1@99");
  EXPECT_TRUE(world.machine().suspicion().empty());
}

TEST_F(CutLog, L7d_AnAcceptedGapIsNotMine) {
  Run("crash\n ready a b c\n inquiry a saw=1@99\n accept-gap\n durable");
  EXPECT_TRUE(world.machine().suspicion().empty());
  Expect("outcome 1.1", "not-mine");
  Expect("inquiry a 1.1:700 saw=1@99", "1.1=not-mine");
  Expect("lease 1", "lease 2-");
}

TEST_F(CutLog, L7d_AfterAGapTheNextEpochLiesAboveAllReported) {
  Run("crash\n ready a b c\n inquiry a saw=9-0badcafe@1\n accept-gap\n durable");
  ExpectNo("lease 1", "lease 2-");  // participants would refuse this epoch
  Run("crash\n ready a b c\n inquiry a saw=9-0badcafe@1");
  EXPECT_EQ(world.machine().epoch().number, 10u);
  Expect("lease 1", "lease 10-");
}

// Found in review: with such a gap accepted the next epoch had no number, and the log never opened.
TEST_F(CutLog, L7d_AGapLeavesNumbersForTheNextEpochs) {
  Run("crash\n ready a b c\n inquiry a saw=4294967295-0badcafe@1");
  Expect("accept-gap", "refused invalid \"a report names epoch 4294967295");
  EXPECT_FALSE(world.machine().suspicion().empty());
  Run("discard-report a\n durable");
  EXPECT_TRUE(world.machine().suspicion().empty());
  Run("crash\n ready a b c");
  EXPECT_EQ(world.machine().epoch().number, 3u);
}

// Found by reading: an epoch never begun is reported, and the log was cut before it: within the
// last epoch that it knows, whose lost commits were then answered as aborted.
TEST_F(CutLog, L7d_AGapBeginsInTheEpochThatWasCut) {
  Run("crash\n ready a b c\n inquiry a saw=9-0badcafe@1\n accept-gap\n durable");
  Run("crash\n ready a b c");
  EXPECT_TRUE(world.machine().suspicion().empty());
  Expect("outcome 1.1", "not-mine");
  Expect("inquiry b 1.1:901", "1.1=not-mine");
}

// Also when the coordinator was started once more before the order.
TEST_F(CutLog, L7d_AGapBeginsInTheEpochThatWasCutAlsoAfterARestart) {
  Run("crash\n ready a b c\n crash\n ready a b c\n inquiry a saw=2-0badcafe@1\n accept-gap\n "
      "durable");
  Run("crash\n ready a b c");
  Expect("outcome 1.1", "not-mine");
}

// Found by reading: of two contradictions in one inquiry the later one took the place of the other.
TEST_F(CutLog, L7d_AGapCoversAllThatContradicted) {
  Run("crash\n ready a b c\n crash\n ready a b c\n inquiry a saw=2@99 1.10001:5\n accept-gap\n "
      "durable");
  EXPECT_TRUE(world.machine().suspicion().empty());
  Expect("outcome 2.1", "not-mine");
  Run("inquiry a saw=2@99 1.10001:5");
  EXPECT_TRUE(world.machine().suspicion().empty());
}

// Found by reading: whoever was refused had its report thrown away, and asked as if it had none.
TEST_F(CutLog, L7d_WhoIsRefusedHasReported) {
  Run("crash\n ready a c");
  Expect("enroll b database=7009/5 saw=1@99", "refused name-taken");
  ExpectSuspect();
}

TEST_F(CutLog, L7d_WhoIsRefusedForWantOfRoomHasReported) {
  Run("rebind b\n durable\n crash\n ready a c\n room no");
  Expect("enroll b database=7009/5 saw=1@99", "no room");
  Run("room yes");
  ExpectSuspect();
}

// Found by reading: the record of its name may be what was lost with the end of the log.
TEST_F(CutLog, L7d_WhoIsNotRegisteredIsToldOfNoAbsence) {
  Run("crash\n ready a b c");
  Expect("inquiry d 1.1:700", "1.1=pending");
  Expect("enroll d\n durable\n inquiry d 1.1:700", "1.1=aborted");
}

// Found in review: what a forgotten participant had reported kept a true gap from being accepted.
TEST_F(CutLog, L7d_AForgottenReportTellsNothing) {
  Run("crash\n ready a b c\n inquiry a saw=4294967295-0badcafe@1\n forget a\n durable");
  EXPECT_TRUE(world.machine().suspicion().empty());
  Run("enroll b saw=9-0badcafe@1");
  Expect("accept-gap\n durable", "done");
}

}  // namespace
}  // namespace troth
