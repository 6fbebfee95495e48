// bank: what a customer and an auditor of the bank type. Exit codes stand in the usage.
#include <signal.h>

#include <algorithm>
#include <cstdio>
#include <iostream>

#include <gflags/gflags.h>
#include <thrift/TOutput.h>

#include "BankBranch.h"
#include "client/client.h"
#include "common/program.h"
#include "examples/bank/audit.h"
#include "examples/bank/load.h"
#include "examples/bank/transfer.h"
#include "wire/main_flags.h"

DEFINE_string(coordinator, "127.0.0.1:7711", "where the coordinator serves clients, HOST:PORT,...");
DEFINE_string(banks, "", "branches, as in east,west; empty: all that are registered");
DEFINE_int64(deadline_ms, 5000, "of each transaction, and of the command as a whole");
DEFINE_string(from, "", "transfer: account that pays, as in east/17");
DEFINE_string(to, "", "transfer: account that is paid, as in west/99");
DEFINE_string(amount, "", "transfer: how much, in minor units, above 0");
DEFINE_string(note, "", "transfer: for the ledgers");
DEFINE_string(
    key, "",
    "transfer: business key; a second transfer with it is refused. outcome: of the one with it");
DEFINE_bool(early, false, "transfer, load: prepare with the last work (early prepare)");
DEFINE_bool(decided, false, "transfer, load: answer when decided, not when applied");
DEFINE_int64(accounts, 100, "init, load: accounts in each branch, numbered from 1");
DEFINE_int64(balance, 1000, "init: what each account is opened with, in minor units");
DEFINE_int32(clients, 8, "load: how many at once");
DEFINE_double(seconds, 10, "load: how long");
DEFINE_int64(max_amount, 10, "load: largest transfer");
DEFINE_string(journal, "", "load: file to write answers to; audit: files to check, F1,F2,...");
DEFINE_bool(journal_complete, false, "audit: nobody else made transfers");
DEFINE_int64(settle_ms, 10000, "audit: how long to wait for branches in doubt");

namespace troth::bank {
namespace {

constexpr char kUsage[] =
    "Accounts in several banks, each with a database of its own; transfers between them happen\n"
    "in all of them or in none.\n"
    "\n"
    "  bank init --accounts 100 --balance 1000                open accounts everywhere\n"
    "  bank transfer --from east/17 --to west/99 --amount 5\n"
    "  bank transfer east/17=-8 west/99=5 north/4=3           any number of legs\n"
    "  bank balance east/17 west/99                           read in one transaction\n"
    "  bank outcome ID                                        what became of a transaction\n"
    "  bank outcome --key KEY                                 or of the one with this business "
    "key\n"
    "  bank load --clients 8 --seconds 10 --journal FILE      random transfers\n"
    "  bank audit --journal FILE                              when nobody transfers\n"
    "\n"
    "Exit codes: 0 done; 1 aborted, nothing was changed anywhere (audit: a rule is broken);\n"
    "2 asked wrongly, nothing was tried; 3 the outcome is not known yet, ask with `bank outcome`;\n"
    "4 the coordinator or a bank could not be reached, nothing was begun.";

enum Exit { kDone = 0, kAborted = 1, kWrong = 2, kUnknown = 3, kUnreachable = 4 };

volatile int stop_load = 0;

int Say(Exit exit, const std::string& message) {
  std::cerr << "bank: " << message << "\n";
  return exit;
}

int SayStatus(const Status& status) {
  switch (status.code()) {
    case Code::kInvalid:
    case Code::kNotFound: return Say(kWrong, status.message());
    case Code::kUnavailable:
    case Code::kDeadline:
    case Code::kUnknown: return Say(kUnreachable, status.message());
    default: return Say(kAborted, status.message());
  }
}

int SayOutcome(const Outcome& outcome) {
  switch (outcome.kind) {
    case Outcome::Kind::kCommitted:
    case Outcome::Kind::kReadOnly: std::cout << outcome.ToString() << "\n"; return kDone;
    case Outcome::Kind::kAborted:
      if (outcome.transaction_id.empty()) {
        return Say(outcome.failure.reason == wire::Reason::INVALID ? kWrong : kUnreachable,
                   outcome.failure.message);
      }
      return Say(kAborted, outcome.ToString());
    case Outcome::Kind::kExpired: return Say(kUnknown, outcome.ToString());
    default:
      return Say(kUnknown, outcome.ToString() + "\nbank: ask again: bank outcome " +
                               (outcome.transaction_id.empty() ? "--key '" + FLAGS_key + "'"
                                                               : outcome.transaction_id) +
                               " --coordinator " + FLAGS_coordinator);
  }
}

// What became of a transaction that was asked for before, by id or, without one, by --key. Nothing
// that keeps us from knowing says anything of it.
int TellOutcome(Client& client, const std::string& id) {
  const auto outcome = id.empty() ? client.AskOutcomeOfKey(FLAGS_key, FLAGS_deadline_ms)
                                  : client.AskOutcome(id, FLAGS_deadline_ms);
  if (!outcome.ok()) {
    return Say(outcome.status().code() == Code::kInvalid ? kWrong : kUnknown,
               outcome.status().message());
  }
  if (outcome->kind == Outcome::Kind::kAborted) return Say(kAborted, outcome->ToString());
  return SayOutcome(*outcome);
}

std::vector<std::string> Split(const std::string& text) {
  std::vector<std::string> parts;
  for (std::size_t from = 0; from < text.size();) {
    const std::size_t comma = std::min(text.find(',', from), text.size());
    parts.push_back(text.substr(from, comma - from));
    from = comma + 1;
  }
  return parts;
}

// The branches of --banks, or all that are registered.
Result<std::vector<std::string>> Banks(Client& client) {
  std::vector<std::string> banks = Split(FLAGS_banks);
  if (!banks.empty()) return banks;
  const auto places = client.Resolve({}, FLAGS_deadline_ms);
  if (!places.ok()) return places.status();
  for (const wire::ParticipantAddress& place : *places) banks.push_back(place.participant);
  std::sort(banks.begin(), banks.end());
  banks.erase(std::unique(banks.begin(), banks.end()), banks.end());
  if (banks.empty()) {
    return Status(Code::kNotFound, "no bank is registered at the coordinator; start bank-branch");
  }
  return banks;
}

// One transaction, repeated while the reason may pass, all within --deadline_ms.
Outcome Run(Client& client, const std::function<Status(Transaction&)>& body,
            bool read_only = false) {
  TransactionOptions options;
  options.deadline_ms = FLAGS_deadline_ms;
  options.read_only = read_only;
  options.key = FLAGS_key;
  RetryOptions retry;
  retry.total_ms = FLAGS_deadline_ms;
  return RunTransaction(client, options, body, FLAGS_decided ? Wait::kDecided : Wait::kApplied,
                        retry);
}

int Init(Client& client) {
  if (FLAGS_accounts < 1 || FLAGS_balance < 0) {
    return Say(kWrong, "--accounts is 1 or more, --balance 0 or more");
  }
  const auto banks = Banks(client);
  if (!banks.ok()) return SayStatus(banks.status());
  constexpr std::int64_t kChunk = 10'000;
  std::int64_t opened = 0;
  for (std::int64_t first = 1; first <= FLAGS_accounts; first += kChunk) {
    const auto count = static_cast<std::int32_t>(std::min(kChunk, FLAGS_accounts - first + 1));
    std::int64_t opened_now = 0;
    const Outcome outcome = Run(client, [&](Transaction& transaction) {
      opened_now = 0;
      for (const std::string& bank : *banks) {
        TROTH_RETURN_IF_ERROR(transaction.Work<BankBranchClient>(
            bank, [&](BankBranchClient& branch, const wire::Context& context) {
              OpenReply reply;
              branch.open(reply, context, first, count, FLAGS_balance);
              opened_now += reply.opened;
              return reply.branch;
            }));
      }
      return OkStatus();
    });
    if (!outcome.ok()) return SayOutcome(outcome);
    opened += opened_now;
  }
  std::cout << "opened " << opened << " accounts in " << banks->size() << " banks\n";
  return kDone;
}

int Transfer(Client& client, const std::vector<std::string>& arguments) {
  std::vector<TransferLeg> legs;
  if (!FLAGS_from.empty() || !FLAGS_to.empty() || !FLAGS_amount.empty()) {
    if (FLAGS_from.empty() || FLAGS_to.empty() || FLAGS_amount.empty()) {
      return Say(kWrong, "--from, --to and --amount belong together; see --help");
    }
    const auto from = AccountName::Parse(FLAGS_from), to = AccountName::Parse(FLAGS_to);
    const auto amount = ParseAmount(FLAGS_amount);
    for (const Status& status : {from.status(), to.status(), amount.status()}) {
      if (!status.ok()) return SayStatus(status);
    }
    if (*from == *to) {
      return Say(kWrong, "--from and --to are the same account, " + from->ToString());
    }
    legs = {{*from, -*amount}, {*to, *amount}};
  }
  for (const std::string& argument : arguments) {
    Result<TransferLeg> leg = TransferLeg::Parse(argument);
    if (!leg.ok()) return SayStatus(leg.status());
    legs.push_back(*std::move(leg));
  }
  if (const Status wrong = Arrange(&legs); !wrong.ok()) return SayStatus(wrong);
  const Outcome outcome = Run(client, [&](Transaction& transaction) {
    return DoTransfer(transaction, legs, FLAGS_note, FLAGS_early);
  });
  if (outcome.kind != Outcome::Kind::kAborted ||
      outcome.failure.reason != wire::Reason::KEY_TAKEN) {
    return SayOutcome(outcome);
  }
  // Asked for a second time, most likely: the first is what counts.
  std::cerr << "bank: " << outcome.failure.message << "\n";
  return TellOutcome(client, "");
}

int Balance(Client& client, const std::vector<std::string>& arguments) {
  if (arguments.empty())
    return Say(kWrong, "balance of which accounts? As in: bank balance east/17");
  std::map<std::string, std::vector<std::int64_t>> accounts;
  for (const std::string& argument : arguments) {
    const auto account = AccountName::Parse(argument);
    if (!account.ok()) return SayStatus(account.status());
    accounts[account->bank].push_back(account->number);
  }
  std::map<AccountName, std::int64_t> balances;
  const Outcome outcome = Run(
      client,
      [&](Transaction& transaction) {
        for (const auto& [bank, numbers] : accounts) {
          TROTH_RETURN_IF_ERROR(transaction.Work<BankBranchClient>(
              bank, [&, &bank = bank, &numbers = numbers](BankBranchClient& branch,
                                                          const wire::Context& context) {
                BalancesReply reply;
                branch.balances(reply, context, numbers);
                for (const Account& account : reply.accounts) {
                  balances[{bank, account.number}] = account.balance;
                }
                return reply.branch;
              }));
        }
        return OkStatus();
      },
      /*read_only=*/true);
  if (!outcome.ok()) return SayOutcome(outcome);
  for (const auto& [account, balance] : balances) {
    std::cout << account.ToString() << " " << balance << "\n";
  }
  return kDone;
}

int AskOutcome(Client& client, const std::vector<std::string>& arguments) {
  if (arguments.size() + (FLAGS_key.empty() ? 0 : 1) != 1) {
    return Say(kWrong, "outcome of which transaction? bank outcome ID, or bank outcome --key KEY");
  }
  return TellOutcome(client, arguments.empty() ? "" : arguments[0]);
}

int Load(Client& client) {
  LoadOptions options;
  const auto banks = Banks(client);
  if (!banks.ok()) return SayStatus(banks.status());
  options.banks = *banks;
  options.accounts = FLAGS_accounts;
  options.clients = FLAGS_clients;
  options.seconds = FLAGS_seconds;
  options.max_amount = FLAGS_max_amount;
  options.deadline_ms = FLAGS_deadline_ms;
  options.early = FLAGS_early;
  options.wait = FLAGS_decided ? Wait::kDecided : Wait::kApplied;
  options.journal = FLAGS_journal;
  if (options.clients < 1 || options.accounts < 1 || options.max_amount < 1 ||
      options.seconds <= 0) {
    return Say(kWrong, "--clients, --accounts, --max_amount and --seconds are above 0");
  }
  for (const int number : {SIGINT, SIGTERM}) {
    struct sigaction action = {};
    action.sa_handler = [](int) { stop_load = 1; };
    sigaction(number, &action, nullptr);
  }
  const auto result = RunLoad(client, options, &stop_load);
  if (!result.ok()) return SayStatus(result.status());
  std::printf(
      "load: committed=%lld aborted=%lld unknown=%lld not_begun=%lld tps=%.1f p50_ms=%.3f "
      "p99_ms=%.3f\n",
      static_cast<long long>(result->committed), static_cast<long long>(result->aborted),
      static_cast<long long>(result->unknown), static_cast<long long>(result->not_begun),
      result->tps(), result->p50_ms, result->p99_ms);
  return kDone;
}

int Audit(Client& client) {
  AuditOptions options;
  const auto banks = Banks(client);
  if (!banks.ok()) return SayStatus(banks.status());
  options.banks = *banks;
  options.journals = Split(FLAGS_journal);
  options.journals_complete = FLAGS_journal_complete;
  options.settle_ms = FLAGS_settle_ms;
  const auto result = RunAudit(client, options);
  if (!result.ok()) return SayStatus(result.status());
  for (const std::string& example : result->examples) {
    std::cerr << "bank: rule broken: " << example << "\n";
  }
  std::printf(
      "audit: banks=%zu accounts=%lld entries=%lld transactions=%lld journalled=%lld "
      "total=%lld opened_with=%lld in_doubt=%lld findings=%lld money=%s\n",
      options.banks.size(), static_cast<long long>(result->accounts),
      static_cast<long long>(result->entries), static_cast<long long>(result->transactions),
      static_cast<long long>(result->journalled), static_cast<long long>(result->total),
      static_cast<long long>(result->opened_with), static_cast<long long>(result->in_doubt),
      static_cast<long long>(result->findings), result->conserved ? "conserved" : "lost");
  return result->findings == 0 ? kDone : kAborted;
}

int Main(std::vector<std::string> arguments) {
  if (arguments.empty()) return Say(kWrong, "which command? See --help");
  const std::string command = arguments.front();
  arguments.erase(arguments.begin());
  const bool takes_arguments =
      command == "transfer" || command == "balance" || command == "outcome";
  if (!takes_arguments && !arguments.empty()) {
    return Say(kWrong, "'" + arguments[0] + "' is too much for '" + command + "'; see --help");
  }
  if (FLAGS_deadline_ms < 1) return Say(kWrong, "--deadline_ms is above 0");
  const auto addresses = Address::ParseList(FLAGS_coordinator);
  if (!addresses.ok()) return Say(kWrong, "--coordinator: " + addresses.status().message());
  ClientOptions options;
  options.coordinators = *addresses;
  options.application = "bank";
  options.tls = CallerTlsFromFlags();
  if (!options.tls.none()) {
    const Status usable = TlsContext(options.tls).Load();
    if (!usable.ok()) return Say(kWrong, usable.message());
  }
  Client client(options);
  if (command == "init") return Init(client);
  if (command == "transfer") return Transfer(client, arguments);
  if (command == "balance") return Balance(client, arguments);
  if (command == "outcome") return AskOutcome(client, arguments);
  if (command == "load") return Load(client);
  if (command == "audit") return Audit(client);
  return Say(kWrong, "there is no command '" + command + "'; see --help");
}

}  // namespace
}  // namespace troth::bank

int main(int argc, char** argv) {
  if (const auto done = troth::StartProgram(troth::bank::kUsage, &argc, &argv)) return *done;
  // What Thrift would print about connections is in the errors that are told.
  apache::thrift::GlobalOutput.setOutputFunction([](const char*) {});
  return troth::bank::Main(std::vector<std::string>(argv + 1, argv + argc));
}
