// A few hostile bytes must not make a decoder allocate: wire/protocol.h.
#include "wire/protocol.h"

#include <vector>

#include <gtest/gtest.h>

namespace troth {
namespace {

using apache::thrift::protocol::TProtocolException;
using apache::thrift::protocol::TType;
using apache::thrift::transport::TMemoryBuffer;
using apache::thrift::transport::TTransport;

// A compact list's header: the type of its elements in the low half, its size as a varint.
std::vector<std::uint8_t> ListOf(std::uint8_t type, std::uint32_t size) {
  std::vector<std::uint8_t> bytes = {static_cast<std::uint8_t>(0xf0 | type)};
  for (; size >= 0x80; size >>= 7) bytes.push_back(static_cast<std::uint8_t>(size | 0x80));
  bytes.push_back(static_cast<std::uint8_t>(size));
  return bytes;
}

// The size that is read; TProtocolException when it is refused.
std::uint32_t Read(std::vector<std::uint8_t> bytes) {
  bytes.resize(kMaxFrameBytes);
  auto buffer =
      std::make_shared<TMemoryBuffer>(bytes.data(), static_cast<std::uint32_t>(bytes.size()),
                                      TMemoryBuffer::OBSERVE, FrameLimits());
  const auto protocol = BoundedProtocol<TTransport>(std::move(buffer));
  TType type{};
  std::uint32_t size = 0;
  protocol->readListBegin(type, size);
  return size;
}

constexpr std::uint8_t kDouble = 7;
constexpr std::uint8_t kStruct = 12;

TEST(ProtocolTest, TakesWhatFits) {
  EXPECT_EQ(Read(ListOf(kStruct, kMaxElements)), static_cast<std::uint32_t>(kMaxElements));
}

// Structs count as no bytes at all: nothing else would bound them.
TEST(ProtocolTest, RefusesMoreStructsThanWouldFitMemory) {
  EXPECT_THROW(Read(ListOf(kStruct, kMaxElements + 1)), TProtocolException);
}

// 536,870,912 times 8 bytes is 0 in 32 bits.
TEST(ProtocolTest, RefusesASizeThatOverflows) {
  EXPECT_THROW(Read(ListOf(kDouble, 536'870'912)), TProtocolException);
}

}  // namespace
}  // namespace troth
