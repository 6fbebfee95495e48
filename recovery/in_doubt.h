// The one function of laws L6 and L9b: what may be said of a transaction id. Clients,
// inquirers and recovery all go through it. A pure table: no clock, no log, no wire.
// docs/protocol.md, "What absence means".
#pragma once

#include <cstdint>
#include <string_view>

namespace troth {

// What is known of an id at the moment of asking, gathered by the machine.
struct Knowledge {
  bool ours = false;           // the coordinator part of the id is this log's
  bool epoch_begun = false;    // this log began the epoch, and no accepted gap covers it
  bool epoch_current = false;  // it is the epoch of this life
  bool below_reserve = false;  // the sequence lies below what the log reserved for its epoch
  bool whole_record = false;   // a commit record, durable, all its branches known
  bool committed_bit = false;  // known committed, branches no longer known
  bool below_line = false;     // below the line of `expired`
  bool in_flight = false;      // asked to commit and undecided, or its record not yet durable
  bool lease_live = false;     // epoch_current only: its lease has not ended
  bool aborted = false;        // lease_live only: known aborted in this life
  bool log_whole = false;      // no report contradicts the log, and all participants were heard
};

enum class InDoubtAnswer {
  kCommitted,     // whole record: for the recorded xid commit, for any other abort
  kCommittedBit,  // committed, but no evidence is left to finish a branch by
  kAborted,
  kPending,  // not decided, or not to be told yet: ask again
  kExpired,  // too old to tell
  kNotMine,  // another coordinator, an epoch never begun, or an id never reserved
};

// Law L6, L9b. Every combination of Knowledge has an answer.
InDoubtAnswer Resolve(const Knowledge& k);

// Lower-case name, stable, for transcripts.
std::string_view InDoubtAnswerName(InDoubtAnswer answer);

}  // namespace troth
