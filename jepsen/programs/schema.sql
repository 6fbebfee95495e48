-- Tables of the fault tests' participant; troth-jepsen-branch --init runs this file.
-- Keys exist beforehand: a locking read of an absent row locks nothing.

CREATE TABLE list (k bigint PRIMARY KEY, v bigint[] NOT NULL DEFAULT '{}');

CREATE TABLE account (
  k       bigint PRIMARY KEY,
  balance bigint NOT NULL CONSTRAINT insufficient_funds CHECK (balance >= 0)
);
CREATE TABLE entry (id text NOT NULL, account bigint NOT NULL, amount bigint NOT NULL);

-- No unique index: a marker written twice must be seen twice.
CREATE TABLE marker (id text NOT NULL);

CREATE TABLE register (k bigint PRIMARY KEY, v bigint NOT NULL DEFAULT 0);

-- Who changed a row, in which order; `place` is drawn under the row's lock.
CREATE TABLE row_head (k bigint PRIMARY KEY, place bigint NOT NULL DEFAULT 0);
CREATE TABLE row_order (k bigint NOT NULL, place bigint NOT NULL, id text NOT NULL);
