// The channel to participants over Thrift: per instance one connection for prepares and one for
// finishes, so that a slow vote never holds up a commit; one unanswered call on each. What queues
// up meanwhile travels in the next call: batches without a timer. A participant may run as several
// instances: a prepare goes to the one that holds the branch, a finish there or, when that one is
// gone, to any. Keeps no state that outlives a connection. docs/protocol.md, "Messages".
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "common/thread_annotations.h"
#include "coordinator/crew.h"
#include "coordinator/participant_channel.h"
#include "wire/security.h"

namespace troth {

// Thread-safe: any thread connects, sends and pushes; one at a time polls (the crew).
class ThriftChannel : public ParticipantChannel, public AnswerSource {
 public:
  struct Options {
    std::string coordinator_id;
    std::int64_t connect_timeout_ms = 1'000;
    std::int64_t call_timeout_ms = 5'000;  // without an answer for so long: the peer is lost
    std::int64_t backoff_min_ms = 20;
    std::int64_t backoff_max_ms = 1'000;
    std::size_t max_batch = 256;   // entries in a call; the frame stays below a send buffer
    Security* security = nullptr;  // null: plain text; else it outlives the channel
  };

  explicit ThriftChannel(Options options);
  ~ThriftChannel() override;

  // Before anything else. `nudge` is called after events that came from threads of the
  // channel's own.
  void Start(Coordinator* coordinator, std::function<void()> nudge);
  // Joins the threads that reconnect. Connections close with the channel.
  void Stop();

  // ParticipantChannel.
  void Connect(const struct Connect& to) override;
  void Disconnect(ParticipantIndex participant) override;
  void Send(const SendPrepare& prepare) override;
  void Send(const SendFinish& finish) override;
  void Push() override;

  // AnswerSource.
  bool Outstanding() const override;
  void Poll(std::int64_t timeout_ms) override;
  void Interrupt() override;

  struct Stats {
    std::uint64_t prepare_calls = 0;
    std::uint64_t finish_calls = 0;
    std::uint64_t reconnects = 0;
    std::size_t queued = 0;  // prepares and finishes that wait for a call to end, now
  };
  Stats stats() const;
  // Where a participant is reached: the connected process with the least to do, else one that is
  // looked for; port 0: none was ever heard of. `down_ms`: since when there is no connection.
  struct Whereabouts {
    bool up = false;
    std::int64_t down_ms = 0;
    std::string host;
    std::uint32_t port = 0;
  };
  Whereabouts Where(ParticipantIndex participant) const;
  // How participants are called; null: in plain text.
  Security* security() const { return options_.security; }
  // The connections to this instance are there now; without a name: to any.
  bool Up(ParticipantIndex participant, const std::string& instance = {}) const;

 private:
  class Line;    // one connection
  struct Place;  // one process: an instance of a participant
  struct Peer;   // one participant

  void ReconnectLoop(Peer* peer);
  bool TryConnect(Peer* peer, std::uint64_t place_id);
  Place* MakePlace(Peer* peer, const struct Connect& to) TROTH_REQUIRES(mutex_);
  // The one to be tried next, if its time has come; else null, and when to look again.
  Place* NextToTry(Peer* peer, std::chrono::steady_clock::time_point* look_again)
      TROTH_REQUIRES(mutex_);
  // Forgets instances that were gone for long, while others serve.
  void ForgetGone(Peer* peer) TROTH_REQUIRES(mutex_);
  void PushPlace(Place* place) TROTH_REQUIRES(mutex_);
  // Closes its connections. What it was asked goes to another instance; when there is none, the
  // participant is down.
  void Drop(Place* place, const std::string& why) TROTH_REQUIRES(mutex_);
  void ReadAnswers(Place* place, int which, std::vector<Event>* events) TROTH_REQUIRES(mutex_);
  void DropOverdue() TROTH_REQUIRES(mutex_);

  const Options options_;
  Coordinator* coordinator_ = nullptr;
  std::function<void()> nudge_;
  int epoll_ = -1;
  int interrupt_ = -1;  // eventfd

  mutable Mutex mutex_;
  std::map<ParticipantIndex, std::unique_ptr<Peer>> peers_ TROTH_GUARDED_BY(mutex_);
  std::map<std::uint64_t, Place*> places_ TROTH_GUARDED_BY(mutex_);  // by id, as in the epoll set
  std::uint64_t next_place_ TROTH_GUARDED_BY(mutex_) = 0;
  std::atomic<int> outstanding_{0};
  bool stopping_ TROTH_GUARDED_BY(mutex_) = false;
  Stats stats_ TROTH_GUARDED_BY(mutex_);
  std::chrono::steady_clock::time_point overdue_looked_at_ TROTH_GUARDED_BY(mutex_);
};

}  // namespace troth
