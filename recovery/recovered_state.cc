// See recovered_state.h. The pieces: WholeRecords (records kept whole), CommittedSet (bits),
// and small maps for what is rare.
#include "recovery/recovered_state.h"

#include <algorithm>
#include <deque>
#include <unordered_map>

#include "common/check.h"
#include "recovery/committed_set.h"
#include "recovery/whole_records.h"

namespace troth {
namespace {

// Time marks kept per outcome retention: the line lags behind it by that fraction at most.
constexpr std::int64_t kTimeMarks = 128;
// Work of one Retain.
constexpr int kRetainSteps = 4096;

Status Contradiction(std::string what) { return Status(Code::kCorrupt, std::move(what)); }

struct HashText {
  using is_transparent = void;
  std::size_t operator()(std::string_view text) const {
    return std::hash<std::string_view>()(text);
  }
};

CommitRecord DecodeCommit(std::string_view bytes) {
  Result<LogRecord> record = DecodeRecord(&bytes);
  TROTH_CHECK(record.ok());
  return std::get<CommitRecord>(*std::move(record));
}

}  // namespace

struct RecoveredState::Rep {
  struct Key {
    bool closed = false;
    LocalId id;
    std::int64_t at_ms = 0;
  };
  using Keys = std::unordered_map<std::string, Key, HashText, std::equal_to<>>;

  Status Apply(const CommitRecord& record);
  Status Apply(const EndRecord& record);
  Status Apply(const EpochRecord& record);
  Status Apply(const ReserveRecord& record);
  Status Apply(const ParticipantRecord& record);
  Status Apply(const HeuristicRecord& record);
  Status Apply(const KeyRecord& record);
  Status Apply(const GapRecord& record);
  Status Apply(const OutcomesRecord& record);
  Status Apply(const TimeMarkRecord& record);
  Status Apply(const LineRecord& record);
  Status Apply(const DecidedAtRecord& record);

  const EpochInfo* FindEpoch(const Epoch& epoch) const;
  Status CheckKey(const CommitRecord& record) const;
  void TakeKey(const std::string& key, const Key& value);
  void Mark(std::int64_t now_ms, const LocalId& lease_line, const Retention& retention);
  bool DropKey(std::int64_t outcome_ms);

  std::int64_t now_ms = 0;  // newest running time seen
  WholeRecords whole;
  CommittedSet committed;
  std::vector<EpochInfo> epochs;
  std::vector<GapRecord> gaps;
  LocalId line;
  std::deque<TimeMarkRecord> marks;  // ascending in time and id
  Keys keys;
  std::deque<const std::string*> key_order;  // oldest first; the strings are of `keys`
  std::vector<ParticipantRecord> participants;
  std::vector<HeuristicRecord> heuristics;
  std::unordered_multimap<LocalId, std::size_t> heuristics_of;
  mutable CommitRecord found;   // what FindCommit returns
  mutable std::string scratch;  // encoded bytes
};

const RecoveredState::EpochInfo* RecoveredState::Rep::FindEpoch(const Epoch& epoch) const {
  if (!epochs.empty() && epochs.back().epoch == epoch) return &epochs.back();
  const auto it = std::lower_bound(
      epochs.begin(), epochs.end(), epoch,
      [](const EpochInfo& info, const Epoch& wanted) { return info.epoch < wanted; });
  return it != epochs.end() && it->epoch == epoch ? &*it : nullptr;
}

Status RecoveredState::Rep::Apply(const CommitRecord& record) {
  const EpochInfo* epoch = FindEpoch(record.id.epoch);
  if (epoch == nullptr || record.id.sequence >= epoch->reserve_end) {
    return Contradiction("commit of " + record.id.ToString() + ", an id this log never reserved");
  }
  scratch.clear();
  EncodeRecord(record, &scratch);
  if (!record.key.empty()) TROTH_RETURN_IF_ERROR(CheckKey(record));
  // Whatever is whole and above the line has its bit.
  if (record.id < line || !committed.Add(record.id)) {
    WholeRecords::Entry entry;
    if (!whole.Find(record.id, &entry)) {
      return Contradiction("commit of " + record.id.ToString() + ", whose record was dropped");
    }
    return entry.bytes == scratch
               ? OkStatus()
               : Contradiction("two different commit records of " + record.id.ToString());
  }
  if (!record.key.empty()) TakeKey(record.key, Key{false, record.id, now_ms});
  whole.Add(record.id, now_ms, scratch);
  return OkStatus();
}

// A key whose retention passed is free again, which only the machine can tell: here, what it
// let in later counts, unless the holder is plainly alive.
Status RecoveredState::Rep::CheckKey(const CommitRecord& record) const {
  WholeRecords::Entry holder;
  const auto key = keys.find(std::string_view(record.key));
  if (key == keys.end() || key->second.id == record.id || !whole.Find(key->second.id, &holder) ||
      holder.ended) {
    return OkStatus();
  }
  return Contradiction("commit of " + record.id.ToString() + " under the key '" + record.key +
                       "' of " + key->second.id.ToString());
}

Status RecoveredState::Rep::Apply(const EndRecord& record) {
  if (whole.SetEnded(record.id) || record.id < line || committed.Contains(record.id)) {
    return OkStatus();
  }
  return Contradiction("end of " + record.id.ToString() + ", which was never committed");
}

Status RecoveredState::Rep::Apply(const EpochRecord& record) {
  const EpochInfo* known = FindEpoch(record.epoch);
  if (known != nullptr) {
    return known->previous_end == record.previous_end
               ? OkStatus()
               : Contradiction("epoch " + record.epoch.ToString() + " began twice");
  }
  if (record.epoch.number == 0 ||
      (!epochs.empty() && record.epoch.number <= epochs.back().epoch.number)) {
    return Contradiction("epoch " + record.epoch.ToString() + " began out of order");
  }
  epochs.push_back(EpochInfo{record.epoch, 0, record.previous_end});
  return OkStatus();
}

Status RecoveredState::Rep::Apply(const ReserveRecord& record) {
  const EpochInfo* known = FindEpoch(record.epoch);
  if (known == nullptr) {
    return Contradiction("reserve of epoch " + record.epoch.ToString() + ", which never began");
  }
  EpochInfo& info = epochs[static_cast<std::size_t>(known - epochs.data())];
  info.reserve_end = std::max(info.reserve_end, record.end);
  return OkStatus();
}

Status RecoveredState::Rep::Apply(const ParticipantRecord& record) {
  if (record.index > participants.size()) {
    return Contradiction("participant " + std::to_string(record.index) + " without the one before");
  }
  if (record.index == participants.size()) {
    participants.push_back(record);
    return OkStatus();
  }
  ParticipantRecord& known = participants[record.index];
  if (known.name != record.name) {
    return Contradiction("participant " + std::to_string(record.index) + " is both '" + known.name +
                         "' and '" + record.name + "'");
  }
  known = record;
  return OkStatus();
}

Status RecoveredState::Rep::Apply(const HeuristicRecord& record) {
  const auto [first, last] = heuristics_of.equal_range(record.id);
  for (auto it = first; it != last; ++it) {
    if (heuristics[it->second] == record) return OkStatus();
  }
  heuristics_of.emplace(record.id, heuristics.size());
  heuristics.push_back(record);
  return OkStatus();
}

// The last one counts; repeating it keeps its time.
void RecoveredState::Rep::TakeKey(const std::string& key, const Key& value) {
  const auto [it, added] = keys.emplace(key, value);
  if (added) {
    key_order.push_back(&it->first);
  } else if (it->second.closed != value.closed || it->second.id != value.id) {
    it->second = value;
  }
}

Status RecoveredState::Rep::Apply(const KeyRecord& record) {
  if (record.closed != (record.id == LocalId())) {
    return Contradiction("the key '" + record.key + "' is both closed and taken, or neither");
  }
  TakeKey(record.key, Key{record.closed, record.id, record.at_ms > 0 ? record.at_ms : now_ms});
  return OkStatus();
}

Status RecoveredState::Rep::Apply(const GapRecord& record) {
  if (record.first > record.last)
    return Contradiction("a gap of epochs that ends before it begins");
  if (std::find(gaps.begin(), gaps.end(), record) == gaps.end()) gaps.push_back(record);
  return OkStatus();
}

Status RecoveredState::Rep::Apply(const OutcomesRecord& record) {
  if (FindEpoch(record.epoch) == nullptr) {
    return Contradiction("outcomes of epoch " + record.epoch.ToString() + ", which never began");
  }
  return committed.Load(record);
}

Status RecoveredState::Rep::Apply(const TimeMarkRecord& record) {
  if (marks.empty() || (record.at_ms >= marks.back().at_ms && record.id >= marks.back().id)) {
    if (marks.empty() || record != marks.back()) marks.push_back(record);
    return OkStatus();
  }
  if (std::find(marks.begin(), marks.end(), record) != marks.end()) return OkStatus();
  return Contradiction("time marks out of order at " + record.id.ToString());
}

Status RecoveredState::Rep::Apply(const LineRecord& record) {
  if (record.id <= line) return OkStatus();
  line = record.id;
  committed.DropBelow(line);
  return OkStatus();
}

Status RecoveredState::Rep::Apply(const DecidedAtRecord& record) {
  if (whole.SetDecidedAt(record.id, record.at_ms)) return OkStatus();
  return Contradiction("time of decision of " + record.id.ToString() + " without its record");
}

// A new time mark now and then; the newest that is old enough becomes the line.
void RecoveredState::Rep::Mark(std::int64_t now, const LocalId& lease_line,
                               const Retention& retention) {
  const std::int64_t interval = std::max<std::int64_t>(1, retention.outcome_ms / kTimeMarks);
  const LocalId& newest = marks.empty() ? line : marks.back().id;
  if (lease_line > newest && (marks.empty() || now - marks.back().at_ms >= interval)) {
    marks.push_back(TimeMarkRecord{now, lease_line});
  }
  bool moved = false;
  while (!marks.empty() && marks.front().at_ms + retention.outcome_ms <= now) {
    if (marks.front().id > line) {
      line = marks.front().id;
      moved = true;
    }
    marks.pop_front();
  }
  if (moved) committed.DropBelow(line);
}

// Drops the oldest key when its time has come. A key is kept while its record is whole.
bool RecoveredState::Rep::DropKey(std::int64_t outcome_ms) {
  if (key_order.empty()) return false;
  const auto it = keys.find(std::string_view(*key_order.front()));
  const Key& key = it->second;
  if (key.at_ms + outcome_ms > now_ms || (!key.closed && key.id >= line)) return false;
  key_order.pop_front();
  WholeRecords::Entry entry;
  if (!key.closed && whole.Find(key.id, &entry)) {
    key_order.push_back(&it->first);  // looked at again when all others were
    return false;
  }
  keys.erase(it);
  return true;
}

RecoveredState::RecoveredState() : rep_(std::make_unique<Rep>()) {}
RecoveredState::RecoveredState(RecoveredState&&) noexcept = default;
RecoveredState& RecoveredState::operator=(RecoveredState&&) noexcept = default;
RecoveredState::~RecoveredState() = default;

Status RecoveredState::Apply(const LogRecord& record, std::int64_t running_ms) {
  rep_->now_ms = std::max(rep_->now_ms, running_ms);
  return std::visit([this](const auto& r) { return rep_->Apply(r); }, record);
}

const CommitRecord* RecoveredState::FindCommit(const LocalId& id) const {
  WholeRecords::Entry entry;
  if (!rep_->whole.Find(id, &entry)) return nullptr;
  rep_->found = DecodeCommit(entry.bytes);
  return &rep_->found;
}

bool RecoveredState::Ended(const LocalId& id) const {
  WholeRecords::Entry entry;
  return rep_->whole.Find(id, &entry) && entry.ended;
}

bool RecoveredState::Committed(const LocalId& id) const {
  WholeRecords::Entry entry;  // a whole record may lie below the line, where no bit is kept
  return rep_->committed.Contains(id) || rep_->whole.Find(id, &entry);
}

void RecoveredState::ForEachUnended(const std::function<void(const CommitRecord&)>& fn) const {
  rep_->whole.ForEach([&fn](const WholeRecords::Entry& entry) {
    if (!entry.ended) fn(DecodeCommit(entry.bytes));
  });
}

std::size_t RecoveredState::unended() const { return rep_->whole.size() - rep_->whole.ended(); }
std::size_t RecoveredState::whole() const { return rep_->whole.size(); }
std::uint64_t RecoveredState::whole_bytes() const { return rep_->whole.bytes(); }

const std::vector<RecoveredState::EpochInfo>& RecoveredState::epochs() const {
  return rep_->epochs;
}

const RecoveredState::EpochInfo* RecoveredState::FindEpoch(const Epoch& epoch) const {
  return rep_->FindEpoch(epoch);
}

const std::vector<GapRecord>& RecoveredState::gaps() const { return rep_->gaps; }
const LocalId& RecoveredState::line() const { return rep_->line; }

std::optional<RecoveredState::KeyState> RecoveredState::FindKey(std::string_view key) const {
  const auto it = rep_->keys.find(key);
  if (it == rep_->keys.end()) return std::nullopt;
  return KeyState{it->second.closed, it->second.id};
}

const std::vector<ParticipantRecord>& RecoveredState::participants() const {
  return rep_->participants;
}

const std::vector<HeuristicRecord>& RecoveredState::heuristics() const { return rep_->heuristics; }

std::vector<HeuristicRecord> RecoveredState::HeuristicsOf(const LocalId& id) const {
  std::vector<HeuristicRecord> of;
  const auto [first, last] = rep_->heuristics_of.equal_range(id);
  for (auto it = first; it != last; ++it) of.push_back(rep_->heuristics[it->second]);
  return of;
}

bool RecoveredState::Retain(std::int64_t running_ms, const LocalId& lease_line,
                            const Retention& retention) {
  rep_->now_ms = std::max(rep_->now_ms, running_ms);
  const std::int64_t now = rep_->now_ms;
  rep_->Mark(now, lease_line, retention);
  const auto may_drop = [&](const LocalId& id, std::int64_t decided_ms, bool over) {
    // A commit falls within its lease, so the lease is over one lease length later at most.
    const bool lease_over = id < lease_line || decided_ms + retention.lease_ms <= now;
    return lease_over && (over || decided_ms + retention.record_ms <= now);
  };
  int steps = kRetainSteps;
  while (steps > 0 && rep_->whole.DropOne(may_drop, retention.record_bytes)) --steps;
  while (steps > 0 && rep_->DropKey(retention.outcome_ms)) --steps;
  return steps == 0;
}

// The order matters to Apply: commits before the line they may lie below; keys before the
// commits that bear them (their times count), and once more those that passed to another.
void RecoveredState::ForEachCheckpointRecord(
    const std::function<void(const LogRecord&)>& fn) const {
  for (const EpochInfo& info : rep_->epochs) {
    fn(EpochRecord{info.epoch, info.previous_end});
    if (info.reserve_end > 0) fn(ReserveRecord{info.epoch, info.reserve_end});
  }
  for (const GapRecord& gap : rep_->gaps) fn(gap);
  for (const ParticipantRecord& participant : rep_->participants) fn(participant);
  for (const HeuristicRecord& heuristic : rep_->heuristics) fn(heuristic);
  const auto emit_key = [&](const std::string& text) {
    const Rep::Key& key = rep_->keys.find(std::string_view(text))->second;
    fn(KeyRecord{text, key.closed, key.id, key.at_ms});
  };
  for (const std::string* text : rep_->key_order) emit_key(*text);
  std::vector<std::string> passed_on;
  rep_->whole.ForEach([&](const WholeRecords::Entry& entry) {
    CommitRecord commit = DecodeCommit(entry.bytes);
    if (!commit.key.empty()) {
      const std::optional<KeyState> holder = FindKey(commit.key);
      if (holder && holder->id != commit.id) passed_on.push_back(commit.key);
    }
    fn(std::move(commit));
    fn(DecidedAtRecord{entry.id, entry.decided_ms});
    if (entry.ended) fn(EndRecord{entry.id});
  });
  for (const std::string& text : passed_on) emit_key(text);
  rep_->committed.ForEachRecord([&fn](const OutcomesRecord& outcomes) { fn(outcomes); });
  if (rep_->line != LocalId()) fn(LineRecord{rep_->line});
  for (const TimeMarkRecord& mark : rep_->marks) fn(mark);
}

std::int64_t RecoveredState::running_ms() const { return rep_->now_ms; }

}  // namespace troth
