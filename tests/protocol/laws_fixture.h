// The machine with three participants and a lease, for the law tests.
#pragma once

#include <algorithm>
#include <string>
#include <variant>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/protocol/world.h"

namespace troth {

template <typename T>
std::vector<T> Of(const Actions& actions) {
  std::vector<T> found;
  for (const Action& action : actions) {
    if (const T* a = std::get_if<T>(&action)) found.push_back(*a);
  }
  return found;
}

inline std::size_t CommitRecords(const World& world) {
  return static_cast<std::size_t>(
      std::count_if(world.handed_over().begin(), world.handed_over().end(),
                    [](const LogRecord& r) { return std::holds_alternative<CommitRecord>(r); }));
}

class Laws : public testing::Test {
 protected:
  Laws() { world.Run("open\n ready a b c\n lease 9"); }
  std::string Run(std::string_view commands) { return world.Run(commands); }
  // Runs, and says whether what came out contains `text`.
  void Expect(std::string_view commands, const std::string& text) {
    EXPECT_THAT(Run(commands), testing::HasSubstr(text)) << "after: " << commands;
  }
  void ExpectNo(std::string_view commands, const std::string& text) {
    EXPECT_THAT(Run(commands), testing::Not(testing::HasSubstr(text))) << "after: " << commands;
  }
  // Both branches of S prepared and its record handed over.
  void Decide(const std::string& s) {
    Run("commit " + s + " a b\n vote a " + s + " prepared=70" + s + "\n vote b " + s +
        " prepared=90" + s);
  }
  World world;
};

}  // namespace troth
