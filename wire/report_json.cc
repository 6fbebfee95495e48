// See report_json.h.
#include "wire/report_json.h"

namespace troth {

using nlohmann::json;

std::string JsonText(const json& value, int indent) {
  return value.dump(indent, ' ', false, json::error_handler_t::replace) + "\n";
}

json ToJson(const wire::WaitingSession& session) {
  return {{"pid", session.pid},
          {"user", session.user},
          {"application", session.application},
          {"waiting_ms", session.waiting_ms},
          {"lock", session.lock},
          {"behind", session.behind},
          {"statement", session.statement}};
}

json ToJson(const wire::PreparedBranch& branch) {
  return {{"gid", branch.gid},
          {"transaction_id", branch.transaction_id},
          {"xid", branch.xid},
          {"prepared_ms", branch.prepared_ms},
          {"owner", branch.owner},
          {"database", branch.database},
          {"xmin_age", branch.xmin_age},
          {"holds_vacuum", branch.holds_vacuum},
          {"relations", branch.relations},
          {"waiting", ToJson(branch.waiting)}};
}

json ToJson(const wire::BranchReport& branch) {
  json out = {{"participant", branch.participant},
              {"gid", branch.gid},
              {"state", branch.state},
              {"up", branch.up},
              {"down_ms", branch.down_ms},
              {"address", branch.address},
              {"database_address", branch.database_address},
              {"xid", nullptr},
              {"timeline", nullptr},
              {"position", nullptr},
              {"prepared", nullptr},
              {"unseen", nullptr}};
  if (branch.__isset.xid) out["xid"] = branch.xid;
  if (branch.__isset.timeline) out["timeline"] = branch.timeline;
  if (branch.__isset.position) out["position"] = branch.position;
  if (branch.__isset.prepared) out["prepared"] = ToJson(branch.prepared);
  if (branch.__isset.unseen) out["unseen"] = branch.unseen;
  return out;
}

json ToJson(const wire::TimelineEvent& event) {
  return {{"ago_us", event.ago_us}, {"participant", event.participant}, {"what", event.what}};
}

json ToJson(const wire::Heuristic& heuristic) {
  return {{"transaction_id", heuristic.transaction_id},
          {"participant", heuristic.participant},
          {"hazard", heuristic.hazard},
          {"what", heuristic.what},
          {"at_unix_ms", heuristic.at_unix_ms}};
}

json ToJson(const wire::TransactionReport& report) {
  json out = {{"transaction_id", report.transaction_id},
              {"state", report.state},
              {"in_doubt", report.in_doubt},
              {"age_ms", report.age_ms},
              {"why", report.why},
              {"branches", ToJson(report.branches)},
              {"timeline", ToJson(report.timeline)},
              {"heuristics", ToJson(report.heuristics)},
              {"key", nullptr}};
  if (report.__isset.key) out["key"] = report.key;
  return out;
}

}  // namespace troth
