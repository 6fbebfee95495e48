// What an application links to make one transaction out of changes in several services:
//
//   troth::Client client({.coordinators = *troth::Address::ParseList("127.0.0.1:7711")});
//   troth::Outcome outcome = troth::RunTransaction(client, {}, [&](troth::Transaction& tx) {
//     return tx.Work<bank::BankBranchClient>("east", [&](auto& east, const auto& context) {
//       bank::ApplyReply reply;
//       east.apply(reply, context, legs, note);
//       return reply.branch;
//     });
//   });
//
// Refuses to know: what the services do, how a transaction is decided. docs/protocol.md.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "client/address.h"
#include "client/outcome.h"
#include "client/transaction.h"
#include "common/status.h"
#include "coordinator_types.h"
#include "wire/security_options.h"

namespace troth {

class ClientCore;

struct ClientOptions {
  // Where the coordinator is reached by clients; the next is tried when one does not answer.
  // Several addresses of *one* coordinator (one log), not several coordinators.
  std::vector<Address> coordinators;
  // For the coordinator's log (told with --v=1).
  std::string application;
  // Files of TLS: our certificate, its key, the authorities; none: plain text. Read when first
  // needed, and anew when they change. Coordinator and participants decide by the certificate's
  // name what we may.
  TlsFiles tls;
  // A connection that can't be made within this counts as not there.
  std::int64_t connect_timeout_ms = 1000;
  // How long after its deadline a call that was sent is still waited for, so that an answer
  // given at the deadline arrives.
  std::int64_t grace_ms = 250;
  // Told, in one line, where the time of a transaction went that took `slow_ms` from Begin to its
  // end: for the application's log. Called by the thread that ends it. 0, or no function: nobody.
  std::int64_t slow_ms = 1000;
  std::function<void(const std::string& line)> on_slow;
  // Idle connections kept per address.
  std::size_t max_idle_connections = 128;
};

// Thread-safe: one per process and coordinator is enough, and shares its leased ids and its
// connections among all threads. Holds no thread of its own. After fork() the child's client
// starts anew: it shares neither ids nor connections with its parent, and refuses the parent's
// transactions. Errors are values; Thrift's exceptions stop inside.
class Client {
 public:
  // Makes no call. `options.coordinators` must not be empty.
  explicit Client(ClientOptions options);
  // All transactions must be gone.
  ~Client();
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  // Begins a transaction. Usually no call: the id comes from a leased block; the first one, and
  // one after a long pause, asks the coordinator for a block and waits for it, at most until the
  // deadline. An error: nothing was begun; `why`, if given, has its reason and whether it may pass.
  // kInvalid: the deadline is longer than the coordinator's leases, or not positive.
  Result<Transaction> Begin(const TransactionOptions& options = {}, Failure* why = nullptr);

  // What became of a transaction; waits up to `wait_ms` while it is pending, and tries that long
  // (1 s at least) to reach the coordinator. kUnavailable: it could not be asked. kRefused: it
  // is not this coordinator's transaction. An Outcome of kind kPending: not decided yet.
  Result<Outcome> AskOutcome(const std::string& transaction_id, std::int64_t wait_ms);

  // What became of the transaction with this business key. kPending with an empty id: none yet, or
  // none that is still kept (the coordinator's outcome retention, 24 h).
  Result<Outcome> AskOutcomeOfKey(const std::string& key, std::int64_t timeout_ms);
  // Closes a business key, unless a transaction bears it: then its outcome. kAborted: closed, and
  // durable; commits with it are refused for as long as keys are kept (the coordinator's outcome
  // retention, 24 h). kPending: a commit with it is in flight; not closed, ask again.
  Result<Outcome> CloseKey(const std::string& key, std::int64_t timeout_ms);

  // Where participants are; all that are registered when `names` is empty.
  Result<std::vector<wire::ParticipantAddress>> Resolve(const std::vector<std::string>& names,
                                                        std::int64_t timeout_ms);

  // A call outside any transaction, at any instance of `participant`: `call(service)`, where
  // Service is the generated client. Must be safe to repeat: it is, once, when a connection
  // turns out to be dead. kUnknown: sent, and no answer.
  template <typename Service, typename F>
  Status Call(const std::string& participant, std::int64_t timeout_ms, F&& call) {
    return CallRaw(participant, timeout_ms, [&call](const ProtocolPointer& protocol) {
      Service service(protocol);
      call(service);
    });
  }

 private:
  // The core of this process; made anew after a fork.
  ClientCore* core();
  Status CallRaw(const std::string& participant, std::int64_t timeout_ms,
                 const std::function<void(const ProtocolPointer&)>& call);

  const ClientOptions options_;
  std::atomic<ClientCore*> core_;
};

// How a transaction is repeated.
struct RetryOptions {
  // For all attempts together: each has the transaction's deadline, or what is left of this.
  std::int64_t total_ms = 10'000;
  // Before attempt n+1 a random time up to min(max, first * 2^n) passes.
  std::int64_t first_backoff_ms = 4;
  std::int64_t max_backoff_ms = 500;
  // The same after a refusal for load. What is full stays full for a while, and an attempt that
  // is refused takes from the same processors as one that gets in.
  std::int64_t first_overloaded_backoff_ms = 100;
  std::int64_t max_overloaded_backoff_ms = 2'000;
};

// Runs `body` in a transaction and commits it, unless `body` has ended it; repeats the *whole*
// transaction, under a new id, while it ends aborted for a reason that may pass (conflicts, a
// participant that is away, no id to be had). An error that `body` returns and that is not its
// transaction's own aborts and is not repeated. An unknown outcome is never repeated: the first may
// have committed.
Outcome RunTransaction(Client& client, const TransactionOptions& options,
                       const std::function<Status(Transaction&)>& body, Wait wait = Wait::kApplied,
                       const RetryOptions& retry = {});

}  // namespace troth
