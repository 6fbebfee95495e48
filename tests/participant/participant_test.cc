// How a whole participant starts and ends, on a real server.
#include "participant/participant.h"

#include <chrono>
#include <future>
#include <thread>

#include <glog/logging.h>
#include <gtest/gtest.h>

#include "tests/postgres/private_cluster.h"

namespace troth {
namespace {

class NoService : public apache::thrift::TProcessor {
  bool process(std::shared_ptr<apache::thrift::protocol::TProtocol>,
               std::shared_ptr<apache::thrift::protocol::TProtocol>, void*) override {
    return false;
  }
};

// Holds who logs a line with these words, once, until it is told to let go.
class HeldLine : public google::LogSink {
 public:
  explicit HeldLine(std::string words) : words_(std::move(words)) { google::AddLogSink(this); }
  ~HeldLine() override { google::RemoveLogSink(this); }
  void AwaitLogged() { logged_.get_future().wait(); }
  void LetGo() { let_go_.set_value(); }

 private:
  void send(google::LogSeverity, const char*, const char*, int, const google::LogMessageTime&,
            const char* message, std::size_t size) override {
    found_ = std::string_view(message, size).find(words_) != std::string_view::npos;
  }
  void WaitTillSent() override {  // glog's locks are free here, unlike in send
    if (!std::exchange(found_, false)) return;
    logged_.set_value();
    let_go_.get_future().wait();
  }

  const std::string words_;
  static thread_local bool found_;
  std::promise<void> logged_, let_go_;
};
thread_local bool HeldLine::found_ = false;

std::unique_ptr<Participant> Open() {
  ParticipantOptions options;
  options.name = "east";
  options.conninfo = PrivateCluster::Given(1).conninfo();
  options.coordinators = {"127.0.0.1:1"};  // nobody
  Result<std::unique_ptr<Participant>> opened = Participant::Open(options);
  EXPECT_TRUE(opened.ok()) << opened.status().ToString();
  return *std::move(opened);
}

TEST(ParticipantTest, StopEndsAServe) {
  const std::unique_ptr<Participant> participant = Open();
  std::future<Status> served = std::async(
      std::launch::async, [&] { return participant->Serve(std::make_shared<NoService>(), false); });
  EXPECT_TRUE(participant->WaitUntilServing());
  participant->Stop();
  EXPECT_FALSE(participant->WaitUntilServing());
  EXPECT_TRUE(served.get().ok());
}

TEST(ParticipantTest, StoppedBeforeItServes) {
  const std::unique_ptr<Participant> participant = Open();
  participant->Stop();
  EXPECT_FALSE(participant->WaitUntilServing());
  EXPECT_TRUE(participant->Serve(std::make_shared<NoService>(), false).ok());
  EXPECT_EQ(participant->port(), 0) << "it listens all the same";
}

// Stop took a Serve that was still starting for one that never was, and returned: whoever then
// destroyed the participant took it away from under it.
TEST(ParticipantTest, StopWaitsForAServeThatStarts) {
  const std::unique_ptr<Participant> participant = Open();
  HeldLine starting("serves applications on");
  std::future<Status> served = std::async(
      std::launch::async, [&] { return participant->Serve(std::make_shared<NoService>(), false); });
  starting.AwaitLogged();
  std::future<void> stopped = std::async(std::launch::async, [&] { participant->Stop(); });
  const bool waits =
      stopped.wait_for(std::chrono::milliseconds(200)) == std::future_status::timeout;
  EXPECT_TRUE(waits) << "Stop returned, and Serve goes on";
  if (waits) {
    EXPECT_FALSE(participant->WaitUntilServing());
  }
  starting.LetGo();
  EXPECT_TRUE(served.get().ok());
  stopped.get();
}

}  // namespace
}  // namespace troth
