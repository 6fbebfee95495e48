// Bytes of the log's values: little-endian fixed integers, varints (7 bits a byte, low first,
// shortest form only), length-prefixed bytes, crc32c. Knows no record. docs/wal_format.md.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace troth {

inline constexpr std::size_t kMaxVarintBytes = 10;

// CRC-32C (Castagnoli) of `bytes` continuing `seed`: Crc32c(a + b) == Crc32c(b, Crc32c(a)).
std::uint32_t Crc32c(std::string_view bytes, std::uint32_t seed = 0);

// Append to `*out`.
void PutFixed32(std::uint32_t value, std::string* out);
void PutFixed64(std::uint64_t value, std::string* out);
void PutVarint(std::uint64_t value, std::string* out);
void PutBytes(std::string_view bytes, std::string* out);  // varint length, then the bytes

// Write at `at`, which has room.
void StoreFixed32(std::uint32_t value, char* at);
void StoreFixed64(std::uint64_t value, char* at);
std::uint32_t LoadFixed32(const char* at);
std::uint64_t LoadFixed64(const char* at);

// Takes values off the front of a byte string. Each Take returns false, and stays false for
// ever, once the bytes are no such value; never reads beyond them. Does not own the bytes.
class Decoder {
 public:
  explicit Decoder(std::string_view bytes) : rest_(bytes) {}

  bool TakeByte(std::uint8_t* value);
  bool TakeFixed32(std::uint32_t* value);
  bool TakeFixed64(std::uint64_t* value);
  bool TakeVarint(std::uint64_t* value) {
    if (rest_.empty() || (rest_[0] & 0x80) != 0) return TakeLongVarint(value);
    *value = static_cast<std::uint8_t>(rest_[0]);
    rest_.remove_prefix(1);
    return true;
  }
  bool TakeVarint32(std::uint32_t* value);  // false above 2^32 - 1
  // At most `limit` bytes; the view is into the bytes given to the constructor.
  bool TakeBytes(std::string_view* value, std::uint64_t limit);
  bool TakeBytes(std::string* value, std::uint64_t limit);
  bool TakeBool(bool* value);  // one byte, 0 or 1

  bool ok() const { return ok_; }
  std::string_view rest() const { return rest_; }

 private:
  bool TakeLongVarint(std::uint64_t* value);
  bool Fail() {
    ok_ = false;
    rest_ = {};
    return false;
  }

  std::string_view rest_;
  bool ok_ = true;
};

}  // namespace troth
