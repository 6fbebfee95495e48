// See thrift_channel.h.
#include "coordinator/thrift_channel.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>

#include <glog/logging.h>
#include <thrift/protocol/TCompactProtocol.h>
#include <thrift/transport/TBufferTransports.h>
#include <thrift/transport/TSocket.h>

#include "ParticipantPeer.h"
#include "common/check.h"
#include "common/failpoint.h"
#include "coordinator/wire_values.h"
#include "troth_constants.h"
#include "wire/listener.h"

namespace troth {
namespace {

using apache::thrift::protocol::TCompactProtocol;
using apache::thrift::transport::TFramedTransport;
using apache::thrift::transport::TMemoryBuffer;
using apache::thrift::transport::TSocket;
using SteadyClock = std::chrono::steady_clock;

constexpr std::uint64_t kInterruptKey = ~std::uint64_t{0};
enum : int { kPrepareLine = 0, kFinishLine = 1, kLines = 2 };

std::uint32_t ReadLength(const std::string& bytes) {
  auto at = [&](int i) { return static_cast<std::uint32_t>(static_cast<unsigned char>(bytes[i])); };
  return at(0) << 24 | at(1) << 16 | at(2) << 8 | at(3);
}

}  // namespace

// A connection with at most one unanswered call. Written and read without waiting: what is
// written fits the send buffer, which is empty when a call begins.
class ThriftChannel::Line {
 public:
  explicit Line(std::shared_ptr<TSocket> socket) : socket_(std::move(socket)) {
    out_ = std::make_shared<TMemoryBuffer>();
    in_ = std::make_shared<TMemoryBuffer>();
    client_ = std::make_unique<wire::ParticipantPeerClient>(
        std::make_shared<TCompactProtocol>(in_), std::make_shared<TCompactProtocol>(out_));
    const int bytes = 1 << 20;
    setsockopt(fd(), SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes);
  }
  int fd() const { return static_cast<int>(socket_->getSocketFD()); }
  bool busy() const { return busy_; }
  SteadyClock::time_point sent_at() const { return sent_at_; }

  bool CallPrepare(const wire::Sender& sender, const std::vector<wire::PrepareRequest>& list) {
    client_->send_prepare(sender, list);
    return SendFrame();
  }
  bool CallFinish(const wire::Sender& sender, const std::vector<wire::FinishRequest>& list) {
    client_->send_finish(sender, list);
    return SendFrame();
  }

  // Takes what has arrived. 1: the answer is whole (call Take* now); 0: not yet; -1: lost.
  int Read() {
    for (;;) {
      std::array<char, 65536> chunk;
      const ssize_t n = recv(fd(), chunk.data(), chunk.size(), MSG_DONTWAIT);
      if (n < 0) {
        if (errno == EINTR) continue;
        if (errno == EAGAIN || errno == EWOULDBLOCK) break;
        return -1;
      }
      if (n == 0) return -1;
      bytes_.append(chunk.data(), static_cast<std::size_t>(n));
      if (bytes_.size() > kMaxFrameBytes + 4u) return -1;
    }
    if (bytes_.size() < 4) return 0;
    const std::uint32_t length = ReadLength(bytes_);
    if (!busy_ || length > static_cast<std::uint32_t>(kMaxFrameBytes)) return -1;
    if (bytes_.size() < length + 4u) return 0;
    if (bytes_.size() > length + 4u) return -1;  // nobody asked for more
    in_->resetBuffer(reinterpret_cast<std::uint8_t*>(bytes_.data()) + 4, length);
    busy_ = false;
    return 1;
  }
  // May throw what Thrift throws: the answer is an exception, or garbage.
  std::vector<wire::PrepareReply> TakePrepared() {
    std::vector<wire::PrepareReply> replies;
    client_->recv_prepare(replies);
    bytes_.clear();
    return replies;
  }
  std::vector<wire::FinishReply> TakeFinished() {
    std::vector<wire::FinishReply> replies;
    client_->recv_finish(replies);
    bytes_.clear();
    return replies;
  }

  std::vector<SendPrepare> prepares;  // of the unanswered call
  std::vector<SendFinish> finishes;

 private:
  bool SendFrame() {
    std::uint8_t* data = nullptr;
    std::uint32_t size = 0;
    out_->getBuffer(&data, &size);
    std::string frame;
    frame.reserve(size + 4);
    for (int shift = 24; shift >= 0; shift -= 8) {
      frame.push_back(static_cast<char>(size >> shift & 0xff));
    }
    frame.append(reinterpret_cast<char*>(data), size);
    out_->resetBuffer();
    const ssize_t sent = send(fd(), frame.data(), frame.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    busy_ = sent == static_cast<ssize_t>(frame.size());
    sent_at_ = SteadyClock::now();
    return busy_;
  }

  std::shared_ptr<TSocket> socket_;
  std::shared_ptr<TMemoryBuffer> out_, in_;
  std::unique_ptr<wire::ParticipantPeerClient> client_;
  std::string bytes_;
  bool busy_ = false;
  SteadyClock::time_point sent_at_;
};

struct ThriftChannel::Peer {
  ParticipantIndex index = 0;
  std::string name;
  std::string host;
  std::uint32_t port = 0;
  std::string instance;  // of the connections, or of the process that is to be reached
  bool up = false;
  bool leaving = false;
  bool try_now = false;
  std::unique_ptr<Line> lines[kLines];
  std::vector<SendPrepare> prepares;  // queued
  std::vector<SendFinish> finishes;
  std::thread reconnector;
  CondVar changed;
};

ThriftChannel::ThriftChannel(Options options) : options_(std::move(options)) {
  epoll_ = epoll_create1(EPOLL_CLOEXEC);
  interrupt_ = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  PCHECK(epoll_ >= 0 && interrupt_ >= 0);
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.u64 = kInterruptKey;
  PCHECK(epoll_ctl(epoll_, EPOLL_CTL_ADD, interrupt_, &event) == 0);
}

ThriftChannel::~ThriftChannel() {
  Stop();
  close(epoll_);
  close(interrupt_);
}

void ThriftChannel::Start(Coordinator* coordinator, std::function<void()> nudge) {
  coordinator_ = coordinator;
  nudge_ = std::move(nudge);
}

void ThriftChannel::Stop() {
  std::vector<std::thread> threads;
  {
    MutexLock lock(&mutex_);
    stopping_ = true;
    for (auto& [index, peer] : peers_) {
      peer->changed.NotifyAll();
      if (peer->reconnector.joinable()) threads.push_back(std::move(peer->reconnector));
    }
  }
  for (std::thread& thread : threads) thread.join();
}

// ------------------------------------------------------------------------------ connections

void ThriftChannel::Connect(const struct Connect& to) {
  MutexLock lock(&mutex_);
  if (stopping_) return;
  std::unique_ptr<Peer>& slot = peers_[to.participant];
  if (slot == nullptr) {
    slot = std::make_unique<Peer>();
    slot->index = to.participant;
    slot->name = to.name;
    slot->reconnector = std::thread([this, peer = slot.get()] { ReconnectLoop(peer); });
  }
  Peer* peer = slot.get();
  const bool moved = peer->host != to.host || peer->port != to.port ||
                     (!to.instance.empty() && peer->instance != to.instance);
  peer->host = to.host;
  peer->port = to.port;
  peer->leaving = false;
  if (peer->up && moved) Drop(peer, "another process took its place");
  if (!to.instance.empty()) peer->instance = to.instance;
  peer->try_now = true;
  peer->changed.NotifyAll();
}

void ThriftChannel::Disconnect(ParticipantIndex participant) {
  MutexLock lock(&mutex_);
  auto peer = peers_.find(participant);
  if (peer == peers_.end()) return;
  peer->second->leaving = true;
  if (peer->second->up) Drop(peer->second.get(), "it was forgotten");
}

// One thread a participant, asleep while it is connected: a dead host delays no other's.
void ThriftChannel::ReconnectLoop(Peer* peer) {
  std::int64_t backoff_ms = options_.backoff_min_ms;
  MutexLock lock(&mutex_);
  while (!stopping_) {
    if (peer->up || peer->leaving || peer->port == 0) {
      peer->try_now = false;
      peer->changed.Wait(&mutex_);
      backoff_ms = options_.backoff_min_ms;
      continue;
    }
    peer->try_now = false;
    mutex_.Unlock();
    const bool connected = TryConnect(peer);
    coordinator_->Lead();
    mutex_.Lock();
    if (connected) {
      ++stats_.reconnects;
      mutex_.Unlock();
      nudge_();
      mutex_.Lock();
      continue;
    }
    const auto until = SteadyClock::now() + std::chrono::milliseconds(backoff_ms);
    while (!stopping_ && !peer->try_now && peer->changed.WaitUntil(&mutex_, until)) {
    }
    backoff_ms =
        peer->try_now ? options_.backoff_min_ms : std::min(backoff_ms * 2, options_.backoff_max_ms);
  }
}

// Opens both connections and says hello on each. Blocks up to the connect timeout.
bool ThriftChannel::TryConnect(Peer* peer) {
  std::string host, name;
  std::uint32_t port = 0;
  {
    MutexLock lock(&mutex_);
    host = peer->host;
    port = peer->port;
    name = peer->name;
  }
  std::unique_ptr<Line> lines[kLines];
  std::string instance;
  try {
    for (auto& line : lines) {
      auto socket = std::make_shared<TSocket>(host, static_cast<int>(port));
      socket->setConnTimeout(static_cast<int>(options_.connect_timeout_ms));
      socket->setRecvTimeout(static_cast<int>(options_.connect_timeout_ms));
      socket->setSendTimeout(static_cast<int>(options_.connect_timeout_ms));
      socket->open();
      auto framed = std::make_shared<TFramedTransport>(socket);
      wire::ParticipantPeerClient client(std::make_shared<TCompactProtocol>(framed));
      wire::ParticipantHello hello;
      client.hello(hello, wire::g_troth_constants.PROTOCOL_VERSION,
                   SenderOf(options_.coordinator_id, *coordinator_));
      if (hello.participant != name) {
        LOG(WARNING) << "participant '" << hello.participant << "' answers at " << host << ":"
                     << port << " where '" << name << "' should be";
        return false;
      }
      instance = hello.instance;
      line = std::make_unique<Line>(std::move(socket));
    }
  } catch (const wire::Refused& refused) {
    LOG(WARNING) << "participant '" << name << "' refuses us: " << refused.message;
    return false;
  } catch (const apache::thrift::TException&) {
    return false;  // not there yet: tried again, and seen in the status
  }
  MutexLock lock(&mutex_);
  if (stopping_ || peer->leaving || peer->host != host || peer->port != port) return false;
  for (int which = 0; which < kLines; ++which) {
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.u64 = std::uint64_t{peer->index} * kLines + static_cast<unsigned>(which);
    PCHECK(epoll_ctl(epoll_, EPOLL_CTL_ADD, lines[which]->fd(), &event) == 0);
    peer->lines[which] = std::move(lines[which]);
  }
  peer->instance = instance;
  peer->up = true;
  LOG(INFO) << "participant '" << name << "' is up (instance " << instance << ")";
  // Under the lock, so that ups and downs arrive in the order in which they happened; the
  // caller lets go of the lock and leads the machine if nobody does.
  coordinator_->Enqueue(ParticipantUp{peer->index});
  return true;
}

void ThriftChannel::Drop(Peer* peer, const std::string& why) {
  if (!peer->up) return;
  LOG(WARNING) << "participant '" << peer->name << "' is down: " << why;
  peer->up = false;
  for (auto& line : peer->lines) {
    if (line->busy()) outstanding_.fetch_sub(1);
    line.reset();  // closing takes it out of the epoll set
  }
  peer->prepares.clear();
  peer->finishes.clear();
  peer->changed.NotifyAll();
  coordinator_->Enqueue(ParticipantDown{peer->index});
}

bool ThriftChannel::Up(ParticipantIndex participant) const {
  MutexLock lock(&mutex_);
  auto peer = peers_.find(participant);
  return peer != peers_.end() && peer->second->up;
}

ThriftChannel::Stats ThriftChannel::stats() const {
  MutexLock lock(&mutex_);
  return stats_;
}

// ---------------------------------------------------------------------------------- sending

void ThriftChannel::Send(const SendPrepare& prepare) {
  MutexLock lock(&mutex_);
  auto peer = peers_.find(prepare.participant);
  if (peer != peers_.end() && peer->second->up) peer->second->prepares.push_back(prepare);
}

void ThriftChannel::Send(const SendFinish& finish) {
  MutexLock lock(&mutex_);
  auto peer = peers_.find(finish.participant);
  if (peer != peers_.end() && peer->second->up) peer->second->finishes.push_back(finish);
}

void ThriftChannel::Push() {
  // By the thread that runs the machine: what is enqueued here it takes in its next round.
  MutexLock lock(&mutex_);
  for (auto& [index, peer] : peers_) PushPeer(peer.get());
}

void ThriftChannel::PushPeer(Peer* peer) {
  if (!peer->up) return;
  const wire::Sender sender = SenderOf(options_.coordinator_id, *coordinator_);
  // Takes the oldest entries of a queue, at most a batch.
  auto take = [this](auto* queue, auto* into) {
    const auto count = static_cast<std::ptrdiff_t>(std::min(queue->size(), options_.max_batch));
    into->assign(std::make_move_iterator(queue->begin()),
                 std::make_move_iterator(queue->begin() + count));
    queue->erase(queue->begin(), queue->begin() + count);
  };
  Line* line = peer->lines[kPrepareLine].get();
  if (!line->busy() && !peer->prepares.empty()) {
    take(&peer->prepares, &line->prepares);
    // A crash here leaves branches unprepared or prepared in vain: aborted by absence.
    if (TROTH_FAILPOINT("prepare-sending")) return Drop(peer, "failpoint");
    const RunningMs now = coordinator_->Now();
    std::vector<wire::PrepareRequest> list;
    for (const SendPrepare& p : line->prepares) {
      list.push_back(ToWire(options_.coordinator_id, p, now));
    }
    if (!line->CallPrepare(sender, list)) return Drop(peer, "sending a prepare failed");
    ++stats_.prepare_calls;
    outstanding_.fetch_add(1);
  }
  line = peer->lines[kFinishLine].get();
  if (!line->busy() && !peer->finishes.empty()) {
    take(&peer->finishes, &line->finishes);
    // A crash here leaves decided branches prepared: finished after opening.
    if (TROTH_FAILPOINT("finish-sending")) return Drop(peer, "failpoint");
    std::vector<wire::FinishRequest> list;
    for (const SendFinish& f : line->finishes) list.push_back(ToWire(options_.coordinator_id, f));
    if (!line->CallFinish(sender, list)) return Drop(peer, "sending a finish failed");
    ++stats_.finish_calls;
    outstanding_.fetch_add(1);
  }
}

// ---------------------------------------------------------------------------------- reading

bool ThriftChannel::Outstanding() const { return outstanding_.load() > 0; }

void ThriftChannel::Interrupt() {
  const std::uint64_t one = 1;
  // Fails only when an interrupt is pending already.
  [[maybe_unused]] const ssize_t written = write(interrupt_, &one, sizeof one);
}

void ThriftChannel::Poll(std::int64_t timeout_ms) {
  std::array<epoll_event, 64> ready;
  const int count = epoll_wait(epoll_, ready.data(), static_cast<int>(ready.size()),
                               static_cast<int>(timeout_ms));
  std::vector<Event> events;
  {
    MutexLock lock(&mutex_);
    for (int i = 0; i < count; ++i) {
      const std::uint64_t key = ready[static_cast<std::size_t>(i)].data.u64;
      if (key == kInterruptKey) {
        std::uint64_t drained = 0;
        [[maybe_unused]] const ssize_t n = read(interrupt_, &drained, sizeof drained);
        continue;
      }
      auto peer = peers_.find(static_cast<ParticipantIndex>(key / kLines));
      if (peer == peers_.end() || !peer->second->up) continue;
      ReadAnswers(peer->second.get(), static_cast<int>(key % kLines), &events);
    }
    if (count == 0) DropOverdue();
    for (auto& [index, peer] : peers_) PushPeer(peer.get());
  }
  coordinator_->Submit(std::move(events));
}

// Every answer names its transaction, and is one to the call that was made: anything else and
// the connection is closed.
void ThriftChannel::ReadAnswers(Peer* peer, int which, std::vector<Event>* events) {
  Line* line = peer->lines[which].get();
  const int read = line->Read();
  if (read == 0) return;
  if (read < 0) return Drop(peer, "the connection was closed");
  outstanding_.fetch_sub(1);
  try {
    if (which == kPrepareLine) {
      const std::vector<wire::PrepareReply> replies = line->TakePrepared();
      if (replies.size() != line->prepares.size()) return Drop(peer, "answers miss requests");
      for (std::size_t i = 0; i < replies.size(); ++i) {
        auto vote = FromWire(options_.coordinator_id, peer->index, replies[i]);
        if (!vote || vote->id != line->prepares[i].id) {
          return Drop(peer, "it answered what was not asked");
        }
        events->push_back(*std::move(vote));
      }
      // A crash here leaves votes uncounted: the branches are aborted by absence.
      if (TROTH_FAILPOINT("vote-arrived")) return Drop(peer, "failpoint");
    } else {
      const std::vector<wire::FinishReply> replies = line->TakeFinished();
      if (replies.size() != line->finishes.size()) return Drop(peer, "answers miss requests");
      for (std::size_t i = 0; i < replies.size(); ++i) {
        auto finished = FromWire(options_.coordinator_id, peer->index, replies[i]);
        if (!finished || finished->id != line->finishes[i].id) {
          return Drop(peer, "it answered what was not asked");
        }
        finished->commit = line->finishes[i].commit;
        events->push_back(*std::move(finished));
      }
      // A crash here leaves acknowledgements uncounted: the branches are finished once more.
      if (TROTH_FAILPOINT("acknowledgement-arrived")) return Drop(peer, "failpoint");
    }
  } catch (const wire::Refused& refused) {
    LOG(ERROR) << "participant '" << peer->name << "' refuses our call: " << refused.message;
    Drop(peer, "it refused our call");
  } catch (const apache::thrift::TException& e) {
    Drop(peer, std::string("its answer cannot be read: ") + e.what());
  }
}

void ThriftChannel::DropOverdue() {
  const auto limit = SteadyClock::now() - std::chrono::milliseconds(options_.call_timeout_ms);
  for (auto& [index, peer] : peers_) {
    if (!peer->up) continue;
    for (const auto& line : peer->lines) {
      if (!line->busy() || line->sent_at() > limit) continue;
      Drop(peer.get(), "no answer for " + std::to_string(options_.call_timeout_ms) + " ms");
      break;
    }
  }
}

}  // namespace troth
