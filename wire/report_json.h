// What administrators are shown of transactions (coordinator.thrift, TransactionReport) as JSON:
// one form for `trothctl --json` and for the console. Changes nothing, and asks nobody.
// docs/operations.md, "For programs".
#pragma once

#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "coordinator_types.h"
#include "participant_types.h"

namespace troth {

// Members are named as in thrift/; what is absent there is null here.
nlohmann::json ToJson(const wire::TransactionReport& report);
nlohmann::json ToJson(const wire::BranchReport& branch);
nlohmann::json ToJson(const wire::PreparedBranch& branch);
nlohmann::json ToJson(const wire::WaitingSession& session);
nlohmann::json ToJson(const wire::TimelineEvent& event);
nlohmann::json ToJson(const wire::Heuristic& heuristic);

// A line (with an indent: several), newline included. Bytes that are no UTF-8 are replaced:
// people's words are cut at a limit, databases have other encodings.
std::string JsonText(const nlohmann::json& value, int indent = -1);

template <typename T>
nlohmann::json ToJson(const std::vector<T>& list) {
  nlohmann::json array = nlohmann::json::array();
  for (const T& one : list) array.push_back(ToJson(one));
  return array;
}

}  // namespace troth
