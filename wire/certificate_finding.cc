// See certificate_finding.h.
#include "wire/certificate_finding.h"

#include <string>
#include <utility>

namespace troth {
namespace {

constexpr std::int64_t kHour = 3'600;
constexpr std::int64_t kDay = 24 * kHour;
constexpr std::int64_t kSoon = 14 * kDay;

std::string Count(std::int64_t n, const char* of) {
  return std::to_string(n) + " " + of + (n == 1 ? "" : "s");
}

}  // namespace

wire::Finding FindingOfCertificate(const Result<std::int64_t>& left) {
  wire::Finding finding;
  finding.about = "certificate";
  if (!left.ok()) {
    finding.verdict = "wrong";
    finding.what = left.status().message();
    finding.advice = "mend the file; connections are made with what was read before";
    return finding;
  }
  finding.verdict = *left <= 0 ? "wrong" : *left < kSoon ? "warning" : "good";
  finding.what = *left <= 0     ? "it has ended: nobody is let in"
                 : *left < kDay ? "it ends in " + Count(*left / kHour, "hour")
                                : "it ends in " + Count(*left / kDay, "day");
  if (*left < kSoon) {
    finding.advice = "put a new one in its place, by mv: it is read with the next connection";
  }
  return finding;
}

std::vector<wire::Finding> LookAtSecurity(Security* security) {
  if (security == nullptr || security->tls() == nullptr) return {};
  const Status read = security->CheckRoles();
  wire::Finding roles;
  roles.about = "roles";
  roles.verdict = read.ok() ? "good" : "wrong";
  roles.what = read.ok() ? "the file is read" : read.message();
  if (!read.ok()) roles.advice = "mend the file; what was read before holds on";
  return {FindingOfCertificate(security->tls()->SecondsLeft()), std::move(roles)};
}

}  // namespace troth
