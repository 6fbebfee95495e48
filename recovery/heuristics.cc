// See heuristics.h.
#include "recovery/heuristics.h"

#include <string_view>
#include <utility>

namespace troth {
namespace {

constexpr std::string_view kForeign = "another coordinator's ";
constexpr std::string_view kEnd = ": ";

}  // namespace

std::string HeuristicText(const std::string& coordinator_id, const TransactionId& id,
                          const std::string& what) {
  if (id.coordinator == coordinator_id) return what;
  return std::string(kForeign) + id.ToString() + std::string(kEnd) + what;
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
