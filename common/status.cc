// See status.h.
#include "common/status.h"

namespace troth {

std::string_view CodeName(Code code) {
  switch (code) {
    case Code::kOk: return "ok";
    case Code::kInvalid: return "invalid";
    case Code::kNotFound: return "not found";
    case Code::kExists: return "exists";
    case Code::kRefused: return "refused";
    case Code::kForbidden: return "forbidden";
    case Code::kOverloaded: return "overloaded";
    case Code::kUnavailable: return "unavailable";
    case Code::kDeadline: return "deadline";
    case Code::kNoSpace: return "no space";
    case Code::kCorrupt: return "corrupt";
    case Code::kIo: return "io";
    case Code::kUnknown: return "unknown";
  }
  return "?";
}

std::string Status::ToString() const {
  if (ok()) return "ok";
  return std::string(CodeName(code_)) + ": " + message_;
}

}  // namespace troth
