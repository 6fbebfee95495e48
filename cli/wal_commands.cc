// See commands.h: what reads a log directory. Read only, and without the lock: on a live
// directory a file may vanish under compaction, then it is listed and read anew.
#include <algorithm>
#include <iostream>
#include <map>

#include <nlohmann/json.hpp>

#include "cli/commands.h"
#include "cli/table.h"
#include "recovery/recovered_state.h"
#include "recovery/wal_reader.h"

namespace troth {
namespace {

using nlohmann::json;

constexpr int kTries = 20;  // a compaction is rare; twenty in a row are something else

// Runs `read` again when a file vanished under it.
template <typename Read>
Result<WalEnd> Retrying(const Read& read) {
  Result<WalEnd> end = read();
  for (int i = 1; i < kTries && !end.ok() && end.status().code() == Code::kNotFound; ++i) {
    end = read();
  }
  return end;
}

int Report(const Status& status) {
  std::cerr << "trothctl: " << status.message() << "\n";
  return 1;
}

std::string KindOf(const LogRecord& record) {
  const std::string text = DebugString(record);
  return text.substr(0, text.find(' '));
}

// Counts, and rebuilds the state, so that contradictions between records show too.
class Verifier : public WalVisitor {
 public:
  void OnBatch(const BatchPlace& place, const BatchHeader&) override {
    ++(place.checkpoint ? checkpoint_batches : batches);
  }
  Status OnRecord(const LogRecord& record, std::int64_t running_ms) override {
    ++kinds[KindOf(record)];
    return state.Apply(record, running_ms);
  }

  RecoveredState state;
  std::map<std::string, std::uint64_t> kinds;
  std::uint64_t batches = 0;
  std::uint64_t checkpoint_batches = 0;
};

const LocalId* IdOf(const LogRecord& record) {
  return std::visit(
      [](const auto& r) -> const LocalId* {
        if constexpr (requires { r.id.sequence; }) {
          return &r.id;
        } else {
          return nullptr;
        }
      },
      record);
}

class Dumper : public WalVisitor {
 public:
  Dumper(bool as_json, std::string only) : json_(as_json), only_(std::move(only)) {}
  void OnBatch(const BatchPlace& place, const BatchHeader& header) override {
    file_ = place.file;
    offset_ = place.offset;
    number_ = header.number;
  }
  Status OnRecord(const LogRecord& record, std::int64_t running_ms) override {
    const LocalId* id = IdOf(record);
    if (!only_.empty() && (id == nullptr || id->ToString() != only_)) return OkStatus();
    if (json_) {
      std::cout << json{{"file", file_},          {"offset", offset_},
                        {"batch", number_},       {"running_ms", running_ms},
                        {"kind", KindOf(record)}, {"record", DebugString(record)}}
                       .dump()
                << "\n";
    } else {
      std::cout << file_ << "+" << offset_ << " batch " << number_ << " at " << running_ms
                << " ms: " << DebugString(record) << "\n";
    }
    return OkStatus();
  }

 private:
  const bool json_;
  const std::string only_;
  std::string file_;
  std::uint64_t offset_ = 0;
  std::uint64_t number_ = 0;
};

int Verify(const ControlOptions& options, const std::string& directory, bool statistics) {
  Verifier verifier;
  const Result<WalEnd> end = Retrying([&] {
    verifier = Verifier();
    return ReadWal(PosixFileSystem(), directory, kWholeLog, &verifier);
  });
  if (!end.ok()) return Report(end.status());
  const RecoveredState& state = verifier.state;
  if (options.json) {
    std::cout << json{{"coordinator", end->coordinator_id},
                      {"intact", true},
                      {"cut", end->cut},
                      {"last_batch", end->last_batch},
                      {"records", end->records},
                      {"kinds", verifier.kinds},
                      {"checkpoint", end->checkpoint},
                      {"checkpoint_bytes", end->checkpoint_bytes},
                      {"segments_up_to", end->last_segment},
                      {"running_ms", end->running_ms},
                      {"epochs", state.epochs().size()},
                      {"undelivered", state.unended()},
                      {"whole_records", state.whole()},
                      {"whole_bytes", state.whole_bytes()},
                      {"heuristics", state.heuristics().size()}}
                     .dump(2)
              << "\n";
    return 0;
  }
  std::cout << "log of coordinator " << end->coordinator_id << ": intact up to batch "
            << end->last_batch << ", " << end->records << " records\n";
  if (!end->cut.empty()) std::cout << "opening will cut its end: " << end->cut << "\n";
  if (!statistics) return 0;
  std::cout << "checkpoint " << end->checkpoint << " (" << end->checkpoint_bytes
            << " bytes), segments up to " << end->last_segment << ", " << verifier.batches
            << " batches after it\n"
            << "running time " << Age(end->running_ms) << ", epochs kept " << state.epochs().size()
            << "\n"
            << "commit records whole " << state.whole() << " (" << state.whole_bytes()
            << " bytes), not delivered " << state.unended() << ", heuristics "
            << state.heuristics().size() << "\n\n";
  Table table({"record", "count"});
  for (const auto& [kind, count] : verifier.kinds) table.Add({kind, std::to_string(count)});
  table.Print(std::cout);
  return 0;
}

// Once printed, a line can't be taken back: no second reading here.
int Dump(const ControlOptions& options, const std::string& directory) {
  std::string only = options.transaction;
  if (!only.empty()) {
    const Result<TransactionId> id = TransactionId::Parse(only);
    if (!id.ok()) return Report(id.status());
    only = id->local.ToString();
  }
  Dumper dumper(options.json, only);
  const Result<WalEnd> end = ReadWal(PosixFileSystem(), directory, kWholeLog, &dumper);
  if (!end.ok()) return Report(end.status());
  if (!options.json && !end->cut.empty()) std::cout << "the rest is torn: " << end->cut << "\n";
  return 0;
}

}  // namespace

int WalCommand(const ControlOptions& options, const Arguments& arguments) {
  if (arguments.size() == 2 && arguments[0] == "verify") {
    return Verify(options, arguments[1], /*statistics=*/false);
  }
  if (arguments.size() == 2 && arguments[0] == "stats") {
    return Verify(options, arguments[1], /*statistics=*/true);
  }
  if (arguments.size() == 2 && arguments[0] == "dump") return Dump(options, arguments[1]);
  std::cerr << "trothctl: usage: trothctl wal verify|stats|dump DIR [--json] "
               "[--transaction ID]\n";
  return 2;
}

}  // namespace troth
