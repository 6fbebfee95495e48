// The console: one page for operators at the coordinator's HTTP port, and what it asks under
// /api/. Tells, and changes nothing. The page itself is coordinator/console/. docs/operations.md,
// "Console".
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "common/thread_annotations.h"
#include "coordinator/answer_cache.h"
#include "coordinator/coordinator.h"
#include "coordinator/crew.h"
#include "coordinator/inspection_service.h"
#include "coordinator/load_history.h"
#include "coordinator/monitoring_service.h"
#include "coordinator/thrift_channel.h"
#include "wire/http_listener.h"

namespace troth {

// Thread-safe. Lives as long as Monitoring does, so that "not ready" can be shown. Requests are
// answered from memory: what participants must be asked for is asked by another thread.
class Console {
 public:
  // What is looked at, between Look and Leave.
  struct Sources {
    std::string coordinator_id;
    Coordinator* coordinator = nullptr;
    Crew* crew = nullptr;
    const ThriftChannel* channel = nullptr;
    Inspection* inspection = nullptr;  // waits for participants: not asked by the thread of HTTP
  };

  explicit Console(Monitoring* monitoring);
  ~Console();
  Console(const Console&) = delete;
  Console& operator=(const Console&) = delete;

  // From now on looks at these, and takes a sample of the load each second. Once.
  void Look(Sources sources) TROTH_EXCLUDES(mutex_);
  // Looks no more; waits for the look under way, 3 s at most.
  void Leave() TROTH_EXCLUDES(mutex_);

  // The page, its files and answers; null for paths that are not the console's.
  bool Answers(const std::string& path) const;
  HttpReply Page(const HttpRequest& request) TROTH_EXCLUDES(mutex_);

 private:
  // Since when a participant has been as it is, as seen once a second.
  struct Reach {
    bool up = false;
    std::int64_t since_unix_ms = 0;
  };

  std::string Status() TROTH_REQUIRES(mutex_);
  std::string Load(std::int64_t after_unix_ms) TROTH_REQUIRES(mutex_);
  std::string InDoubt() TROTH_REQUIRES(mutex_);
  std::string Participants() TROTH_REQUIRES(mutex_);
  HttpReply Transaction(const std::string& id) TROTH_REQUIRES(mutex_);
  // The machine between two steps.
  void Inspect(const std::function<void(const CommitProtocol&)>& look) TROTH_REQUIRES(mutex_);
  void Sample() TROTH_REQUIRES(mutex_);
  void SeeReach() TROTH_REQUIRES(mutex_);
  void RunSampler() TROTH_EXCLUDES(mutex_);

  Monitoring* const monitoring_;
  Mutex mutex_;
  CondVar changed_;
  bool looking_ TROTH_GUARDED_BY(mutex_) = false;
  Sources sources_ TROTH_GUARDED_BY(mutex_);
  std::int64_t began_unix_ms_ TROTH_GUARDED_BY(mutex_) = 0;
  LoadHistory history_ TROTH_GUARDED_BY(mutex_);
  std::vector<Reach> reach_ TROTH_GUARDED_BY(mutex_);                   // by index
  std::unique_ptr<AnswerCache> doubt_ TROTH_GUARDED_BY(mutex_);         // one question: ""
  std::unique_ptr<AnswerCache> transactions_ TROTH_GUARDED_BY(mutex_);  // by id
  std::thread sampler_;
};

}  // namespace troth
