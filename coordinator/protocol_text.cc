// Events and actions as text: protocol_events.h, protocol_actions.h.
#include "coordinator/protocol_actions.h"
#include "coordinator/protocol_events.h"

#include <cstdio>

namespace troth {
namespace {

std::string Lsn(std::uint64_t position) {
  char text[32];
  std::snprintf(text, sizeof text, "%X/%X", static_cast<unsigned>(position >> 32),
                static_cast<unsigned>(position));
  return text;
}
std::string P(ParticipantIndex index) { return "p" + std::to_string(index); }
std::string Token(ReplyToken token) { return " ->" + std::to_string(token); }
std::string Text(const Refusal& r) {
  std::string text = std::string(ReasonName(r.reason)) + (r.retryable ? " retryable" : "");
  if (!r.participant.empty()) text += " by " + r.participant;
  return text + " \"" + r.message + "\"";
}
std::string Text(const BranchVote& v) {
  switch (v.ballot) {
    case Ballot::kPrepared:
      return "prepared works=" + std::to_string(v.works) + " xid=" + std::to_string(v.xid) +
             " tli=" + std::to_string(v.timeline) + " lsn=" + Lsn(v.position);
    case Ballot::kReadOnly: return "read-only works=" + std::to_string(v.works);
    case Ballot::kRefused: return "refused " + Text(v.refusal);
    case Ballot::kWorking: return "working";
  }
  return "?";
}
std::string Text(const std::vector<BranchClaim>& branches) {
  std::string text = "[";
  for (const BranchClaim& b : branches) {
    if (text.size() > 1) text += ", ";
    text += b.participant + ":" + b.mark + ":" + std::to_string(b.works);
    if (b.read_only) text += " read-only";
    if (b.carries_vote) text += (b.authentic ? " voted " : " FORGED ") + Text(b.vote);
  }
  return text + "]";
}
std::string Text(const SeenPosition& s) {
  return s.epoch.number == 0 ? "nothing" : s.epoch.ToString() + "@" + std::to_string(s.position);
}
std::string_view FinishedName(Finished finished) {
  switch (finished) {
    case Finished::kDone: return "done";
    case Finished::kWorking: return "working";
    case Finished::kHeuristic: return "heuristic";
    case Finished::kHazard: return "hazard";
  }
  return "?";
}

struct EventText {
  std::string operator()(const CommitAsked& e) const {
    return "commit " + e.id.local.ToString() + " " + Text(e.branches) +
           " deadline=" + std::to_string(e.deadline) +
           (e.wait_applied ? " wait=applied" : " wait=decided") +
           (e.key.empty() ? "" : " key=" + e.key) + Token(e.token);
  }
  std::string operator()(const AbortAsked& e) const {
    return "abort " + e.id.local.ToString() + " " + Text(e.branches) + Token(e.token);
  }
  std::string operator()(const OutcomeAsked& e) const {
    return "outcome? " + e.id.ToString() + " until=" + std::to_string(e.until) + Token(e.token);
  }
  std::string operator()(const KeyAsked& e) const {
    return std::string(e.close ? "close-key " : "key? ") + e.key + Token(e.token);
  }
  std::string operator()(const LeaseAsked& e) const {
    return "lease? " + std::to_string(e.count) + Token(e.token);
  }
  std::string operator()(const EnrolmentAsked& e) const {
    return "enroll " + e.participant.name + " instance=" + e.instance +
           " database=" + std::to_string(e.participant.database.system_identifier) + "/" +
           std::to_string(e.participant.database.oid) + " saw=" + Text(e.seen) + Token(e.token);
  }
  std::string operator()(const Inquired& e) const {
    std::string text = "inquiry of " + e.participant + " saw=" + Text(e.seen) + " [";
    for (const InquiryItem& item : e.items) {
      text += " " + item.id.local.ToString() + " xid=" + std::to_string(item.xid);
    }
    return text + " ]" + Token(e.token);
  }
  std::string operator()(const VoteArrived& e) const {
    return "vote " + P(e.participant) + " " + e.id.ToString() + " " + e.mark + " " + Text(e.vote);
  }
  std::string operator()(const FinishArrived& e) const {
    return std::string(e.commit ? "finished-commit " : "finished-abort ") + P(e.participant) + " " +
           e.id.ToString() + " " + std::string(FinishedName(e.finished));
  }
  std::string operator()(const ParticipantUp& e) const { return "up " + P(e.participant); }
  std::string operator()(const ParticipantDown& e) const { return "down " + P(e.participant); }
  std::string operator()(const RecordsDurable& e) const {
    return "durable " + std::to_string(e.up_to) + " batch=" + std::to_string(e.batch);
  }
  std::string operator()(const LogRoom& e) const { return e.enough ? "log-has-room" : "log-full"; }
  std::string operator()(const TimePassed& e) const { return "time " + std::to_string(e.now); }
  std::string operator()(const DrainAsked& e) const { return "drain" + Token(e.token); }
  std::string operator()(const ForgetAsked& e) const {
    return "forget " + e.participant + Token(e.token);
  }
  std::string operator()(const RebindAsked& e) const {
    return "rebind " + e.participant + Token(e.token);
  }
  std::string operator()(const AcceptGapAsked& e) const {
    return "accept-gap \"" + e.reason + "\"" + Token(e.token);
  }
  std::string operator()(const DiscardReportAsked& e) const {
    return "discard-report " + e.participant + Token(e.token);
  }
  std::string operator()(const HeuristicAsked& e) const {
    return "heuristic " + e.id.ToString() + " " + e.participant + " \"" + e.what + "\"" +
           Token(e.token);
  }
};

struct ActionText {
  std::string operator()(const SendPrepare& a) const {
    return "prepare " + P(a.participant) + " " + a.id.ToString() + " " + a.mark +
           " works=" + std::to_string(a.works);
  }
  std::string operator()(const SendFinish& a) const {
    return "finish " + P(a.participant) + " " + a.id.ToString() +
           (a.commit ? " commit xid=" + std::to_string(a.xid) : " abort");
  }
  std::string operator()(const AppendRecord& a) const {
    return std::string(a.force ? "force " : "append ") + troth::DebugString(a.record);
  }
  std::string operator()(const Connect& a) const {
    return "connect " + P(a.participant) + " " + a.name;
  }
  std::string operator()(const Disconnect& a) const { return "disconnect " + P(a.participant); }
  std::string operator()(const ReplyOutcome& a) const {
    std::string text = "reply" + Token(a.token) + " " + std::string(OutcomeKindName(a.kind));
    for (const std::string& name : a.unapplied) text += " unapplied=" + name;
    if (a.refusal.reason != Reason::kNone) text += " " + Text(a.refusal);
    return text;
  }
  std::string operator()(const ReplyRefused& a) const {
    return "reply" + Token(a.token) + " refused " + Text(a.refusal);
  }
  std::string operator()(const ReplyLease& a) const {
    return "reply" + Token(a.token) + " lease " + a.epoch.ToString() + " [" +
           std::to_string(a.first) + ", " + std::to_string(a.first + a.count) + ") until " +
           std::to_string(a.end);
  }
  std::string operator()(const ReplyEnrolled& a) const {
    return "reply" + Token(a.token) + " enrolled " + a.participant;
  }
  std::string operator()(const ReplyAnswers& a) const {
    std::string text = "reply" + Token(a.token) + " answers";
    for (const InquiryAnswer& answer : a.answers) {
      text +=
          " " + answer.id.local.ToString() + "=" + std::string(InDoubtAnswerName(answer.answer));
      if (answer.answer == InDoubtAnswer::kCommitted) {
        text += answer.commit ? ":commit" : ":other-xid-abort";
      }
    }
    return text;
  }
  std::string operator()(const ReplyDone& a) const { return "reply" + Token(a.token) + " done"; }
};

}  // namespace

std::string_view ReasonName(Reason reason) {
  static constexpr std::string_view kNames[] = {"none",
                                                "invalid",
                                                "version-mismatch",
                                                "overloaded",
                                                "deadline",
                                                "no-such-branch",
                                                "out-of-number",
                                                "ended",
                                                "conflict",
                                                "database",
                                                "database-unavailable",
                                                "not-mine",
                                                "not-leased",
                                                "other-participants",
                                                "unknown-participant",
                                                "not-serving",
                                                "forbidden",
                                                "name-taken",
                                                "key-taken",
                                                "stale-epoch",
                                                "application"};
  const auto i = static_cast<std::size_t>(reason);
  return i < std::size(kNames) ? kNames[i] : "?";
}

std::string_view OutcomeKindName(OutcomeKind kind) {
  switch (kind) {
    case OutcomeKind::kCommitted: return "committed";
    case OutcomeKind::kAborted: return "aborted";
    case OutcomeKind::kReadOnly: return "read-only";
    case OutcomeKind::kPending: return "pending";
    case OutcomeKind::kExpired: return "expired";
  }
  return "?";
}

std::string DebugString(const Event& event) { return std::visit(EventText{}, event); }
std::string DebugString(const Action& action) { return std::visit(ActionText{}, action); }

}  // namespace troth
