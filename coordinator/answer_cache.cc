// See answer_cache.h.
#include "coordinator/answer_cache.h"

#include <algorithm>
#include <utility>

namespace troth {

using Clock = std::chrono::steady_clock;

AnswerCache::AnswerCache(Options options, Ask ask) : options_(options), ask_(std::move(ask)) {
  thread_ = std::thread([this] { Run(); });
}

AnswerCache::~AnswerCache() {
  {
    MutexLock lock(&mutex_);
    stopping_ = true;
    changed_.NotifyAll();
  }
  thread_.join();
}

AnswerCache::Answer AnswerCache::Get(const std::string& question) {
  const Time now = Clock::now();
  MutexLock lock(&mutex_);
  DropUnwanted(now);
  auto entry = entries_.find(question);
  if (entry == entries_.end()) {
    if (entries_.size() >= options_.max_questions) return {false, true, "", {}};
    entry = entries_.emplace(question, Entry{now, now, now, false, ""}).first;
  }
  entry->second.wanted = now;
  changed_.NotifyAll();
  if (!entry->second.known) return {};
  return {true, false, entry->second.text,
          std::chrono::duration_cast<std::chrono::milliseconds>(now - entry->second.answered)};
}

void AnswerCache::DropUnwanted(Time now) {
  std::erase_if(entries_,
                [&](const auto& entry) { return entry.second.wanted + options_.interest < now; });
}

std::map<std::string, AnswerCache::Entry>::iterator AnswerCache::NextDue(Time now,
                                                                         Time* look_again) {
  const auto first =
      std::min_element(entries_.begin(), entries_.end(),
                       [](const auto& a, const auto& b) { return a.second.due < b.second.due; });
  if (first == entries_.end()) {
    *look_again = now + options_.interest;
  } else if (first->second.due > now) {
    *look_again = first->second.due;
  } else {
    return first;
  }
  return entries_.end();
}

void AnswerCache::Run() {
  MutexLock lock(&mutex_);
  while (!stopping_) {
    const Time now = Clock::now();
    DropUnwanted(now);
    Time look_again;
    const auto due = NextDue(now, &look_again);
    if (due == entries_.end()) {
      changed_.WaitUntil(&mutex_, look_again);
      continue;
    }
    const std::string question = due->first;
    mutex_.Unlock();
    std::string text = ask_(question);
    mutex_.Lock();
    const auto entry = entries_.find(question);
    if (entry == entries_.end()) continue;  // nobody wants to know any more
    entry->second.known = true;
    entry->second.text = std::move(text);
    entry->second.answered = Clock::now();
    entry->second.due = entry->second.answered + options_.interval;
  }
}

}  // namespace troth
