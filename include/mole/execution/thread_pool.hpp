// SPDX-License-Identifier: MIT
// ThreadPool: a small thread pool, itself an executor.
#pragma once

#include "mole/core/error.hpp"
#include "mole/execution/executor_policy.hpp"
#include "mole/execution/float_environment.hpp"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <memory>
#include <mutex>
#include <thread>
#include <type_traits>
#include <vector>

#if __has_include(<pthread.h>)
#include <pthread.h>
#endif

#include "mole/core/macros_off.hpp"

namespace mole {

namespace detail {
/// How often this process has been forked from another since the first pool was made.
inline int forks() {
  static std::atomic<int> count{0};
#if __has_include(<pthread.h>)
  static const int registered = ::pthread_atfork(nullptr, nullptr, [] { ++count; });
  static_cast<void>(registered);
#endif
  return count;
}
}  // namespace detail

/// A handle to a pool of threads that copies share; the last copy joins them.
///
/// The calling thread works too, so `threads` = 1 starts none. Tasks are claimed one by one from a counter: which
/// thread runs a task varies, what it computes does not. A loop inside a task, and a loop of a second caller while the
/// pool is busy, run on their own thread: threads never nest. The first exception of a task reaches the caller after
/// all tasks have ended, or at once for a loop on the caller's own thread. A loop has fewer than 2^32 tasks.
/// Throws Error(option) for fewer than 1 thread, and std::system_error where the system refuses one.
///
/// Tasks have the floating-point environment of the caller (rounding, flush to zero), so that bits do not depend on who
/// runs them. In a process that was forked from the pool's, where its threads do not exist, loops run on the caller.
class ThreadPool {
 public:
  /// As many threads as the machine has, at least 1.
  ThreadPool() : ThreadPool(std::max(1, int(std::thread::hardware_concurrency()))) {}
  explicit ThreadPool(int threads) {
    require(threads >= 1, ErrorCode::option, "ThreadPool: expected at least 1 thread, found ", threads);
    // In a forked process nobody could join the threads, or leave what they wait for: there the pool is left as it is.
    pool_ = std::shared_ptr<Pool>(new Pool(threads - 1), [](Pool* pool) {
      if (!pool->in_another_process()) delete pool;
    });
  }

  template <class F>
  void parallel_for(Index tasks, F&& f) const {
    using Function = std::remove_reference_t<F>;
    const auto call = [](const void* context, Index i) { (*static_cast<Function*>(const_cast<void*>(context)))(i); };
    if (tasks > 1 && pool_->run(tasks, call, &f)) return;
    for (Index i = 0; i < tasks; ++i) f(i);
  }
  int threads() const { return int(pool_->workers.size()) + 1; }

 private:
  using Task = void (*)(const void* context, Index i);

  /// A loop is published in `ticket`: its number in the upper half, its unclaimed tasks in the lower half. A task is
  /// claimed by compare-and-swap. A finished loop has none left, so a thread that arrives late claims nothing, whatever
  /// it read of the next loop, and the caller waits for tasks, never for threads.
  struct Pool {
    explicit Pool(int threads) {
      detail::or_undo(
          [&] {
            for (int i = 0; i < threads; ++i) workers.emplace_back([this] { work(); });
          },
          [&] { stop(); });
    }
    ~Pool() { stop(); }

    void stop() {
      {
        std::lock_guard lock(mutex);
        stopping = true;
      }
      wake.notify_all();
      for (std::thread& worker : workers) worker.join();
    }
    bool in_another_process() const { return process != detail::forks(); }

    /// False when the loop has to run on the calling thread.
    bool run(Index count, Task function, const void* argument) {
      if (workers.empty() || inside_task() || in_another_process()) return false;
      std::unique_lock caller(callers, std::try_to_lock);
      if (!caller) return false;
      task = function, context = argument, unfinished = count;
      error = nullptr;
      environment = FloatEnvironment::current();
      const std::uint64_t loop = (ticket >> 32) + 1;
      ticket = loop << 32 | std::uint64_t(count);
      if (sleepers > 0) {
        std::lock_guard lock(mutex);
        wake.notify_all();
      }
      drain(loop);
      while (unfinished > 0) std::this_thread::yield();
      if (error) std::rethrow_exception(error);
      return true;
    }

    void work() {
      std::uint64_t seen = 0;
      while (true) {
        // The loops of a layer follow each other closely: sleeping at once would cost a wake-up for each.
        for (int spin = 0; spin < 500 && ticket >> 32 == seen; ++spin) std::this_thread::yield();
        if (ticket >> 32 == seen) {
          std::unique_lock lock(mutex);
          ++sleepers;
          wake.wait(lock, [&] { return stopping || ticket >> 32 != seen; });
          --sleepers;
          if (stopping) return;
        }
        seen = ticket >> 32;
        environment.load().apply();
        drain(seen);
      }
    }

    void drain(std::uint64_t loop) {
      inside_task() = true;
      std::uint64_t claim = ticket;
      while (claim >> 32 == loop && (claim & 0xffffffffu) > 0) {
        const Task function = task;
        const void* argument = context;
        if (!ticket.compare_exchange_weak(claim, claim - 1)) continue;
        if (const auto thrown = detail::caught([&] { function(argument, Index(claim & 0xffffffffu) - 1); })) {
          std::lock_guard lock(mutex);
          if (!error) error = thrown;
        }
        --unfinished;
        claim = ticket;
      }
      inside_task() = false;
    }

    static bool& inside_task() {
      thread_local bool inside = false;
      return inside;
    }

    std::vector<std::thread> workers;
    std::mutex callers;  // one loop at a time
    std::mutex mutex;    // guards error and stopping, and the sleep of workers
    std::condition_variable wake;
    std::atomic<std::uint64_t> ticket{0};
    std::atomic<Task> task{nullptr};
    std::atomic<const void*> context{nullptr};
    std::atomic<Index> unfinished{0};
    std::atomic<int> sleepers{0};
    std::atomic<FloatEnvironment> environment{FloatEnvironment::current()};
    const int process = detail::forks();
    std::exception_ptr error;
    bool stopping = false;
  };

  std::shared_ptr<Pool> pool_;
};

static_assert(ExecutorPolicy<ThreadPool>);

}  // namespace mole

#include "mole/core/macros_on.hpp"
