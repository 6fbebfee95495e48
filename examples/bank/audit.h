// The audit: reads every account and every entry of every bank and holds them against each other
// and against journals of what clients were answered. To be run when no transfer is under way:
// it reads one bank after the other.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "client/client.h"
#include "common/status.h"

namespace troth::bank {

struct AuditOptions {
  std::vector<std::string> banks;
  std::vector<std::string> journals;  // as LoadOptions::journal
  // Every transfer there ever was stands in the journals; entries of others are findings.
  bool journals_complete = false;
  // How long branches in doubt are waited for before they are a finding.
  std::int64_t settle_ms = 10'000;
  std::int64_t timeout_ms = 10'000;  // of one read
};

struct AuditResult {
  std::int64_t accounts = 0, entries = 0, transactions = 0, journalled = 0;
  std::int64_t total = 0;             // in all accounts
  std::int64_t opened_with = 0;       // of all accounts: the same, where money is conserved
  std::int64_t in_doubt = 0;          // prepared branches left
  std::int64_t findings = 0;          // rules broken, all of them counted
  std::vector<std::string> examples;  // the first of each rule: rule, what, where
  bool conserved = true;              // no finding but branches in doubt
};

// An error: a bank could not be read, a journal is not one.
Result<AuditResult> RunAudit(Client& client, const AuditOptions& options);

}  // namespace troth::bank
