// Between the wire's structs and the protocol's values. The only place where the two meet.
#pragma once

#include <optional>
#include <string>

#include "coordinator/coordinator.h"
#include "coordinator/protocol_actions.h"
#include "coordinator/protocol_events.h"
#include "coordinator_types.h"
#include "participant_types.h"
#include "troth_types.h"

namespace troth {

wire::Sender SenderOf(const std::string& coordinator_id, const Coordinator& coordinator);

// `now` is running time; the wire carries milliseconds left.
wire::PrepareRequest ToWire(const std::string& coordinator_id, const SendPrepare& prepare,
                            RunningMs now);
wire::FinishRequest ToWire(const std::string& coordinator_id, const SendFinish& finish);
// Nothing when the answer names no transaction of this coordinator.
std::optional<VoteArrived> FromWire(const std::string& coordinator_id, ParticipantIndex participant,
                                    const wire::PrepareReply& reply);
std::optional<FinishArrived> FromWire(const std::string& coordinator_id,
                                      ParticipantIndex participant, const wire::FinishReply& reply);

BranchVote FromWire(const wire::Vote& vote);
SeenPosition FromWire(const wire::Seen& seen);
wire::Outcome ToWire(const ReplyOutcome& outcome);
wire::Refused ToWire(const Refusal& refusal);
wire::Answer ToWire(const InquiryAnswer& answer);

}  // namespace troth
