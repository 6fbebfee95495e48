// What all transactions of one client in one process share: leased ids, connections, where
// participants are. Internal to client/; applications see client.h. docs/protocol.md, "Leases".
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <sys/types.h>

#include "Coordinator.h"
#include "client/boot_time.h"
#include "client/client.h"
#include "client/connection.h"
#include "client/lease_cache.h"
#include "common/thread_annotations.h"

namespace troth {

using CoordinatorCall = std::function<void(wire::CoordinatorClient&)>;

// Thread-safe. Belongs to the process that made it: locks, sockets and ids must not be used in a
// forked child, which leaves this object alone for ever (a lock in it may be held).
class ClientCore {
 public:
  explicit ClientCore(const ClientOptions& options);

  const ClientOptions& options() const { return options_; }
  bool OfThisProcess() const;

  // An id that may be used until `deadline`. A failure: nothing was begun, as Client::Begin tells.
  std::optional<Failure> TakeId(const Deadline& deadline, std::string* id) TROTH_EXCLUDES(mutex_);

  // One attempt at one call to the coordinator, at whichever address answers. Waits for the
  // reply until `deadline` plus grace.
  CallReport TryCoordinator(const Deadline& deadline, const CoordinatorCall& call)
      TROTH_EXCLUDES(mutex_);

  // Attempts until it is answered, or refused for good, or `deadline` has passed; then the
  // report of the last attempt. For calls that are safe to repeat.
  CallReport AskCoordinator(const Deadline& deadline, const CoordinatorCall& call);

  // A connection to `participant`: to that `instance`, or when it is empty to the live one with
  // the fewest branches of ours. The hello is done. A failure: nothing was sent.
  std::optional<Failure> ConnectParticipant(const std::string& participant,
                                            const std::string& instance, const Deadline& deadline,
                                            std::unique_ptr<Connection>* connection)
      TROTH_EXCLUDES(mutex_);
  // Gives a connection back after a call; closes it, and its idle siblings, when it is no good.
  void Return(std::unique_ptr<Connection> connection, const CallReport& report);
  // A branch of ours began (+1) or ended (-1) at an instance.
  void CountBranch(const std::string& instance, int change) TROTH_EXCLUDES(mutex_);

 private:
  // A lease call that was sent, its reply not yet read.
  struct Prefetch {
    std::unique_ptr<Connection> connection;
    std::int64_t asked_at_ms;
    std::int64_t life;
  };
  struct Places {
    std::vector<wire::ParticipantAddress> instances;
    std::int64_t asked_at_ms = 0;
  };

  Result<std::unique_ptr<Connection>> OpenCoordinator(const Address& address,
                                                      const Deadline& deadline,
                                                      CallReport* refused);
  // Under the lock: an id; or an empty one, and this thread is to ask (asking_ is set).
  std::optional<Failure> TakeOrClaim(const Deadline& deadline, std::string* id,
                                     std::optional<Prefetch>* prefetch) TROTH_EXCLUDES(mutex_);
  // Sends a lease call over an idle connection, if there is one; TakeOrClaim's next asker reads.
  void StartPrefetch(std::int64_t now_ms) TROTH_REQUIRES(mutex_);
  // By the thread that is to ask: reads what was sent for ahead, or asks, and adds the lease.
  std::optional<Failure> AskLease(const Deadline& deadline, std::optional<Prefetch> prefetch)
      TROTH_EXCLUDES(mutex_);
  std::optional<Failure> FindPlaces(const std::string& participant, bool afresh,
                                    const Deadline& deadline,
                                    std::vector<wire::ParticipantAddress>* places)
      TROTH_EXCLUDES(mutex_);
  std::optional<Failure> OpenParticipant(const std::string& participant,
                                         const wire::ParticipantAddress& place,
                                         const Deadline& deadline,
                                         std::unique_ptr<Connection>* connection);

  const ClientOptions options_;
  const std::unique_ptr<TlsContext> tls_;  // null: plain text
  const pid_t pid_;
  ConnectionPool pool_;

  Mutex mutex_;
  CondVar lease_came_;
  LeaseCache leases_ TROTH_GUARDED_BY(mutex_);
  std::optional<Prefetch> prefetch_ TROTH_GUARDED_BY(mutex_);
  bool asking_ TROTH_GUARDED_BY(mutex_) = false;
  // The coordinator's life as its last hello told it, and how many we saw.
  wire::Sender sender_ TROTH_GUARDED_BY(mutex_);
  std::int64_t life_ TROTH_GUARDED_BY(mutex_) = 0;
  // The address that answered last.
  std::size_t preferred_ TROTH_GUARDED_BY(mutex_) = 0;
  std::map<std::string, Places> places_ TROTH_GUARDED_BY(mutex_);
  std::map<std::string, int> branches_ TROTH_GUARDED_BY(mutex_);
};

// Reasons that pass by themselves: the coordinator did nothing and may do it later.
bool PassesByItself(wire::Reason::type reason);

Failure MakeFailure(wire::Reason::type reason, std::string message, bool retryable,
                    const std::string& participant = "");
Failure FailureOf(const wire::Refused& refusal, const std::string& participant);

}  // namespace troth
