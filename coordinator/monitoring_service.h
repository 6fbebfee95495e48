// What a coordinator tells over HTTP: /metrics for Prometheus, /healthz and /readyz for whoever
// restarts it or sends it work. Tells, and changes nothing. docs/operations.md, "Monitoring".
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "common/thread_annotations.h"
#include "coordinator/load_history.h"
#include "coordinator/timeline.h"
#include "wire/http_listener.h"
#include "wire/metrics.h"

namespace troth {

// Thread-safe. Lives from before the log is opened, so that "not ready" can be told, until after
// everything that it looks at has gone.
class Monitoring {
 public:
  Monitoring();
  ~Monitoring();
  Monitoring(const Monitoring&) = delete;
  Monitoring& operator=(const Monitoring&) = delete;

  // How a commit call ended: "committed", "aborted", "read-only", "pending", "expired".
  void Committed(const std::string& outcome, double seconds);
  // A commit call that did nothing; `reason` as troth.thrift names it.
  void Refused(const std::string& reason);
  // A phase of a transaction that commits.
  void Passed(TransactionHistory::Phase phase, double seconds);
  // A write and sync of the log, and how many records it made durable.
  void Synced(double seconds, std::uint64_t records);

  // From now on `state` says what /readyz tells ("serving" is ready), and `values` adds to
  // /metrics what is looked up when asked. Both may be called by the thread of HTTP until
  // Leave returns.
  void Look(std::function<std::string()> state, std::function<void(MetricPage*)> values)
      TROTH_EXCLUDES(mutex_);
  // Forgets them; /readyz tells `why` from now on.
  void Leave(const std::string& why) TROTH_EXCLUDES(mutex_);

  // What /readyz tells.
  std::string State() TROTH_EXCLUDES(mutex_);
  // Adds how long commits and syncs took so far.
  void AddLatencies(LoadTotals* totals) const;

  // The pages.
  HttpReply Page(const std::string& path) TROTH_EXCLUDES(mutex_);

 private:
  struct Instruments;

  const std::unique_ptr<Instruments> instruments_;
  Mutex mutex_;
  std::string away_ TROTH_GUARDED_BY(mutex_) = "opening the log";
  std::function<std::string()> state_ TROTH_GUARDED_BY(mutex_);
  std::function<void(MetricPage*)> values_ TROTH_GUARDED_BY(mutex_);
};

}  // namespace troth
