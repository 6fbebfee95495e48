// See admin_call.h.
#include "cli/admin_call.h"

#include <iostream>
#include <memory>

#include <thrift/TOutput.h>
#include <thrift/transport/TBufferTransports.h>
#include <thrift/transport/TTransportException.h>

#include "client/connection.h"
#include "wire/protocol.h"
#include "wire/socket.h"

namespace troth {

int Usage(const std::string& how) {
  std::cerr << "trothctl: usage: trothctl " << how << "\n";
  return 2;
}

// Calls the coordinator, and says in words what went wrong.
int Call(const ControlOptions& options,
         const std::function<void(wire::CoordinatorAdminClient*)>& call) {
  const Result<Address> address = Address::Parse(options.coordinator);
  if (!address.ok()) {
    std::cerr << "trothctl: --coordinator: " << address.status().message() << "\n";
    return 2;
  }
  const auto tls = options.tls.none() ? nullptr : std::make_unique<TlsContext>(options.tls);
  if (tls != nullptr) {
    if (const Status usable = tls->Load(); !usable.ok()) {
      std::cerr << "trothctl: " << usable.message() << "\n";
      return 2;
    }
  }
  apache::thrift::GlobalOutput.setOutputFunction([](const char*) {});  // we say it ourselves
  const auto unanswered = [&](const std::string& how) {
    std::cerr << "trothctl: " << how
              << "\ntrothctl: what was ordered may have been done, or may yet "
              << "be: look (trothctl status, show ID, heuristics) before you order it again\n";
    return 4;
  };
  bool connected = false;
  try {
    auto socket = std::make_shared<WireSocket>(tls.get(), address->host, address->port);
    socket->setConnTimeout(2'000);
    socket->setRecvTimeout(35'000);
    auto framed =
        std::make_shared<apache::thrift::transport::TFramedTransport>(socket, FrameLimits());
    wire::CoordinatorAdminClient client(
        BoundedProtocol<apache::thrift::transport::TTransport>(framed));
    framed->open();
    connected = true;
    call(&client);
    return 0;
  } catch (const wire::Refused& refused) {
    std::cerr << "trothctl: refused: " << refused.message << "\n";
    return 1;
  } catch (const apache::thrift::transport::TTransportException& e) {
    if (connected) {
      return unanswered(
          "the call was sent to " + options.coordinator + ", and no answer came (" + e.what() +
          "). Is this its administrators' port (--admin_port)?" +
          (tls == nullptr ? " Does it speak TLS (--tls_cert, --tls_key, --tls_ca)?" : ""));
    }
    std::cerr << "trothctl: no coordinator answers at " << options.coordinator << " (" << e.what()
              << "). Is it running, and is this its administrators' port (--admin_port)?\n";
    return 3;
  } catch (const apache::thrift::TException& e) {
    using apache::thrift::TApplicationException;
    const auto* const failed = dynamic_cast<const TApplicationException*>(&e);
    if (failed != nullptr && failed->getType() != TApplicationException::UNKNOWN_METHOD) {
      return unanswered("the coordinator at " + options.coordinator + " failed at the call (" +
                        e.what() + "); its log says more");
    }
    std::cerr << "trothctl: what answers at " << options.coordinator
              << " serves no administrators (" << e.what()
              << "): is this the coordinator's --admin_port?\n";
    return 3;
  }
}

}  // namespace troth
