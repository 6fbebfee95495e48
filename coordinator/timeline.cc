// See timeline.h.
#include "coordinator/timeline.h"

#include <algorithm>

namespace troth {
namespace {

using What = Happening::What;

constexpr std::size_t kMaxEnded = 4'096;
constexpr std::size_t kMaxAsked = 4'096;
constexpr std::size_t kMaxUnderWay = 50'000;
// Of one transaction; of those above, which are retries, the last ones count.
constexpr std::size_t kMaxHappenings = 96;
constexpr std::size_t kKeptFirst = 64;
// Of one with two branches that is decided and applied.
constexpr std::size_t kUsual = 12;

}  // namespace

const char* WhatName(What what) {
  switch (what) {
    case What::kCommitAsked: return "commit asked";
    case What::kPrepareSent: return "prepare sent";
    case What::kVotedPrepared: return "voted prepared";
    case What::kVotedReadOnly: return "voted read-only";
    case What::kVotedRefused: return "refused";
    case What::kVoteNotThereYet: return "no vote yet";
    case What::kDecided: return "decided to commit";
    case What::kDurable: return "decision durable";
    case What::kFinishSent: return "commit sent";
    case What::kAcknowledged: return "acknowledged";
    case What::kFinishNotThereYet: return "not finished yet";
    case What::kHeuristic: return "found ended otherwise";
    case What::kHazard: return "end cannot be told";
    case What::kEnded: return "applied everywhere";
    case What::kAbortAsked: return "abort asked";
    case What::kAborted: return "told: aborted";
    case What::kAbortSent: return "abort sent";
    case What::kReadOnly: return "told: read-only";
  }
  return "";
}

bool AtParticipant(What what) {
  switch (what) {
    case What::kCommitAsked:
    case What::kDecided:
    case What::kDurable:
    case What::kEnded:
    case What::kAbortAsked:
    case What::kAborted:
    case What::kReadOnly: return false;
    default: return true;
  }
}

void Timeline::Note(const Event& event) {
  if (const auto* vote = std::get_if<VoteArrived>(&event)) {
    const Ballot ballot = vote->vote.ballot;
    Put(vote->id, vote->participant,
        ballot == Ballot::kPrepared   ? What::kVotedPrepared
        : ballot == Ballot::kReadOnly ? What::kVotedReadOnly
        : ballot == Ballot::kRefused  ? What::kVotedRefused
                                      : What::kVoteNotThereYet);
  } else if (const auto* finish = std::get_if<FinishArrived>(&event)) {
    Put(finish->id, finish->participant,
        finish->finished == Finished::kDone        ? What::kAcknowledged
        : finish->finished == Finished::kWorking   ? What::kFinishNotThereYet
        : finish->finished == Finished::kHeuristic ? What::kHeuristic
                                                   : What::kHazard);
  } else if (const auto* commit = std::get_if<CommitAsked>(&event)) {
    Put(commit->id.local, 0, What::kCommitAsked);
  } else if (const auto* durable = std::get_if<RecordsDurable>(&event)) {
    while (!undurable_.empty() && undurable_.front().number <= durable->up_to) {
      Put(undurable_.front().id, 0, What::kDurable);
      undurable_.pop_front();
    }
  } else if (const auto* abort = std::get_if<AbortAsked>(&event)) {
    Put(abort->id.local, 0, What::kAbortAsked);
  }
}

void Timeline::Note(const AppendRecord& a) {
  ++appended_;
  if (const auto* commit = std::get_if<CommitRecord>(&a.record)) {
    undurable_.push_back({appended_, commit->id});
    Put(commit->id, 0, What::kDecided);
  } else if (const auto* end = std::get_if<EndRecord>(&a.record)) {
    Put(end->id, 0, What::kEnded);
  }
}

void Timeline::Note(const ReplyOutcome& a) {
  if (a.kind == OutcomeKind::kAborted) Put(a.id.local, 0, What::kAborted);
  if (a.kind == OutcomeKind::kReadOnly) Put(a.id.local, 0, What::kReadOnly);
}

std::uint64_t Timeline::Take(std::vector<Happening>* out) {
  const std::uint64_t first = std::max(taken_, noted_ < kNotes ? 0 : noted_ - kNotes);
  const std::uint64_t lost = first - taken_;
  for (std::uint64_t i = first; i < noted_; ++i) out->push_back(notes_[i % kNotes]);
  taken_ = noted_;
  return lost;
}

void TransactionHistory::Add(const std::vector<Happening>& happenings, std::uint64_t lost) {
  if (lost > 0) EndAll();
  for (const Happening& happening : happenings) {
    auto life = lives_.find(happening.id);
    if (life == lives_.end()) {
      // What comes late, of a transaction that was forgotten, begins none.
      const bool begins = happening.what == What::kCommitAsked ||
                          happening.what == What::kAbortAsked ||
                          happening.what == What::kFinishSent;  // of an earlier life's decision
      Life* const begun = begins ? Begin(happening.id) : nullptr;
      if (begun != nullptr) Take(happening, begun);
      continue;
    }
    Take(happening, &life->second);
  }
}

TransactionHistory::Life* TransactionHistory::Begin(const LocalId& id) {
  if (lives_.size() - ended_.size() >= kMaxUnderWay) return nullptr;
  asked_.push_back(id);
  if (asked_.size() > kMaxAsked) {
    const auto oldest = lives_.find(asked_.front());
    const bool idle = oldest != lives_.end() && !oldest->second.moved && !oldest->second.ended;
    if (idle) lives_.erase(oldest);
    asked_.pop_front();
  }
  Life* const life = &lives_.try_emplace(id).first->second;
  life->happenings.reserve(kUsual);
  return life;
}

void TransactionHistory::EndAll() {
  std::vector<LocalId> under_way;
  for (const auto& [id, life] : lives_) {
    if (!life.ended) under_way.push_back(id);
  }
  for (const LocalId& id : under_way) End(id, &lives_.at(id));
}

void TransactionHistory::Take(const Happening& happening, Life* life) {
  std::vector<Happening>& all = life->happenings;
  // Told again to whoever asks again: once is enough.
  const bool told = happening.what == What::kAborted || happening.what == What::kReadOnly;
  if (told && life->ended) return;
  if (all.size() >= kMaxHappenings) all.erase(all.begin() + kKeptFirst);
  all.push_back(happening);
  life->moved =
      life->moved || (happening.what != What::kCommitAsked && happening.what != What::kAbortAsked);
  switch (happening.what) {
    case What::kCommitAsked:
      if (life->asked_ns == 0) life->asked_ns = happening.at_ns;
      break;
    case What::kDecided:
      life->decided_ns = happening.at_ns;
      if (life->asked_ns > 0) {
        observer_(Phase::kPrepare, static_cast<double>(happening.at_ns - life->asked_ns) / 1e9);
      }
      break;
    case What::kDurable:
      life->durable_ns = happening.at_ns;
      if (life->decided_ns > 0) {
        observer_(Phase::kLog, static_cast<double>(happening.at_ns - life->decided_ns) / 1e9);
      }
      break;
    case What::kEnded:
      if (life->durable_ns > 0) {
        observer_(Phase::kFinish, static_cast<double>(happening.at_ns - life->durable_ns) / 1e9);
      }
      End(happening.id, life);
      break;
    case What::kAborted:
    case What::kReadOnly:
    case What::kAbortSent: End(happening.id, life); break;
    default: break;
  }
}

// Forgets the oldest ended one instead, when there are many.
void TransactionHistory::End(const LocalId& id, Life* life) {
  if (life->ended) return;
  life->ended = true;
  ended_.push_back(id);
  if (ended_.size() <= kMaxEnded) return;
  lives_.erase(ended_.front());
  ended_.pop_front();
}

std::vector<Happening> TransactionHistory::Of(const LocalId& id) const {
  const auto life = lives_.find(id);
  return life == lives_.end() ? std::vector<Happening>() : life->second.happenings;
}

}  // namespace troth
