// See metrics.h.
#include "wire/metrics.h"

#include <algorithm>

#include <prometheus/text_serializer.h>

namespace troth {

using prometheus::MetricType;

void MetricPage::Counter(const std::string& name, const std::string& help, double value,
                         const MetricLabels& labels) {
  Metric(name, help, MetricType::Counter, labels)->counter.value = value;
}

void MetricPage::Gauge(const std::string& name, const std::string& help, double value,
                       const MetricLabels& labels) {
  Metric(name, help, MetricType::Gauge, labels)->gauge.value = value;
}

prometheus::ClientMetric* MetricPage::Metric(const std::string& name, const std::string& help,
                                             MetricType type, const MetricLabels& labels) {
  auto family = std::find_if(families_.begin(), families_.end(),
                             [&](const auto& known) { return known.name == name; });
  if (family == families_.end()) {
    families_.push_back({name, help, type, {}});
    family = families_.end() - 1;
  }
  prometheus::ClientMetric& metric = family->metric.emplace_back();
  for (const auto& [key, text] : labels) metric.label.push_back({key, text});
  return &metric;
}

void MetricPage::Add(std::vector<prometheus::MetricFamily> families) {
  std::move(families.begin(), families.end(), std::back_inserter(families_));
}

std::string MetricPage::Text() const { return prometheus::TextSerializer().Serialize(families_); }

}  // namespace troth
