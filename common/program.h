// How every program of Troth starts: flags, --help and --version, logging, signals. gflags' own
// parser ends --help with 1, knows no dashes in names and overlooks mistakes in flag files; so
// gflags keeps the values here, and nothing else. For main files only: what a program is for, it
// refuses to know. docs/operations.md has the flags.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/status.h"

namespace troth {

// To be called first in main:
//   if (const std::optional<int> done = troth::StartProgram(kUsage, &argc, &argv)) return *done;
// Sets the flags of gflags from the arguments, starts glog (to stderr, from level INFO, unless
// flags say otherwise), ignores SIGPIPE and raises the soft limit of descriptors to the hard one.
// On return argv[0] is followed by the arguments that
// are no flags, in their order, and argc counts them.
//
// A value means: the program is done, with this exit code. 0 after --help (`usage`, then the
// program's flags with their defaults; --helpfull: those of the libraries too) or --version;
// 2 after a mistake, told on stderr with what to do. `usage` says what the program does and how
// it is called, without the flags, in lines of at most 100 columns.
//
// A flag is --name=value or --name value, of a boolean also --name and --no-name; dashes and
// underscores in names are the same; -- ends the flags; a negative number is an argument.
// --flagfile FILE reads flags, one a line, # comments; given more than once, all are read, and
// what stands later wins.
std::optional<int> StartProgram(std::string_view usage, int* argc, char*** argv);

// The part of StartProgram that can fail: sets flags from `arguments` (without the program's
// name) and returns those that are none. Flags before the wrong one stay set.
Result<std::vector<std::string>> ParseFlags(const std::vector<std::string>& arguments);

// The flags as --help shows them: of the program, or (`full`) of all libraries too.
std::string DescribeFlags(bool full);

}  // namespace troth
