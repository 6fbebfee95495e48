// Laws L7c and L7d at a participant's link: no enrolment ends what was seen of a coordinator before
// that coordinator was told. Over a real socket; who answers is played.
#include <gtest/gtest.h>

#include <thread>

#include <thrift/protocol/TCompactProtocol.h>
#include <thrift/server/TThreadedServer.h>
#include <thrift/transport/TBufferTransports.h>
#include <thrift/transport/TServerSocket.h>

#include "CoordinatorPeer.h"
#include "participant/coordinator_link.h"
#include "tests/simulation/sim_resource_manager.h"
#include "troth_constants.h"

namespace troth {
namespace {

using apache::thrift::transport::TServerSocket;

constexpr char kMain[] = "main-0123456789ab", kOther[] = "other-0123456789ab";

// Notes what it is told, call by call; takes every enrolment. As a coordinator does, it overlooks
// what was seen of another.
class Peer : public wire::CoordinatorPeerIf {
 public:
  void enroll(wire::Enrolled& reply, const wire::Enrolment& enrolment) override {
    MutexLock lock(&mutex_);
    said_ += "enrol" + (enrolment.__isset.seen ? Text(enrolment.seen) : "") + ";";
    reply.version = wire::g_troth_constants.PROTOCOL_VERSION;
    reply.sender = sender_;
    reply.secret = "s";
  }
  void inquire(std::vector<wire::Answer>& reply, const std::string&,
               const std::vector<wire::Inquiry>& asked, const wire::Seen& seen) override {
    MutexLock lock(&mutex_);
    said_ += "report" + Text(seen) + ";";
    reply.resize(asked.size());
  }
  void Be(const std::string& name, std::int32_t epoch) {
    MutexLock lock(&mutex_);
    said_.clear();
    sender_.coordinator = name;
    sender_.epoch = epoch;
    sender_.epoch_random = 100 + epoch;
    sender_.position = 1;
  }
  std::string said() {
    MutexLock lock(&mutex_);
    return said_;
  }

 private:
  std::string Text(const wire::Seen& seen) TROTH_REQUIRES(mutex_) {
    if (seen.coordinator != sender_.coordinator) return "";
    return " " + std::to_string(seen.epoch) + "/" + std::to_string(seen.position);
  }

  Mutex mutex_;
  wire::Sender sender_ TROTH_GUARDED_BY(mutex_);
  std::string said_ TROTH_GUARDED_BY(mutex_);
};

class Event {
 public:
  void Raise() {
    {
      MutexLock lock(&mutex_);
      ++raised_;
    }
    changed_.NotifyAll();
  }
  void Wait() {
    MutexLock lock(&mutex_);
    while (raised_ == 0) changed_.Wait(&mutex_);
    --raised_;
  }

 private:
  Mutex mutex_;
  CondVar changed_;
  int raised_ TROTH_GUARDED_BY(mutex_) = 0;
};

// Serves a peer on a port of 127.0.0.1 while it lives.
class Server {
 public:
  Server(std::shared_ptr<Peer> peer, int port)
      : socket_(std::make_shared<TServerSocket>("127.0.0.1", port)),
        server_(std::make_shared<wire::CoordinatorPeerProcessor>(std::move(peer)), socket_,
                std::make_shared<apache::thrift::transport::TFramedTransportFactory>(),
                std::make_shared<apache::thrift::protocol::TCompactProtocolFactory>()) {
    const auto listening = std::make_shared<Listening>();
    server_.setServerEventHandler(listening);
    thread_ = std::thread([this] { server_.serve(); });
    listening->Wait();
  }
  ~Server() {
    server_.stop();
    thread_.join();
  }
  int port() { return socket_->getPort(); }

 private:
  struct Listening : apache::thrift::server::TServerEventHandler, Event {
    void preServe() override { Raise(); }
  };
  const std::shared_ptr<TServerSocket> socket_;
  apache::thrift::server::TThreadedServer server_;
  std::thread thread_;
};

class LinkTest : public testing::Test {
 protected:
  // What earlier lives of the participant noted.
  void Noted(const std::string& name, std::uint32_t epoch, std::uint64_t position) {
    ASSERT_TRUE(manager_.StoreSeen({name, epoch, 100 + epoch, position}).ok());
  }
  void Start() {
    Connect();
    link_->Start(1, 2);
    enrolled_.Wait();
  }
  void Connect() {
    ASSERT_TRUE(fence_.Load().ok());
    server_ = std::make_unique<Server>(peer_, 0);
    link_ = std::make_unique<CoordinatorLink>(
        "127.0.0.1:" + std::to_string(server_->port()), SelfDescription{"east", "i1", "h", 0, 0},
        &manager_, &fence_, &security_, [](const DatabaseState&) {}, [this] { enrolled_.Raise(); });
  }
  std::uint32_t NotedEpoch(const std::string& name) {
    const std::vector<SeenCoordinator> rows = *manager_.LoadSeen();
    for (const SeenCoordinator& row : rows) {
      if (row.coordinator == name) return row.epoch;
    }
    return 0;
  }

  SimDatabase database_{{"7", 5}};
  SimResourceManager manager_{&database_};
  EpochFence fence_{&manager_, SystemClock()};
  Security security_{SecurityOptions{}};
  Event enrolled_;
  const std::shared_ptr<Peer> peer_ = std::make_shared<Peer>();
  std::unique_ptr<Server> server_;
  std::unique_ptr<CoordinatorLink> link_;  // ends first
};

// The coordinator's log was cut, and the participant restarted: it knows two coordinators, and not
// yet which of them answers.
TEST_F(LinkTest, L7d_WhatWasSeenIsBroughtAlthoughTheNameWasNotKnown) {
  Noted(kMain, 3, 100);
  Noted(kOther, 5, 7);
  peer_->Be(kMain, 4);
  Start();
  EXPECT_EQ(peer_->said(), "report 3/100;report;enrol;enrol 3/100;")
      << "told before the first enrolment counts as heard, and enrolled with what was seen";
  EXPECT_EQ(NotedEpoch(kMain), 4u);
  EXPECT_EQ(NotedEpoch(kOther), 5u);
}

TEST_F(LinkTest, L7d_WhatWasSeenIsBroughtWhenAnotherAnswersAtTheAddress) {
  Noted(kMain, 3, 100);
  Noted(kOther, 5, 7);
  peer_->Be(kOther, 5);
  Start();
  EXPECT_EQ(peer_->said(), "report;report 5/7;enrol;");
  const int port = server_->port();
  server_.reset();
  fence_.Check({kMain, 4, 104, 1});  // it calls, too
  peer_->Be(kMain, 4);
  server_ = std::make_unique<Server>(peer_, port);
  enrolled_.Wait();
  EXPECT_EQ(peer_->said(), "report 3/100;enrol;enrol 3/100;");
  EXPECT_EQ(NotedEpoch(kMain), 4u);
  EXPECT_EQ(link_->coordinator(), kMain);
}

// Found by reading: a process that was refused asked about its branches as if it had seen nothing.
TEST_F(LinkTest, L7d_WhatWasSeenIsBroughtByWhoAsksBeforeItEnrols) {
  Noted(kMain, 3, 100);
  Noted(kOther, 5, 7);
  peer_->Be(kMain, 4);
  Connect();
  (void)link_->Inquire(std::vector<SweepInquiry>(1));
  EXPECT_EQ(peer_->said(), "report 3/100;report;report;");
  // Each time: it may have been overlooked, as what nobody who is registered says.
  (void)link_->Inquire(std::vector<SweepInquiry>(1));
  EXPECT_EQ(peer_->said(), "report 3/100;report;report;report 3/100;report;report;");
}

TEST_F(LinkTest, TheOneCoordinatorEverMetIsToldAtOnce) {
  Noted(kMain, 3, 100);
  peer_->Be(kMain, 4);
  Start();
  EXPECT_EQ(peer_->said(), "enrol 3/100;");
  EXPECT_EQ(NotedEpoch(kMain), 4u);
}

}  // namespace
}  // namespace troth
