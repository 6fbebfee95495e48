// See main_serve.h.
#include "participant/main_serve.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <thread>
#include <utility>

namespace troth {
namespace {

bool WritePortFile(const ServingProgram& self, const Participant& participant) {
  if (self.port_file.empty()) return true;
  const std::string temporary = self.port_file + ".tmp";
  std::ofstream out(temporary);
  out << "{\"pid\": " << getpid() << ", \"name\": \"" << self.name << "\", \"host\": \""
      << self.host << "\", \"port\": " << participant.port()
      << ", \"peer_port\": " << participant.peer_port()
      << ", \"http_port\": " << participant.http_port() << "}\n";
  out.close();
  return out.good() && std::rename(temporary.c_str(), self.port_file.c_str()) == 0;
}

}  // namespace

std::vector<std::string> SplitAtCommas(const std::string& text) {
  std::vector<std::string> parts;
  for (std::size_t from = 0; from <= text.size();) {
    const std::size_t comma = std::min(text.find(',', from), text.size());
    parts.push_back(text.substr(from, comma - from));
    from = comma + 1;
  }
  return parts;
}

int ServeUntilSignal(const ServingProgram& self, Participant* participant,
                     std::shared_ptr<apache::thrift::TProcessor> application) {
  std::atomic<bool> unwritten{false};
  std::thread announcer([&] {
    if (!participant->WaitUntilServing()) return;
    if (WritePortFile(self, *participant)) {
      if (self.ready) self.ready();
      return;
    }
    unwritten = true;
    participant->Stop();
  });
  const Status ended = participant->Serve(std::move(application));
  announcer.join();
  if (ended.ok() && !unwritten) return 0;
  std::cerr << self.program << ": "
            << (unwritten ? "cannot write " + self.port_file : ended.message()) << "\n";
  return 1;
}

}  // namespace troth
