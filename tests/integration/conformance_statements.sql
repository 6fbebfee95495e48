-- The statements with which troth-conformance works at troth-participant.

-- name: change
-- rows: 1
-- message: there is no such account
UPDATE account SET balance = balance + $2 WHERE number = $1;

-- name: look
SELECT number, balance FROM account WHERE number BETWEEN $1 AND $2 ORDER BY number;
