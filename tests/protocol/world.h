// The commit protocol on a table: one machine, a log that is a list of records, and a small
// language in which tests tell it what happens. No wire, no files, no threads. What a command
// prints is made of DebugString only, so transcripts (testdata/) show what the machine shows.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "coordinator/commit_protocol.h"

namespace troth {

// The language, one command a line; words `[...]` may be left out:
//   open [lease_ms=N] [record_ms=N] [outcome_ms=N] [hear_ms=N] [reserve=N] [max_undecided=N]
//        [max_unacknowledged=N] [max_branches=N] [max_leased=N] [early=no] [read_only=no]
//                              makes a log, and begins its first life
//   crash [keep=N]             what is not durable is lost but for its first N records; the
//                              next life begins
//   cut N                      as crash, and the last N durable records are gone too (a log
//                              restored from an older copy)
//   ready P...                 enrolls, connects and brings up participants; makes all durable
//   durable [N]                the next N records handed over (all of them) become durable
//   enroll P [database=S/O] [address=T] [port=N] [saw=E@B | saw=NUMBER-HEX@B]
//   up P... | down P...        E of `saw` is a life counted from 1, B a batch
//   lease N
//   commit S [P:MARK:WORKS[:read-only][:voted=XID][:forged=XID]]... [deadline=+MS]
//          [wait=decided] [key=K]            S is a sequence, or LIFE.S
//   vote P S prepared=XID|read-only|refused|working [works=N] [mark=M] [database=S/O]
//   finished P S [working|heuristic|hazard|abort]
//   abort S [P:MARK:WORKS]... | outcome S [wait=MS] | inquiry P [saw=..] S:XID...
//   key K | close-key K
//   time +MS                   in steps, as the machine's timers want it
//   room yes|no | drain | forget P | rebind P | accept-gap | discard-report P
//   order P S                  an operator's order about a branch is to be recorded
//   show S...                  what the machine knows
//   log                        the durable records
// A participant's mark is `m` unless named; the deadline +10000.
class World {
 public:
  World();
  ~World();

  // Runs commands, one a line; returns what happened: each event behind `> `, then, indented,
  // the actions. Dies on a command it does not know. Checks the invariants after each step.
  std::string Run(std::string_view commands);

  // ---- For tests that want values.
  CommitProtocol& machine() { return *machine_; }
  RunningMs now() const { return now_; }
  // What the last Run made the machine do.
  const Actions& actions() const { return actions_; }
  // Records handed over, durable or not; of all lives.
  const std::vector<LogRecord>& handed_over() const { return handed_over_; }
  std::size_t durable() const { return durable_.size(); }

  // Feeds one event.
  void Feed(const Event& event);

 private:
  struct Words;
  void Command(const Words& w);
  void CommandOfClients(const Words& w);
  void CommandOfParticipants(const Words& w);
  void CommandOfOperators(const Words& w);
  void Begin();
  void Durable(std::size_t count);
  void Time(RunningMs passes);
  void Say(const std::string& line) { said_ += line + "\n"; }
  void Take(std::size_t from);
  TransactionId Id(std::string_view text) const;
  ParticipantIndex Index(std::string_view name) const;
  BranchClaim Claim(std::string_view text) const;
  SeenPosition Seen(std::string_view text) const;
  EnrolmentAsked Enrolment(const Words& w) const;

  ProtocolOptions options_;
  std::unique_ptr<CommitProtocol> machine_;
  std::vector<std::pair<LogRecord, RunningMs>> durable_;
  std::vector<std::pair<LogRecord, RunningMs>> undurable_;
  std::vector<LogRecord> handed_over_;
  std::uint64_t numbered_ = 0;  // records of this life that are durable
  std::uint64_t batch_ = 0;
  std::vector<Epoch> lives_;
  RunningMs now_ = 0;
  ReplyToken token_ = 0;
  Actions actions_;
  std::string said_;
};

}  // namespace troth
