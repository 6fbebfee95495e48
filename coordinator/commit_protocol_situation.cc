// See commit_protocol.h. Copies of the machine, and its situation as bytes: what the exhaustive
// search (tests/simulation/explore*) needs. Nothing else uses it.
#include <algorithm>

#include "common/check.h"
#include "coordinator/commit_protocol.h"

namespace troth {
namespace {

RecoveredState CopyOf(const RecoveredState& state) {
  RecoveredState copy;
  state.ForEachCheckpointRecord(
      [&](const LogRecord& record) { TROTH_CHECK(copy.Apply(record, state.running_ms()).ok()); });
  return copy;
}

void Put(std::int64_t number, std::string* out) {
  const auto n = static_cast<std::uint64_t>(number);
  for (std::uint64_t rest = n;; rest >>= 7) {
    out->push_back(static_cast<char>(rest < 128 ? rest : (rest & 127) | 128));
    if (rest < 128) return;
  }
}

void Put(std::string_view text, std::string* out) {
  Put(static_cast<std::int64_t>(text.size()), out);
  out->append(text);
}

void Put(const LocalId& id, std::string* out) {
  Put(id.epoch.number, out);
  Put(static_cast<std::int64_t>(id.sequence), out);
}

}  // namespace

CommitProtocol::CommitProtocol(const CommitProtocol& other)
    : options_(other.options_),
      state_(CopyOf(other.state_)),
      last_batch_(other.last_batch_),
      epoch_(other.epoch_),
      registry_(other.registry_),
      leases_(other.leases_),
      transactions_(other.transactions_),
      undecided_(other.undecided_),
      keys_in_flight_(other.keys_in_flight_),
      keys_closing_(other.keys_closing_),
      undurable_(other.undurable_),
      appended_(other.appended_),
      durable_batch_(other.durable_batch_),
      reserve_asked_(other.reserve_asked_),
      waiting_leases_(other.waiting_leases_),
      timers_(other.timers_),
      now_(other.now_),
      started_at_(other.started_at_),
      retained_at_(other.retained_at_),
      unix_ms_(other.unix_ms_),
      started_(other.started_),
      serving_(other.serving_),
      draining_(other.draining_),
      log_room_(other.log_room_),
      counters_(other.counters_) {
  TROTH_CHECK(other.out_ == nullptr);
}

std::unique_ptr<CommitProtocol> CommitProtocol::Clone() const {
  return std::unique_ptr<CommitProtocol>(new CommitProtocol(*this));
}

void CommitProtocol::AppendSituation(std::string* out) const {
  Put(epoch_.number, out);
  Put((serving_ ? 1 : 0) + (draining_ ? 2 : 0) + (log_room_ ? 4 : 0), out);
  Put(std::min(now_ - started_at_, options_.hear_ms), out);
  std::vector<LocalId> ids;
  for (const auto& [id, tx] : transactions_) ids.push_back(id);
  std::sort(ids.begin(), ids.end());
  for (const LocalId& id : ids) {
    const Transaction& tx = transactions_.at(id);
    Put(id, out);
    Put(static_cast<int>(tx.state), out);
    Put(tx.list, out);
    Put(tx.state == State::kPreparing ? tx.deadline - now_ : 0, out);
    for (const Branch& branch : tx.branches) {
      Put(branch.evidence.participant, out);
      Put(static_cast<std::int64_t>(branch.evidence.xid), out);
      Put(static_cast<int>(branch.state) * 4 + (branch.otherwise ? 2 : 0) +
              (branch.read_only ? 1 : 0),
          out);
      Put(branch.retry_ms, out);
    }
    for (const Waiter& waiter : tx.waiters) {
      Put(static_cast<std::int64_t>(waiter.token), out);
      Put(waiter.kind, out);
      Put(std::max<RunningMs>(waiter.until - now_, 0), out);
    }
    Put(tx.key, out);
  }
  for (const auto& [when, timers] : timers_) {
    for (const Timer& timer : timers) {
      const auto tx = transactions_.find(timer.id);
      if (tx == transactions_.end()) continue;
      Put(when - now_, out);
      Put(timer.kind, out);
      Put(timer.id, out);
      Put(timer.participant, out);
    }
  }
  for (const Undurable& u : undurable_) {
    Put(troth::DebugString(u.record), out);
    Put(static_cast<std::int64_t>(u.token), out);
  }
  leases_.AppendSituation(now_, out);
  Put(static_cast<std::int64_t>(reserve_asked_), out);
  for (const WaitingLease& waiting : waiting_leases_) {
    Put(static_cast<std::int64_t>(waiting.token), out);
    Put(waiting.count, out);
  }
  for (ParticipantIndex i = 0; i < registry_.size(); ++i) {
    const Registry::Participant& p = registry_.at(i);
    Put((p.durable ? 1 : 0) + (p.up ? 2 : 0) + (p.heard ? 4 : 0) + (p.leaving ? 8 : 0) +
            (p.record.forgotten ? 16 : 0) + (p.record.open ? 32 : 0) +
            (p.contradiction.empty() ? 0 : 64),
        out);
    Put(static_cast<std::int64_t>(p.unacknowledged), out);
  }
}

void LeaseBook::AppendSituation(std::int64_t now_ms, std::string* out) const {
  Put(static_cast<std::int64_t>(next_), out);
  Put(static_cast<std::int64_t>(reserved_), out);
  for (const Lease& lease : leases_) {
    Put(static_cast<std::int64_t>(lease.first), out);
    Put(lease.end_ms - now_ms, out);
    for (std::size_t i = 0; i < lease.marks.size(); ++i) {
      Put(lease.marks[i], out);
      Put(lease.lists[i], out);
    }
  }
}

}  // namespace troth
