// Mutex, lock and condition variable of the standard library, carrying the attributes by which
// clang's thread-safety analysis proves that what a mutex guards is touched only under it
// (scripts/check makes its findings errors). Other compilers see plain wrappers.
// Knows nothing of what is guarded. docs/architecture.md, "One thread at a time".
#pragma once

#include <chrono>
#include <condition_variable>
#include <mutex>

#if defined(__clang__)
#define TROTH_THREAD_ATTRIBUTE(x) __attribute__((x))
#else
#define TROTH_THREAD_ATTRIBUTE(x)
#endif

// On a member: it is read and written only while `m` is held.
#define TROTH_GUARDED_BY(m) TROTH_THREAD_ATTRIBUTE(guarded_by(m))
// On a pointer: what it points to is touched only while `m` is held.
#define TROTH_PT_GUARDED_BY(m) TROTH_THREAD_ATTRIBUTE(pt_guarded_by(m))
// On a function: the caller holds these mutexes, before and after.
#define TROTH_REQUIRES(...) TROTH_THREAD_ATTRIBUTE(requires_capability(__VA_ARGS__))
// On a function: the caller must not hold these mutexes, for the function takes them itself.
#define TROTH_EXCLUDES(...) TROTH_THREAD_ATTRIBUTE(locks_excluded(__VA_ARGS__))
// On a function: it takes, or gives back, these mutexes; of its own object if none is named.
#define TROTH_ACQUIRE(...) TROTH_THREAD_ATTRIBUTE(acquire_capability(__VA_ARGS__))
#define TROTH_RELEASE(...) TROTH_THREAD_ATTRIBUTE(release_capability(__VA_ARGS__))
// On a function: it takes the mutex if it returns the first argument.
#define TROTH_TRY_ACQUIRE(...) TROTH_THREAD_ATTRIBUTE(try_acquire_capability(__VA_ARGS__))
// On a mutex member: the order in which several are taken.
#define TROTH_ACQUIRED_BEFORE(...) TROTH_THREAD_ATTRIBUTE(acquired_before(__VA_ARGS__))
#define TROTH_ACQUIRED_AFTER(...) TROTH_THREAD_ATTRIBUTE(acquired_after(__VA_ARGS__))
// On a function that returns a reference to a mutex: which one.
#define TROTH_RETURN_CAPABILITY(m) TROTH_THREAD_ATTRIBUTE(lock_returned(m))
// On a function: the analysis can't follow it. Say why beside each use.
#define TROTH_NO_THREAD_SAFETY_ANALYSIS TROTH_THREAD_ATTRIBUTE(no_thread_safety_analysis)

namespace troth {

// Not recursive. Prefer MutexLock; Lock and Unlock are for code that lets go in the middle.
class TROTH_THREAD_ATTRIBUTE(capability("mutex")) Mutex {
 public:
  Mutex() = default;
  Mutex(const Mutex&) = delete;
  Mutex& operator=(const Mutex&) = delete;

  // Waits until no other thread holds it.
  void Lock() TROTH_ACQUIRE() { mutex_.lock(); }
  void Unlock() TROTH_RELEASE() { mutex_.unlock(); }
  // Never waits. True: it is held now.
  bool TryLock() TROTH_TRY_ACQUIRE(true) { return mutex_.try_lock(); }
  // Tells the analysis, and checks nothing: the caller knows that this thread holds it, as
  // inside a callback or a lambda that runs under the lock.
  void AssertHeld() const TROTH_THREAD_ATTRIBUTE(assert_capability(this)) {}

 private:
  friend class CondVar;
  std::mutex mutex_;
};

// Holds `mutex` from here to the end of the block.
class TROTH_THREAD_ATTRIBUTE(scoped_lockable) MutexLock {
 public:
  explicit MutexLock(Mutex* mutex) TROTH_ACQUIRE(mutex) : mutex_(mutex) { mutex_->Lock(); }
  ~MutexLock() TROTH_RELEASE() { mutex_->Unlock(); }
  MutexLock(const MutexLock&) = delete;
  MutexLock& operator=(const MutexLock&) = delete;

 private:
  Mutex* const mutex_;
};

// Waiting for what another thread does under `mutex`. Wakes up for no reason now and then, so
// every wait stands in a loop over its condition:
//   while (!done_) changed_.Wait(&mutex_);
// (Not as a lambda: the analysis does not see that it runs under the mutex.)
class CondVar {
 public:
  CondVar() = default;
  CondVar(const CondVar&) = delete;
  CondVar& operator=(const CondVar&) = delete;

  // Gives `mutex` back, waits to be notified, and holds it again on return.
  void Wait(Mutex* mutex) TROTH_REQUIRES(mutex) {
    std::unique_lock<std::mutex> lock(mutex->mutex_, std::adopt_lock);
    changed_.wait(lock);
    lock.release();
  }

  // As Wait, at most until `deadline`. False: the deadline has passed.
  bool WaitUntil(Mutex* mutex, std::chrono::steady_clock::time_point deadline)
      TROTH_REQUIRES(mutex) {
    std::unique_lock<std::mutex> lock(mutex->mutex_, std::adopt_lock);
    const std::cv_status status = changed_.wait_until(lock, deadline);
    lock.release();
    return status == std::cv_status::no_timeout;
  }

  // As Wait, at most for `timeout`. False: it has passed. In a loop use WaitUntil, or each
  // spurious waking starts the time anew.
  bool WaitFor(Mutex* mutex, std::chrono::nanoseconds timeout) TROTH_REQUIRES(mutex) {
    return WaitUntil(mutex, std::chrono::steady_clock::now() + timeout);
  }

  // Wakes one waiting thread, or all. The mutex need not be held.
  void NotifyOne() { changed_.notify_one(); }
  void NotifyAll() { changed_.notify_all(); }

 private:
  std::condition_variable changed_;
};

}  // namespace troth
