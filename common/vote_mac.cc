// See vote_mac.h.
#include "common/vote_mac.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

#include "common/check.h"

namespace troth {
namespace {

constexpr std::string_view kPurpose = "troth vote 1";

void AppendNumber(std::uint64_t number, int bytes, std::string* out) {
  for (int shift = (bytes - 1) * 8; shift >= 0; shift -= 8) {
    out->push_back(static_cast<char>(number >> shift & 0xff));
  }
}

void AppendText(std::string_view text, std::string* out) {
  AppendNumber(text.size(), 4, out);
  out->append(text);
}

std::string Covered(const VoteClaims& claims) {
  std::string bytes(kPurpose);
  AppendText(claims.transaction_id, &bytes);
  AppendText(claims.participant, &bytes);
  AppendText(claims.system_identifier, &bytes);
  AppendNumber(static_cast<std::uint64_t>(claims.database_oid), 8, &bytes);
  AppendNumber(static_cast<std::uint64_t>(claims.xid), 8, &bytes);
  AppendNumber(static_cast<std::uint64_t>(std::int64_t{claims.timeline}), 8, &bytes);
  AppendNumber(static_cast<std::uint64_t>(claims.position), 8, &bytes);
  AppendNumber(static_cast<std::uint64_t>(std::int64_t{claims.works}), 8, &bytes);
  return bytes;
}

std::string Hmac(std::string_view secret, std::string_view bytes) {
  unsigned char mac[EVP_MAX_MD_SIZE];
  unsigned int size = 0;
  TROTH_CHECK(HMAC(EVP_sha256(), secret.data(), static_cast<int>(secret.size()),
                   reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size(), mac,
                   &size) != nullptr);
  TROTH_CHECK(size == kVoteMacBytes);
  return std::string(reinterpret_cast<const char*>(mac), size);
}

}  // namespace

std::string MakeVoteMac(std::string_view secret, const VoteClaims& claims) {
  return Hmac(secret, Covered(claims));
}

std::string ParticipantSecret(std::string_view epoch_secret, std::string_view participant) {
  return Hmac(epoch_secret, participant);
}

bool CheckVoteMac(std::string_view secret, const VoteClaims& claims, std::string_view mac) {
  if (mac.size() != kVoteMacBytes) return false;
  return CRYPTO_memcmp(MakeVoteMac(secret, claims).data(), mac.data(), kVoteMacBytes) == 0;
}

}  // namespace troth
