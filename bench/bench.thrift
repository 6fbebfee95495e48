/**
 * The service that bench/run measures Troth with: one row of one table, changed by one statement.
 */
include "troth.thrift"
include "participant.thrift"

namespace cpp troth.bench

struct ChangeReply {
  1: required troth.Branch branch,
}

service BenchParticipant extends participant.Participant {
  /** Adds `amount` to the balance of row `id`. Refused when there is no such row. */
  ChangeReply change(1: troth.Context context, 2: i32 id, 3: i32 amount)
      throws (1: troth.Refused refused),
}
