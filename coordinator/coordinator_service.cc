// See coordinator_service.h.
#include "coordinator/coordinator_service.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <map>
#include <optional>
#include <span>
#include <utility>

#include <glog/logging.h>

#include "Coordinator.h"
#include "CoordinatorAdmin.h"
#include "CoordinatorPeer.h"
#include "common/failpoint.h"
#include "common/thread_annotations.h"
#include "common/traceparent.h"
#include "common/vote_mac.h"
#include "coordinator/participant_directory.h"
#include "coordinator/resolve_service.h"
#include "coordinator/status_metrics.h"
#include "coordinator/wire_values.h"
#include "recovery/heuristics.h"
#include "troth_constants.h"
#include "wire/guard.h"
#include "wire/listener.h"

namespace troth {
namespace {

using SteadyClock = std::chrono::steady_clock;

// Longer deadlines are no use: no transaction lasts longer than a lease.
constexpr std::int64_t kMaxWaitMs = 30'000;
constexpr std::size_t kMaxInquiries = 1'000;
constexpr std::size_t kMaxHeuristics = 1'000;  // they must fit a frame

[[noreturn]] void Throw(Reason reason, std::string message, bool retryable = false) {
  throw ToWire(Refusal{reason, retryable, std::move(message), "", ""});
}

void CheckVersion(std::int32_t theirs) {
  const std::int32_t ours = wire::g_troth_constants.PROTOCOL_VERSION;
  if (theirs == ours) return;
  Throw(Reason::kVersionMismatch, "this coordinator speaks protocol version " +
                                      std::to_string(ours) + ", the caller " +
                                      std::to_string(theirs) + ": upgrade the older one");
}

TransactionId ParseId(const std::string& text) {
  Result<TransactionId> id = TransactionId::Parse(text);
  if (!id.ok()) Throw(Reason::kInvalid, id.status().message());
  return *std::move(id);
}

}  // namespace

// Keeps the derived secrets of the participants that enrolled in this epoch: to derive one costs as
// much as to check a vote. Names that nobody enrolled take no memory.
class Secrets {
 public:
  explicit Secrets(std::string of_epoch) : of_epoch_(std::move(of_epoch)) {}
  // Of who enrolls now.
  std::string Give(const std::string& participant) TROTH_EXCLUDES(mutex_) {
    std::string secret = ParticipantSecret(of_epoch_, participant);
    MutexLock lock(&mutex_);
    return given_.insert_or_assign(participant, std::move(secret)).first->second;
  }
  // Of whoever is named.
  std::string Of(const std::string& participant) const TROTH_EXCLUDES(mutex_) {
    {
      MutexLock lock(&mutex_);
      const auto given = given_.find(participant);
      if (given != given_.end()) return given->second;
    }
    return ParticipantSecret(of_epoch_, participant);
  }

 private:
  const std::string of_epoch_;
  mutable Mutex mutex_;
  std::map<std::string, std::string> given_ TROTH_GUARDED_BY(mutex_);
};

struct CoordinatorServer::Rep {
  Rep(Options with, Coordinator* the_coordinator, Crew* the_crew, ThriftChannel* the_channel)
      : options(std::move(with)),
        coordinator(the_coordinator),
        crew(the_crew),
        channel(the_channel),
        secrets(options.epoch_secret) {}

  Options options;
  Coordinator* coordinator;
  Crew* crew;
  ThriftChannel* channel;
  Secrets secrets;
  ParticipantDirectory directory;
  SteadyClock::time_point started = SteadyClock::now();
  std::unique_ptr<Listener> clients, peers, administrators;

  bool tls() const { return options.security != nullptr && options.security->tls() != nullptr; }
  // Brings an event and waits for its reply. A refusal is thrown, and says that nothing was done;
  // who stops before there is a reply breaks the call off, and the caller asks what became of it.
  template <typename E>
  Action Ask(E event) {
    Crew::Call call;
    event.token = Crew::TokenOf(&call);
    coordinator->Submit(Event(std::move(event)));
    std::optional<Action> reply = crew->Await(&call);
    if (!reply) throw apache::thrift::TException("the coordinator stops; ask for the outcome");
    if (const auto* refused = std::get_if<ReplyRefused>(&*reply)) throw ToWire(refused->refusal);
    return *std::move(reply);
  }
  // Lets `look` see the machine. This thread may have run it for others meanwhile, and what it
  // did must go on.
  void Look(const std::function<void(const CommitProtocol&)>& look) const {
    coordinator->Inspect(look);
    crew->Nudge();
  }
  RunningMs Deadline(std::int64_t left_ms) const {
    return coordinator->Now() + std::clamp<std::int64_t>(left_ms, 0, kMaxWaitMs);
  }
  std::vector<BranchClaim> Claims(const std::string& id,
                                  const std::vector<wire::BranchClaim>& list) const;
};

namespace {

const char* NameOf(wire::OutcomeKind::type kind) {
  switch (kind) {
    case wire::OutcomeKind::COMMITTED: return "committed";
    case wire::OutcomeKind::ABORTED: return "aborted";
    case wire::OutcomeKind::READ_ONLY: return "read-only";
    case wire::OutcomeKind::PENDING: return "pending";
    case wire::OutcomeKind::EXPIRED: return "expired";
  }
  return "";
}

class ClientHandler : public wire::CoordinatorIf {
 public:
  explicit ClientHandler(CoordinatorServer::Rep* rep) : rep_(rep) {}

  void hello(wire::CoordinatorHello& reply, const wire::ClientHello& client) override {
    CheckVersion(client.version);
    VLOG(1) << "hello from application '" << client.application << "'";
    reply.version = wire::g_troth_constants.PROTOCOL_VERSION;
    reply.sender = SenderOf(rep_->options.coordinator_id, *rep_->coordinator);
  }

  void lease(wire::Lease& reply, std::int32_t count) override {
    const Action action = rep_->Ask(LeaseAsked{0, static_cast<std::uint32_t>(std::max(count, 0))});
    // A crash here costs ids: the epoch ends with the process, and nobody may use them.
    if (TROTH_FAILPOINT("lease-replying")) Throw(Reason::kNotServing, "failpoint", true);
    const auto& lease = std::get<ReplyLease>(action);
    reply.prefix = rep_->options.coordinator_id + "." + lease.epoch.ToString() + ".";
    reply.first = static_cast<std::int64_t>(lease.first);
    reply.count = static_cast<std::int32_t>(lease.count);
    reply.ends_in_ms = lease.end - lease.granted;
  }

  void commit(wire::Outcome& reply, const wire::CommitRequest& request) override {
    const auto began = SteadyClock::now();
    Monitoring* const monitoring = rep_->options.monitoring;
    try {
      Commit(reply, request);
    } catch (const wire::Refused& refused) {
      if (monitoring != nullptr) monitoring->Refused(wire::to_string(refused.reason));
      throw;
    }
    const std::chrono::duration<double> took = SteadyClock::now() - began;
    const std::int64_t slow_ms = rep_->options.slow_ms;
    if (slow_ms > 0 && took.count() * 1e3 >= static_cast<double>(slow_ms)) {
      TellSlow(request, reply, took.count());
    }
    if (monitoring != nullptr) monitoring->Committed(NameOf(reply.kind), took.count());
  }

  void abort(wire::Outcome& reply, const wire::AbortRequest& request) override {
    RequireParticipants(request.branches);
    AbortAsked asked;
    asked.id = ParseId(request.transaction_id);
    asked.branches = rep_->Claims(request.transaction_id, request.branches);
    asked.message = request.message.substr(0, 512);
    Answer(&reply, rep_->Ask(std::move(asked)), request.transaction_id);
  }
  void outcome(wire::Outcome& reply, const wire::TransactionId& transaction_id,
               std::int64_t wait_ms) override {
    OutcomeAsked asked;
    asked.id = ParseId(transaction_id);
    asked.until = rep_->Deadline(wait_ms);
    Answer(&reply, rep_->Ask(std::move(asked)), transaction_id);
  }

  void outcome_of_key(wire::Outcome& reply, const std::string& key) override {
    Answer(&reply, rep_->Ask(KeyAsked{0, key, false}), "");
  }

  void close_key(wire::Outcome& reply, const std::string& key) override {
    Answer(&reply, rep_->Ask(KeyAsked{0, key, true}), "");
  }

  void resolve(std::vector<wire::ParticipantAddress>& reply,
               const std::vector<std::string>& names) override {
    for (ParticipantDirectory::Entry& entry : rep_->directory.Copy(names)) {
      wire::ParticipantAddress address;
      address.up = rep_->channel->Up(entry.index, entry.instance);
      address.participant = std::move(entry.participant);
      address.instance = std::move(entry.instance);
      address.host = std::move(entry.host);
      address.port = entry.port;
      reply.push_back(std::move(address));
    }
    const auto known = [&](const std::string& name) {
      return std::any_of(reply.begin(), reply.end(),
                         [&](const auto& address) { return address.participant == name; });
    };
    if (names.empty() || !std::all_of(names.begin(), names.end(), known)) {
      ResolveSilent(reply, names);
    }
  }

 private:
  void Commit(wire::Outcome& reply, const wire::CommitRequest& request) {
    RequireParticipants(request.branches);
    CommitAsked asked;
    asked.id = ParseId(request.transaction_id);
    asked.branches = rep_->Claims(request.transaction_id, request.branches);
    asked.deadline = rep_->Deadline(request.deadline_ms);
    asked.wait_applied = request.wait != wire::Wait::DECIDED;
    asked.key = request.key;
    const Action action = rep_->Ask(std::move(asked));
    // A crash here leaves the client without an answer: it asks, or repeats, and hears the same.
    if (TROTH_FAILPOINT("outcome-replying")) throw apache::thrift::TException("failpoint");
    Answer(&reply, action, request.transaction_id);
  }

  // A line of the log, 20 a second at most: when all are slow, some tell as much as all.
  void TellSlow(const wire::CommitRequest& request, const wire::Outcome& reply, double seconds) {
    const auto second =
        std::chrono::duration_cast<std::chrono::seconds>(SteadyClock::now().time_since_epoch())
            .count();
    if (slow_second_.exchange(second) != second) slow_told_ = 0;
    if (slow_told_.fetch_add(1) >= kSlowLinesPerSecond) return;
    const Result<TransactionId> id = TransactionId::Parse(request.transaction_id);
    std::string where;
    if (id.ok() && rep_->options.inspection != nullptr) {
      where = rep_->options.inspection->WhereTimeWent(*id);
    }
    LOG(WARNING) << "slow transaction " << request.transaction_id << ": " << NameOf(reply.kind)
                 << " after " << static_cast<std::int64_t>(seconds * 1e3) << " ms"
                 << (where.empty() ? "" : ": ") << where
                 << (IsTraceparent(request.traceparent) ? "; traceparent " + request.traceparent
                                                        : std::string());
  }

  void RequireParticipants(const std::vector<wire::BranchClaim>& branches) const {
    if (!rep_->tls()) return;
    for (const wire::BranchClaim& branch : branches) {
      RequireRole(rep_->options.security, Role::kClient, branch.participant);
    }
  }

  // Participants in the log that this life has not heard of yet: they exist, where is not known.
  void ResolveSilent(std::vector<wire::ParticipantAddress>& reply,
                     const std::vector<std::string>& names) {
    const auto wanted = [&](const std::string& name) {
      return (names.empty() || std::find(names.begin(), names.end(), name) != names.end()) &&
             std::none_of(reply.begin(), reply.end(),
                          [&](const auto& known) { return known.participant == name; });
    };
    rep_->Look([&](const CommitProtocol& protocol) {
      for (const ParticipantRecord& record : protocol.state().participants()) {
        if (record.forgotten || !wanted(record.name)) continue;
        wire::ParticipantAddress address;
        address.participant = record.name;
        address.port = 0;
        address.up = false;
        reply.push_back(std::move(address));
      }
    });
  }

  static void Answer(wire::Outcome* reply, const Action& action, const std::string& id) {
    *reply = ToWire(std::get<ReplyOutcome>(action));
    if (reply->transaction_id.empty()) reply->transaction_id = id;
  }

  static constexpr int kSlowLinesPerSecond = 20;
  CoordinatorServer::Rep* const rep_;
  std::atomic<std::int64_t> slow_second_{0};
  std::atomic<int> slow_told_{0};
};

class PeerHandler : public wire::CoordinatorPeerIf {
 public:
  explicit PeerHandler(CoordinatorServer::Rep* rep) : rep_(rep) {}

  void enroll(wire::Enrolled& reply, const wire::Enrolment& enrolment) override {
    CheckVersion(enrolment.version);
    RequireRole(rep_->options.security, Role::kParticipant, enrolment.participant);
    EnrolmentAsked asked;
    ParticipantRecord& record = asked.participant;
    record.name = enrolment.participant;
    try {
      record.database.system_identifier = std::stoull(enrolment.system_identifier);
    } catch (const std::exception&) {
      Throw(Reason::kInvalid,
            "system_identifier '" + enrolment.system_identifier + "' is not a number");
    }
    record.database.oid = static_cast<std::uint32_t>(enrolment.database_oid);
    record.database_address =
        DatabaseAddress{enrolment.database_address, enrolment.database_machine}.ToString();
    record.peer_host = enrolment.host;
    record.peer_port = static_cast<std::uint32_t>(enrolment.peer_port);
    asked.instance = enrolment.instance;
    asked.seen = OfUs(enrolment.seen);
    const Action action = rep_->Ask(std::move(asked));
    rep_->directory.Set({enrolment.participant,
                         enrolment.instance,
                         enrolment.host,
                         enrolment.port,
                         std::get<ReplyEnrolled>(action).index,
                         {}});
    reply.version = wire::g_troth_constants.PROTOCOL_VERSION;
    reply.sender = SenderOf(rep_->options.coordinator_id, *rep_->coordinator);
    reply.secret = rep_->secrets.Give(enrolment.participant);
  }

  void inquire(std::vector<wire::Answer>& reply, const std::string& participant,
               const std::vector<wire::Inquiry>& inquiries, const wire::Seen& seen) override {
    RequireRole(rep_->options.security, Role::kParticipant, participant);
    if (inquiries.size() > kMaxInquiries) {
      Throw(Reason::kInvalid, "at most 1000 inquiries in a call");
    }
    Inquired asked;
    asked.participant = participant;
    asked.seen = OfUs(seen);
    for (const wire::Inquiry& inquiry : inquiries) {
      asked.items.push_back(
          {ParseId(inquiry.transaction_id), static_cast<std::uint32_t>(inquiry.xid)});
    }
    const Action action = rep_->Ask(std::move(asked));
    for (const InquiryAnswer& answer : std::get<ReplyAnswers>(action).answers) {
      reply.push_back(ToWire(answer));
    }
  }

 private:
  // What was seen of another coordinator (this participant's former one) says nothing of us.
  SeenPosition OfUs(const wire::Seen& seen) const {
    if (seen.epoch < 0 || seen.epoch > UINT32_MAX || seen.epoch_random < 0 ||
        seen.epoch_random > UINT32_MAX || seen.position < 0) {
      Throw(Reason::kInvalid, "what was seen of the log is not well formed");
    }
    if (seen.__isset.coordinator && seen.coordinator != rep_->options.coordinator_id) return {};
    return FromWire(seen);
  }

  CoordinatorServer::Rep* const rep_;
};

class AdminHandler : public wire::CoordinatorAdminIf {
 public:
  explicit AdminHandler(CoordinatorServer::Rep* rep) : rep_(rep) {}

  void in_doubt(std::vector<wire::TransactionReport>& reply,
                const wire::InDoubtFilter& filter) override {
    reply = Looking().InDoubt(filter);
  }
  void inspect(wire::TransactionReport& reply, const wire::TransactionId& transaction_id) override {
    Result<wire::TransactionReport> report = Looking().Inspect(transaction_id);
    if (!report.ok()) Throw(Reason::kInvalid, report.status().message());
    reply = *std::move(report);
  }
  void resolve(wire::Resolution& reply, const wire::ResolveRequest& request) override {
    Result<wire::TransactionReport> report = Looking().Inspect(request.transaction_id);
    if (!report.ok()) Throw(Reason::kInvalid, report.status().message());
    wire::ResolveRequest order = request;
    if (rep_->tls()) order.who = GiverOf(CallerName(), request.who);
    const ResolvePlan plan = PlanResolve(*report, order);
    if (!plan.refused.empty()) Throw(Reason::kInvalid, plan.refused);
    reply.steps = plan.steps;
    reply.report = *std::move(report);
    if (!request.__isset.token) {
      if (!plan.steps.empty()) reply.token = plan.token;
      return;
    }
    if (request.token != plan.token) {
      Throw(Reason::kInvalid,
            "the situation has changed since that token was given, or it is of another order; "
            "nothing was done. Look again");
    }
    CarryOut(plan, request);
  }
  void diagnose(std::vector<wire::Diagnosis>& reply) override {
    wire::Diagnosis& own = reply.emplace_back();
    own.process = "coordinator " + rep_->options.coordinator_id;
    own.unix_ms = SystemClock()->WallUnixMs();
    if (rep_->options.findings) own.findings = rep_->options.findings();
    for (wire::Diagnosis& one : Looking().Diagnose()) reply.push_back(std::move(one));
  }
  void status(wire::CoordinatorStatus& reply) override {
    reply.sender = SenderOf(rep_->options.coordinator_id, *rep_->coordinator);
    reply.syncs = static_cast<std::int64_t>(rep_->coordinator->syncs());
    reply.uptime_ms =
        std::chrono::duration_cast<std::chrono::milliseconds>(SteadyClock::now() - rep_->started)
            .count();
    rep_->Look([&](const CommitProtocol& protocol) { Fill(&reply, protocol); });
    for (wire::ParticipantStatus& p : reply.participants) {
      const auto index = static_cast<ParticipantIndex>(&p - reply.participants.data());
      p.up = rep_->channel->Up(index);
    }
    std::erase_if(reply.participants,
                  [](const wire::ParticipantStatus& p) { return p.participant.empty(); });
  }
  void transactions(std::vector<wire::TransactionStatus>& reply, std::int32_t limit) override {
    const auto most = static_cast<std::size_t>(std::clamp(limit, 1, 1000));
    rep_->Look([&](const CommitProtocol& protocol) {
      for (const auto& view : protocol.List(most)) {
        wire::TransactionStatus status;
        status.transaction_id = TransactionId{rep_->options.coordinator_id, view.id}.ToString();
        status.state = view.state;
        status.waiting_for = view.waiting_for;
        status.age_ms = protocol.now() - view.began;
        reply.push_back(std::move(status));
      }
    });
  }
  void heuristics(std::vector<wire::Heuristic>& reply) override {
    rep_->Look([&](const CommitProtocol& protocol) {
      const auto& all = protocol.state().heuristics();
      const std::size_t count = std::min(all.size(), kMaxHeuristics);
      for (const HeuristicRecord& record : std::span(all).last(count)) {
        wire::Heuristic heuristic;
        heuristic.transaction_id = TransactionOf(record, rep_->options.coordinator_id).ToString();
        heuristic.participant = protocol.registry().at(record.participant).record.name;
        heuristic.hazard = record.hazard;
        heuristic.what = record.what;
        heuristic.at_unix_ms = record.at_unix_ms;
        reply.push_back(std::move(heuristic));
      }
    });
  }
  void drain() override {
    rep_->Ask(DrainAsked{});
    Note("drain");
  }
  void forget(const std::string& participant) override {
    rep_->Ask(ForgetAsked{0, participant});
    Note("forget participant " + participant);
  }
  void rebind(const std::string& participant) override {
    rep_->Ask(RebindAsked{0, participant});
    Note("rebind participant " + participant);
  }
  void accept_gap(const std::string& reason) override {
    const std::string signed_reason = rep_->tls() ? CallerName() + ": " + reason : reason;
    rep_->Ask(AcceptGapAsked{0, signed_reason.substr(0, 512)});
  }
  void discard_report(const std::string& participant, const std::string& reason) override {
    rep_->Ask(DiscardReportAsked{0, participant});
    Note("discard the report of participant " + participant + ": " + reason.substr(0, 512));
  }

 private:
  // Orders that leave no record of who gave them and why are told in the process's log.
  void Note(const std::string& order) {
    LOG(WARNING) << "ordered" << (rep_->tls() ? " by " + CallerName() : "") << " to " << order;
  }

  Inspection& Looking() {
    if (rep_->options.inspection == nullptr) {
      Throw(Reason::kNotServing, "this coordinator was started without inspection");
    }
    return *rep_->options.inspection;
  }
  // In this order: the abort binds, what a person did is durable, then it happens.
  void CarryOut(const ResolvePlan& plan, const wire::ResolveRequest& request) {
    const TransactionId id = ParseId(request.transaction_id);
    if (plan.bind_abort) {
      AbortAsked asked;
      asked.id = id;
      asked.message = plan.order;
      for (const wire::BranchReport& branch : plan.branches) {
        BranchClaim& claim = asked.branches.emplace_back();
        claim.participant = branch.participant;
      }
      const Action action = rep_->Ask(std::move(asked));
      const OutcomeKind kind = std::get<ReplyOutcome>(action).kind;
      if (kind != OutcomeKind::kAborted) {
        Throw(Reason::kEnded, std::string("not aborted: the coordinator answers ") +
                                  std::string(OutcomeKindName(kind)));
      }
    }
    LOG(WARNING) << "transaction " << request.transaction_id << ": " << plan.order;
    const std::string what = HeuristicText(rep_->options.coordinator_id, id, plan.order);
    for (const wire::BranchReport& branch : plan.branches) {
      rep_->Ask(HeuristicAsked{0, id.local, branch.participant, what});
      if (!plan.settle) continue;
      const Status settled = Looking().Settle(branch, request.commit, plan.order);
      if (!settled.ok()) {
        Throw(Reason::kDatabaseUnavailable,
              "recorded, and not done at " + branch.participant + ": " + settled.message() +
                  ". Repeat it when that is mended",
              true);
      }
    }
  }
  // Under the machine: copies only.
  static void Fill(wire::CoordinatorStatus* reply, const CommitProtocol& protocol) {
    reply->state = StateOf(protocol);
    if (!protocol.suspicion().empty()) reply->__set_why(protocol.suspicion());
    reply->in_flight = static_cast<std::int64_t>(protocol.undecided());
    reply->unacknowledged = static_cast<std::int64_t>(protocol.unacknowledged());
    reply->committed = static_cast<std::int64_t>(protocol.counters().committed);
    reply->aborted = static_cast<std::int64_t>(protocol.counters().aborted);
    reply->read_only = static_cast<std::int64_t>(protocol.counters().read_only);
    reply->heuristics = static_cast<std::int64_t>(protocol.state().heuristics().size());
    const Registry& registry = protocol.registry();
    for (ParticipantIndex i = 0; i < registry.size(); ++i) {
      const Registry::Participant& p = registry.at(i);
      wire::ParticipantStatus status;
      if (!p.record.forgotten) status.participant = p.record.name;
      status.system_identifier = std::to_string(p.record.database.system_identifier);
      status.database_oid = p.record.database.oid;
      status.address = p.record.peer_host + ":" + std::to_string(p.record.peer_port);
      status.unacknowledged = static_cast<std::int64_t>(p.unacknowledged);
      status.silent_ms = p.heard_at < 0 ? -1 : protocol.now() - p.heard_at;
      reply->participants.push_back(std::move(status));
    }
  }

  CoordinatorServer::Rep* const rep_;
};

}  // namespace

std::vector<BranchClaim> CoordinatorServer::Rep::Claims(
    const std::string& id, const std::vector<wire::BranchClaim>& list) const {
  std::vector<BranchClaim> claims;
  claims.reserve(list.size());
  for (const wire::BranchClaim& branch : list) {
    BranchClaim claim;
    claim.participant = branch.participant;
    claim.mark = branch.mark;
    claim.instance = branch.instance;
    claim.works = static_cast<std::uint32_t>(std::max(branch.works, 0));
    claim.read_only = branch.read_only;
    // The mac covers prepared votes. Of the others only a refusal counts, for it only aborts;
    // a read-only vote carried by a client is asked for again.
    const wire::Vote& vote = branch.vote;
    const bool prepared = vote.ballot == wire::Ballot::PREPARED;
    claim.carries_vote = branch.__isset.vote && (prepared || vote.ballot == wire::Ballot::REFUSED);
    if (claim.carries_vote) {
      const VoteClaims covered{
          id,       branch.participant, vote.system_identifier, vote.database_oid,
          vote.xid, vote.timeline,      vote.position,          vote.works};
      claim.authentic =
          !prepared || CheckVoteMac(secrets.Of(branch.participant), covered, vote.mac);
      claim.vote = FromWire(vote);
    }
    claims.push_back(std::move(claim));
  }
  return claims;
}

CoordinatorServer::CoordinatorServer(Options options, Coordinator* coordinator, Crew* crew,
                                     ThriftChannel* channel)
    : rep_(new Rep(std::move(options), coordinator, crew, channel)) {
  const Options& o = rep_->options;
  const auto listener = [&](const char* what, int port, int max_connections) {
    ListenerOptions listening{what, o.host, port, max_connections, o.idle_ms};
    listening.security = o.security;
    return listening;
  };
  ListenerOptions clients = listener("clients", o.client_port, o.max_clients);
  clients.max_per_certificate = o.max_per_certificate;
  rep_->clients = std::make_unique<Listener>(
      clients, std::make_shared<Guarded<wire::CoordinatorProcessor>>(
                   "Coordinator", o.security, std::make_shared<ClientHandler>(rep_.get())));
  rep_->peers = std::make_unique<Listener>(
      listener("participants", o.peer_port, o.max_peers),
      std::make_shared<Guarded<wire::CoordinatorPeerProcessor>>(
          "CoordinatorPeer", o.security, std::make_shared<PeerHandler>(rep_.get())));
  rep_->administrators = std::make_unique<Listener>(
      listener("administrators", o.admin_port, o.max_administrators),
      std::make_shared<Guarded<wire::CoordinatorAdminProcessor>>(
          "CoordinatorAdmin", o.security, std::make_shared<AdminHandler>(rep_.get())));
}

CoordinatorServer::~CoordinatorServer() { Stop(); }

Status CoordinatorServer::Start() {
  for (Listener* listener : {rep_->peers.get(), rep_->administrators.get(), rep_->clients.get()}) {
    if (Status started = listener->Start(); !started.ok()) {
      Stop();
      return started;
    }
  }
  return OkStatus();
}

void CoordinatorServer::Stop() {
  rep_->clients->Stop();
  rep_->administrators->Stop();
  rep_->peers->Stop();
}

std::string CoordinatorServer::State() const {
  std::string state;
  rep_->Look([&](const CommitProtocol& protocol) { state = StateOf(protocol); });
  return state;
}

void CoordinatorServer::FillMetrics(MetricPage* page) const {
  rep_->Look([&](const CommitProtocol& protocol) {
    FillTransactions(protocol, page);
    FillParticipants(protocol, *rep_->channel, page);
  });
  FillCalls(rep_->channel->stats(), page);
  if (rep_->options.inspection != nullptr) {
    page->Counter("troth_timeline_lost_total",
                  "Notes of what happened to transactions that were not kept: too many at once.",
                  static_cast<double>(rep_->options.inspection->lost()));
  }
}

int CoordinatorServer::client_port() const { return rep_->clients->port(); }
int CoordinatorServer::peer_port() const { return rep_->peers->port(); }
int CoordinatorServer::admin_port() const { return rep_->administrators->port(); }

}  // namespace troth
