// See certificate_finding.h.
#include "wire/certificate_finding.h"

#include <string>

namespace troth {
namespace {

constexpr std::int64_t kDay = 86'400;
constexpr std::int64_t kSoon = 14 * kDay;

}  // namespace

std::optional<wire::Finding> LookAtCertificate(Security* security) {
  if (security == nullptr || security->tls() == nullptr) return std::nullopt;
  wire::Finding finding;
  finding.about = "certificate";
  const Result<std::int64_t> left = security->tls()->SecondsLeft();
  if (!left.ok()) {
    finding.verdict = "wrong";
    finding.what = left.status().message();
    finding.advice = "mend the file; connections are made with what was read before";
    return finding;
  }
  finding.verdict = *left <= 0 ? "wrong" : *left < kSoon ? "warning" : "good";
  finding.what = *left <= 0 ? "it has ended: nobody is let in"
                            : "it ends in " + std::to_string(*left / kDay) + " days";
  if (*left < kSoon) {
    finding.advice = "put a new one in its place, by mv: it is read with the next connection";
  }
  return finding;
}

}  // namespace troth
