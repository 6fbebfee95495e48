// See failpoint.h.
#include "common/failpoint.h"

#define FIU_ENABLE 1
#include <fiu-control.h>
#include <fiu.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <mutex>
#include <optional>
#include <thread>

namespace troth::failpoint {

std::atomic<bool> armed{false};

namespace {

// libfiu's failnum of each action.
enum Action : int { kOff = 0, kError = 1, kCrash = 2, kStop = 3, kPause = 4 };

struct Point {
  int action = kOff;
  std::int64_t pause_ms = 0;
  std::uint64_t from = 1;  // first passing that takes effect
  std::uint64_t passed = 0;
};

std::mutex points_mutex;
std::map<std::string, Point, std::less<>>& Points() {
  static std::map<std::string, Point, std::less<>> points;
  return points;
}

// libfiu asks: does the point fail at this passing?
int Passing(const char* name, int* failnum, void** failinfo, unsigned int* flags) {
  (void)flags;
  const std::lock_guard lock(points_mutex);
  const auto it = Points().find(std::string_view(name));
  if (it == Points().end() || ++it->second.passed < it->second.from) return 0;
  *failnum = it->second.action;
  *failinfo = reinterpret_cast<void*>(static_cast<std::intptr_t>(it->second.pause_ms));
  return 1;
}

template <typename T>
bool ParseWhole(std::string_view text, T* value) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), *value);
  return error == std::errc() && end == text.data() + text.size() && !text.empty();
}

std::optional<Point> ParseAction(std::string_view text) {
  Point point;
  if (const std::size_t at = text.find('@'); at != text.npos) {
    if (!ParseWhole(text.substr(at + 1), &point.from) || point.from == 0) return std::nullopt;
    text = text.substr(0, at);
  }
  if (text == "error")
    point.action = kError;
  else if (text == "crash")
    point.action = kCrash;
  else if (text == "stop")
    point.action = kStop;
  else if (text == "off")
    point.action = kOff;
  else if (text.starts_with("pause:") && ParseWhole(text.substr(6), &point.pause_ms) &&
           point.pause_ms >= 0)
    point.action = kPause;
  else
    return std::nullopt;
  return point;
}

Status EnableOne(std::string_view part) {
  const std::size_t equals = part.find('=');
  const std::optional<Point> point =
      equals == part.npos || equals == 0 ? std::nullopt : ParseAction(part.substr(equals + 1));
  if (!point) {
    return Status(Code::kInvalid, "failpoint '" + std::string(part) +
                                      "' is not name=crash|stop|pause:MS|error|off[@n]");
  }
  const std::string name(part.substr(0, equals));
  fiu_init(0);
  fiu_disable(name.c_str());
  {
    const std::lock_guard lock(points_mutex);
    Points().erase(name);
    if (point->action == kOff) return OkStatus();
    Points()[name] = *point;
  }
  if (fiu_enable_external(name.c_str(), point->action, nullptr, 0, Passing) != 0) {
    return Status(Code::kInvalid, "libfiu refused failpoint '" + name + "'");
  }
  armed.store(true);
  return OkStatus();
}

}  // namespace

Status Enable(std::string_view spec) {
  while (!spec.empty()) {
    const std::size_t end = std::min(spec.find(';'), spec.size());
    if (end > 0) TROTH_RETURN_IF_ERROR(EnableOne(spec.substr(0, end)));
    spec.remove_prefix(std::min(end + 1, spec.size()));
  }
  return OkStatus();
}

Status EnableFromEnvironment() {
  if (const char* base = std::getenv("TROTH_FAILPOINT_CONTROL")) {
    fiu_init(0);
    if (fiu_rc_fifo(base) != 0) {
      return Status(Code::kInvalid, std::string("no fifo for failpoints at ") + base);
    }
    armed.store(true);
  }
  const char* spec = std::getenv("TROTH_FAILPOINTS");
  return spec == nullptr ? OkStatus() : Enable(spec);
}

void DisableAll() {
  std::map<std::string, Point, std::less<>> old;
  {
    const std::lock_guard lock(points_mutex);
    old.swap(Points());
  }
  for (const auto& [name, point] : old) fiu_disable(name.c_str());
  armed.store(false);
}

namespace {

// On stderr, for who waits for it; written before the effect, which may be death.
void Tell(const char* name, const char* effect) {
  dprintf(STDERR_FILENO, "failpoint %s: %s\n", name, effect);
}

}  // namespace

bool Hit(const char* name) {
  switch (fiu_fail(name)) {
    case kOff: return false;
    case kError: Tell(name, "error"); return true;
    case kStop:
      Tell(name, "stop");
      raise(SIGSTOP);
      return false;
    case kPause: {
      Tell(name, "pause");
      const auto ms = reinterpret_cast<std::intptr_t>(fiu_failinfo());
      std::this_thread::sleep_for(std::chrono::milliseconds(ms));
      return false;
    }
    default:  // kCrash, and anything else somebody enabled by hand
      Tell(name, "crash");
      kill(getpid(), SIGKILL);
      for (;;) ::pause();
  }
}

}  // namespace troth::failpoint
