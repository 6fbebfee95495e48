// See client_core.h.
#include "client/client_core.h"

#include <algorithm>
#include <chrono>
#include <thread>
#include <utility>

#include <unistd.h>

#include "Participant.h"
#include "client/backoff.h"
#include "common/check.h"
#include "troth_constants.h"

namespace troth {
namespace {

// Addresses older than this are asked for again, so that new instances are found.
constexpr std::int64_t kPlacesFreshMs = 5000;

void Pause(std::int64_t ms) { std::this_thread::sleep_for(std::chrono::milliseconds(ms)); }

Failure Unreachable(const std::string& participant, const std::string& why) {
  return MakeFailure(wire::Reason::DATABASE_UNAVAILABLE,
                     "participant " + participant + " cannot be reached: " + why, true,
                     participant);
}

}  // namespace

bool PassesByItself(wire::Reason::type reason) {
  return reason == wire::Reason::OVERLOADED || reason == wire::Reason::NOT_SERVING;
}

Failure MakeFailure(wire::Reason::type reason, std::string message, bool retryable,
                    const std::string& participant) {
  Failure failure;
  failure.reason = reason;
  failure.message = std::move(message);
  failure.retryable = retryable;
  failure.participant = participant;
  return failure;
}

Failure FailureOf(const wire::Refused& refusal, const std::string& participant) {
  Failure failure;
  failure.reason = refusal.reason;
  failure.message = refusal.message;
  failure.retryable = refusal.retryable;
  failure.participant = participant;
  failure.sqlstate = refusal.sqlstate;
  return failure;
}

ClientCore::ClientCore(const ClientOptions& options)
    : options_(options),
      tls_(options.tls.none() ? nullptr : std::make_unique<TlsContext>(options.tls)),
      pid_(getpid()),
      pool_(options.max_idle_connections) {
  TROTH_CHECK(!options_.coordinators.empty());
}

bool ClientCore::OfThisProcess() const { return getpid() == pid_; }

// ---- The coordinator.

Result<std::unique_ptr<Connection>> ClientCore::OpenCoordinator(const Address& address,
                                                                const Deadline& deadline,
                                                                CallReport* refused) {
  const std::int64_t timeout_ms =
      std::min(options_.connect_timeout_ms, deadline.left_ms() + options_.grace_ms);
  Result<std::unique_ptr<Connection>> opened = Connection::Open(address, timeout_ms, tls_.get());
  if (!opened.ok()) return opened;
  wire::CoordinatorClient coordinator((*opened)->protocol());
  wire::CoordinatorHello hello;
  const CallReport report = (*opened)->Run(timeout_ms, [&] {
    wire::ClientHello self;
    self.version = wire::g_troth_constants.PROTOCOL_VERSION;
    self.__set_application(options_.application);
    coordinator.hello(hello, self);
  });
  if (report.end == CallReport::End::kRefused) {
    *refused = report;
    return Status(Code::kRefused, report.refusal.message);
  }
  if (!report.ok()) return Status(Code::kUnavailable, report.error);
  MutexLock lock(&mutex_);
  if (hello.sender.coordinator != sender_.coordinator || hello.sender.epoch != sender_.epoch ||
      hello.sender.epoch_random != sender_.epoch_random) {
    // Another life: ids leased by an ended one can't commit any more (law L7a).
    leases_.Clear();
    places_.clear();
    ++life_;
  }
  sender_ = hello.sender;
  return opened;
}

CallReport ClientCore::TryCoordinator(const Deadline& deadline, const CoordinatorCall& call) {
  std::size_t first;
  {
    MutexLock lock(&mutex_);
    first = preferred_;
  }
  CallReport none = CallReport::NotSent("");
  for (std::size_t i = 0; i < options_.coordinators.size(); ++i) {
    const std::size_t index = (first + i) % options_.coordinators.size();
    const Address& address = options_.coordinators[index];
    std::unique_ptr<Connection> connection = pool_.Take(address);
    if (connection == nullptr) {
      CallReport refused;
      Result<std::unique_ptr<Connection>> opened = OpenCoordinator(address, deadline, &refused);
      if (refused.end == CallReport::End::kRefused) return refused;
      if (!opened.ok()) {
        none.error += (i == 0 ? "" : "; ") + opened.status().message();
        continue;
      }
      connection = *std::move(opened);
      MutexLock lock(&mutex_);
      preferred_ = index;
    }
    wire::CoordinatorClient coordinator(connection->protocol());
    CallReport report =
        connection->Run(deadline.left_ms() + options_.grace_ms, [&] { call(coordinator); });
    Return(std::move(connection), report);
    return report;
  }
  return none;
}

CallReport ClientCore::AskCoordinator(const Deadline& deadline, const CoordinatorCall& call) {
  Backoff backoff(10, 200);
  for (;;) {
    CallReport report = TryCoordinator(deadline, call);
    if (report.ok() ||
        (report.end == CallReport::End::kRefused && !PassesByItself(report.refusal.reason))) {
      return report;
    }
    const std::int64_t left_ms = deadline.left_ms();
    if (left_ms == 0) return report;
    Pause(std::min(left_ms, backoff.NextMs()));
  }
}

void ClientCore::Return(std::unique_ptr<Connection> connection, const CallReport& report) {
  if (report.ok() || report.end == CallReport::End::kRefused) {
    pool_.Give(std::move(connection));
  } else if (report.end == CallReport::End::kUnanswered) {
    pool_.Drop(connection->address());
  }
}

// ---- Ids.

std::optional<Failure> ClientCore::TakeId(const Deadline& deadline, std::string* id) {
  for (;;) {
    std::optional<Prefetch> prefetch;
    if (std::optional<Failure> failure = TakeOrClaim(deadline, id, &prefetch)) return failure;
    if (!id->empty()) return std::nullopt;
    std::optional<Failure> failure = AskLease(deadline, std::move(prefetch));
    {
      MutexLock lock(&mutex_);
      asking_ = false;
    }
    lease_came_.NotifyAll();
    if (failure) return failure;
  }
}

std::optional<Failure> ClientCore::TakeOrClaim(const Deadline& deadline, std::string* id,
                                               std::optional<Prefetch>* prefetch) {
  MutexLock lock(&mutex_);
  for (;;) {
    const std::int64_t now_ms = BootMs();
    if (std::optional<std::string> taken = leases_.Take(now_ms, deadline.at_ms())) {
      if (!prefetch_ && !asking_ && leases_.WantsMore(now_ms, deadline.at_ms())) {
        StartPrefetch(now_ms);
      }
      *id = *std::move(taken);
      return std::nullopt;
    }
    const std::int64_t left_ms = deadline.left_ms();
    if (left_ms == 0) {
      return MakeFailure(wire::Reason::NOT_SERVING,
                         "no transaction id came from the coordinator before the deadline", true);
    }
    if (!asking_) {
      asking_ = true;
      *prefetch = std::exchange(prefetch_, std::nullopt);
      return std::nullopt;
    }
    lease_came_.WaitFor(&mutex_, std::chrono::milliseconds(left_ms));
  }
}

void ClientCore::StartPrefetch(std::int64_t now_ms) {
  std::unique_ptr<Connection> connection = pool_.Take(options_.coordinators[preferred_]);
  if (connection == nullptr) return;  // the next transaction tries again
  wire::CoordinatorClient coordinator(connection->protocol());
  const std::int32_t count = leases_.next_count();
  const CallReport sent =
      connection->Run(options_.connect_timeout_ms, [&] { coordinator.send_lease(count); });
  if (sent.ok()) prefetch_ = Prefetch{std::move(connection), now_ms, life_};
}

std::optional<Failure> ClientCore::AskLease(const Deadline& deadline,
                                            std::optional<Prefetch> prefetch) {
  wire::Lease lease;
  if (prefetch) {
    Connection& connection = *prefetch->connection;
    wire::CoordinatorClient coordinator(connection.protocol());
    const CallReport report = connection.Run(
        std::min(options_.connect_timeout_ms, deadline.left_ms() + options_.grace_ms),
        [&] { coordinator.recv_lease(lease); });
    Return(std::move(prefetch->connection), report);
    MutexLock lock(&mutex_);
    if (report.ok() && prefetch->life == life_) {
      leases_.Add(std::move(lease.prefix), lease.first, lease.count, lease.ends_in_ms,
                  prefetch->asked_at_ms);
    }
    // It may have come too late, or not at all: the next round asks anew.
    return std::nullopt;
  }
  std::int64_t asked_at_ms = 0;
  std::int32_t count;
  {
    MutexLock lock(&mutex_);
    count = leases_.next_count();
  }
  const CallReport report = AskCoordinator(deadline, [&](wire::CoordinatorClient& coordinator) {
    asked_at_ms = BootMs();
    coordinator.lease(lease, count);
  });
  if (report.end == CallReport::End::kRefused) return FailureOf(report.refusal, "");
  if (!report.ok()) {
    return MakeFailure(wire::Reason::NOT_SERVING,
                       "the coordinator gave no transaction id, nothing was begun: " + report.error,
                       true);
  }
  if (asked_at_ms + lease.ends_in_ms < deadline.at_ms()) {
    return MakeFailure(wire::Reason::INVALID,
                       "the deadline is longer than the coordinator's leases (" +
                           std::to_string(lease.ends_in_ms) +
                           " ms): no transaction lasts longer than one",
                       false);
  }
  MutexLock lock(&mutex_);
  leases_.Add(std::move(lease.prefix), lease.first, lease.count, lease.ends_in_ms, asked_at_ms);
  return std::nullopt;
}

// ---- Participants.

void ClientCore::CountBranch(const std::string& instance, int change) {
  MutexLock lock(&mutex_);
  const auto branches = branches_.try_emplace(instance, 0).first;
  branches->second += change;
  if (branches->second == 0) branches_.erase(branches);
}

std::optional<Failure> ClientCore::FindPlaces(const std::string& participant, bool afresh,
                                              const Deadline& deadline,
                                              std::vector<wire::ParticipantAddress>* places) {
  const std::int64_t asked_at_ms = BootMs();
  if (!afresh) {
    MutexLock lock(&mutex_);
    const auto known = places_.find(participant);
    if (known != places_.end() && asked_at_ms - known->second.asked_at_ms < kPlacesFreshMs) {
      *places = known->second.instances;
      return std::nullopt;
    }
  }
  places->clear();
  const CallReport report = AskCoordinator(deadline, [&](wire::CoordinatorClient& coordinator) {
    coordinator.resolve(*places, {participant});
  });
  if (report.end == CallReport::End::kRefused) return FailureOf(report.refusal, participant);
  if (!report.ok()) {
    return Unreachable(participant,
                       "the coordinator could not be asked where it is: " + report.error);
  }
  if (places->empty()) {
    Failure failure;
    failure.reason = wire::Reason::UNKNOWN_PARTICIPANT;
    failure.message = "no participant named '" + participant +
                      "' is registered at the coordinator; start it, or mend the name";
    failure.participant = participant;
    return failure;
  }
  // Now and then, and beside a round trip: what went to another address left connections behind.
  pool_.Sweep();
  MutexLock lock(&mutex_);
  places_[participant] = Places{*places, asked_at_ms};
  return std::nullopt;
}

std::optional<Failure> ClientCore::OpenParticipant(const std::string& participant,
                                                   const wire::ParticipantAddress& place,
                                                   const Deadline& deadline,
                                                   std::unique_ptr<Connection>* connection) {
  const Address address{place.host, place.port};
  const std::int64_t timeout_ms =
      std::min(options_.connect_timeout_ms, deadline.left_ms() + options_.grace_ms);
  Result<std::unique_ptr<Connection>> opened = Connection::Open(address, timeout_ms, tls_.get());
  if (!opened.ok()) return Unreachable(participant, opened.status().message());
  wire::ParticipantClient service((*opened)->protocol());
  wire::ParticipantHello hello;
  const CallReport report = (*opened)->Run(
      timeout_ms, [&] { service.hello(hello, wire::g_troth_constants.PROTOCOL_VERSION); });
  if (report.end == CallReport::End::kRefused) return FailureOf(report.refusal, participant);
  if (!report.ok()) return Unreachable(participant, report.error);
  if (hello.participant != participant) {
    return Unreachable(participant, "at " + address.ToString() + " is now " + hello.participant);
  }
  (*opened)->participant = hello.participant;
  (*opened)->instance = hello.instance;
  *connection = *std::move(opened);
  return std::nullopt;
}

std::optional<Failure> ClientCore::ConnectParticipant(const std::string& participant,
                                                      const std::string& instance,
                                                      const Deadline& deadline,
                                                      std::unique_ptr<Connection>* connection) {
  std::optional<Failure> failure;
  for (const bool afresh : {false, true}) {
    std::vector<wire::ParticipantAddress> places;
    if ((failure = FindPlaces(participant, afresh, deadline, &places))) return failure;
    std::vector<std::pair<int, std::size_t>> order;  // what speaks against it, index
    {
      MutexLock lock(&mutex_);
      for (std::size_t i = 0; i < places.size(); ++i) {
        if (places[i].port == 0) continue;  // registered, and not heard of since a restart
        if (!instance.empty() && places[i].instance != instance) continue;
        const auto branches = branches_.find(places[i].instance);
        const int load = branches == branches_.end() ? 0 : branches->second;
        order.emplace_back(places[i].up ? load : load + (1 << 20), i);
      }
    }
    std::sort(order.begin(), order.end());
    for (const auto& [load, index] : order) {
      const wire::ParticipantAddress& place = places[index];
      std::unique_ptr<Connection> candidate = pool_.Take(Address{place.host, place.port});
      if (candidate == nullptr || candidate->participant != participant) {
        candidate.reset();
        failure = OpenParticipant(participant, place, deadline, &candidate);
      }
      if (candidate == nullptr) continue;
      if (instance.empty() || candidate->instance == instance) {
        *connection = std::move(candidate);
        return std::nullopt;
      }
    }
  }
  if (!instance.empty()) {
    Failure lost;
    lost.reason = wire::Reason::NO_SUCH_BRANCH;
    lost.message = "the process of participant " + participant +
                   " that held the branch is gone, and the branch with it";
    lost.retryable = true;
    lost.participant = participant;
    return lost;
  }
  if (!failure) failure = Unreachable(participant, "the coordinator has not heard of it lately");
  return failure;
}

}  // namespace troth
