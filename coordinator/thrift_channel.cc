// See thrift_channel.h.
#include "coordinator/thrift_channel.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <deque>
#include <system_error>

#include <glog/logging.h>
#include <thrift/transport/TBufferTransports.h>

#include "ParticipantPeer.h"
#include "common/check.h"
#include "common/failpoint.h"
#include "coordinator/wire_values.h"
#include "troth_constants.h"
#include "wire/protocol.h"
#include "wire/socket.h"

namespace troth {
namespace {

using apache::thrift::transport::TFramedTransport;
using apache::thrift::transport::TMemoryBuffer;
using apache::thrift::transport::TTransport;
using SteadyClock = std::chrono::steady_clock;

constexpr std::uint64_t kInterruptKey = ~std::uint64_t{0};
constexpr std::size_t kUnawaitedBatch = 64;
constexpr std::size_t kMaxInstances = 64;  // of one participant
// An instance that neither connects nor enrols (every 10 s) for so long is gone for good.
constexpr std::chrono::seconds kForgetAfter{15};
constexpr std::chrono::milliseconds kLookForOverdue{500};
enum : int { kPrepareLine = 0, kFinishLine = 1, kLines = 2 };

std::uint32_t ReadLength(const std::string& bytes) {
  auto at = [&](int i) { return static_cast<std::uint32_t>(static_cast<unsigned char>(bytes[i])); };
  return at(0) << 24 | at(1) << 16 | at(2) << 8 | at(3);
}

// The process that answered serves the database that its name is bound to, as far as it says. A
// physical clone differs in the address alone.
bool IsOf(const wire::ParticipantHello& hello, const DatabaseId& database,
          const std::string& database_address) {
  const DatabaseAddress met{hello.database_address, hello.database_machine};
  if (hello.__isset.database_address && !met.MayBe(DatabaseAddress::Of(database_address))) {
    return false;
  }
  if (hello.__isset.database_oid &&
      static_cast<std::uint32_t>(hello.database_oid) != database.oid) {
    return false;
  }
  return !hello.__isset.system_identifier ||
         hello.system_identifier == std::to_string(database.system_identifier);
}

}  // namespace

// A connection with at most one unanswered call. Written and read without waiting: what is
// written fits the send buffer, which is empty when a call begins.
class ThriftChannel::Line {
 public:
  explicit Line(std::shared_ptr<WireSocket> socket) : socket_(std::move(socket)) {
    out_ = std::make_shared<TMemoryBuffer>();
    in_ = std::make_shared<TMemoryBuffer>();
    client_ = std::make_unique<wire::ParticipantPeerClient>(BoundedProtocol<TTransport>(in_),
                                                            BoundedProtocol<TTransport>(out_));
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
      const ssize_t n = socket_->TakeNow(chunk.data(), chunk.size());
      if (n < 0) return -1;
      if (n == 0) break;
      bytes_.append(chunk.data(), static_cast<std::size_t>(n));
      if (bytes_.size() > kMaxFrameBytes + 4u) return -1;
      // All there was, and epoll tells of more; what OpenSSL holds it tells nobody.
      if (static_cast<std::size_t>(n) < chunk.size() && !socket_->encrypted()) break;
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
    busy_ = socket_->GiveNow(frame.data(), frame.size());
    sent_at_ = SteadyClock::now();
    return busy_;
  }

  std::shared_ptr<WireSocket> socket_;
  std::shared_ptr<TMemoryBuffer> out_, in_;
  std::unique_ptr<wire::ParticipantPeerClient> client_;
  std::string bytes_;
  bool busy_ = false;
  SteadyClock::time_point sent_at_;
};

struct ThriftChannel::Place {
  std::uint64_t id = 0;
  Peer* peer = nullptr;
  std::string host;
  std::uint32_t port = 0;
  std::string instance;  // of the connections, or of the process that is to be reached
  bool up = false;
  bool try_now = false;
  SteadyClock::time_point wanted_at;  // when it was last heard of
  SteadyClock::time_point next_try;
  std::int64_t backoff_ms = 0;
  bool answered = false;  // a call, since it was connected to
  std::unique_ptr<Line> lines[kLines];
  std::vector<SendPrepare> prepares;  // queued
  std::vector<SendFinish> finishes;   // somebody waits for them
  std::deque<SendFinish> unawaited;   // nobody does: after a crash there may be thousands

  std::size_t Load() const {
    return prepares.size() + finishes.size() + unawaited.size() +
           (lines[kFinishLine]->busy() ? 1 : 0);
  }
  void Add(const SendFinish& finish) {
    finish.awaited ? finishes.push_back(finish) : unawaited.push_back(finish);
  }
};

struct ThriftChannel::Peer {
  ParticipantIndex index = 0;
  std::string name;
  DatabaseId database;  // its name is bound to
  std::string database_address;
  bool leaving = false;
  SteadyClock::time_point down_since = SteadyClock::now();  // of no meaning while one is up
  std::vector<std::unique_ptr<Place>> places;
  std::thread reconnector;
  CondVar changed;

  // The instance named if it is up, else the one that is up and has least to do, else null.
  Place* Choose(const std::string& instance) const {
    Place* chosen = nullptr;
    for (const std::unique_ptr<Place>& place : places) {
      if (!place->up) continue;
      if (!instance.empty() && place->instance == instance) return place.get();
      if (chosen == nullptr || place->Load() < chosen->Load()) chosen = place.get();
    }
    return chosen;
  }
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
  if (stopping_ || to.port == 0) return;
  std::unique_ptr<Peer>& slot = peers_[to.participant];
  if (slot == nullptr) {
    slot = std::make_unique<Peer>();
    slot->index = to.participant;
    slot->name = to.name;
  }
  Peer* peer = slot.get();
  if (!peer->reconnector.joinable()) {
    try {
      peer->reconnector = std::thread([this, peer] { ReconnectLoop(peer); });
    } catch (const std::system_error& e) {  // it enrols again, each 10 s
      LOG(ERROR) << "participant " << to.name << " is not connected to: " << e.what();
    }
  }
  peer->leaving = false;
  peer->database = to.database;
  peer->database_address = to.database_address;
  Place* place = MakePlace(peer, to);
  if (place == nullptr) return;
  if (!to.instance.empty()) {
    if (place->up && place->instance != to.instance) Drop(place, "another process took its place");
    place->instance = to.instance;
  }
  place->wanted_at = SteadyClock::now();
  place->try_now = true;
  peer->changed.NotifyAll();
}

ThriftChannel::Place* ThriftChannel::MakePlace(Peer* peer, const struct Connect& to) {
  for (const std::unique_ptr<Place>& place : peer->places) {
    if (place->host == to.host && place->port == to.port) return place.get();
  }
  if (peer->places.size() >= kMaxInstances) {
    // Addresses that never answered make way; they enrol again if they are there.
    const auto silent = std::min_element(
        peer->places.begin(), peer->places.end(), [](const auto& a, const auto& b) {
          return std::pair(a->up, a->wanted_at) < std::pair(b->up, b->wanted_at);
        });
    if ((*silent)->up) {
      LOG(ERROR) << "participant '" << peer->name << "' has " << peer->places.size()
                 << " instances; one more is not connected to";
      return nullptr;
    }
    places_.erase((*silent)->id);
    peer->places.erase(silent);
  }
  auto fresh = std::make_unique<Place>();
  Place* place = fresh.get();
  place->id = next_place_++;
  place->peer = peer;
  place->host = to.host;
  place->port = to.port;
  place->backoff_ms = options_.backoff_min_ms;
  peer->places.push_back(std::move(fresh));
  places_[place->id] = place;
  return place;
}

void ThriftChannel::Disconnect(ParticipantIndex participant) {
  MutexLock lock(&mutex_);
  auto found = peers_.find(participant);
  if (found == peers_.end()) return;
  Peer* peer = found->second.get();
  peer->leaving = true;
  bool was_up = false;
  for (const std::unique_ptr<Place>& place : peer->places) {
    was_up = was_up || place->up;
    place->up = false;  // none takes over from another
    for (const auto& line : place->lines) {
      if (line != nullptr && line->busy()) outstanding_.fetch_sub(1);
    }
    places_.erase(place->id);
  }
  peer->places.clear();
  if (was_up) peer->down_since = SteadyClock::now();
  if (was_up) coordinator_->Enqueue(ParticipantDown{peer->index});
}

ThriftChannel::Place* ThriftChannel::NextToTry(Peer* peer, SteadyClock::time_point* look_again) {
  const SteadyClock::time_point now = SteadyClock::now();
  *look_again = SteadyClock::time_point::max();
  if (peer->leaving) return nullptr;
  Place* due = nullptr;  // the one that has waited longest: a dead one keeps no other from its turn
  for (const std::unique_ptr<Place>& place : peer->places) {
    if (place->up) continue;
    if (place->try_now) return place.get();
    const bool longer = due == nullptr || place->next_try < due->next_try;
    if (place->next_try <= now && longer) due = place.get();
    *look_again = std::min(*look_again, place->next_try);
  }
  return due;
}

void ThriftChannel::ForgetGone(Peer* peer) {
  if (peer->Choose("") == nullptr) return;  // the last one is looked for for ever
  const SteadyClock::time_point line = SteadyClock::now() - kForgetAfter;
  const auto gone = [line](const std::unique_ptr<Place>& place) {
    return !place->up && !place->try_now && place->wanted_at <= line;
  };
  for (const std::unique_ptr<Place>& place : peer->places) {
    if (gone(place)) places_.erase(place->id);
  }
  std::erase_if(peer->places, gone);
}

// One thread a participant, asleep while it is connected: a dead host delays no other's.
void ThriftChannel::ReconnectLoop(Peer* peer) {
  MutexLock lock(&mutex_);
  while (!stopping_) {
    ForgetGone(peer);
    SteadyClock::time_point look_again;
    Place* place = NextToTry(peer, &look_again);
    if (place == nullptr) {
      if (look_again == SteadyClock::time_point::max()) {
        peer->changed.Wait(&mutex_);
      } else {
        peer->changed.WaitUntil(&mutex_, look_again);
      }
      continue;
    }
    if (place->try_now) place->backoff_ms = options_.backoff_min_ms;
    place->try_now = false;
    const std::chrono::milliseconds backoff(place->backoff_ms);
    place->backoff_ms = std::min(place->backoff_ms * 2, options_.backoff_max_ms);
    const std::uint64_t id = place->id;  // it may be forgotten meanwhile
    mutex_.Unlock();
    const bool connected = TryConnect(peer, id);
    coordinator_->Lead();
    nudge_();  // what this thread has stepped for others goes on
    mutex_.Lock();
    stats_.reconnects += connected ? 1 : 0;
    const auto tried = places_.find(id);
    if (tried != places_.end()) tried->second->next_try = SteadyClock::now() + backoff;
  }
}

// Opens both connections and says hello on each. Blocks up to the connect timeout.
bool ThriftChannel::TryConnect(Peer* peer, std::uint64_t place_id) {
  std::string host, name, database_address;
  DatabaseId database;
  std::uint32_t port = 0;
  {
    MutexLock lock(&mutex_);
    const auto place = places_.find(place_id);
    if (place == places_.end()) return false;
    host = place->second->host;
    port = place->second->port;
    name = peer->name;
    database = peer->database;
    database_address = peer->database_address;
  }
  TlsContext* const tls = options_.security == nullptr ? nullptr : options_.security->tls();
  std::unique_ptr<Line> lines[kLines];
  std::string instance;
  try {
    for (auto& line : lines) {
      auto socket = std::make_shared<WireSocket>(tls, host, static_cast<int>(port));
      socket->setConnTimeout(static_cast<int>(options_.connect_timeout_ms));
      socket->setRecvTimeout(static_cast<int>(options_.connect_timeout_ms));
      socket->setSendTimeout(static_cast<int>(options_.connect_timeout_ms));
      socket->open();
      if (tls != nullptr) {
        const auto why = options_.security->WhyNot(socket->peer_name(), Role::kParticipant, name);
        if (why) {
          LOG_EVERY_N(WARNING, 20) << "participant '" << name << "' is not who answers at " << host
                                   << ":" << port << ": " << *why;
          return false;
        }
      }
      auto framed = std::make_shared<TFramedTransport>(socket, FrameLimits());
      wire::ParticipantPeerClient client(BoundedProtocol<TTransport>(framed));
      wire::ParticipantHello hello;
      client.hello(hello, wire::g_troth_constants.PROTOCOL_VERSION,
                   SenderOf(options_.coordinator_id, *coordinator_));
      if (hello.participant != name) {
        LOG(WARNING) << "participant '" << hello.participant << "' answers at " << host << ":"
                     << port << " where '" << name << "' should be";
        return false;
      }
      if (!IsOf(hello, database, database_address)) {
        LOG_EVERY_N(WARNING, 20) << "participant '" << name << "' at " << host << ":" << port
                                 << " has another database than the one its name is bound to";
        return false;
      }
      instance = hello.instance;
      line = std::make_unique<Line>(std::move(socket));
    }
  } catch (const wire::Refused& refused) {
    LOG(WARNING) << "participant '" << name << "' refuses us: " << refused.message;
    return false;
  } catch (const apache::thrift::TException& e) {
    // Not there yet: tried again, and seen in the status. With TLS it may be more than that.
    if (tls != nullptr) {
      LOG_EVERY_N(WARNING, 20) << "participant '" << name << "' at " << host << ":" << port << ": "
                               << e.what();
    }
    return false;
  }
  MutexLock lock(&mutex_);
  const auto found = places_.find(place_id);
  if (stopping_ || found == places_.end() || peer->leaving || peer->database != database ||
      peer->database_address != database_address) {
    return false;
  }
  Place* place = found->second;
  for (int which = 0; which < kLines; ++which) {
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.u64 = place_id * kLines + static_cast<unsigned>(which);
    PCHECK(epoll_ctl(epoll_, EPOLL_CTL_ADD, lines[which]->fd(), &event) == 0);
    place->lines[which] = std::move(lines[which]);
  }
  const bool first = peer->Choose("") == nullptr;
  place->instance = instance;
  place->up = true;
  place->answered = false;
  LOG(INFO) << "participant '" << name << "' is up (instance " << instance << ")";
  // Under the lock, so that ups and downs arrive in the order in which they happened; the
  // caller lets go of the lock and leads the machine if nobody does.
  if (first) coordinator_->Enqueue(ParticipantUp{peer->index});
  return true;
}

void ThriftChannel::Drop(Place* place, const std::string& why) {
  if (!place->up) return;
  Peer* peer = place->peer;
  LOG(WARNING) << "participant '" << peer->name << "' is down (instance " << place->instance
               << "): " << why;
  place->up = false;
  // One that takes connections and answers no call is tried ever more rarely.
  if (place->answered) place->next_try = SteadyClock::now();
  std::vector<SendPrepare> prepares = std::move(place->prepares);
  std::vector<SendFinish> finishes = std::move(place->finishes);
  finishes.insert(finishes.end(), place->unawaited.begin(), place->unawaited.end());
  place->prepares.clear();
  place->finishes.clear();
  place->unawaited.clear();
  for (auto& line : place->lines) {
    if (line->busy()) outstanding_.fetch_sub(1);
    prepares.insert(prepares.end(), line->prepares.begin(), line->prepares.end());
    finishes.insert(finishes.end(), line->finishes.begin(), line->finishes.end());
    line.reset();  // closing takes it out of the epoll set
  }
  peer->changed.NotifyAll();
  Place* other = peer->Choose("");
  if (other == nullptr) {
    peer->down_since = SteadyClock::now();
    coordinator_->Enqueue(ParticipantDown{peer->index});
    return;
  }
  // What it had not prepared is lost with it: another instance says so, and binds itself to that.
  // What it had, any instance finishes.
  other->prepares.insert(other->prepares.end(), prepares.begin(), prepares.end());
  for (const SendFinish& finish : finishes) other->Add(finish);
  PushPlace(other);
}

bool ThriftChannel::Up(ParticipantIndex participant, const std::string& instance) const {
  MutexLock lock(&mutex_);
  const auto peer = peers_.find(participant);
  if (peer == peers_.end()) return false;
  const Place* place = peer->second->Choose(instance);
  return place != nullptr && (instance.empty() || place->instance == instance);
}

ThriftChannel::Whereabouts ThriftChannel::Where(ParticipantIndex participant) const {
  MutexLock lock(&mutex_);
  const auto found = peers_.find(participant);
  if (found == peers_.end()) return {};
  const Peer& peer = *found->second;
  Whereabouts where;
  const Place* place = peer.Choose("");
  where.up = place != nullptr;
  if (!where.up) {
    where.down_ms =
        std::chrono::duration_cast<std::chrono::milliseconds>(SteadyClock::now() - peer.down_since)
            .count();
    if (!peer.places.empty()) place = peer.places.back().get();
  }
  if (place != nullptr) {
    where.host = place->host;
    where.port = place->port;
  }
  return where;
}

ThriftChannel::Stats ThriftChannel::stats() const {
  MutexLock lock(&mutex_);
  Stats stats = stats_;
  for (const auto& [id, place] : places_) {
    stats.queued += place->prepares.size() + place->finishes.size() + place->unawaited.size();
  }
  return stats;
}

// ---------------------------------------------------------------------------------- sending

void ThriftChannel::Send(const SendPrepare& prepare) {
  MutexLock lock(&mutex_);
  const auto peer = peers_.find(prepare.participant);
  if (peer == peers_.end()) return;
  if (Place* place = peer->second->Choose(prepare.instance)) place->prepares.push_back(prepare);
}

void ThriftChannel::Send(const SendFinish& finish) {
  MutexLock lock(&mutex_);
  const auto peer = peers_.find(finish.participant);
  if (peer == peers_.end()) return;
  if (Place* place = peer->second->Choose(finish.instance)) place->Add(finish);
}

void ThriftChannel::Push() {
  // By the thread that runs the machine: what is enqueued here it takes in its next round.
  MutexLock lock(&mutex_);
  for (auto& [id, place] : places_) PushPlace(place);
}

void ThriftChannel::PushPlace(Place* place) {
  // Asked for every place in every round, and mostly there is nothing to send.
  if (!place->up) return;
  const bool prepares = !place->lines[kPrepareLine]->busy() && !place->prepares.empty();
  const bool finishes =
      !place->lines[kFinishLine]->busy() && !(place->finishes.empty() && place->unawaited.empty());
  if (!prepares && !finishes) return;
  const wire::Sender sender = SenderOf(options_.coordinator_id, *coordinator_);
  // Takes the oldest entries of a queue, at most a batch.
  auto take = [this](auto* queue, auto* into) {
    const auto count = static_cast<std::ptrdiff_t>(std::min(queue->size(), options_.max_batch));
    into->assign(std::make_move_iterator(queue->begin()),
                 std::make_move_iterator(queue->begin() + count));
    queue->erase(queue->begin(), queue->begin() + count);
  };
  Line* line = place->lines[kPrepareLine].get();
  if (prepares) {
    take(&place->prepares, &line->prepares);
    // A crash here leaves branches unprepared or prepared in vain: aborted by absence.
    if (TROTH_FAILPOINT("prepare-sending")) return Drop(place, "failpoint");
    const RunningMs now = coordinator_->Now();
    std::vector<wire::PrepareRequest> list;
    for (const SendPrepare& p : line->prepares) {
      list.push_back(ToWire(options_.coordinator_id, p, now));
    }
    if (!line->CallPrepare(sender, list)) return Drop(place, "sending a prepare failed");
    ++stats_.prepare_calls;
    outstanding_.fetch_add(1);
  }
  line = place->lines[kFinishLine].get();
  if (finishes) {
    take(&place->finishes, &line->finishes);
    // A few at a time: those that somebody waits for come in between.
    for (std::size_t i = 0; i < kUnawaitedBatch && !place->unawaited.empty() &&
                            line->finishes.size() < options_.max_batch;
         ++i) {
      line->finishes.push_back(std::move(place->unawaited.front()));
      place->unawaited.pop_front();
    }
    // A crash here leaves decided branches prepared: finished after opening.
    if (TROTH_FAILPOINT("finish-sending")) return Drop(place, "failpoint");
    std::vector<wire::FinishRequest> list;
    for (const SendFinish& f : line->finishes) list.push_back(ToWire(options_.coordinator_id, f));
    if (!line->CallFinish(sender, list)) return Drop(place, "sending a finish failed");
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
      auto place = places_.find(key / kLines);
      if (place == places_.end() || !place->second->up) continue;
      ReadAnswers(place->second, static_cast<int>(key % kLines), &events);
    }
    // Also while others' answers keep coming.
    if (count == 0 || SteadyClock::now() - overdue_looked_at_ >= kLookForOverdue) DropOverdue();
    for (auto& [id, place] : places_) PushPlace(place);
  }
  coordinator_->Submit(std::move(events));
}

// Every answer names its transaction, and is one to the call that was made: anything else and
// the connection is closed.
void ThriftChannel::ReadAnswers(Place* place, int which, std::vector<Event>* events) {
  Line* line = place->lines[which].get();
  const Peer* peer = place->peer;
  const int read = line->Read();
  if (read == 0) return;
  if (read < 0) return Drop(place, "the connection was closed");
  outstanding_.fetch_sub(1);
  try {
    if (which == kPrepareLine) {
      const std::vector<wire::PrepareReply> replies = line->TakePrepared();
      if (replies.size() != line->prepares.size()) return Drop(place, "answers miss requests");
      for (std::size_t i = 0; i < replies.size(); ++i) {
        auto vote = FromWire(options_.coordinator_id, peer->index, replies[i]);
        if (!vote || vote->id != line->prepares[i].id) {
          return Drop(place, "it answered what was not asked");
        }
        events->push_back(*std::move(vote));
      }
      // A crash here leaves votes uncounted: the branches are aborted by absence.
      if (TROTH_FAILPOINT("vote-arrived")) return Drop(place, "failpoint");
      line->prepares.clear();
    } else {
      const std::vector<wire::FinishReply> replies = line->TakeFinished();
      if (replies.size() != line->finishes.size()) return Drop(place, "answers miss requests");
      for (std::size_t i = 0; i < replies.size(); ++i) {
        auto finished = FromWire(options_.coordinator_id, peer->index, replies[i]);
        if (!finished || finished->id != line->finishes[i].id) {
          return Drop(place, "it answered what was not asked");
        }
        finished->commit = line->finishes[i].commit;
        events->push_back(*std::move(finished));
      }
      // A crash here leaves acknowledgements uncounted: the branches are finished once more.
      if (TROTH_FAILPOINT("acknowledgement-arrived")) return Drop(place, "failpoint");
      line->finishes.clear();
    }
    place->answered = true;
    place->backoff_ms = options_.backoff_min_ms;
  } catch (const wire::Refused& refused) {
    LOG(ERROR) << "participant '" << peer->name << "' refuses our call: " << refused.message;
    Drop(place, "it refused our call");
  } catch (const apache::thrift::TException& e) {
    Drop(place, std::string("its answer cannot be read: ") + e.what());
  }
}

void ThriftChannel::DropOverdue() {
  overdue_looked_at_ = SteadyClock::now();
  const auto limit = SteadyClock::now() - std::chrono::milliseconds(options_.call_timeout_ms);
  for (auto& [id, place] : places_) {
    if (!place->up) continue;
    for (const auto& line : place->lines) {
      if (!line->busy() || line->sent_at() > limit) continue;
      Drop(place, "no answer for " + std::to_string(options_.call_timeout_ms) + " ms");
      break;
    }
  }
}

}  // namespace troth
