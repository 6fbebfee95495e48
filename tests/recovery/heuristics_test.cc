// Whose transaction a heuristic tells of: our own ids, another coordinator's with the same number.
#include "recovery/heuristics.h"

#include <gtest/gtest.h>

namespace troth {
namespace {

constexpr char kOurs[] = "bank-0123456789ab";
constexpr char kOrder[] = "ordered to commit by ann: its log is lost";

HeuristicRecord Record(const TransactionId& id, const std::string& what) {
  return {id.local, 0, false, HeuristicText(kOurs, id, what), 1'700'000'000'000};
}

// Found in review: an order about another coordinator's transaction was shown with ours of the
// same epoch and sequence.
TEST(Heuristics, AnotherCoordinatorsIsNotTakenForOurs) {
  const TransactionId ours{kOurs, {{1, 0x0a0b0c0d}, 5}};
  const TransactionId theirs{"gone-0123456789ab", ours.local};
  const HeuristicRecord of_ours = Record(ours, kOrder), of_theirs = Record(theirs, kOrder);
  EXPECT_EQ(of_ours.what, kOrder);
  EXPECT_EQ(of_theirs.what,
            "another coordinator's gone-0123456789ab.1-0a0b0c0d.5: " + std::string(kOrder));
  EXPECT_EQ(TransactionOf(of_ours, kOurs), ours);
  EXPECT_EQ(TransactionOf(of_theirs, kOurs), theirs);
}

TEST(Heuristics, WhatAParticipantFoundIsOfOurs) {
  const TransactionId ours{kOurs, {{1, 0x0a0b0c0d}, 5}};
  for (const char* what :
       {"", "found rolled back", "another coordinator's ", "another coordinator's doing: ",
        "another coordinator's gone-0123456789ab.1-0a0b0c0d.6: another number"}) {
    EXPECT_EQ(TransactionOf(Record(ours, what), kOurs), ours) << what;
  }
}

}  // namespace
}  // namespace troth
