// The limits of what comes over a connection, and protocols that keep them: Thrift checks a
// container's size against the bytes left only where its elements have a size of their own, and
// with an int that overflows. Knows no service. thrift/troth.thrift.
#pragma once

#include <cstdint>
#include <memory>
#include <utility>

#include <thrift/TConfiguration.h>
#include <thrift/protocol/TCompactProtocol.h>
#include <thrift/transport/TBufferTransports.h>

namespace troth {

// Frames above this close the connection on which they arrive.
inline constexpr std::int32_t kMaxFrameBytes = 1 << 20;
// So do lists and maps of more elements: what a few hostile bytes can make us allocate is bounded
// by this. The largest of ours are the rows of a statement (100,000) and a batch (1,000).
inline constexpr std::int32_t kMaxElements = 1 << 17;

inline std::shared_ptr<apache::thrift::TConfiguration> FrameLimits() {
  return std::make_shared<apache::thrift::TConfiguration>(kMaxFrameBytes, kMaxFrameBytes);
}

// The compact protocol over `transport`, which makes whole frames of at most kMaxFrameBytes.
template <class Transport>
std::shared_ptr<apache::thrift::protocol::TCompactProtocolT<Transport>> BoundedProtocol(
    std::shared_ptr<Transport> transport) {
  return std::make_shared<apache::thrift::protocol::TCompactProtocolT<Transport>>(
      std::move(transport), kMaxFrameBytes, kMaxElements);
}

// The same for a server's connections.
inline std::shared_ptr<apache::thrift::protocol::TProtocolFactory> BoundedProtocols() {
  return std::make_shared<apache::thrift::protocol::TCompactProtocolFactory>(kMaxFrameBytes,
                                                                             kMaxElements);
}

}  // namespace troth
