// troth-jepsen-delay: holds every packet of a netfilter queue for a while; with jitter they also
// overtake each other. For kernels without netem. jepsen/README.md, "jepsen/run".
#include <arpa/inet.h>
#include <linux/netfilter.h>
#include <poll.h>
#include <sys/socket.h>

#include <chrono>
#include <cstdint>
#include <iostream>
#include <queue>
#include <random>
#include <vector>

#include <gflags/gflags.h>
#include <libnetfilter_queue/libnetfilter_queue.h>

#include "common/program.h"

DEFINE_int32(queue, 0, "number of the queue, as in iptables -j NFQUEUE --queue-num");
DEFINE_int32(delay_ms, 50, "how long each packet is held at least");
DEFINE_int32(jitter_ms, 0, "up to so much longer, drawn for each packet");
DEFINE_int32(seed, 1, "of the jitter");

namespace {

constexpr char kUsage[] =
    "Holds packets of a netfilter queue, then lets them go on. Prints `ready` when it listens.\n"
    "\n"
    "  troth-jepsen-delay --queue 7 --delay_ms 50 --jitter_ms 30      run until it is killed";

using Clock = std::chrono::steady_clock;

struct Held {
  Clock::time_point until;
  std::uint32_t id;
  bool operator>(const Held& other) const { return until > other.until; }
};

struct State {
  std::priority_queue<Held, std::vector<Held>, std::greater<>> held;
  std::mt19937 random;
};

int OnPacket(nfq_q_handle* /*queue*/, nfgenmsg* /*message*/, nfq_data* packet, void* context) {
  State* const state = static_cast<State*>(context);
  const nfqnl_msg_packet_hdr* const header = nfq_get_msg_packet_hdr(packet);
  if (header == nullptr) return 0;
  std::uniform_int_distribution<int> jitter(0, FLAGS_jitter_ms);
  const auto wait = std::chrono::milliseconds(FLAGS_delay_ms + jitter(state->random));
  state->held.push({Clock::now() + wait, ntohl(header->packet_id)});
  return 0;
}

// Lets go what was held long enough; returns the milliseconds until the next, -1 for none.
int Release(State* state, nfq_q_handle* queue) {
  while (!state->held.empty()) {
    const auto left = state->held.top().until - Clock::now();
    if (left > Clock::duration::zero()) {
      return static_cast<int>(std::chrono::duration_cast<std::chrono::milliseconds>(left).count() +
                              1);
    }
    nfq_set_verdict(queue, state->held.top().id, NF_ACCEPT, 0, nullptr);
    state->held.pop();
  }
  return -1;
}

int Serve() {
  State state;
  state.random.seed(static_cast<unsigned>(FLAGS_seed));
  nfq_handle* const handle = nfq_open();
  nfq_q_handle* const queue =
      handle == nullptr
          ? nullptr
          : nfq_create_queue(handle, static_cast<std::uint16_t>(FLAGS_queue), OnPacket, &state);
  if (queue == nullptr || nfq_set_mode(queue, NFQNL_COPY_META, 0) < 0) {
    std::cerr << "troth-jepsen-delay: the kernel gives no netfilter queue " << FLAGS_queue << "\n";
    return 1;
  }
  nfq_set_queue_maxlen(queue, 65536);
  std::cout << "ready" << std::endl;
  std::vector<char> buffer(1 << 16);
  pollfd wanted{nfq_fd(handle), POLLIN, 0};
  for (;;) {
    if (poll(&wanted, 1, Release(&state, queue)) <= 0) continue;
    const ssize_t got = recv(wanted.fd, buffer.data(), buffer.size(), 0);
    if (got > 0) nfq_handle_packet(handle, buffer.data(), static_cast<int>(got));
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (const auto done = troth::StartProgram(kUsage, &argc, &argv)) return *done;
  return Serve();
}
