/** A service of somebody else's, which takes part: one line of its book for each payment. */
include "troth.thrift"
include "participant.thrift"

namespace cpp ledger

struct BookReply {
  1: required troth.Branch branch,
  2: required i64 lines,
}

service Ledger extends participant.Participant {
  BookReply book(1: troth.Context context, 2: i64 amount) throws (1: troth.Refused refused),
}
