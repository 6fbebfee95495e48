// What programs have in common that serve one participant, for main files. The application's
// service is theirs; so are the flags. docs/operations.md.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "participant/participant.h"

namespace troth {

// The words between commas, as --coordinators has them.
std::vector<std::string> SplitAtCommas(const std::string& text);

struct ServingProgram {
  std::string program;  // in front of what is told on stderr
  std::string name;     // of the participant
  std::string host;     // where it is reached
  std::string port_file;
  std::function<void()> ready;  // called when it serves, once the file of ports is written
};

// Serves `application` until SIGTERM or SIGINT. The file of ports (JSON: pid, name, host, port,
// peer_port, http_port; none without a name) appears when it serves, whole or not at all: readers
// wait for it. The exit code: 0; 1 when it could not serve, or not write the file, told on stderr.
int ServeUntilSignal(const ServingProgram& self, Participant* participant,
                     std::shared_ptr<apache::thrift::TProcessor> application);

}  // namespace troth
