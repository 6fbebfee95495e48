// See commands.h: a look at the whole deployment. What is looked at is decided by those who look:
// the coordinator and each participant at itself and its surroundings.
#include <chrono>
#include <iostream>

#include <nlohmann/json.hpp>

#include "cli/admin_call.h"
#include "cli/table.h"
#include "wire/report_json.h"

namespace troth {
namespace {

using nlohmann::json;

// Clocks that differ by more mislead who compares logs.
constexpr std::int64_t kClocksMs = 2'000;

std::int64_t WallMs() {
  return std::chrono::duration_cast<std::chrono::milliseconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

// Against the clock of this machine; the answer came some time between `before_ms` and `after_ms`.
void JudgeClock(std::int64_t before_ms, std::int64_t after_ms, wire::Diagnosis* diagnosis) {
  if (diagnosis->unix_ms == 0) return;  // it did not answer
  std::int64_t off_ms = 0;
  if (diagnosis->unix_ms > after_ms) off_ms = diagnosis->unix_ms - after_ms;
  if (diagnosis->unix_ms < before_ms) off_ms = diagnosis->unix_ms - before_ms;
  const bool far = off_ms > kClocksMs || off_ms < -kClocksMs;
  wire::Finding& finding = diagnosis->findings.emplace_back();
  finding.about = "clock";
  finding.verdict = far ? "warning" : "good";
  finding.what = "differs from this machine's by " + std::to_string(off_ms) + " ms";
  if (far) {
    finding.advice =
        "let chrony or systemd-timesyncd set both; nothing is decided by clocks, but logs and ages "
        "mislead";
  }
}

json Json(const std::vector<wire::Diagnosis>& list) {
  json out = json::array();
  for (const wire::Diagnosis& diagnosis : list) {
    for (const wire::Finding& finding : diagnosis.findings) {
      out.push_back({{"process", diagnosis.process},
                     {"about", finding.about},
                     {"verdict", finding.verdict},
                     {"what", finding.what},
                     {"advice", finding.advice}});
    }
  }
  return out;
}

void Print(const std::vector<wire::Diagnosis>& list, int wrong, int warnings) {
  for (const wire::Diagnosis& diagnosis : list) {
    std::cout << diagnosis.process << "\n";
    for (const wire::Finding& finding : diagnosis.findings) {
      const char* const sign = finding.verdict == "good"      ? "  ok       "
                               : finding.verdict == "warning" ? "  WARNING  "
                                                              : "  WRONG    ";
      std::cout << sign << finding.about << ": " << finding.what << "\n";
      if (!finding.advice.empty()) std::cout << "           -> " << finding.advice << "\n";
    }
  }
  std::cout << "doctor: wrong=" << wrong << " warnings=" << warnings << "\n";
}

}  // namespace

int DoctorCommand(const ControlOptions& options, const Arguments& arguments) {
  if (!arguments.empty()) return Usage("doctor");
  std::vector<wire::Diagnosis> list;
  const std::int64_t before_ms = WallMs();
  const int code =
      Call(options, [&](wire::CoordinatorAdminClient* admin) { admin->diagnose(list); });
  if (code != 0) return code;
  const std::int64_t after_ms = WallMs();
  int wrong = 0, warnings = 0;
  for (wire::Diagnosis& diagnosis : list) {
    JudgeClock(before_ms, after_ms, &diagnosis);
    for (const wire::Finding& finding : diagnosis.findings) {
      wrong += finding.verdict == "wrong";
      warnings += finding.verdict == "warning";
    }
  }
  if (options.json) {
    std::cout << JsonText(Json(list), 2);
  } else {
    Print(list, wrong, warnings);
  }
  return wrong > 0 ? 1 : 0;
}

}  // namespace troth
