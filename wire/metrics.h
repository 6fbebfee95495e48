// Metrics as Prometheus reads them: values that are looked up when somebody asks, beside those
// that prometheus-cpp keeps (histograms, counters). docs/operations.md, "Monitoring".
#pragma once

#include <string>
#include <utility>
#include <vector>

#include <prometheus/metric_family.h>

namespace troth {

using MetricLabels = std::vector<std::pair<std::string, std::string>>;

// Collects families in the order of their first value.
class MetricPage {
 public:
  // A value that only grows while the process lives; `name` ends in _total.
  void Counter(const std::string& name, const std::string& help, double value,
               const MetricLabels& labels = {});
  // A value of this moment.
  void Gauge(const std::string& name, const std::string& help, double value,
             const MetricLabels& labels = {});
  void Add(std::vector<prometheus::MetricFamily> families);
  // In Prometheus' text format.
  std::string Text() const;

 private:
  prometheus::ClientMetric* Metric(const std::string& name, const std::string& help,
                                   prometheus::MetricType type, const MetricLabels& labels);

  std::vector<prometheus::MetricFamily> families_;
};

inline constexpr char kMetricsType[] = "text/plain; version=0.0.4; charset=utf-8";

}  // namespace troth
