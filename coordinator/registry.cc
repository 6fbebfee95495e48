// See registry.h.
#include "coordinator/registry.h"

#include <algorithm>
#include <limits>

#include "common/check.h"

namespace troth {
namespace {

std::string Describe(const ParticipantRecord& r) {
  const DatabaseAddress address = DatabaseAddress::Of(r.database_address);
  return "system identifier " + std::to_string(r.database.system_identifier) + ", database oid " +
         std::to_string(r.database.oid) + ", address " + address.server +
         (address.machine.empty() ? "" : " on machine " + address.machine);
}

std::string Pair(const SeenPosition& seen) {
  return "epoch " + seen.epoch.ToString() + ", batch " + std::to_string(seen.position);
}

// A log that never began `epoch` was cut before it: in the epoch in which it ended when it was
// opened, or, where lives since have numbers of the lost ones, in the last one below.
std::uint32_t CutBefore(const Epoch& epoch, const RecoveredState& state, const Epoch& current) {
  std::uint32_t at_opening = epoch.number, below = epoch.number;
  for (const RecoveredState::EpochInfo& known : state.epochs()) {
    if (known.epoch != current) at_opening = known.epoch.number;
    if (known.epoch.number < epoch.number) below = known.epoch.number;
  }
  return std::min(at_opening, below);
}

// Several reports may contradict the log, each with something else.
void Contradict(Registry::Participant* participant, const SeenPosition& seen,
                std::uint32_t cut_from, std::string what) {
  const bool first = participant->contradiction.empty();
  if (first || participant->reported.epoch.number <= seen.epoch.number) {
    participant->reported = seen;
  }
  participant->cut_from = first ? cut_from : std::min(participant->cut_from, cut_from);
  participant->contradiction =
      "participant '" + participant->record.name + "' " + what +
      ": the log was cut or restored from an earlier copy. Restore the newest log, or run "
      "'trothctl accept-gap', or 'trothctl discard-report " +
      participant->record.name + "'";
}

}  // namespace

void Registry::Load(const std::vector<ParticipantRecord>& records) {
  TROTH_CHECK(participants_.empty());
  for (const ParticipantRecord& record : records) {
    TROTH_CHECK(record.index == participants_.size());
    Participant participant;
    participant.record = record;
    participant.durable = true;
    if (!record.forgotten) by_name_[record.name] = record.index;
    participants_.push_back(std::move(participant));
  }
}

Registry::Participant& Registry::at(ParticipantIndex index) {
  TROTH_CHECK(index < participants_.size());
  return participants_[index];
}

const Registry::Participant& Registry::at(ParticipantIndex index) const {
  TROTH_CHECK(index < participants_.size());
  return participants_[index];
}

Registry::Participant* Registry::Find(std::string_view name) {
  auto it = by_name_.find(std::string(name));
  return it == by_name_.end() ? nullptr : &participants_[it->second];
}

Registry::Participant* Registry::FindDurable(std::string_view name) {
  Participant* participant = Find(name);
  return participant != nullptr && participant->durable && !participant->leaving ? participant
                                                                                 : nullptr;
}

Registry::Binding Registry::Classify(const ParticipantRecord& asked, std::string* why) const {
  auto it = by_name_.find(asked.name);
  if (it == by_name_.end()) return Binding::kNew;
  const ParticipantRecord& bound = participants_[it->second].record;
  const DatabaseAddress known = DatabaseAddress::Of(bound.database_address);
  const DatabaseAddress met = DatabaseAddress::Of(asked.database_address);
  const bool same = bound.database == asked.database && met.MayBe(known);
  if (same && !bound.open) {
    if (known.machine.empty() && !met.machine.empty()) return Binding::kNarrowed;
    const bool reached = bound.peer_host == asked.peer_host && bound.peer_port == asked.peer_port;
    return reached ? Binding::kSame : Binding::kMoved;
  }
  if (bound.open) return Binding::kNew;
  *why = "participant '" + asked.name + "' is bound to " + Describe(bound) + "; this one is " +
         Describe(asked) + ". If it was moved on purpose, run: trothctl participants rebind " +
         asked.name;
  return Binding::kTaken;
}

ParticipantRecord Registry::Bind(ParticipantRecord asked) {
  asked.open = false;
  asked.forgotten = false;
  auto it = by_name_.find(asked.name);
  if (it == by_name_.end()) {
    asked.index = static_cast<ParticipantIndex>(participants_.size());
    Participant participant;
    participant.record = asked;
    participants_.push_back(std::move(participant));
    by_name_[asked.name] = asked.index;
  } else {
    Participant& known = participants_[it->second];
    asked.index = it->second;
    // Who does not say on which machine it is does not take it from the record.
    const DatabaseAddress met = DatabaseAddress::Of(asked.database_address);
    if (!known.record.open && met.machine.empty()) {
      asked.database_address = known.record.database_address;
    }
    // What an operator discarded stays so while the name means the same database.
    if (known.record.database == asked.database) asked.discarded = known.record.discarded;
    known.record = asked;
  }
  return asked;
}

void Registry::Durable(const ParticipantRecord& record) {
  Participant& participant = at(record.index);
  participant.durable = true;
  if (record.forgotten) {
    participant.record.forgotten = true;
    by_name_.erase(record.name);
    participant.up = false;
    participant.contradiction.clear();
  }
}

void Registry::Heard(ParticipantIndex index, RunningMs now) {
  Participant& participant = at(index);
  participant.heard = true;
  participant.heard_at = now;
}

void Registry::Report(ParticipantIndex index, const SeenPosition& seen, const RecoveredState& state,
                      const Life& life) {
  Participant& participant = at(index);
  if (seen.epoch.number == 0) return;

  const auto& epochs = state.epochs();
  auto contradict = [&](std::uint32_t cut_from, const std::string& what) {
    Contradict(&participant, seen, cut_from, "saw " + Pair(seen) + ", but " + what);
  };
  auto covered = [&](const GapRecord& gap) {
    return gap.first <= seen.epoch.number && seen.epoch.number <= gap.last;
  };
  if (std::any_of(state.gaps().begin(), state.gaps().end(), covered)) return;
  const auto& discarded = participant.record.discarded;
  if (discarded.epoch == seen.epoch && seen.position <= discarded.position) return;

  if (seen.epoch == life.epoch) {
    if (seen.position > life.durable_batch) {
      contradict(seen.epoch.number,
                 "this epoch is durable up to batch " + std::to_string(life.durable_batch));
    }
    return;
  }
  for (std::size_t i = 0; i < epochs.size(); ++i) {
    if (epochs[i].epoch != seen.epoch) continue;
    // Until this life's epoch is durable, the one before ends where the log did when it was
    // opened; nothing has become durable since (law L7d).
    const std::uint64_t end =
        i + 1 == epochs.size() ? life.previous_end : epochs[i + 1].previous_end;
    if (seen.position > end) {
      contradict(seen.epoch.number, "this log ends that epoch at batch " + std::to_string(end));
    }
    return;
  }
  // Epochs are forgotten oldest first; one older than all that are known tells nothing.
  if (!epochs.empty() && seen.epoch.number < epochs.front().epoch.number) return;
  contradict(CutBefore(seen.epoch, state, life.epoch),
             "this log never began that epoch (its newest is " +
                 (epochs.empty() ? std::string("none") : epochs.back().epoch.ToString()) + ")");
}

void Registry::ReportBranch(ParticipantIndex index, const LocalId& id, const RecoveredState& state,
                            const Epoch& current) {
  Participant& participant = at(index);
  if (id.epoch == current || participant.record.discarded.epoch == id.epoch) return;
  for (const GapRecord& gap : state.gaps()) {
    if (gap.first <= id.epoch.number && id.epoch.number <= gap.last) return;
  }
  const RecoveredState::EpochInfo* info = state.FindEpoch(id.epoch);
  if (info != nullptr && id.sequence < info->reserve_end) return;
  // Epochs are forgotten oldest first; one older than all that are known tells nothing.
  const auto& epochs = state.epochs();
  if (info == nullptr && !epochs.empty() && id.epoch.number < epochs.front().epoch.number) return;
  Contradict(
      &participant, {id.epoch, std::numeric_limits<std::uint64_t>::max()},
      info != nullptr ? id.epoch.number : CutBefore(id.epoch, state, current),
      "holds a prepared branch of " + id.ToString() + ", an id that this log never reserved");
}

void Registry::Accept(const GapRecord& gap, const Epoch& current) {
  for (Participant& p : participants_) {
    const std::uint32_t number = p.reported.epoch.number;
    if (p.contradiction.empty() || number < gap.first || number > gap.last) continue;
    p.contradiction.clear();
    // Participants refuse this epoch, which lies below what they have seen.
    if (gap.last >= current.number) {
      p.contradiction = "a gap up to epoch " + std::to_string(gap.last) +
                        " was accepted: restart the coordinator, so that its epoch lies above";
    }
  }
}

bool Registry::AllHeard() const {
  return std::all_of(participants_.begin(), participants_.end(), [](const Participant& p) {
    return p.heard || p.record.forgotten || !p.durable;
  });
}

const std::string& Registry::Suspicion() const {
  static const std::string kNone;
  for (const Participant& p : participants_) {
    if (!p.contradiction.empty()) return p.contradiction;
  }
  return kNone;
}

std::uint32_t Registry::HighestContradicted() const {
  std::uint32_t highest = 0;
  for (const Participant& p : participants_) {
    if (!p.contradiction.empty()) highest = std::max(highest, p.reported.epoch.number);
  }
  return highest;
}

std::uint32_t Registry::LowestCut() const {
  std::uint32_t lowest = 0;
  for (const Participant& p : participants_) {
    if (p.contradiction.empty()) continue;
    lowest = lowest == 0 ? p.cut_from : std::min(lowest, p.cut_from);
  }
  return lowest;
}

}  // namespace troth
