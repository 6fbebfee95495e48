// See vote_mac.h.
#include "common/vote_mac.h"

#include <memory>

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>

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

struct FreeMac {
  void operator()(EVP_MAC_CTX* context) const { EVP_MAC_CTX_free(context); }
};
using MacContext = std::unique_ptr<EVP_MAC_CTX, FreeMac>;

MacContext NewMacContext() {
  EVP_MAC* const algorithm = EVP_MAC_fetch(nullptr, "HMAC", nullptr);
  TROTH_CHECK(algorithm != nullptr);
  MacContext context(EVP_MAC_CTX_new(algorithm));
  EVP_MAC_free(algorithm);  // the context holds it
  char digest[] = "SHA256";
  const OSSL_PARAM parameters[] = {
      OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, digest, 0),
      OSSL_PARAM_construct_end()};
  TROTH_CHECK(context != nullptr && EVP_MAC_CTX_set_params(context.get(), parameters) == 1);
  return context;
}

const unsigned char* Bytes(std::string_view text) {
  return reinterpret_cast<const unsigned char*>(text.data());
}

std::string Hmac(std::string_view secret, std::string_view bytes) {
  // Looking the algorithm up costs twice as much as the code itself.
  thread_local const MacContext context = NewMacContext();
  std::string mac(kVoteMacBytes, '\0');
  std::size_t size = 0;
  TROTH_CHECK(EVP_MAC_init(context.get(), Bytes(secret), secret.size(), nullptr) == 1 &&
              EVP_MAC_update(context.get(), Bytes(bytes), bytes.size()) == 1 &&
              EVP_MAC_final(context.get(), reinterpret_cast<unsigned char*>(mac.data()), &size,
                            mac.size()) == 1 &&
              size == kVoteMacBytes);
  return mac;
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
