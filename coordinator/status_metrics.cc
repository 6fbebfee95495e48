// See status_metrics.h.
#include "coordinator/status_metrics.h"

#include <string>

namespace troth {

const char* StateOf(const CommitProtocol& protocol) {
  return !protocol.suspicion().empty() ? "log-suspect"
         : protocol.draining()         ? "draining"
         : protocol.log_full()         ? "log-full"
         : protocol.serving()          ? "serving"
                                       : "opening";
}

void FillTransactions(const CommitProtocol& protocol, MetricPage* page) {
  const auto counters = protocol.counters();
  const char* const ended = "Transactions that ended in this life of the coordinator.";
  page->Counter("troth_transactions_total", ended, static_cast<double>(counters.committed),
                {{"outcome", "committed"}});
  page->Counter("troth_transactions_total", ended, static_cast<double>(counters.aborted),
                {{"outcome", "aborted"}});
  page->Counter("troth_transactions_total", ended, static_cast<double>(counters.read_only),
                {{"outcome", "read-only"}});
  page->Gauge("troth_transactions_in_flight", "Asked to commit, and not decided.",
              static_cast<double>(protocol.undecided()));
  page->Gauge("troth_transactions_unacknowledged", "Decided, and not applied everywhere.",
              static_cast<double>(protocol.unacknowledged()));
  const char* const why = "Transactions that were aborted in this life, by reason.";
  for (const auto& [reason, count] : counters.aborted_by_reason) {
    page->Counter("troth_aborts_total", why, static_cast<double>(count),
                  {{"reason", std::string(ReasonName(reason))}});
  }
  const char* const messages =
      "Messages to participants; with troth_participant_calls_total: how many share a call.";
  page->Counter("troth_messages_total", messages, static_cast<double>(counters.prepares_sent),
                {{"message", "prepare"}});
  page->Counter("troth_messages_total", messages, static_cast<double>(counters.finishes_sent),
                {{"message", "finish"}});
  page->Counter("troth_retries_total", "Prepares and finishes that were asked again.",
                static_cast<double>(counters.retries));
  page->Counter("troth_inquiries_total", "Prepared branches that participants asked about.",
                static_cast<double>(counters.inquiries));
  page->Counter("troth_early_votes_total", "Votes that clients carried.",
                static_cast<double>(counters.early_votes));
  page->Gauge("troth_state", "1 for the state that the coordinator is in.", 1,
              {{"state", StateOf(protocol)}});
  const auto oldest = protocol.List(1);
  page->Gauge("troth_oldest_transaction_seconds",
              "Age of the oldest transaction that is in flight or not acknowledged.",
              oldest.empty() ? 0 : static_cast<double>(protocol.now() - oldest[0].began) / 1e3);
  int hazards = 0;
  for (const HeuristicRecord& record : protocol.state().heuristics()) hazards += record.hazard;
  const auto all = static_cast<int>(protocol.state().heuristics().size());
  page->Gauge("troth_heuristics",
              "Branches settled by a person's order, or ended against the decision.",
              all - hazards);
  page->Gauge("troth_hazards", "Branches of which the evidence does not tell how they ended.",
              hazards);
}

void FillParticipants(const CommitProtocol& protocol, const ThriftChannel& channel,
                      MetricPage* page) {
  const Registry& registry = protocol.registry();
  for (ParticipantIndex i = 0; i < registry.size(); ++i) {
    const Registry::Participant& p = registry.at(i);
    if (p.record.forgotten) continue;
    const MetricLabels name = {{"participant", p.record.name}};
    page->Gauge("troth_participant_up", "1 while the coordinator is connected to it.",
                channel.Up(i) ? 1 : 0, name);
    page->Gauge("troth_participant_down_seconds", "Since when there is no connection; 0: there is.",
                static_cast<double>(channel.Where(i).down_ms) / 1e3, name);
    page->Gauge("troth_participant_unacknowledged",
                "Transactions decided here and not acknowledged there.",
                static_cast<double>(p.unacknowledged), name);
  }
}

void FillCalls(const ThriftChannel::Stats& calls, MetricPage* page) {
  const char* const help = "Calls to participants; each carries what was waiting.";
  page->Counter("troth_participant_calls_total", help, static_cast<double>(calls.prepare_calls),
                {{"call", "prepare"}});
  page->Counter("troth_participant_calls_total", help, static_cast<double>(calls.finish_calls),
                {{"call", "finish"}});
  page->Counter("troth_participant_connects_total", "Times a participant was connected to.",
                static_cast<double>(calls.reconnects));
  page->Gauge("troth_channel_queue", "Messages to participants that wait for a call to end.",
              static_cast<double>(calls.queued));
}

}  // namespace troth
