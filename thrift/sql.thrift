/**
 * What troth-participant offers to applications: SQL in a branch, by the name of a statement
 * that its operator wrote down, or (where it was allowed) as text. docs/participants.md.
 */
include "troth.thrift"
include "participant.thrift"

namespace cpp troth.sql
namespace py troth.wire.sql

/**
 * One value, in exactly one of the fields; in none of them: NULL. As a parameter any field is
 * sent as PostgreSQL's text form, and the statement decides what type it has. In rows:
 * smallint, integer, bigint and oid come as `integer`, real and double precision as `real`,
 * boolean as `boolean`, bytea as `bytes`, everything else as `text`.
 */
struct Value {
  1: optional string text,
  2: optional i64 integer,
  3: optional double real,
  4: optional bool boolean,
  5: optional binary bytes,
}

/** One statement to be executed; either `name` or `sql`. */
struct Statement {
  /** A statement of the participant's file. */
  1: optional string name,
  /** One SQL statement, parameters as $1, $2, ...; refused unless started with --free_sql. */
  2: optional string sql,
  3: optional list<Value> parameters,
  /** At most so many rows come back, `more` says whether there were others; 0: none. At most,
      and by default, the participant's --max_rows. */
  4: optional i32 max_rows,
}

struct Column {
  1: required string name,
  /** pg_type.oid of its type. */
  2: required i64 type_oid,
}

struct StatementResult {
  1: required list<Column> columns,
  2: required list<list<Value>> rows,
  /** There were rows beyond max_rows. */
  3: required bool more,
  /** Rows inserted, changed or deleted; of a query: rows that are given back. */
  4: required i64 affected,
}

struct ExecuteReply {
  1: required troth.Branch branch,
  /** One for each statement, in order. */
  2: required list<StatementResult> results,
}

/** A statement of the participant's file. */
struct KnownStatement {
  1: required string name,
  /** The comment above it. */
  2: required string description,
  /** Types of its parameters, as SQL names them. */
  3: required list<string> parameter_types,
  4: required list<string> columns,
}

service SqlParticipant extends participant.Participant {
  /**
   * One piece of work: executes statements, at most 100, in order; the first that fails ends
   * the branch. Refused(DATABASE, CONFLICT) with the SQLSTATE; Refused(APPLICATION): a rule of
   * the file (`-- rows:`) was broken, with the message that stands there; Refused(INVALID): no
   * such statement, wrong number of parameters, a reply above 900 kB.
   */
  ExecuteReply execute(1: troth.Context context, 2: list<Statement> statements)
      throws (1: troth.Refused refused),

  /** Outside any transaction: the statements of its file, by name. */
  list<KnownStatement> statements(),
}
