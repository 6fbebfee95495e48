// What the service of a participant does beyond the table: how long the calls of a coordinator
// wait. On the simulated database, through the processor, without sockets or time. Law L8.
#include <gtest/gtest.h>

#include <set>
#include <utility>

#include <thrift/transport/TBufferTransports.h>

#include "ParticipantPeer.h"
#include "participant/participant_service.h"
#include "tests/simulation/sim_resource_manager.h"
#include "wire/protocol.h"

namespace troth {
namespace {

using apache::thrift::transport::TMemoryBuffer;
using std::chrono::milliseconds;

// Some sessions do not answer PREPARE; what was waited for each time is noted.
class SlowManager : public SimResourceManager {
 public:
  using SimResourceManager::SimResourceManager;

  void Prepare(std::span<PrepareItem> items, milliseconds wait) override {
    asked.emplace_back(items.size(), wait);
    for (PrepareItem& item : items) {
      if (!slow.contains(item.session)) SimResourceManager::Prepare({&item, 1}, wait);
    }
  }

  using Asked = std::vector<std::pair<std::size_t, milliseconds>>;
  std::set<const Session*> slow;
  Asked asked;  // how many, and how long
};

class ServiceTest : public testing::Test {
 protected:
  ServiceTest() {
    context_.participant = "east";
    context_.instance = "i1";
    context_.database = {"7", 5};
    context_.table = &table_;
    context_.fence = &fence_;
  }

  static std::string Id(const std::string& t) { return "main-0123456789ab.1-00000001." + t; }

  void Work(const std::string& t, bool slow) {
    WorkRequest request;
    request.transaction_id = Id(t);
    request.time_left = milliseconds(5'000);
    Granted<troth::Work> work = table_.StartWork(request);
    ASSERT_TRUE(work.ok());
    if (slow) manager_.slow.insert(work->session);
    ASSERT_FALSE(static_cast<SimSession*>(work->session)->Add(t, 1));
    Granted<WorkReply> reply = table_.EndWork(*work, std::nullopt, false);
    ASSERT_TRUE(reply.ok());
    marks_[t] = reply->mark;
  }

  // One call for all of them; P: prepared, W: working.
  std::string Prepare(const std::vector<std::string>& transactions) {
    manager_.asked.clear();
    const auto in = std::make_shared<TMemoryBuffer>(), out = std::make_shared<TMemoryBuffer>();
    using apache::thrift::transport::TTransport;
    wire::ParticipantPeerClient client(BoundedProtocol<TTransport>(out),
                                       BoundedProtocol<TTransport>(in));
    wire::Sender sender;
    sender.coordinator = "main-0123456789ab";
    sender.epoch = sender.epoch_random = 1;
    std::vector<wire::PrepareRequest> list;
    for (const std::string& t : transactions) {
      wire::PrepareRequest& one = list.emplace_back();
      one.transaction_id = Id(t);
      one.mark = marks_[t];
      one.works = 1;
      one.deadline_ms = 5'000;
      one.instance = "i1";
    }
    client.send_prepare(sender, list);
    processor_->process(BoundedProtocol<TTransport>(in), BoundedProtocol<TTransport>(out), nullptr);
    std::vector<wire::PrepareReply> replies;
    client.recv_prepare(replies);
    std::string votes;
    for (std::size_t i = 0; i < replies.size(); ++i) {
      EXPECT_EQ(replies[i].transaction_id, Id(transactions[i]));
      const auto ballot = replies[i].vote.ballot;
      votes += ballot == wire::Ballot::PREPARED ? 'P' : ballot == wire::Ballot::WORKING ? 'W' : '?';
    }
    return votes;
  }

  SimDatabase database_{{"7", 5}};
  SlowManager manager_{&database_};
  std::uint64_t drawn_ = 0;
  BranchTable table_{
      {"east", "i1", 100, milliseconds(30'000), 100}, &manager_, SystemClock(), [this] {
        return ++drawn_;
      }};
  EpochFence fence_{&manager_, SystemClock()};
  ServiceContext context_;
  std::shared_ptr<apache::thrift::TProcessor> processor_ = MakePeerProcessor(&context_);
  std::map<std::string, std::string> marks_;
};

TEST_F(ServiceTest, L8_ASlowBranchThatIsAskedForAgainHoldsNoOtherUp) {
  for (const char* t : {"1", "2", "3"}) Work(t, /*slow=*/false);
  Work("9", /*slow=*/true);
  EXPECT_EQ(Prepare({"1", "9"}), "PW");
  EXPECT_EQ(manager_.asked, (SlowManager::Asked{{2, kEntryWait}})) << "nobody knew";
  EXPECT_EQ(Prepare({"2", "9", "3"}), "PWP") << "in the order of the requests";
  EXPECT_EQ(manager_.asked, (SlowManager::Asked{{1, milliseconds(0)}, {2, kEntryWait}}));
  EXPECT_EQ(Prepare({"9"}), "W");
  EXPECT_EQ(manager_.asked, (SlowManager::Asked{{1, kSlowEntryWait}})) << "it is not polled";
  manager_.slow.clear();
  EXPECT_EQ(Prepare({"9"}), "P");
  Work("4", /*slow=*/false);
  EXPECT_EQ(Prepare({"4", "9"}), "PP");
  EXPECT_EQ(manager_.asked, (SlowManager::Asked{{1, kEntryWait}})) << "voted: asked no more";
}

TEST(RefusalOnTheWire, SaysWhereNothingWasBegun) {
  Refusal refusal{Refused::kOverloaded, "full", true, ""};
  EXPECT_FALSE(ToWire(refusal).__isset.unheard);
  refusal.unheard = true;
  EXPECT_TRUE(ToWire(refusal).__isset.unheard && ToWire(refusal).unheard);
}

}  // namespace
}  // namespace troth
