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
}

/**
 * Extended by an application's own service, whose calls take a troth.Context and return a
 * struct with a troth.Branch. Work is not safe to repeat under the same number: a client
 * that lost a reply aborts the transaction.
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
 * For coordinators. Both calls are safe to repeat, take at most 512 entries, answer in the
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
  /** `active`, `preparing`, `prepared`, `finishing`, `hazard`, `heuristic`, `expired`, `not-mine`. */
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

/** For administrators; on the peer listener, guarded by certificate. */
service ParticipantAdmin {
  ParticipantStatusReport status() throws (1: troth.Refused refused),
  list<BranchStatus> branches(1: i32 limit) throws (1: troth.Refused refused),
}
