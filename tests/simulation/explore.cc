// troth-explore: every order of deliveries, losses, timeouts and crashes of one transaction,
// breadth first, until nothing new is found. After each step the laws are checked; from each
// situation, faults off, everything must get settled. docs/testing.md, "Exhaustive search".
#include <csignal>
#include <cstdio>
#include <cstring>
#include <iostream>
#include <memory>
#include <string>
#include <unordered_set>
#include <vector>

#include <gflags/gflags.h>
#include <unistd.h>

#include "common/program.h"
#include "tests/simulation/explore_world.h"

DEFINE_string(search, "all",
              "what to search: `crashes` (two participants, one crash of each process), "
              "`three` (three participants, no crash), `small` (two participants, one mixture, "
              "for each commit), or `all` (crashes and three)");
DEFINE_uint64(max_states, 50'000'000, "gives up (complete=false) above so many situations");
DEFINE_bool(progress, false, "one line per layer on stderr");

namespace troth::explore {
namespace {

constexpr char kUsage[] =
    "Usage: troth-explore [--search=crashes|three|small|all]\n"
    "Searches all interleavings of one transaction and checks the laws in each situation.\n"
    "Closing line: explore: states=N complete=true|false violations=N; exit code 1 when a law\n"
    "is broken or the search was cut.\n";

struct Hash {
  std::uint64_t a = 0, b = 0;
  bool operator==(const Hash&) const = default;
};
struct HashOfHash {
  std::size_t operator()(const Hash& h) const { return static_cast<std::size_t>(h.a); }
};

// Two independent 64-bit hashes: with 10^8 situations the chance that any two of them are taken
// for one is below 10^-22.
Hash HashOf(const std::string& bytes) {
  std::uint64_t a = 0x9e3779b97f4a7c15u ^ bytes.size(), b = 0xc2b2ae3d27d4eb4fu;
  std::size_t i = 0;
  while (i < bytes.size()) {
    std::uint64_t word = 0;
    const std::size_t size = std::min<std::size_t>(8, bytes.size() - i);
    std::memcpy(&word, bytes.data() + i, size);
    i += size;
    a = (a ^ word) * 0xff51afd7ed558ccdu;
    a ^= a >> 32;
    b = (b + word) * 0xc4ceb9fe1a85ec53u;
    b ^= b >> 29;
  }
  return {a ^ (a >> 31), b ^ (b >> 33)};
}

struct Root {
  int participants;
  std::array<BranchKind, kMaxParticipants> kinds;
  Faults faults;
};

class Search {
 public:
  // False when it was cut.
  bool Run(const Root& root);
  std::uint64_t states() const { return states_; }
  std::uint64_t violations() const { return violations_; }

 private:
  struct Node {
    std::uint32_t parent;
    Happening happening;
  };
  struct Live {
    World world;
    std::uint32_t node;
  };
  Hash Situation(const World& world) {
    bytes_.clear();
    world.AppendSituation(&bytes_);
    return HashOf(bytes_);
  }
  void Report(const Root& root, std::uint32_t node, const std::string& wrong);
  // Empty, or why not everything gets settled from here.
  std::string Settles(const World& world, const Hash& hash);
  static void OnAbort(int);

  std::unordered_set<Hash, HashOfHash> seen_;
  std::unordered_set<Hash, HashOfHash> settles_;
  std::vector<Node> nodes_;
  std::vector<Happening> possible_;
  std::string bytes_;
  std::uint64_t states_ = 0;
  std::uint64_t violations_ = 0;
};

// Where the machine stands when one of its CHECKs ends this process.
struct {
  Search* search = nullptr;
  const Root* root = nullptr;
  std::uint32_t node = 0;
  bool reporting = false;
} now;

// The shortest way there, as events and actions.
void Search::Report(const Root& root, std::uint32_t node, const std::string& wrong) {
  ++violations_;
  now.reporting = true;
  if (violations_ > 3) return;
  std::vector<Happening> path;
  for (std::uint32_t at = node; at != 0; at = nodes_[at].parent) {
    path.push_back(nodes_[at].happening);
  }
  std::cerr << "\nviolation: " << wrong << "\nthe shortest way there:\n";
  World world(root.participants, root.kinds, root.faults);
  std::string trace;
  world.set_trace(&trace);
  for (auto happening = path.rbegin(); happening != path.rend(); ++happening) {
    std::cerr << world.Describe(*happening) << "\n";
    world.Happen(*happening);
    std::cerr << trace << std::flush;
    trace.clear();
  }
  now.reporting = false;
}

void Search::OnAbort(int) {
  std::signal(SIGABRT, SIG_DFL);
  if (now.search != nullptr && !now.reporting) {
    const std::uint64_t states = now.search->states_;
    std::printf("explore: states=%llu complete=false violations=1\n",
                static_cast<unsigned long long>(states));
    std::fflush(stdout);
    now.search->Report(*now.root, now.node, "a CHECK of the machine");
  }
  _exit(1);
}

std::string Search::Settles(const World& world, const Hash& hash) {
  if (settles_.contains(hash)) return "";
  World w(world);
  std::vector<Hash> way = {hash};
  std::vector<Happening> possible;
  int times = 0;
  int asked = 0;
  for (int steps = 0; !w.Settled(); ++steps) {
    if (steps > 400) return "L8: not settled after 400 steps without faults";
    w.Possible(/*faults=*/false, &possible);
    auto first = [&](Happening::Kind kind) -> const Happening* {
      for (const Happening& h : possible) {
        if (h.kind == kind) return &h;
      }
      return nullptr;
    };
    const Happening* next = nullptr;
    for (auto kind : {Happening::kDeliver, Happening::kConnect, Happening::kDurable}) {
      if ((next = first(kind)) != nullptr) break;
    }
    // Each prepared branch asks once, then time passes.
    if (next == nullptr && asked < kMaxParticipants) {
      int nth = 0;
      for (const Happening& h : possible) {
        if (h.kind == Happening::kAsk && nth++ == asked) next = &h;
      }
      ++asked;
    }
    if (next == nullptr && times > 8) next = first(Happening::kIdleOut);
    if (next == nullptr) {
      next = first(Happening::kTime);
      ++times;
      asked = 0;
    }
    w.Happen(*next);
    if (!w.wrong().empty()) return w.wrong() + " (on the way to being settled)";
    way.push_back(Situation(w));
    if (settles_.contains(way.back())) break;
  }
  settles_.insert(way.begin(), way.end());
  return "";
}

bool Search::Run(const Root& root) {
  seen_.clear();
  settles_.clear();
  nodes_.assign(1, Node{0, {}});
  now = {this, &root, 0, false};
  std::signal(SIGABRT, &Search::OnAbort);
  std::vector<Live> layer, next;
  layer.push_back({World(root.participants, root.kinds, root.faults), 0});
  seen_.insert(Situation(layer[0].world));
  ++states_;
  for (int depth = 0; !layer.empty(); ++depth) {
    if (FLAGS_progress) {
      std::fprintf(stderr, "depth %d: %zu situations, %zu in all\n", depth, layer.size(),
                   seen_.size());
    }
    for (Live& live : layer) {
      const Hash here = Situation(live.world);
      now.node = live.node;
      if (const std::string wrong = Settles(live.world, here); !wrong.empty()) {
        Report(root, live.node, wrong);
        if (violations_ >= 3) return false;
      }
      live.world.Possible(/*faults=*/true, &possible_);
      for (const Happening& happening : possible_) {
        nodes_.push_back({live.node, happening});
        now.node = static_cast<std::uint32_t>(nodes_.size() - 1);
        World world(live.world);
        world.Happen(happening);
        if (!world.wrong().empty()) {
          Report(root, now.node, world.wrong());
          if (violations_ >= 3) return false;
          continue;
        }
        if (!seen_.insert(Situation(world)).second) {
          nodes_.pop_back();
          continue;
        }
        if (++states_ >= FLAGS_max_states) return false;
        next.push_back({std::move(world), now.node});
      }
      live.world = World(std::move(live.world));  // keeps it valid; freed with the layer
    }
    layer = std::move(next);
    next.clear();
  }
  return true;
}

std::vector<Root> Roots() {
  using enum BranchKind;
  // A crash breaks connections too, so searches with crashes need no other breaks.
  const Faults crashes{true, true, 0, 0, false};
  const Faults crashes_retry{true, true, 0, 0, true};
  const Faults crashes_slow{true, true, 0, 1, false};
  const Faults no_crash{false, false, 1, 1, false};
  std::vector<Root> roots;
  if (FLAGS_search == "small") {
    roots.push_back({2, {kStandard, kEarly}, crashes});
  }
  if (FLAGS_search == "crashes" || FLAGS_search == "all") {
    roots.push_back({2, {kStandard, kStandard}, crashes_retry});
    roots.push_back({2, {kStandard, kEarly}, crashes_retry});
    roots.push_back({2, {kEarly, kEarly}, crashes_retry});
    roots.push_back({2, {kStandard, kReadOnly}, crashes_retry});
    roots.push_back({2, {kEarly, kReadOnly}, crashes_retry});
    roots.push_back({2, {kReadOnly, kReadOnly}, crashes_retry});
    roots.push_back({2, {kStandard, kStandard}, crashes_slow});
    roots.push_back({2, {kStandard, kEarly}, crashes_slow});
  }
  if (FLAGS_search == "three" || FLAGS_search == "all") {
    roots.push_back({3, {kStandard, kStandard, kStandard}, no_crash});
    roots.push_back({3, {kStandard, kEarly, kReadOnly}, no_crash});
  }
  return roots;
}

int Main() {
  const std::vector<Root> roots = Roots();
  if (roots.empty()) {
    std::cerr << "troth-explore: --search=" << FLAGS_search << " is none of its searches\n";
    return 2;
  }
  Search search;
  bool complete = true;
  for (const Root& root : roots) {
    const std::uint64_t before = search.states();
    complete = search.Run(root) && complete;
    std::string kinds;
    for (int p = 0; p < root.participants; ++p) {
      kinds += "SER"[static_cast<int>(root.kinds[static_cast<std::size_t>(p)])];
    }
    std::fprintf(stderr, "%s %s%s: %llu situations\n", kinds.c_str(),
                 root.faults.coordinator_crash ? "with crashes" : "without crashes",
                 root.faults.slow > 0 ? ", one answer slow" : "",
                 static_cast<unsigned long long>(search.states() - before));
    if (search.violations() >= 3) break;
  }
  std::printf("explore: states=%llu complete=%s violations=%llu\n",
              static_cast<unsigned long long>(search.states()), complete ? "true" : "false",
              static_cast<unsigned long long>(search.violations()));
  return complete && search.violations() == 0 ? 0 : 1;
}

}  // namespace
}  // namespace troth::explore

int main(int argc, char** argv) {
  if (const std::optional<int> done = troth::StartProgram(troth::explore::kUsage, &argc, &argv)) {
    return *done;
  }
  return troth::explore::Main();
}
