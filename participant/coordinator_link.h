// CoordinatorLink: a participant's bond to one coordinator: enrolment, for ever, and inquiries.
// The one place of a participant that calls a coordinator. docs/protocol.md, "Messages".
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "common/status.h"
#include "common/thread_annotations.h"
#include "participant/epoch_fence.h"
#include "participant/sweep.h"
#include "wire/security.h"

namespace troth {

// What a participant says of itself; the database's part is asked for at each enrolment.
struct SelfDescription {
  std::string participant;
  std::string instance;
  std::string host;
  int port = 0;
  int peer_port = 0;
};

// Thread-safe. Owns a thread that enrols: at once, every 10 s, and at once again when the
// connection ends (after at most 1 s of back-off, capped).
class CoordinatorLink {
 public:
  // `address`: "host:port" of the coordinator's peer listener, called with `security`. On the
  // link's thread `enrolling` is called before each enrolment with the state of the database that
  // is told in it, and `enrolled` after it. The pointers outlive the link.
  CoordinatorLink(std::string address, SelfDescription self, ResourceManager* resource_manager,
                  EpochFence* fence, Security* security,
                  std::function<void(const DatabaseState&)> enrolling,
                  std::function<void()> enrolled);
  ~CoordinatorLink();
  CoordinatorLink(const CoordinatorLink&) = delete;
  CoordinatorLink& operator=(const CoordinatorLink&) = delete;

  // The ports of the listeners, which are open by now.
  void Start(int port, int peer_port);
  void Stop();

  // Asks about at most 1,000 branches. Waits at most 5 s. kUnavailable: no answer; ask again.
  Result<std::vector<SweepAnswer>> Inquire(std::span<const SweepInquiry> inquiries);

  // Enrolled now, as far as is known.
  bool up() const { return up_; }
  // `<name>-<mark>` of the coordinator; empty before it first answered.
  std::string coordinator() const;
  // Key of the codes of early votes; empty before the first enrolment.
  std::string secret() const;
  const std::string& address() const { return address_; }

 private:
  struct Line;  // a Thrift connection

  void Run();
  Status Enrol(Line* line);
  void ReportAllBut(const std::string& coordinator, Line* line);
  // Brings what was seen of coordinator `name`. False: another one answered, or it has seen more
  // of this one by now; nothing counts as told, and coordinator() is who answered.
  Result<bool> EnrolAs(Line* line, const std::string& name);
  // Waits for the end of the connection, or the time to enrol again. True: the connection lives.
  bool Linger(Line* line);
  bool Pause(int milliseconds);
  Result<std::unique_ptr<Line>> Connect();

  const std::string address_;
  SelfDescription self_;  // its ports are set by Start
  ResourceManager* const resource_manager_;
  EpochFence* const fence_;
  Security* const security_;
  const std::function<void(const DatabaseState&)> enrolling_;
  const std::function<void()> enrolled_;
  std::atomic<bool> up_{false};
  std::atomic<bool> stopping_{false};
  int wake_fd_ = -1;
  std::thread thread_;

  mutable Mutex mutex_;
  std::string coordinator_ TROTH_GUARDED_BY(mutex_);
  std::string secret_ TROTH_GUARDED_BY(mutex_);
  Mutex inquiry_mutex_;
  std::unique_ptr<Line> inquiry_line_ TROTH_GUARDED_BY(inquiry_mutex_);
};

}  // namespace troth
