// See program.h.
#include "common/program.h"

#include <sys/resource.h>

#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iostream>
#include <iterator>
#include <numeric>

#include <gflags/gflags.h>
#include <glog/logging.h>

#include "common/failpoint.h"

#ifndef TROTH_VERSION
#define TROTH_VERSION "unknown"
#endif

DEFINE_bool(enable_failpoints, false,
            "for tests: obey TROTH_FAILPOINTS and TROTH_FAILPOINT_CONTROL (docs/testing.md)");

namespace troth {
namespace {

constexpr int kMaxFlagFileDepth = 8;  // a file that names itself ends here

// One argument that is a flag, taken apart. `name` has underscores; `written`, what was typed.
struct FlagArgument {
  std::string name, written;
  std::optional<std::string> value;
};

// What `argument` says if it is a flag at all; "-" and negative numbers are none.
std::optional<FlagArgument> SplitFlag(std::string_view argument) {
  if (argument.size() < 2 || argument[0] != '-') return std::nullopt;
  argument.remove_prefix(argument[1] == '-' ? 2 : 1);
  if (argument.empty() || (argument[0] >= '0' && argument[0] <= '9') || argument[0] == '.') {
    return std::nullopt;
  }
  FlagArgument flag;
  const size_t equals = argument.find('=');
  flag.name = argument.substr(0, equals);
  flag.written = "--" + flag.name;
  std::replace(flag.name.begin(), flag.name.end(), '-', '_');
  if (equals != std::string_view::npos) flag.value = argument.substr(equals + 1);
  return flag;
}

// Number of characters to insert, remove or change to make `b` of `a`.
size_t EditDistance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), size_t{0});
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t changed = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({changed, row[j] + 1, row[j - 1] + 1});
    }
  }
  return row[b.size()];
}

// Flags of gflags and glog carry the path their package was built under.
bool OfALibrary(const gflags::CommandLineFlagInfo& flag) {
  return flag.filename.find("/gflags-2") != std::string::npos ||
         flag.filename.rfind("./src/", 0) == 0;
}

Status UnknownFlag(const FlagArgument& argument) {
  std::vector<gflags::CommandLineFlagInfo> flags;
  gflags::GetAllFlags(&flags);
  std::string nearest;
  const std::string& name = argument.name;
  size_t best = std::max<size_t>(2, name.size() / 3) + 1;
  for (const gflags::CommandLineFlagInfo& flag : flags) {
    if (OfALibrary(flag)) continue;
    const size_t distance = EditDistance(name, flag.name);
    if (distance < best) {
      best = distance;
      nearest = flag.name;
    }
  }
  std::string message = "unknown flag " + argument.written;
  if (!nearest.empty()) message += "; did you mean --" + nearest + "?";
  return Status(Code::kInvalid, message);
}

class FlagParser {
 public:
  // Sets what are flags of `arguments`, appends the others to positional().
  Status Parse(const std::vector<std::string>& arguments, int depth) {
    for (size_t i = 0; i < arguments.size(); ++i) {
      if (arguments[i] == "--" && depth == 0) {
        positional_.insert(positional_.end(), arguments.begin() + i + 1, arguments.end());
        break;
      }
      const std::optional<FlagArgument> flag = SplitFlag(arguments[i]);
      if (!flag) {
        positional_.push_back(arguments[i]);
        continue;
      }
      const std::string* next = i + 1 < arguments.size() ? &arguments[i + 1] : nullptr;
      bool took_next = false;
      TROTH_RETURN_IF_ERROR(Set(*flag, next, &took_next, depth));
      if (took_next) ++i;
    }
    return OkStatus();
  }

  std::vector<std::string>& positional() { return positional_; }

 private:
  // Sets one flag; `next` is the argument behind it, taken as the value if one is needed.
  Status Set(const FlagArgument& argument, const std::string* next, bool* took_next, int depth) {
    std::string name = argument.name;
    std::optional<std::string> value = argument.value;
    gflags::CommandLineFlagInfo info;
    if (!gflags::GetCommandLineFlagInfo(name.c_str(), &info)) {
      if (name.rfind("no", 0) != 0 || value) return UnknownFlag(argument);
      const std::string positive = name.substr(name.rfind("no_", 0) == 0 ? 3 : 2);
      if (!gflags::GetCommandLineFlagInfo(positive.c_str(), &info) || info.type != "bool") {
        return UnknownFlag(argument);
      }
      name = positive;
      value = "false";
    }
    if (!value && info.type == "bool") value = "true";
    if (!value) {
      if (next == nullptr) return Status(Code::kInvalid, "flag --" + name + " needs a value");
      value = *next;
      *took_next = true;
    }
    if (name == "flagfile") return ReadFile(*value, depth);
    if (gflags::SetCommandLineOption(name.c_str(), value->c_str()).empty()) {
      return Status(Code::kInvalid, "flag --" + name + ": '" + *value +
                                        "' is not allowed; it takes a value of type " + info.type +
                                        ": " + info.description);
    }
    return OkStatus();
  }

  Status ReadFile(const std::string& path, int depth) {
    if (depth >= kMaxFlagFileDepth) {
      return Status(Code::kInvalid, "flag file " + path + ": flag files name each other too deep");
    }
    std::ifstream file(path);
    if (!file) {
      return Status(Code::kInvalid,
                    "flag file " + path + " can't be read: " + std::strerror(errno));
    }
    std::string line;
    for (int number = 1; std::getline(file, line); ++number) {
      const size_t first = line.find_first_not_of(" \t\r");
      if (first == std::string::npos || line[first] == '#') continue;
      line = line.substr(first, line.find_last_not_of(" \t\r") + 1 - first);
      Status status = SplitFlag(line) ? Parse({line}, depth + 1)
                                      : Status(Code::kInvalid, "'" + line + "' is no --name=value");
      if (!status.ok()) {
        return Status(Code::kInvalid, "flag file " + path + ", line " + std::to_string(number) +
                                          ": " + status.message());
      }
    }
    return OkStatus();
  }

  std::vector<std::string> positional_;
};

// `text` broken at blanks into lines of `width`, each after `indent` blanks.
std::string Wrapped(std::string_view text, size_t indent, size_t width) {
  std::string out;
  while (!text.empty()) {
    size_t end = text.size();
    if (end > width - indent) {
      end = text.rfind(' ', width - indent);
      if (end == std::string_view::npos || end == 0) end = std::min(text.find(' '), text.size());
    }
    out.append(indent, ' ').append(text.substr(0, end)).append("\n");
    text.remove_prefix(end);
    text.remove_prefix(std::min(text.find_first_not_of(' '), text.size()));
  }
  return out;
}

// The last part of a path.
std::string BaseName(std::string_view path) {
  return std::string(path.substr(path.find_last_of('/') + 1));
}

// Points are inert, whatever the environment says, unless the flag is given too.
Status EnableFailpoints() {
  if (FLAGS_enable_failpoints) return failpoint::EnableFromEnvironment();
  if (std::getenv("TROTH_FAILPOINTS") != nullptr) {
    LOG(WARNING) << "TROTH_FAILPOINTS is set, and ignored without --enable_failpoints";
  }
  return OkStatus();
}

// The soft limit, usually 1024, is there for programs that use select(); ours have a connection
// for each caller.
void AllowDescriptors() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur == limit.rlim_max) return;
  limit.rlim_cur = limit.rlim_max;
  if (setrlimit(RLIMIT_NOFILE, &limit) != 0) PLOG(WARNING) << "the limit of descriptors stays";
}

bool Asked(const std::vector<std::string>& arguments, std::string_view name) {
  for (const std::string& argument : arguments) {
    if (argument == "--") return false;
    const std::optional<FlagArgument> flag = SplitFlag(argument);
    if (flag && flag->name == name && !flag->value) return true;
  }
  return false;
}

}  // namespace

Result<std::vector<std::string>> ParseFlags(const std::vector<std::string>& arguments) {
  FlagParser parser;
  TROTH_RETURN_IF_ERROR(parser.Parse(arguments, 0));
  return std::move(parser.positional());
}

std::string DescribeFlags(bool full) {
  std::vector<gflags::CommandLineFlagInfo> flags;
  gflags::GetAllFlags(&flags);
  std::sort(flags.begin(), flags.end(),
            [](const auto& a, const auto& b) { return a.name < b.name; });
  std::string out;
  for (const gflags::CommandLineFlagInfo& flag : flags) {
    if (OfALibrary(flag) && !full) continue;
    const bool quoted = flag.type == "string";
    const std::string shown = quoted ? "\"" + flag.default_value + "\"" : flag.default_value;
    out += "  --" + flag.name + " (" + flag.type + ", default " + shown + ")\n";
    out += Wrapped(flag.description, 6, 100);
  }
  return out;
}

std::optional<int> StartProgram(std::string_view usage, int* argc, char*** argv) {
  const std::string name = BaseName((*argv)[0]);
  const std::vector<std::string> arguments(*argv + 1, *argv + *argc);
  const bool full = Asked(arguments, "helpfull");
  if (full || Asked(arguments, "help") || Asked(arguments, "h")) {
    std::cout
        << usage << (usage.empty() || usage.back() != '\n' ? "\n" : "") << "\nFlags:\n"
        << DescribeFlags(full)
        << "  --flagfile FILE reads flags, one a line; --helpfull shows the logging flags too;\n"
           "  --version shows the version.\n";
    return 0;
  }
  if (Asked(arguments, "version")) {
    std::cout << name << " " << TROTH_VERSION << "\n";
    return 0;
  }
  gflags::SetCommandLineOptionWithMode("logtostderr", "true", gflags::SET_FLAGS_DEFAULT);
  const Result<std::vector<std::string>> positional = ParseFlags(arguments);
  if (!positional.ok()) {
    std::cerr << name << ": " << positional.status().message() << "\n"
              << "Run '" << name << " --help' for the flags it knows.\n";
    return 2;
  }

  // argv's own strings are kept: the positional ones stand in it in the same order.
  int kept = 1;
  int from = 1;
  for (const std::string& argument : *positional) {
    while (argument != (*argv)[from]) ++from;
    (*argv)[kept++] = (*argv)[from++];
  }
  (*argv)[kept] = nullptr;
  *argc = kept;

  if (!google::IsGoogleLoggingInitialized()) google::InitGoogleLogging((*argv)[0]);
  std::signal(SIGPIPE, SIG_IGN);
  AllowDescriptors();
  if (const Status points = EnableFailpoints(); !points.ok()) {
    std::cerr << name << ": " << points.message() << "\n";
    return 2;
  }
  return std::nullopt;
}

}  // namespace troth
