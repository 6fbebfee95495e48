/**
 * What a participant offers: to applications (Participant, extended by each service) and to
 * its coordinators (ParticipantPeer). Two listeners: a finish must get in while every work
 * handler waits for a row.
 */
include "troth.thrift"

namespace cpp troth.wire
namespace py troth.wire.participant

struct ParticipantHello {
  1: required i32 version,
  2: required string participant,
  3: required string instance,
  /** To coordinators: the database, as in Enrolment. One that is not the name's own is not
      spoken to: a clone may answer at an old address. */
  4: optional string system_identifier,
  5: optional i64 database_oid,
  6: optional string database_address,
  7: optional string database_machine,
}

/**
 * Extended by an application's own service, whose calls take a troth.Context and return a
 * struct with a troth.Branch. Work is not safe to repeat under the same number: a client
 * that lost a reply aborts the transaction. With TLS, all of it is for clients (role client) that
 * may use this participant: `hello` is refused with FORBIDDEN, other calls with a
 * TApplicationException, as their own exceptions are not known here.
 */
service Participant {
  /** First call on a connection; `version` is the caller's. Safe to repeat. */
  ParticipantHello hello(1: i32 version) throws (1: troth.Refused refused),
}

struct PrepareRequest {
  1: required troth.TransactionId transaction_id,
  2: required string mark,
  /** Total pieces of work; another number is refused. */
  3: required i32 works,
  /** Milliseconds left. */
  4: required i64 deadline_ms,
  /** The process that holds the branch. */
  5: required string instance,
}

struct PrepareReply {
  1: required troth.TransactionId transaction_id,
  2: required string mark,
  3: required troth.Vote vote,
}

struct FinishRequest {
  1: required troth.TransactionId transaction_id,
  /** true: COMMIT PREPARED; false: roll back whatever there is. */
  2: required bool commit,
  /** commit: the xid, timeline and position recorded from the vote. */
  3: optional i64 xid,
  4: optional i32 timeline,
  5: optional i64 position,
}

enum Finished {
  /** Done now or earlier, and durable: the evidence says so. */
  DONE = 1,
  /** Not settled within this call (busy, database away): ask again. */
  WORKING = 2,
  /** PostgreSQL proves the branch ended the other way, behind our back. */
  HEURISTIC = 3,
  /** The evidence does not tell. Kept, shown, alarmed; never asked again in vain. */
  HAZARD = 4,
}

struct FinishReply {
  1: required troth.TransactionId transaction_id,
  2: required Finished finished,
  3: optional string message,
}

/**
 * For coordinators (role coordinator, and only as a sender that the caller's certificate may be, and
 * of transactions of that sender: else FORBIDDEN). Both calls are safe to repeat, take at most 512 entries, answer in the
 * order of the request, and wait a few milliseconds at most for slow entries.
 * A sender of an ended epoch is refused (STALE_EPOCH).
 */
service ParticipantPeer {
  /** First call on a connection; `version` is the caller's. */
  ParticipantHello hello(1: i32 version, 2: troth.Sender sender)
      throws (1: troth.Refused refused),

  list<PrepareReply> prepare(1: troth.Sender sender, 2: list<PrepareRequest> requests)
      throws (1: troth.Refused refused),

  list<FinishReply> finish(1: troth.Sender sender, 2: list<FinishRequest> requests)
      throws (1: troth.Refused refused),
}

/** A branch as the participant sees it; for administrators. */
struct BranchStatus {
  1: required string gid,
  2: required troth.TransactionId transaction_id,
  /**
   * `active`, `failed` (rolled back after an error, its id still refused), `preparing`, `prepared`,
   * `finishing`; a participant in Python also tells why one stays: `hazard`, `heuristic`, `expired`,
   * `not-mine`.
   */
  3: required string state,
  4: required i64 age_ms,
  5: optional string message,
}

struct ParticipantStatusReport {
  1: required string participant,
  2: required string instance,
  3: required string database,
  4: required i64 active,
  5: required i64 in_doubt,
  6: required i64 hazards,
  7: required i64 heuristics,
  8: required bool coordinator_up,
  9: required bool database_up,
}

/**
 * A session of the participant's database that waits for a lock behind a prepared branch. What
 * PostgreSQL shows the participant's role: users' names and texts of others may be hidden.
 */
struct WaitingSession {
  1: required i32 pid,
  2: required string user,
  3: required string application,
  /** Milliseconds it has waited for this lock, by the database's clock. */
  4: required i64 waiting_ms,
  /** What it waits for: `transactionid ShareLock`, `tuple ExclusiveLock of account`, ... */
  5: required string lock,
  /** Pids of the sessions in front of it; empty: the branch itself is. */
  6: required list<i32> behind,
  /** The start of its statement, at most 200 bytes. */
  7: required string statement,
}

/** A prepared branch as its database shows it now. */
struct PreparedBranch {
  1: required string gid,
  2: required troth.TransactionId transaction_id,
  /** 32 low bits, as pg_prepared_xacts shows it. */
  3: required i64 xid,
  /** Milliseconds since PREPARE, by the database's clock. */
  4: required i64 prepared_ms,
  /** Role that prepared it, and may finish it. */
  5: required string owner,
  6: required string database,
  /** Transactions begun since its own (age(xid)); vacuum keeps what was deleted since. */
  7: required i64 xmin_age,
  /** Nothing else in the server holds vacuum back as far. */
  8: required bool holds_vacuum,
  /** Relations it holds locks of, at most 20. */
  9: required list<string> relations,
  /** Who waits for it, directly or behind another; the longest first, at most 100. */
  10: required list<WaitingSession> waiting,
}

/** Something that was looked at, in a deployment. */
struct Finding {
  /** `disk`, `log`, `flags`, `clock`, `postgres`, `participant`, `certificate`. */
  1: required string about,
  /** `good`, `warning` (works, and will hurt), `wrong` (does not work, or is not safe). */
  2: required string verdict,
  /** What was found. */
  3: required string what,
  /** What to do; empty when it is good. */
  4: required string advice,
}

/** What a process finds when it looks at itself and its surroundings. */
struct Diagnosis {
  /** `coordinator <id>`, `participant <name>`. */
  1: required string process,
  2: required list<Finding> findings,
  /** Its wall clock, milliseconds since 1970. */
  3: required i64 unix_ms,
}

/**
 * For administrators (role administrator), on the peer listener; `prepared`, `settle` and `diagnose` are for
 * the coordinators of this participant too, which an administrator asks.
 */
service ParticipantAdmin {
  ParticipantStatusReport status() throws (1: troth.Refused refused),
  list<BranchStatus> branches(1: i32 limit) throws (1: troth.Refused refused),
  /**
   * What the database holds prepared of this participant: those of `transaction_ids`, or, when
   * that is empty, the oldest `limit` (at most 1,000); and who waits for them. Asks the database
   * anew, a few milliseconds. Refused(DATABASE_UNAVAILABLE).
   */
  list<PreparedBranch> prepared(1: list<troth.TransactionId> transaction_ids, 2: i32 limit)
      throws (1: troth.Refused refused),
  /**
   * Settles a prepared branch that no coordinator can answer for, by order of a person: commits or
   * rolls it back at this participant alone, and so can break a transaction in two. Whoever may call
   * it is trusted with that: administrators, and coordinators, which call it for `resolve` when they
   * have recorded the order. Called directly it bypasses that record: the order stands in this
   * participant's log only. `xid` (32 low bits) is the one seen prepared: no other is touched. When
   * the transaction's own coordinator is one of this participant's and is up, it is asked first, and
   * an order that goes ahead of its decision or against it is Refused(INVALID). Refused(ENDED) when
   * the database holds no such branch.
   */
  FinishReply settle(1: troth.TransactionId transaction_id, 2: i64 xid, 3: bool commit,
                     4: string order)
      throws (1: troth.Refused refused),
  Diagnosis diagnose() throws (1: troth.Refused refused),
}
