// See hot_paths.h.
#include "bench/hot_paths.h"

#include <cstdlib>
#include <utility>

#include "common/check.h"
#include "common/codec.h"

namespace troth::bench {
namespace {

constexpr DatabaseId kDatabase{7'000'000'000'000'000'001, 16384};
constexpr std::uint32_t kBlock = 1000;  // ids in a lease
constexpr int kBatch = 32;              // records in a batch

CommitRecord RecordOf(const LocalId& id) {
  CommitRecord commit;
  commit.id = id;
  for (ParticipantIndex p = 0; p < 2; ++p) {
    commit.branches.push_back({p, kDatabase, 1000 + id.sequence, 1, 0x16B3748 + 500 * id.sequence});
  }
  return commit;
}

CommitProtocol MachineWithParticipants() {
  ProtocolOptions options;
  options.coordinator_id = "bench-0123456789ab";
  options.lease_ms = 30'000;
  RecoveredState state;
  for (ParticipantIndex i = 0; i < 2; ++i) {
    ParticipantRecord record;
    record.index = i;
    record.name = i == 0 ? "p0" : "p1";
    record.database = kDatabase;
    record.peer_host = "127.0.0.1";
    record.peer_port = 1;
    TROTH_CHECK(state.Apply(record, 0).ok());
  }
  return CommitProtocol(std::move(options), std::move(state), 1, 0);
}

}  // namespace

// --------------------------------------------------------------------------------- StepPath

StepPath::StepPath() : machine_(MachineWithParticipants()) {
  machine_.Start(&actions_);
  Step(TimePassed{0, 0});
  Step(ParticipantUp{0});
  Step(ParticipantUp{1});
  MakeDurable();
  commit_.token = 1;
  commit_.id.coordinator = "bench-0123456789ab";
  for (const char* name : {"p0", "p1"}) {
    BranchClaim claim;
    claim.participant = name;
    claim.mark = "0123456789abcdef";
    claim.instance = "fedcba9876543210";
    claim.works = 1;
    commit_.branches.push_back(std::move(claim));
  }
  commit_.deadline = 5'000;
}

// Counts records as the monitor does, and drops all else.
void StepPath::Step(const Event& event) {
  machine_.Step(event, &actions_);
  for (const Action& action : actions_) {
    if (std::holds_alternative<AppendRecord>(action)) ++appended_;
    if (const auto* lease = std::get_if<ReplyLease>(&action)) {
      commit_.id.local.epoch = lease->epoch;
      sequence_ = lease->first;
      leased_end_ = lease->first + lease->count;
    }
  }
  actions_.clear();
}

void StepPath::MakeDurable() { Step(RecordsDurable{appended_, ++batch_}); }

void StepPath::CommitOne() {
  if (sequence_ == leased_end_) {
    Step(LeaseAsked{2, kBlock});
    MakeDurable();  // the reserve, if it was raised
    TROTH_CHECK(sequence_ < leased_end_);
  }
  const LocalId id{machine_.epoch(), sequence_++};
  commit_.id.local = id;
  Step(commit_);
  BranchVote vote;
  vote.ballot = Ballot::kPrepared;
  vote.works = 1;
  vote.database = kDatabase;
  vote.xid = 1000 + id.sequence;
  vote.timeline = 1;
  vote.position = 0x16B3748 + 500 * id.sequence;
  Step(VoteArrived{id, 0, "0123456789abcdef", vote});
  Step(VoteArrived{id, 1, "0123456789abcdef", vote});
  MakeDurable();
  Step(FinishArrived{id, 0, true, Finished::kDone, ""});
  Step(FinishArrived{id, 1, true, Finished::kDone, ""});
  TROTH_CHECK(machine_.undecided() == 0);
}

// ------------------------------------------------------------------------------- AppendPath

AppendPath::AppendPath(const std::string& directory) {
  WalOptions options;
  options.random = [] { return std::uint64_t{0x0123456789abcdef}; };
  TROTH_CHECK(Wal::Init(PosixFileSystem(), directory, "bench", options).ok());
  RecoveredState state;
  auto opened = Wal::Open(PosixFileSystem(), SystemClock(), directory, options, &state);
  TROTH_CHECK(opened.ok());
  wal_ = *std::move(opened);
  const Epoch epoch{1, 0x1234567};
  wal_->Append(EpochRecord{epoch, wal_->last_batch()});
  wal_->Append(ReserveRecord{epoch, 1u << 30});
  record_ = RecordOf({epoch, 0});
}

AppendPath::~AppendPath() = default;

void AppendPath::AppendOne() {
  ++record_.id.sequence;
  wal_->Append(record_);
  if (record_.id.sequence % kBatch != 0) return;
  while (wal_->RoomBytes() < (64u << 10)) TROTH_CHECK(wal_->Maintain().ok());
  auto job = wal_->BeginFlush();
  TROTH_CHECK(job.has_value());
  TROTH_CHECK(job->file->Write(job->offset, job->bytes).ok());  // the sync is the disk's time
  wal_->EndFlush(*std::move(job));
}

// -------------------------------------------------------------------------------- CodecPath

CodecPath::CodecPath() : record_(RecordOf({{3, 0x1234567}, 17})) {}

void CodecPath::RoundTripOne() {
  bytes_.clear();
  EncodeRecord(record_, &bytes_);
  sum_ = Crc32c(bytes_, sum_);
  std::string_view rest = bytes_;
  const Result<LogRecord> decoded = DecodeRecord(&rest);
  TROTH_CHECK(decoded.ok() && rest.empty());
}

}  // namespace troth::bench
