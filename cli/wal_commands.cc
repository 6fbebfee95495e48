// See commands.h: what reads a log directory. Read only, and without the lock, which only the
// owner may take. So the directory may change while it is read: a file vanishes under
// compaction, a batch is half written. What is found wrong counts when another look finds the
// same; nothing is printed before a look that counts.
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <iostream>
#include <map>
#include <memory>
#include <optional>
#include <sstream>
#include <thread>

#include <nlohmann/json.hpp>

#include "cli/commands.h"
#include "cli/table.h"
#include "recovery/heuristics.h"
#include "recovery/recovered_state.h"
#include "recovery/wal_reader.h"
#include "wire/report_json.h"

namespace troth {
namespace {

using nlohmann::json;

constexpr int kTries = 50;
constexpr std::chrono::milliseconds kPause{20};  // a batch and its sync take less

// Looks again when something seems wrong, until it seems so twice in the same way. `directory`
// must be the log of `options.name`, if that is given.
template <typename Read>
Result<WalEnd> LookUntilSure(const ControlOptions& options, const std::string& directory,
                             const Read& read) {
  std::string said;
  for (int i = 1;; ++i) {
    Result<WalEnd> end = read();
    if (end.ok()) {
      const Status whose = CheckWhoseLog(directory, end->coordinator_id, options.name);
      if (!whose.ok()) return whose;
    }
    const std::string wrong = end.ok() ? end->cut : end.status().message();
    if (wrong.empty() || wrong == said || i == kTries) return end;
    said = wrong;
    std::this_thread::sleep_for(kPause);
  }
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
  Dumper(bool as_json, std::optional<TransactionId> only, std::FILE* out)
      : json_(as_json), only_(std::move(only)), out_(out) {}
  void OnBatch(const BatchPlace& place, const BatchHeader& header) override {
    file_ = place.file;
    offset_ = place.offset;
    number_ = header.number;
  }
  Status OnRecord(const LogRecord& record, std::int64_t running_ms) override {
    const LocalId* id = IdOf(record);
    if (only_ && (id == nullptr || *id != only_->local)) return OkStatus();
    if (const auto* heuristic = std::get_if<HeuristicRecord>(&record); only_ && heuristic) {
      const std::string whose = TransactionOf(*heuristic, "").coordinator;
      if (!whose.empty() && whose != only_->coordinator) return OkStatus();
    }
    std::ostringstream line;
    if (json_) {
      line << JsonText(json{{"file", file_},
                            {"offset", offset_},
                            {"batch", number_},
                            {"running_ms", running_ms},
                            {"kind", KindOf(record)},
                            {"record", DebugString(record)}});
    } else {
      line << file_ << "+" << offset_ << " batch " << number_ << " at " << running_ms
           << " ms: " << DebugString(record) << "\n";
    }
    const std::string text = line.str();
    if (std::fwrite(text.data(), 1, text.size(), out_) != text.size()) {
      return Status(Code::kNoSpace, "no space for a temporary file");
    }
    return OkStatus();
  }

 private:
  const bool json_;
  const std::optional<TransactionId> only_;
  std::FILE* const out_;
  std::string file_;
  std::uint64_t offset_ = 0;
  std::uint64_t number_ = 0;
};

int Verify(const ControlOptions& options, const std::string& directory, bool statistics) {
  Verifier verifier;
  const Result<WalEnd> end = LookUntilSure(options, directory, [&] {
    verifier = Verifier();
    return ReadWal(PosixFileSystem(), directory, kWholeLog, &verifier);
  });
  if (!end.ok()) return Report(end.status());
  const RecoveredState& state = verifier.state;
  if (options.json) {
    std::cout << JsonText(json{{"coordinator", end->coordinator_id},
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
                               {"heuristics", state.heuristics().size()}},
                          2);
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

int Dump(const ControlOptions& options, const std::string& directory) {
  std::optional<TransactionId> only;
  std::string whose = options.name;
  if (!options.transaction.empty()) {
    const std::optional<Asked> asked = ParseAsked(options.transaction);
    if (!asked) return 2;
    only = *TransactionId::Parse(asked->transaction_id);
    if (whose.empty()) whose = only->coordinator;
  }
  ControlOptions wanted = options;
  wanted.name = whose;
  // Kept in a file until the look counts: a log may be larger than memory, once written out.
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> text(std::tmpfile(), std::fclose);
  if (text == nullptr) return Report(Status(Code::kIo, "no temporary file can be made"));
  const Result<WalEnd> end = LookUntilSure(wanted, directory, [&] {
    std::rewind(text.get());
    if (ftruncate(fileno(text.get()), 0) != 0) {
      return Result<WalEnd>(Status(Code::kIo, "a temporary file cannot be cut"));
    }
    Dumper dumper(options.json, only, text.get());
    return ReadWal(PosixFileSystem(), directory, kWholeLog, &dumper);
  });
  const bool refused = !end.ok() && end.status().code() == Code::kRefused;
  std::rewind(text.get());
  std::array<char, 65536> piece;
  // What precedes a damage is still worth seeing.
  for (std::size_t n = 0;
       !refused && (n = std::fread(piece.data(), 1, piece.size(), text.get())) > 0;) {
    std::cout.write(piece.data(), static_cast<std::streamsize>(n));
  }
  if (!end.ok()) return Report(end.status());
  if (!options.json && !end->cut.empty()) std::cout << "the rest is torn: " << end->cut << "\n";
  return 0;
}

// One line of JSON for each thing the log can account for.
class Auditor {
 public:
  Auditor(const std::string& coordinator_id, const RecoveredState& state)
      : coordinator_id_(coordinator_id), state_(state) {}

  void Print() {
    Line("coordinator", {{"coordinator", coordinator_id_}, {"running_ms", state_.running_ms()}});
    for (const ParticipantRecord& p : state_.participants()) {
      Line("participant", {{"participant", p.name},
                           {"system_identifier", std::to_string(p.database.system_identifier)},
                           {"database_oid", p.database.oid},
                           {"database_address", p.database_address},
                           {"address", p.peer_host + ":" + std::to_string(p.peer_port)},
                           {"certificate", p.certificate},
                           {"forgotten", p.forgotten}});
    }
    for (const auto& info : state_.epochs()) {
      Line("epoch", {{"epoch", info.epoch.ToString()}, {"reserved_to", info.reserve_end}});
    }
    for (const GapRecord& gap : state_.gaps()) {
      Line("accepted-gap", {{"first", gap.first}, {"last", gap.last}, {"reason", gap.reason}});
    }
    // A live commit's time follows it.
    state_.ForEachCheckpointRecord([this](const LogRecord& record) {
      if (const auto* commit = std::get_if<CommitRecord>(&record)) {
        Flush();
        decision_ = Decision(*commit);
      } else if (const auto* at = std::get_if<DecidedAtRecord>(&record)) {
        if (!decision_.is_null()) decision_["decided_running_ms"] = at->at_ms;
      } else if (const auto* key = std::get_if<KeyRecord>(&record); key && key->closed) {
        Line("closed-key", {{"key", key->key}});
      }
    });
    Flush();
    for (const HeuristicRecord& h : state_.heuristics()) {
      Line(h.hazard ? "hazard" : "heuristic",
           {{"transaction_id", TransactionOf(h, coordinator_id_).ToString()},
            {"participant", NameOf(h.participant)},
            {"what", h.what},
            {"at_unix_ms", h.at_unix_ms}});
    }
  }

 private:
  static void Line(const char* kind, json what) {
    what["kind"] = kind;
    std::cout << JsonText(what);
  }
  std::string Full(const LocalId& id) const {
    return TransactionId{coordinator_id_, id}.ToString();
  }
  std::string NameOf(ParticipantIndex index) const {
    const auto& all = state_.participants();
    return index < all.size() ? all[index].name : "#" + std::to_string(index);
  }
  json Decision(const CommitRecord& commit) const {
    json branches = json::array();
    for (const BranchRecord& b : commit.branches) {
      branches.push_back({{"participant", NameOf(b.participant)},
                          {"xid", b.xid},
                          {"timeline", b.timeline},
                          {"position", b.position}});
    }
    return {{"transaction_id", Full(commit.id)},
            {"decision", "commit"},
            {"key", commit.key},
            {"applied_everywhere", state_.Ended(commit.id)},
            {"branches", branches},
            {"decided_running_ms", nullptr}};
  }
  void Flush() {
    if (!decision_.is_null()) Line("decision", decision_);
    decision_ = nullptr;
  }

  const std::string coordinator_id_;
  const RecoveredState& state_;
  json decision_;  // not printed yet
};

}  // namespace

int AuditCommand(const ControlOptions& options, const Arguments& arguments) {
  if (arguments.size() != 1) {
    std::cerr << "trothctl: usage: trothctl audit DIR [--name NAME]\n";
    return 2;
  }
  Verifier verifier;
  const Result<WalEnd> end = LookUntilSure(options, arguments[0], [&] {
    verifier = Verifier();
    return ReadWal(PosixFileSystem(), arguments[0], kWholeLog, &verifier);
  });
  if (!end.ok()) return Report(end.status());
  Auditor(end->coordinator_id, verifier.state).Print();
  return 0;
}

int WalCommand(const ControlOptions& options, const Arguments& arguments) {
  if (arguments.size() == 2 && arguments[0] == "verify") {
    return Verify(options, arguments[1], /*statistics=*/false);
  }
  if (arguments.size() == 2 && arguments[0] == "stats") {
    return Verify(options, arguments[1], /*statistics=*/true);
  }
  if (arguments.size() == 2 && arguments[0] == "dump") return Dump(options, arguments[1]);
  std::cerr << "trothctl: usage: trothctl wal verify|stats|dump DIR [--json] [--name NAME] "
               "[--transaction ID]\n";
  return 2;
}

}  // namespace troth
