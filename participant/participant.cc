// See participant.h.
#include "participant/participant.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <map>
#include <random>
#include <system_error>
#include <thread>

#include <glog/logging.h>

#include "common/clock.h"
#include "common/traceparent.h"
#include "common/vote_mac.h"
#include "participant/coordinator_link.h"
#include "participant/epoch_fence.h"
#include "participant/inspection_service.h"
#include "participant/participant_service.h"
#include "participant/postgres.h"
#include "participant/postgres_errors.h"
#include "participant/sweep.h"
#include "troth_constants.h"
#include "wire/certificate_finding.h"
#include "wire/guard.h"
#include "wire/listener.h"

namespace troth {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds kPatience{100};  // of the first work, for a place
constexpr milliseconds kTickEvery{100};
constexpr milliseconds kSweepEvery{500};
constexpr milliseconds kSettleWait{1'000};
constexpr milliseconds kTellEvery{1'000};
constexpr milliseconds kTakeOver{10'000};  // the sweep of an instance that holds the lock is dead
constexpr milliseconds kGoodbye{5'000};
constexpr std::size_t kPreparedOfPage = 1'000;
constexpr milliseconds kLookTime{2'500};  // shorter than who asks waits
constexpr std::size_t kInquiriesAtOnce = 1'000;
// So that those of the coordinator, for which clients wait, come in between.
constexpr std::size_t kOrdersAtOnce = 128;

std::string RandomText() {
  std::random_device device;
  char text[17];
  std::snprintf(text, sizeof text, "%08x%08x", device(), device());
  return text;
}

// Nobody is to be killed by what asks others to read their files anew: ours are read when they
// change. An application that handles SIGHUP keeps its handler.
void IgnoreHangUp() {
  struct sigaction now {};
  if (sigaction(SIGHUP, nullptr, &now) == 0 && now.sa_handler == SIG_DFL) {
    std::signal(SIGHUP, SIG_IGN);
  }
}

// The table draws marks under its mutex: one source is enough.
BranchTable::Random MarkSource() {
  std::random_device device;
  std::seed_seq seed{device(), device(), device(), device()};
  return std::mt19937_64(seed);
}

// The application's failure as a refusal; called while its exception is being handled.
Refusal CaughtRefusal() {
  try {
    throw;
  } catch (const wire::Refused& refused) {
    return {static_cast<Refused>(static_cast<int>(refused.reason)), refused.message,
            refused.retryable, refused.sqlstate};
  } catch (const ApplicationRefusal& refusal) {
    return {Refused::kApplication, refusal.what(), refusal.retryable(), ""};
  } catch (const std::exception& e) {
    if (std::optional<Refusal> database = RefusalOf(e)) return *std::move(database);
    return {Refused::kApplication, e.what(), false, ""};
  } catch (...) {
    return {Refused::kApplication, "the work threw something that is no exception", false, ""};
  }
}

Status CheckOptions(const ParticipantOptions& options) {
  if (!IsParticipantName(options.name)) {
    return Status(Code::kInvalid,
                  "participant name '" + options.name + "': give 1 to 120 of [a-z0-9-]");
  }
  if (options.pool_size < 1 || options.finish_connections < 1 || options.max_in_doubt < 1) {
    return Status(Code::kInvalid,
                  "pool_size, finish_connections and max_in_doubt must be positive");
  }
  if (options.coordinators.empty()) {
    return Status(Code::kInvalid, "no coordinator: give the host:port of its peer listener");
  }
  for (const std::string& address : options.coordinators) {
    const std::size_t colon = address.rfind(':');
    if (colon == std::string::npos || colon == 0 || std::atoi(address.c_str() + colon + 1) < 1) {
      return Status(Code::kInvalid, "coordinator '" + address + "' is not host:port");
    }
  }
  return OkStatus();
}

// When a piece of work got where; tells the log at its end, however it ends, if it was slow.
struct WorkTimes {
  using Clock = std::chrono::steady_clock;

  WorkTimes(const wire::Context& work_context, std::int64_t most_ms)
      : context(work_context), slow_ms(most_ms) {}
  ~WorkTimes() {
    const Clock::time_point ended = Clock::now();
    if (slow_ms <= 0 || ended - began < milliseconds(slow_ms)) return;
    const Clock::time_point after_start = started.value_or(ended);
    const Clock::time_point after_work = worked.value_or(after_start);
    const auto ms = [](Clock::duration time) {
      return std::chrono::duration_cast<milliseconds>(time).count();
    };
    LOG(WARNING) << "slow work " << context.work << " of " << context.transaction_id << ": "
                 << ms(ended - began) << " ms: opening " << ms(after_start - began) << ", work "
                 << ms(after_work - after_start) << ", ending " << ms(ended - after_work)
                 << (IsTraceparent(context.traceparent) ? "; traceparent " + context.traceparent
                                                        : std::string());
  }
  WorkTimes(const WorkTimes&) = delete;
  WorkTimes& operator=(const WorkTimes&) = delete;

  const wire::Context& context;
  const std::int64_t slow_ms;
  const Clock::time_point began = Clock::now();
  std::optional<Clock::time_point> started, worked;
};

class ParticipantProcess : public Participant {
 public:
  ParticipantProcess(ParticipantOptions options,
                     std::unique_ptr<PostgresResourceManager> resource_manager,
                     DatabaseState database)
      : options_(std::move(options)),
        security_(options_.security),
        instance_(RandomText()),
        database_(database.identity),
        resource_manager_(std::move(resource_manager)),
        table_({options_.name, instance_, static_cast<std::size_t>(options_.max_in_doubt)},
               resource_manager_.get(), SystemClock(), MarkSource()),
        fence_(resource_manager_.get(), SystemClock()),
        enrolled_(std::move(database)),
        context_{options_.name,
                 instance_,
                 database_,
                 [this] { return LastEnrolled(); },
                 &table_,
                 &fence_,
                 &security_,
                 [this] { return Report(); },
                 [this](const auto& ids, std::size_t limit) { return LookAt(ids, limit); },
                 [this](const auto& id, std::uint32_t xid, bool commit, const auto& order) {
                   return Settle(id, xid, commit, order);
                 },
                 [this] { return Diagnose(); },
                 [this] { return Coordinators(); }} {
    // Before any listener: whoever calls finds them.
    for (const std::string& address : options_.coordinators) {
      links_.push_back(std::make_unique<CoordinatorLink>(
          address, SelfDescription{options_.name, instance_, options_.host},
          resource_manager_.get(), &fence_, &security_,
          [this](const DatabaseState& as) { Enrolling(as); }, [this] { Enrolled(); }));
    }
  }
  ~ParticipantProcess() override {
    Stop();
    close(stop_fd_);
  }

  Status LoadState() {
    TROTH_RETURN_IF_ERROR(security_.CheckServer());
    return fence_.Load();
  }

  wire::Branch Execute(const wire::Context& context, const WorkFunction& work) override;
  wire::Branch Execute(const wire::Context& context, const Statement& statement,
                       const std::function<void(const Rows& rows)>& look) override;
  void Hello(std::int32_t version, wire::ParticipantHello* reply) override {
    CheckVersion(version);
    reply->version = wire::g_troth_constants.PROTOCOL_VERSION;
    reply->participant = options_.name;
    reply->instance = instance_;
  }
  Status Serve(std::shared_ptr<apache::thrift::TProcessor> application, bool take_signals) override;
  void Stop() override;
  bool WaitUntilServing() override;
  int port() const override { return port_; }
  int peer_port() const override { return peer_port_; }
  int http_port() const override { return http_port_; }
  const std::string& instance() const override { return instance_; }
  BranchCounts Counts() const override { return table_.Counts(); }

 private:
  enum class Phase { kNew, kStarting, kServing, kStopping, kEnded };
  // What is to be done in a session; a refusal, or what it throws, ends the branch.
  using SessionWork = std::function<std::optional<Refusal>(Session* session)>;

  wire::Branch ExecuteIn(const wire::Context& context, bool one_statement, const SessionWork& work);

  wire::ParticipantStatusReport Report();
  std::vector<wire::Finding> Diagnose();
  Result<std::vector<wire::PreparedBranch>> LookAt(const std::vector<std::string>& ids,
                                                   std::size_t limit) const;
  Result<FinishResult> Settle(const std::string& id, std::uint32_t xid, bool commit,
                              const std::string& order);
  Status MaySettle(const std::string& id, std::uint32_t xid, bool commit);
  std::vector<std::string> Coordinators() const;
  void Enrolling(const DatabaseState& database) {
    MutexLock lock(&enrolled_mutex_);
    enrolled_ = database;
  }
  DatabaseState LastEnrolled() const {
    MutexLock lock(&enrolled_mutex_);
    return enrolled_;
  }
  std::string MacOf(const wire::Context& context, const Vote& vote) const;
  Status Listen(std::shared_ptr<apache::thrift::TProcessor> application);
  Status ServeUntilStopped(std::shared_ptr<apache::thrift::TProcessor> application,
                           bool take_signals);
  void SayEnded();
  void Enrolled();
  void Goodbye();
  void RunTicks();
  void RunNotes();
  void RunSweep();
  void SweepOnce(Sweep* sweep, bool settles);
  void AskAndSettle(Sweep* sweep, CoordinatorLink* link,
                    const std::vector<SweepInquiry>& inquiries);
  void TellProgress(const SweepCounts& counts) TROTH_REQUIRES(sweep_mutex_);
  bool StoppedWithin(milliseconds time);
  void AwaitStop(const sigset_t* signals);
  CoordinatorLink* LinkOf(const std::string& coordinator) const;

  const ParticipantOptions options_;
  Security security_;
  const std::string instance_;
  const DatabaseIdentity database_;
  const std::unique_ptr<PostgresResourceManager> resource_manager_;
  BranchTable table_;
  EpochFence fence_;
  mutable Mutex enrolled_mutex_;
  DatabaseState enrolled_ TROTH_GUARDED_BY(enrolled_mutex_);
  const ServiceContext context_;
  std::vector<std::unique_ptr<CoordinatorLink>> links_;
  std::unique_ptr<Listener> work_listener_, peer_listener_;
  std::unique_ptr<HttpListener> http_;
  std::atomic<int> port_{0}, peer_port_{0}, http_port_{-1};
  std::atomic<bool> database_up_{true};
  // One coordinator being asked about its branches.
  struct Asking {
    std::thread thread;
    std::atomic<bool> under_way{true};
  };
  std::map<CoordinatorLink*, std::unique_ptr<Asking>> asking_;  // of the thread of RunSweep
  // What a Sweep knows. Held while the database lists what is prepared, and while it settles, at
  // most kSettleWait a time: a list from before would have what was settled asked about again.
  // Only the sweep's own threads wait for it.
  Mutex sweep_mutex_;
  std::int64_t told_ms_ TROTH_GUARDED_BY(sweep_mutex_) = 0;
  std::size_t told_found_ TROTH_GUARDED_BY(sweep_mutex_) = 0;
  const int stop_fd_ = eventfd(0, EFD_CLOEXEC);

  Mutex mutex_;
  CondVar changed_;
  Phase phase_ TROTH_GUARDED_BY(mutex_) = Phase::kNew;
  bool threads_end_ TROTH_GUARDED_BY(mutex_) = false;
  bool sweep_now_ TROTH_GUARDED_BY(mutex_) = false;
};

wire::Branch ParticipantProcess::Execute(const wire::Context& context, const WorkFunction& work) {
  return ExecuteIn(context, /*one_statement=*/false, [&](Session* session) {
    work(PostgresResourceManager::Transaction(session));
    return std::optional<Refusal>();
  });
}

wire::Branch ParticipantProcess::Execute(const wire::Context& context, const Statement& statement,
                                         const std::function<void(const Rows& rows)>& look) {
  return ExecuteIn(context, /*one_statement=*/true, [&](Session* session) {
    Granted<Answer> answer =
        PostgresResourceManager::Run(session, statement.sql, statement.parameters);
    if (!answer.ok()) return std::optional<Refusal>(answer.refusal());
    look(Rows{std::move(answer->rows), answer->affected});
    return std::optional<Refusal>();
  });
}

wire::Branch ParticipantProcess::ExecuteIn(const wire::Context& context, bool one_statement,
                                           const SessionWork& work) {
  Granted<WorkRequest> request = FromWire(context);
  if (!request.ok()) throw ToWire(request.refusal());
  const bool last = context.__isset.last && context.last;
  request->one_statement = one_statement;
  request->last = last;
  request->patience = kPatience;
  WorkTimes times(context, options_.slow_ms);
  Granted<Work> started = table_.StartWork(*request);
  times.started = WorkTimes::Clock::now();
  if (!started.ok()) throw ToWire(started.refusal());
  std::optional<Refusal> failure;
  try {
    failure = work(started->session);
  } catch (...) {
    failure = CaughtRefusal();
  }
  times.worked = WorkTimes::Clock::now();
  Granted<WorkReply> reply = table_.EndWork(*started, std::move(failure), last);
  if (!reply.ok()) throw ToWire(reply.refusal());
  wire::Branch branch;
  branch.participant = options_.name;
  branch.mark = reply->mark;
  branch.works = reply->works;
  branch.instance = instance_;
  if (reply->vote.has_value()) {
    branch.__set_vote(ToWire(*reply->vote, database_, MacOf(context, *reply->vote)));
  }
  return branch;
}

std::string ParticipantProcess::MacOf(const wire::Context& context, const Vote& vote) const {
  if (vote.kind != Vote::Kind::kPrepared) return "";
  const Result<TransactionId> id = TransactionId::Parse(context.transaction_id);
  const CoordinatorLink* link = id.ok() ? LinkOf(id->coordinator) : nullptr;
  const std::string secret = link == nullptr ? "" : link->secret();
  if (secret.empty()) return "";  // without it the coordinator asks for the vote itself
  VoteClaims claims;
  claims.transaction_id = context.transaction_id;
  claims.participant = options_.name;
  claims.system_identifier = database_.system_identifier;
  claims.database_oid = database_.oid;
  claims.xid = static_cast<std::int64_t>(vote.evidence.xid);
  claims.timeline = static_cast<std::int32_t>(vote.evidence.point.timeline);
  claims.position = static_cast<std::int64_t>(vote.evidence.point.position);
  claims.works = vote.works;
  return MakeVoteMac(secret, claims);
}

CoordinatorLink* ParticipantProcess::LinkOf(const std::string& coordinator) const {
  for (const std::unique_ptr<CoordinatorLink>& link : links_) {
    if (link->coordinator() == coordinator) return link.get();
  }
  return nullptr;
}

std::vector<std::string> ParticipantProcess::Coordinators() const {
  std::vector<std::string> ids;
  for (const std::unique_ptr<CoordinatorLink>& link : links_) {
    if (std::string id = link->coordinator(); !id.empty()) ids.push_back(std::move(id));
  }
  return ids;
}

std::vector<wire::Finding> ParticipantProcess::Diagnose() {
  std::vector<wire::Finding> findings = DiagnoseDatabase(options_, kLookTime);
  for (wire::Finding& found : LookAtSecurity(&security_)) findings.push_back(std::move(found));
  return findings;
}

wire::ParticipantStatusReport ParticipantProcess::Report() {
  const BranchCounts counts = table_.Counts();
  wire::ParticipantStatusReport report;
  report.participant = options_.name;
  report.instance = instance_;
  report.database = database_.system_identifier + "/" + std::to_string(database_.oid);
  report.active = static_cast<std::int64_t>(counts.active);
  report.in_doubt = static_cast<std::int64_t>(counts.in_doubt + counts.found);
  report.hazards = static_cast<std::int64_t>(counts.hazards);
  report.heuristics = static_cast<std::int64_t>(counts.heuristics);
  report.coordinator_up = !links_.empty();
  for (const auto& link : links_) report.coordinator_up = report.coordinator_up && link->up();
  report.database_up = database_up_;
  return report;
}

// On a connection of its own: phase two waits for no administrator.
Result<std::vector<wire::PreparedBranch>> ParticipantProcess::LookAt(
    const std::vector<std::string>& ids, std::size_t limit) const {
  PreparedQuestion question{GidPrefix(options_.name), {}, limit};
  question.system_identifier = database_.system_identifier;
  for (const std::string& id : ids) question.gids.push_back(question.prefix + id);
  return LookAtPrepared(options_.conninfo, question, kLookTime);
}

// Nobody's order goes ahead of a coordinator that is there to be asked, or against it.
Status ParticipantProcess::MaySettle(const std::string& id, std::uint32_t xid, bool commit) {
  using Verdict = SweepAnswer::Verdict;
  const Result<TransactionId> whose = TransactionId::Parse(id);
  if (!whose.ok()) return whose.status();
  CoordinatorLink* const link = LinkOf(whose->coordinator);
  if (link == nullptr || !link->up()) return OkStatus();
  const SweepInquiry asked{id, whose->coordinator, xid};
  Result<std::vector<SweepAnswer>> answers = link->Inquire(std::span(&asked, 1));
  if (!answers.ok()) return answers.status();
  const Verdict verdict = answers->front().verdict;
  if (verdict == Verdict::kExpired || verdict == Verdict::kNotMine ||
      verdict == (commit ? Verdict::kCommit : Verdict::kAbort)) {
    return OkStatus();
  }
  return Status(Code::kRefused, "coordinator " + whose->coordinator + " is up, and answers that " +
                                    id + " is " +
                                    (verdict == Verdict::kCommit  ? "committed"
                                     : verdict == Verdict::kAbort ? "aborted"
                                                                  : "not decided yet") +
                                    ": it is not settled by hand (trothctl resolve, there)");
}

Result<FinishResult> ParticipantProcess::Settle(const std::string& id, std::uint32_t xid,
                                                bool commit, const std::string& order) {
  TROTH_RETURN_IF_ERROR(MaySettle(id, xid, commit));
  const std::string gid = GidPrefix(options_.name) + id;
  const Result<Evidence> evidence = EvidenceNow(options_.conninfo, gid, xid, kLookTime);
  if (!evidence.ok()) return evidence.status();
  LOG(WARNING) << gid << " (xid " << xid << "): " << order;
  const FinishRequest request{id, commit, commit ? std::optional(*evidence) : std::nullopt, xid};
  return table_.Finish(std::span(&request, 1), kSettleWait).front();
}

// Serving -----------------------------------------------------------------------------------

Status ParticipantProcess::Listen(std::shared_ptr<apache::thrift::TProcessor> application) {
  ListenerOptions work;
  work.what = "applications";
  work.host = options_.bind;
  work.port = options_.port;
  work.max_connections = options_.max_work_connections;
  work.idle_ms = static_cast<int>(options_.idle_connection_ms);
  work.security = &security_;
  work_listener_ = std::make_unique<Listener>(
      work, GuardApplication(&security_, options_.name, std::move(application)));
  ListenerOptions peers = work;
  peers.what = "coordinators";
  peers.port = options_.peer_port;
  peers.max_connections = options_.max_peer_connections;
  peer_listener_ = std::make_unique<Listener>(peers, MakePeerProcessor(&context_));
  TROTH_RETURN_IF_ERROR(peer_listener_->Start());
  TROTH_RETURN_IF_ERROR(work_listener_->Start());
  port_ = work_listener_->port();
  peer_port_ = peer_listener_->port();
  if (options_.http_port < 0) return OkStatus();
  TROTH_RETURN_IF_ERROR(security_.MayListenPlain(options_.bind, "HTTP"));
  http_ = std::make_unique<HttpListener>(
      HttpListener::Options{options_.bind, options_.http_port}, [this](const HttpRequest& asked) {
        return MonitoringPage(
            Report(), table_.Counts().overloaded, [this] { return LookAt({}, kPreparedOfPage); },
            asked.path);
      });
  TROTH_RETURN_IF_ERROR(http_->Start());
  http_port_ = http_->port();
  return OkStatus();
}

Status ParticipantProcess::Serve(std::shared_ptr<apache::thrift::TProcessor> application,
                                 bool take_signals) {
  {
    MutexLock lock(&mutex_);
    if (phase_ != Phase::kNew) return OkStatus();  // stopped before it was served
    phase_ = Phase::kStarting;
  }
  Status status;
  try {
    status = ServeUntilStopped(std::move(application), take_signals);
  } catch (...) {  // no thread is to be had
    SayEnded();
    throw;
  }
  SayEnded();
  return status;
}

void ParticipantProcess::SayEnded() {
  MutexLock lock(&mutex_);
  phase_ = Phase::kEnded;
  changed_.NotifyAll();
}

Status ParticipantProcess::ServeUntilStopped(
    std::shared_ptr<apache::thrift::TProcessor> application, bool take_signals) {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  sigset_t before;
  // Threads started from here on inherit the mask: the signals come to us only.
  if (take_signals) {
    pthread_sigmask(SIG_BLOCK, &signals, &before);
    IgnoreHangUp();
  }
  Status status = Listen(std::move(application));
  std::thread ticks, notes, sweep;
  if (status.ok()) {
    for (const auto& link : links_) link->Start(port_, peer_port_);
    ticks = std::thread([this] { RunTicks(); });
    notes = std::thread([this] { RunNotes(); });
    sweep = std::thread([this] { RunSweep(); });
    LOG(INFO) << "participant " << options_.name << " serves applications on " << options_.host
              << ":" << port_ << " and coordinators on port " << peer_port_ << ", instance "
              << instance_;
  }
  if (status.ok()) {
    {
      MutexLock lock(&mutex_);
      if (phase_ == Phase::kStarting) phase_ = Phase::kServing;
      changed_.NotifyAll();
    }
    AwaitStop(take_signals ? &signals : nullptr);
    {
      MutexLock lock(&mutex_);
      phase_ = Phase::kStopping;
    }
    Goodbye();
  }
  {
    MutexLock lock(&mutex_);
    threads_end_ = true;
    changed_.NotifyAll();
  }
  if (ticks.joinable()) ticks.join();
  if (notes.joinable()) notes.join();
  if (sweep.joinable()) sweep.join();
  if (take_signals) pthread_sigmask(SIG_SETMASK, &before, nullptr);
  return status;
}

void ParticipantProcess::Enrolled() {
  for (const auto& [name, seen] : fence_.All()) table_.EpochBegan(name, seen.epoch);
  MutexLock lock(&mutex_);
  sweep_now_ = true;
  changed_.NotifyAll();
}

// Until Stop, or one of `signals`.
void ParticipantProcess::AwaitStop(const sigset_t* signals) {
  pollfd fds[2] = {{stop_fd_, POLLIN, 0}, {-1, POLLIN, 0}};
  if (signals != nullptr) fds[1].fd = signalfd(-1, signals, SFD_CLOEXEC);
  while (poll(fds, 2, -1) < 0 && errno == EINTR) {
  }
  if (fds[1].fd < 0) return;
  signalfd_siginfo taken;  // so that it is not delivered when the mask is taken back
  if (fds[1].revents != 0 && read(fds[1].fd, &taken, sizeof taken) > 0) {
    LOG(INFO) << "signal " << taken.ssi_signo;
  }
  close(fds[1].fd);
}

// Branches under way may still be prepared or aborted; prepared ones are the coordinator's and
// stay, for the next life to finish.
void ParticipantProcess::Goodbye() {
  LOG(INFO) << "participant " << options_.name << " is shutting down";
  table_.Drain();
  table_.AwaitNone(kGoodbye);
  table_.RollbackAll();
  work_listener_->Stop();
  peer_listener_->Stop();
  http_.reset();
  for (const auto& link : links_) link->Stop();
  fence_.Tick();
}

void ParticipantProcess::Stop() {
  MutexLock lock(&mutex_);
  // Only where nobody serves, and nobody will, it is over at once: a Serve that starts uses us
  // still.
  if (phase_ == Phase::kNew) phase_ = Phase::kEnded;
  if (phase_ == Phase::kStarting) phase_ = Phase::kStopping;
  changed_.NotifyAll();
  const std::uint64_t one = 1;
  if (write(stop_fd_, &one, sizeof one) < 0) LOG(ERROR) << "cannot tell the participant to stop";
  while (phase_ != Phase::kEnded) changed_.Wait(&mutex_);
}

bool ParticipantProcess::WaitUntilServing() {
  MutexLock lock(&mutex_);
  while (phase_ == Phase::kNew || phase_ == Phase::kStarting) changed_.Wait(&mutex_);
  return phase_ == Phase::kServing;
}

bool ParticipantProcess::StoppedWithin(milliseconds time) {
  MutexLock lock(&mutex_);
  if (!threads_end_) changed_.WaitFor(&mutex_, time);
  return threads_end_;
}

void ParticipantProcess::RunTicks() {
  while (!StoppedWithin(kTickEvery)) {
    table_.Tick();
  }
}

// Apart: a note that the database is slow to take must not hold up deadlines.
void ParticipantProcess::RunNotes() {
  while (!StoppedWithin(kTickEvery)) {
    fence_.Tick();
    if (const std::string why = fence_.NotNoted(); !why.empty()) {
      LOG_EVERY_N(WARNING, 1'000) << "what is seen of coordinators is not written into"
                                  << " public.troth_seen, and tried again each second: " << why;
    }
  }
}

void ParticipantProcess::RunSweep() {
  Sweep sweep(options_.name, resource_manager_.get(), &table_, SystemClock());
  std::int64_t without_lock_since_ms = SystemClock()->NowMs();
  for (;;) {
    bool enrolled = false;
    {
      MutexLock lock(&mutex_);
      const auto until = std::chrono::steady_clock::now() + kSweepEvery;
      while (!threads_end_ && !sweep_now_) {
        if (!changed_.WaitUntil(&mutex_, until)) break;
      }
      if (threads_end_) break;
      enrolled = std::exchange(sweep_now_, false);
    }
    if (enrolled) {  // that coordinator may know what another did not
      MutexLock lock(&sweep_mutex_);
      sweep.AskAgain();
    }
    const std::int64_t now_ms = SystemClock()->NowMs();
    const bool held = resource_manager_->HoldSweep(options_.name);
    if (held) without_lock_since_ms = now_ms;
    SweepOnce(&sweep, held || now_ms - without_lock_since_ms >= kTakeOver.count());
  }
  for (auto& [link, asking] : asking_) asking->thread.join();  // each waits 5 s at most
}

// Every instance looks: at what became of its own branches, and how far the log has come, which
// its own idle connections would not tell. One of them asks and settles.
void ParticipantProcess::SweepOnce(Sweep* sweep, bool settles) {
  const bool there = resource_manager_->Look().ok();
  std::map<CoordinatorLink*, std::vector<SweepInquiry>> by_link;
  {
    MutexLock lock(&sweep_mutex_);
    Result<std::vector<SweepInquiry>> due = sweep->Look();
    database_up_ = there && due.ok();
    if (due.ok()) TellProgress(sweep->counts());
    if (!due.ok() || !settles) return;
    for (SweepInquiry& inquiry : *due) {
      CoordinatorLink* link = LinkOf(inquiry.coordinator);
      // A coordinator that we don't know: the first one may say that it is not its own.
      if (link == nullptr) link = links_.front().get();
      by_link[link].push_back(std::move(inquiry));
    }
  }
  // A thread for each coordinator: one that does not answer delays no other's branches.
  for (auto& [link, inquiries] : by_link) {
    std::unique_ptr<Asking>& asking = asking_[link];
    if (asking != nullptr && asking->under_way) continue;
    if (asking != nullptr) asking->thread.join();
    asking = std::make_unique<Asking>();
    try {
      asking->thread = std::thread(
          [this, sweep, link = link, asking = asking.get(), inquiries = std::move(inquiries)] {
            AskAndSettle(sweep, link, inquiries);
            asking->under_way = false;
          });
    } catch (const std::system_error& e) {  // no thread to be had: the next round asks
      asking_.erase(link);
      LOG_EVERY_N(ERROR, 20) << "recovery cannot ask coordinator " << link->address() << ": "
                             << e.what();
    }
  }
}

void ParticipantProcess::AskAndSettle(Sweep* sweep, CoordinatorLink* link,
                                      const std::vector<SweepInquiry>& inquiries) {
  for (std::size_t i = 0; i < inquiries.size(); i += kInquiriesAtOnce) {
    const std::size_t n = std::min(kInquiriesAtOnce, inquiries.size() - i);
    Result<std::vector<SweepAnswer>> answers = link->Inquire(std::span(inquiries).subspan(i, n));
    if (!answers.ok()) {
      LOG_EVERY_N(WARNING, 20) << inquiries.size() << " prepared branches wait for coordinator "
                               << link->address() << ": " << answers.status().message();
      return;
    }
    for (std::size_t j = 0; j < answers->size(); j += kOrdersAtOnce) {
      const std::size_t m = std::min(kOrdersAtOnce, answers->size() - j);
      MutexLock lock(&sweep_mutex_);
      sweep->Settle(std::span(*answers).subspan(j, m), kSettleWait);
    }
  }
}

// At most each second, while there is something, and once when there is nothing any more.
void ParticipantProcess::TellProgress(const SweepCounts& counts) {
  const std::int64_t now_ms = SystemClock()->NowMs();
  const bool news = counts.found > 0 ? now_ms - told_ms_ >= kTellEvery.count() : told_found_ > 0;
  if (!news) return;
  told_ms_ = now_ms;
  told_found_ = counts.found;
  if (counts.found == 0) {
    LOG(INFO) << "recovery: no prepared branch is left over; " << counts.settled
              << " were settled since the start";
    return;
  }
  LOG(INFO) << "recovery: " << counts.found << " prepared branches that nobody here looks after, "
            << "the oldest for " << counts.oldest.count() / 1000 << " s; " << counts.settled
            << " settled since the start";
  if (counts.expired + counts.not_mine > 0) {
    LOG_EVERY_N(WARNING, 20) << counts.expired << " prepared branches are expired and "
                             << counts.not_mine
                             << " are of no coordinator here; they are kept: an operator's matter";
  }
}

}  // namespace

Result<std::unique_ptr<Participant>> Participant::Open(const ParticipantOptions& options) {
  TROTH_RETURN_IF_ERROR(CheckOptions(options));
  PostgresOptions postgres;
  postgres.conninfo = options.conninfo;
  postgres.participant = options.name;
  postgres.pool_size = options.pool_size;
  postgres.finish_connections = options.finish_connections;
  postgres.max_in_doubt = options.max_in_doubt;
  Result<std::unique_ptr<PostgresResourceManager>> resource_manager =
      PostgresResourceManager::Open(std::move(postgres));
  if (!resource_manager.ok()) return resource_manager.status();
  Result<DatabaseState> state = (*resource_manager)->Look();
  if (!state.ok()) return state.status();
  auto participant =
      std::make_unique<ParticipantProcess>(options, std::move(*resource_manager), *state);
  TROTH_RETURN_IF_ERROR(participant->LoadState());
  return std::unique_ptr<Participant>(std::move(participant));
}

}  // namespace troth
