// See in_doubt.h.
#include "recovery/in_doubt.h"

namespace troth {

InDoubtAnswer Resolve(const Knowledge& k) {
  if (!k.ours) return InDoubtAnswer::kNotMine;

  // Presence. Durable records speak whatever else is known.
  if (k.whole_record) return InDoubtAnswer::kCommitted;
  if (k.committed_bit) return InDoubtAnswer::kCommittedBit;

  // Not this log's to answer. An id above the reserve was never handed out by the log as it is
  // now: either forged, or the log was cut (law L7d); absence says nothing in both cases.
  if (!k.epoch_begun || !k.below_reserve) return InDoubtAnswer::kNotMine;

  // In flight until the record is durable: neither told as committed nor as aborted.
  if (k.in_flight) return InDoubtAnswer::kPending;

  if (k.below_line) return InDoubtAnswer::kExpired;

  // A live lease: its ids may still be asked to commit, unless already aborted.
  if (k.epoch_current && k.lease_live) {
    return k.aborted ? InDoubtAnswer::kAborted : InDoubtAnswer::kPending;
  }

  // Absence: the epoch has ended, or the lease is over. It means abort in a whole log only.
  return k.log_whole ? InDoubtAnswer::kAborted : InDoubtAnswer::kPending;
}

std::string_view InDoubtAnswerName(InDoubtAnswer answer) {
  switch (answer) {
    case InDoubtAnswer::kCommitted: return "committed";
    case InDoubtAnswer::kCommittedBit: return "committed-bit";
    case InDoubtAnswer::kAborted: return "aborted";
    case InDoubtAnswer::kPending: return "pending";
    case InDoubtAnswer::kExpired: return "expired";
    case InDoubtAnswer::kNotMine: return "not-mine";
  }
  return "?";
}

}  // namespace troth
