// Fuzz target: a whole log directory. The input is a little program that fills batches with any
// bytes, seals them (checksums and all, else nothing would get behind them), ends segments, and
// damages the result. Reading it gives a state or a refusal with file, offset and cause; what
// opens, opens again as the same.
#include <cstdint>
#include <string>

#include "common/check.h"
#include "recovery/wal.h"
#include "recovery/wal_format.h"
#include "recovery/wal_reader.h"
#include "tests/recovery/wal_harness.h"

namespace troth {
namespace {

constexpr std::uint64_t kSegment = 32u << 10;
const std::string kId = "bank-0123456789ab";

class Input {
 public:
  Input(const std::uint8_t* data, std::size_t size)
      : rest_(reinterpret_cast<const char*>(data), size) {}
  bool empty() const { return rest_.empty(); }
  std::uint64_t Take(int bytes) {
    std::uint64_t value = 0;
    for (int i = 0; i < bytes && !rest_.empty(); ++i) {
      value = value << 8 | static_cast<std::uint8_t>(rest_.front());
      rest_.remove_prefix(1);
    }
    return value;
  }
  std::string_view Bytes(std::size_t size) {
    const std::string_view taken = rest_.substr(0, size);
    rest_.remove_prefix(taken.size());
    return taken;
  }

 private:
  std::string_view rest_;
};

// Writes files as the log does, and as nobody should.
class Builder {
 public:
  Builder() {
    BeginFile(WalFileKind::kCheckpoint, 0, 0);
    Seal(0, 0);
    BeginFile(WalFileKind::kSegment, 1, kSegment);
    previous_ = 0;
    for (const LogRecord& record : Prologue()) EncodeRecord(record, &records_);
    Seal(2, 1);
  }

  void Run(Input* in) {
    while (!in->empty()) {
      const std::uint64_t op = in->Take(1);
      switch (op % 8) {
        case 0:
        case 1:
        case 2: records_ += in->Bytes(in->Take(2) % 3000); break;
        case 3: Seal(CountRecords(), in->Take(2)); break;
        case 4: Seal(static_cast<std::uint32_t>(in->Take(1)), in->Take(8)); break;  // any numbers
        case 5: BeginFile(WalFileKind::kSegment, ++number_, kSegment); break;
        case 6: Damage(in); break;
        default: {  // a record of ours
          const auto all = OneOfEach();
          EncodeRecord(all[in->Take(1) % all.size()], &records_);
          break;
        }
      }
      if (records_.size() > kSegment) records_.resize(kSegment);
    }
    Finish();
  }

  const SimFileSystem::Tree& tree() const { return tree_; }

 private:
  std::string Path(WalFileKind kind, std::uint64_t number) const {
    return WalHarness::directory() + "/" + WalFileName(kind, number);
  }

  void Finish() {
    if (name_.empty()) return;
    if (bytes_ > 0) file_.resize(bytes_, '\0');
    tree_[name_] = file_;
  }

  void BeginFile(WalFileKind kind, std::uint64_t number, std::uint64_t bytes) {
    Finish();
    FileHeader header;
    header.kind = kind;
    header.coordinator_id = kId;
    header.number = number;
    header.file_bytes = bytes;
    header.salt = number * 7 + 1;
    file_ = EncodeFileHeader(header);
    seed_ = SeedOf(file_);
    name_ = Path(kind, number);
    bytes_ = bytes;
  }

  std::uint32_t CountRecords() const {
    std::string_view rest = records_;
    std::uint32_t count = 0;
    while (DecodeRecord(&rest).ok()) ++count;
    return count;
  }

  void Seal(std::uint32_t records, std::uint64_t running_ms) {
    std::string batch(kBatchHeaderBytes, '\0');
    batch += records_;
    records_.clear();
    BatchHeader header;
    header.number = name_.find("checkpoint") != name_.npos ? 1 : ++batch_;
    header.running_ms = static_cast<std::int64_t>(running_ms);
    header.records = records;
    header.previous = previous_;
    SealBatch(seed_, &header, &batch);
    previous_ = header.checksum;
    if (bytes_ > 0 && file_.size() + batch.size() > bytes_) {
      BeginFile(WalFileKind::kSegment, ++number_, kSegment);
      return;  // lost, as it would not fit
    }
    file_ += batch;
  }

  // Into the file at hand: bytes, or its length.
  void Damage(Input* in) {
    const std::uint64_t at = in->Take(2);
    if (at % 16 == 15) {
      bytes_ = at;
      return;
    }
    if (at < file_.size()) file_[at] = static_cast<char>(file_[at] ^ in->Take(1));
  }

  SimFileSystem::Tree tree_;
  std::string name_, file_, records_;
  std::uint64_t bytes_ = 0, number_ = 1, batch_ = 0;
  std::uint32_t seed_ = 0, previous_ = 0;
};

class Rebuild final : public WalVisitor {
 public:
  Status OnRecord(const LogRecord& record, std::int64_t running_ms) override {
    return state.Apply(record, running_ms);
  }
  RecoveredState state;
};

Status Open(SimFileSystem* fs, std::string* text) {
  static ManualClock clock;
  WalOptions options;
  options.segment_bytes = kSegment;
  options.random = [] { return 42u; };
  RecoveredState state;
  const auto wal = Wal::Open(fs, &clock, WalHarness::directory(), options, &state);
  if (!wal.ok()) return wal.status();
  *text = TextOf(state);
  return OkStatus();
}

void TryLog(Input in) {
  Builder builder;
  builder.Run(&in);
  SimFileSystem fs;
  fs.Load(builder.tree());
  Rebuild rebuild;
  const Result<WalEnd> end = ReadWal(&fs, WalHarness::directory(), kWholeLog, &rebuild);
  std::string first, second;
  const Status opened = Open(&fs, &first);
  TROTH_CHECK(opened.ok() == end.ok());
  if (!opened.ok()) {
    TROTH_CHECK(opened.code() == Code::kCorrupt);
    TROTH_CHECK(opened.message().find(", offset ") != std::string::npos);
    SimFileSystem::Tree now = fs.Snapshot();
    now.erase(WalHarness::directory() + "/LOCK");
    TROTH_CHECK(now == builder.tree());
    return;
  }
  TROTH_CHECK(Open(&fs, &second).ok());
  TROTH_CHECK(first == second);
}

}  // namespace
}  // namespace troth

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  troth::TryLog(troth::Input(data, size));
  return 0;
}
