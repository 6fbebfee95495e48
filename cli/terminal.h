// What is shown to people comes from databases and callers, and a terminal obeys some of it: this
// keeps control characters from it. Knows no command. docs/operations.md, "See what is going on".
#pragma once

#include <ostream>
#include <streambuf>

namespace troth {

// As long as it lives, what is written to `out` reaches it with `?` in place of every control
// character but the end of a line (of C1 controls in UTF-8: U+00BF).
class Printable : public std::streambuf {
 public:
  explicit Printable(std::ostream& out) : out_(out), under_(out.rdbuf(this)) {}
  ~Printable() override { out_.rdbuf(under_); }
  Printable(const Printable&) = delete;
  Printable& operator=(const Printable&) = delete;

 protected:
  int_type overflow(int_type c) override;
  int sync() override { return under_->pubsync(); }

 private:
  std::ostream& out_;
  std::streambuf* const under_;
  bool after_c2_ = false;  // the first byte of a C1 control in UTF-8
};

}  // namespace troth
