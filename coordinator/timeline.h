// When what happened to transactions lately, for people and metrics. Whoever runs the machine
// notes; somebody else takes the notes away and keeps them. Decides nothing, and knows no wire.
// docs/operations.md, "One transaction".
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <unordered_map>
#include <vector>

#include "coordinator/protocol_actions.h"
#include "coordinator/protocol_events.h"

namespace troth {

struct Happening {
  enum class What : std::uint8_t {
    kCommitAsked,
    kPrepareSent,
    kVotedPrepared,
    kVotedReadOnly,
    kVotedRefused,
    kVoteNotThereYet,
    kDecided,  // the commit record was handed to the log
    kDurable,
    kFinishSent,
    kAcknowledged,
    kFinishNotThereYet,
    kHeuristic,
    kHazard,
    kEnded,
    kAbortAsked,
    kAborted,  // told to whoever asked
    kAbortSent,
    kReadOnly,  // told: nothing to decide
  };
  std::int64_t at_ns = 0;  // of the clock given to Timeline::Now
  LocalId id;
  ParticipantIndex participant = 0;
  What what = What::kCommitAsked;
};
static_assert(sizeof(Happening) == 32);

// As people read it; of kVotedPrepared `voted prepared`.
const char* WhatName(Happening::What what);
// It happened between the coordinator and one participant.
bool AtParticipant(Happening::What what);

// A mailbox: so many notes, and no allocation, lock or clock for any. Belongs to the thread that
// runs the machine (Coordinator::Inspect excludes it).
class Timeline {
 public:
  static constexpr std::size_t kNotes = 1u << 17;  // 4 MiB; some 10,000 transactions

  Timeline() : notes_(kNotes) {}

  // The time of what is noted next.
  void Now(std::int64_t ns) { now_ns_ = ns; }
  // Those that begin or move a transaction are noted, others passed over.
  void Note(const Event& event);
  void Note(const SendPrepare& a) { Put(a.id, a.participant, Happening::What::kPrepareSent); }
  void Note(const SendFinish& a) {
    Put(a.id, a.participant, a.commit ? Happening::What::kFinishSent : Happening::What::kAbortSent);
  }
  void Note(const AppendRecord& a);
  void Note(const ReplyOutcome& a);

  // Moves what was noted since the last Take to the end of `*out`; returns how many notes were
  // lost, because nobody took them in time.
  std::uint64_t Take(std::vector<Happening>* out);

 private:
  void Put(const LocalId& id, ParticipantIndex participant, Happening::What what) {
    notes_[noted_++ % kNotes] = {now_ns_, id, participant, what};
  }

  std::vector<Happening> notes_;
  std::uint64_t noted_ = 0;
  std::uint64_t taken_ = 0;
  std::int64_t now_ns_ = 0;
  std::uint64_t appended_ = 0;  // records handed to the log
  struct Undurable {
    std::uint64_t number;
    LocalId id;
  };
  std::deque<Undurable> undurable_;  // commits among them that are not durable yet
};

// What was taken, by transaction. Bounded: of ended ones, and of those that were asked for and of
// which nothing came (refused; asked once more), the last few thousand each; of those under way
// the oldest many thousand. Used by one thread at a time.
class TransactionHistory {
 public:
  enum class Phase { kPrepare, kLog, kFinish };
  // Told how long a phase of a transaction took: from the commit call to the last vote, from
  // there until the decision is durable, from there to the last acknowledgement.
  using Observer = std::function<void(Phase, double seconds)>;

  explicit TransactionHistory(Observer observer) : observer_(std::move(observer)) {}

  // `lost`: how many notes are missing between these and those before. Ends may be among them, so
  // whatever was under way then gives room as if it had ended.
  void Add(const std::vector<Happening>& happenings, std::uint64_t lost);
  // Of one transaction, oldest first; none when it is not known (any more).
  std::vector<Happening> Of(const LocalId& id) const;

 private:
  struct Life {
    std::vector<Happening> happenings;
    std::int64_t asked_ns = 0, decided_ns = 0, durable_ns = 0;
    bool moved = false;  // more than asked for
    bool ended = false;
  };
  // Null: there is no place for another.
  Life* Begin(const LocalId& id);
  void Take(const Happening& happening, Life* life);
  void End(const LocalId& id, Life* life);
  void EndAll();

  const Observer observer_;
  std::unordered_map<LocalId, Life> lives_;
  std::deque<LocalId> ended_;  // the oldest first
  std::deque<LocalId> asked_;  // those begun last, the oldest first
};

}  // namespace troth
