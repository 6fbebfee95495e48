// See table.h.
#include "cli/table.h"

#include <algorithm>
#include <iomanip>
#include <ostream>

namespace troth {

void Table::Print(std::ostream& out) const {
  std::vector<std::size_t> widths(rows_.front().size());
  for (const auto& row : rows_) {
    for (std::size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  }
  auto line = [&](const std::vector<std::string>& row) {
    for (std::size_t i = 0; i < row.size(); ++i) {
      const bool last = i + 1 == row.size();
      out << std::left << std::setw(last ? 0 : static_cast<int>(widths[i]) + 2) << row[i];
    }
    out << "\n";
  };
  line(rows_.front());
  std::vector<std::string> rule;
  for (const std::size_t width : widths) rule.push_back(std::string(width, '-'));
  line(rule);
  if (rows_.size() == 1) out << "(none)\n";
  for (std::size_t i = 1; i < rows_.size(); ++i) line(rows_[i]);
}

std::string Age(std::int64_t ms) {
  if (ms < 0) return "never";
  if (ms < 1000) return std::to_string(ms) + " ms";
  if (ms < 120'000) return std::to_string(ms / 1000) + " s";
  if (ms < 7'200'000) return std::to_string(ms / 60'000) + " min";
  if (ms < 172'800'000) return std::to_string(ms / 3'600'000) + " h";
  return std::to_string(ms / 86'400'000) + " d";
}

}  // namespace troth
