// The seam between the coordinator and its participants: queues of prepares and finishes in,
// votes and acknowledgements out (as events). Knows nothing of the protocol, and keeps nothing
// that would have to be retried: when connections are lost it says so, and the machine sends
// again. docs/protocol.md, "Messages".
#pragma once

#include "coordinator/protocol_actions.h"
#include "coordinator/protocol_events.h"

namespace troth {

class ParticipantChannel {
 public:
  virtual ~ParticipantChannel() = default;

  // Keeps trying to have connections to the participant; reports ParticipantUp and
  // ParticipantDown. Called again: tries at once, and takes the new address.
  virtual void Connect(const Connect& to) = 0;
  virtual void Disconnect(ParticipantIndex participant) = 0;

  // Queue for the next call to that participant. If it is down they are dropped: the machine
  // sends again on ParticipantUp.
  virtual void Send(const SendPrepare& prepare) = 0;
  virtual void Send(const SendFinish& finish) = 0;

  // Everything the machine had to say for now was queued: send what can be sent without
  // waiting. What meets a connection with an unanswered call shares the next one.
  virtual void Push() = 0;
};

}  // namespace troth
