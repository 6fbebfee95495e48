// How trothctl calls a coordinator's administrators' listener, and what it says when it can't.
#pragma once

#include <functional>
#include <string>

#include "CoordinatorAdmin.h"
#include "cli/commands.h"

namespace troth {

// Tells how a command is called; returns its exit code, 2.
int Usage(const std::string& how);

// Connects to options.coordinator and runs `call`. 0 when it returns; 1 when the coordinator
// refuses; 2 when the address is none; 3 when nobody is there who could do it; 4 when no answer
// came to what was sent, or that the call failed: it may have been done. All but 0 is told on
// stderr.
int Call(const ControlOptions& options,
         const std::function<void(wire::CoordinatorAdminClient*)>& call);

}  // namespace troth
