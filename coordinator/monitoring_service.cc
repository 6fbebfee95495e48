// See monitoring_service.h.
#include "coordinator/monitoring_service.h"

#include <map>

#include <prometheus/counter.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>

namespace troth {
namespace {

using prometheus::Counter;
using prometheus::Family;
using prometheus::Histogram;

// Seconds. The first are those of a fast disk, the last a client's patience.
const Histogram::BucketBoundaries kBuckets = {0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05,
                                              0.1,    0.2,    0.5,   1,     2,     5,    10,   30};
const Histogram::BucketBoundaries kBatchBuckets = {0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024};
constexpr const char* kOutcomes[] = {"committed", "aborted", "read-only", "pending", "expired"};

void AddCounts(const Histogram& histogram, LatencyTotals* totals) {
  const auto collected = histogram.Collect().histogram.bucket;
  totals->bounds_s = kBuckets;
  totals->counts.resize(collected.size());
  std::uint64_t below = 0;
  for (std::size_t i = 0; i < collected.size(); ++i) {
    totals->counts[i] += collected[i].cumulative_count - below;
    below = collected[i].cumulative_count;
  }
}

}  // namespace

struct Monitoring::Instruments {
  prometheus::Registry registry;
  Family<Histogram>& commit_family =
      prometheus::BuildHistogram()
          .Name("troth_commit_duration_seconds")
          .Help("From a commit call to its answer, by what was answered.")
          .Register(registry);
  Family<Histogram>& phase_family =
      prometheus::BuildHistogram()
          .Name("troth_phase_duration_seconds")
          .Help(
              "Phases of transactions that commit: prepare (commit call to last vote), log (to the "
              "durable decision), finish (to the last acknowledgement).")
          .Register(registry);
  Family<Counter>& refused = prometheus::BuildCounter()
                                 .Name("troth_commits_refused_total")
                                 .Help("Commit calls that did nothing, by reason.")
                                 .Register(registry);
  Histogram& sync = prometheus::BuildHistogram()
                        .Name("troth_log_sync_duration_seconds")
                        .Help("A write and sync of the log; its count is that of syncs.")
                        .Register(registry)
                        .Add({}, kBuckets);
  Histogram& batch = prometheus::BuildHistogram()
                         .Name("troth_log_batch_records")
                         .Help("Records that a write and sync of the log made durable.")
                         .Register(registry)
                         .Add({}, kBatchBuckets);
  std::map<std::string, Histogram*> commits;
  std::map<TransactionHistory::Phase, Histogram*> phases;
};

Monitoring::Monitoring() : instruments_(std::make_unique<Instruments>()) {
  for (const char* outcome : kOutcomes) {
    instruments_->commits[outcome] =
        &instruments_->commit_family.Add({{"outcome", outcome}}, kBuckets);
  }
  using Phase = TransactionHistory::Phase;
  const std::pair<Phase, const char*> phases[] = {
      {Phase::kPrepare, "prepare"}, {Phase::kLog, "log"}, {Phase::kFinish, "finish"}};
  for (const auto& [phase, name] : phases) {
    instruments_->phases[phase] = &instruments_->phase_family.Add({{"phase", name}}, kBuckets);
  }
}

Monitoring::~Monitoring() = default;

void Monitoring::Committed(const std::string& outcome, double seconds) {
  const auto histogram = instruments_->commits.find(outcome);
  if (histogram != instruments_->commits.end()) histogram->second->Observe(seconds);
}

void Monitoring::Refused(const std::string& reason) {
  instruments_->refused.Add({{"reason", reason}}).Increment();
}

void Monitoring::Passed(TransactionHistory::Phase phase, double seconds) {
  instruments_->phases.at(phase)->Observe(seconds);
}

void Monitoring::Synced(double seconds, std::uint64_t records) {
  instruments_->sync.Observe(seconds);
  instruments_->batch.Observe(static_cast<double>(records));
}

void Monitoring::Look(std::function<std::string()> state, std::function<void(MetricPage*)> values) {
  MutexLock lock(&mutex_);
  state_ = std::move(state);
  values_ = std::move(values);
}

void Monitoring::Leave(const std::string& why) {
  MutexLock lock(&mutex_);
  away_ = why;
  state_ = nullptr;
  values_ = nullptr;
}

std::string Monitoring::State() {
  MutexLock lock(&mutex_);
  return state_ ? state_() : away_;
}

void Monitoring::AddLatencies(LoadTotals* totals) const {
  for (const auto& [outcome, histogram] : instruments_->commits) {
    AddCounts(*histogram, &totals->commits);
  }
  AddCounts(instruments_->sync, &totals->log_syncs);
}

HttpReply Monitoring::Page(const std::string& path) {
  MutexLock lock(&mutex_);
  if (path == "/healthz") return {200, "text/plain; charset=utf-8", "alive\n"};
  if (path == "/readyz") {
    const std::string state = state_ ? state_() : away_;
    return {state == "serving" ? 200 : 503, "text/plain; charset=utf-8", state + "\n"};
  }
  if (path == "/metrics") {
    MetricPage page;
    page.Gauge("troth_ready", "1 while new transactions are taken.",
               state_ && state_() == "serving" ? 1 : 0);
    if (values_) values_(&page);
    page.Add(instruments_->registry.Collect());
    return {200, kMetricsType, page.Text()};
  }
  return {404, "text/plain; charset=utf-8",
          "there are / (the console), /metrics, /healthz and /readyz\n"};
}

}  // namespace troth
