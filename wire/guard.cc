// See guard.h.
#include "wire/guard.h"

#include <algorithm>
#include <array>
#include <iterator>

#include <glog/logging.h>
#include <thrift/TApplicationException.h>

#include "common/check.h"
#include "troth_types.h"
#include "wire/listener.h"

namespace troth {
namespace {

using apache::thrift::TApplicationException;
using apache::thrift::TProcessor;
using apache::thrift::protocol::T_EXCEPTION;
using apache::thrift::protocol::T_REPLY;
using apache::thrift::protocol::T_STRUCT;
using apache::thrift::protocol::TMessageType;
using apache::thrift::protocol::TProtocol;

struct Rule {
  std::string_view service;
  Role role;
  // Those that coordinators make too, when an administrator asks them.
  std::array<std::string_view, 3> of_coordinators = {};
};
constexpr Rule kRules[] = {
    {"Coordinator", Role::kClient},
    {"CoordinatorPeer", Role::kParticipant},
    {"CoordinatorAdmin", Role::kAdministrator},
    {"Participant", Role::kClient},  // and all that extends it
    {"ParticipantPeer", Role::kCoordinator},
    {"ParticipantAdmin", Role::kAdministrator, {"prepared", "settle", "diagnose"}},
};

const Rule& RuleFor(std::string_view service) {
  const auto rule = std::find_if(std::begin(kRules), std::end(kRules),
                                 [&](const Rule& one) { return one.service == service; });
  TROTH_CHECK(rule != std::end(kRules));
  return *rule;
}

wire::Refused Forbidden(const std::string& why) {
  wire::Refused refused;
  refused.reason = wire::Reason::FORBIDDEN;
  refused.message = why;
  refused.retryable = false;
  return refused;
}

// `call` is what the caller sent: no end of a line, behind which it could write one of its own.
void Tell(const std::string& call, const std::string& why) {
  std::string shown = call.substr(0, 64);
  std::replace_if(
      shown.begin(), shown.end(), [](char c) { return c < ' ' || c > '~'; }, '?');
  LOG_EVERY_T(WARNING, 1) << "refused a call (" << shown << "): " << why;
}

void SkipArguments(TProtocol* in) {
  in->skip(T_STRUCT);
  in->readMessageEnd();
  in->getTransport()->readEnd();
}

void Send(TProtocol* out) {
  out->writeMessageEnd();
  out->getTransport()->writeEnd();
  out->getTransport()->flush();
}

void AnswerForbidden(TProtocol* out, const std::string& call, std::int32_t sequence,
                     const std::string& why) {
  out->writeMessageBegin(call, T_REPLY, sequence);
  out->writeStructBegin("result");
  out->writeFieldBegin("refused", T_STRUCT, 1);
  Forbidden(why).write(out);
  out->writeFieldEnd();
  out->writeFieldStop();
  out->writeStructEnd();
  Send(out);
}

class ApplicationGuard : public TProcessor {
 public:
  ApplicationGuard(Security* security, std::string participant,
                   std::shared_ptr<TProcessor> application)
      : security_(security),
        participant_(std::move(participant)),
        application_(std::move(application)) {}

  bool process(std::shared_ptr<TProtocol> in, std::shared_ptr<TProtocol> out,
               void* context) override {
    if (!AwaitCall(in.get())) return false;
    const auto why = security_->WhyNot(CallerName(), Role::kClient, participant_);
    if (!why) return application_->process(std::move(in), std::move(out), context);
    std::string call;
    TMessageType type;
    std::int32_t sequence = 0;
    in->readMessageBegin(call, type, sequence);
    SkipArguments(in.get());
    Tell(call, *why);
    if (call == "hello") {
      AnswerForbidden(out.get(), call, sequence, *why);
      return true;
    }
    out->writeMessageBegin(call, T_EXCEPTION, sequence);
    TApplicationException(TApplicationException::INTERNAL_ERROR, "forbidden: " + *why)
        .write(out.get());
    Send(out.get());
    return true;
  }

 private:
  Security* const security_;
  const std::string participant_;
  const std::shared_ptr<TProcessor> application_;
};

}  // namespace

Role RoleForService(std::string_view service) { return RuleFor(service).role; }

bool RefuseCall(Security* security, std::string_view service, TProtocol* in, TProtocol* out,
                const std::string& call, std::int32_t sequence) {
  if (security == nullptr || security->tls() == nullptr) return false;
  const Rule& rule = RuleFor(service);
  const auto why = security->WhyNot(CallerName(), rule.role);
  if (!why) return false;
  const auto& also = rule.of_coordinators;
  if (std::find(also.begin(), also.end(), call) != also.end() && !call.empty() &&
      !security->WhyNot(CallerName(), Role::kCoordinator)) {
    return false;
  }
  SkipArguments(in);
  Tell(call, *why);
  AnswerForbidden(out, call, sequence, *why);
  return true;
}

void RequireRole(Security* security, Role role, const std::string& object) {
  if (security == nullptr) return;
  const auto why = security->WhyNot(CallerName(), role, object);
  if (!why) return;
  Tell(object, *why);
  throw Forbidden(*why);
}

std::shared_ptr<TProcessor> GuardApplication(Security* security, std::string participant,
                                             std::shared_ptr<TProcessor> application) {
  if (security == nullptr || security->tls() == nullptr) return application;
  return std::make_shared<ApplicationGuard>(security, std::move(participant),
                                            std::move(application));
}

}  // namespace troth
