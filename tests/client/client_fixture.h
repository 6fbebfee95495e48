// A client beside a scripted coordinator and two scripted branches, east and west, on real sockets.
// What the scripts can do: fake_services.h.
#pragma once

#include <memory>
#include <string>

#include <gtest/gtest.h>

#include "client/client.h"
#include "tests/client/fake_services.h"

namespace troth {

inline wire::Refused MakeRefused(wire::Reason::type reason, const std::string& message,
                                 bool retryable = false) {
  wire::Refused refused;
  refused.reason = reason;
  refused.message = message;
  refused.retryable = retryable;
  return refused;
}

class ClientTest : public ::testing::Test {
 protected:
  ClientTest() : east_("east"), west_("west") {
    east_server_ = std::make_unique<FakeServer>(MakeFakeBranch(&east_));
    west_server_ = std::make_unique<FakeServer>(MakeFakeBranch(&west_));
    coordinator_.resolve = [this](auto& reply, const auto& names) {
      for (const std::string& name : names) {
        if (name == "east") reply.push_back(Place(east_, *east_server_));
        if (name == "west") reply.push_back(Place(west_, *west_server_));
      }
    };
    coordinator_server_ = std::make_unique<FakeServer>(MakeFakeCoordinator(&coordinator_));
    port_ = coordinator_server_->port();
    client_ = MakeClient();
  }

  std::unique_ptr<Client> MakeClient() {
    ClientOptions options;
    options.coordinators = {Address{"127.0.0.1", port_}};
    options.connect_timeout_ms = 500;
    options.grace_ms = 100;
    return std::make_unique<Client>(options);
  }

  static wire::ParticipantAddress Place(const BranchScript& branch, const FakeServer& server) {
    wire::ParticipantAddress place;
    place.participant = branch.name;
    place.instance = branch.instance;
    place.host = "127.0.0.1";
    place.port = server.port();
    place.up = true;
    return place;
  }

  void StopCoordinator() { coordinator_server_.reset(); }
  void StartCoordinator() {
    coordinator_server_ = std::make_unique<FakeServer>(MakeFakeCoordinator(&coordinator_), port_);
  }

  static Status Apply(Transaction& tx, const std::string& bank, const WorkOptions& options = {}) {
    return tx.Work<bank::BankBranchClient>(
        bank,
        [](bank::BankBranchClient& branch, const wire::Context& context) {
          bank::ApplyReply reply;
          branch.apply(reply, context, {}, "");
          return reply.branch;
        },
        options);
  }

  // In a transaction that is aborted at once.
  static Status ApplyOnce(Result<Transaction> tx, const std::string& bank) {
    return Apply(*tx, bank);
  }

  CoordinatorScript coordinator_;
  BranchScript east_, west_;
  std::unique_ptr<FakeServer> coordinator_server_, east_server_, west_server_;
  int port_ = 0;
  std::unique_ptr<Client> client_;
};

}  // namespace troth
