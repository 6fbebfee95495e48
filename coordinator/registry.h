// The participants a coordinator knows: names bound to databases, who can be reached, what
// each owes, and what they say of this log (laws L7c, L7d). Pure; part of the protocol machine.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "coordinator/protocol_events.h"
#include "recovery/recovered_state.h"

namespace troth {

class Registry {
 public:
  struct Participant {
    ParticipantRecord record;
    bool durable = false;  // its registry record is
    bool up = false;       // the channel has a connection
    bool heard = false;    // reported in this life (law L7d)
    std::uint64_t unacknowledged = 0;
    RunningMs heard_at = -1;
    bool leaving = false;        // an operator forgot it; the record is under way
    std::string contradiction;   // its report contradicts this log; empty if not
    SeenPosition reported;       // the newest that does
    std::uint32_t cut_from = 0;  // the lowest epoch that may have lost something
  };

  // From the log: all durable.
  void Load(const std::vector<ParticipantRecord>& records);

  std::size_t size() const { return participants_.size(); }
  Participant& at(ParticipantIndex index);
  const Participant& at(ParticipantIndex index) const;
  // Null when the name is not registered, forgotten (or about to be), or its record not
  // durable yet.
  Participant* FindDurable(std::string_view name);
  // As above, but also while its record is under way.
  Participant* Find(std::string_view name);

  // What an enrolment asks of the registry.
  enum class Binding { kSame, kMoved, kNarrowed, kNew, kTaken };
  // kSame: nothing to record. kMoved: same database, other address to reach it. kNarrowed: same
  // database, and the record does not name its machine yet. kNew: unknown name, or one opened for
  // rebinding. kTaken: bound to another database or address; `*why` says to which and what an
  // operator can do.
  Binding Classify(const ParticipantRecord& asked, std::string* why) const;
  // Adds or replaces; gives the record its index. Not durable until Durable().
  ParticipantRecord Bind(ParticipantRecord asked);
  void Durable(const ParticipantRecord& record);

  // This life: its epoch, where the log ended when it began, and what is durable now.
  struct Life {
    Epoch epoch;
    std::uint64_t previous_end = 0;
    std::uint64_t durable_batch = 0;
  };
  // Its enrolment was taken: before, any process may say its name.
  void Heard(ParticipantIndex index, RunningMs now);
  // Compares what a participant saw of this log with the log (law L7d), also where its enrolment is
  // refused. `state` names the ends of past epochs.
  void Report(ParticipantIndex index, const SeenPosition& seen, const RecoveredState& state,
              const Life& life);
  // The same of a prepared branch it holds: its id was handed out once (law L7d).
  void ReportBranch(ParticipantIndex index, const LocalId& id, const RecoveredState& state,
                    const Epoch& current);
  // An operator accepted the gap: what it covers contradicts no more, unless the next epoch
  // must lie above it first.
  void Accept(const GapRecord& gap, const Epoch& current);
  // Every participant that is registered and not forgotten has reported.
  bool AllHeard() const;
  // The first contradiction, or empty.
  const std::string& Suspicion() const;
  // Highest epoch number any contradicting report named; 0 if none.
  std::uint32_t HighestContradicted() const;
  // Lowest epoch number of which something may be lost, by these reports; 0 if there are none.
  std::uint32_t LowestCut() const;

 private:
  std::vector<Participant> participants_;  // by index
  std::unordered_map<std::string, ParticipantIndex> by_name_;
};

}  // namespace troth
