// See wire_values.h.
#include "coordinator/wire_values.h"

#include <algorithm>
#include <charconv>
#include <cstring>

namespace troth {
namespace {

// Thrift keeps whatever number came, also one that its enumeration lacks; to read such a value
// as what it pretends to be is undefined.
template <typename Enumeration>
int NumberOf(const Enumeration& value) {
  static_assert(sizeof value == sizeof(int));
  int number;
  std::memcpy(&number, &value, sizeof number);
  return number;
}

}  // namespace

wire::Sender SenderOf(const std::string& coordinator_id, const Coordinator& coordinator) {
  wire::Sender sender;
  sender.coordinator = coordinator_id;
  sender.epoch = coordinator.epoch().number;
  sender.epoch_random = coordinator.epoch().random;
  sender.position = static_cast<std::int64_t>(coordinator.durable_batch());
  return sender;
}

wire::PrepareRequest ToWire(const std::string& coordinator_id, const SendPrepare& prepare,
                            RunningMs now) {
  wire::PrepareRequest request;
  request.transaction_id = TransactionId{coordinator_id, prepare.id}.ToString();
  request.mark = prepare.mark;
  request.works = static_cast<std::int32_t>(prepare.works);
  request.deadline_ms = std::max<RunningMs>(prepare.deadline - now, 1);
  request.instance = prepare.instance;
  return request;
}

wire::FinishRequest ToWire(const std::string& coordinator_id, const SendFinish& finish) {
  wire::FinishRequest request;
  request.transaction_id = TransactionId{coordinator_id, finish.id}.ToString();
  request.commit = finish.commit;
  if (finish.commit) {
    request.__set_xid(static_cast<std::int64_t>(finish.xid));
    request.__set_timeline(static_cast<std::int32_t>(finish.timeline));
    request.__set_position(static_cast<std::int64_t>(finish.position));
  }
  return request;
}

BranchVote FromWire(const wire::Vote& vote) {
  BranchVote value;
  value.ballot = static_cast<Ballot>(NumberOf(vote.ballot));
  value.works = static_cast<std::uint32_t>(std::max(vote.works, 0));
  const std::string& system = vote.system_identifier;
  std::from_chars(system.data(), system.data() + system.size(), value.database.system_identifier);
  value.database.oid = static_cast<std::uint32_t>(vote.database_oid);
  value.xid = static_cast<std::uint64_t>(vote.xid);
  value.timeline = static_cast<std::uint32_t>(vote.timeline);
  value.position = static_cast<std::uint64_t>(vote.position);
  if (value.ballot == Ballot::kRefused) {
    value.refusal.reason = static_cast<Reason>(NumberOf(vote.reason));
    value.refusal.retryable = vote.retryable;
    value.refusal.message = vote.message;
    value.refusal.sqlstate = vote.sqlstate;
  }
  return value;
}

std::optional<VoteArrived> FromWire(const std::string& coordinator_id, ParticipantIndex participant,
                                    const wire::PrepareReply& reply) {
  const Result<TransactionId> id = TransactionId::Parse(reply.transaction_id);
  const int ballot = NumberOf(reply.vote.ballot);
  if (!id.ok() || id->coordinator != coordinator_id || ballot < 1 || ballot > 4) return {};
  return VoteArrived{id->local, participant, reply.mark, FromWire(reply.vote)};
}

std::optional<FinishArrived> FromWire(const std::string& coordinator_id,
                                      ParticipantIndex participant,
                                      const wire::FinishReply& reply) {
  const Result<TransactionId> id = TransactionId::Parse(reply.transaction_id);
  const int finished = NumberOf(reply.finished);
  if (!id.ok() || id->coordinator != coordinator_id || finished < 1 || finished > 4) return {};
  return FinishArrived{id->local, participant, true, static_cast<Finished>(finished),
                       reply.message.substr(0, 512)};
}

SeenPosition FromWire(const wire::Seen& seen) {
  return SeenPosition{
      Epoch{static_cast<std::uint32_t>(seen.epoch), static_cast<std::uint32_t>(seen.epoch_random)},
      static_cast<std::uint64_t>(seen.position)};
}

wire::Outcome ToWire(const ReplyOutcome& outcome) {
  wire::Outcome value;
  value.kind = static_cast<wire::OutcomeKind::type>(outcome.kind);
  if (!outcome.id.coordinator.empty()) value.transaction_id = outcome.id.ToString();
  if (outcome.kind == OutcomeKind::kCommitted) value.__set_unapplied(outcome.unapplied);
  if (outcome.kind == OutcomeKind::kAborted) {
    const Refusal& refusal = outcome.refusal;
    value.__set_reason(static_cast<wire::Reason::type>(refusal.reason));
    value.__set_message(refusal.message);
    value.__set_retryable(refusal.retryable);
    if (!refusal.participant.empty()) value.__set_participant(refusal.participant);
    if (!refusal.sqlstate.empty()) value.__set_sqlstate(refusal.sqlstate);
  }
  return value;
}

wire::Refused ToWire(const Refusal& refusal) {
  wire::Refused value;
  value.reason = static_cast<wire::Reason::type>(refusal.reason);
  value.message = refusal.message;
  value.retryable = refusal.retryable;
  if (!refusal.sqlstate.empty()) value.__set_sqlstate(refusal.sqlstate);
  return value;
}

wire::Answer ToWire(const InquiryAnswer& answer) {
  wire::Answer value;
  value.transaction_id = answer.id.ToString();
  switch (answer.answer) {
    case InDoubtAnswer::kCommitted:
      value.verdict = answer.commit ? wire::Verdict::COMMIT : wire::Verdict::ABORT;
      if (answer.commit) {
        value.__set_xid(static_cast<std::int64_t>(answer.xid));
        value.__set_timeline(static_cast<std::int32_t>(answer.timeline));
        value.__set_position(static_cast<std::int64_t>(answer.position));
      }
      break;
    case InDoubtAnswer::kCommittedBit:
    case InDoubtAnswer::kExpired: value.verdict = wire::Verdict::EXPIRED; break;
    case InDoubtAnswer::kAborted: value.verdict = wire::Verdict::ABORT; break;
    case InDoubtAnswer::kPending: value.verdict = wire::Verdict::PENDING; break;
    case InDoubtAnswer::kNotMine: value.verdict = wire::Verdict::NOT_MINE; break;
  }
  return value;
}

}  // namespace troth
