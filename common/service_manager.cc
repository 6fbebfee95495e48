// See service_manager.h.
#include "common/service_manager.h"

#include <systemd/sd-daemon.h>

namespace troth {

void TellReady(const std::string& status) {
  (void)sd_notify(0, ("READY=1\nSTATUS=" + status).c_str());
}

void TellStopping() { (void)sd_notify(0, "STOPPING=1"); }

}  // namespace troth
