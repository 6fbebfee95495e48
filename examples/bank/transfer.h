// A transfer between accounts of any number of banks, as a value and as one transaction.
// Refuses to know flags and printing. Amounts in minor units.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "client/client.h"
#include "common/status.h"

namespace troth::bank {

// `east/17`.
struct AccountName {
  std::string bank;
  std::int64_t number = 0;
  auto operator<=>(const AccountName&) const = default;
  std::string ToString() const { return bank + "/" + std::to_string(number); }
  // kInvalid for any other text, saying what is wrong.
  static Result<AccountName> Parse(std::string_view text);
};

struct TransferLeg {
  AccountName account;
  std::int64_t amount = 0;  // more (positive) or less (negative) in the account
  // `east/17=-5`.
  std::string ToString() const { return account.ToString() + "=" + std::to_string(amount); }
  static Result<TransferLeg> Parse(std::string_view text);
};

// A whole number above 0; kInvalid otherwise, saying what is wrong.
Result<std::int64_t> ParseAmount(std::string_view text);

// Sorts legs by bank and account, so that all transfers lock in one order and none waits in a
// circle. kInvalid: no legs, a leg of 0, an account twice, amounts that do not add up to 0.
Status Arrange(std::vector<TransferLeg>* legs);

// The work of a transfer: one piece at each bank. `legs` are arranged. With `early` each is
// declared the last at its bank. Errors as Transaction::Work.
Status DoTransfer(Transaction& transaction, const std::vector<TransferLeg>& legs,
                  const std::string& note, bool early);

}  // namespace troth::bank
