// See codec.h.
#include "common/codec.h"

#include <isa-l/crc.h>

#include <bit>
#include <climits>
#include <cstring>

namespace troth {

static_assert(std::endian::native == std::endian::little, "the log's integers are little-endian");

std::uint32_t Crc32c(std::string_view bytes, std::uint32_t seed) {
  std::uint32_t state = ~seed;
  while (!bytes.empty()) {
    const std::string_view part = bytes.substr(0, INT_MAX);
    // The library takes a non-const pointer but only reads.
    auto* data = reinterpret_cast<unsigned char*>(const_cast<char*>(part.data()));
    state = crc32_iscsi(data, static_cast<int>(part.size()), state);
    bytes.remove_prefix(part.size());
  }
  return ~state;
}

void StoreFixed32(std::uint32_t value, char* at) { std::memcpy(at, &value, sizeof value); }
void StoreFixed64(std::uint64_t value, char* at) { std::memcpy(at, &value, sizeof value); }

std::uint32_t LoadFixed32(const char* at) {
  std::uint32_t value;
  std::memcpy(&value, at, sizeof value);
  return value;
}

std::uint64_t LoadFixed64(const char* at) {
  std::uint64_t value;
  std::memcpy(&value, at, sizeof value);
  return value;
}

void PutFixed32(std::uint32_t value, std::string* out) {
  char buffer[sizeof value];
  StoreFixed32(value, buffer);
  out->append(buffer, sizeof buffer);
}

void PutFixed64(std::uint64_t value, std::string* out) {
  char buffer[sizeof value];
  StoreFixed64(value, buffer);
  out->append(buffer, sizeof buffer);
}

void PutVarint(std::uint64_t value, std::string* out) {
  char buffer[kMaxVarintBytes];
  std::size_t n = 0;
  for (; value >= 0x80; value >>= 7) buffer[n++] = static_cast<char>(value | 0x80);
  buffer[n++] = static_cast<char>(value);
  out->append(buffer, n);
}

void PutBytes(std::string_view bytes, std::string* out) {
  PutVarint(bytes.size(), out);
  out->append(bytes);
}

bool Decoder::TakeByte(std::uint8_t* value) {
  if (rest_.empty()) return Fail();
  *value = static_cast<std::uint8_t>(rest_[0]);
  rest_.remove_prefix(1);
  return true;
}

bool Decoder::TakeFixed32(std::uint32_t* value) {
  if (rest_.size() < sizeof *value) return Fail();
  *value = LoadFixed32(rest_.data());
  rest_.remove_prefix(sizeof *value);
  return true;
}

bool Decoder::TakeFixed64(std::uint64_t* value) {
  if (rest_.size() < sizeof *value) return Fail();
  *value = LoadFixed64(rest_.data());
  rest_.remove_prefix(sizeof *value);
  return true;
}

bool Decoder::TakeLongVarint(std::uint64_t* value) {
  std::uint64_t result = 0;
  const std::size_t limit = rest_.size() < kMaxVarintBytes ? rest_.size() : kMaxVarintBytes;
  for (std::size_t i = 0; i < limit; ++i) {
    const auto byte = static_cast<std::uint8_t>(rest_[i]);
    if (i == kMaxVarintBytes - 1 && byte > 1) return Fail();
    result |= std::uint64_t{byte & 0x7fu} << (7 * i);
    if (byte & 0x80) continue;
    if (byte == 0 && i > 0) return Fail();  // not the shortest form
    *value = result;
    rest_.remove_prefix(i + 1);
    return true;
  }
  return Fail();
}

bool Decoder::TakeVarint32(std::uint32_t* value) {
  std::uint64_t wide;
  if (!TakeVarint(&wide)) return false;
  if (wide > UINT32_MAX) return Fail();
  *value = static_cast<std::uint32_t>(wide);
  return true;
}

bool Decoder::TakeBytes(std::string_view* value, std::uint64_t limit) {
  std::uint64_t size;
  if (!TakeVarint(&size)) return false;
  if (size > limit || size > rest_.size()) return Fail();
  *value = rest_.substr(0, size);
  rest_.remove_prefix(size);
  return true;
}

bool Decoder::TakeBytes(std::string* value, std::uint64_t limit) {
  std::string_view view;
  if (!TakeBytes(&view, limit)) return false;
  value->assign(view);
  return true;
}

bool Decoder::TakeBool(bool* value) {
  std::uint8_t byte;
  if (!TakeByte(&byte)) return false;
  if (byte > 1) return Fail();
  *value = byte == 1;
  return true;
}

}  // namespace troth
