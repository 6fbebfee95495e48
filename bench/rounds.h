// How a driver of load is steered: it opens its connections, says `ready`, and then runs one
// round of transactions for each line `run MODE SECONDS` on its standard input, with its clients
// in closed loops, and answers each with one line of JSON. So several drivers can take turns,
// warm all the time, and a machine whose speed drifts treats them alike. Knows no database.
// docs/performance.md, "How it is measured".
#pragma once

#include <functional>
#include <memory>
#include <string>

namespace troth::bench {

// One client: a thread of its own makes it, and calls it.
class RoundClient {
 public:
  virtual ~RoundClient() = default;
  // One transaction, from its first statement to its end. False: it was rolled back.
  virtual bool Transact(const std::string& mode) = 0;
  // How long the part of it took that is to be measured; negative: all of it.
  virtual double MeasuredMs() const { return -1; }
  // How long to wait before the next one; a part of no latency.
  virtual int PauseMs() const { return 0; }
  // Why the last one was rolled back; for people.
  virtual std::string Why() const { return ""; }
};

// Makes `clients` clients, each on its thread, and serves rounds until the input ends. `known`
// tells the modes. Returns the exit code: 0, or 2 after a line that is no round.
// `make` exits the process when it cannot connect.
int ServeRounds(int clients, const std::function<bool(const std::string& mode)>& known,
                const std::function<std::unique_ptr<RoundClient>(int number)>& make);

}  // namespace troth::bench
