-- The table behind statements.sql: nothing of Troth in it.
CREATE TABLE IF NOT EXISTS account (
  number  bigint PRIMARY KEY,
  owner   text NOT NULL,
  balance numeric(12, 2) NOT NULL CHECK (balance >= 0)
);
