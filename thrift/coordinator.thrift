/**
 * What a coordinator offers: to applications (Coordinator), to participants
 * (CoordinatorPeer) and to administrators (CoordinatorAdmin). Each service has a listener
 * of its own, so that a full one never blocks another. With TLS each call needs the role of its
 * service, else FORBIDDEN (docs/operations.md, "Security").
 */
include "troth.thrift"
include "participant.thrift"

namespace cpp troth.wire
namespace py troth.wire.coordinator

/** What a client is told; see docs/protocol.md, law L10. Never wrong, maybe not known yet. */
enum OutcomeKind {
  /** All branches commit. `unapplied` names participants where that is not done yet, or of which
      nobody knows it. */
  COMMITTED = 1,
  /** Nothing of the transaction takes or will take effect anywhere. */
  ABORTED = 2,
  /** All branches were read-only: there was nothing to decide. */
  READ_ONLY = 3,
  /** Not decided yet; ask again. */
  PENDING = 4,
  /** So old that its outcome is no longer kept. */
  EXPIRED = 5,
}

struct Outcome {
  1: required OutcomeKind kind,
  2: required troth.TransactionId transaction_id,
  /** COMMITTED only: participants that have not acknowledged yet, and those where the branch ended
      by hand, against the decision, or in a way that nobody knows: CoordinatorAdmin.heuristics. */
  3: optional list<string> unapplied,
  /** ABORTED: why, where known; of the first branch that refused. */
  4: optional troth.Reason reason,
  5: optional string message,
  /** ABORTED: repeating the whole transaction may succeed. */
  6: optional bool retryable,
  7: optional string participant,
  8: optional string sqlstate,
}

/** When commit answers. */
enum Wait {
  /** When every branch has acknowledged, or the deadline passed: own writes are visible. */
  APPLIED = 1,
  /** When the decision is durable. */
  DECIDED = 2,
}

struct ClientHello {
  1: required i32 version,
  /** Name of the application, for the coordinator's log (told with --v=1). */
  2: optional string application,
}

struct CoordinatorHello {
  1: required i32 version,
  2: required troth.Sender sender,
}

/**
 * A block of transaction ids: `<prefix><first>` ... `<prefix><first+count-1>`.
 * It ends `ends_in_ms` after the coordinator granted it and is never extended. A client
 * counts from *before* it asked, and uses no id for a transaction whose deadline lies
 * behind the lease's end.
 */
struct Lease {
  1: required string prefix,
  2: required i64 first,
  3: required i32 count,
  4: required i64 ends_in_ms,
}

/** One branch as the client saw it. */
struct BranchClaim {
  1: required string participant,
  2: required string mark,
  /** Total pieces of work; prepare refuses any other number. */
  3: required i32 works,
  4: required string instance,
  /** Early prepare: the vote, carried by the client, with its mac. */
  5: optional troth.Vote vote,
  /** The branch was opened with read_only. */
  6: optional bool read_only,
}

struct CommitRequest {
  1: required troth.TransactionId transaction_id,
  /** All branches; the first commit call binds this list. At most 64. */
  2: required list<BranchClaim> branches,
  /** Milliseconds left; after it an undecided transaction is aborted. */
  3: required i64 deadline_ms,
  4: required Wait wait,
  /**
   * Business key (at most 128 bytes): at most one committed transaction bears it, for as long as
   * keys are kept (--outcome_retention_ms, 24 h). After that it is free again: repeat nothing under
   * a key later than that, and use none twice.
   */
  5: optional string key,
  6: optional string traceparent,
}

struct AbortRequest {
  1: required troth.TransactionId transaction_id,
  2: required list<BranchClaim> branches,
  3: optional string message,
}

/** Where a participant is reached by applications. */
struct ParticipantAddress {
  1: required string participant,
  2: required string instance,
  3: required string host,
  /** 0: registered, and not heard of since the coordinator started; ask again. */
  4: required i32 port,
  /** The coordinator has a connection to it now. */
  5: required bool up,
}

/**
 * For applications (role client). Every call but `lease` is safe to repeat. `commit` and `abort` may
 * name only participants that the caller's certificate may use.
 */
service Coordinator {
  /** First call on a connection. */
  CoordinatorHello hello(1: ClientHello client) throws (1: troth.Refused refused),

  /** Grants ids. A lost reply costs ids, nothing else. count in [1, 10000]. */
  Lease lease(1: i32 count) throws (1: troth.Refused refused),

  /**
   * Commits, or says why not. Repeating it with the same list gives the same answer;
   * another list for the same id is refused and changes nothing. A call that breaks
   * without a reply leaves the outcome *unknown*: ask `outcome`, or repeat.
   */
  Outcome commit(1: CommitRequest request) throws (1: troth.Refused refused),

  /**
   * Aborts, unless decided; binds at once: any later commit of the id is answered aborted.
   * Branches named are rolled back; those not named follow at their deadline.
   */
  Outcome abort(1: AbortRequest request) throws (1: troth.Refused refused),

  /** Tells the outcome; waits up to wait_ms (at most 30000) while it is pending. */
  Outcome outcome(1: troth.TransactionId transaction_id, 2: i64 wait_ms)
      throws (1: troth.Refused refused),

  /**
   * Outcome of the transaction committed, or in flight, under a business key; of a closed key
   * ABORTED, reason KEY_TAKEN. PENDING with an empty transaction_id means *none known*, never
   * aborted: none yet, or so long ago that the key is no longer kept.
   */
  Outcome outcome_of_key(1: string key) throws (1: troth.Refused refused),

  /**
   * Closes a key, unless a transaction bears it, and answers as `outcome_of_key` then does.
   * ABORTED: closed, and durable; a commit with it is refused for as long as keys are kept.
   * PENDING: a commit with it is in flight, and the key is not closed; ask again.
   */
  Outcome close_key(1: string key) throws (1: troth.Refused refused),

  /** Where participants are; all of them when `names` is empty. */
  list<ParticipantAddress> resolve(1: list<string> names) throws (1: troth.Refused refused),
}

/** Highest (epoch, position) a participant saw of this coordinator (law L7c). */
struct Seen {
  1: required i64 epoch,
  2: required i64 epoch_random,
  3: required i64 position,
  /** `<name>-<mark>` of the coordinator seen; a coordinator of another name overlooks it. */
  4: optional string coordinator,
}

/**
 * A participant instance introduces itself; repeated after every (re)connect of either
 * side and at least every 10 s.
 */
struct Enrolment {
  1: required i32 version,
  /** [a-z0-9-], at most 120 bytes; the name in GIDs and commit lists. */
  2: required string participant,
  /** Random per process. */
  3: required string instance,
  4: required string system_identifier,
  5: required i64 database_oid,
  /** Host and port of the database as the participant's connection string names them. */
  6: required string database_address,
  /** Where applications reach the participant. */
  7: required string host,
  8: required i32 port,
  /** Where the coordinator reaches its ParticipantPeer service. */
  9: required i32 peer_port,
  /** What the participant saw of this coordinator before; absent when nothing. */
  10: optional Seen seen,
  /**
   * Which machine `database_address` is of, where that means something on one machine only (a
   * socket's folder, loopback): a hash. Absent: it is not known, or any machine means the same.
   */
  11: optional string database_machine,
}

struct Enrolled {
  1: required i32 version,
  2: required troth.Sender sender,
  /** Secret for the macs of early votes: HMAC(secret of the epoch, participant). */
  3: required binary secret,
}

/** Asked for each prepared branch that nobody settled. */
struct Inquiry {
  1: required troth.TransactionId transaction_id,
  /** xid seen in pg_prepared_xacts, 32 low bits. */
  2: required i64 xid,
}

enum Verdict {
  /** Commit the branch, if its xid is the one named in Answer.xid. */
  COMMIT = 1,
  /** Roll it back. */
  ABORT = 2,
  /** In flight, or the coordinator does not know yet: ask again. */
  PENDING = 3,
  /** Too old to tell: keep it in doubt and raise an alarm. */
  EXPIRED = 4,
  /** Another coordinator's, or an epoch this log never began: keep it, alarm. */
  NOT_MINE = 5,
}

struct Answer {
  1: required troth.TransactionId transaction_id,
  2: required Verdict verdict,
  /** COMMIT: 64-bit xid, timeline and position that were recorded. */
  3: optional i64 xid,
  4: optional i32 timeline,
  5: optional i64 position,
}

/**
 * For participants (role participant, and only under the names of the caller's certificate). Every
 * call is safe to repeat. Inquiries are never refused for load.
 */
service CoordinatorPeer {
  Enrolled enroll(1: Enrolment enrolment) throws (1: troth.Refused refused),

  /** At most 1,000 at a time; answered in order. `seen` as in Enrolment (epoch 0: nothing seen). */
  list<Answer> inquire(1: string participant, 2: list<Inquiry> inquiries, 3: Seen seen)
      throws (1: troth.Refused refused),
}

struct ParticipantStatus {
  1: required string participant,
  2: required string system_identifier,
  3: required i64 database_oid,
  4: required string address,
  5: required bool up,
  /** Decided here, not acknowledged there. */
  6: required i64 unacknowledged,
  /** Milliseconds since it was last heard of; -1: not since this epoch began. */
  7: required i64 silent_ms,
}

struct CoordinatorStatus {
  1: required troth.Sender sender,
  /** `opening`, `serving`, `draining`, `log-suspect`, `log-full`. */
  2: required string state,
  3: optional string why,
  4: required i64 in_flight,
  5: required i64 unacknowledged,
  6: required i64 committed,
  7: required i64 aborted,
  8: required i64 read_only,
  9: required i64 syncs,
  10: required i64 uptime_ms,
  11: required list<ParticipantStatus> participants,
  12: required i64 heuristics,
}

/** A transaction in the coordinator's memory: undecided, or decided and not acknowledged. */
struct TransactionStatus {
  1: required troth.TransactionId transaction_id,
  /** `preparing`, `deciding`, `committed`. */
  2: required string state,
  /** Participants whose vote (preparing) or acknowledgement (committed) is missing. */
  3: required list<string> waiting_for,
  /** Milliseconds since the commit was asked; since the coordinator's start, if before it. */
  4: required i64 age_ms,
}

/** A branch that a person ordered to settle, or that was found to have ended against the decision,
    or whose end nobody can tell. */
struct Heuristic {
  1: required troth.TransactionId transaction_id,
  2: required string participant,
  /** true: the evidence does not tell; false: ordered, or found to have ended the other way. */
  3: required bool hazard,
  /** For people: what was found; or `ordered to commit by WHO: WHY`, `ordered to abort by ...`. */
  4: required string what,
  /** Milliseconds since 1970, by the coordinator's wall clock; for people only. */
  5: required i64 at_unix_ms,
}

/** A branch of a transaction that is looked at. */
struct BranchReport {
  1: required string participant,
  /** Its name in pg_prepared_xacts. */
  2: required string gid,
  /**
   * To the coordinator: `not-asked` (its prepare could not be sent), `asked` (no vote yet: its
   * work may be under way still), `read-only`, `prepared` (voted so), `finishing` (the decision was sent), `acknowledged`; `unheard-of`: the
   * participant holds it, and no commit that names it is known here (none was asked, or its record
   * is kept no more); `left-out`: the participant holds it, and the commit, known with all its
   * branches, does not name it: it is rolled back when the participant asks; `unknown`: the participant
   * could not be asked (`unseen` says why), and nothing here tells whether it holds a branch.
   */
  3: required string state,
  /** The coordinator has a connection to the participant now; else milliseconds since it lost
      the last one, or since its own start. */
  4: required bool up,
  5: required i64 down_ms,
  /** Host and port of the participant's peer listener, and of its database, as enrolled; behind
      an @ of the latter the machine, as in Enrolment. */
  6: required string address,
  7: required string database_address,
  /** Once voted prepared: the 64-bit xid, timeline and position of the vote. */
  8: optional i64 xid,
  9: optional i32 timeline,
  10: optional i64 position,
  /** What the database shows now; absent when it holds nothing, or could not be asked. */
  11: optional participant.PreparedBranch prepared,
  /** Why it could not be asked; absent when it was, or need not be. */
  12: optional string unseen,
}

/** Something that happened to a transaction in this life of the coordinator. */
struct TimelineEvent {
  /** Microseconds ago. */
  1: required i64 ago_us,
  /** Where; empty: at the coordinator. */
  2: required string participant,
  /** `commit asked`, `prepare sent`, `voted prepared`, `decided to commit`, `decision durable`, ... */
  3: required string what,
}

/** A transaction, looked at from all sides. */
struct TransactionReport {
  1: required troth.TransactionId transaction_id,
  /**
   * `preparing`, `deciding`, `committed` while the coordinator works on it; else what it would
   * answer an inquiry: `committed`, `aborted`, `pending` (its commit may still be asked),
   * `expired`, `not-mine`.
   */
  2: required string state,
  /** A branch is prepared and not finished, as far as anybody who could be asked knows. */
  3: required bool in_doubt,
  /** Of the oldest thing known of it: commit asked, or PREPARE. -1: not known. */
  4: required i64 age_ms,
  /** One sentence for people: whom it waits for, and why. */
  5: required string why,
  6: required list<BranchReport> branches,
  /** Oldest first. Complete while the transaction is under way, unless many thousands are; of
      ended ones the last few thousand are kept. */
  7: required list<TimelineEvent> timeline,
  8: required list<Heuristic> heuristics,
  9: optional string key,
}

/** Which transactions are wanted; what is absent does not matter. */
struct InDoubtFilter {
  1: optional i64 older_than_ms,
  2: optional string participant,
  /** At most so many, the oldest; at most, and by default, 1,000. */
  3: optional i32 limit,
}

/** An order to settle a transaction by hand. */
struct ResolveRequest {
  1: required troth.TransactionId transaction_id,
  2: required bool commit,
  /** Who orders it, and why; kept for ever with what it does. Under TLS the name in the caller's
      certificate stands first, and `who` behind it in parentheses. */
  3: required string who,
  4: required string reason,
  /** Nobody who could know the decision is left: its coordinator's log is lost, or the outcome
      expired. Without it only what the coordinator can answer for is settled. */
  5: required bool decision_lost,
  /** Of the answer to the same request without it; absent: only tells what would be done. */
  6: optional string token,
}

struct Resolution {
  /** What is to be done, or was; empty: there is nothing to do. */
  1: required list<string> steps,
  /** To be sent to have it done, while nothing changes meanwhile; empty when it was done. */
  2: required string token,
  3: required TransactionReport report,
}

/** For administrators (role administrator). */
service CoordinatorAdmin {
  /**
   * Transactions that are undecided, or decided and not applied everywhere, and prepared branches
   * that participants hold and no transaction here accounts for; the oldest first. Asks every
   * participant that is up, all at once, each 3 s at most. Without timelines. Those that could not
   * be asked are the branches of a last report, beyond `limit`, whose transaction_id is empty and
   * whose state is `unknown`.
   */
  list<TransactionReport> in_doubt(1: InDoubtFilter filter) throws (1: troth.Refused refused),
  /** One transaction with its timeline, its branches, and who waits for them. Asks the
      participants concerned. */
  TransactionReport inspect(1: troth.TransactionId transaction_id)
      throws (1: troth.Refused refused),
  /**
   * Settles by hand, in two calls: the first tells what would be done and gives a token, the
   * second does it. An abort binds in the machine first (law L11). Refused against a recorded
   * decision, and when nothing is found and somebody could not be asked; a commit that is not
   * recorded only with `decision_lost`. What is settled ahead of
   * the decision, or without it, is recorded as a heuristic.
   */
  Resolution resolve(1: ResolveRequest request) throws (1: troth.Refused refused),
  /** Looks at the whole deployment: this process, and the participants that are up. */
  list<participant.Diagnosis> diagnose() throws (1: troth.Refused refused),
  CoordinatorStatus status() throws (1: troth.Refused refused),
  /** Oldest ids first, at most `limit` (at most 1,000). */
  list<TransactionStatus> transactions(1: i32 limit) throws (1: troth.Refused refused),
  /** In the order in which they were recorded, the newest 1,000; the log has them all. */
  list<Heuristic> heuristics() throws (1: troth.Refused refused),
  /** Stops leasing and refuses new commits; in-flight ones end as they would. */
  void drain() throws (1: troth.Refused refused),
  /** Forgets a participant that owes no acknowledgement. */
  void forget(1: string participant) throws (1: troth.Refused refused),
  /** Lets the next enrolment bind the name to another database. */
  void rebind(1: string participant) throws (1: troth.Refused refused),
  /** Ends `log-suspect`: accept the gap (its ids become NOT_MINE). Reason is recorded. */
  void accept_gap(1: string reason) throws (1: troth.Refused refused),
  /** Ends `log-suspect`: the reports of this participant are discarded. */
  void discard_report(1: string participant, 2: string reason)
      throws (1: troth.Refused refused),
}
