// Fuzz target: texts from outside: ids and GIDs, addresses, votes under a mac, timeline histories,
// statement files, names of log files. What is accepted is written as it was read; a mac that was
// not made with the secret is never accepted.
#include <cstdint>
#include <string>

#include "client/connection.h"
#include "common/check.h"
#include "common/transaction_id.h"
#include "common/vote_mac.h"
#include "participant/evidence.h"
#include "participant/statement_file.h"
#include "recovery/wal_format.h"

namespace troth {
namespace {

void TryIds(std::string_view text) {
  const Result<TransactionId> id = TransactionId::Parse(text);
  if (id.ok()) {
    TROTH_CHECK(id->ToString() == text && text.size() <= kMaxTransactionIdBytes);
    TROTH_CHECK(IsCoordinatorId(id->coordinator));
    const std::string gid = MakeGid("bank-a", *id);
    TROTH_CHECK(gid.size() < 200);
    const Result<TransactionId> back = ParseGid("bank-a", gid);
    TROTH_CHECK(back.ok() && *back == *id && !ParseGid("bank", gid).ok());
  }
  const Result<TransactionId> of_gid = ParseGid("bank-a", text);
  if (of_gid.ok()) TROTH_CHECK(MakeGid("bank-a", *of_gid) == text);
  (void)IsCoordinatorName(text);
  (void)IsParticipantName(text);
}

void TryMac(std::string_view bytes) {
  const std::string_view mac = bytes.substr(0, kVoteMacBytes);
  const std::string_view rest = bytes.substr(mac.size());
  const std::size_t middle = rest.size() / 2;
  VoteClaims claims;
  claims.transaction_id = rest.substr(0, middle);
  claims.participant = rest.substr(middle);
  claims.system_identifier = mac;
  claims.works = static_cast<std::int32_t>(rest.size());
  const std::string made = MakeVoteMac("secret", claims);
  TROTH_CHECK(CheckVoteMac("secret", claims, made));
  TROTH_CHECK(CheckVoteMac("secret", claims, mac) == (mac == made));
  // Where one text ends and the next begins is covered too.
  if (middle > 0 && middle < rest.size()) {
    VoteClaims moved = claims;
    moved.transaction_id = rest.substr(0, middle - 1);
    moved.participant = rest.substr(middle - 1);
    TROTH_CHECK(!CheckVoteMac("secret", moved, made));
  }
}

void TryAddress(std::string_view text) {
  (void)Address::Parse(text);
  (void)Address::ParseList(text);
}

}  // namespace
}  // namespace troth

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
  switch (data[0]) {
    case 'i': troth::TryIds(text); break;
    case 'm': troth::TryMac(text); break;
    case 'a': troth::TryAddress(text); break;
    case 't': (void)troth::ParseTimelineHistory(text); break;
    case 's':
      (void)troth::ParseStatements(text);
      (void)troth::WhyNotInBranch(text);
      break;
    case 'f':
      for (const auto kind : {troth::WalFileKind::kSegment, troth::WalFileKind::kCheckpoint}) {
        const auto number = troth::ParseWalFileName(kind, text);
        if (number) TROTH_CHECK(troth::WalFileName(kind, *number) == text);
      }
      break;
    default: break;
  }
  return 0;
}
