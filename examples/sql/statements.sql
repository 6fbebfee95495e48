-- What callers of this participant may do; all it takes to bring a database in.
-- `troth-participant --conninfo DATABASE --statements statements.sql --check` looks at it.

-- name: withdraw
-- Takes $2 out of account $1; tells what is left.
-- rows: 1
-- message: there is no such account, or not enough in it
UPDATE account SET balance = balance - $2 WHERE number = $1 AND balance >= $2 RETURNING balance;

-- name: deposit
-- Puts $2 into account $1; tells what is there now.
-- rows: 1
-- message: there is no such account
UPDATE account SET balance = balance + $2 WHERE number = $1 RETURNING balance;

-- name: accounts
-- All accounts, as they are now.
SELECT number, owner, balance FROM account ORDER BY number;
