// What a coordinator tells of transactions (TransactionReport), as text for people. Asks nobody.
// docs/operations.md, "See what is going on".
#pragma once

#include <iosfwd>
#include <vector>

#include "coordinator_types.h"

namespace troth {

// A line each, the oldest first.
void PrintInDoubt(const std::vector<wire::TransactionReport>& list, std::ostream& out);
// Its state and its branches.
void PrintReport(const wire::TransactionReport& report, std::ostream& out);
// A line for each event, drawn between the coordinator and the participants.
void PrintTimeline(const wire::TransactionReport& report, std::ostream& out);
// A line for each participant that could not be asked what it holds, and what to do; whether there
// is one.
bool PrintUnknown(const wire::TransactionReport& report, std::ostream& out);
// Who waits behind each branch, since when, and what ends it.
void PrintWhy(const wire::TransactionReport& report, std::ostream& out);

}  // namespace troth
