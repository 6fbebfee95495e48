// See coordinator_link.h.
#include "participant/coordinator_link.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <random>

#include <glog/logging.h>
#include <thrift/transport/TBufferTransports.h>

#include "CoordinatorPeer.h"
#include "common/check.h"
#include "common/failpoint.h"
#include "troth_constants.h"
#include "wire/protocol.h"
#include "wire/socket.h"

namespace troth {
namespace {

using apache::thrift::TException;
using apache::thrift::transport::TFramedTransport;
using apache::thrift::transport::TTransport;

constexpr int kConnectMs = 1'000;
constexpr int kAnswerMs = 5'000;
constexpr int kEnrolEveryMs = 10'000;
constexpr int kFirstPauseMs = 50;
constexpr int kLastPauseMs = 1'000;

wire::Seen ToWire(const std::optional<SeenCoordinator>& seen) {
  wire::Seen out;
  out.epoch = seen ? seen->epoch : 0;
  out.epoch_random = seen ? seen->epoch_random : 0;
  out.position = seen ? static_cast<std::int64_t>(seen->position) : 0;
  if (seen) out.__set_coordinator(seen->coordinator);
  return out;
}

SweepAnswer FromWire(const SweepInquiry& inquiry, const wire::Answer& answer) {
  using Verdict = SweepAnswer::Verdict;
  SweepAnswer out{inquiry, Verdict::kPending, {}};
  if (answer.transaction_id != inquiry.transaction_id) return out;
  switch (answer.verdict) {
    case wire::Verdict::COMMIT:
      if (!answer.__isset.xid || !answer.__isset.timeline || !answer.__isset.position) return out;
      out.verdict = Verdict::kCommit;
      out.evidence.xid = static_cast<std::uint64_t>(answer.xid);
      out.evidence.point = {static_cast<std::uint32_t>(answer.timeline),
                            static_cast<std::uint64_t>(answer.position)};
      return out;
    case wire::Verdict::ABORT: out.verdict = Verdict::kAbort; return out;
    case wire::Verdict::PENDING: return out;
    case wire::Verdict::EXPIRED: out.verdict = Verdict::kExpired; return out;
    case wire::Verdict::NOT_MINE: out.verdict = Verdict::kNotMine; return out;
  }
  return out;
}

}  // namespace

struct CoordinatorLink::Line {
  std::shared_ptr<WireSocket> socket;
  std::unique_ptr<wire::CoordinatorPeerClient> client;
  bool reported = false;  // what was seen of all coordinators
};

CoordinatorLink::CoordinatorLink(std::string address, SelfDescription self,
                                 ResourceManager* resource_manager, EpochFence* fence,
                                 Security* security,
                                 std::function<void(const DatabaseState&)> enrolling,
                                 std::function<void()> enrolled)
    : address_(std::move(address)),
      self_(std::move(self)),
      resource_manager_(resource_manager),
      fence_(fence),
      security_(security),
      enrolling_(std::move(enrolling)),
      enrolled_(std::move(enrolled)),
      wake_fd_(eventfd(0, EFD_CLOEXEC)) {
  TROTH_CHECK(wake_fd_ >= 0);
}

CoordinatorLink::~CoordinatorLink() {
  Stop();
  close(wake_fd_);
}

void CoordinatorLink::Start(int port, int peer_port) {
  self_.port = port;
  self_.peer_port = peer_port;
  thread_ = std::thread([this] { Run(); });
}

void CoordinatorLink::Stop() {
  stopping_ = true;
  const std::uint64_t one = 1;
  if (write(wake_fd_, &one, sizeof one) < 0) LOG(WARNING) << "eventfd: cannot wake the link";
  if (thread_.joinable()) thread_.join();
}

std::string CoordinatorLink::coordinator() const {
  MutexLock lock(&mutex_);
  return coordinator_;
}

std::string CoordinatorLink::secret() const {
  MutexLock lock(&mutex_);
  return secret_;
}

Result<std::unique_ptr<CoordinatorLink::Line>> CoordinatorLink::Connect() {
  const std::size_t colon = address_.rfind(':');
  auto line = std::make_unique<Line>();
  line->socket = std::make_shared<WireSocket>(security_->tls(), address_.substr(0, colon),
                                              std::atoi(address_.c_str() + colon + 1));
  line->socket->setConnTimeout(kConnectMs);
  line->socket->setRecvTimeout(kAnswerMs);
  line->socket->setSendTimeout(kAnswerMs);
  line->socket->setKeepAlive(true);
  auto framed = std::make_shared<TFramedTransport>(line->socket, FrameLimits());
  line->client = std::make_unique<wire::CoordinatorPeerClient>(BoundedProtocol<TTransport>(framed));
  try {
    line->socket->open();
  } catch (const TException& e) {
    return Status(Code::kUnavailable, "coordinator " + address_ + ": " + e.what());
  }
  if (const auto why = security_->WhyNot(line->socket->peer_name(), Role::kCoordinator)) {
    return Status(Code::kForbidden,
                  "coordinator " + address_ + " is not who answers there: " + *why);
  }
  return line;
}

void CoordinatorLink::Run() {
  std::minstd_rand jitter(std::random_device{}());
  int pause_ms = kFirstPauseMs;
  std::string last_error;
  while (!stopping_) {
    Result<std::unique_ptr<Line>> line = Connect();
    Status status = line.ok() ? Enrol(line->get()) : line.status();
    while (status.ok() && !stopping_) {
      if (!up_.exchange(true)) LOG(INFO) << "enrolled with coordinator " << coordinator();
      pause_ms = kFirstPauseMs;
      last_error.clear();
      enrolled_();
      status = Linger(line->get()) ? Enrol(line->get())
                                   : Status(Code::kUnavailable, "the connection ended");
    }
    up_ = false;
    if (stopping_) return;
    if (status.ToString() != last_error) {
      last_error = status.ToString();
      LOG(WARNING) << "not enrolled with coordinator " << address_ << ": " << last_error;
    }
    Pause(pause_ms / 2 + static_cast<int>(jitter() % static_cast<unsigned>(pause_ms / 2 + 1)));
    pause_ms = std::min(pause_ms * 2, kLastPauseMs);
  }
}

Status CoordinatorLink::Enrol(Line* line) {
  // Who answers may be another than was thought: then the second try brings what was seen of it.
  for (int i = 0; i < 2; ++i) {
    Result<bool> enrolled = EnrolAs(line, coordinator());
    if (!enrolled.ok() || *enrolled) return enrolled.status();
  }
  return Status(Code::kUnavailable, "it began another epoch meanwhile");
}

// What was seen of all coordinators, once for a connection: whoever answers overlooks what is not
// of its name. Throws what Thrift throws.
void CoordinatorLink::ReportAllBut(const std::string& coordinator, Line* line) {
  if (line->reported) return;
  for (const auto& [name, seen] : fence_->All()) {
    if (name == coordinator) continue;
    std::vector<wire::Answer> none;
    line->client->inquire(none, self_.participant, {}, ToWire(seen));
  }
  line->reported = true;
}

Result<bool> CoordinatorLink::EnrolAs(Line* line, const std::string& name) {
  Result<DatabaseState> state = resource_manager_->Look();
  if (!state.ok()) return state.status();
  if (TROTH_FAILPOINT("before-enrol")) return Status(Code::kUnavailable, "failpoint before-enrol");
  wire::Enrolment enrolment;
  enrolment.version = wire::g_troth_constants.PROTOCOL_VERSION;
  enrolment.participant = self_.participant;
  enrolment.instance = self_.instance;
  enrolment.system_identifier = state->identity.system_identifier;
  enrolment.database_oid = state->identity.oid;
  enrolment.database_address = state->address;
  enrolment.__set_database_machine(state->machine);
  enrolling_(*state);
  enrolment.host = self_.host;
  enrolment.port = self_.port;
  enrolment.peer_port = self_.peer_port;
  const std::map<std::string, SeenCoordinator> all = fence_->All();
  std::optional<SeenCoordinator> brought;
  if (const auto known = all.find(name); known != all.end()) {
    brought = known->second;
  } else if (name.empty() && all.size() == 1) {
    brought = all.begin()->second;  // a guess
  }
  if (brought.has_value()) enrolment.__set_seen(ToWire(brought));
  wire::Enrolled enrolled;
  try {
    // An enrolment counts as heard at once, and brings the report of one coordinator: the others
    // go first.
    ReportAllBut(brought.has_value() ? brought->coordinator : "", line);
    line->client->enroll(enrolled, enrolment);
  } catch (const wire::Refused& refused) {
    return Status(Code::kRefused, refused.message);
  } catch (const TException& e) {
    return Status(Code::kUnavailable, std::string("no answer to the enrolment: ") + e.what());
  }
  if (enrolled.version != wire::g_troth_constants.PROTOCOL_VERSION) {
    return Status(Code::kRefused, "the coordinator speaks version " +
                                      std::to_string(enrolled.version) + " of the protocol, we " +
                                      std::to_string(wire::g_troth_constants.PROTOCOL_VERSION));
  }
  const wire::Sender& sender = enrolled.sender;
  if (const auto why =
          security_->WhyNot(line->socket->peer_name(), Role::kCoordinator, sender.coordinator)) {
    return Status(Code::kForbidden, *why);
  }
  const SeenCoordinator speaker{sender.coordinator, static_cast<std::uint32_t>(sender.epoch),
                                static_cast<std::uint32_t>(sender.epoch_random),
                                static_cast<std::uint64_t>(sender.position)};
  if (std::optional<Refusal> stale = fence_->Check(speaker)) {
    return Status(Code::kRefused, stale->message);
  }
  const std::optional<SeenCoordinator> due = fence_->Seen(sender.coordinator);
  const bool told = (due->epoch == speaker.epoch && due->epoch_random == speaker.epoch_random) ||
                    (brought.has_value() && brought->coordinator == due->coordinator &&
                     brought->epoch == due->epoch && brought->epoch_random == due->epoch_random &&
                     brought->position >= due->position);
  if (told) fence_->Told(speaker);
  MutexLock lock(&mutex_);
  coordinator_ = sender.coordinator;
  secret_ = told ? enrolled.secret : "";
  return told;
}

bool CoordinatorLink::Linger(Line* line) {
  // Nothing is on its way on this connection: readable means ended (or is TLS's own).
  pollfd fds[2] = {{line->socket->getSocketFD(), POLLIN | POLLRDHUP, 0}, {wake_fd_, POLLIN, 0}};
  poll(fds, 2, kEnrolEveryMs);
  return !stopping_ && (fds[0].revents == 0 || line->socket->Quiet());
}

bool CoordinatorLink::Pause(int milliseconds) {
  pollfd wake{wake_fd_, POLLIN, 0};
  return poll(&wake, 1, milliseconds) == 0;
}

Result<std::vector<SweepAnswer>> CoordinatorLink::Inquire(std::span<const SweepInquiry> inquiries) {
  std::vector<wire::Inquiry> asked;
  for (const SweepInquiry& inquiry : inquiries) {
    wire::Inquiry one;
    one.transaction_id = inquiry.transaction_id;
    one.xid = inquiry.xid;
    asked.push_back(std::move(one));
  }
  const wire::Seen seen = ToWire(fence_->Seen(coordinator()));
  MutexLock lock(&inquiry_mutex_);
  if (inquiry_line_ == nullptr) {
    Result<std::unique_ptr<Line>> line = Connect();
    if (!line.ok()) return line.status();
    inquiry_line_ = std::move(*line);
  }
  std::vector<wire::Answer> answers;
  try {
    // Before any answer counts, whoever answers. Before it let this process enrol each time: who is
    // not registered yet is not listened to.
    if (coordinator().empty()) inquiry_line_->reported = false;
    ReportAllBut("", inquiry_line_.get());
    inquiry_line_->client->inquire(answers, self_.participant, asked, seen);
  } catch (const wire::Refused& refused) {
    return Status(Code::kUnavailable, "the coordinator refuses inquiries: " + refused.message);
  } catch (const TException& e) {
    // A late answer must not be taken for that of the next inquiry.
    inquiry_line_.reset();
    return Status(Code::kUnavailable, std::string("no answer to the inquiry: ") + e.what());
  }
  if (answers.size() != asked.size()) {
    inquiry_line_.reset();
    return Status(Code::kCorrupt, "the coordinator answered another number of inquiries");
  }
  std::vector<SweepAnswer> out;
  for (std::size_t i = 0; i < answers.size(); ++i)
    out.push_back(FromWire(inquiries[i], answers[i]));
  return out;
}

}  // namespace troth
