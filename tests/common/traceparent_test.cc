// What is a traceparent and what is none (W3C Trace Context).
#include "common/traceparent.h"

#include <string>

#include <gtest/gtest.h>

namespace troth {
namespace {

constexpr char kGood[] = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

TEST(TraceparentTest, TakesTheStandardsOwn) {
  EXPECT_TRUE(IsTraceparent(kGood));
  EXPECT_TRUE(IsTraceparent("cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00"));
}

TEST(TraceparentTest, PassesOverWhatIsNone) {
  const std::string good = kGood;
  EXPECT_FALSE(IsTraceparent(""));
  EXPECT_FALSE(IsTraceparent(good.substr(1)));
  EXPECT_FALSE(IsTraceparent(good + "0"));
  EXPECT_FALSE(IsTraceparent("ff" + good.substr(2)));
  EXPECT_FALSE(IsTraceparent("00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01"));
  EXPECT_FALSE(IsTraceparent("00-00000000000000000000000000000000-00f067aa0ba902b7-01"));
  EXPECT_FALSE(IsTraceparent("00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01"));
  // Nothing that a log or a statement would stumble over.
  for (std::size_t i = 0; i < good.size(); ++i) {
    for (const char bad : {'\'', '\n', ' ', '\0', 'g'}) {
      std::string text = good;
      text[i] = bad;
      EXPECT_FALSE(IsTraceparent(text)) << i;
    }
  }
}

}  // namespace
}  // namespace troth
