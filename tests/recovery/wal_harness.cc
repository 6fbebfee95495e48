// See wal_harness.h.
#include "tests/recovery/wal_harness.h"

#include "common/check.h"

namespace troth {

std::string TextOf(const RecoveredState& state) {
  std::string text;
  state.ForEachCheckpointRecord([&text](const LogRecord& record) {
    text += DebugString(record);
    // What DebugString abbreviates.
    if (const auto* outcomes = std::get_if<OutcomesRecord>(&record)) {
      text += " " + std::to_string(std::hash<std::string>()(outcomes->bitmap));
    }
    text += "\n";
  });
  return text;
}

LocalId TestId(std::uint64_t sequence) { return LocalId{kTestEpoch, sequence}; }

CommitRecord TestCommit(std::uint64_t sequence, int branches, std::string key) {
  CommitRecord commit;
  commit.id = TestId(sequence);
  for (int i = 0; i < branches; ++i) {
    BranchRecord branch;
    branch.participant = static_cast<ParticipantIndex>(i);
    branch.database = DatabaseId{7301234567890123456u + static_cast<std::uint64_t>(i), 16384};
    branch.xid = 700 + sequence;
    branch.timeline = 1;
    branch.position = 0x16b3748 + sequence * 64;
    commit.branches.push_back(branch);
  }
  commit.key = std::move(key);
  return commit;
}

std::vector<LogRecord> Prologue() {
  return {EpochRecord{kTestEpoch, 0}, ReserveRecord{kTestEpoch, 1'000'000}};
}

std::vector<LogRecord> OneOfEach() {
  ParticipantRecord participant;
  participant.name = "bank-a";
  participant.database = DatabaseId{7301234567890123456u, 16384};
  participant.database_address = "10.0.0.1:5432";
  participant.certificate = "CN=bank-a";
  participant.peer_host = "10.0.0.2";
  participant.peer_port = 7002;
  participant.discarded = SeenPosition{Epoch{9, 99}, 12345};
  HeuristicRecord heuristic{TestId(3), 0, true, "committed behind our back", 1'700'000'000'000};
  std::vector<LogRecord> records = Prologue();
  records.insert(
      records.end(),
      {participant, TestCommit(3), TestCommit(4, 1, "order-17"), EndRecord{TestId(3)}, heuristic,
       KeyRecord{"order-18", true, LocalId(), 0}, GapRecord{5, 7, "restored on Monday"}});
  return records;
}

WalHarness::WalHarness(std::uint64_t seed) : fs_(seed) {
  options_.segment_bytes = 64u << 10;
  options_.random = [this, seed] { return (seed << 32) + ++next_random_; };
  options_.retention.record_ms = 1'000'000'000;
  options_.retention.record_bytes = 1u << 30;
}

const std::string& WalHarness::directory() {
  static const std::string directory = "/log";
  return directory;
}

Status WalHarness::Init() { return Wal::Init(&fs_, directory(), "bank", options_).status(); }

Status WalHarness::Open() {
  wal_.reset();
  state_ = std::make_unique<RecoveredState>();
  life_base_ = appended_.size();
  Result<std::unique_ptr<Wal>> wal = Wal::Open(&fs_, &clock_, directory(), options_, state_.get());
  if (!wal.ok()) return wal.status();
  wal_ = *std::move(wal);
  return OkStatus();
}

void WalHarness::Start() {
  TROTH_CHECK(Init().ok() && Open().ok());
  for (const LogRecord& record : Prologue()) TROTH_CHECK(Append(record));
  TROTH_CHECK(FlushAll().ok() && Maintain().ok());
}

void WalHarness::Kill() {
  wal_.reset();
  fs_.Restart();
}

void WalHarness::LosePower(const SimFileSystem::PowerLoss& how) {
  wal_.reset();
  fs_.LosePower(how);
}

bool WalHarness::Append(const LogRecord& record) {
  if (EncodedSizeBound(record) > wal_->RoomBytes()) return false;
  wal_->Append(record);
  appended_.push_back(record);
  return true;
}

Status WalHarness::Flush(bool mark, const std::function<void()>& meanwhile) {
  std::optional<FlushJob> job = wal_->BeginFlush(mark);
  if (!job) return OkStatus();
  if (meanwhile) meanwhile();
  TROTH_RETURN_IF_ERROR(wal_->Flush(&*job));
  const std::size_t until = life_base_ + wal_->EndFlush(*std::move(job)).records;
  for (; durable_ < until; ++durable_) {
    TROTH_CHECK(state_->Apply(appended_[durable_], wal_->RunningMs()).ok());
  }
  return OkStatus();
}

Status WalHarness::FlushAll() {
  while (wal_->FlushPending()) TROTH_RETURN_IF_ERROR(Flush());
  return OkStatus();
}

Status WalHarness::Maintain() {
  for (int steps = 0; wal_->MaintenanceDue(); ++steps) {
    TROTH_CHECK(steps < 1000);
    TROTH_RETURN_IF_ERROR(wal_->Maintain());
  }
  return OkStatus();
}

Status WalHarness::Commits(std::uint64_t first, std::uint64_t count, bool end_too) {
  for (std::uint64_t i = first; i < first + count; ++i) {
    if (!Append(TestCommit(i))) return Status(Code::kNoSpace, "no room");
    if (end_too && !Append(EndRecord{TestId(i)})) return Status(Code::kNoSpace, "no room");
    TROTH_RETURN_IF_ERROR(Flush());
    TROTH_RETURN_IF_ERROR(Maintain());
  }
  return OkStatus();
}

void WalHarness::Truncate(std::size_t count) {
  TROTH_CHECK(count >= durable_ && count <= appended_.size());
  appended_.resize(count);
  durable_ = count;
  life_base_ = count;
}

int WalHarness::PrefixHeld() const {
  RecoveredState prefix;
  const std::string held = TextOf(*state_);
  std::size_t count = 0;
  for (; count < durable_; ++count) TROTH_CHECK(prefix.Apply(appended_[count], 0).ok());
  for (;; ++count) {
    // Times are not compared: replay knows the batch's, the live process its own.
    RecoveredState timeless;
    bool ok = true;
    state_->ForEachCheckpointRecord([&](const LogRecord& record) {
      if (std::holds_alternative<DecidedAtRecord>(record)) return;
      if (std::holds_alternative<TimeMarkRecord>(record)) return;
      if (const auto* key = std::get_if<KeyRecord>(&record)) {
        ok = ok && timeless.Apply(KeyRecord{key->key, key->closed, key->id, 0}, 0).ok();
        return;
      }
      ok = ok && timeless.Apply(record, 0).ok();
    });
    if (ok && TextOf(timeless) == TextOf(prefix)) return static_cast<int>(count);
    if (count == appended_.size()) return -1;
    TROTH_CHECK(prefix.Apply(appended_[count], 0).ok());
  }
}

}  // namespace troth
