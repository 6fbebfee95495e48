// Where the time of a slow transaction went, as its line tells it.
#include "coordinator/slow_line.h"

#include <gtest/gtest.h>

namespace troth {
namespace {

using What = Happening::What;

constexpr std::int64_t kMs = 1'000'000;
const std::vector<std::string> kNames = {"east", "west"};

Happening At(std::int64_t ms, What what, ParticipantIndex participant = 0) {
  Happening happening;
  happening.at_ns = (1'000 + ms) * kMs;
  happening.participant = participant;
  happening.what = what;
  return happening;
}

std::string Line(const std::vector<Happening>& happenings, std::int64_t now_ms) {
  return WhereTimeWent(happenings, kNames, (1'000 + now_ms) * kMs);
}

TEST(SlowLineTest, NamesEachPhaseOfACommit) {
  EXPECT_EQ(
      Line({At(0, What::kCommitAsked), At(0, What::kPrepareSent, 0), At(0, What::kPrepareSent, 1),
            At(3, What::kVotedPrepared, 1), At(1500, What::kVotedPrepared, 0),
            At(1500, What::kDecided), At(1504, What::kDurable), At(1504, What::kFinishSent, 0),
            At(1504, What::kFinishSent, 1), At(1514, What::kAcknowledged, 0),
            At(1516, What::kAcknowledged, 1)},
           1517),
      "prepare 1500 (east 1500, west 3), log 4, finish 12 (east 10, west 12), answer 1");
}

TEST(SlowLineTest, NamesWhoHasNotAnswered) {
  EXPECT_EQ(Line({At(0, What::kCommitAsked), At(0, What::kPrepareSent, 0),
                  At(0, What::kPrepareSent, 1), At(3, What::kVotedPrepared, 0)},
                 5000),
            "prepare 5000 (east 3, west no vote), answer 0");
  EXPECT_EQ(
      Line({At(0, What::kCommitAsked), At(0, What::kPrepareSent, 0), At(2, What::kVotedPrepared, 0),
            At(2, What::kDecided), At(4, What::kDurable), At(4, What::kFinishSent, 0)},
           5004),
      "prepare 2 (east 2), log 2, finish 5000 (east not acknowledged), answer 0");
}

TEST(SlowLineTest, CountsFromTheFirstCall) {
  EXPECT_EQ(
      Line({At(0, What::kCommitAsked), At(0, What::kPrepareSent, 0), At(900, What::kCommitAsked),
            At(1000, What::kVotedRefused, 0), At(1000, What::kAborted)},
           1200),
      "prepare 1000 (east 1000), answer 200");
  // Waits for the log, as its answer does.
  EXPECT_EQ(Line({At(0, What::kCommitAsked), At(0, What::kPrepareSent, 0),
                  At(1, What::kVotedPrepared, 0), At(1, What::kDecided)},
                 700),
            "prepare 1 (east 1), log 699, answer 0");
  EXPECT_EQ(Line({}, 5), "");
}

}  // namespace
}  // namespace troth
