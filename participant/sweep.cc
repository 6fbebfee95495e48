// See sweep.h.
#include "participant/sweep.h"

#include <algorithm>

#include "common/failpoint.h"
#include "common/mark.h"

namespace troth {

Sweep::Sweep(std::string participant, ResourceManager* resource_manager, BranchTable* table,
             Clock* clock)
    : participant_(std::move(participant)),
      resource_manager_(resource_manager),
      table_(table),
      clock_(clock) {}

Result<std::vector<SweepInquiry>> Sweep::Look() {
  const std::int64_t asked_ms = clock_->NowMs();
  Result<std::vector<PreparedBranch>> prepared =
      resource_manager_->ListPrepared(GidPrefix(participant_));
  if (!prepared.ok()) return prepared.status();
  TROTH_FAILPOINT("sweep-listed");
  const std::int64_t now = clock_->NowMs();
  std::map<std::string, Sighting> seen;
  std::vector<std::string> ids;
  std::vector<SweepInquiry> due;
  SweepCounts counts;
  counts.settled = counts_.settled;
  for (const PreparedBranch& branch : *prepared) {
    const Result<TransactionId> id = ParseGid(participant_, branch.gid);
    if (!id.ok()) {
      ++counts.foreign;
      continue;
    }
    const std::string text = id->ToString();
    ids.push_back(text);
    if (table_->LooksAfter(text, kPatience)) continue;
    Sighting sighting{branch.xid, now, 0, SweepAnswer::Verdict::kPending};
    if (const auto before = sightings_.find(text);
        before != sightings_.end() && before->second.xid == branch.xid) {
      sighting = before->second;
    }
    // One of ours that nobody has decided for long counts among the table's own.
    if (!table_->LooksAfter(text, std::chrono::milliseconds::max())) ++counts.found;
    counts.expired += sighting.verdict == SweepAnswer::Verdict::kExpired;
    counts.not_mine += sighting.verdict == SweepAnswer::Verdict::kNotMine;
    counts.oldest = std::max(counts.oldest, branch.age);
    if (now - sighting.first_ms >= kPatience.count() && now >= sighting.not_before_ms) {
      due.push_back({text, id->coordinator, branch.xid});
    }
    seen.emplace(text, sighting);
  }
  sightings_ = std::move(seen);
  counts_ = counts;
  table_->Listed(ids, asked_ms, counts.found);
  return due;
}

void Sweep::AskAgain() {
  for (auto& [id, sighting] : sightings_) sighting.not_before_ms = 0;
}

void Sweep::Settle(std::span<const SweepAnswer> answers, std::chrono::milliseconds wait) {
  TROTH_FAILPOINT("sweep-answered");
  std::vector<FinishRequest> orders;
  for (const SweepAnswer& answer : answers) {
    const std::string& id = answer.inquiry.transaction_id;
    switch (answer.verdict) {
      case SweepAnswer::Verdict::kCommit:
        TROTH_MARK("sweep-commits");
        orders.push_back({id, true, answer.evidence, answer.inquiry.xid});
        break;
      case SweepAnswer::Verdict::kAbort:
        TROTH_MARK("sweep-rolls-back");
        orders.push_back({id, false, std::nullopt, answer.inquiry.xid});
        break;
      case SweepAnswer::Verdict::kPending: break;
      case SweepAnswer::Verdict::kExpired:
      case SweepAnswer::Verdict::kNotMine:
        TROTH_MARK("sweep-keeps-what-nobody-can-settle");
        if (const auto sighting = sightings_.find(id); sighting != sightings_.end()) {
          sighting->second.verdict = answer.verdict;
          sighting->second.not_before_ms = clock_->NowMs() + kHopeless.count();
        }
        break;
    }
  }
  if (orders.empty()) return;
  const std::vector<FinishResult> results = table_->Finish(orders, wait);
  for (std::size_t i = 0; i < results.size(); ++i) {
    if (results[i].kind == FinishResult::Kind::kWorking) continue;
    ++counts_.settled;
    sightings_.erase(orders[i].transaction_id);
  }
  TROTH_FAILPOINT("sweep-settled");
}

}  // namespace troth
