// Whose transaction a heuristic tells of. A record's id is one of its own log; a person may settle
// branches of another coordinator here too (its log is lost, and this one reaches the participant),
// and then the text begins with the whole id. docs/operations.md, "Settle by hand".
#pragma once

#include <string>
#include <string_view>

#include "common/transaction_id.h"
#include "recovery/log_record.h"

namespace troth {

// The text under which what happened to `id` is recorded in the log of `coordinator_id`.
std::string HeuristicText(const std::string& coordinator_id, const TransactionId& id,
                          const std::string& what);

// The text of a person's order, and whether a record is one to commit.
std::string OrderText(bool commit, std::string_view who, std::string_view reason);
bool OrdersCommit(const HeuristicRecord& record);

// The transaction that a record in the log of `coordinator_id` tells of.
TransactionId TransactionOf(const HeuristicRecord& record, const std::string& coordinator_id);

}  // namespace troth
