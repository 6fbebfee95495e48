// See diagnosis_service.h.
#include "coordinator/diagnosis_service.h"

#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <sys/timex.h>

#include <cerrno>
#include <cstring>

#include "wire/certificate_finding.h"

namespace troth {
namespace {

// Of <linux/magic.h> and the kernel's file systems that have none there.
constexpr unsigned long kNfs = 0x6969, kSmb = 0x517B, kCifs = 0xFF534D42, kTmpfs = 0x01021994,
                        kFuse = 0x65735546;

class Findings {
 public:
  void Good(const char* about, std::string what) { Add(about, "good", std::move(what), ""); }
  void Warn(const char* about, std::string what, std::string advice) {
    Add(about, "warning", std::move(what), std::move(advice));
  }
  void Wrong(const char* about, std::string what, std::string advice) {
    Add(about, "wrong", std::move(what), std::move(advice));
  }
  std::vector<wire::Finding> list;

 private:
  void Add(const char* about, const char* verdict, std::string what, std::string advice) {
    wire::Finding& finding = list.emplace_back();
    finding.about = about;
    finding.verdict = verdict;
    finding.what = std::move(what);
    finding.advice = std::move(advice);
  }
};

void LookAtDisk(const DiagnosisOptions& options, Findings* findings) {
  const std::string& dir = options.wal_dir;
  struct statvfs room {};
  struct statfs kind {};
  if (statvfs(dir.c_str(), &room) != 0 || statfs(dir.c_str(), &kind) != 0) {
    findings->Wrong("disk", dir + ": " + std::strerror(errno), "see whether it is still mounted");
    return;
  }
  const std::uint64_t free_mib = std::uint64_t{room.f_bavail} * room.f_frsize >> 20;
  const std::uint64_t wanted_mib = (options.segment_bytes * 16 >> 20) + 1;
  const std::string text = std::to_string(free_mib) + " MiB free at " + dir;
  if (free_mib < wanted_mib) {
    findings->Warn("disk", text,
                   "make room, " + std::to_string(wanted_mib) +
                       " MiB are comfortable: without room commits are refused");
  } else {
    findings->Good("disk", text);
  }
  const auto type = static_cast<unsigned long>(kind.f_type);
  if (type == kNfs || type == kSmb || type == kCifs || type == kFuse) {
    findings->Wrong("disk", dir + " is no local file system",
                    "move the log (process stopped) to a local ext4 or xfs: locks and syncs of "
                    "others are not to be trusted");
  } else if (type == kTmpfs) {
    findings->Wrong("disk", dir + " is memory (tmpfs): a power cut loses every decision",
                    "make a log on a local ext4 or xfs; this one is good for trying out only");
  } else {
    findings->Good("disk", dir + " is a local file system");
  }
}

void LookAtFlags(const DiagnosisOptions& options, Findings* findings) {
  if (options.http_port < 0) {
    findings->Warn("flags", "no --http_port: nobody can watch this coordinator",
                   "start it with --http_port 7714 and the rules of docs/monitoring");
  } else {
    findings->Good("flags", "metrics are served (--http_port)");
  }
  if (options.record_retention_ms < options.lease_ms * 2) {
    findings->Warn("flags", "--record_retention_ms is below two leases",
                   "a participant that is away for longer keeps its branches in doubt: 600000 is "
                   "usual");
  }
  if (options.outcome_retention_ms < options.record_retention_ms) {
    findings->Warn("flags", "--outcome_retention_ms is below --record_retention_ms",
                   "outcomes are told for as long as records at least; 86400000 is usual");
  }
}

void LookAtClock(Findings* findings) {
  struct timex time {};
  const int state = adjtimex(&time);
  if (state < 0) return;  // forbidden in this container: nothing is known
  if (state == TIME_ERROR) {
    findings->Warn("clock", "the kernel's clock is not synchronised",
                   "run chrony or systemd-timesyncd; nothing is decided by clocks, but logs and "
                   "ages mislead");
  } else {
    findings->Good("clock", "synchronised");
  }
}

}  // namespace

std::vector<wire::Finding> DiagnoseCoordinator(const DiagnosisOptions& options,
                                               const std::string& state) {
  Findings findings;
  if (state == "serving") {
    findings.Good("log", "serving");
  } else {
    findings.Wrong("log", "not serving: " + state,
                   "docs/operations.md, \"See what is going on\", has the states");
  }
  LookAtDisk(options, &findings);
  LookAtFlags(options, &findings);
  LookAtClock(&findings);
  for (wire::Finding& found : LookAtSecurity(options.security)) {
    findings.list.push_back(std::move(found));
  }
  return findings.list;
}

}  // namespace troth
