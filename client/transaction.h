// One transaction as its application sees it: work at participants, then commit or abort.
// Numbers the work, carries the marks, builds the list of participants, tells the outcome.
// Refuses to know what the work does. docs/protocol.md, "Messages".
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "client/outcome.h"
#include "common/status.h"
#include "troth_types.h"

namespace apache::thrift::protocol {
class TProtocol;
}

namespace troth {

class ClientCore;
using ProtocolPointer = std::shared_ptr<apache::thrift::protocol::TProtocol>;

struct TransactionOptions {
  // For the whole transaction, from Begin on. At most the length of a lease (30 s).
  std::int64_t deadline_ms = 5000;
  // Of every branch; the server's default when absent.
  std::optional<wire::Isolation::type> isolation;
  // Every branch is opened read-only.
  bool read_only = false;
  // Business key, at most 128 bytes: at most one committed transaction bears it while keys are
  // kept (the coordinator's outcome retention, 24 h). Repeat nothing under a key later than that.
  std::string key;
  // W3C Trace Context header, passed on to every party.
  std::string traceparent;
};

struct WorkOptions {
  // Opens this branch read-only, whatever the others are. Read by its first work only.
  bool read_only = false;
  // The last work of this transaction at this participant: it is prepared in the same call.
  bool last = false;
};

// When Commit returns.
enum class Wait {
  kApplied,  // when every branch has committed, or the deadline passes: own writes are visible
  kDecided,  // when the decision is durable
};

// From Client::Begin. Work at different participants may run in several threads at once; work
// at one participant, Commit and Abort are one at a time. Nothing here outlives its Client.
class Transaction {
 public:
  Transaction(Transaction&&) noexcept;
  Transaction& operator=(Transaction&&) noexcept;
  // Aborts, unless Commit or Abort was called, or this is a forked child's copy.
  ~Transaction();

  const std::string& id() const;
  // Milliseconds until the deadline, never negative.
  std::int64_t left_ms() const;

  // Does one piece of work at `participant`: calls `work(service, context)`, where Service is
  // the generated client of the participant's service (`bank::BankBranchClient`), `context` the
  // first argument of its call, and the result the wire::Branch of its reply. Blocks until the
  // reply, the deadline plus grace at most. Work is never repeated here: after any error this
  // transaction can only be aborted, and failure() tells why. Thrift's exceptions that `work`
  // lets out become errors; any other goes through, and fails the transaction too.
  template <typename Service, typename F>
  Status Work(const std::string& participant, F&& work, const WorkOptions& options = {}) {
    return WorkRaw(participant, options,
                   [&work](const ProtocolPointer& protocol, const wire::Context& context) {
                     Service service(protocol);
                     return wire::Branch(work(service, context));
                   });
  }

  // What went wrong first; absent while nothing did.
  std::optional<Failure> failure() const;

  // Commits, unless a piece of work failed: then aborts. Repeats the call until the deadline
  // when the coordinator does not answer, kAborted if no call could be sent until then; returns a
  // little after it at the latest
  // (ClientOptions::grace_ms; up to a second when it aborts). Called again, or after Abort, it only
  // tells what the transaction ended as.
  Outcome Commit(Wait wait = Wait::kApplied);

  // Aborts. Binding for every branch at once where the coordinator can be reached within a
  // second; otherwise branches are rolled back at their deadline. Never turns into a commit.
  // After Commit has returned it does nothing.
  void Abort();

 private:
  friend class Client;
  struct Rep;
  explicit Transaction(std::unique_ptr<Rep> rep);
  using RawWork = std::function<wire::Branch(const ProtocolPointer&, const wire::Context&)>;
  Status WorkRaw(const std::string& participant, const WorkOptions& options, const RawWork& work);

  std::unique_ptr<Rep> rep_;
};

}  // namespace troth
