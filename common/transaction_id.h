// Identifiers (docs/protocol.md, "Identifiers"): coordinator, epoch, transaction, GID.
// Values only: knows no role, no wire, no log.
#pragma once

#include <compare>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "common/status.h"

namespace troth {

// One life of a coordinator. `number` grows by at least one with each life; `random` tells
// apart two lives that a restored log gave the same number.
struct Epoch {
  std::uint32_t number = 0;  // 0: none
  std::uint32_t random = 0;
  auto operator<=>(const Epoch&) const = default;
  // `<number>-<8 hex digits>`
  std::string ToString() const;
};

// A transaction, as seen from inside its coordinator.
struct LocalId {
  Epoch epoch;
  std::uint64_t sequence = 0;
  auto operator<=>(const LocalId&) const = default;
  // `<epoch>.<sequence>`
  std::string ToString() const;
};

inline constexpr std::size_t kMaxTransactionIdBytes = 64;
inline constexpr std::size_t kMaxCoordinatorNameBytes = 16;
inline constexpr std::size_t kMaxParticipantNameBytes = 120;
inline constexpr std::size_t kMaxBusinessKeyBytes = 128;  // thrift/coordinator.thrift
// Sequences stay below 10^14, so that the text fits kMaxTransactionIdBytes.
inline constexpr std::uint64_t kMaxSequence = 99'999'999'999'999;

// `<coordinator>.<epoch>.<sequence>`, where coordinator is `<name>-<mark>`, the mark 12 hex
// digits drawn when the log was made.
struct TransactionId {
  std::string coordinator;
  LocalId local;
  auto operator<=>(const TransactionId&) const = default;
  std::string ToString() const;
  // Accepts exactly what ToString produces; kInvalid otherwise, with the reason.
  static Result<TransactionId> Parse(std::string_view text);
};

// [a-z0-9-], 1 to 16 bytes, neither first nor last a '-'.
bool IsCoordinatorName(std::string_view name);
// `<name>-<12 hex digits>`.
bool IsCoordinatorId(std::string_view id);
// [a-z0-9-], 1 to 120 bytes.
bool IsParticipantName(std::string_view name);

// `troth:<participant>:`: every GID of the participant starts so, and no other's does.
std::string GidPrefix(std::string_view participant);
// `troth:<participant>:<transaction id>`, below PostgreSQL's limit of 200 bytes.
std::string MakeGid(std::string_view participant, const TransactionId& id);
// The transaction of a GID with this participant's prefix; kInvalid for any other text.
Result<TransactionId> ParseGid(std::string_view participant, std::string_view gid);

}  // namespace troth

template <>
struct std::hash<troth::LocalId> {
  std::size_t operator()(const troth::LocalId& id) const noexcept {
    std::uint64_t h = id.sequence * 0x9e3779b97f4a7c15u;
    h ^= (std::uint64_t{id.epoch.number} << 32 | id.epoch.random) * 0xc2b2ae3d27d4eb4fu;
    return static_cast<std::size_t>(h ^ (h >> 29));
  }
};
