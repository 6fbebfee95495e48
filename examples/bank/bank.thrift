/**
 * A bank's branch as a service whose changes take part in transactions: it extends
 * Participant, each call that belongs to a transaction takes a troth.Context first and
 * returns a struct whose field 1 is the troth.Branch. The tables behind it: schema.sql.
 *
 * Amounts are in minor units (cents), whole numbers.
 */
include "troth.thrift"
include "participant.thrift"

namespace cpp troth.bank
namespace py troth_bank

/** One line of a transfer at this branch: more (positive) or less (negative) in an account. */
struct Leg {
  1: required i64 account,
  /** Not 0. */
  2: required i64 amount,
}

struct Account {
  1: required i64 number,
  2: required i64 balance,
  /** What it was opened with; the rest of the balance is the sum of its entries. */
  3: required i64 opened_with,
}

/** What one transaction did to one account. */
struct Entry {
  1: required troth.TransactionId transaction_id,
  2: required i64 account,
  3: required i64 amount,
  4: required string note,
}

struct ApplyReply {
  1: required troth.Branch branch,
}

struct OpenReply {
  1: required troth.Branch branch,
  /** How many did not exist before. */
  2: required i32 opened,
}

struct BalancesReply {
  1: required troth.Branch branch,
  /** In the order asked for. */
  2: required list<Account> accounts,
}

service BankBranch extends participant.Participant {
  /**
   * Books legs, at most 1,000, each on another account; an entry is written for each in the
   * same branch. Refused(APPLICATION): an account is unknown or has not enough in it.
   */
  ApplyReply apply(1: troth.Context context, 2: list<Leg> legs, 3: string note)
      throws (1: troth.Refused refused),

  /**
   * Opens accounts `first` ... `first + count - 1` (count at most 10,000) with `balance`
   * each; those that exist stay as they are.
   */
  OpenReply open(1: troth.Context context, 2: i64 first, 3: i32 count, 4: i64 balance)
      throws (1: troth.Refused refused),

  /** Reads accounts, at most 1,000; locks them against change until the transaction ends. */
  BalancesReply balances(1: troth.Context context, 2: list<i64> accounts)
      throws (1: troth.Refused refused),

  /** Outside any transaction: accounts above `after` by number; limit at most 5,000. */
  list<Account> accounts(1: i64 after, 2: i32 limit) throws (1: troth.Refused refused),

  /**
   * Outside any transaction: entries after (`after_id`, `after_account`) in that order;
   * limit at most 5,000.
   */
  list<Entry> entries(1: string after_id, 2: i64 after_account, 3: i32 limit)
      throws (1: troth.Refused refused),

  /** Outside any transaction: GIDs this branch has prepared and not yet finished. */
  list<string> in_doubt() throws (1: troth.Refused refused),
}
