#include "common/failpoint.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <functional>

namespace troth {
namespace {

class FailpointTest : public testing::Test {
 protected:
  ~FailpointTest() override { failpoint::DisableAll(); }

  // Wait status of a child that ran `body` and then left with 0.
  static int RunInChild(const std::function<void()>& body, int options = 0) {
    const pid_t child = fork();
    if (child == 0) {
      body();
      _exit(0);
    }
    int status = 0;
    EXPECT_EQ(waitpid(child, &status, options), child);
    if (WIFSTOPPED(status)) {
      kill(child, SIGKILL);
      int end = 0;
      waitpid(child, &end, 0);
    }
    return status;
  }
};

TEST_F(FailpointTest, IsInertUnlessEnabled) {
  EXPECT_FALSE(TROTH_FAILPOINT("test-point"));
  ASSERT_TRUE(failpoint::Enable("test-other=error").ok());
  EXPECT_FALSE(TROTH_FAILPOINT("test-point"));
}

TEST_F(FailpointTest, ErrorTakesTheErrorBranchFromTheNthPassingOn) {
  ASSERT_TRUE(failpoint::Enable("test-point=error@3").ok());
  EXPECT_FALSE(TROTH_FAILPOINT("test-point"));
  EXPECT_FALSE(TROTH_FAILPOINT("test-point"));
  EXPECT_TRUE(TROTH_FAILPOINT("test-point"));
  EXPECT_TRUE(TROTH_FAILPOINT("test-point"));
  ASSERT_TRUE(failpoint::Enable("test-point=off").ok());
  EXPECT_FALSE(TROTH_FAILPOINT("test-point"));
}

TEST_F(FailpointTest, CrashKillsAndStopStops) {
  const int killed = RunInChild([] {
    (void)failpoint::Enable("test-point=crash@2");
    (void)TROTH_FAILPOINT("test-point");
    (void)TROTH_FAILPOINT("test-point");
  });
  EXPECT_TRUE(WIFSIGNALED(killed) && WTERMSIG(killed) == SIGKILL);
  const int stopped = RunInChild(
      [] {
        (void)failpoint::Enable("test-point=stop");
        (void)TROTH_FAILPOINT("test-point");
      },
      WUNTRACED);
  EXPECT_TRUE(WIFSTOPPED(stopped));
}

TEST_F(FailpointTest, PauseHoldsTheThread) {
  ASSERT_TRUE(failpoint::Enable("test-point=pause:20").ok());
  const auto before = std::chrono::steady_clock::now();
  EXPECT_FALSE(TROTH_FAILPOINT("test-point"));
  EXPECT_GE(std::chrono::steady_clock::now() - before, std::chrono::milliseconds(20));
}

TEST_F(FailpointTest, TheEnvironmentEnables) {
  ::setenv("TROTH_FAILPOINTS", "test-a=error;test-b=error@2", 1);
  ASSERT_TRUE(failpoint::EnableFromEnvironment().ok());
  ::unsetenv("TROTH_FAILPOINTS");
  EXPECT_TRUE(TROTH_FAILPOINT("test-a"));
  EXPECT_FALSE(TROTH_FAILPOINT("test-b"));
  EXPECT_TRUE(TROTH_FAILPOINT("test-b"));
}

TEST_F(FailpointTest, NonsenseIsNamed) {
  for (const char* spec : {"x", "=crash", "x=explode", "x=error@0", "x=pause:", "x=pause:-1"}) {
    const Status status = failpoint::Enable(spec);
    EXPECT_EQ(status.code(), Code::kInvalid) << spec;
    EXPECT_NE(status.message().find(spec), std::string::npos);
  }
}

}  // namespace
}  // namespace troth
