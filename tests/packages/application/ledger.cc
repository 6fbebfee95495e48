// A service as somebody writes it who has installed Troth: a table of its own, and one call that
// belongs to transactions. Includes installed headers only (tests/packages/run).
#include <cstdio>
#include <memory>

#include "Ledger.h"
#include "participant/participant.h"

namespace {

namespace wire = troth::wire;

class LedgerHandler : public ledger::LedgerIf {
 public:
  explicit LedgerHandler(troth::Participant* participant) : participant_(participant) {}

  void hello(wire::ParticipantHello& reply, std::int32_t version) override {
    participant_->Hello(version, &reply);
  }
  void book(ledger::BookReply& reply, const wire::Context& context, std::int64_t amount) override {
    reply.branch = participant_->Execute(context, [&](pqxx::dbtransaction& tx) {
      if (amount <= 0) throw troth::ApplicationRefusal("nothing to book");
      tx.exec_params("INSERT INTO line (amount) VALUES ($1)", amount);
      reply.lines = tx.exec("SELECT count(*) FROM line")[0][0].as<std::int64_t>();
    });
  }

 private:
  troth::Participant* const participant_;
};

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fprintf(stderr, "usage: ledger DATABASE COORDINATOR\n");
    return 2;
  }
  troth::ParticipantOptions options;
  options.name = "ledger";
  options.conninfo = argv[1];
  options.coordinators = {argv[2]};
  troth::Result<std::unique_ptr<troth::Participant>> participant =
      troth::Participant::Open(options);
  if (!participant.ok()) {
    std::fprintf(stderr, "ledger: %s\n", participant.status().message().c_str());
    return 1;
  }
  auto handler = std::make_shared<LedgerHandler>(participant->get());
  const troth::Status ended =
      (*participant)->Serve(std::make_shared<ledger::LedgerProcessor>(handler));
  return ended.ok() ? 0 : 1;
}
