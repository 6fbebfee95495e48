// See heuristics.h.
#include "recovery/heuristics.h"

#include <utility>

namespace troth {
namespace {

constexpr std::string_view kForeign = "another coordinator's ";
constexpr std::string_view kEnd = ": ";
constexpr std::string_view kOrderedToCommit = "ordered to commit by ";
constexpr std::string_view kOrderedToAbort = "ordered to abort by ";

}  // namespace

std::string HeuristicText(const std::string& coordinator_id, const TransactionId& id,
                          const std::string& what) {
  if (id.coordinator == coordinator_id) return what;
  return std::string(kForeign) + id.ToString() + std::string(kEnd) + what;
}

std::string OrderText(bool commit, std::string_view who, std::string_view reason) {
  std::string text(commit ? kOrderedToCommit : kOrderedToAbort);
  return text.append(who).append(kEnd).append(reason);
}

bool OrdersCommit(const HeuristicRecord& record) {
  return record.what.starts_with(kOrderedToCommit);
}

TransactionId TransactionOf(const HeuristicRecord& record, const std::string& coordinator_id) {
  std::string_view text = record.what;
  if (text.substr(0, kForeign.size()) == kForeign) {
    text.remove_prefix(kForeign.size());
    Result<TransactionId> id = TransactionId::Parse(text.substr(0, text.find(kEnd)));
    if (id.ok() && id->local == record.id) return *std::move(id);
  }
  return {coordinator_id, record.id};
}

}  // namespace troth
