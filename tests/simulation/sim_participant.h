// A participant process of the simulated cluster: the branch table, sweep and epoch fence that
// ship, on the simulated database. Speaks in plain values, so that the cluster needs neither
// the participant's headers nor a wire. One thread.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/clock.h"

namespace troth::sim {

struct WorkAsk {
  std::string id;
  int work = 0;
  std::int64_t left_ms = 0;
  std::string mark;
  bool read_only = false;
  bool last = false;       // early prepare
  std::string key;         // the row it adds one to
  bool contended = false;  // and one of a few rows that all want
};
enum class Said : std::uint8_t { kPrepared = 1, kReadOnly = 2, kRefused = 3, kWorking = 4 };
struct VoteSaid {
  Said ballot = Said::kWorking;
  int works = 0;
  std::uint64_t xid = 0;
  std::uint32_t timeline = 0;
  std::uint64_t position = 0;
  int reason = 0;
  bool retryable = false;
};
struct WorkSaid {
  bool ok = false;
  int reason = 0;
  std::string message;
  std::string mark;
  int works = 0;
  std::optional<VoteSaid> vote;
};
struct PrepareAsk {
  std::string id, mark, instance;
  int works = 0;
  std::int64_t left_ms = 0;
};
struct FinishAsk {
  std::string id;
  bool commit = false;
  std::uint64_t xid = 0;
  std::uint32_t timeline = 0;
  std::uint64_t position = 0;
};
enum class Settled : std::uint8_t { kDone = 1, kWorking = 2, kHeuristic = 3, kHazard = 4 };
struct SenderSaid {
  std::string coordinator;
  std::uint32_t epoch = 0, random = 0;
  std::uint64_t position = 0;
};
struct InquiryAsk {
  std::string id;
  std::uint32_t xid = 0;
};
enum class Verdict : std::uint8_t { kCommit, kAbort, kPending, kExpired, kNotMine };
struct InquirySaid {
  InquiryAsk asked;
  Verdict verdict = Verdict::kPending;
  std::uint64_t xid = 0;
  std::uint32_t timeline = 0;
  std::uint64_t position = 0;
};

// Chances of one statement, each in 1/1000.
struct DatabaseFaults {
  int lost_before = 0, lost_after = 0, warning = 0, busy = 0, slow = 0;
};

class Participant {
 public:
  Participant(std::string name, int index, Clock* clock, std::function<std::uint64_t()> random);
  ~Participant();

  // ---- The process.
  void Start();
  void Crash();  // SIGKILL
  bool alive() const;
  const std::string& name() const;
  const std::string& instance() const;
  std::string database_identifier() const;
  std::uint32_t database_oid() const;

  bool Fence(const SenderSaid& sender);  // false: a stale epoch
  SenderSaid Seen(const std::string& coordinator) const;
  void Told(const SenderSaid& sender);  // it answered an enrolment
  WorkSaid Work(const WorkAsk& ask);
  std::vector<VoteSaid> Prepare(const std::vector<PrepareAsk>& asks);
  std::vector<Settled> Finish(const std::vector<FinishAsk>& asks);
  void Tick();
  std::vector<InquiryAsk> Look();
  void Settle(const std::vector<InquirySaid>& answers);
  std::size_t expired_or_not_mine() const;
  std::uint64_t heuristics() const;
  std::uint64_t hazards() const;

  // ---- Its database, and what an auditor reads there.
  void CrashDatabase();
  // A key whose last change the standby has not: at all, or not finished, only prepared.
  struct Lost {
    std::string key;
    enum How : std::uint8_t { kRow, kPrepared, kFinish } how = kRow;
  };
  // Notes how far a standby is, and makes it the primary, on a timeline of its own. Between the
  // two calls the primary may go on; what it did then is lost, and returned.
  void NoteStandby();
  std::vector<Lost> FailOver();
  void SetAway(bool away);
  void SetFaults(const DatabaseFaults& faults);
  std::optional<std::int64_t> Row(const std::string& key) const;
  bool IsPrepared(const std::string& gid) const;
  std::size_t PreparedCount() const;
  std::string PreparedText() const;

 private:
  struct Rep;
  std::unique_ptr<Rep> rep_;
};

}  // namespace troth::sim
