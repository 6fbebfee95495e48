// Tables for people: columns as wide as their widest cell. Knows nothing of what is in them.
#pragma once

#include <cstdint>
#include <iosfwd>
#include <string>
#include <vector>

namespace troth {

class Table {
 public:
  explicit Table(std::vector<std::string> head) { rows_.push_back(std::move(head)); }
  void Add(std::vector<std::string> row) { rows_.push_back(std::move(row)); }
  // With the head underlined; nothing but the head says `(none)`.
  void Print(std::ostream& out) const;

 private:
  std::vector<std::vector<std::string>> rows_;
};

// `850 ms`, `12 s`, `3 min`, `5 h`, `2 d`.
std::string Age(std::int64_t ms);

}  // namespace troth
