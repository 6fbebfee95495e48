// Marks on rare paths: TROTH_MARK("name") where a test that never came by would prove little.
// The simulator fails when a mark was never reached (troth-simulate --require-marks). A pass
// costs one relaxed increment, and rare paths are rare. docs/testing.md, "Marks".
#pragma once

#include <atomic>
#include <cstdint>
#include <vector>

namespace troth {

class Mark {
 public:
  constexpr explicit Mark(const char* name) : name_(name) {}
  void Reach() { count_.fetch_add(1, std::memory_order_relaxed); }
  const char* name() const { return name_; }
  std::uint64_t count() const { return count_.load(std::memory_order_relaxed); }

 private:
  const char* const name_;
  std::atomic<std::uint64_t> count_{0};
};

// Every mark of this program, reached or not: the linker gathers them.
inline std::vector<const Mark*> Marks();

}  // namespace troth

// Not in templates, nor in inline functions: one mark, one place.
#define TROTH_MARK(name)                                                               \
  do {                                                                                 \
    static ::troth::Mark troth_mark_(name);                                            \
    [[gnu::section("troth_marks"), gnu::used]] static ::troth::Mark* const troth_at_ = \
        &troth_mark_;                                                                  \
    troth_at_->Reach();                                                                \
  } while (false)

extern "C" {
extern troth::Mark* const __start_troth_marks[] __attribute__((weak));
extern troth::Mark* const __stop_troth_marks[] __attribute__((weak));
}

inline std::vector<const troth::Mark*> troth::Marks() {
  return {__start_troth_marks, __stop_troth_marks};
}
