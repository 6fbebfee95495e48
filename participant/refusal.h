// Refusal: why a participant did not do something, surely. Knows neither wire nor PostgreSQL's
// client library; the reasons are those of thrift/troth.thrift, by number.
#pragma once

#include <optional>
#include <string>
#include <utility>

#include "common/check.h"

namespace troth {

// As enum Reason of the wire contract; participant_service.cc asserts that the numbers agree.
enum class Refused {
  kInvalid = 1,
  kVersionMismatch = 2,
  kOverloaded = 3,
  kDeadline = 4,
  kNoSuchBranch = 5,
  kOutOfNumber = 6,
  kEnded = 7,
  kConflict = 8,
  kDatabase = 9,
  kDatabaseUnavailable = 10,
  kNotMine = 11,
  kNotServing = 15,
  kForbidden = 16,
  kStaleEpoch = 19,
  kApplication = 20,
};

// Its own inline namespace: the coordinator has a Refusal too, and the simulator links both.
inline namespace of_participant {
struct Refusal {
  Refused reason = Refused::kInvalid;
  // For people: names the thing, the reason and what to do.
  std::string message;
  // Repeating the whole transaction may succeed.
  bool retryable = false;
  // PostgreSQL's SQLSTATE, empty where none is known.
  std::string sqlstate;
  // Of the first work of a branch: it was not begun, and there is nothing to abort.
  bool unheard = false;
};
}  // namespace of_participant

// A T, or the Refusal to give one: surely nothing was done, or it was undone.
template <typename T>
class [[nodiscard]] Granted {
 public:
  Granted(T value) : value_(std::move(value)) {}              // NOLINT: implicit by design
  Granted(Refusal refusal) : refusal_(std::move(refusal)) {}  // NOLINT: implicit by design

  bool ok() const { return value_.has_value(); }
  const Refusal& refusal() const {
    TROTH_CHECK(!ok());
    return refusal_;
  }
  T& operator*() {
    TROTH_CHECK(ok());
    return *value_;
  }
  const T& operator*() const {
    TROTH_CHECK(ok());
    return *value_;
  }
  T* operator->() { return &**this; }
  const T* operator->() const { return &**this; }

 private:
  std::optional<T> value_;
  Refusal refusal_;
};

}  // namespace troth
