// Telling whoever started this process (systemd, by sd_notify) how far it is. Without such a
// manager nothing happens. For main files; packaging/ has the units.
#pragma once

#include <string>

namespace troth {

// The process serves now; `status` is one line for people (`systemctl status`).
void TellReady(const std::string& status);
// The process ends what is under way and then stops.
void TellStopping();

}  // namespace troth
