-- Tables of a bank's branch. Amounts are in minor units (cents). `bank-branch --init` runs this
-- file; running it again changes nothing.
--
-- Anyone can audit with psql:
--
--   every balance is what the account was opened with and its entries (no row must come back):
--     SELECT number, balance, opened_with + coalesce(sum(amount), 0) AS should_be
--       FROM account LEFT JOIN entry ON entry.account = account.number
--      GROUP BY number HAVING balance <> opened_with + coalesce(sum(amount), 0);
--
--   no transfer makes or loses money: summed over all branches, this is 0 for each transaction:
--     SELECT transaction_id, sum(amount) FROM entry GROUP BY transaction_id;
--
--   nothing is in doubt (no row):
--     SELECT gid, prepared FROM pg_prepared_xacts WHERE database = current_database();

CREATE TABLE IF NOT EXISTS account (
  number      bigint PRIMARY KEY,
  balance     bigint NOT NULL CONSTRAINT insufficient_funds CHECK (balance >= 0),
  opened_with bigint NOT NULL CHECK (opened_with >= 0)
);

-- What each transaction did here, written in the same branch as the change of the balance: it
-- is there if and only if the transaction committed.
CREATE TABLE IF NOT EXISTS entry (
  transaction_id text   NOT NULL,
  account        bigint NOT NULL REFERENCES account (number),
  amount         bigint NOT NULL CHECK (amount <> 0),
  note           text   NOT NULL DEFAULT '',
  PRIMARY KEY (transaction_id, account)
);
