/**
 * What the fault tests do to a participant: small steps, any mix of them in one piece of work.
 * The tables behind it: programs/schema.sql. What a step means is in programs/steps.cc.
 */
include "troth.thrift"
include "participant.thrift"

namespace cpp troth.jepsen

struct Step {
  /** Its name, as in programs/steps.cc: `append`, `lock-read`, `add`, ... */
  1: required string name,
  2: required i64 key,
  3: required i64 value,
}

struct RunReply {
  1: required troth.Branch branch,
  /** One for each step, in order; empty where a step reads nothing. */
  2: required list<list<i64>> results,
}

service Workload extends participant.Participant {
  /** Refused(APPLICATION): a step's own rule says no (not enough money, already taken). */
  RunReply run(1: troth.Context context, 2: list<Step> steps) throws (1: troth.Refused refused),
}
