// Named points at which a test stops, kills or misleads this process; the one wrapper around
// libfiu. Compiled in always; one relaxed load unless something was enabled at run time.
// Every crash window of docs/protocol.md bears the name of its point.
#pragma once

#include <atomic>
#include <string>
#include <string_view>

#include "common/status.h"

namespace troth::failpoint {

// Enables points: a list `name=action[@n]`, separated by ';'. The action takes effect at the
// n-th passing (from 1, default 1) and then each time. Actions:
//   crash      SIGKILL to this process
//   stop       SIGSTOP to this process: a harness sees it with waitpid(WUNTRACED)
//   pause:MS   this thread sleeps MS milliseconds
//   error      the caller takes its error branch
//   off        disables the point
// kInvalid names the part that is none of these; the parts before it are enabled.
Status Enable(std::string_view spec);

// Reads TROTH_FAILPOINTS (a spec as above) and TROTH_FAILPOINT_CONTROL (base name of a fifo on
// which fiu-ctrl enables points while the process runs: failnum 1 error, 2 crash, 3 stop).
// StartProgram (common/program.h) calls it when --enable_failpoints is given, and only then; a
// service with a main of its own calls it at the start, behind a switch of its own.
Status EnableFromEnvironment();

// Disables every point that Enable enabled.
void DisableAll();

// Behind TROTH_FAILPOINT.
extern std::atomic<bool> armed;
bool Hit(const char* name);

}  // namespace troth::failpoint

// Passes the point `name` (a literal, kebab-case). True when the caller is to take its error
// branch: `if (TROTH_FAILPOINT("log-batch-written")) return Status(Code::kIo, ...);`
#define TROTH_FAILPOINT(name) \
  (::troth::failpoint::armed.load(std::memory_order_relaxed) && ::troth::failpoint::Hit(name))
