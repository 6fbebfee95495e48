// Participant: all that a service needs to let others' transactions into its PostgreSQL
// database. It owns the connections, the branches, both listeners, recovery and the bond to the
// coordinator; the service writes handlers. docs/participants.md.
//
// A bank, whole (its IDL: `service Bank extends participant.Participant { ... }`):
//
//   class BankHandler : public BankIf {
//    public:
//     explicit BankHandler(troth::Participant* participant) : participant_(participant) {}
//
//     void hello(wire::ParticipantHello& reply, std::int32_t version) override {
//       participant_->Hello(version, &reply);
//     }
//     void withdraw(WithdrawReply& reply, const wire::Context& context,
//                   std::int64_t account, std::int64_t amount) override {
//       reply.branch = participant_->Execute(context, [&](pqxx::dbtransaction& tx) {
//         const pqxx::result rows = tx.exec_params(
//             "UPDATE account SET balance = balance - $1 WHERE id = $2 AND balance >= $1 "
//             "RETURNING balance", amount, account);
//         if (rows.empty()) throw troth::ApplicationRefusal("account 17: insufficient funds");
//         reply.balance = rows[0][0].as<std::int64_t>();
//       });
//     }
//    private:
//     troth::Participant* const participant_;
//   };
//
//   int main(...) {
//     troth::ParticipantOptions options = ...;
//     auto participant = troth::Participant::Open(options);
//     if (!participant.ok()) { std::cerr << participant.status().message(); return 1; }
//     auto handler = std::make_shared<BankHandler>(participant->get());
//     const troth::Status ended =
//         (*participant)->Serve(std::make_shared<BankProcessor>(handler));  // until SIGTERM
//   }
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include <thrift/TProcessor.h>
#include <pqxx/dbtransaction>
#include <pqxx/transaction_base>

#include "common/status.h"
#include "participant/branch_counts.h"
#include "participant/options.h"
#include "participant_types.h"
#include "troth_types.h"

namespace troth {

// Thrown by work: the application's own rule says no. The branch is rolled back, the caller
// gets Refused(APPLICATION) with this message.
class ApplicationRefusal : public std::runtime_error {
 public:
  explicit ApplicationRefusal(const std::string& message, bool retryable = false)
      : std::runtime_error(message), retryable_(retryable) {}
  bool retryable() const { return retryable_; }

 private:
  bool retryable_;
};

// SQL of one piece of work. Runs in the branch's block: it must not begin, commit or roll back;
// savepoints (pqxx::subtransaction) are its own. An exception ends the branch. It is called on the
// thread that called Execute; results of `tx` must not outlive the call.
using WorkFunction = std::function<void(pqxx::dbtransaction& tx)>;

// One SQL statement with $1, $2, ... and their values as texts; nullopt: NULL. Likely to come
// again: each connection keeps it prepared.
struct Statement {
  std::string sql;
  std::vector<std::optional<std::string>> parameters;
};

// What a statement answered, as texts; nullopt: NULL.
struct Rows {
  std::vector<std::vector<std::optional<std::string>>> rows;
  std::size_t affected = 0;  // rows changed, or found
};

// Thread-safe.
class Participant {
 public:
  // Connects to the database and checks it; starts nothing yet. The error names the setting
  // that is wrong and the statement that mends it.
  static Result<std::unique_ptr<Participant>> Open(const ParticipantOptions& options);
  virtual ~Participant() = default;

  // Does one piece of work of a transaction inside its branch, on the caller's thread. Returns
  // what the handler passes back to the caller. Throws wire::Refused, to be let through to
  // Thrift: the work is not done; the branch is rolled back, unless the call was not of it (out of
  // number, or its context was invalid).
  virtual wire::Branch Execute(const wire::Context& context, const WorkFunction& work) = 0;

  // As Execute, for work that is one statement: it goes to the database together with the
  // opening of the branch, which spares a round trip, and is parsed once for a connection. In work
  // 0 that is the last one too (early prepare), PREPARE goes with it and spares another. `look`
  // sees what it answered and may throw ApplicationRefusal; what was prepared already is then
  // rolled back, at the price of a call.
  virtual wire::Branch Execute(const wire::Context& context, const Statement& statement,
                               const std::function<void(const Rows& rows)>& look) = 0;

  // Answers Participant.hello. Throws wire::Refused(VERSION_MISMATCH).
  virtual void Hello(std::int32_t version, wire::ParticipantHello* reply) = 0;

  // Opens both listeners, starts recovery and the bond to the coordinators, and serves
  // `application` (the generated processor of the service) until Stop, SIGTERM or SIGINT; then
  // refuses new branches, lets those under way end for at most 5 s, rolls the rest back.
  // SIGTERM and SIGINT are taken for the process while it runs, and SIGHUP is ignored from then on,
  // unless the application handles it (`take_signals`).
  // Prints nothing; logs one line when it is ready. An error: a port is taken. Once; after Stop it
  // returns at once.
  virtual Status Serve(std::shared_ptr<apache::thrift::TProcessor> application,
                       bool take_signals = true) = 0;
  // Makes Serve return, and waits until it is about to. From any other thread, any number of times.
  virtual void Stop() = 0;
  // Waits until Serve listens (true), or has ended or is told to (false).
  virtual bool WaitUntilServing() = 0;

  // Known once Serve listens.
  virtual int port() const = 0;
  virtual int peer_port() const = 0;
  virtual int http_port() const = 0;  // -1: none
  virtual const std::string& instance() const = 0;

  // For status, metrics and tests.
  virtual BranchCounts Counts() const = 0;
};

}  // namespace troth
