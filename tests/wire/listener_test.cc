// The listener of Thrift when the process runs out of what it needs, over real sockets. Knows no
// certificate: that is security_test.cc.
#include "wire/listener.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <condition_variable>
#include <mutex>
#include <string>

#include <glog/logging.h>
#include <gtest/gtest.h>
#include <thrift/transport/TBufferTransports.h>
#include <thrift/transport/TSocket.h>

#include "Participant.h"

namespace troth {
namespace {

using apache::thrift::transport::TFramedTransport;
using apache::thrift::transport::TSocket;
using apache::thrift::transport::TTransport;

class Handler : public wire::ParticipantIf {
 public:
  void hello(wire::ParticipantHello& reply, std::int32_t) override { reply.participant = "it"; }
};

// Waits for a line of the log.
class Line : public google::LogSink {
 public:
  explicit Line(std::string words) : words_(std::move(words)) { google::AddLogSink(this); }
  ~Line() override { google::RemoveLogSink(this); }
  bool Await() {
    std::unique_lock<std::mutex> lock(mutex_);
    return changed_.wait_for(lock, std::chrono::seconds(10), [&] { return seen_; });
  }
  void send(google::LogSeverity, const char*, const char*, int, const google::LogMessageTime&,
            const char* text, std::size_t size) override {
    if (std::string(text, size).find(words_) == std::string::npos) return;
    const std::lock_guard<std::mutex> lock(mutex_);
    seen_ = true;
    changed_.notify_all();
  }

 private:
  const std::string words_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool seen_ = false;
};

class ListenerTest : public testing::Test {
 protected:
  void SetUp() override {
    const Status started = listener_.Start();
    ASSERT_TRUE(started.ok()) << started.message();
  }
  // On a connection that stays open as long as `socket` is.
  std::string Hello(const std::shared_ptr<TSocket>& socket) {
    socket->setRecvTimeout(10'000);
    wire::ParticipantClient client(
        BoundedProtocol<TTransport>(std::make_shared<TFramedTransport>(socket)));
    try {
      wire::ParticipantHello reply;
      client.hello(reply, 1);
      return reply.participant;
    } catch (const apache::thrift::TException& e) {
      return std::string("lost: ") + e.what();
    }
  }
  // Of a connection on `fd`, which it closes.
  std::string Hello(int fd) { return Hello(std::make_shared<TSocket>(fd)); }
  static int Socket() { return socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0); }
  void Dial(int fd) {
    sockaddr_in to{};
    to.sin_family = AF_INET;
    to.sin_port = htons(static_cast<std::uint16_t>(listener_.port()));
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    ASSERT_EQ(connect(fd, reinterpret_cast<sockaddr*>(&to), sizeof to), 0);
  }

  Listener listener_{{.what = "tests"},
                     std::make_shared<wire::ParticipantProcessor>(std::make_shared<Handler>())};
};

// Found in review: one accept() without a descriptor ended the listener for good, and closed all
// of its connections, while the process went on and called itself ready.
TEST_F(ListenerTest, OutlivesALackOfDescriptors) {
#ifdef __SANITIZE_ADDRESS__
  GTEST_SKIP() << "the sanitizer looks at what is thrown through a pipe, which takes descriptors";
#endif
  const int before = Socket(), waiting = Socket(), after = Socket();
  Dial(before);
  Line told("no connection of tests can be taken");
  rlimit former{};
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &former), 0);
  const int next = fcntl(0, F_DUPFD, 0);
  close(next);
  const rlimit none{static_cast<rlim_t>(next), former.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &none), 0);
  Dial(waiting);
  const bool heard = told.Await();
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &former), 0);
  EXPECT_TRUE(heard);
  EXPECT_EQ(Hello(before), "it");
  EXPECT_EQ(Hello(waiting), "it");
  Dial(after);
  EXPECT_EQ(Hello(after), "it");
}

// Found in review: a connection for which there was no thread ended the process.
TEST_F(ListenerTest, OutlivesALackOfThreads) {
  const int before = Socket(), refused = Socket(), after = Socket();
  Dial(before);
  const auto held = std::make_shared<TSocket>(before);
  EXPECT_EQ(Hello(held), "it");
  Line told("there is no thread for it");
  pthread_attr_t former, none;
  ASSERT_EQ(pthread_getattr_default_np(&former), 0);
  ASSERT_EQ(pthread_attr_init(&none), 0);
  ASSERT_EQ(pthread_attr_setstacksize(&none, std::size_t{1} << 46), 0);  // more than there is
  ASSERT_EQ(pthread_setattr_default_np(&none), 0);
  Dial(refused);
  EXPECT_EQ(Hello(refused).substr(0, 4), "lost");
  EXPECT_TRUE(told.Await());
  ASSERT_EQ(pthread_setattr_default_np(&former), 0);
  EXPECT_EQ(Hello(held), "it");
  Dial(after);
  EXPECT_EQ(Hello(after), "it");
  listener_.Stop();  // waits for nobody who never came
}

}  // namespace
}  // namespace troth
