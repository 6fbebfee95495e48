// Which role each service asks of its caller, and the refusal of calls without it: the one place.
// Knows the names of Troth's services, not what they do. docs/operations.md, "Security".
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include <thrift/TProcessor.h>
#include <thrift/protocol/TProtocol.h>

#include "wire/security.h"

namespace troth {

// The table. CHECKs that there is such a service (of thrift/*.thrift).
Role RoleForService(std::string_view service);

// If the caller of this thread's connection may not call `service`: answers the call, which is
// read up to its arguments, with Refused(FORBIDDEN), and returns true. All calls of Troth's
// services declare it as their first exception.
bool RefuseCall(Security* security, std::string_view service,
                apache::thrift::protocol::TProtocol* in, apache::thrift::protocol::TProtocol* out,
                const std::string& call, std::int32_t sequence);

// Throws wire::Refused(FORBIDDEN) unless the caller may act as `role` for `object`: what the
// arguments of a call name. `security` may be null: plain text.
void RequireRole(Security* security, Role role, const std::string& object);

// A generated processor of the service `name` behind the table.
template <class Processor>
class Guarded : public Processor {
 public:
  template <class Handler>
  Guarded(std::string_view name, Security* security, std::shared_ptr<Handler> handler)
      : Processor(std::move(handler)), name_(name), security_(security) {}

 protected:
  bool dispatchCall(apache::thrift::protocol::TProtocol* in,
                    apache::thrift::protocol::TProtocol* out, const std::string& call,
                    std::int32_t sequence, void* context) override {
    if (RefuseCall(security_, name_, in, out, call, sequence)) return true;
    return Processor::dispatchCall(in, out, call, sequence, context);
  }

 private:
  const std::string_view name_;
  Security* const security_;
};

// An application's own service at `participant`: all of it is for clients that may use that
// participant. Other callers' `hello` is refused as above, their other calls, of which only the
// application knows what they declare, with a TApplicationException.
std::shared_ptr<apache::thrift::TProcessor> GuardApplication(
    Security* security, std::string participant,
    std::shared_ptr<apache::thrift::TProcessor> application);

}  // namespace troth
