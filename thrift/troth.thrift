/**
 * The values that travel between applications, participants and coordinators.
 *
 * This folder is the whole contract: a service in any Thrift language that follows it can
 * take part (docs/participants.md). It knows nothing of how decisions are made
 * (docs/protocol.md) or stored (docs/wal_format.md).
 *
 * Transport: Thrift framed transport, compact protocol. Frames above 1 MiB, and lists or maps of
 * more than 131,072 elements, are refused by every listener of Troth: the connection is closed,
 * nothing was done.
 *
 * Durations are milliseconds *left*, never points on a wall clock: clocks differ.
 * A field once published keeps its number and its meaning for ever.
 */
namespace cpp troth.wire
namespace py troth.wire.values

/**
 * Version of this contract. Each side says its own in the first call on a connection
 * (`hello`, `enroll`). A side that gets another version answers with
 * Refused(VERSION_MISMATCH), naming both. To make that call, and to give the connection up after
 * such an answer, is the caller's duty: nothing enforces it.
 */
const i32 PROTOCOL_VERSION = 1

/**
 * `<coordinator>.<epoch>.<sequence>`, at most 64 bytes of [a-z0-9.-]; opaque to clients;
 * never reused.
 */
typedef string TransactionId

/** PostgreSQL's isolation levels (SQL `SET TRANSACTION`); fixed at work 0. */
enum Isolation {
  READ_COMMITTED = 1,
  REPEATABLE_READ = 2,
  SERIALIZABLE = 3,
}

/**
 * What every piece of work carries: which transaction, which piece, how long it may take.
 * Built by the client library; an application only passes it on.
 */
struct Context {
  1: required TransactionId transaction_id,
  /** Number of this piece of work in its branch: 0 opens the branch, n follows n-1. */
  2: required i32 work,
  /** Milliseconds left for the whole transaction; at least 1. */
  3: required i64 deadline_ms,
  /** The branch's mark as returned by work 0. Absent in work 0, required afterwards. */
  4: optional string mark,
  /** Read at work 0 only; the server's default when absent. */
  5: optional Isolation isolation,
  /** Read at work 0 only: BEGIN READ ONLY; the branch will vote READ_ONLY. */
  6: optional bool read_only,
  /** W3C Trace Context header of the caller, passed on to logs and application_name. */
  7: optional string traceparent,
  /**
   * Early prepare: this is the transaction's last work at this participant. The branch is
   * prepared in the same call and the reply's Branch carries the vote. Work after it is
   * refused.
   */
  8: optional bool last,
}

/** How a branch answered a prepare. */
enum Ballot {
  /** PREPARE TRANSACTION succeeded and is durable; the branch is in doubt from now on. */
  PREPARED = 1,
  /** The branch was declared read-only and kept to it; it is over, nothing to finish. */
  READ_ONLY = 2,
  /** The branch is rolled back and will never be prepared under this id. */
  REFUSED = 3,
  /** Only in replies to prepare: not settled within this call; ask again. */
  WORKING = 4,
}

/** Why something was refused. Refused means: surely not done. */
enum Reason {
  /** The request itself is wrong: fix the caller. */
  INVALID = 1,
  /** Protocol versions differ. */
  VERSION_MISMATCH = 2,
  /** Nothing was done and the id is still unheard; try again later. */
  OVERLOADED = 3,
  /** The deadline passed. */
  DEADLINE = 4,
  /** No such branch here: never begun, or lost when the participant restarted. */
  NO_SUCH_BRANCH = 5,
  /** Work out of number, wrong mark, wrong total: half a branch must never commit. */
  OUT_OF_NUMBER = 6,
  /** The transaction is already decided or ended otherwise here. */
  ENDED = 7,
  /** Serialisation failure, deadlock, lock or statement timeout: repeat the transaction. */
  CONFLICT = 8,
  /** PostgreSQL refused: constraint, permission, syntax, not preparable. */
  DATABASE = 9,
  /** The database cannot be reached, or the connection was lost; the work is undone. */
  DATABASE_UNAVAILABLE = 10,
  /** The id, or the epoch, is not of this coordinator (or its log is another). */
  NOT_MINE = 11,
  /** The id was never leased, or its lease is over. */
  NOT_LEASED = 12,
  /** Another participant list is bound to this id. */
  OTHER_PARTICIPANTS = 13,
  /** A participant named is not registered. */
  UNKNOWN_PARTICIPANT = 14,
  /** The coordinator does not serve: opening, draining, log suspect, disk full. */
  NOT_SERVING = 15,
  /** The caller's certificate does not allow this, or it is another coordinator's transaction. */
  FORBIDDEN = 16,
  /** Another database (or instance) is bound to this name. */
  NAME_TAKEN = 17,
  /** The business key belongs to another transaction, or is closed. */
  KEY_TAKEN = 18,
  /** A sender of an ended epoch. */
  STALE_EPOCH = 19,
  /** The application refused (its own rule, e.g. insufficient funds). */
  APPLICATION = 20,
}

/** Surely not done. `retryable`: repeating the *whole transaction* may succeed. */
exception Refused {
  1: required Reason reason,
  /** For people: names the thing, the reason and what to do. */
  2: required string message,
  3: required bool retryable,
  /** PostgreSQL's SQLSTATE where one is known. */
  4: optional string sqlstate,
  /**
   * A participant's word on the first work of a branch: it was not begun, the id is still unheard
   * there. Whoever is told so need not name the branch when it aborts. Absent: it may have begun.
   */
  5: optional bool unheard,
}

/**
 * A participant's word. PREPARED carries the evidence by which the branch is recognised
 * for ever: PostgreSQL's 64-bit transaction id, the timeline and the WAL position after
 * PREPARE. For `mac` see early prepare in docs/protocol.md, "Messages".
 */
struct Vote {
  1: required Ballot ballot,
  /** Pieces of work done in the branch, i.e. highest work number + 1. */
  2: required i32 works,
  /** pg_control_system().system_identifier, as decimal text. */
  3: optional string system_identifier,
  /** pg_database.oid of the database. */
  4: optional i64 database_oid,
  /** xid8 of the prepared transaction (pg_current_xact_id). */
  5: optional i64 xid,
  6: optional i32 timeline,
  /** A WAL position (pg_lsn as integer) at or after the PREPARE record. */
  7: optional i64 position,
  /** REFUSED: why. */
  8: optional Reason reason,
  9: optional string message,
  10: optional bool retryable,
  /** HMAC-SHA-256; only in votes that a client carries (early prepare). */
  11: optional binary mac,
  12: optional string sqlstate,
}

/**
 * Returned by every piece of work, inside the application's own reply struct
 * (by convention as field 1 named `branch`).
 */
struct Branch {
  /** The name under which this participant is registered. */
  1: required string participant,
  /** Drawn at work 0; to be sent with every later work and named in commit. */
  2: required string mark,
  /** Pieces of work done so far. */
  3: required i32 works,
  /** The process that holds the branch; work and prepare must go there. */
  4: required string instance,
  /** Present after a work with `last`. */
  5: optional Vote vote,
}

/** Who sends, for fencing (law L7c): a coordinator's epoch and its durable log position. */
struct Sender {
  /** `<name>-<mark>` of the coordinator, the first part of its transaction ids. */
  1: required string coordinator,
  /** Number of the sender's epoch; grows with each life. */
  2: required i64 epoch,
  /** Random bits of the epoch. */
  3: required i64 epoch_random,
  /** Highest durable batch of its log; runs on over epochs. */
  4: required i64 position,
}
