// What an operator may see of transactions: those in doubt, one of them from all sides, and who
// waits behind it. Gathers from the protocol machine, from the timeline of this life, and from
// the databases of the participants that are up (ParticipantAdmin.prepared). Decides nothing; its
// one order, Settle, is for what somebody else decided. Serves CoordinatorAdmin and the console
// alike; its values are those of thrift/coordinator.thrift, as JSON those of wire/report_json.h.
// docs/operations.md.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "common/status.h"
#include "coordinator/coordinator.h"
#include "coordinator/crew.h"
#include "coordinator/thrift_channel.h"
#include "coordinator/timeline.h"
#include "coordinator_types.h"

namespace troth {

// Thread-safe. A call stops the machine for a moment (copies of at most 1,000 transactions), and
// then waits for participants, 3 s at most.
class Inspection {
 public:
  // `timeline` is the one that `coordinator` watches. `observer` is told of phases, on this
  // class's thread. The pointers outlive it.
  Inspection(std::string coordinator_id, Coordinator* coordinator, Crew* crew,
             ThriftChannel* channel, Timeline* timeline, TransactionHistory::Observer observer);
  ~Inspection();
  Inspection(const Inspection&) = delete;
  Inspection& operator=(const Inspection&) = delete;

  // Starts to take the timeline's notes away, each second.
  void Start();
  void Stop();

  // See CoordinatorAdmin.in_doubt and .inspect. kInvalid: no transaction id. Participants that
  // could not be asked are branches in state `unknown`, with `unseen`: of a transaction that no
  // answer of the coordinator settles; and of a last report of the list, which has no transaction
  // id.
  std::vector<wire::TransactionReport> InDoubt(const wire::InDoubtFilter& filter);
  Result<wire::TransactionReport> Inspect(const std::string& transaction_id);

  // Has a participant settle a branch that is prepared there (ParticipantAdmin.settle).
  Status Settle(const wire::BranchReport& branch, bool commit, const std::string& order);
  // What participants that are up find when they look at themselves; of the others, that they
  // are not up.
  std::vector<wire::Diagnosis> Diagnose();

  // Where the time of a transaction went until now (slow_line.h); empty when that is not known.
  // Cheap enough for what is rare: it stops the machine for a moment, and asks nobody.
  std::string WhereTimeWent(const TransactionId& id);

  // Takes the notes now: what is observed then tells of all that has ended.
  void TakeNotes();
  // Notes that were lost, because more came than were taken in time.
  std::uint64_t lost() const;

 private:
  struct Rep;
  std::unique_ptr<Rep> rep_;
};

}  // namespace troth
