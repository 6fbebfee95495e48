// See audit.h.
#include "examples/bank/audit.h"

#include <chrono>
#include <fstream>
#include <map>
#include <sstream>
#include <thread>
#include <unordered_map>

#include "BankBranch.h"
#include "examples/bank/transfer.h"

namespace troth::bank {
namespace {

constexpr std::int32_t kPage = 5000;
constexpr int kExamplesPerRule = 3;

using Legs = std::map<AccountName, std::int64_t>;

class Auditor {
 public:
  Auditor(Client& client, const AuditOptions& options) : client_(client), options_(options) {}

  Result<AuditResult> Run() {
    for (const std::string& bank : options_.banks) TROTH_RETURN_IF_ERROR(WaitUntilSettled(bank));
    for (const std::string& bank : options_.banks) {
      TROTH_RETURN_IF_ERROR(ReadAccounts(bank));
      TROTH_RETURN_IF_ERROR(ReadEntries(bank));
      CheckBalances(bank);
    }
    CheckSums();
    for (const std::string& journal : options_.journals) {
      TROTH_RETURN_IF_ERROR(ReadJournal(journal));
    }
    if (options_.journals_complete) CheckStrangers();
    if (result_.total != result_.opened_with) {
      Find("money", "all accounts hold " + std::to_string(result_.total) + ", opened with " +
                        std::to_string(result_.opened_with));
    }
    return std::move(result_);
  }

 private:
  void Find(const std::string& rule, const std::string& what, bool about_money = true) {
    ++result_.findings;
    if (about_money) result_.conserved = false;
    if (++found_[rule] <= kExamplesPerRule) result_.examples.push_back(rule + ": " + what);
  }

  template <typename F>
  Status Ask(const std::string& bank, F&& call) {
    const Status status = client_.Call<BankBranchClient>(bank, options_.timeout_ms, call);
    if (status.ok()) return status;
    return Status(status.code(), "bank " + bank + " cannot be audited: " + status.message());
  }

  // Branches in doubt are settled by recovery; what stays is a finding.
  Status WaitUntilSettled(const std::string& bank) {
    const auto until =
        std::chrono::steady_clock::now() + std::chrono::milliseconds(options_.settle_ms);
    for (;;) {
      std::vector<std::string> gids;
      TROTH_RETURN_IF_ERROR(Ask(bank, [&](BankBranchClient& branch) { branch.in_doubt(gids); }));
      if (gids.empty()) return OkStatus();
      if (std::chrono::steady_clock::now() >= until) {
        result_.in_doubt += static_cast<std::int64_t>(gids.size());
        for (const std::string& gid : gids) {
          Find("in doubt", "bank " + bank + " still has " + gid + " prepared", false);
        }
        return OkStatus();
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
    }
  }

  Status ReadAccounts(const std::string& bank) {
    accounts_.clear();
    for (std::int64_t after = 0;;) {
      std::vector<Account> page;
      TROTH_RETURN_IF_ERROR(
          Ask(bank, [&](BankBranchClient& branch) { branch.accounts(page, after, kPage); }));
      for (const Account& account : page) {
        accounts_[account.number] = account;
        result_.total += account.balance;
        result_.opened_with += account.opened_with;
        ++result_.accounts;
      }
      if (page.size() < kPage) return OkStatus();
      after = page.back().number;
    }
  }

  Status ReadEntries(const std::string& bank) {
    entered_.clear();
    std::string after_id;
    std::int64_t after_account = 0;
    for (;;) {
      std::vector<Entry> page;
      TROTH_RETURN_IF_ERROR(Ask(bank, [&](BankBranchClient& branch) {
        branch.entries(page, after_id, after_account, kPage);
      }));
      for (const Entry& entry : page) {
        ledger_[entry.transaction_id][AccountName{bank, entry.account}] = entry.amount;
        entered_[entry.account] += entry.amount;
        ++result_.entries;
      }
      if (page.size() < kPage) return OkStatus();
      after_id = page.back().transaction_id;
      after_account = page.back().account;
    }
  }

  void CheckBalances(const std::string& bank) {
    for (const auto& [number, account] : accounts_) {
      const std::int64_t should_be = account.opened_with + entered_[number];
      if (account.balance == should_be) continue;
      Find("balance", "account " + bank + "/" + std::to_string(number) + " holds " +
                          std::to_string(account.balance) + ", its ledger says " +
                          std::to_string(should_be));
    }
  }

  void CheckSums() {
    result_.transactions = static_cast<std::int64_t>(ledger_.size());
    for (const auto& [id, legs] : ledger_) {
      std::int64_t sum = 0;
      for (const auto& [account, amount] : legs) sum += amount;
      if (sum != 0) {
        Find("transaction", id + " adds up to " + std::to_string(sum) +
                                " over all banks, not 0: " + "it took effect at some, not at all");
      }
    }
  }

  Status ReadJournal(const std::string& path) {
    std::ifstream in(path);
    if (!in) return Status(Code::kNotFound, "the journal " + path + " cannot be read");
    std::string line;
    for (int number = 1; std::getline(in, line); ++number) {
      std::istringstream fields(line);
      std::string outcome, id, begun, ended, text;
      Legs legs;
      bool good = static_cast<bool>(fields >> outcome >> id >> begun >> ended);
      while (good && fields >> text) {
        const Result<TransferLeg> leg = TransferLeg::Parse(text);
        good = leg.ok();
        if (good) legs[leg->account] = leg->amount;
      }
      if (!good || legs.empty()) {
        return Status(Code::kCorrupt,
                      path + ", line " + std::to_string(number) + ": not a line of a journal");
      }
      CheckAnswer(outcome, id, legs);
    }
    return OkStatus();
  }

  void CheckAnswer(const std::string& outcome, const std::string& id, const Legs& legs) {
    ++result_.journalled;
    const auto entered = ledger_.find(id);
    const bool none = entered == ledger_.end();
    const bool all = !none && entered->second == legs;
    answered_[id] = outcome;
    if (outcome == "committed" && !all) {
      Find("committed", id + " was answered committed, and is " +
                            (none ? "in no ledger" : "not in every ledger as it was asked for"));
    } else if (outcome == "aborted" && !none) {
      Find("aborted", id + " was answered aborted, and is in a ledger");
    } else if (!none && !all) {
      Find("all or nothing", id + " was answered " + outcome + ", and is there in part");
    }
  }

  void CheckStrangers() {
    for (const auto& [id, legs] : ledger_) {
      if (!answered_.contains(id)) {
        Find("stranger", id + " is in a ledger, and nobody asked for it");
      }
    }
  }

  Client& client_;
  const AuditOptions& options_;
  AuditResult result_;
  std::map<std::string, int> found_;
  std::unordered_map<std::string, Legs> ledger_;            // by transaction
  std::unordered_map<std::string, std::string> answered_;   // by transaction
  std::map<std::int64_t, Account> accounts_;                // of the bank at hand
  std::unordered_map<std::int64_t, std::int64_t> entered_;  // of the bank at hand
};

}  // namespace

Result<AuditResult> RunAudit(Client& client, const AuditOptions& options) {
  return Auditor(client, options).Run();
}

}  // namespace troth::bank
