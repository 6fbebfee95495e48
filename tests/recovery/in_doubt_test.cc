// L6 and L9b, every combination of what may be known, against the laws' own words.
#include "recovery/in_doubt.h"

#include <gtest/gtest.h>

#include <set>
#include <string>

namespace troth {
namespace {

constexpr int kFacts = 11;

Knowledge FromBits(unsigned bits) {
  const auto bit = [bits](int i) { return (bits >> i & 1) != 0; };
  return Knowledge{bit(0), bit(1), bit(2), bit(3), bit(4), bit(5),
                   bit(6), bit(7), bit(8), bit(9), bit(10)};
}

std::string Text(const Knowledge& k) {
  return std::string("ours=") + (k.ours ? "1" : "0") + " begun=" + (k.epoch_begun ? "1" : "0") +
         " current=" + (k.epoch_current ? "1" : "0") +
         " reserved=" + (k.below_reserve ? "1" : "0") + " whole=" + (k.whole_record ? "1" : "0") +
         " bit=" + (k.committed_bit ? "1" : "0") + " below_line=" + (k.below_line ? "1" : "0") +
         " in_flight=" + (k.in_flight ? "1" : "0") + " lease_live=" + (k.lease_live ? "1" : "0") +
         " aborted=" + (k.aborted ? "1" : "0") + " log_whole=" + (k.log_whole ? "1" : "0");
}

// The laws as sets of answers that each sentence allows. An answer must be allowed by all
// sentences, and exactly one must be. Written from the text of the laws, not from the code.
using Answer = InDoubtAnswer;
using Answers = std::set<Answer>;
const Answers kAll = {Answer::kCommitted, Answer::kCommittedBit, Answer::kAborted,
                      Answer::kPending,   Answer::kExpired,      Answer::kNotMine};

Answers Without(Answers set, const Answers& taken) {
  for (const Answer answer : taken) set.erase(answer);
  return set;
}

Answers AllowedBy(const Knowledge& k) {
  Answers allowed = kAll;
  // "Asked about another mark, ... a coordinator says not mine."
  if (!k.ours) return {Answer::kNotMine};
  // "Whole record: commit for the recorded xid" (L9b); "recorded commits are still delivered",
  // whatever else is suspected of the log (L7d); and nothing but a record says so (L5).
  if (k.whole_record) return {Answer::kCommitted};
  allowed = Without(allowed, {Answer::kCommitted});
  // "Bit committed" is told as such.
  if (k.committed_bit) return {Answer::kCommittedBit};
  allowed = Without(allowed, {Answer::kCommittedBit});
  // "... or an epoch its log never began": not mine. An id above the reserve means a cut or a
  // restored log: no answer from its absence (L7d).
  if (!k.epoch_begun || !k.below_reserve) return {Answer::kNotMine};
  allowed = Without(allowed, {Answer::kNotMine});
  // "Absence of a record means abort only for an id that is not in flight": neither is anything
  // else said of it than that it is pending.
  if (k.in_flight) return {Answer::kPending};
  // "..., lies above the line of expired": below it, all without bit or record is expired.
  if (k.below_line) return {Answer::kExpired};
  allowed = Without(allowed, {Answer::kExpired});
  // "..., and belongs to an epoch this log began and that has ended, or to a lease that is
  // over": while its lease lives, an unheard one is pending, and "every abort binds" (L11).
  const bool over = !(k.epoch_current && k.lease_live);
  if (!over) return k.aborted ? Answers{Answer::kAborted} : Answers{Answer::kPending};
  // "the absence of a record means abort only in a log known to be whole" (L7d).
  if (!k.log_whole) allowed = Without(allowed, {Answer::kAborted});
  // Progress (L8): what may be settled is settled.
  if (k.log_whole) allowed = Without(allowed, {Answer::kPending});
  return allowed;
}

TEST(InDoubtTest, EveryCombinationOfKnowledgeHasTheAnswerOfTheLaws) {
  for (unsigned bits = 0; bits < 1u << kFacts; ++bits) {
    const Knowledge k = FromBits(bits);
    const Answers allowed = AllowedBy(k);
    ASSERT_EQ(allowed.size(), 1u) << Text(k);
    EXPECT_EQ(InDoubtAnswerName(Resolve(k)), InDoubtAnswerName(*allowed.begin())) << Text(k);
  }
}

// What must never happen, said once more as sentences about pairs of states.
TEST(InDoubtTest, LosingKnowledgeNeverTurnsAnAnswerAround) {
  for (unsigned bits = 0; bits < 1u << kFacts; ++bits) {
    const Knowledge k = FromBits(bits);
    const Answer answer = Resolve(k);
    // A commit known here is never told as abort once its record, and its bit, are gone,
    // provided the line has passed it (L9a).
    if (answer == Answer::kCommitted || answer == Answer::kCommittedBit) {
      Knowledge later = k;
      later.whole_record = later.committed_bit = false;
      later.in_flight = false;
      later.below_line = later.epoch_begun = later.below_reserve = true;
      EXPECT_EQ(Resolve(later), Answer::kExpired) << Text(k);
    }
    // An abort told stays abort when the epoch ends, until it expires.
    if (answer == Answer::kAborted) {
      Knowledge later = k;
      later.epoch_current = later.lease_live = later.aborted = false;
      later.log_whole = true;
      EXPECT_EQ(Resolve(later), Answer::kAborted) << Text(k);
    }
    // A log that is not whole settles nothing by absence.
    if (!k.log_whole && answer == Answer::kAborted) {
      EXPECT_TRUE(k.epoch_current && k.lease_live && k.aborted) << Text(k);
    }
  }
}

TEST(InDoubtTest, NamesAreStable) {
  EXPECT_EQ(InDoubtAnswerName(Answer::kCommitted), "committed");
  EXPECT_EQ(InDoubtAnswerName(Answer::kCommittedBit), "committed-bit");
  EXPECT_EQ(InDoubtAnswerName(Answer::kAborted), "aborted");
  EXPECT_EQ(InDoubtAnswerName(Answer::kPending), "pending");
  EXPECT_EQ(InDoubtAnswerName(Answer::kExpired), "expired");
  EXPECT_EQ(InDoubtAnswerName(Answer::kNotMine), "not-mine");
}

}  // namespace
}  // namespace troth
