// The main of a fuzz target in a build without libFuzzer: runs it once over each file given, or
// each file of each directory. So a corpus, with all that was ever found, is a test everywhere.
// Exits with 2 when there was none.
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

namespace {

void Run(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  const std::string bytes((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
  std::fprintf(stderr, "%s\n", path.c_str());  // the last line, when it dies
  LLVMFuzzerTestOneInput(reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size());
}

}  // namespace

int main(int argc, char** argv) {
  int files = 0;
  for (const std::string& argument : std::vector<std::string>(argv + 1, argv + argc)) {
    if (!std::filesystem::is_directory(argument)) {
      Run(argument);
      ++files;
      continue;
    }
    for (const auto& entry : std::filesystem::directory_iterator(argument)) {
      Run(entry.path());
      ++files;
    }
  }
  std::printf("inputs=%d\n", files);
  return files > 0 ? 0 : 2;
}
