// Replays the transcripts of testdata/ and compares them exactly. A transcript is commands of
// world.h, a line `----`, and what happened; then an empty line. With --rewrite, or
// TROTH_REWRITE=1, the files are written anew: read the diff before you commit it.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "tests/protocol/world.h"

namespace troth {
namespace {

bool rewrite = false;

std::string ReadFile(const std::filesystem::path& path) {
  std::ifstream in(path);
  std::stringstream text;
  text << in.rdbuf();
  return text.str();
}

// The transcript as it comes out when its commands are run now.
std::string Replay(const std::string& transcript) {
  World world;
  std::istringstream in(transcript);
  std::string out, line, commands;
  while (std::getline(in, line)) {
    if (line != "----") {
      out += line + "\n";
      if (!line.empty()) commands += line + "\n";
      continue;
    }
    out += "----\n" + world.Run(commands);
    commands.clear();
    while (std::getline(in, line) && !line.empty()) {
    }
    out += "\n";
  }
  return out;
}

class Transcript : public testing::TestWithParam<std::filesystem::path> {};

TEST_P(Transcript, IsAsWritten) {
  const std::string written = ReadFile(GetParam());
  ASSERT_FALSE(written.empty()) << GetParam();
  const std::string now = Replay(written);
  if (rewrite) {
    std::ofstream(GetParam()) << now;
    return;
  }
  EXPECT_EQ(now, written) << "if this change is wanted: bin/transcripts_test --rewrite, and read "
                             "the diff of "
                          << GetParam();
}

std::vector<std::filesystem::path> Transcripts() {
  std::vector<std::filesystem::path> paths;
  for (const auto& entry : std::filesystem::directory_iterator("tests/protocol/testdata")) {
    paths.push_back(entry.path());
  }
  std::sort(paths.begin(), paths.end());
  return paths;
}

std::string Name(const testing::TestParamInfo<std::filesystem::path>& info) {
  std::string name = info.param.stem().string();
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
}

INSTANTIATE_TEST_SUITE_P(All, Transcript, testing::ValuesIn(Transcripts()), Name);

}  // namespace
}  // namespace troth

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  const char* asked = std::getenv("TROTH_REWRITE");
  troth::rewrite =
      (argc > 1 && std::string(argv[1]) == "--rewrite") || (asked != nullptr && *asked == '1');
  return RUN_ALL_TESTS();
}
