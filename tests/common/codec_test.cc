#include "common/codec.h"

#include <gtest/gtest.h>

#include <limits>

namespace troth {
namespace {

TEST(CodecTest, Crc32cMatchesThePublishedCheckValue) {
  EXPECT_EQ(Crc32c("123456789"), 0xe3069283u);
  EXPECT_EQ(Crc32c(std::string(32, '\0')), 0x8a9136aau);
  EXPECT_EQ(Crc32c(""), 0u);
}

TEST(CodecTest, Crc32cContinuesItsSeed) {
  const std::string text = "a coordinator is its log";
  for (std::size_t cut = 0; cut <= text.size(); ++cut) {
    EXPECT_EQ(Crc32c(text.substr(cut), Crc32c(text.substr(0, cut))), Crc32c(text));
  }
}

TEST(CodecTest, ValuesComeBack) {
  const std::uint64_t values[] = {
      0,          1,           127,
      128,        16383,       16384,
      0xffffffff, 0x100000000, std::numeric_limits<std::uint64_t>::max()};
  std::string bytes;
  for (const std::uint64_t v : values) {
    PutVarint(v, &bytes);
    PutFixed64(v, &bytes);
    PutFixed32(static_cast<std::uint32_t>(v), &bytes);
    PutBytes(std::to_string(v), &bytes);
  }
  Decoder decoder(bytes);
  for (const std::uint64_t v : values) {
    std::uint64_t varint, fixed64;
    std::uint32_t fixed32;
    std::string text;
    ASSERT_TRUE(decoder.TakeVarint(&varint) && decoder.TakeFixed64(&fixed64) &&
                decoder.TakeFixed32(&fixed32) && decoder.TakeBytes(&text, 20));
    EXPECT_EQ(varint, v);
    EXPECT_EQ(fixed64, v);
    EXPECT_EQ(fixed32, static_cast<std::uint32_t>(v));
    EXPECT_EQ(text, std::to_string(v));
  }
  EXPECT_TRUE(decoder.rest().empty());
}

TEST(CodecTest, EveryTruncationIsRefused) {
  std::string bytes;
  PutVarint(std::numeric_limits<std::uint64_t>::max(), &bytes);
  for (std::size_t size = 0; size < bytes.size(); ++size) {
    Decoder decoder(std::string_view(bytes).substr(0, size));
    std::uint64_t value;
    EXPECT_FALSE(decoder.TakeVarint(&value)) << size;
  }
}

TEST(CodecTest, AVarintHasOneForm) {
  std::uint64_t value;
  EXPECT_FALSE(Decoder(std::string_view("\x80\x00", 2)).TakeVarint(&value));
  EXPECT_FALSE(Decoder("\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02").TakeVarint(&value));
  EXPECT_FALSE(Decoder(std::string(11, '\x80')).TakeVarint(&value));
}

TEST(CodecTest, AFailedDecoderStaysFailed) {
  Decoder decoder(
      "\x05"
      "abc");
  std::string text;
  std::uint8_t byte;
  EXPECT_FALSE(decoder.TakeBytes(&text, 100));
  EXPECT_FALSE(decoder.TakeByte(&byte));
  EXPECT_FALSE(decoder.ok());
}

TEST(CodecTest, LimitsAndBooleansAreChecked) {
  std::string text;
  EXPECT_FALSE(Decoder("\x03"
                       "abc")
                   .TakeBytes(&text, 2));
  bool flag;
  EXPECT_FALSE(Decoder("\x02").TakeBool(&flag));
  std::uint32_t narrow;
  std::string bytes;
  PutVarint(0x100000000, &bytes);
  EXPECT_FALSE(Decoder(bytes).TakeVarint32(&narrow));
}

}  // namespace
}  // namespace troth
