// The code of a vote covers every field.
#include <gtest/gtest.h>

#include "common/vote_mac.h"

namespace troth {
namespace {

VoteClaims Claims() {
  VoteClaims claims;
  claims.transaction_id = "main-0123456789ab.1-00000001.7";
  claims.participant = "east";
  claims.system_identifier = "7000000000000000001";
  claims.database_oid = 5;
  claims.xid = 1000;
  claims.timeline = 1;
  claims.position = 4096;
  claims.works = 2;
  return claims;
}

TEST(VoteMac, CoversEveryField) {
  const std::string mac = MakeVoteMac("secret", Claims());
  EXPECT_EQ(mac.size(), kVoteMacBytes);
  EXPECT_TRUE(CheckVoteMac("secret", Claims(), mac));
  EXPECT_FALSE(CheckVoteMac("another", Claims(), mac));
  const auto changed = [&](auto change) {
    VoteClaims claims = Claims();
    change(claims);
    return CheckVoteMac("secret", claims, mac);
  };
  EXPECT_FALSE(changed([](VoteClaims& c) { c.transaction_id = "main-0123456789ab.1-00000001.8"; }));
  EXPECT_FALSE(changed([](VoteClaims& c) { c.participant = "west"; }));
  EXPECT_FALSE(changed([](VoteClaims& c) { c.system_identifier = "7000000000000000002"; }));
  EXPECT_FALSE(changed([](VoteClaims& c) { c.database_oid = 6; }));
  EXPECT_FALSE(changed([](VoteClaims& c) { c.xid = 1001; }));
  EXPECT_FALSE(changed([](VoteClaims& c) { c.timeline = 2; }));
  EXPECT_FALSE(changed([](VoteClaims& c) { c.position = 4097; }));
  EXPECT_FALSE(changed([](VoteClaims& c) { c.works = 1; }));
}

TEST(VoteMac, TextsDoNotRunIntoEachOther) {
  VoteClaims a = Claims();
  a.participant = "eas";
  a.system_identifier = "t7";
  VoteClaims b = Claims();
  b.participant = "east";
  b.system_identifier = "7";
  EXPECT_NE(MakeVoteMac("secret", a), MakeVoteMac("secret", b));
}

TEST(VoteMac, RefusesACodeOfAnotherLength) {
  const std::string mac = MakeVoteMac("secret", Claims());
  EXPECT_FALSE(CheckVoteMac("secret", Claims(), ""));
  EXPECT_FALSE(CheckVoteMac("secret", Claims(), mac.substr(0, 16)));
  EXPECT_FALSE(CheckVoteMac("secret", Claims(), mac + "x"));
}

}  // namespace
}  // namespace troth
