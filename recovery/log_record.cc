// See log_record.h. One EncodeBody/DecodeBody pair per record, in the order of LogRecord.
#include "recovery/log_record.h"

#include <cinttypes>
#include <cstdio>

#include "common/check.h"
#include "common/codec.h"

namespace troth {

DatabaseAddress DatabaseAddress::Of(const std::string& text) {
  const std::size_t port = text.rfind(':');  // a socket's folder may have an @
  const std::size_t at = port == std::string::npos ? port : text.find('@', port);
  if (at == std::string::npos) return {text};
  return {text.substr(0, at), text.substr(at + 1)};
}

std::string DatabaseAddress::ToString() const {
  return machine.empty() ? server : server + "@" + machine;
}

bool DatabaseAddress::MayBe(const DatabaseAddress& other) const {
  return server == other.server &&
         (machine.empty() || other.machine.empty() || machine == other.machine);
}
namespace {

// The first byte of a record. Part of the format: never renumbered.
enum class Tag : std::uint8_t {
  kCommit = 1,
  kEnd = 2,
  kEpoch = 3,
  kReserve = 4,
  kParticipant = 5,
  kHeuristic = 6,
  kKey = 7,
  kGap = 8,
  kOutcomes = 9,
  kTimeMark = 10,
  kLine = 11,
  kDecidedAt = 12,
};

void PutTag(Tag tag, std::string* out) { out->push_back(static_cast<char>(tag)); }
void PutBool(bool value, std::string* out) { out->push_back(value ? 1 : 0); }

void PutTime(std::int64_t ms, std::string* out) {
  TROTH_CHECK(ms >= 0 && ms <= kMaxTimeMs);
  PutVarint(static_cast<std::uint64_t>(ms), out);
}

bool TakeTime(Decoder* in, std::int64_t* ms) {
  std::uint64_t value;
  if (!in->TakeVarint(&value) || value > std::uint64_t{kMaxTimeMs}) return false;
  *ms = static_cast<std::int64_t>(value);
  return true;
}

void PutText(const std::string& text, std::string* out) {
  TROTH_CHECK(text.size() <= kMaxTextBytes);
  PutBytes(text, out);
}

void PutEpoch(const Epoch& epoch, std::string* out) {
  PutVarint(epoch.number, out);
  PutFixed32(epoch.random, out);
}

bool TakeEpoch(Decoder* in, Epoch* epoch) {
  return in->TakeVarint32(&epoch->number) && in->TakeFixed32(&epoch->random);
}

void PutId(const LocalId& id, std::string* out) {
  PutEpoch(id.epoch, out);
  PutVarint(id.sequence, out);
}

bool TakeId(Decoder* in, LocalId* id) {
  return TakeEpoch(in, &id->epoch) && in->TakeVarint(&id->sequence);
}

void PutDatabase(const DatabaseId& database, std::string* out) {
  PutFixed64(database.system_identifier, out);
  PutVarint(database.oid, out);
}

bool TakeDatabase(Decoder* in, DatabaseId* database) {
  return in->TakeFixed64(&database->system_identifier) && in->TakeVarint32(&database->oid);
}

void EncodeBody(const CommitRecord& r, std::string* out) {
  TROTH_CHECK(r.branches.size() <= kMaxBranches && r.key.size() <= kMaxRecordKeyBytes);
  PutTag(Tag::kCommit, out);
  PutId(r.id, out);
  PutVarint(r.branches.size(), out);
  for (const BranchRecord& b : r.branches) {
    PutVarint(b.participant, out);
    PutDatabase(b.database, out);
    PutVarint(b.xid, out);
    PutVarint(b.timeline, out);
    PutVarint(b.position, out);
  }
  PutBytes(r.key, out);
}

bool DecodeBody(Decoder* in, CommitRecord* r) {
  std::uint64_t count;
  if (!TakeId(in, &r->id) || !in->TakeVarint(&count) || count > kMaxBranches) return false;
  constexpr std::size_t kLeastBranchBytes = 13;
  if (count * kLeastBranchBytes > in->rest().size()) return false;
  r->branches.resize(count);
  for (BranchRecord& b : r->branches) {
    if (!in->TakeVarint32(&b.participant) || !TakeDatabase(in, &b.database) ||
        !in->TakeVarint(&b.xid) || !in->TakeVarint32(&b.timeline) || !in->TakeVarint(&b.position)) {
      return false;
    }
  }
  return in->TakeBytes(&r->key, kMaxRecordKeyBytes);
}

void EncodeBody(const EndRecord& r, std::string* out) {
  PutTag(Tag::kEnd, out);
  PutId(r.id, out);
}

bool DecodeBody(Decoder* in, EndRecord* r) { return TakeId(in, &r->id); }

void EncodeBody(const EpochRecord& r, std::string* out) {
  PutTag(Tag::kEpoch, out);
  PutEpoch(r.epoch, out);
  PutVarint(r.previous_end, out);
}

bool DecodeBody(Decoder* in, EpochRecord* r) {
  return TakeEpoch(in, &r->epoch) && in->TakeVarint(&r->previous_end);
}

void EncodeBody(const ReserveRecord& r, std::string* out) {
  PutTag(Tag::kReserve, out);
  PutEpoch(r.epoch, out);
  PutVarint(r.end, out);
}

bool DecodeBody(Decoder* in, ReserveRecord* r) {
  return TakeEpoch(in, &r->epoch) && in->TakeVarint(&r->end);
}

void EncodeBody(const ParticipantRecord& r, std::string* out) {
  PutTag(Tag::kParticipant, out);
  PutVarint(r.index, out);
  PutText(r.name, out);
  PutDatabase(r.database, out);
  PutText(r.database_address, out);
  PutText(r.certificate, out);
  PutText(r.peer_host, out);
  PutVarint(r.peer_port, out);
  PutBool(r.forgotten, out);
  PutBool(r.open, out);
  PutEpoch(r.discarded.epoch, out);
  PutVarint(r.discarded.position, out);
}

bool DecodeBody(Decoder* in, ParticipantRecord* r) {
  return in->TakeVarint32(&r->index) && in->TakeBytes(&r->name, kMaxTextBytes) &&
         TakeDatabase(in, &r->database) && in->TakeBytes(&r->database_address, kMaxTextBytes) &&
         in->TakeBytes(&r->certificate, kMaxTextBytes) &&
         in->TakeBytes(&r->peer_host, kMaxTextBytes) && in->TakeVarint32(&r->peer_port) &&
         in->TakeBool(&r->forgotten) && in->TakeBool(&r->open) &&
         TakeEpoch(in, &r->discarded.epoch) && in->TakeVarint(&r->discarded.position);
}

void EncodeBody(const HeuristicRecord& r, std::string* out) {
  PutTag(Tag::kHeuristic, out);
  PutId(r.id, out);
  PutVarint(r.participant, out);
  PutBool(r.hazard, out);
  PutText(r.what, out);
  PutTime(r.at_unix_ms, out);
}

bool DecodeBody(Decoder* in, HeuristicRecord* r) {
  return TakeId(in, &r->id) && in->TakeVarint32(&r->participant) && in->TakeBool(&r->hazard) &&
         in->TakeBytes(&r->what, kMaxTextBytes) && TakeTime(in, &r->at_unix_ms);
}

void EncodeBody(const KeyRecord& r, std::string* out) {
  TROTH_CHECK(r.key.size() <= kMaxRecordKeyBytes);
  PutTag(Tag::kKey, out);
  PutBytes(r.key, out);
  PutBool(r.closed, out);
  PutId(r.id, out);
  PutTime(r.at_ms, out);
}

bool DecodeBody(Decoder* in, KeyRecord* r) {
  return in->TakeBytes(&r->key, kMaxRecordKeyBytes) && in->TakeBool(&r->closed) &&
         TakeId(in, &r->id) && TakeTime(in, &r->at_ms);
}

void EncodeBody(const GapRecord& r, std::string* out) {
  PutTag(Tag::kGap, out);
  PutVarint(r.first, out);
  PutVarint(r.last, out);
  PutText(r.reason, out);
}

bool DecodeBody(Decoder* in, GapRecord* r) {
  return in->TakeVarint32(&r->first) && in->TakeVarint32(&r->last) &&
         in->TakeBytes(&r->reason, kMaxTextBytes);
}

void EncodeBody(const OutcomesRecord& r, std::string* out) {
  TROTH_CHECK(r.bitmap.size() <= kMaxOutcomesBytes);
  PutTag(Tag::kOutcomes, out);
  PutEpoch(r.epoch, out);
  PutBytes(r.bitmap, out);
}

bool DecodeBody(Decoder* in, OutcomesRecord* r) {
  return TakeEpoch(in, &r->epoch) && in->TakeBytes(&r->bitmap, kMaxOutcomesBytes);
}

void EncodeBody(const TimeMarkRecord& r, std::string* out) {
  PutTag(Tag::kTimeMark, out);
  PutTime(r.at_ms, out);
  PutId(r.id, out);
}

bool DecodeBody(Decoder* in, TimeMarkRecord* r) {
  return TakeTime(in, &r->at_ms) && TakeId(in, &r->id);
}

void EncodeBody(const LineRecord& r, std::string* out) {
  PutTag(Tag::kLine, out);
  PutId(r.id, out);
}

bool DecodeBody(Decoder* in, LineRecord* r) { return TakeId(in, &r->id); }

void EncodeBody(const DecidedAtRecord& r, std::string* out) {
  PutTag(Tag::kDecidedAt, out);
  PutId(r.id, out);
  PutTime(r.at_ms, out);
}

bool DecodeBody(Decoder* in, DecidedAtRecord* r) {
  return TakeId(in, &r->id) && TakeTime(in, &r->at_ms);
}

template <typename Record>
Result<LogRecord> DecodeAs(Decoder* decoder, std::string_view* in) {
  LogRecord record{std::in_place_type<Record>};
  if (!DecodeBody(decoder, std::get_if<Record>(&record))) {
    return Status(Code::kCorrupt, "a record of type " + std::to_string(record.index() + 1) +
                                      " is malformed or cut short");
  }
  *in = decoder->rest();
  return record;
}

// Names of control characters and quotes never reach a terminal raw.
std::string Quoted(std::string_view text) {
  std::string out = "'";
  for (const char c : text) {
    char escaped[8];
    if (c == '\'' || c == '\\' || static_cast<unsigned char>(c) < 0x20 || c == 0x7f) {
      std::snprintf(escaped, sizeof escaped, "\\x%02x", static_cast<unsigned char>(c));
      out += escaped;
    } else {
      out += c;
    }
  }
  return out + "'";
}

std::string DatabaseText(const DatabaseId& database) {
  return std::to_string(database.system_identifier) + "/" + std::to_string(database.oid);
}

std::string Text(const CommitRecord& r) {
  std::string out = "commit " + r.id.ToString() + " [";
  for (const BranchRecord& b : r.branches) {
    char buffer[96];
    std::snprintf(buffer, sizeof buffer, "%u xid=%" PRIu64 " tli=%u lsn=%X/%X", b.participant,
                  b.xid, b.timeline, static_cast<std::uint32_t>(b.position >> 32),
                  static_cast<std::uint32_t>(b.position));
    if (&b != &r.branches.front()) out += ", ";
    out += buffer;
  }
  out += "]";
  if (!r.key.empty()) out += " key=" + Quoted(r.key);
  return out;
}

std::string Text(const EndRecord& r) { return "end " + r.id.ToString(); }

std::string Text(const EpochRecord& r) {
  return "epoch " + r.epoch.ToString() + " previous_end=" + std::to_string(r.previous_end);
}

std::string Text(const ReserveRecord& r) {
  return "reserve " + r.epoch.ToString() + " end=" + std::to_string(r.end);
}

std::string Text(const ParticipantRecord& r) {
  std::string out = "participant " + std::to_string(r.index) + " " + Quoted(r.name) +
                    " database=" + DatabaseText(r.database) + " at=" + Quoted(r.database_address) +
                    " peer=" + Quoted(r.peer_host) + ":" + std::to_string(r.peer_port);
  if (!r.certificate.empty()) out += " certificate=" + Quoted(r.certificate);
  if (r.forgotten) out += " forgotten";
  if (r.open) out += " open";
  if (r.discarded != SeenPosition()) {
    out +=
        " discarded=" + r.discarded.epoch.ToString() + "@" + std::to_string(r.discarded.position);
  }
  return out;
}

std::string Text(const HeuristicRecord& r) {
  return std::string(r.hazard ? "hazard " : "heuristic ") + r.id.ToString() + " at " +
         std::to_string(r.participant) + " " + Quoted(r.what);
}

std::string Text(const KeyRecord& r) {
  return "key " + Quoted(r.key) + (r.closed ? " closed" : " " + r.id.ToString());
}

std::string Text(const GapRecord& r) {
  return "gap " + std::to_string(r.first) + ".." + std::to_string(r.last) + " " + Quoted(r.reason);
}

std::string Text(const OutcomesRecord& r) {
  return "outcomes " + r.epoch.ToString() + " " + std::to_string(r.bitmap.size()) + " bytes";
}

std::string Text(const TimeMarkRecord& r) {
  return "time_mark " + std::to_string(r.at_ms) + "ms " + r.id.ToString();
}

std::string Text(const LineRecord& r) { return "line " + r.id.ToString(); }

std::string Text(const DecidedAtRecord& r) {
  return "decided_at " + r.id.ToString() + " " + std::to_string(r.at_ms) + "ms";
}

}  // namespace

void EncodeRecord(const LogRecord& record, std::string* out) {
  std::visit([out](const auto& r) { EncodeBody(r, out); }, record);
}

std::size_t EncodedSizeBound(const LogRecord& record) {
  // Of any record: tag, an id, four more numbers, two booleans. Of a branch: six numbers.
  constexpr std::size_t kFixedPart = 1 + 20 + 4 * kMaxVarintBytes + 2;
  constexpr std::size_t kBranch = 5 + 8 + 5 + 10 + 5 + 10;
  struct Variable {
    std::size_t operator()(const CommitRecord& r) const {
      return r.branches.size() * kBranch + r.key.size() + kMaxVarintBytes;
    }
    std::size_t operator()(const ParticipantRecord& r) const {
      return r.name.size() + r.database_address.size() + r.certificate.size() + r.peer_host.size() +
             4 * kMaxVarintBytes;
    }
    std::size_t operator()(const HeuristicRecord& r) const { return r.what.size(); }
    std::size_t operator()(const KeyRecord& r) const { return r.key.size(); }
    std::size_t operator()(const GapRecord& r) const { return r.reason.size(); }
    std::size_t operator()(const OutcomesRecord& r) const { return r.bitmap.size(); }
    std::size_t operator()(const EndRecord&) const { return 0; }
    std::size_t operator()(const EpochRecord&) const { return 0; }
    std::size_t operator()(const ReserveRecord&) const { return 0; }
    std::size_t operator()(const TimeMarkRecord&) const { return 0; }
    std::size_t operator()(const LineRecord&) const { return 0; }
    std::size_t operator()(const DecidedAtRecord&) const { return 0; }
  };
  return kFixedPart + std::visit(Variable(), record);
}

Result<LogRecord> DecodeRecord(std::string_view* in) {
  Decoder decoder(*in);
  std::uint8_t tag = 0;
  if (!decoder.TakeByte(&tag)) return Status(Code::kCorrupt, "no record: no bytes are left");
  switch (static_cast<Tag>(tag)) {
    case Tag::kCommit: return DecodeAs<CommitRecord>(&decoder, in);
    case Tag::kEnd: return DecodeAs<EndRecord>(&decoder, in);
    case Tag::kEpoch: return DecodeAs<EpochRecord>(&decoder, in);
    case Tag::kReserve: return DecodeAs<ReserveRecord>(&decoder, in);
    case Tag::kParticipant: return DecodeAs<ParticipantRecord>(&decoder, in);
    case Tag::kHeuristic: return DecodeAs<HeuristicRecord>(&decoder, in);
    case Tag::kKey: return DecodeAs<KeyRecord>(&decoder, in);
    case Tag::kGap: return DecodeAs<GapRecord>(&decoder, in);
    case Tag::kOutcomes: return DecodeAs<OutcomesRecord>(&decoder, in);
    case Tag::kTimeMark: return DecodeAs<TimeMarkRecord>(&decoder, in);
    case Tag::kLine: return DecodeAs<LineRecord>(&decoder, in);
    case Tag::kDecidedAt: return DecodeAs<DecidedAtRecord>(&decoder, in);
  }
  return Status(Code::kCorrupt, "no record: unknown type " + std::to_string(tag));
}

std::string DebugString(const LogRecord& record) {
  return std::visit([](const auto& r) { return Text(r); }, record);
}

}  // namespace troth
