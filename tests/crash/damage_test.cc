// Damages a log in every way the issue of a damaged log can come up, and compares what opening
// makes of it with what the policy says (docs/wal_format.md, "Damage"):
// - damage in the last batch: the state of what precedes it;
// - damage before it, or of a kind no torn write leaves: refused, with file, offset and cause,
//   and nothing on disk changed;
// - damage to bytes that say nothing: the whole state;
// - never another state.
// Prints `damage: cuts=N flips=N block_orders=N wrong=N`; exits with 1 when something was wrong
// or nothing was tried.
#include <algorithm>
#include <cstdio>
#include <map>
#include <memory>
#include <numeric>
#include <random>

#include "common/check.h"
#include "common/program.h"
#include "recovery/wal_format.h"
#include "tests/recovery/wal_harness.h"

namespace troth {
namespace {

enum class Expect {
  kWhole,      // all that was there
  kPreceding,  // all but the last batch
  kRefused,
  kNotAnother,  // whole, preceding or refused
};

// A log with every record type, and where its batches lie.
class Subject {
 public:
  struct Batch {
    std::string file;
    std::size_t offset = 0;
    std::size_t bytes = 0;
  };

  // `before` commits are flushed one by one before the last batch.
  explicit Subject(int before) {
    h_.options().segment_bytes = 32u << 10;
    h_.options().segments_ahead = 3;
    h_.options().retention.record_ms = 5'000;  // the checkpoint then holds bits and whole records
    h_.options().retention.lease_ms = 5'000;
    h_.options().retention.outcome_ms = 10'000;
    MakeCheckpoint();
    for (int i = 0; i < before; ++i)
      TROTH_CHECK(FlushOne(Commit(600 + static_cast<std::uint64_t>(i), 2)));
    preceding_ = Replayed();
    TROTH_CHECK(h_.Append(Commit(700, 240)) && h_.Append(Commit(701, 240)));
    TROTH_CHECK(FlushOne(Commit(702, 240)));
    whole_ = Replayed();
    h_.Kill();
    tree_ = LogFiles();
    FindBatches();
  }

  const SimFileSystem::Tree& tree() const { return tree_; }
  const std::string& checkpoint() const { return checkpoint_; }
  std::size_t checkpoint_bytes() const { return checkpoint_bytes_; }
  const std::vector<Batch>& batches() const { return batches_; }
  const Batch& last() const { return batches_.back(); }

  // Opens a damaged copy and judges. True when it went as it must.
  bool Try(const SimFileSystem::Tree& damaged, Expect expect, const std::string& what) {
    h_.fs().Load(damaged);
    const Status status = h_.Open();
    std::string verdict;
    if (status.ok()) {
      const std::string state = TextOf(h_.state());
      h_.Kill();
      if (state == whole_ && expect != Expect::kPreceding && expect != Expect::kRefused)
        return true;
      if (state == preceding_ && expect != Expect::kWhole && expect != Expect::kRefused)
        return true;
      verdict = state == whole_ ? "whole" : state == preceding_ ? "preceding" : "ANOTHER STATE";
    } else {
      const bool told = status.code() == Code::kCorrupt &&
                        status.message().find(", offset ") != std::string::npos &&
                        status.message().starts_with(WalHarness::directory());
      const bool unchanged = h_.fs().Holds(damaged);
      if (told && unchanged && expect != Expect::kWhole && expect != Expect::kPreceding)
        return true;
      verdict = unchanged ? status.ToString() : "refused, and changed the disk";
    }
    static int shown = 0;
    if (++shown <= 20) {
      std::fprintf(stderr, "wrong: %s: expected %d, got %s\n", what.c_str(),
                   static_cast<int>(expect), verdict.c_str());
    }
    return false;
  }

 private:
  static constexpr Epoch kNow{5, 35};

  static CommitRecord Commit(std::uint64_t sequence, int branches, std::string key = "") {
    CommitRecord commit = TestCommit(sequence, branches, std::move(key));
    commit.id.epoch = kNow;
    return commit;
  }

  bool FlushOne(const LogRecord& record) { return h_.Append(record) && h_.Flush().ok(); }

  bool FlushAndMaintain(const LogRecord& record) { return FlushOne(record) && h_.Maintain().ok(); }

  // Lives that leave every record type in the checkpoint.
  void MakeCheckpoint() {
    TROTH_CHECK(h_.Init().ok() && h_.Open().ok());
    for (const LogRecord& record : OneOfEach()) TROTH_CHECK(FlushAndMaintain(record));
    for (int i = 0; i < 4; ++i)
      TROTH_CHECK(FlushAndMaintain(TestCommit(100 + static_cast<std::uint64_t>(i))));
    TROTH_CHECK(FlushAndMaintain(EndRecord{TestId(100)}));
    for (std::uint32_t life = 2; life < 5; ++life) {  // lines and marks need lives and time
      h_.Kill();
      TROTH_CHECK(h_.Open().ok());
      h_.clock().AdvanceMs(6'000);
      TROTH_CHECK(FlushAndMaintain(EpochRecord{{life, life * 7}, h_.wal().last_batch()}));
      TROTH_CHECK(FlushAndMaintain(ReserveRecord{{life, life * 7}, 1000}));
      CommitRecord commit = TestCommit(5);
      commit.id.epoch = {life, life * 7};
      TROTH_CHECK(FlushAndMaintain(commit));
    }
    TROTH_CHECK(FlushAndMaintain(EndRecord{{{4, 28}, 5}}));
    h_.Kill();
    TROTH_CHECK(h_.Open().ok());
    TROTH_CHECK(h_.Maintain().ok());
    std::map<std::size_t, int> types;
    h_.state().ForEachCheckpointRecord([&](const LogRecord& record) { ++types[record.index()]; });
    TROTH_CHECK(types.size() == std::variant_size_v<LogRecord>);
    // And in the log proper: all but those of checkpoints only.
    std::vector<LogRecord> again = {EpochRecord{kNow, h_.wal().last_batch()},
                                    ReserveRecord{kNow, 1000}};
    for (const LogRecord& record : OneOfEach()) {
      if (record.index() > 3 && !std::holds_alternative<OutcomesRecord>(record)) {
        again.push_back(record);
      }
    }
    again.push_back(Commit(500, 3, "order-19"));
    again.push_back(EndRecord{{kNow, 500}});
    for (const LogRecord& record : again) TROTH_CHECK(h_.Append(record));
    TROTH_CHECK(h_.FlushAll().ok());
  }

  std::string Replayed() {
    const SimFileSystem::Tree tree = h_.fs().Snapshot();
    SimFileSystem copy;
    copy.Load(tree);
    RecoveredState state;
    TROTH_CHECK(Wal::Open(&copy, &h_.clock(), WalHarness::directory(), h_.options(), &state).ok());
    return TextOf(state);
  }

  // The files that count: spares and superseded ones say nothing.
  SimFileSystem::Tree LogFiles() {
    std::uint64_t newest = 0;
    const SimFileSystem::Tree all = h_.fs().Snapshot();
    const auto name = [](const std::string& path) { return path.substr(path.rfind('/') + 1); };
    for (const auto& [path, bytes] : all) {
      newest = std::max(newest, ParseWalFileName(WalFileKind::kCheckpoint, name(path)).value_or(0));
    }
    SimFileSystem::Tree kept;
    int empty = 0;  // of the empty segments at the end, one is enough
    for (const auto& [path, bytes] : all) {
      if (ParseWalFileName(WalFileKind::kCheckpoint, name(path)) == newest) {
        checkpoint_ = path;
        kept[path] = bytes;
      } else if (ParseWalFileName(WalFileKind::kSegment, name(path)).value_or(0) > newest) {
        empty += bytes[kBlockBytes] == 0;
        if (empty <= 1) kept[path] = bytes;
      }
    }
    return kept;
  }

  void FindBatches() {
    for (const auto& [path, bytes] : tree_) {
      const std::uint32_t seed = SeedOf(bytes);
      BatchHeader header;
      std::size_t at = kBlockBytes;
      while (at < bytes.size() &&
             CheckBatch(seed, std::string_view(bytes).substr(at), &header) == BatchCheck::kValid) {
        const std::size_t extent = BatchExtent(header.record_bytes);
        if (path != checkpoint_) batches_.push_back(Batch{path, at, extent});
        at += extent;
        if (path == checkpoint_ && header.records == 0) break;
      }
      if (path == checkpoint_) checkpoint_bytes_ = at;
    }
    tree_[checkpoint_].resize(checkpoint_bytes_ + 2 * kBlockBytes);  // of the space kept, some
    TROTH_CHECK(batches_.size() > 1);
  }

  WalHarness h_;
  SimFileSystem::Tree tree_;
  std::string checkpoint_;
  std::size_t checkpoint_bytes_ = 0;
  std::vector<Batch> batches_;
  std::string preceding_, whole_;
};

struct Counts {
  std::uint64_t cuts = 0, flips = 0, block_orders = 0, wrong = 0;
};

// A file that is shorter than it was made was never torn: refused, wherever it ends. Zeros from
// some byte of the last batch on are what a lost write leaves: the batch is cut.
void Cut(Subject* s, bool with_checkpoint, Counts* counts) {
  for (const auto& [path, bytes] : s->tree()) {
    const bool checkpoint = path == s->checkpoint();
    if (checkpoint && !with_checkpoint) continue;
    SimFileSystem::Tree damaged = s->tree();
    for (std::size_t size = 0; size < bytes.size(); ++size) {
      damaged[path] = bytes.substr(0, size);
      const bool harmless = checkpoint && size >= s->checkpoint_bytes();
      ++counts->cuts;
      counts->wrong += !s->Try(damaged, harmless ? Expect::kWhole : Expect::kRefused,
                               path + " cut at " + std::to_string(size));
    }
  }
  const Subject::Batch& last = s->last();
  const std::string& bytes = s->tree().at(last.file);
  for (std::size_t at = last.offset; at < last.offset + last.bytes; ++at) {
    SimFileSystem::Tree damaged = s->tree();
    std::string& copy = damaged[last.file];
    std::fill(copy.begin() + static_cast<std::ptrdiff_t>(at),
              copy.begin() + static_cast<std::ptrdiff_t>(last.offset + last.bytes), '\0');
    ++counts->cuts;
    counts->wrong += !s->Try(damaged, copy == bytes ? Expect::kWhole : Expect::kPreceding,
                             last.file + " zero from " + std::to_string(at));
  }
}

// What a change of the byte at `offset` of `path` must lead to.
Expect ExpectOfByte(const Subject& s, const std::string& path, std::size_t offset) {
  if (path == s.checkpoint()) {
    return offset < s.checkpoint_bytes() ? Expect::kRefused : Expect::kWhole;
  }
  const Subject::Batch& last = s.last();
  if (offset < kBlockBytes || path < last.file) return Expect::kRefused;
  if (path > last.file) return Expect::kWhole;  // as a torn batch that never was
  if (offset < last.offset) return Expect::kRefused;
  return offset < last.offset + last.bytes ? Expect::kPreceding : Expect::kWhole;
}

void Flip(Subject* s, bool with_checkpoint, std::mt19937_64* random, Counts* counts) {
  SimFileSystem::Tree damaged = s->tree();
  for (const auto& [path, bytes] : s->tree()) {
    if (path == s->checkpoint() && !with_checkpoint) continue;
    for (std::size_t at = 0; at < bytes.size(); ++at) {
      const char flip = at % 2 == 0 ? static_cast<char>(1 << ((*random)() % 8))
                                    : static_cast<char>(1 + (*random)() % 255);
      damaged[path][at] = static_cast<char>(bytes[at] ^ flip);
      ++counts->flips;
      counts->wrong +=
          !s->Try(damaged, ExpectOfByte(*s, path, at), path + " flipped at " + std::to_string(at));
      damaged[path][at] = bytes[at];
    }
  }
}

// What a block holds that did not reach the disk.
enum class Fill { kLost, kGarbled, kStale };

std::string FillOf(Fill fill, std::string_view old, std::size_t size, std::mt19937_64* random) {
  std::string out(size, '\0');
  if (fill == Fill::kGarbled) {
    std::generate(out.begin(), out.end(), [random] { return static_cast<char>((*random)()); });
  } else if (fill == Fill::kStale) {
    out.assign(old.substr(0, size));
    out.resize(size, '\0');
  }
  return out;
}

// Tries the last batch with the units of `unit` bytes in `missing` not written.
void LoseUnits(Subject* s, std::size_t unit, const std::vector<std::size_t>& missing, Fill fill,
               std::mt19937_64* random, Counts* counts) {
  const Subject::Batch& last = s->last();
  const Subject::Batch& older = s->batches()[s->batches().size() - 2];
  const std::string_view old =
      std::string_view(s->tree().at(older.file)).substr(older.offset, older.bytes);
  SimFileSystem::Tree damaged = s->tree();
  std::string& bytes = damaged[last.file];
  for (const std::size_t i : missing) {
    bytes.replace(last.offset + i * unit, unit, FillOf(fill, old, unit, random));
  }
  Expect expect = bytes == s->tree().at(last.file) ? Expect::kWhole : Expect::kPreceding;
  // An older batch in its place is valid in itself: it must not be taken, refusing is right.
  if (fill == Fill::kStale && expect == Expect::kPreceding) expect = Expect::kNotAnother;
  ++counts->block_orders;
  counts->wrong += !s->Try(damaged, expect,
                           std::to_string(missing.size()) + " units of " + std::to_string(unit) +
                               " missing, fill " + std::to_string(static_cast<int>(fill)));
}

void LoseBlocks(Subject* s, std::mt19937_64* random, Counts* counts) {
  constexpr Fill kFills[] = {Fill::kLost, Fill::kGarbled, Fill::kStale};
  // Blocks: every order of arrival, stopped after each.
  std::vector<std::size_t> order(s->last().bytes / kBlockBytes);
  TROTH_CHECK(order.size() >= 4);
  std::iota(order.begin(), order.end(), 0);
  do {
    for (std::size_t arrived = 0; arrived <= order.size(); ++arrived) {
      const std::vector<std::size_t> missing(order.begin() + static_cast<std::ptrdiff_t>(arrived),
                                             order.end());
      for (const Fill fill : kFills) LoseUnits(s, kBlockBytes, missing, fill, random, counts);
    }
  } while (std::next_permutation(order.begin(), order.end()));
  // Sectors: each alone, each pair, and many random sets.
  const std::size_t sectors = s->last().bytes / 512;
  for (std::size_t a = 0; a < sectors; ++a) {
    for (std::size_t b = a; b < sectors; ++b) {
      for (const Fill fill : kFills) LoseUnits(s, 512, {a, b}, fill, random, counts);
    }
  }
  for (int i = 0; i < 3000; ++i) {
    std::vector<std::size_t> missing;
    for (std::size_t a = 0; a < sectors; ++a) {
      if ((*random)() % 3 == 0) missing.push_back(a);
    }
    LoseUnits(s, 512, missing, kFills[(*random)() % 3], random, counts);
  }
}

int Run() {
  Counts counts;
  std::mt19937_64 random(20240229);
  // The last batch takes four of the seven blocks that a segment of 32 KiB has; how many
  // batches come before it decides where it lies.
  std::unique_ptr<Subject> middle, start, end;
  for (int before = 1; before < 8; ++before) {
    auto s = std::make_unique<Subject>(before);
    const std::size_t offset = s->last().offset, after = offset + s->last().bytes;
    if (s->last().bytes != 4 * kBlockBytes) continue;  // split over two segments
    if (offset == kBlockBytes) {
      start = std::move(s);
    } else if (after == s->tree().at(s->last().file).size()) {
      end = std::move(s);
    } else {
      middle = std::move(s);
    }
  }
  TROTH_CHECK(middle != nullptr && start != nullptr && end != nullptr);
  for (Subject* s : {middle.get(), start.get(), end.get()}) {
    LoseBlocks(s, &random, &counts);
    if (s == end.get()) continue;
    const bool first = s == middle.get();  // the checkpoints are alike
    Cut(s, first, &counts);
    Flip(s, first, &random, &counts);
  }
  std::printf("damage: cuts=%llu flips=%llu block_orders=%llu wrong=%llu\n",
              static_cast<unsigned long long>(counts.cuts),
              static_cast<unsigned long long>(counts.flips),
              static_cast<unsigned long long>(counts.block_orders),
              static_cast<unsigned long long>(counts.wrong));
  const bool tried = counts.cuts > 0 && counts.flips > 0 && counts.block_orders > 0;
  return tried && counts.wrong == 0 ? 0 : 1;
}

}  // namespace
}  // namespace troth

int main(int argc, char** argv) {
  constexpr char kUsage[] =
      "Cuts a log at each byte, flips each byte, loses and garbles the blocks of its last batch,\n"
      "and judges what opening makes of it. Ends with: damage: cuts=N flips=N block_orders=N "
      "wrong=N";
  if (const auto done = troth::StartProgram(kUsage, &argc, &argv)) return *done;
  return troth::Run();
}
