// The inside of a Transaction. Internal to client/; applications see transaction.h.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "client/boot_time.h"
#include "client/client_core.h"
#include "client/transaction.h"
#include "common/thread_annotations.h"
#include "coordinator_types.h"

namespace troth {

struct Transaction::Rep {
  Rep(ClientCore* core, std::string id, const Deadline& deadline,
      const TransactionOptions& options);

  // One participant's part, as far as we know it.
  struct BranchState {
    bool busy = false;     // a piece of work is under way
    bool opened = false;   // work 0 was answered
    bool unheard = false;  // work 0 was surely not begun
    bool read_only = false;
    std::string mark;
    std::string instance;
    std::int32_t works = 0;
    std::int64_t work_ms = 0;  // of all its works, until they were answered
    std::optional<wire::Vote> vote;
  };

  // Claims the branch for one piece of work and fills its context; an error: it may not be done.
  Status StartWork(const std::string& participant, const WorkOptions& work_options,
                   wire::Context* context, std::string* instance) TROTH_EXCLUDES(mutex);
  // Takes the answer of a piece of work into account; an error if it is not to be believed.
  Status TakeAnswer(const std::string& participant, const wire::Context& context,
                    const wire::Branch& answer) TROTH_EXCLUDES(mutex);
  // Work ended without an answer to be believed: the transaction can only be aborted. With
  // `unheard`, if it was the branch's first work, there is nothing to abort.
  Status Fail(const std::string& participant, Failure failure, bool unheard = false)
      TROTH_EXCLUDES(mutex);
  std::vector<wire::BranchClaim> Claims() TROTH_EXCLUDES(mutex);
  // The branches are no longer ours to count.
  void Forget() TROTH_EXCLUDES(mutex);
  // Tells the coordinator, one attempt of a second at most.
  void SendAbort();
  // Repeats the commit call until something is known, or the deadline passed.
  Outcome AskCommit(Wait wait);
  // The coordinator refused a commit; `heard` if an earlier call was sent and not answered.
  Outcome AfterRefusal(const wire::Refused& refusal, bool heard);
  Outcome Unknown(std::string why) const;
  // The end of Commit and Abort; `end_ms`: when it was asked for.
  void Ended(const Outcome& as, std::int64_t end_ms) TROTH_EXCLUDES(mutex);
  // Tells ClientOptions::on_slow if the transaction was slow.
  void TellIfSlow(const Outcome& outcome, std::int64_t end_ms) TROTH_EXCLUDES(mutex);

  ClientCore* const core;
  const std::string id;
  const Deadline deadline;
  const TransactionOptions options;
  const std::int64_t began_ms = BootMs();

  Mutex mutex;
  bool ended TROTH_GUARDED_BY(mutex) = false;
  std::optional<Outcome> ended_as TROTH_GUARDED_BY(mutex);
  std::optional<Failure> failure TROTH_GUARDED_BY(mutex);
  std::map<std::string, BranchState> branches TROTH_GUARDED_BY(mutex);
};

}  // namespace troth
