// See participant_service.h.
#include "participant/participant_service.h"
#include "wire/metrics.h"

#include <algorithm>
#include <atomic>
#include <unordered_set>

#include "ParticipantAdmin.h"
#include "ParticipantPeer.h"
#include "common/thread_annotations.h"
#include "common/traceparent.h"
#include "troth_constants.h"
#include "wire/guard.h"
#include "wire/listener.h"

namespace troth {
namespace {

constexpr bool Same(Refused ours, wire::Reason::type theirs) {
  return static_cast<int>(ours) == static_cast<int>(theirs);
}
static_assert(Same(Refused::kInvalid, wire::Reason::INVALID));
static_assert(Same(Refused::kVersionMismatch, wire::Reason::VERSION_MISMATCH));
static_assert(Same(Refused::kOverloaded, wire::Reason::OVERLOADED));
static_assert(Same(Refused::kDeadline, wire::Reason::DEADLINE));
static_assert(Same(Refused::kNoSuchBranch, wire::Reason::NO_SUCH_BRANCH));
static_assert(Same(Refused::kOutOfNumber, wire::Reason::OUT_OF_NUMBER));
static_assert(Same(Refused::kEnded, wire::Reason::ENDED));
static_assert(Same(Refused::kConflict, wire::Reason::CONFLICT));
static_assert(Same(Refused::kDatabase, wire::Reason::DATABASE));
static_assert(Same(Refused::kDatabaseUnavailable, wire::Reason::DATABASE_UNAVAILABLE));
static_assert(Same(Refused::kNotMine, wire::Reason::NOT_MINE));
static_assert(Same(Refused::kNotServing, wire::Reason::NOT_SERVING));
static_assert(Same(Refused::kForbidden, wire::Reason::FORBIDDEN));
static_assert(Same(Refused::kStaleEpoch, wire::Reason::STALE_EPOCH));
static_assert(Same(Refused::kApplication, wire::Reason::APPLICATION));

wire::Reason::type ToWire(Refused reason) {
  return static_cast<wire::Reason::type>(static_cast<int>(reason));
}

[[noreturn]] void Throw(Refused reason, std::string message) {
  throw ToWire(Refusal{reason, std::move(message), false, ""});
}

Isolation FromWire(wire::Isolation::type isolation) {
  switch (isolation) {
    case wire::Isolation::READ_COMMITTED: return Isolation::kReadCommitted;
    case wire::Isolation::REPEATABLE_READ: return Isolation::kRepeatableRead;
    case wire::Isolation::SERIALIZABLE: return Isolation::kSerializable;
  }
  return Isolation::kDefault;
}

wire::Finished::type ToWire(FinishResult::Kind kind) {
  switch (kind) {
    case FinishResult::Kind::kDone: return wire::Finished::DONE;
    case FinishResult::Kind::kWorking: return wire::Finished::WORKING;
    case FinishResult::Kind::kHeuristic: return wire::Finished::HEURISTIC;
    case FinishResult::Kind::kHazard: return wire::Finished::HAZARD;
  }
  return wire::Finished::WORKING;
}

class PeerHandler : public wire::ParticipantPeerIf {
 public:
  explicit PeerHandler(const ServiceContext* context) : context_(context) {}

  void hello(wire::ParticipantHello& reply, std::int32_t version,
             const wire::Sender& sender) override {
    CheckVersion(version);
    Fence(sender);
    reply.version = wire::g_troth_constants.PROTOCOL_VERSION;
    reply.participant = context_->participant;
    reply.instance = context_->instance;
    reply.__set_system_identifier(context_->database.system_identifier);
    reply.__set_database_oid(context_->database.oid);
    const DatabaseState enrolled = context_->enrolled();
    reply.__set_database_address(enrolled.address);
    reply.__set_database_machine(enrolled.machine);
  }

  void prepare(std::vector<wire::PrepareReply>& replies, const wire::Sender& sender,
               const std::vector<wire::PrepareRequest>& requests) override {
    Fence(sender);
    CheckSize(requests.size());
    std::vector<PrepareRequest> orders;
    for (const wire::PrepareRequest& r : requests) {
      RequireOwn(sender, r.transaction_id);
      orders.push_back({r.transaction_id, r.mark, r.works, std::chrono::milliseconds(r.deadline_ms),
                        r.instance});
    }
    const std::vector<Vote> votes = Prepare(orders);
    const DatabaseIdentity& database = context_->database;
    replies.resize(votes.size());
    for (std::size_t i = 0; i < votes.size(); ++i) {
      replies[i].transaction_id = requests[i].transaction_id;
      replies[i].mark = requests[i].mark;
      replies[i].vote = troth::ToWire(votes[i], database, "");
    }
  }

  void finish(std::vector<wire::FinishReply>& replies, const wire::Sender& sender,
              const std::vector<wire::FinishRequest>& requests) override {
    Fence(sender);
    CheckSize(requests.size());
    std::vector<FinishRequest> orders;
    for (const wire::FinishRequest& r : requests) {
      orders.push_back(FromWire(r));
      RequireOwn(sender, r.transaction_id);
    }
    const std::vector<FinishResult> results = context_->table->Finish(orders, kEntryWait);
    replies.resize(results.size());
    for (std::size_t i = 0; i < results.size(); ++i) {
      replies[i].transaction_id = requests[i].transaction_id;
      replies[i].finished = ToWire(results[i].kind);
      if (!results[i].message.empty()) replies[i].__set_message(results[i].message);
    }
  }

 private:
  // A branch whose PREPARE takes long (deferred triggers, a standby) makes the votes that travel
  // with its own late once; asked for again, it only does so to others of its kind.
  std::vector<Vote> Prepare(const std::vector<PrepareRequest>& orders) TROTH_EXCLUDES(mutex_) {
    std::vector<std::size_t> fresh, again;
    if (any_slow_.load(std::memory_order_relaxed)) {
      MutexLock lock(&mutex_);
      for (std::size_t i = 0; i < orders.size(); ++i) {
        (slow_.contains(orders[i].transaction_id) ? again : fresh).push_back(i);
      }
    }
    std::vector<Vote> votes;
    if (again.empty()) {
      votes = context_->table->Prepare(orders, kEntryWait);
    } else {
      votes.resize(orders.size());
      PrepareSome(orders, again, fresh.empty() ? kSlowEntryWait : std::chrono::milliseconds(0),
                  &votes);
      if (!fresh.empty()) PrepareSome(orders, fresh, kEntryWait, &votes);
    }
    const bool slow = std::any_of(votes.begin(), votes.end(), [](const Vote& vote) {
      return vote.kind == Vote::Kind::kWorking;
    });
    if (slow || !again.empty()) NoteSlow(orders, votes);
    return votes;
  }

  void PrepareSome(const std::vector<PrepareRequest>& orders, const std::vector<std::size_t>& which,
                   std::chrono::milliseconds wait, std::vector<Vote>* votes) {
    std::vector<PrepareRequest> some;
    for (const std::size_t i : which) some.push_back(orders[i]);
    std::vector<Vote> theirs = context_->table->Prepare(some, wait);
    for (std::size_t i = 0; i < which.size(); ++i) (*votes)[which[i]] = std::move(theirs[i]);
  }

  void NoteSlow(const std::vector<PrepareRequest>& orders, const std::vector<Vote>& votes)
      TROTH_EXCLUDES(mutex_) {
    MutexLock lock(&mutex_);
    // Those that nobody asked for again. Who is forgotten counts as fresh.
    if (slow_.size() > kMaxListEntries) slow_.clear();
    for (std::size_t i = 0; i < orders.size(); ++i) {
      if (votes[i].kind == Vote::Kind::kWorking) {
        slow_.insert(orders[i].transaction_id);
      } else {
        slow_.erase(orders[i].transaction_id);
      }
    }
    any_slow_.store(!slow_.empty(), std::memory_order_relaxed);
  }

  void Fence(const wire::Sender& sender) {
    RequireRole(context_->security, Role::kCoordinator, sender.coordinator);
    if (sender.epoch < 1 || sender.epoch > UINT32_MAX || sender.epoch_random < 0 ||
        sender.epoch_random > UINT32_MAX || sender.position < 0 ||
        !IsCoordinatorId(sender.coordinator)) {
      Throw(Refused::kInvalid, "the sender is not well formed");
    }
    if (std::optional<Refusal> stale =
            context_->fence->Check({sender.coordinator, static_cast<std::uint32_t>(sender.epoch),
                                    static_cast<std::uint32_t>(sender.epoch_random),
                                    static_cast<std::uint64_t>(sender.position)})) {
      throw troth::ToWire(*stale);
    }
  }

  // Each decides its own transactions, and no other's.
  static void RequireOwn(const wire::Sender& sender, const std::string& id) {
    const std::string& own = sender.coordinator;
    if (id.size() > own.size() && id[own.size()] == '.' && id.starts_with(own)) return;
    Throw(Refused::kForbidden, id.substr(0, 80) + " is not a transaction of coordinator " + own);
  }

  static void CheckSize(std::size_t size) {
    if (size > kMaxListEntries) {
      Throw(Refused::kInvalid, "a list of " + std::to_string(size) + " entries; at most " +
                                   std::to_string(kMaxListEntries) + " are taken");
    }
  }

  static FinishRequest FromWire(const wire::FinishRequest& request) {
    if (!TransactionId::Parse(request.transaction_id).ok()) {
      Throw(Refused::kInvalid, "not a transaction id: " + request.transaction_id.substr(0, 80));
    }
    FinishRequest out{request.transaction_id, request.commit, std::nullopt, std::nullopt};
    if (request.__isset.xid && request.__isset.timeline && request.__isset.position) {
      out.evidence = Evidence{static_cast<std::uint64_t>(request.xid),
                              {static_cast<std::uint32_t>(request.timeline),
                               static_cast<std::uint64_t>(request.position)}};
    } else if (request.commit) {
      Throw(Refused::kInvalid,
            "a commit of " + request.transaction_id + " names no xid, timeline and position");
    }
    return out;
  }

  const ServiceContext* const context_;
  Mutex mutex_;
  // Ids that a prepare was last answered `working` for.
  std::unordered_set<std::string> slow_ TROTH_GUARDED_BY(mutex_);
  std::atomic<bool> any_slow_{false};
};

class AdminHandler : public wire::ParticipantAdminIf {
 public:
  explicit AdminHandler(const ServiceContext* context) : context_(context) {}

  void status(wire::ParticipantStatusReport& report) override { report = context_->status(); }

  void branches(std::vector<wire::BranchStatus>& out, std::int32_t limit) override {
    const int most = std::clamp(limit, 0, 1000);
    for (const BranchInfo& info : context_->table->List(static_cast<std::size_t>(most))) {
      wire::BranchStatus& one = out.emplace_back();
      one.gid = GidPrefix(context_->participant) + info.transaction_id;
      one.transaction_id = info.transaction_id;
      one.state = info.state;
      one.age_ms = info.age.count();
    }
  }

  void prepared(std::vector<wire::PreparedBranch>& out,
                const std::vector<wire::TransactionId>& transaction_ids,
                std::int32_t limit) override {
    RequireOurs();
    for (const std::string& id : transaction_ids) {
      if (!TransactionId::Parse(id).ok()) Throw(Refused::kInvalid, "not a transaction id: " + id);
    }
    auto branches =
        context_->prepared(transaction_ids, static_cast<std::size_t>(std::clamp(limit, 1, 1000)));
    if (!branches.ok()) Throw(Refused::kDatabaseUnavailable, branches.status().message());
    out = *std::move(branches);
  }

  void settle(wire::FinishReply& reply, const wire::TransactionId& transaction_id,
              const std::int64_t xid, const bool commit, const std::string& order) override {
    RequireOurs();
    if (!TransactionId::Parse(transaction_id).ok() || xid < 1 || xid > UINT32_MAX ||
        order.empty()) {
      Throw(Refused::kInvalid, "an order names a transaction, its xid, and who orders it");
    }
    const Result<FinishResult> settled =
        context_->settle(transaction_id, static_cast<std::uint32_t>(xid), commit, order);
    if (!settled.ok()) {
      const Code code = settled.status().code();
      Throw(code == Code::kNotFound  ? Refused::kEnded
            : code == Code::kRefused ? Refused::kInvalid
                                     : Refused::kDatabaseUnavailable,
            settled.status().message());
    }
    reply.transaction_id = transaction_id;
    reply.finished = ToWire(settled->kind);
    if (!settled->message.empty()) reply.__set_message(settled->message);
  }

  void diagnose(wire::Diagnosis& reply) override {
    RequireOurs();
    reply.process = "participant " + context_->participant;
    reply.unix_ms = SystemClock()->WallUnixMs();
    reply.findings = context_->findings();
  }

 private:
  // Of coordinators, which ask what an administrator asked them, those of this participant only.
  void RequireOurs() const {
    Security* const security = context_->security;
    if (security == nullptr || !security->WhyNot(CallerName(), Role::kAdministrator)) return;
    for (const std::string& id : context_->coordinators()) {
      if (!security->WhyNot(CallerName(), Role::kCoordinator, id)) return;
    }
    Throw(Refused::kForbidden,
          "certificate '" + CallerName() + "' is of no coordinator of this participant");
  }

  const ServiceContext* const context_;
};

// Two services whose calls have different names, on one connection, each for its role.
class PeerProcessor : public wire::ParticipantPeerProcessor {
 public:
  PeerProcessor(Security* security, std::shared_ptr<wire::ParticipantPeerIf> peer,
                std::shared_ptr<wire::ParticipantAdminIf> admin)
      : ParticipantPeerProcessor(std::move(peer)), security_(security), admin_(std::move(admin)) {}

 protected:
  bool dispatchCall(apache::thrift::protocol::TProtocol* in,
                    apache::thrift::protocol::TProtocol* out, const std::string& name,
                    std::int32_t sequence, void* call) override {
    const bool admin = name == "status" || name == "branches" || name == "prepared" ||
                       name == "settle" || name == "diagnose";
    const char* const service = admin ? "ParticipantAdmin" : "ParticipantPeer";
    if (RefuseCall(security_, service, in, out, name, sequence)) return true;
    if (admin) return admin_.Call(in, out, name, sequence, call);
    return ParticipantPeerProcessor::dispatchCall(in, out, name, sequence, call);
  }

 private:
  struct Admin : wire::ParticipantAdminProcessor {
    using ParticipantAdminProcessor::ParticipantAdminProcessor;
    bool Call(apache::thrift::protocol::TProtocol* in, apache::thrift::protocol::TProtocol* out,
              const std::string& name, std::int32_t sequence, void* call) {
      return dispatchCall(in, out, name, sequence, call);
    }
  };
  Security* const security_;
  Admin admin_;
};

}  // namespace

wire::Refused ToWire(const Refusal& refusal) {
  wire::Refused out;
  out.reason = ToWire(refusal.reason);
  out.message = refusal.message;
  out.retryable = refusal.retryable;
  if (!refusal.sqlstate.empty()) out.__set_sqlstate(refusal.sqlstate);
  if (refusal.unheard) out.__set_unheard(true);
  return out;
}

wire::Vote ToWire(const Vote& vote, const DatabaseIdentity& database, const std::string& mac) {
  wire::Vote out;
  out.works = vote.works;
  switch (vote.kind) {
    case Vote::Kind::kPrepared:
      out.ballot = wire::Ballot::PREPARED;
      out.__set_system_identifier(database.system_identifier);
      out.__set_database_oid(database.oid);
      out.__set_xid(static_cast<std::int64_t>(vote.evidence.xid));
      out.__set_timeline(static_cast<std::int32_t>(vote.evidence.point.timeline));
      out.__set_position(static_cast<std::int64_t>(vote.evidence.point.position));
      if (!mac.empty()) out.__set_mac(mac);
      break;
    case Vote::Kind::kReadOnly: out.ballot = wire::Ballot::READ_ONLY; break;
    case Vote::Kind::kWorking: out.ballot = wire::Ballot::WORKING; break;
    case Vote::Kind::kRefused:
      out.ballot = wire::Ballot::REFUSED;
      out.__set_reason(ToWire(vote.refusal.reason));
      out.__set_message(vote.refusal.message);
      out.__set_retryable(vote.refusal.retryable);
      if (!vote.refusal.sqlstate.empty()) out.__set_sqlstate(vote.refusal.sqlstate);
      break;
  }
  return out;
}

Granted<WorkRequest> FromWire(const wire::Context& context) {
  WorkRequest out;
  out.transaction_id = context.transaction_id;
  out.work = context.work;
  out.time_left = std::chrono::milliseconds(context.deadline_ms);
  if (context.work > 0 && !context.__isset.mark) {
    return Refusal{Refused::kInvalid,
                   "work " + std::to_string(context.work) +
                       " brings no mark; pass on the one that "
                       "work 0 returned",
                   false, ""};
  }
  out.mark = context.mark;
  if (context.__isset.isolation) out.isolation = FromWire(context.isolation);
  out.read_only = context.__isset.read_only && context.read_only;
  if (context.__isset.traceparent && IsTraceparent(context.traceparent)) {
    out.label = "troth:" + context.traceparent;
  }
  return out;
}

void CheckVersion(std::int32_t version) {
  const std::int32_t ours = wire::g_troth_constants.PROTOCOL_VERSION;
  if (version == ours) return;
  Throw(Refused::kVersionMismatch, "the caller speaks version " + std::to_string(version) +
                                       " of the protocol, this participant version " +
                                       std::to_string(ours));
}

HttpReply MonitoringPage(const wire::ParticipantStatusReport& report, std::uint64_t overloaded,
                         const std::function<Result<std::vector<wire::PreparedBranch>>()>& prepared,
                         const std::string& path) {
  const char* const text = "text/plain; charset=utf-8";
  const bool ready = report.coordinator_up && report.database_up;
  if (path == "/healthz") return {200, text, "alive\n"};
  if (path == "/readyz") {
    const char* const why = !report.database_up      ? "the database is away\n"
                            : !report.coordinator_up ? "no coordinator is connected\n"
                                                     : "serving\n";
    return {ready ? 200 : 503, text, why};
  }
  if (path != "/metrics") return {404, text, "there are /metrics, /healthz and /readyz\n"};
  MetricPage page;
  const auto gauge = [&](const char* name, const char* help, double value) {
    page.Gauge(name, help, value, {{"participant", report.participant}});
  };
  gauge("troth_branches_active", "Branches with work under way, not prepared.",
        static_cast<double>(report.active));
  gauge("troth_branches_in_doubt", "Branches prepared here, the decision not carried out.",
        static_cast<double>(report.in_doubt));
  page.Counter("troth_branches_overloaded_total",
               "Branches refused for load before they began: no place, or no connection.",
               static_cast<double>(overloaded), {{"participant", report.participant}});
  gauge("troth_branch_heuristics", "Branches found to have ended against the decision.",
        static_cast<double>(report.heuristics));
  gauge("troth_branch_hazards", "Branches of which the evidence does not tell how they ended.",
        static_cast<double>(report.hazards));
  gauge("troth_database_up", "1 while the database answers.", report.database_up ? 1 : 0);
  gauge("troth_coordinator_up", "1 while every coordinator is connected.",
        report.coordinator_up ? 1 : 0);
  const Result<std::vector<wire::PreparedBranch>> branches = prepared();
  if (!branches.ok()) return {200, kMetricsType, page.Text()};  // troth_database_up tells
  std::int64_t oldest_ms = 0, xmin_age = 0;
  std::size_t waiting = 0;
  for (const wire::PreparedBranch& branch : *branches) {
    oldest_ms = std::max(oldest_ms, branch.prepared_ms);
    xmin_age = std::max(xmin_age, branch.xmin_age);
    waiting += branch.waiting.size();
  }
  gauge("troth_prepared_branches", "Branches prepared in the database, at most 1,000.",
        static_cast<double>(branches->size()));
  gauge("troth_oldest_prepared_seconds", "Time since the oldest of them was prepared.",
        static_cast<double>(oldest_ms) / 1e3);
  gauge("troth_prepared_xmin_age", "Transactions begun since that of the oldest xid among them.",
        static_cast<double>(xmin_age));
  gauge("troth_sessions_waiting", "Sessions of the database that wait behind a prepared branch.",
        static_cast<double>(waiting));
  return {200, kMetricsType, page.Text()};
}

std::shared_ptr<apache::thrift::TProcessor> MakePeerProcessor(const ServiceContext* context) {
  return std::make_shared<PeerProcessor>(context->security, std::make_shared<PeerHandler>(context),
                                         std::make_shared<AdminHandler>(context));
}

}  // namespace troth
