// A directory for the logs of a measurement, removed again with all that is in it.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <string>

namespace troth::bench {

class ScratchDirectory {
 public:
  // Below `parent`; empty: $TMPDIR, or /tmp. Ends the process with 2 when that cannot be.
  explicit ScratchDirectory(const std::string& parent) {
    const char* const tmp = std::getenv("TMPDIR");
    path_ = (!parent.empty() ? parent : std::string(tmp != nullptr ? tmp : "/tmp")) +
            "/troth-bench-XXXXXX";
    if (mkdtemp(path_.data()) != nullptr) return;
    std::fprintf(stderr, "bench: no directory can be made as %s\n", path_.c_str());
    std::_Exit(2);
  }
  ~ScratchDirectory() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  ScratchDirectory(const ScratchDirectory&) = delete;
  ScratchDirectory& operator=(const ScratchDirectory&) = delete;

  // Of the write-ahead log.
  std::string log() const { return path_ + "/wal"; }

 private:
  std::string path_;
};

}  // namespace troth::bench
