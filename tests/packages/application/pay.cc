// An application as somebody writes it who has installed Troth: takes 5 out of an account behind a
// ready-made participant and books it at the service of ledger.cc, both or neither. Prints the
// outcome; exits 0 when it is committed. Includes installed headers only (tests/packages/run).
#include <cstdio>
#include <string>

#include "Ledger.h"
#include "SqlParticipant.h"
#include "client/client.h"

namespace {

troth::sql::Value Integer(std::int64_t number) {
  troth::sql::Value value;
  value.__set_integer(number);
  return value;
}

troth::Status Pay(troth::Transaction& tx, std::int64_t amount) {
  troth::Status status = tx.Work<troth::sql::SqlParticipantClient>(
      "east", [&](troth::sql::SqlParticipantClient& east, const troth::wire::Context& context) {
        troth::sql::Statement withdraw;
        withdraw.__set_name("withdraw");
        withdraw.__set_parameters({Integer(1), Integer(amount)});
        troth::sql::ExecuteReply reply;
        east.execute(reply, context, {withdraw});
        return reply.branch;
      });
  if (!status.ok()) return status;
  return tx.Work<ledger::LedgerClient>(
      "ledger", [&](ledger::LedgerClient& service, const troth::wire::Context& context) {
        ledger::BookReply reply;
        service.book(reply, context, amount);
        return reply.branch;
      });
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fprintf(stderr, "usage: pay COORDINATOR AMOUNT\n");
    return 2;
  }
  const auto coordinators = troth::Address::ParseList(argv[1]);
  if (!coordinators.ok()) {
    std::fprintf(stderr, "pay: %s\n", coordinators.status().message().c_str());
    return 2;
  }
  troth::ClientOptions options;
  options.coordinators = *coordinators;
  troth::Client client(options);
  const troth::Outcome outcome = troth::RunTransaction(
      client, {}, [&](troth::Transaction& tx) { return Pay(tx, std::stoll(argv[2])); });
  std::printf("%s\n", outcome.ToString().c_str());
  return outcome.committed() ? 0 : 1;
}
