// Where a process is reached: host and port. Knows no connection.
#pragma once

#include <compare>
#include <string>
#include <string_view>
#include <vector>

#include "common/status.h"

namespace troth {

struct Address {
  std::string host;
  int port = 0;
  auto operator<=>(const Address&) const = default;
  std::string ToString() const { return host + ":" + std::to_string(port); }
  // `HOST:PORT`; kInvalid otherwise.
  static Result<Address> Parse(std::string_view text);
  // `HOST:PORT[,HOST:PORT...]`, at least one.
  static Result<std::vector<Address>> ParseList(std::string_view text);
};

}  // namespace troth
