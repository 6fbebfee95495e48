// One transaction, its client, two or three participants, the commit protocol and a log that is
// a list of records, as a value that can be copied: what the exhaustive search (explore.cc)
// walks through. The machine is the one that ships; participants are the rules of
// docs/protocol.md in their shortest form: work, prepare, finish, ask. tests/simulation/simulate
// runs the real ones.
//
// Where two orders can't differ in effect only one is walked: a request whose sender waits for
// nothing meanwhile (the client's, an inquiry) is sent and received in one happening, for late
// is as good as sent later, and lost as good as never sent; so is an answer that says `pending`.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "coordinator/commit_protocol.h"

namespace troth::explore {

inline constexpr int kMaxParticipants = 3;

enum class BranchKind : std::uint8_t { kStandard, kEarly, kReadOnly };

// What may go wrong in one search, at most.
struct Faults {
  bool coordinator_crash = true;
  bool participant_crash = true;  // one each
  int breaks = 0;                 // of so many the connection breaks, once each
  int slow = 0;                   // so many answer `working`, once each
  bool client_retries = true;     // the commit is asked once more
};

// One thing that happens. `at` is a participant, a message, or a number of records.
struct Happening {
  enum Kind : std::uint8_t {
    kDeliver,
    kDeliverRefused,
    kDeliverSlow,
    kLose,
    kDurable,
    kTime,
    kClientCommits,
    kClientAborts,
    kConnect,
    kAsk,
    kIdleOut,  // up to here no fault
    kBreak,
    kParticipantCrash,
    kCoordinatorCrash,
    kStray,
  };
  Kind kind = kTime;
  std::uint8_t at = 0;
};

class World {
 public:
  World(int participants, const std::array<BranchKind, kMaxParticipants>& kinds, Faults faults);
  World(const World& other);
  World(World&&) = default;
  World& operator=(World&&) = default;

  // All that may happen now; with `faults` off, nothing breaks, crashes or is lost.
  void Possible(bool faults, std::vector<Happening>* out) const;
  // Makes it happen. The first law that is broken is kept in wrong().
  void Happen(const Happening& happening);
  const std::string& wrong() const { return wrong_; }
  // Every branch is settled, and the coordinator owes nothing.
  bool Settled() const;
  // Bytes that are equal when two worlds go on alike.
  void AppendSituation(std::string* out) const;
  // One line for people: what `happening` is, here.
  std::string Describe(const Happening& happening) const;
  // Events and actions of the machine are appended here, when set.
  void set_trace(std::string* trace) { trace_ = trace; }

 private:
  enum class Branch : std::uint8_t {
    kActive,
    kPreparing,
    kPrepared,
    kCommitted,
    kRolledBack,
    kReadOnlyOver
  };
  struct Participant {
    BranchKind kind = BranchKind::kStandard;
    Branch branch = Branch::kActive;
    bool stray = false;  // another branch, never voted, sits prepared under the GID
    bool up = true;      // the coordinator's connection to it
    bool wanted = true;  // the coordinator asked for a connection (Connect)
    bool to_enroll = false;
    bool may_crash = true, may_break = true, may_stray = false;
    bool may_be_slow = true;
  };
  // Sorted in the network: what was sent has no order.
  struct Message {
    enum Kind : std::uint8_t { kPrepare, kFinishCommit, kFinishAbort, kVote, kAck, kAnswer };
    Kind kind;
    std::uint8_t participant;
    std::uint8_t what;    // ballot, Finished, answer
    std::uint8_t orphan;  // its connection broke: the reply will be dropped
    auto operator<=>(const Message&) const = default;
  };

  void Step(const Event& event);
  void Take(const Actions& actions);
  void Send(Message message);
  void Deliver(const Message& message, Happening::Kind how);
  void DeliverPrepare(const Message& message, Happening::Kind how);
  void DeliverFinish(const Message& message, Happening::Kind how);
  void DeliverAnswer(const Message& message);
  void BreakConnection(int p, bool process_died);
  void CrashCoordinator(int keep);
  void Begin(RecoveredState state);
  CommitAsked Commit() const;
  BranchVote VoteOf(int p) const;
  std::uint64_t Xid(int p, bool stray) const;
  void Enroll(int p);
  void Check();
  void Probe();
  void Wrong(const std::string& what);
  bool RecordIn(const std::vector<LogRecord>& records) const;

  int participants_;
  Faults faults_;
  ProtocolOptions options_;
  TransactionId id_;
  std::unique_ptr<CommitProtocol> machine_;
  std::vector<LogRecord> durable_, undurable_;
  std::uint64_t numbered_ = 0, batch_ = 1;
  RunningMs now_ = 0;
  std::array<Participant, kMaxParticipants> p_;
  std::vector<Message> network_;
  std::uint8_t commits_left_ = 1, aborts_left_ = 1;
  bool may_crash_ = true;
  // What was promised, and to whom; kept apart from all that is tested.
  bool told_committed_ = false, told_aborted_ = false, told_read_only_ = false;
  std::string wrong_;
  std::string* trace_ = nullptr;
};

}  // namespace troth::explore
