// See transaction_id.h.
#include "common/transaction_id.h"

#include <algorithm>
#include <charconv>
#include <limits>

namespace troth {
namespace {

bool IsLowerOrDigit(char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'); }
bool IsHex(char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); }

// The longest text of an epoch and of a local id.
constexpr std::size_t kMaxEpochBytes = 10 + 1 + 8;
constexpr std::size_t kMaxLocalBytes = kMaxEpochBytes + 1 + 20;

// These write to `at`, which has room, and return where it goes on.
template <typename T>
char* PutNumber(T number, char* at) {
  return std::to_chars(at, at + std::numeric_limits<T>::digits10 + 1, number).ptr;
}

char* PutEpoch(const Epoch& epoch, char* at) {
  at = PutNumber(epoch.number, at);
  *at++ = '-';
  for (int shift = 28; shift >= 0; shift -= 4)
    *at++ = "0123456789abcdef"[epoch.random >> shift & 15];
  return at;
}

char* PutLocal(const LocalId& id, char* at) {
  at = PutEpoch(id.epoch, at);
  *at++ = '.';
  return PutNumber(id.sequence, at);
}

bool AllNameChars(std::string_view s) {
  return std::all_of(s.begin(), s.end(), [](char c) { return IsLowerOrDigit(c) || c == '-'; });
}
bool AllHex(std::string_view s) {
  return std::all_of(s.begin(), s.end(), [](char c) { return IsHex(c); });
}

// The whole of `text` as a number without sign or leading zero.
template <typename T>
bool ParseNumber(std::string_view text, T* out, int base = 10) {
  if (text.empty() || (base == 10 && text.size() > 1 && text[0] == '0')) return false;
  if (!AllHex(text)) return false;
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), *out, base);
  return error == std::errc() && end == text.data() + text.size();
}

Status Malformed(std::string_view what, std::string_view text) {
  return Status(Code::kInvalid, std::string(what) + ": '" + std::string(text.substr(0, 80)) + "'");
}

}  // namespace

std::string Epoch::ToString() const {
  char buffer[kMaxEpochBytes];
  return {buffer, PutEpoch(*this, buffer)};
}

std::string LocalId::ToString() const {
  char buffer[kMaxLocalBytes];
  return {buffer, PutLocal(*this, buffer)};
}

std::string TransactionId::ToString() const {
  char buffer[1 + kMaxLocalBytes];
  buffer[0] = '.';
  const std::string_view rest(buffer,
                              static_cast<std::size_t>(PutLocal(local, buffer + 1) - buffer));
  std::string text;
  text.reserve(coordinator.size() + rest.size());
  return text.append(coordinator).append(rest);
}

Result<TransactionId> TransactionId::Parse(std::string_view text) {
  if (text.size() > kMaxTransactionIdBytes) return Malformed("transaction id too long", text);
  const std::size_t first = text.find('.');
  const std::size_t second = first == text.npos ? text.npos : text.find('.', first + 1);
  if (second == text.npos) return Malformed("not a transaction id", text);
  const std::string_view coordinator = text.substr(0, first);
  const std::string_view epoch = text.substr(first + 1, second - first - 1);
  const std::size_t dash = epoch.find('-');
  if (!IsCoordinatorId(coordinator) || dash == epoch.npos || epoch.size() - dash - 1 != 8) {
    return Malformed("not a transaction id", text);
  }
  TransactionId id;
  id.coordinator = coordinator;
  if (!ParseNumber(epoch.substr(0, dash), &id.local.epoch.number) ||
      !ParseNumber(epoch.substr(dash + 1), &id.local.epoch.random, 16) ||
      !ParseNumber(text.substr(second + 1), &id.local.sequence) ||
      id.local.sequence > kMaxSequence) {
    return Malformed("not a transaction id", text);
  }
  return id;
}

bool IsCoordinatorName(std::string_view name) {
  return !name.empty() && name.size() <= kMaxCoordinatorNameBytes && AllNameChars(name) &&
         name.front() != '-' && name.back() != '-';
}

bool IsCoordinatorId(std::string_view id) {
  const std::size_t dash = id.rfind('-');
  if (dash == id.npos || id.size() - dash - 1 != 12) return false;
  const std::string_view mark = id.substr(dash + 1);
  return IsCoordinatorName(id.substr(0, dash)) && AllHex(mark);
}

bool IsParticipantName(std::string_view name) {
  return !name.empty() && name.size() <= kMaxParticipantNameBytes && AllNameChars(name);
}

std::string GidPrefix(std::string_view participant) {
  return "troth:" + std::string(participant) + ":";
}

std::string MakeGid(std::string_view participant, const TransactionId& id) {
  return GidPrefix(participant) + id.ToString();
}

Result<TransactionId> ParseGid(std::string_view participant, std::string_view gid) {
  const std::string prefix = GidPrefix(participant);
  if (!gid.starts_with(prefix)) return Malformed("not a GID of " + std::string(participant), gid);
  return TransactionId::Parse(gid.substr(prefix.size()));
}

}  // namespace troth
