// Who is connected to a listener: bounds those that have not shown a certificate yet, and those
// of one certificate, so that no caller keeps the others out. Knows no Thrift.
// docs/operations.md, "Security".
#pragma once

#include <atomic>
#include <list>
#include <map>
#include <string>

#include "common/thread_annotations.h"

namespace troth {

// Thread-safe.
class Doorkeeper {
 public:
  // At most `max_unproven` connections whose handshake is not done: one more, and the oldest of
  // them is broken off. Of the others at most `max_proven`, and `max_per_name` of one certificate.
  Doorkeeper(std::size_t max_unproven, std::size_t max_proven, std::size_t max_per_name)
      : max_unproven_(max_unproven), max_proven_(max_proven), max_per_name_(max_per_name) {}

  // Breaks a connection off by shutting its descriptor down; whoever reads it finds its end.
  void Came(int fd) TROTH_EXCLUDES(mutex_);
  // The handshake is done. False: too many, of that name or in all, are here; the caller closes it,
  // and until it leaves it is one of those without a certificate.
  bool Proved(int fd, const std::string& name) TROTH_EXCLUDES(mutex_);
  // Before the descriptor is closed. Once for each that came.
  void Leaves(int fd) TROTH_EXCLUDES(mutex_);

  // No further call is read, on any connection. Cheap to ask, for each of them.
  void Close() { closed_.store(true, std::memory_order_relaxed); }
  bool closed() const { return closed_.load(std::memory_order_relaxed); }

  struct Counts {
    std::size_t unproven = 0;
    std::size_t proven = 0;
    std::size_t broken_off = 0;  // since the start
    std::size_t too_many = 0;    // of a name or in all, since the start
  };
  Counts counts() const TROTH_EXCLUDES(mutex_);

 private:
  const std::size_t max_unproven_;
  const std::size_t max_proven_;
  const std::size_t max_per_name_;
  std::atomic<bool> closed_{false};
  mutable Mutex mutex_;
  std::list<int> unproven_ TROTH_GUARDED_BY(mutex_);  // oldest first
  std::map<int, std::string> proven_ TROTH_GUARDED_BY(mutex_);
  std::map<std::string, std::size_t> of_name_ TROTH_GUARDED_BY(mutex_);
  std::size_t broken_off_ TROTH_GUARDED_BY(mutex_) = 0;
  std::size_t too_many_ TROTH_GUARDED_BY(mutex_) = 0;
};

}  // namespace troth
