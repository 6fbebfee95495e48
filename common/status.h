// Status and Result: operating errors as values. They keep "surely not done" apart from
// "maybe done" (Status::maybe_done), because a coordinator that confuses the two loses money.
// Programmer errors are CHECKs, not statuses.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <utility>

namespace troth {

enum class Code {
  kOk,
  kInvalid,      // the caller's request is wrong in itself
  kNotFound,     // the thing named does not exist
  kExists,       // the thing to be made exists already
  kRefused,      // a rule forbids it in the present state
  kForbidden,    // the caller may not
  kOverloaded,   // a limit is reached; nothing was done; try again later
  kUnavailable,  // the other side cannot be reached; nothing was done
  kDeadline,     // the deadline passed; nothing was done
  kNoSpace,      // the disk is full; nothing was done
  kCorrupt,      // bytes on disk or wire are not what they must be
  kIo,           // the system refused an operation; what is on disk is not known
  kUnknown,      // sent, and no answer: maybe done
};

// Lower-case name of `code`, stable, for logs and tests.
std::string_view CodeName(Code code);

class [[nodiscard]] Status {
 public:
  Status() = default;
  Status(Code code, std::string message) : code_(code), message_(std::move(message)) {}

  bool ok() const { return code_ == Code::kOk; }
  Code code() const { return code_; }
  // For people: names the thing, the reason and what to do.
  const std::string& message() const { return message_; }
  // True when the operation may have taken effect although it failed.
  bool maybe_done() const { return code_ == Code::kUnknown || code_ == Code::kIo; }
  // "code: message", or "ok".
  std::string ToString() const;

 private:
  Code code_ = Code::kOk;
  std::string message_;
};

inline Status OkStatus() { return Status(); }

// A value, or the reason why there is none.
template <typename T>
class [[nodiscard]] Result {
 public:
  Result(T value) : value_(std::move(value)) {}          // NOLINT: implicit by design
  Result(Status status) : status_(std::move(status)) {}  // NOLINT: implicit by design

  bool ok() const { return value_.has_value(); }
  const Status& status() const { return status_; }
  T& operator*() & { return *value_; }
  const T& operator*() const& { return *value_; }
  T&& operator*() && { return *std::move(value_); }
  T* operator->() { return &*value_; }
  const T* operator->() const { return &*value_; }

 private:
  Status status_;
  std::optional<T> value_;
};

}  // namespace troth

// Leaves the function with the status of `expression` unless it is ok.
#define TROTH_RETURN_IF_ERROR(expression)                                                        \
  do {                                                                                           \
    if (::troth::Status troth_status_ = (expression); !troth_status_.ok()) return troth_status_; \
  } while (false)
