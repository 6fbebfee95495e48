// Answers to questions that take their time, for a caller that must not wait: asked on a thread
// of its own, at most so often, and only while somebody wants to know. Knows no question.
// docs/operations.md, "Console".
#pragma once

#include <chrono>
#include <cstddef>
#include <functional>
#include <map>
#include <string>
#include <thread>

#include "common/thread_annotations.h"

namespace troth {

// Thread-safe.
class AnswerCache {
 public:
  struct Options {
    std::chrono::milliseconds interval{1'000};  // between two askings of one question
    std::chrono::milliseconds interest{5'000};  // a question nobody put for so long is dropped
    std::size_t max_questions = 16;             // further ones find the cache full
  };
  // Called by the cache's thread, one question at a time; may take seconds, and does not throw.
  using Ask = std::function<std::string(const std::string& question)>;

  AnswerCache(Options options, Ask ask);
  // Waits for the question under way.
  ~AnswerCache();
  AnswerCache(const AnswerCache&) = delete;
  AnswerCache& operator=(const AnswerCache&) = delete;

  struct Answer {
    bool known = false;                // else nothing was answered yet: put the question again
    bool full = false;                 // not asked, and will not be: too many other questions
    std::string text;                  // the newest answer
    std::chrono::milliseconds age{0};  // since it was given
  };
  // Never waits. Wants the question (again) from now on.
  Answer Get(const std::string& question) TROTH_EXCLUDES(mutex_);

 private:
  using Time = std::chrono::steady_clock::time_point;
  struct Entry {
    Time wanted, due, answered;
    bool known = false;
    std::string text;
  };

  void Run() TROTH_EXCLUDES(mutex_);
  // The question that is due longest, or null and when one will be.
  std::map<std::string, Entry>::iterator NextDue(Time now, Time* look_again) TROTH_REQUIRES(mutex_);
  void DropUnwanted(Time now) TROTH_REQUIRES(mutex_);

  const Options options_;
  const Ask ask_;
  Mutex mutex_;
  CondVar changed_;
  bool stopping_ TROTH_GUARDED_BY(mutex_) = false;
  std::map<std::string, Entry> entries_ TROTH_GUARDED_BY(mutex_);
  std::thread thread_;
};

}  // namespace troth
