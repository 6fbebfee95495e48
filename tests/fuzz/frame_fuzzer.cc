// Fuzz target: a frame as it comes from a connection, to each service and from each: Thrift's
// decoders with our limits, and our own on the values. The handlers do nothing; exceptions of
// Thrift are how a frame is refused.
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include <thrift/TOutput.h>
#include <thrift/transport/TBufferTransports.h>

#include "Coordinator.h"
#include "CoordinatorAdmin.h"
#include "CoordinatorPeer.h"
#include "Participant.h"
#include "ParticipantAdmin.h"
#include "ParticipantPeer.h"
#include "common/check.h"
#include "coordinator/wire_values.h"
#include "wire/protocol.h"

namespace troth {
namespace {

using apache::thrift::TProcessor;
using apache::thrift::protocol::TProtocol;
using apache::thrift::transport::TMemoryBuffer;

class Peer : public wire::CoordinatorPeerNull {
 public:
  void enroll(wire::Enrolled& reply, const wire::Enrolment& enrolment) override {
    reply.version = static_cast<std::int32_t>(FromWire(enrolment.seen).epoch.number);
  }
};

const std::vector<std::shared_ptr<TProcessor>>& Processors() {
  apache::thrift::GlobalOutput.setOutputFunction([](const char*) {});
  static const std::vector<std::shared_ptr<TProcessor>> all = {
      std::make_shared<wire::CoordinatorProcessor>(std::make_shared<wire::CoordinatorNull>()),
      std::make_shared<wire::CoordinatorPeerProcessor>(std::make_shared<Peer>()),
      std::make_shared<wire::CoordinatorAdminProcessor>(
          std::make_shared<wire::CoordinatorAdminNull>()),
      std::make_shared<wire::ParticipantProcessor>(std::make_shared<wire::ParticipantNull>()),
      std::make_shared<wire::ParticipantPeerProcessor>(
          std::make_shared<wire::ParticipantPeerNull>()),
      std::make_shared<wire::ParticipantAdminProcessor>(
          std::make_shared<wire::ParticipantAdminNull>()),
  };
  return all;
}

// The replies that processes of ours read.
void TakeReply(std::uint8_t which, const std::shared_ptr<TProtocol>& in) {
  switch (which % 4) {
    case 0: {
      std::vector<wire::PrepareReply> replies;
      wire::ParticipantPeerClient(in).recv_prepare(replies);
      for (const wire::PrepareReply& reply : replies) {
        const std::optional<VoteArrived> vote = FromWire("bank-0123456789ab", 0, reply);
        if (vote) TROTH_CHECK(vote->id.ToString().size() <= 64);
      }
      break;
    }
    case 1: {
      std::vector<wire::FinishReply> replies;
      wire::ParticipantPeerClient(in).recv_finish(replies);
      for (const wire::FinishReply& reply : replies) (void)FromWire("bank-0123456789ab", 0, reply);
      break;
    }
    case 2: {
      wire::Outcome outcome;
      wire::CoordinatorClient(in).recv_commit(outcome);
      break;
    }
    default: {
      std::vector<wire::Answer> answers;
      wire::CoordinatorPeerClient(in).recv_inquire(answers);
      break;
    }
  }
}

}  // namespace
}  // namespace troth

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace troth;
  if (size < 2 || size > static_cast<std::size_t>(kMaxFrameBytes)) return 0;
  std::vector<std::uint8_t> frame(data + 1, data + size);
  const auto limits = FrameLimits();
  auto in = std::make_shared<TMemoryBuffer>(frame.data(), static_cast<std::uint32_t>(frame.size()),
                                            TMemoryBuffer::OBSERVE, limits);
  auto out = std::make_shared<TMemoryBuffer>();
  const std::shared_ptr<TProtocol> from = BoundedProtocols()->getProtocol(in);
  try {
    const std::size_t processors = Processors().size();
    if (data[0] < processors) {
      Processors()[data[0]]->process(from, BoundedProtocols()->getProtocol(out), nullptr);
    } else {
      TakeReply(static_cast<std::uint8_t>(data[0] - processors), from);
    }
  } catch (const apache::thrift::TException&) {
    // Refused: the connection would be closed.
  }
  return 0;
}
