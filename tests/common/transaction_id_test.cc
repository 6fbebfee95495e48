#include "common/transaction_id.h"

#include <gtest/gtest.h>

namespace troth {
namespace {

TEST(TransactionIdTest, TheLongestFitsAndComesBack) {
  TransactionId id{std::string(16, 'a') + "-0123456789ab",
                   {{4294967295u, 0xffffffffu}, kMaxSequence}};
  const std::string text = id.ToString();
  EXPECT_LE(text.size(), kMaxTransactionIdBytes);
  auto parsed = TransactionId::Parse(text);
  ASSERT_TRUE(parsed.ok()) << parsed.status().ToString();
  EXPECT_EQ(*parsed, id);
  EXPECT_LT(MakeGid(std::string(kMaxParticipantNameBytes, 'p'), id).size(), 200u);
}

TEST(TransactionIdTest, AcceptsOnlyItsOwnText) {
  const std::string good = "bank-0123456789ab.3-9c8d7e6f.17";
  ASSERT_TRUE(TransactionId::Parse(good).ok());
  EXPECT_EQ(TransactionId::Parse(good)->ToString(), good);
  for (const char* bad :
       {"", ".", "..", "bank.3-9c8d7e6f.17", "bank-0123456789ab.3-9c8d7e6f",
        "bank-0123456789ab.03-9c8d7e6f.17", "bank-0123456789ab.3-9c8d7e6.17",
        "bank-0123456789ab.3-9C8D7E6F.17", "bank-0123456789ab.3-9c8d7e6f.017",
        "bank-0123456789ab.3-9c8d7e6f.+17", "bank-0123456789ab.3-9c8d7e6f.17 ",
        "bank-0123456789ab.3-9c8d7e6f.100000000000000", "bank-0123456789AB.3-9c8d7e6f.17",
        "bank-0123456789ab.4294967296-9c8d7e6f.17", "-a-0123456789ab.3-9c8d7e6f.17"}) {
    EXPECT_FALSE(TransactionId::Parse(bad).ok()) << bad;
  }
}

TEST(TransactionIdTest, AGidBelongsToOneParticipant) {
  const TransactionId id{"bank-0123456789ab", {{3, 0x9c8d7e6f}, 17}};
  const std::string gid = MakeGid("a-b", id);
  EXPECT_EQ(gid, "troth:a-b:bank-0123456789ab.3-9c8d7e6f.17");
  EXPECT_EQ(*ParseGid("a-b", gid), id);
  EXPECT_FALSE(ParseGid("a", gid).ok());
  EXPECT_FALSE(ParseGid("a_b", gid).ok());
  EXPECT_FALSE(ParseGid("a-b", gid + "x").ok());
}

}  // namespace
}  // namespace troth
