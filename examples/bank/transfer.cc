// See transfer.h.
#include "examples/bank/transfer.h"

#include <algorithm>
#include <charconv>

#include "BankBranch.h"
#include "common/transaction_id.h"

namespace troth::bank {
namespace {

Status Invalid(std::string message) { return Status(Code::kInvalid, std::move(message)); }

std::string Quoted(std::string_view text) { return "'" + std::string(text) + "'"; }

// The whole of `text` as a number, sign allowed.
bool ParseWhole(std::string_view text, std::int64_t* value, std::errc* why) {
  if (text.starts_with('+')) text.remove_prefix(1);
  const char* const end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, *value);
  *why = error;
  return error == std::errc() && stop == end;
}

Status NoNumber(std::string_view text, std::errc why) {
  if (why == std::errc::result_out_of_range)
    return Invalid("amount " + Quoted(text) + " is too large");
  return Invalid("amount " + Quoted(text) +
                 " is no whole number (amounts are in minor units, cents)");
}

}  // namespace

Result<AccountName> AccountName::Parse(std::string_view text) {
  const std::size_t slash = text.find('/');
  AccountName name;
  std::errc why{};
  if (slash == text.npos || !IsParticipantName(text.substr(0, slash)) ||
      !ParseWhole(text.substr(slash + 1), &name.number, &why) || name.number < 1 ||
      text[slash + 1] == '+') {
    return Invalid(Quoted(text) + " is no account: BANK/NUMBER is, as in east/17");
  }
  name.bank = text.substr(0, slash);
  return name;
}

Result<std::int64_t> ParseAmount(std::string_view text) {
  std::int64_t amount = 0;
  std::errc why{};
  if (!ParseWhole(text, &amount, &why)) return NoNumber(text, why);
  if (amount == 0) return Invalid("amount 0: there is nothing to transfer");
  if (amount < 0) {
    return Invalid("amount " + std::string(text) +
                   " is negative: swap --from and --to to transfer the other way");
  }
  return amount;
}

Result<TransferLeg> TransferLeg::Parse(std::string_view text) {
  const std::size_t equals = text.find('=');
  if (equals == text.npos) {
    return Invalid(Quoted(text) + " is no leg: BANK/NUMBER=AMOUNT is, as in east/17=-5");
  }
  Result<AccountName> account = AccountName::Parse(text.substr(0, equals));
  if (!account.ok()) return account.status();
  TransferLeg leg{*std::move(account), 0};
  std::errc why{};
  if (!ParseWhole(text.substr(equals + 1), &leg.amount, &why)) {
    return NoNumber(text.substr(equals + 1), why);
  }
  return leg;
}

Status Arrange(std::vector<TransferLeg>* legs) {
  if (legs->size() < 2) return Invalid("a transfer has at least two legs");
  std::sort(legs->begin(), legs->end(),
            [](const TransferLeg& a, const TransferLeg& b) { return a.account < b.account; });
  std::int64_t sum = 0;
  for (std::size_t i = 0; i < legs->size(); ++i) {
    const TransferLeg& leg = (*legs)[i];
    if (leg.amount == 0) return Invalid("amount 0 for " + leg.account.ToString());
    if (i > 0 && (*legs)[i - 1].account == leg.account) {
      return Invalid("account " + leg.account.ToString() + " stands in the transfer twice");
    }
    if (__builtin_add_overflow(sum, leg.amount, &sum)) {
      return Invalid("the amounts are too large to add up");
    }
  }
  if (sum != 0) {
    return Invalid("the legs add up to " + std::to_string(sum) +
                   ", not 0: a transfer neither makes nor loses money");
  }
  return OkStatus();
}

Status DoTransfer(Transaction& transaction, const std::vector<TransferLeg>& legs,
                  const std::string& note, bool early) {
  for (std::size_t first = 0; first < legs.size();) {
    const std::string& bank = legs[first].account.bank;
    std::vector<Leg> here;
    for (; first < legs.size() && legs[first].account.bank == bank; ++first) {
      Leg leg;
      leg.account = legs[first].account.number;
      leg.amount = legs[first].amount;
      here.push_back(leg);
    }
    TROTH_RETURN_IF_ERROR(transaction.Work<BankBranchClient>(
        bank,
        [&](BankBranchClient& branch, const wire::Context& context) {
          ApplyReply reply;
          branch.apply(reply, context, here, note);
          return reply.branch;
        },
        {.last = early}));
  }
  return OkStatus();
}

}  // namespace troth::bank
