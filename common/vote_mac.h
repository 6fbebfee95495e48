// The message authentication code of a vote that a client carries (early prepare): made by the
// participant, checked by the coordinator. Knows no wire type. docs/protocol.md, "Messages".
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace troth {

// All that the code covers. A vote of another transaction, participant, database, branch or
// number of works has another code.
struct VoteClaims {
  std::string_view transaction_id;
  std::string_view participant;
  std::string_view system_identifier;
  std::int64_t database_oid = 0;
  std::int64_t xid = 0;
  std::int32_t timeline = 0;
  std::int64_t position = 0;
  std::int32_t works = 0;
};

inline constexpr std::size_t kVoteMacBytes = 32;

// HMAC-SHA-256 under `secret` of: "troth vote 1", then each field of VoteClaims in its order,
// a text as 4 bytes of length and its bytes, a number as 8 bytes, big-endian all.
std::string MakeVoteMac(std::string_view secret, const VoteClaims& claims);

// The secret of one participant in one epoch, from the epoch's: HMAC-SHA-256 of its name. The
// same at each enrolment, never stored.
std::string ParticipantSecret(std::string_view epoch_secret, std::string_view participant);

// Takes the same time whether and wherever it differs.
bool CheckVoteMac(std::string_view secret, const VoteClaims& claims, std::string_view mac);

}  // namespace troth
