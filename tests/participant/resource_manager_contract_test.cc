// The contract of ResourceManager, the same on PostgreSQL and on the simulated database.
#include <gtest/gtest.h>

#include "tests/participant/contract_world.h"

namespace troth {
namespace {

using std::chrono::milliseconds;
using Prepared = PrepareResult::Kind;
using Finished = FinishResult::Kind;

constexpr char kGid[] = "troth:east:main-0123456789ab.1-00000001.7";

class Contract : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override { world_ = GetParam() == "Sim" ? MakeSimWorld() : MakePostgresWorld(); }

  BeginOptions Options(const std::string& gid = kGid) {
    BeginOptions options;
    options.gid = gid;
    options.mark = "00000000000000aa";
    options.time_left = milliseconds(5'000);
    return options;
  }
  std::unique_ptr<Session> Begin(const BeginOptions& options) {
    Granted<std::unique_ptr<Session>> session = world_->manager()->Begin(options);
    EXPECT_TRUE(session.ok()) << session.refusal().message;
    return session.ok() ? std::move(*session) : nullptr;
  }
  PrepareResult Prepare(Session* session) {
    PrepareItem items[] = {{session, std::nullopt}};
    for (int i = 0; i < 100 && !items[0].result; ++i) {
      world_->manager()->Prepare(items, milliseconds(100));
    }
    EXPECT_TRUE(items[0].result.has_value());
    return *items[0].result;
  }
  // A branch that added 5 to key, prepared.
  Evidence PrepareOne(const std::string& key, const std::string& gid = kGid,
                      std::uint64_t* generation = nullptr) {
    std::unique_ptr<Session> session = Begin(Options(gid));
    EXPECT_FALSE(world_->Add(session.get(), key, 5).has_value());
    const PrepareResult result = Prepare(session.get());
    EXPECT_EQ(result.kind, Prepared::kPrepared) << result.refusal.message;
    if (generation != nullptr) *generation = result.generation;
    return result.evidence;
  }
  FinishResult Finish(FinishOrder order, ResourceManager* manager = nullptr) {
    if (manager == nullptr) manager = world_->manager();
    FinishItem items[] = {{std::move(order), {}}};
    for (int i = 0; i < 100; ++i) {
      manager->Finish(items, milliseconds(100));
      if (items[0].result.kind != Finished::kWorking) break;
    }
    return items[0].result;
  }
  FinishOrder Commit(const Evidence& evidence, const std::string& gid = kGid) {
    return {gid, true, evidence, {}, {}};
  }
  FinishOrder Abort(const std::string& gid = kGid) { return {gid, false, {}, {}, {}}; }

  std::unique_ptr<ContractWorld> world_;
};

TEST_P(Contract, PreparedBranchIsInvisibleUntilCommitted) {
  const Evidence evidence = PrepareOne("a");
  EXPECT_EQ(world_->PreparedCount(), 1u);
  EXPECT_EQ(world_->Read("a"), std::nullopt);
  EXPECT_GT(evidence.xid, 0u);
  EXPECT_GT(evidence.point.timeline, 0u);
  EXPECT_GT(evidence.point.position, 0u);
  EXPECT_EQ(Finish(Commit(evidence)).kind, Finished::kDone);
  EXPECT_EQ(world_->Read("a"), 5);
  EXPECT_EQ(world_->PreparedCount(), 0u);
}

TEST_P(Contract, PrepareTravelsWithTheOnlyStatement) {
  BeginOptions options = Options();
  options.with_first_statement = options.prepare_with_statement = true;
  std::unique_ptr<Session> session = Begin(options);
  EXPECT_FALSE(session->PrepareSent());
  EXPECT_FALSE(world_->AddAsStatement(session.get(), "a", 5));
  EXPECT_TRUE(session->PrepareSent());
  EXPECT_FALSE(session->Broken()) << "that the block is over is no fault";
  EXPECT_EQ(world_->PreparedCount(), 1u) << "before anybody asked";
  const PrepareResult result = Prepare(session.get());
  ASSERT_EQ(result.kind, Prepared::kPrepared);
  EXPECT_EQ(Finish(Commit(result.evidence)).kind, Finished::kDone);
  EXPECT_EQ(world_->Read("a"), 5);
}

TEST_P(Contract, PrepareIsSkippedWithTheOnlyStatement) {
  std::unique_ptr<Session> first = Begin(Options());
  EXPECT_FALSE(world_->Add(first.get(), "a", 1));
  BeginOptions options = Options("troth:east:main-0123456789ab.1-00000001.8");
  options.with_first_statement = options.prepare_with_statement = true;
  options.time_left = milliseconds(50);
  std::unique_ptr<Session> second = Begin(options);
  const std::optional<Refusal> refusal = world_->AddAsStatement(second.get(), "a", 1);
  ASSERT_TRUE(refusal.has_value());
  EXPECT_EQ(refusal->sqlstate, "55P03");
  EXPECT_FALSE(second->PrepareSent());
  second->Rollback();
  EXPECT_EQ(world_->PreparedCount(), 0u);
  EXPECT_EQ(Prepare(first.get()).kind, Prepared::kPrepared);
}

TEST_P(Contract, RolledBackPreparedBranchLeavesNothing) {
  PrepareOne("a");
  EXPECT_EQ(Finish(Abort()).kind, Finished::kDone);
  EXPECT_EQ(world_->Read("a"), std::nullopt);
  EXPECT_EQ(world_->PreparedCount(), 0u);
}

TEST_P(Contract, DroppedSessionLeavesNothing) {
  {
    std::unique_ptr<Session> session = Begin(Options());
    EXPECT_FALSE(world_->Add(session.get(), "a", 1));
  }
  std::unique_ptr<Session> again = Begin(Options());
  EXPECT_FALSE(world_->Add(again.get(), "a", 1)) << "its lock is gone";
  again->Rollback();
  EXPECT_EQ(world_->Read("a"), std::nullopt);
}

TEST_P(Contract, FinishIsSafeToRepeat) {
  const Evidence evidence = PrepareOne("a");
  EXPECT_EQ(Finish(Commit(evidence)).kind, Finished::kDone);
  EXPECT_EQ(Finish(Commit(evidence)).kind, Finished::kDone) << "the evidence says committed";
  EXPECT_EQ(world_->Read("a"), 5);
  EXPECT_EQ(Finish(Abort("troth:east:main-0123456789ab.1-00000001.8")).kind, Finished::kDone);
}

TEST_P(Contract, FinishManyAtOnce) {
  std::vector<FinishItem> items;
  for (int i = 0; i < 20; ++i) {
    const std::string gid = std::string(kGid) + std::to_string(i);
    const Evidence evidence = PrepareOne("k" + std::to_string(i), gid);
    items.push_back({i % 2 == 0 ? Commit(evidence, gid) : Abort(gid), {}});
  }
  for (int round = 0; round < 100; ++round) {
    world_->manager()->Finish(items, milliseconds(100));
    if (std::all_of(items.begin(), items.end(),
                    [](const FinishItem& i) { return i.result.kind == Finished::kDone; })) {
      break;
    }
  }
  for (int i = 0; i < 20; ++i) {
    EXPECT_EQ(items[static_cast<std::size_t>(i)].result.kind, Finished::kDone);
    EXPECT_EQ(world_->Read("k" + std::to_string(i)).has_value(), i % 2 == 0) << i;
  }
}

TEST_P(Contract, PrepareManyAtOnce) {
  std::vector<std::unique_ptr<Session>> sessions;
  std::vector<PrepareItem> items;
  for (int i = 0; i < 4; ++i) {
    sessions.push_back(Begin(Options(std::string(kGid) + std::to_string(i))));
    EXPECT_FALSE(world_->Add(sessions.back().get(), "k" + std::to_string(i), 1));
    if (i == 2) world_->FailStatement(sessions.back().get());
    items.push_back({sessions.back().get(), std::nullopt});
  }
  for (int round = 0; round < 100; ++round) world_->manager()->Prepare(items, milliseconds(10));
  for (int i = 0; i < 4; ++i) {
    ASSERT_TRUE(items[static_cast<std::size_t>(i)].result.has_value());
    EXPECT_EQ(items[static_cast<std::size_t>(i)].result->kind,
              i == 2 ? Prepared::kRefused : Prepared::kPrepared);
  }
  EXPECT_EQ(world_->PreparedCount(), 3u);
}

TEST_P(Contract, L12a_FailedBlockIsRefused) {
  std::unique_ptr<Session> session = Begin(Options());
  EXPECT_FALSE(world_->Add(session.get(), "a", 1));
  world_->FailStatement(session.get());
  ASSERT_TRUE(session->Broken().has_value());
  EXPECT_EQ(Prepare(session.get()).kind, Prepared::kRefused);
  EXPECT_EQ(world_->PreparedCount(), 0u);
}

TEST_P(Contract, L12b_CommittedBlockIsRefused) {
  for (const bool chain : {false, true}) {
    for (const bool commit : {false, true}) {
      std::unique_ptr<Session> session = Begin(Options());
      EXPECT_FALSE(world_->Add(session.get(), "a", 1));
      world_->EndBlock(session.get(), commit, chain);
      world_->Add(session.get(), "b", 1);
      EXPECT_EQ(Prepare(session.get()).kind, Prepared::kRefused) << commit << chain;
      EXPECT_EQ(world_->PreparedCount(), 0u);
    }
  }
}

TEST_P(Contract, L12b_LostConnectionStaysLost) {
  std::unique_ptr<Session> session = Begin(Options());
  EXPECT_FALSE(world_->Add(session.get(), "a", 1));
  world_->LoseConnection(session.get());
  for (int i = 0; i < 5; ++i) {
    EXPECT_TRUE(world_->Add(session.get(), "b", 1).has_value()) << "went on in another block";
  }
  EXPECT_TRUE(session->Broken().has_value());
  EXPECT_NE(Prepare(session.get()).kind, Prepared::kPrepared);
  session.reset();
  EXPECT_EQ(world_->Read("a"), std::nullopt);
  EXPECT_EQ(world_->Read("b"), std::nullopt);
  EXPECT_EQ(world_->PreparedCount(), 0u);
}

TEST_P(Contract, ReadOnlyBranchVotesReadOnlyAndKeepsToIt) {
  BeginOptions options = Options();
  options.read_only = true;
  std::unique_ptr<Session> session = Begin(options);
  EXPECT_EQ(Prepare(session.get()).kind, Prepared::kReadOnly);
  session = Begin(options);
  EXPECT_TRUE(world_->Add(session.get(), "a", 1).has_value());
  EXPECT_EQ(Prepare(session.get()).kind, Prepared::kRefused);
  EXPECT_EQ(world_->PreparedCount(), 0u);
}

TEST_P(Contract, LockTimeoutIsAConflictToRepeat) {
  std::unique_ptr<Session> first = Begin(Options());
  EXPECT_FALSE(world_->Add(first.get(), "a", 1));
  BeginOptions options = Options("troth:east:main-0123456789ab.1-00000001.8");
  options.time_left = milliseconds(50);
  std::unique_ptr<Session> second = Begin(options);
  const std::optional<Refusal> refusal = world_->Add(second.get(), "a", 1);
  ASSERT_TRUE(refusal.has_value());
  EXPECT_EQ(refusal->reason, Refused::kConflict);
  EXPECT_TRUE(refusal->retryable);
  EXPECT_EQ(refusal->sqlstate, "55P03");
}

TEST_P(Contract, GidInUseIsRefused) {
  const Evidence evidence = PrepareOne("a");
  std::unique_ptr<Session> session = Begin(Options());
  EXPECT_FALSE(world_->Add(session.get(), "b", 1));
  const PrepareResult result = Prepare(session.get());
  EXPECT_EQ(result.kind, Prepared::kRefused);
  EXPECT_EQ(result.refusal.sqlstate, "42710");
  EXPECT_EQ(Finish(Commit(evidence)).kind, Finished::kDone);
  EXPECT_EQ(world_->Read("a"), 5);
  EXPECT_EQ(world_->Read("b"), std::nullopt);
}

TEST_P(Contract, PreparedBranchSurvivesACrash) {
  const Evidence evidence = PrepareOne("a");
  world_->Restart();
  EXPECT_EQ(world_->PreparedCount(), 1u);
  EXPECT_EQ(Finish(Commit(evidence)).kind, Finished::kDone);
  EXPECT_EQ(world_->Read("a"), 5);
}

TEST_P(Contract, OpenBlockDoesNotSurviveACrash) {
  std::unique_ptr<Session> session = Begin(Options());
  EXPECT_FALSE(world_->Add(session.get(), "a", 1));
  world_->Restart();
  EXPECT_NE(Prepare(session.get()).kind, Prepared::kPrepared);
  session.reset();
  EXPECT_EQ(world_->PreparedCount(), 0u);
  std::unique_ptr<Session> fresh = Begin(Options());
  ASSERT_NE(fresh, nullptr) << "connections that broke meanwhile are replaced";
  EXPECT_FALSE(world_->Add(fresh.get(), "a", 1));
}

TEST_P(Contract, L13c_SettledByHandTheOtherWayIsAHeuristic) {
  const Evidence a = PrepareOne("a");
  world_->SettleByHand(kGid, false);
  EXPECT_EQ(Finish(Commit(a)).kind, Finished::kHeuristic);
  const Evidence b = PrepareOne("b");
  world_->SettleByHand(kGid, true);
  EXPECT_EQ(Finish({kGid, false, b, {}, {}}).kind, Finished::kHeuristic);
}

TEST_P(Contract, L13c_SettledByHandAsDecidedIsDone) {
  const Evidence a = PrepareOne("a");
  world_->SettleByHand(kGid, true);
  EXPECT_EQ(Finish(Commit(a)).kind, Finished::kDone);
}

TEST_P(Contract, L13c_FutureXidIsAHazard) {
  Evidence a = PrepareOne("a");
  EXPECT_EQ(Finish(Abort()).kind, Finished::kDone);
  a.xid += 1'000'000;
  EXPECT_EQ(Finish(Commit(a)).kind, Finished::kHazard);
}

TEST_P(Contract, L13b_PositionAheadOfTheLogIsAHazard) {
  Evidence a = PrepareOne("a");
  world_->SettleByHand(kGid, true);
  a.point.position += std::uint64_t{1} << 40;
  EXPECT_EQ(Finish(Commit(a)).kind, Finished::kHazard);
}

TEST_P(Contract, L13c_ForeignTimelineIsAHazard) {
  Evidence a = PrepareOne("a");
  world_->SettleByHand(kGid, true);
  a.point.timeline = 77;
  EXPECT_EQ(Finish(Commit(a)).kind, Finished::kHazard);
}

TEST_P(Contract, L13d_AnotherXidUnderTheGidIsRolledBack) {
  const Evidence first = PrepareOne("a");
  EXPECT_EQ(Finish(Commit(first)).kind, Finished::kDone);
  PrepareOne("b");  // a late duplicate, under the same GID
  std::unique_ptr<ResourceManager> fresh = world_->NewManager();
  EXPECT_EQ(Finish(Commit(first), fresh.get()).kind, Finished::kDone);
  EXPECT_EQ(world_->PreparedCount(), 0u);
  EXPECT_EQ(world_->Read("a"), 5);
  EXPECT_EQ(world_->Read("b"), std::nullopt) << "it never voted";
}

TEST_P(Contract, L13d_GenerationSparesTheComparisonAndEndsWithTheConnection) {
  std::uint64_t generation = 0;
  const Evidence first = PrepareOne("a", kGid, &generation);
  FinishOrder order = Commit(first);
  order.generation = generation;
  EXPECT_EQ(Finish(order).kind, Finished::kDone);
  world_->Restart();
  // The connections of the former life break here, at the latest.
  Begin(Options())->Rollback();
  PrepareOne("b");
  EXPECT_EQ(Finish(order).kind, Finished::kDone);
  EXPECT_EQ(world_->Read("b"), std::nullopt) << "an old generation was trusted";
  EXPECT_EQ(world_->PreparedCount(), 0u);
}

TEST_P(Contract, L14_AbortOfAnXidTouchesNoOther) {
  const Evidence a = PrepareOne("a");
  FinishOrder order = Abort();
  order.only_xid = static_cast<std::uint32_t>(a.xid) + 1;
  EXPECT_EQ(Finish(order).kind, Finished::kDone);
  EXPECT_EQ(world_->PreparedCount(), 1u);
  order.only_xid = static_cast<std::uint32_t>(a.xid);
  EXPECT_EQ(Finish(order).kind, Finished::kDone);
  EXPECT_EQ(world_->PreparedCount(), 0u);
}

TEST_P(Contract, ListsWhatIsPreparedUnderThePrefix) {
  const Evidence a = PrepareOne("a");
  PrepareOne("b", "troth:east-2:main-0123456789ab.1-00000001.7");
  const auto list = world_->manager()->ListPrepared("troth:east:");
  ASSERT_TRUE(list.ok());
  ASSERT_EQ((*list).size(), 1u);
  EXPECT_EQ((*list)[0].gid, kGid);
  EXPECT_EQ((*list)[0].xid, static_cast<std::uint32_t>(a.xid));
}

TEST_P(Contract, NotesOfCoordinatorsAreKeptAndNeverLowered) {
  const std::string name = "main-00000000" + std::to_string(1000 + getpid() % 9000);
  ASSERT_TRUE(world_->manager()->StoreSeen({name, 3, 9, 70}).ok());
  ASSERT_TRUE(world_->manager()->StoreSeen({name, 3, 9, 60}).ok());
  ASSERT_TRUE(world_->manager()->StoreSeen({name, 2, 8, 90}).ok());
  std::unique_ptr<ResourceManager> fresh = world_->NewManager();
  const auto seen = fresh->LoadSeen();
  ASSERT_TRUE(seen.ok());
  bool found = false;
  for (const SeenCoordinator& one : *seen) {
    if (one.coordinator != name) continue;
    found = true;
    EXPECT_EQ(one.epoch, 3u);
    EXPECT_EQ(one.epoch_random, 9u);
    EXPECT_EQ(one.position, 70u);
  }
  EXPECT_TRUE(found);
}

TEST_P(Contract, KnowsWhichDatabaseItIs) {
  const auto before = world_->manager()->Look();
  ASSERT_TRUE(before.ok());
  EXPECT_FALSE((*before).identity.system_identifier.empty());
  EXPECT_GT((*before).identity.oid, 0u);
  PrepareOne("a");
  const auto after = world_->manager()->Look();
  ASSERT_TRUE(after.ok());
  EXPECT_EQ((*after).identity, (*before).identity);
  EXPECT_GT((*after).point.position, (*before).point.position);
}

INSTANTIATE_TEST_SUITE_P(Sim, Contract, testing::Values("Sim"));
INSTANTIATE_TEST_SUITE_P(Postgres, Contract, testing::Values("Postgres"));

}  // namespace
}  // namespace troth
