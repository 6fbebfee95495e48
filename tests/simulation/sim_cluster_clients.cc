// See sim_cluster.h. The clients of the simulated cluster, and the checker: its own record of
// what was promised, compared with what the databases hold. It reads no internals.
#include <algorithm>
#include <string>

#include "common/check.h"
#include "tests/simulation/sim_cluster_impl.h"

namespace troth::sim {
namespace {

constexpr Us kMs = 1'000;
constexpr Us kLeaseUs = 3'000 * kMs;

}  // namespace

void Cluster::StartClients() {
  clients_ = 4 + static_cast<int>(Below(40));
  if (Below(16) == 0) clients_ = 300;
  leases_.resize(static_cast<std::size_t>(clients_));
  for (int client = 0; client < clients_; ++client) {
    world_.In(static_cast<Us>(15 * kMs + Below(20 * kMs)), [this, client] { Begin(client); });
  }
}

// Takes an id out of the client's lease, asking for another lease when none is left that lasts.
void Cluster::Begin(int client) {
  if (begun_ >= options_.transactions) {
    ++clients_idle_;
    return;
  }
  // A commit with a participant that never enrolled is refused: no case for L3.
  if (Calm() && std::any_of(enrolled_.begin(), enrolled_.end(),
                            [](const auto& enrolled) { return enrolled.first == 0; })) {
    world_.In(10 * kMs, [this, client] { Begin(client); });
    return;
  }
  Lease& lease = leases_[static_cast<std::size_t>(client)];
  if (lease.next < lease.end && lease.until > world_.now_us() + 600 * kMs) {
    BeginTransaction(client);
    return;
  }
  const Us asked_at = world_.now_us();
  Ask(
      [this](ReplyToken token) {
        return LeaseAsked{token, static_cast<std::uint32_t>(1 + Below(20))};
      },
      [this, client, asked_at](const Action* reply) {
        const auto* granted = reply == nullptr ? nullptr : std::get_if<ReplyLease>(reply);
        if (granted == nullptr) {
          world_.In(static_cast<Us>(5 * kMs + Below(20 * kMs)), [this, client] { Begin(client); });
          return;
        }
        leases_[static_cast<std::size_t>(client)] = Lease{
            granted->epoch, granted->first, granted->first + granted->count, asked_at + kLeaseUs};
        Begin(client);
      });
}

void Cluster::BeginTransaction(int client) {
  Lease& lease = leases_[static_cast<std::size_t>(client)];
  if (begun_ > 0 && begun_ % 100 == 0) CheckSample();
  Tx& tx = transactions_.emplace_back();
  tx.id = TransactionId{coordinator_id_, {lease.epoch, lease.next++}};
  tx.text = tx.id.ToString();
  tx.key = "t" + std::to_string(begun_++);
  tx.wait_applied = Below(3) != 0;
  // Now and then one that lasts as long as its lease lets it.
  const Us lasts = Below(10) == 0 ? lease.until - world_.now_us()
                                  : static_cast<Us>(200 * kMs + Below(400 * kMs));
  tx.deadline = world_.now_us() + std::min<Us>(lasts, lease.until - world_.now_us());
  by_id_[tx.text] = &tx;
  const std::size_t most = std::min<std::size_t>(participants_.size(), 4);
  const std::size_t branches = 1 + Below(most);
  const std::size_t first = Below(participants_.size());
  for (std::size_t b = 0; b < branches; ++b) {
    ClientBranch branch;
    branch.participant = static_cast<int>((first + b) % participants_.size());
    branch.works = 1 + (Below(5) == 0 ? static_cast<int>(1 + Below(2)) : 0);
    branch.read_only = Below(12) == 0;
    branch.early = !branch.read_only && Below(4) == 0;
    branch.contended = !branch.read_only && Below(40) == 0;
    tx.branches.push_back(std::move(branch));
  }
  if (options_.trace) Say(0, "begin " + tx.id.local.ToString() + " at " + std::to_string(branches));
  tx.waiting_for = static_cast<int>(branches);
  for (std::size_t b = 0; b < branches; ++b) SendWork(client, &tx, b);
}

void Cluster::SendWork(int client, Tx* tx, std::size_t b) {
  ClientBranch& branch = tx->branches[b];
  const auto i = static_cast<std::size_t>(branch.participant);
  WorkAsk ask;
  ask.id = tx->text;
  ask.work = branch.done;
  ask.mark = branch.mark;
  ask.read_only = branch.read_only;
  ask.last = branch.early && branch.done + 1 == branch.works;
  ask.key = tx->key;
  ask.contended = branch.contended;
  // Relative, and of the moment of sending: a message that comes late does not know it.
  ask.left_ms = (tx->deadline - world_.now_us()) / kMs;
  auto serve = [this, ask, i] { return participants_[i]->Work(ask); };
  if (ask.work == 0 && (ask.last || branch.contended)) {
    late_work_[i].push_back(ask);
    if (late_work_[i].size() > 8) late_work_[i].pop_front();
  }
  auto lost = [this, client, tx, b] {
    world_.In(40 * kMs, [this, client, tx, b] { WorkEnded(client, tx, b, WorkSaid{}); });
  };
  if (On(kDuplicates) && Chance(duplicate_ / 2 + 5)) {
    Count(kDuplicates);
    // Some come when their transaction has long ended.
    const Us late = static_cast<Us>(Below(Below(4) == 0 ? 3'000 * kMs : 100 * kMs));
    world_.In(late, [this, serve, i] {
      if (participants_[i]->alive()) serve();
    });
  }
  if (On(kLostMessages) && Chance(10)) {
    Count(kLostMessages);
    lost();
    return;
  }
  world_.In(Latency(), [this, serve, lost, client, tx, b, i] {
    if (!participants_[i]->alive()) {
      lost();
      return;
    }
    const WorkSaid said = serve();
    tx->branches[b].instance = participants_[i]->instance();
    tx->branches[b].vote_epoch = secret_of_[i];
    if (On(kLostMessages) && Chance(10)) {
      Count(kLostMessages);
      lost();
      return;
    }
    world_.In(Latency(), [this, client, tx, b, said] { WorkEnded(client, tx, b, said); });
  });
}

void Cluster::WorkEnded(int client, Tx* tx, std::size_t b, const WorkSaid& said) {
  ClientBranch& branch = tx->branches[b];
  if (!said.ok) {
    tx->failed = true;
    tx->met_lock |= branch.contended && static_cast<Reason>(said.reason) == Reason::kConflict;
  } else {
    branch.mark = said.mark;
    branch.done = said.works;
    branch.vote = said.vote;
    if (branch.done < branch.works && !tx->failed) {
      SendWork(client, tx, b);
      return;
    }
  }
  if (--tx->waiting_for == 0) WorkDone(client, tx);
}

void Cluster::WorkDone(int client, Tx* tx) {
  if (On(kClientsVanish) && Chance(100)) {
    Count(kClientsVanish);
    Say(0, tx->id.local.ToString() + " its client vanishes");
    Over(client, tx);
  } else if (tx->failed || (On(kClientsAbort) && Chance(200))) {
    AskAbort(client, tx);
  } else {
    AskCommit(client, tx);
  }
}

CommitAsked Cluster::CommitOf(const Tx& tx) const {
  CommitAsked e;
  e.id = tx.id;
  for (const ClientBranch& b : tx.branches) {
    BranchClaim claim;
    claim.participant = participants_[static_cast<std::size_t>(b.participant)]->name();
    claim.mark = b.mark;
    claim.instance = b.instance;
    claim.works = static_cast<std::uint32_t>(b.works);
    claim.read_only = b.read_only;
    if (b.vote.has_value() && b.vote_epoch.number != 0) {
      claim.carries_vote = true;
      claim.authentic = b.vote_epoch == coordinator_->epoch();
      claim.vote.ballot = static_cast<Ballot>(b.vote->ballot);
      claim.vote.works = static_cast<std::uint32_t>(b.vote->works);
      const Participant& p = *participants_[static_cast<std::size_t>(b.participant)];
      claim.vote.database = DatabaseId{std::stoull(p.database_identifier()), p.database_oid()};
      claim.vote.xid = b.vote->xid;
      claim.vote.timeline = b.vote->timeline;
      claim.vote.position = b.vote->position;
    }
    e.branches.push_back(std::move(claim));
  }
  e.wait_applied = tx.wait_applied;
  return e;
}

void Cluster::AskCommit(int client, Tx* tx) {
  ++tx->asked;
  const bool vanish = On(kClientsVanish) && Chance(50);
  if (vanish) Count(kClientsVanish);
  Ask(
      [this, tx](ReplyToken token) {
        CommitAsked e = CommitOf(*tx);
        e.token = token;
        e.deadline = RunningIn(tx->deadline - world_.now_us());
        return e;
      },
      [this, client, tx, vanish](const Action* reply) {
        if (vanish) return;
        if (reply == nullptr) {
          Unknown(client, tx);
          return;
        }
        if (const auto* refused = std::get_if<ReplyRefused>(reply)) {
          // Nothing was done: the id is unheard, or not this coordinator's.
          if (refused->refusal.reason == Reason::kOtherParticipants) {
            Violation("a commit of " + tx->text + " was refused for another list");
          }
          AskAbort(client, tx);
          return;
        }
        const auto& outcome = std::get<ReplyOutcome>(*reply);
        if (outcome.kind == OutcomeKind::kPending) {
          Unknown(client, tx);
        } else {
          Over(client, tx);
        }
      });
  if (vanish) Over(client, tx);
  // Another thread of the application loses patience while the commit is under way.
  if (On(kClientsAbort) && Chance(50)) {
    Count(kClientsAbort);
    world_.In(static_cast<Us>(Below(2 * kMs)), [this, tx] {
      Ask(
          [tx, this](ReplyToken token) {
            return AbortAsked{token, tx->id, CommitOf(*tx).branches, ""};
          },
          [](const Action*) {});
    });
  }
}

void Cluster::AskAbort(int client, Tx* tx) {
  if (On(kClientsVanish) && Chance(500)) {
    Over(client, tx);
    return;
  }
  Ask(
      [tx, this](ReplyToken token) {
        AbortAsked e{token, tx->id, CommitOf(*tx).branches, ""};
        return e;
      },
      [this, client, tx](const Action*) { Over(client, tx); });
}

// No answer: asked again, aborted, or asked for its outcome; in the end left alone.
void Cluster::Unknown(int client, Tx* tx) {
  if (tx->asked > 4) {
    Over(client, tx);
    return;
  }
  world_.In(static_cast<Us>(Below(30 * kMs)), [this, client, tx] {
    switch (Below(4)) {
      case 0:
        ++tx->asked;
        AskAbort(client, tx);
        break;
      case 1:
        ++tx->asked;
        Ask(
            [tx, this](ReplyToken token) {
              return OutcomeAsked{token, tx->id, coordinator_->Now() + 50};
            },
            [this, client, tx](const Action* reply) {
              const auto* outcome = reply == nullptr ? nullptr : std::get_if<ReplyOutcome>(reply);
              if (outcome == nullptr || outcome->kind == OutcomeKind::kPending) {
                Unknown(client, tx);
              } else {
                Over(client, tx);
              }
            });
        break;
      default: AskCommit(client, tx);
    }
  });
}

void Cluster::Over(int client, Tx* tx) {
  if (tx->over) return;
  tx->over = true;
  world_.In(static_cast<Us>(Below(8 * kMs)), [this, client] { Begin(client); });
}

// ------------------------------------------------------------------------------ checker

void Cluster::Told(const ReplyOutcome& reply) {
  const auto known = by_id_.find(reply.id.ToString());
  if (known == by_id_.end()) return;
  Tx& tx = *known->second;
  switch (reply.kind) {
    case OutcomeKind::kCommitted: tx.told_committed = true; break;
    case OutcomeKind::kAborted: tx.told_aborted = true; break;
    case OutcomeKind::kReadOnly: tx.told_read_only = true; break;
    case OutcomeKind::kPending: return;
    case OutcomeKind::kExpired:
      Violation("L9a: " + tx.text + " expired within its retention");
      return;
  }
  if (tx.told_committed && (tx.told_aborted || tx.told_read_only)) {
    Violation("L10: " + tx.text + " was told committed and something else");
  }
  for (const ClientBranch& branch : tx.branches) {
    if (branch.read_only || branch.lost) continue;
    const std::string& name = p(branch.participant).name();
    const bool applied = p(branch.participant).Row(tx.key).has_value();
    if (!tx.told_committed && applied) {
      Violation("L10: " + tx.text + " was told not committed, and " + name + " holds its row");
    }
    if (reply.kind == OutcomeKind::kCommitted && !applied && !branch.unfinished &&
        std::find(reply.unapplied.begin(), reply.unapplied.end(), name) == reply.unapplied.end()) {
      Violation("L10: " + tx.text + " was told applied at " + name + ", where it is not");
    }
  }
}

// A branch was just committed: every other one is prepared, or committed already; and whole.
void Cluster::CheckApplied(int i, const std::string& id) {
  const auto known = by_id_.find(id);
  if (known == by_id_.end()) {
    Violation("a branch of the unknown transaction " + id + " was committed");
    return;
  }
  Tx& tx = *known->second;
  tx.applied_somewhere = true;
  if (tx.told_aborted)
    Violation("L10: " + id + " was told aborted, and is applied at p" + std::to_string(i));
  if (tx.asked == 0) Violation("nobody asked to commit " + id + ", and it is applied");
  for (const ClientBranch& branch : tx.branches) {
    if (branch.read_only || branch.lost) continue;
    Participant& other = p(branch.participant);
    const std::optional<std::int64_t> row = other.Row(tx.key);
    if (row.has_value() && *row != branch.works) {
      Violation("half a branch of " + id + " was committed at " + other.name());
    }
    if (!row.has_value() && !other.IsPrepared(MakeGid(other.name(), tx.id))) {
      Violation("L1: " + id + " is applied at p" + std::to_string(i) + " and lost at " +
                other.name());
    }
  }
}

// Everything, in the midst of it: what was promised stands, and nothing is half lost.
void Cluster::CheckSample() {
  for (const Tx& tx : transactions_) {
    bool applied = false, gone = false;
    for (const ClientBranch& branch : tx.branches) {
      if (branch.read_only || branch.lost) continue;
      Participant& holder = p(branch.participant);
      const bool here = holder.Row(tx.key).has_value();
      applied |= here;
      gone |= !here && !holder.IsPrepared(MakeGid(holder.name(), tx.id));
    }
    if (applied && gone) Violation("L1: " + tx.text + " is applied here and lost there");
    if (applied && tx.told_aborted) Violation("L10: " + tx.text + " was told aborted and is not");
    if (gone && tx.told_committed) Violation("L10: " + tx.text + " was told committed and is lost");
  }
}

// Where nothing fails, work is refused for another's lock only, and what no lock stopped is asked
// to commit long before its deadline.
void Cluster::CheckCommitted(const Tx& tx) {
  if (tx.met_lock) return;
  const bool reads = std::all_of(tx.branches.begin(), tx.branches.end(),
                                 [](const ClientBranch& b) { return b.read_only; });
  if (reads ? tx.told_read_only : tx.told_committed) return;
  Violation("L3: nothing failed, and " + tx.text + " was not told " +
            (reads ? "read-only" : "committed"));
}

void Cluster::CheckEnd() {
  std::uint64_t applied_in_all = 0;
  std::vector<std::uint64_t> to_report(participants_.size());
  for (const Tx& tx : transactions_) {
    int applied = 0, writes = 0;
    for (const ClientBranch& branch : tx.branches) {
      if (branch.read_only || branch.lost) continue;
      ++writes;
      const std::optional<std::int64_t> row = p(branch.participant).Row(tx.key);
      if (!row.has_value()) continue;
      ++applied;
      if (*row != branch.works) Violation("half a branch of " + tx.text + " stands");
    }
    if (applied != 0 && applied != writes) {
      Violation("L1: " + tx.text + " is applied at " + std::to_string(applied) + " of " +
                std::to_string(writes));
    }
    if (tx.told_committed && applied == 0 && writes > 0)
      Violation("L10: " + tx.text + " was told committed and is not");
    for (const ClientBranch& branch : tx.branches) {
      const bool committed = tx.told_committed || applied > 0;
      if (!branch.lost_prepared || !committed) continue;
      if (p(branch.participant).Row(tx.key).has_value()) continue;
      ++to_report[static_cast<std::size_t>(branch.participant)];
    }
    if (tx.told_aborted && applied > 0)
      Violation("L10: " + tx.text + " was told aborted and is not");
    if (applied > 0 && tx.asked == 0) {
      Violation("nobody asked to commit " + tx.text + ", and it is applied");
    }
    if (Calm()) CheckCommitted(tx);
    applied_in_all += applied > 0 || tx.told_read_only ? 1 : 0;
  }
  report_.committed = applied_in_all;
  for (std::size_t i = 0; i < participants_.size(); ++i) {
    const auto& participant = participants_[i];
    const std::uint64_t reported = participant->heuristics() + participant->hazards();
    if (reported > 0 && !lost_something_[i]) {
      Violation("L13: " + participant->name() + " saw a heuristic end or a hazard");
    }
    if (reported < to_report[i]) {
      Violation("L13: " + participant->name() + " lost " + std::to_string(to_report[i]) +
                " prepared branches in a failover and reported " + std::to_string(reported));
    }
    if (participant->expired_or_not_mine() > 0 &&
        wal_options_.retention.record_ms > kLeaseUs / kMs) {
      Violation("L9b: " + participant->name() + " keeps a branch that is expired or not mine");
    }
  }
}

}  // namespace troth::sim
