// Slow questions asked for callers that must not wait.
#include "coordinator/answer_cache.h"

#include <atomic>
#include <condition_variable>
#include <mutex>

#include <gtest/gtest.h>

namespace troth {
namespace {

using std::chrono::milliseconds;

// What answers: it waits while it is held, and counts how often it was asked.
class Oracle {
 public:
  std::string Ask(const std::string& question) {
    std::unique_lock<std::mutex> lock(mutex_);
    ++asked_;
    changed_.notify_all();
    changed_.wait(lock, [this] { return !held_; });
    return question + "!" + std::to_string(asked_);
  }
  void Hold(bool held) {
    const std::lock_guard<std::mutex> lock(mutex_);
    held_ = held;
    changed_.notify_all();
  }
  void AwaitAsked(int times) {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [&] { return asked_ >= times; });
  }
  int asked() {
    const std::lock_guard<std::mutex> lock(mutex_);
    return asked_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool held_ = false;
  int asked_ = 0;
};

std::string Await(AnswerCache* cache, const std::string& question) {
  for (;;) {
    const AnswerCache::Answer answer = cache->Get(question);
    EXPECT_FALSE(answer.full);
    if (answer.known) return answer.text;
    std::this_thread::yield();
  }
}

TEST(AnswerCacheTest, NeverWaitsAndAnswersLater) {
  Oracle oracle;
  oracle.Hold(true);
  AnswerCache cache({}, [&](const std::string& q) { return oracle.Ask(q); });
  EXPECT_FALSE(cache.Get("who").known);
  oracle.AwaitAsked(1);
  EXPECT_FALSE(cache.Get("who").known) << "under way";
  oracle.Hold(false);
  EXPECT_EQ(Await(&cache, "who"), "who!1");
}

TEST(AnswerCacheTest, AsksNoMoreOftenThanTheInterval) {
  Oracle oracle;
  AnswerCache cache({milliseconds(60'000), milliseconds(60'000), 4},
                    [&](const std::string& q) { return oracle.Ask(q); });
  Await(&cache, "who");
  for (int i = 0; i < 1000; ++i) EXPECT_EQ(cache.Get("who").text, "who!1");
  EXPECT_EQ(oracle.asked(), 1);
}

TEST(AnswerCacheTest, AsksAgainWhileSomebodyWantsToKnow) {
  Oracle oracle;
  AnswerCache cache({milliseconds(1), milliseconds(60'000), 4},
                    [&](const std::string& q) { return oracle.Ask(q); });
  cache.Get("who");
  oracle.AwaitAsked(3);
  EXPECT_NE(Await(&cache, "who"), "who!1");
}

TEST(AnswerCacheTest, WhatNobodyWantsIsDroppedAndMakesRoom) {
  Oracle oracle;
  AnswerCache cache({milliseconds(1), milliseconds(1), 1},
                    [&](const std::string& q) { return oracle.Ask(q); });
  cache.Get("who");
  while (cache.Get("what").full) std::this_thread::yield();
  EXPECT_FALSE(cache.Get("what").full);
}

TEST(AnswerCacheTest, OneTooManyIsToldSo) {
  Oracle oracle;
  AnswerCache cache({milliseconds(60'000), milliseconds(60'000), 2},
                    [&](const std::string& q) { return oracle.Ask(q); });
  EXPECT_FALSE(cache.Get("a").full);
  EXPECT_FALSE(cache.Get("b").full);
  EXPECT_TRUE(cache.Get("c").full);
  EXPECT_FALSE(cache.Get("a").full);
}

}  // namespace
}  // namespace troth
