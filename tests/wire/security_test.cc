// Roles, certificates and the listener that asks for them, over real sockets; certificates are
// made by scripts/dev-certs.
#include "wire/security.h"

#include <netinet/in.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <future>
#include <mutex>
#include <thread>
#include <vector>

#include <glog/logging.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <thrift/TApplicationException.h>
#include <thrift/transport/TBufferTransports.h>
#include <thrift/transport/TTransportException.h>

#include "Participant.h"
#include "wire/certificate_finding.h"
#include "wire/doorkeeper.h"
#include "wire/guard.h"
#include "wire/listener.h"
#include "wire/socket.h"

namespace troth {
namespace {

using apache::thrift::transport::TFramedTransport;
using apache::thrift::transport::TTransport;
using apache::thrift::transport::TTransportException;
using std::chrono::milliseconds;
using std::chrono::steady_clock;
using testing::AllOf;
using testing::HasSubstr;
using testing::StartsWith;

// ---- Roles.

std::string WhyNot(const Roles& roles, const std::string& name, Role role,
                   const std::string& object = "") {
  return roles.WhyNot(name, role, object).value_or("allowed");
}

TEST(RolesTest, SayWhoMayDoWhat) {
  const Result<Roles> roles = Roles::Parse(
      "# comment\n"
      "teller client east west  # two of them\n"
      "chief client *\n"
      "east participant\n"
      "two participant west north\n"
      "bank coordinator bank\n"
      "any coordinator\n"
      "alice administrator\n"
      "alice client east\n");
  ASSERT_TRUE(roles.ok()) << roles.status().message();
  EXPECT_EQ(WhyNot(*roles, "teller", Role::kClient), "allowed");
  EXPECT_EQ(WhyNot(*roles, "teller", Role::kClient, "west"), "allowed");
  EXPECT_THAT(WhyNot(*roles, "teller", Role::kClient, "north"),
              HasSubstr("may not use participant 'north'"));
  EXPECT_THAT(WhyNot(*roles, "teller", Role::kClient, "*"), HasSubstr("may not use"));
  EXPECT_EQ(WhyNot(*roles, "chief", Role::kClient, "north"), "allowed");
  EXPECT_EQ(WhyNot(*roles, "east", Role::kParticipant, "east"), "allowed");
  EXPECT_THAT(WhyNot(*roles, "east", Role::kParticipant, "west"),
              HasSubstr("not that of participant 'west'"));
  EXPECT_EQ(WhyNot(*roles, "two", Role::kParticipant, "north"), "allowed");
  EXPECT_THAT(WhyNot(*roles, "two", Role::kParticipant, "two"), HasSubstr("not that of"));
  EXPECT_EQ(WhyNot(*roles, "bank", Role::kCoordinator, "bank-0123456789ab"), "allowed");
  EXPECT_THAT(WhyNot(*roles, "bank", Role::kCoordinator, "other-0123456789ab"),
              HasSubstr("not that of coordinator"));
  EXPECT_EQ(WhyNot(*roles, "any", Role::kCoordinator, "other-0123456789ab"), "allowed");
  EXPECT_EQ(WhyNot(*roles, "alice", Role::kAdministrator), "allowed");
  EXPECT_EQ(WhyNot(*roles, "alice", Role::kClient, "east"), "allowed");
  EXPECT_THAT(WhyNot(*roles, "alice", Role::kCoordinator), HasSubstr("role coordinator"));
  EXPECT_THAT(WhyNot(*roles, "mallory", Role::kClient), HasSubstr("stands in no line"));
  EXPECT_THAT(WhyNot(*roles, "", Role::kClient), HasSubstr("stands in no line"));
}

TEST(RolesTest, WrongLinesAreNamed) {
  EXPECT_THAT(Roles::Parse("\nx king\n").status().message(), HasSubstr("line 2: 'king'"));
  EXPECT_THAT(Roles::Parse("x\n").status().message(), HasSubstr("line 1: ''"));
  EXPECT_THAT(Roles::Parse("x client\n").status().message(), HasSubstr("which participants"));
  EXPECT_THAT(Roles::Parse("x administrator all\n").status().message(), HasSubstr("nothing"));
  for (const char* none : {"", "\n", "# x administrator\n\n"}) {
    EXPECT_THAT(Roles::Parse(none).status().message(), HasSubstr("nobody")) << none;
  }
}

TEST(RolesTest, EveryServiceOfTheContractHasOne) {
  std::size_t services = 0;
  for (const char* unit : {"coordinator", "participant"}) {
    std::ifstream file(std::string("thrift/") + unit + ".thrift");
    for (std::string word; file >> word;) {
      if (word != "service" || !(file >> word) || word[0] < 'A' || word[0] > 'Z') continue;
      RoleForService(word);  // CHECKs
      ++services;
    }
  }
  EXPECT_EQ(services, 6u);
}

TEST(SecurityTest, PlainTextStaysOnThisMachine) {
  Security plain{{}};
  EXPECT_TRUE(plain.MayListen("127.0.0.1", "clients").ok());
  EXPECT_TRUE(plain.MayListen("127.8.0.1", "clients").ok());
  EXPECT_TRUE(plain.MayListen("::1", "clients").ok());
  for (const char* host :
       {"0.0.0.0", "::", "10.0.0.1", "example.org", "", "127.0.0.1.example.org"}) {
    const Status refused = plain.MayListen(host, "clients");
    EXPECT_EQ(refused.code(), Code::kForbidden) << host;
    EXPECT_THAT(refused.message(), HasSubstr("--allow_plain_text"));
  }
  SecurityOptions allowed;
  allowed.allow_plain_text = true;
  EXPECT_TRUE(Security(allowed).MayListen("0.0.0.0", "clients").ok());
}

// ---- The doorkeeper.

bool BrokenOff(int fd) {
  char byte;
  return recv(fd, &byte, 1, MSG_DONTWAIT) == 0;
}

TEST(DoorkeeperTest, BreaksTheOldestUnprovenOff) {
  Doorkeeper doors(2, 9, 1);
  int a[2], b[2], c[2];
  for (int* pair : {a, b, c}) ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
  doors.Came(a[0]);
  doors.Came(b[0]);
  EXPECT_TRUE(doors.Proved(b[0], "teller"));
  doors.Came(c[0]);
  EXPECT_FALSE(BrokenOff(a[0]));
  doors.Came(b[1]);
  EXPECT_TRUE(BrokenOff(a[0]));
  EXPECT_FALSE(BrokenOff(c[0]));
  EXPECT_FALSE(doors.Proved(c[0], "teller"));  // one of that name is here
  EXPECT_EQ(doors.counts().too_many, 1u);
  doors.Leaves(b[0]);
  EXPECT_TRUE(doors.Proved(b[1], "teller"));
  EXPECT_EQ(doors.counts().broken_off, 1u);
  doors.Came(a[1]);
  EXPECT_FALSE(BrokenOff(c[0]));
  doors.Came(c[1]);  // the refused one has not left: it takes no place besides the bounds
  EXPECT_TRUE(BrokenOff(c[0]));
  for (const int* pair : {a, b, c}) close(pair[0]), close(pair[1]);
}

TEST(DoorkeeperTest, ManyNamesTakeNoMoreThanThereIs) {
  Doorkeeper doors(2, 3, 2);
  for (const auto& [fd, name] : {std::pair{901, "a"}, {902, "a"}, {903, "b"}}) {
    doors.Came(fd);
    EXPECT_TRUE(doors.Proved(fd, name));
  }
  doors.Came(904);
  EXPECT_FALSE(doors.Proved(904, "c"));
  doors.Leaves(901);
  EXPECT_TRUE(doors.Proved(904, "c"));
}

// ---- The listener.

class Handler : public wire::ParticipantIf {
 public:
  void hello(wire::ParticipantHello& reply, std::int32_t) override {
    reply.participant = CallerName();
  }
};

class TlsTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    char name[] = "/tmp/troth-security-XXXXXX";
    made_ = mkdtemp(name);
    ASSERT_EQ(std::system(
                  ("scripts/dev-certs " + made_ + "/certs --participant east 2>/dev/null").c_str()),
              0);
  }
  static void TearDownTestSuite() { std::filesystem::remove_all(made_); }
  void SetUp() override {
    char name[] = "/tmp/troth-security-XXXXXX";
    directory_ = mkdtemp(name);
    std::filesystem::copy(made_ + "/certs", directory_);
  }
  void TearDown() override {
    listener_.reset();
    std::filesystem::remove_all(directory_);
  }

  void MakeCertificates(const std::string& arguments, const std::string& under = "") {
    const std::string made = "scripts/dev-certs " + directory_ + under + " " + arguments +
                             " --participant east 2>/dev/null";
    ASSERT_EQ(std::system(made.c_str()), 0) << made;
  }
  std::string Path(const std::string& name) const { return directory_ + "/" + name; }
  TlsFiles Files(const std::string& name, const std::string& under = "") const {
    const std::string at = directory_ + under + "/" + name;
    return {at + ".pem", at + ".key", directory_ + under + "/ca.pem"};
  }
  void Write(const std::string& path, const std::string& text) {
    std::ofstream(path + ".new") << text;
    std::filesystem::rename(path + ".new", path);
  }

  void Listen(ListenerOptions options = {},
              const std::shared_ptr<Handler>& handler = std::make_shared<Handler>()) {
    listener_.reset();  // it uses what is replaced
    security_ = std::make_unique<Security>(SecurityOptions{Files("east"), Path("roles"), false});
    ASSERT_TRUE(security_->CheckServer().ok()) << security_->CheckServer().message();
    options.what = "applications";
    options.security = security_.get();
    auto processor = std::make_shared<wire::ParticipantProcessor>(handler);
    listener_ = std::make_unique<Listener>(
        options, GuardApplication(security_.get(), "east", std::move(processor)));
    ASSERT_TRUE(listener_->Start().ok());
  }

  struct Caller {
    std::unique_ptr<TlsContext> tls;
    std::shared_ptr<WireSocket> socket;
    std::unique_ptr<wire::ParticipantClient> client;
  };
  // Throws what the socket throws.
  Caller Connect(const TlsFiles& files, const std::string& host = "127.0.0.1") {
    Caller caller;
    caller.tls = std::make_unique<TlsContext>(files);
    caller.socket = std::make_shared<WireSocket>(caller.tls.get(), host, listener_->port());
    caller.socket->setConnTimeout(5'000);
    caller.socket->setRecvTimeout(5'000);
    caller.client = std::make_unique<wire::ParticipantClient>(
        BoundedProtocol<TTransport>(std::make_shared<TFramedTransport>(caller.socket)));
    caller.socket->open();
    return caller;
  }
  // Who the listener takes us for; or why it does not.
  std::string Hello(Caller* caller) {
    try {
      wire::ParticipantHello reply;
      caller->client->hello(reply, 1);
      return reply.participant;
    } catch (const wire::Refused& refused) {
      return "refused: " + refused.message;
    } catch (const apache::thrift::TException& e) {
      return std::string("lost: ") + e.what();
    }
  }
  std::string Hello(const TlsFiles& files, const std::string& host = "127.0.0.1") {
    try {
      Caller caller = Connect(files, host);
      return Hello(&caller);
    } catch (const TTransportException& e) {
      return std::string("lost: ") + e.what();
    }
  }
  // How long until the other side closes; -1: not within 5 s.
  // Until the other side has sent something, or closed; false: 5 s have passed.
  static bool AwaitBytes(Caller* caller) {
    pollfd one{caller->socket->getSocketFD(), POLLIN, 0};
    return poll(&one, 1, 5'000) == 1;
  }
  std::int64_t MsUntilClosed(int fd) {
    const auto from = steady_clock::now();
    timeval limit{5, 0};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    char bytes[256];
    for (;;) {
      const ssize_t got = recv(fd, bytes, sizeof bytes, 0);
      if (got > 0) continue;
      if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return -1;
      return std::chrono::duration_cast<milliseconds>(steady_clock::now() - from).count();
    }
  }
  // -1: nobody listens.
  int Dial() {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<std::uint16_t>(listener_->port()));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    const int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0) return fd;
    close(fd);
    return -1;
  }

  static inline std::string made_;
  std::string directory_;
  std::unique_ptr<Security> security_;
  std::unique_ptr<Listener> listener_;
};

TEST_F(TlsTest, TellsTheCallersName) {
  Listen();
  EXPECT_EQ(Hello(Files("teller")), "teller");
  EXPECT_EQ(Hello(Files("teller"), "localhost"), "teller");
  EXPECT_EQ(CallerName(), "");
}

TEST_F(TlsTest, RefusesWhoHasAnotherRole) {
  Listen();
  EXPECT_THAT(Hello(Files("admin")), HasSubstr("refused: certificate 'admin' has not the role"));
  EXPECT_THAT(Hello(Files("coordinator")), HasSubstr("refused"));
}

class Lines : public google::LogSink {
 public:
  Lines() { google::AddLogSink(this); }
  ~Lines() override { google::RemoveLogSink(this); }
  void send(google::LogSeverity, const char*, const char*, int, const google::LogMessageTime&,
            const char* text, std::size_t size) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    all_.append(text, size).append("\n");
  }
  std::string all() {
    const std::lock_guard<std::mutex> lock(mutex_);
    return all_;
  }

 private:
  std::mutex mutex_;
  std::string all_;
};

// Found in review: the name of a call that was refused went into the log as it came.
TEST_F(TlsTest, ACallerWritesNoLinesOfTheLog) {
  Listen();
  Lines log;
  for (const auto end = steady_clock::now() + milliseconds(5'000); steady_clock::now() < end;) {
    Caller caller = Connect(Files("admin"));
    const auto out = caller.client->getOutputProtocol();
    out->writeMessageBegin("x\nE0101 forged", apache::thrift::protocol::T_CALL, 1);
    out->writeStructBegin("args");
    out->writeFieldStop();
    out->writeStructEnd();
    out->writeMessageEnd();
    out->getTransport()->flush();
    caller.client->getInputProtocol()->getTransport()->peek();  // it was answered
    if (log.all().find("forged") != std::string::npos) break;
  }
  EXPECT_THAT(log.all(), HasSubstr("refused a call (x?E0101 forged): certificate 'admin'"));
  EXPECT_THAT(log.all(), testing::Not(HasSubstr("\nE0101")));
}

TEST_F(TlsTest, RefusesAnotherAuthority) {
  Listen();
  MakeCertificates("", "/other");
  TlsFiles mixed = Files("teller", "/other");
  EXPECT_THAT(Hello(mixed), HasSubstr("certificate"));  // we do not believe the server
  mixed.authorities = Path("ca.pem");
  // Nor it us; the caller is told why (it once heard "No more data to read").
  EXPECT_THAT(Hello(mixed),
              HasSubstr("lost: broken off by the other side: tlsv1 alert unknown ca"));
  EXPECT_EQ(Hello(Files("teller")), "teller");
}

TEST_F(TlsTest, TheServersCertificateMustNameTheHost) {
  MakeCertificates("--host elsewhere.example");
  Listen();
  EXPECT_THAT(Hello(Files("teller")), HasSubstr("IP address mismatch"));
  EXPECT_THAT(Hello(Files("teller"), "localhost"), HasSubstr("hostname mismatch"));
}

TEST_F(TlsTest, AClientsCertificateServesNobody) {
  Listen();
  SecurityOptions options{Files("teller"), Path("roles"), false};
  options.tls = Files("teller");
  Security wrong(options);
  ListenerOptions listening;
  listening.security = &wrong;
  listener_ = std::make_unique<Listener>(
      listening, std::make_shared<wire::ParticipantProcessor>(std::make_shared<Handler>()));
  ASSERT_TRUE(listener_->Start().ok());
  EXPECT_THAT(Hello(Files("teller")), HasSubstr("purpose"));
}

TEST_F(TlsTest, ReadsCertificatesAnewForNewConnections) {
  Listen();
  Caller before = Connect(Files("teller"));
  ASSERT_EQ(Hello(&before), "teller");
  // Another authority, and all that it signs, takes the place of the former.
  MakeCertificates("", "/other");
  const TlsFiles former = Files("teller");
  std::filesystem::copy(former.certificate, Path("former.pem"));
  std::filesystem::copy(former.key, Path("former.key"));
  for (const char* name : {"ca.pem", "east.pem", "east.key"}) {
    std::filesystem::rename(directory_ + "/other/" + name, Path(name));
  }
  TlsFiles fresh = Files("teller", "/other");
  fresh.authorities = Path("ca.pem");
  EXPECT_EQ(Hello(fresh), "teller");
  EXPECT_THAT(Hello({Path("former.pem"), Path("former.key"), Path("ca.pem")}), HasSubstr("lost"));
  EXPECT_EQ(Hello(&before), "teller");
  // Half a file changes nothing.
  Write(Path("east.pem"), "-----BEGIN CERT");
  EXPECT_EQ(Hello(fresh), "teller");
}

TEST_F(TlsTest, ReadsRolesAnewForOpenConnectionsToo) {
  Listen();
  Caller caller = Connect(Files("teller"));
  ASSERT_EQ(Hello(&caller), "teller");
  Write(Path("roles"), "teller client west\n");
  std::string said;
  for (const auto end = steady_clock::now() + milliseconds(5'000); steady_clock::now() < end;) {
    said = Hello(&caller);
    if (said != "teller") break;
  }
  EXPECT_THAT(said, HasSubstr("refused: certificate 'teller' may not use participant 'east'"));
}

// Found in review: an empty file of roles, which an editor leaves for a moment, or a directory, was
// read as one in which nobody stands, and locked everybody out.
TEST_F(TlsTest, AnEmptyFileOfRolesChangesNothing) {
  Listen();
  Caller caller = Connect(Files("teller"));
  ASSERT_EQ(Hello(&caller), "teller");
  Write(Path("roles"), "");
  for (const auto end = steady_clock::now() + milliseconds(1'500); steady_clock::now() < end;) {
    ASSERT_EQ(Hello(&caller), "teller");
  }
  for (const char* none : {"roles", "", "missing"}) {
    const Status wrong = Security({Files("east"), Path(none), false}).CheckServer();
    EXPECT_EQ(wrong.code(), Code::kInvalid) << none;
    EXPECT_THAT(wrong.message(), HasSubstr("it cannot be read, or is empty")) << none;
  }
}

TEST_F(TlsTest, SaysWhatIsWrongWithFiles) {
  const auto check = [](const SecurityOptions& options) {
    return Security(options).CheckServer().message();
  };
  const TlsFiles good = Files("east");
  EXPECT_THAT(check({good, "", false}), HasSubstr("--tls_roles"));
  EXPECT_THAT(check({{}, Path("roles"), false}), HasSubstr("--tls_cert"));
  EXPECT_THAT(check({{good.certificate, "", ""}, Path("roles"), false}), HasSubstr("all three"));
  EXPECT_THAT(
      check({{good.certificate, Path("teller.key"), good.authorities}, Path("roles"), false}),
      HasSubstr("mismatch"));
  EXPECT_THAT(check({{Path("none"), good.key, good.authorities}, Path("roles"), false}),
              HasSubstr("--tls_cert '" + Path("none")));
  EXPECT_THAT(check({{good.certificate, Path("none"), good.authorities}, Path("roles"), false}),
              HasSubstr("none': No such file"));
  std::filesystem::permissions(good.key, std::filesystem::perms(0644));
  EXPECT_THAT(check({good, Path("roles"), false}), HasSubstr("chmod 600"));
}

TEST(CertificateFindingTest, SaysForHowLongItIsGood) {
  constexpr std::int64_t kHour = 3'600;
  constexpr std::int64_t kDay = 24 * kHour;
  const auto verdict = [](const Result<std::int64_t>& left) {
    const wire::Finding finding = FindingOfCertificate(left);
    EXPECT_EQ(finding.advice.empty(), finding.verdict == "good");
    return finding.verdict + ": " + finding.what;
  };
  EXPECT_EQ(verdict(14 * kDay), "good: it ends in 14 days");
  EXPECT_EQ(verdict(14 * kDay - 1), "warning: it ends in 13 days");
  EXPECT_EQ(verdict(kDay), "warning: it ends in 1 day");
  EXPECT_EQ(verdict(kDay - 1), "warning: it ends in 23 hours");
  EXPECT_EQ(verdict(0), "wrong: it has ended: nobody is let in");
  EXPECT_EQ(verdict(Status(Code::kInvalid, "no such file")), "wrong: no such file");
}

TEST_F(TlsTest, LooksAtTheCertificateInUse) {
  const auto verdict = [this](const std::string& under) {
    Security security({Files("east", under), Path("roles"), false});
    return LookAtSecurity(&security)[0].verdict;
  };
  EXPECT_EQ(verdict(""), "good");
  MakeCertificates("--days 3", "/soon");
  EXPECT_EQ(verdict("/soon"), "warning");
  EXPECT_EQ(verdict("/none"), "wrong");
  Security plain{{}};
  EXPECT_TRUE(LookAtSecurity(&plain).empty());
}

// Found in review: a renewal that was refused, and a file of roles that cannot be read, were called
// good as long as what was read before served on; and chmod, as advised, was not noticed.
TEST_F(TlsTest, SaysThatNewFilesAreOfNoUse) {
  Security security({Files("east"), Path("roles"), false});
  ASSERT_TRUE(security.CheckServer().ok());
  const auto look = [&] {
    std::string all;
    for (const wire::Finding& one : LookAtSecurity(&security)) {
      all += one.about + " " + one.verdict + ": " + one.what + "; " + one.advice + "\n";
    }
    return all;
  };
  const auto good = AllOf(StartsWith("certificate good: it ends in "), HasSubstr("\nroles good: "));
  EXPECT_THAT(look(), good);
  const std::string key = Path("east.key");
  std::filesystem::copy(key, key + ".new");
  std::filesystem::permissions(key + ".new", std::filesystem::perms(0644));
  std::filesystem::rename(key + ".new", key);
  for (int again = 0; again < 2; ++again) {
    EXPECT_THAT(look(),
                StartsWith("certificate wrong: TLS: --tls_key '" + key +
                           "': others may read it; run: chmod 600 " + key + "; mend the file"));
  }
  std::filesystem::permissions(key, std::filesystem::perms(0600));
  EXPECT_THAT(look(), good);
  Write(Path("roles"), "teller king\n");
  for (int again = 0; again < 2; ++again) {
    EXPECT_THAT(look(), HasSubstr("\nroles wrong: --tls_roles '" + Path("roles") +
                                  "': line 1: 'king' is none of"));
  }
  Write(Path("roles"), "teller client *\n");
  EXPECT_THAT(look(), good);
  // Found in review: files that came when no descriptor was to be had were not read again.
  std::filesystem::copy(key, key + ".new");
  std::filesystem::rename(key + ".new", key);
  Write(Path("roles"), "nobody client *\n");
  rlimit limit = {};
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &limit), 0);
  const rlimit none = {0, limit.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &none), 0);
  const std::string without = look();
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &limit), 0);
  EXPECT_THAT(without, AllOf(StartsWith("certificate wrong"), HasSubstr("\nroles wrong")));
  EXPECT_THAT(look(), good);
  EXPECT_NE(security.WhyNot("teller", Role::kClient), std::nullopt);
}

TEST_F(TlsTest, WhoSaysNothingIsNotWaitedFor) {
  ListenerOptions options;
  options.handshake_ms = 300;
  Listen(options);
  const int silent = Dial();
  EXPECT_GE(MsUntilClosed(silent), 200);
  close(silent);
  const int garbage = Dial();
  ASSERT_EQ(send(garbage, "GET / HTTP/1.0\r\n\r\n", 18, MSG_NOSIGNAL), 18);
  EXPECT_GE(MsUntilClosed(garbage), 0);
  close(garbage);
  // Half a frame, and then nothing. The honest have the usual time for their handshake.
  options = {};
  options.frame_ms = 300;
  Listen(options);
  Caller half = Connect(Files("teller"));
  ASSERT_TRUE(half.socket->GiveNow("\0\0\0\x40xyz", 7));
  char byte;
  while (half.socket->TakeNow(&byte, 1) == 0) ASSERT_TRUE(AwaitBytes(&half));
  EXPECT_EQ(Hello(Files("teller")), "teller");
}

TEST_F(TlsTest, OneCertificateHasItsShare) {
  ListenerOptions options;
  options.max_per_certificate = 2;
  Listen(options);
  Caller first = Connect(Files("teller")), second = Connect(Files("teller"));
  EXPECT_EQ(Hello(&first), "teller");
  EXPECT_EQ(Hello(&second), "teller");
  EXPECT_THAT(Hello(Files("teller")), HasSubstr("lost"));
  EXPECT_THAT(Hello(Files("admin")), HasSubstr("refused"));  // another's: it is heard
  first.socket->close();
  std::string said;
  for (const auto end = steady_clock::now() + milliseconds(5'000); steady_clock::now() < end;) {
    said = Hello(Files("teller"));
    if (said == "teller") break;
  }
  EXPECT_EQ(said, "teller");
}

// Found in review: one certificate's share and those without a certificate were all the places that
// there are, so nobody was accepted any more, and nobody broken off.
TEST_F(TlsTest, OneCallerLeavesAPlace) {
  ListenerOptions options;
  options.max_connections = 32;   // as a participant has for coordinators
  options.handshake_ms = 60'000;  // none of the half ones ends by itself
  Listen(options);
  std::vector<Caller> callers;
  for (int i = 0; i < 24 + 7; ++i) {
    callers.push_back(Connect(Files(i < 24 ? "admin" : "teller")));
    ASSERT_THAT(Hello(&callers.back()), i < 24 ? StartsWith("refused") : StartsWith("teller")) << i;
  }
  std::vector<int> half;
  for (int i = 0; i < 64; ++i) {
    half.push_back(Dial());
    ASSERT_EQ(send(half.back(), "\x16\x03\x01\x02", 4, MSG_NOSIGNAL), 4);  // of a handshake
  }
  EXPECT_EQ(Hello(Files("teller")), "teller");
  for (const int fd : half) close(fd);
}

// Found in review: the listener looked whether it is to stop only when a caller had nothing more to
// say, and waited as long as one went on.
TEST_F(TlsTest, StopsUnderACallerThatGoesOn) {
  struct Held : Handler {
    void hello(wire::ParticipantHello& reply, std::int32_t version) override {
      if (++calls == 1) {
        called.set_value();
        go_on.get_future().wait();
      }
      Handler::hello(reply, version);
    }
    std::promise<void> called, go_on;
    std::atomic<int> calls{0};
  };
  const auto held = std::make_shared<Held>();
  Listen({}, held);
  Caller caller = Connect(Files("teller"));
  for (int i = 0; i < 100; ++i) caller.client->send_hello(1);
  held->called.get_future().wait();
  std::thread stop([this] { listener_->Stop(); });
  for (int fd = Dial(); fd >= 0; fd = Dial()) close(fd);  // until it is told to stop
  held->go_on.set_value();
  stop.join();
  EXPECT_EQ(held->calls, 1);
  wire::ParticipantHello reply;
  caller.client->recv_hello(reply);  // the call under way was let end
  EXPECT_EQ(reply.participant, "teller");
  EXPECT_THROW(caller.client->recv_hello(reply), TTransportException);
}

TEST_F(TlsTest, ReadsWithoutWaiting) {
  Listen();
  Caller caller = Connect(Files("teller"));
  EXPECT_TRUE(caller.socket->Quiet());
  char byte;
  EXPECT_EQ(caller.socket->TakeNow(&byte, 1), 0);
  caller.client->send_hello(1);
  while (caller.socket->Quiet()) ASSERT_TRUE(AwaitBytes(&caller));
  // One byte of the record: OpenSSL holds the rest, and no descriptor tells.
  ASSERT_EQ(caller.socket->TakeNow(&byte, 1), 1);
  EXPECT_FALSE(caller.socket->Quiet());
  std::size_t rest = 0;
  while (caller.socket->TakeNow(&byte, 1) == 1) ++rest;
  EXPECT_GT(rest, 4u);
  EXPECT_TRUE(caller.socket->Quiet());
  listener_->Stop();
  EXPECT_EQ(caller.socket->TakeNow(&byte, 1), -1);
}

}  // namespace
}  // namespace troth
