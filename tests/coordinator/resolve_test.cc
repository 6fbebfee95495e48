// What may be settled by hand: every state, both orders, with and without the decision being lost.
#include "coordinator/resolve_service.h"

#include <set>
#include <string>

#include <gtest/gtest.h>

namespace troth {
namespace {

constexpr char kId[] = "bank-0123456789ab.1-00000001.5";

wire::TransactionReport Report(const std::string& state, const std::string& branch_state) {
  wire::TransactionReport report;
  report.transaction_id = kId;
  report.state = state;
  for (const char* name : {"east", "west"}) {
    wire::BranchReport& branch = report.branches.emplace_back();
    branch.participant = name;
    branch.gid = std::string("troth:") + name + ":" + kId;
    branch.state = branch_state;
    branch.up = true;
    branch.__isset.prepared = true;
    branch.prepared.xid = 700;
  }
  return report;
}

wire::ResolveRequest Order(bool commit, bool lost = false) {
  wire::ResolveRequest request;
  request.transaction_id = kId;
  request.commit = commit;
  request.who = "ann";
  request.reason = "because";
  request.decision_lost = lost;
  return request;
}

TEST(PlanResolve, NothingGoesAgainstARecordedDecision) {
  for (const char* state : {"committed", "deciding"}) {
    for (const bool lost : {false, true}) {
      const ResolvePlan plan = PlanResolve(Report(state, "prepared"), Order(false, lost));
      EXPECT_NE(plan.refused, "") << state;
      EXPECT_TRUE(plan.steps.empty() && !plan.bind_abort && !plan.settle && plan.branches.empty());
    }
    const ResolvePlan commit = PlanResolve(Report(state, "prepared"), Order(true));
    EXPECT_EQ(commit.refused, "");
    EXPECT_TRUE(commit.steps.empty()) << "it is delivered by itself";
  }
}

TEST(PlanResolve, NobodyCommitsAheadOfALivingCoordinator) {
  for (const char* state : {"preparing", "pending", "aborted"}) {
    for (const bool lost : {false, true}) {
      EXPECT_NE(PlanResolve(Report(state, "asked"), Order(true, lost)).refused, "") << state;
    }
  }
}

TEST(PlanResolve, AnAbortBindsFirst) {
  for (const char* state : {"preparing", "pending"}) {
    const ResolvePlan plan = PlanResolve(Report(state, "asked"), Order(false));
    EXPECT_EQ(plan.refused, "");
    EXPECT_TRUE(plan.bind_abort);
    EXPECT_FALSE(plan.settle) << "the machine rolls back";
    EXPECT_EQ(plan.branches.size(), 2u);
    EXPECT_EQ(plan.order, "ordered to abort by ann: because");
  }
  EXPECT_TRUE(PlanResolve(Report("aborted", "unheard-of"), Order(false)).steps.empty());
}

TEST(PlanResolve, ALostDecisionIsDeclared) {
  for (const char* state : {"expired", "not-mine"}) {
    for (const bool commit : {false, true}) {
      EXPECT_NE(PlanResolve(Report(state, "unheard-of"), Order(commit)).refused, "");
      const ResolvePlan plan = PlanResolve(Report(state, "unheard-of"), Order(commit, true));
      EXPECT_EQ(plan.refused, "");
      EXPECT_TRUE(plan.settle);
      EXPECT_FALSE(plan.bind_abort);
      EXPECT_EQ(plan.branches.size(), 2u);
    }
  }
}

// An order was answered "nothing to do" while the branch of a participant that was down held locks.
TEST(PlanResolve, WhoCouldNotBeAskedMayHoldIt) {
  for (const char* state : {"expired", "not-mine", "committed"}) {
    wire::TransactionReport report = Report(state, "unheard-of");
    wire::BranchReport& east = report.branches[0];
    east.state = "unknown";
    east.__isset.prepared = false;
    east.__set_unseen("it is down");
    ResolvePlan plan = PlanResolve(report, Order(true, true));
    EXPECT_EQ(plan.refused, "") << state << ": west holds it";
    ASSERT_EQ(plan.branches.size(), 1u) << state;
    EXPECT_EQ(plan.branches[0].participant, "west");
    EXPECT_EQ(plan.steps.size(), 1u);
    report.branches.pop_back();
    plan = PlanResolve(report, Order(true, true));
    EXPECT_NE(plan.refused.find("east (it is down)"), std::string::npos) << state << plan.refused;
    EXPECT_TRUE(plan.steps.empty() && plan.branches.empty());
    report.branches.clear();
    plan = PlanResolve(report, Order(true, true));
    EXPECT_TRUE(plan.refused.empty() && plan.steps.empty()) << "all were asked, none holds it";
  }
}

TEST(PlanResolve, CommittedWithoutItsRecordIsCommittedByOrder) {
  const ResolvePlan plan = PlanResolve(Report("committed", "unheard-of"), Order(true));
  EXPECT_EQ(plan.refused, "");
  EXPECT_TRUE(plan.settle);
  EXPECT_NE(PlanResolve(Report("committed", "unheard-of"), Order(false, true)).refused, "");
}

// The record names all branches of the commit: what else is held is aborted (law L9b).
TEST(PlanResolve, NoOrderCommitsWhatTheCommitDoesNotName) {
  wire::TransactionReport report = Report("committed", "left-out");
  EXPECT_TRUE(PlanResolve(report, Order(true)).steps.empty()) << "it is rolled back by itself";
  report.branches.front().state = "unheard-of";
  const ResolvePlan plan = PlanResolve(report, Order(true));
  ASSERT_EQ(plan.branches.size(), 1u);
  EXPECT_EQ(plan.branches.front().participant, "east");
}

TEST(PlanResolve, ATokenIsOfOneOrderInOneSituation) {
  std::set<std::string> tokens;
  const wire::TransactionReport report = Report("pending", "unheard-of");
  tokens.insert(PlanResolve(report, Order(false)).token);
  tokens.insert(PlanResolve(report, Order(true)).token);
  tokens.insert(PlanResolve(report, Order(false, true)).token);
  wire::ResolveRequest other = Order(false);
  other.reason = "another";
  tokens.insert(PlanResolve(report, other).token);
  wire::TransactionReport changed = report;
  changed.state = "preparing";
  tokens.insert(PlanResolve(changed, Order(false)).token);
  changed = report;
  changed.branches[1].__isset.prepared = false;
  tokens.insert(PlanResolve(changed, Order(false)).token);
  changed = report;
  changed.branches[0].prepared.xid = 701;
  tokens.insert(PlanResolve(changed, Order(false)).token);
  EXPECT_EQ(tokens.size(), 7u);
  EXPECT_EQ(PlanResolve(report, Order(false)).token, PlanResolve(report, Order(false)).token);
}

TEST(PlanResolve, AnOrderHasAGiverAndAReason) {
  wire::ResolveRequest request = Order(false);
  request.who.clear();
  EXPECT_NE(PlanResolve(Report("pending", "asked"), request).refused, "");
  request = Order(false);
  request.reason.clear();
  EXPECT_NE(PlanResolve(Report("pending", "asked"), request).refused, "");
  request.reason = std::string(100'000, 'r');
  EXPECT_LT(PlanResolve(Report("pending", "asked"), request).order.size(), 1000u);
}

// Found in review: whoever had an administrator's certificate gave orders in another's name.
TEST(PlanResolve, ACertificateSignsAndTheCallerOnlyAdds) {
  EXPECT_EQ(GiverOf("", "ann"), "ann");
  EXPECT_EQ(GiverOf("admin", ""), "admin");
  EXPECT_EQ(GiverOf("admin", "ann"), "admin (ann)");
  const std::string most = GiverOf("admin", std::string(1000, 'a'));
  EXPECT_EQ(most.size(), 128u);
  EXPECT_EQ(most.back(), ')');
  wire::ResolveRequest request = Order(false);
  request.who = most;
  EXPECT_NE(PlanResolve(Report("pending", "asked"), request).order.find("aaa): because"),
            std::string::npos);
}

}  // namespace
}  // namespace troth
