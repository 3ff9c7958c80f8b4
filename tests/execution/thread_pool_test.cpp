// SPDX-License-Identifier: MIT
#include "mole/execution/thread_pool.hpp"

#include "support/catch.hpp"
#include "support/sanitizers.hpp"

#include <chrono>
#include <set>
#include <stdexcept>
#include <system_error>

#if __has_include(<sys/wait.h>)
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>
#endif

using namespace mole;

namespace {

/// How often each task of one loop ran.
class Tally {
 public:
  explicit Tally(Index tasks) : counts_(std::size_t(tasks)) {}
  void operator()(Index i) { ++counts_[std::size_t(i)]; }
  bool each_once() const { return each(1); }
  bool each(int times) const {
    for (const std::atomic<int>& count : counts_)
      if (count != times) return false;
    return true;
  }
  /// Exactly the first `tasks` ran, each once; counts from zero again.
  bool take(Index tasks) {
    bool right = true;
    for (Index i = 0; i < Index(counts_.size()); ++i)
      right = (counts_[std::size_t(i)].exchange(0) == (i < tasks ? 1 : 0)) && right;
    return right;
  }

 private:
  std::vector<std::atomic<int>> counts_;
};

/// Waits, with a limit that only a failing test reaches.
template <class Condition>
bool eventually(Condition condition) {
  const auto limit = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  while (!condition()) {
    if (std::chrono::steady_clock::now() > limit) return false;
    std::this_thread::yield();
  }
  return true;
}

}  // namespace

TEST_CASE("A pool runs each task exactly once", "[execution][threads]") {
  for (int threads : {1, 2, 5}) {
    const ThreadPool pool(threads);
    CHECK(pool.threads() == threads);
    for (Index tasks : {0, 1, 2, 3, 100, 10'000}) {
      Tally tally(tasks);
      pool.parallel_for(tasks, tally);
      CAPTURE(threads, tasks);
      CHECK(tally.each_once());
    }
  }
}

TEST_CASE("A pool's threads work at the same time", "[execution][threads]") {
  const ThreadPool pool(3);
  std::atomic<int> arrived = 0;
  std::atomic<bool> met = true;
  pool.parallel_for(3, [&](Index) {
    ++arrived;
    if (!eventually([&] { return arrived == 3; })) met = false;  // each task waits for the two others
  });
  CHECK(met);
}

TEST_CASE("A pool of one thread, and a loop of one task, stay with the caller", "[execution][threads]") {
  const auto caller = std::this_thread::get_id();
  bool here = true;
  const auto note = [&](Index) { here = here && std::this_thread::get_id() == caller; };
  ThreadPool(1).parallel_for(50, note);
  ThreadPool(4).parallel_for(1, note);
  CHECK(here);
}

// Short after long and long after short: a thread that is late for one loop must take no task of the next. Such a
// thread is a rare one, so the loops are many; one that fails now and then is broken all the same.
TEST_CASE("Many short loops of changing length run each task once and end before they return", "[execution][threads]") {
  for (int threads : {2, 3, 5}) {
    const ThreadPool pool(threads);
    Index wrong = 0;
    Tally tally(32);
    for (int loop = 1; loop <= 100'000; ++loop) {
      const Index tasks = loop % 2 ? 2 : 32;
      pool.parallel_for(tasks, tally);
      wrong += !tally.take(tasks);
    }
    CAPTURE(threads);
    CHECK(wrong == 0);
  }
}

TEST_CASE("An exception reaches the caller after all tasks have ended, and the pool works afterwards",
          "[execution][threads]") {
  const ThreadPool pool(4);
  for (int round = 0; round < 50; ++round) {
    Tally tally(64);
    std::string caught;
    try {
      pool.parallel_for(64, [&](Index i) {
        tally(i);
        if (i % 16 == 3) throw std::runtime_error("task");
      });
    } catch (const std::runtime_error& error) {
      caught = error.what();
    }
    CHECK(caught == "task");
    CHECK(tally.each_once());

    Tally next(64);
    CHECK_NOTHROW(pool.parallel_for(64, next));
    CHECK(next.each_once());
  }
}

TEST_CASE("An exception on a pool of one thread reaches the caller", "[execution][threads]") {
  const ThreadPool pool(1);
  const auto task = [](Index i) {
    if (i == 1) throw std::runtime_error("task");
  };
  CHECK_THROWS_AS(pool.parallel_for(3, task), std::runtime_error);
  Tally tally(3);
  pool.parallel_for(3, tally);
  CHECK(tally.each_once());
}

TEST_CASE("A loop inside a task runs on that task's thread", "[execution][threads]") {
  const ThreadPool pool(3), other(2);
  Tally inner(8 * 9);
  std::atomic<int> strangers = 0;
  pool.parallel_for(8, [&](Index i) {
    const auto here = std::this_thread::get_id();
    for (const ThreadPool* nested : {&pool, &other})
      nested->parallel_for(9, [&](Index j) {
        inner(i * 9 + j);
        strangers += std::this_thread::get_id() != here;
      });
  });
  CHECK(inner.each(2));
  CHECK(strangers == 0);
}

TEST_CASE("A loop inside a task that throws takes the usual way out", "[execution][threads]") {
  const ThreadPool pool(3);
  const auto inner = [](Index j) {
    if (j == 2) throw std::runtime_error("inner");
  };
  const auto nested = [&](Index) { pool.parallel_for(4, inner); };
  CHECK_THROWS_AS(pool.parallel_for(6, nested), std::runtime_error);
  Tally tally(6);
  pool.parallel_for(6, tally);
  CHECK(tally.each_once());
}

TEST_CASE("Two callers at once both get all their tasks done", "[execution][threads]") {
  const ThreadPool pool(3);
  std::atomic<Index> wrong = 0;
  const auto caller = [&] {
    for (int loop = 0; loop < 500; ++loop) {
      Tally tally(7);
      pool.parallel_for(7, tally);
      wrong += !tally.each_once();
    }
  };
  std::thread second(caller);
  caller();
  second.join();
  CHECK(wrong == 0);
}

TEST_CASE("A second caller does not wait for a busy pool", "[execution][threads]") {
  const ThreadPool pool(2);
  std::atomic<bool> finished = false, in_time = true;
  std::thread second;
  pool.parallel_for(2, [&](Index i) {
    if (i == 0)
      second = std::thread([&] {
        Tally tally(5);
        pool.parallel_for(5, tally);
        finished = tally.each_once();
      });
    if (i == 0) in_time = eventually([&] { return finished.load(); });  // the first loop ends only after the second
  });
  second.join();
  CHECK(in_time);
}

TEST_CASE("Copies of a pool share its threads, and the last one joins them", "[execution][threads]") {
  std::mutex mutex;
  std::set<std::thread::id> seen;
  const auto note = [&](Index) {
    std::lock_guard lock(mutex);
    seen.insert(std::this_thread::get_id());
  };
  auto pool = std::make_unique<ThreadPool>(2);
  const ThreadPool copy = *pool;
  for (int loop = 0; loop < 200; ++loop) (loop % 2 ? *pool : copy).parallel_for(8, note);
  CHECK(seen.size() <= 2);
  pool.reset();
  Tally tally(8);
  copy.parallel_for(8, tally);
  CHECK(tally.each_once());
}

TEST_CASE("A pool wakes up after its threads have gone to sleep", "[execution][threads]") {
  const ThreadPool pool(2);
  for (int round = 0; round < 3; ++round) {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    std::atomic<int> arrived = 0;
    std::atomic<bool> met = true;
    pool.parallel_for(2, [&](Index) {
      ++arrived;
      if (!eventually([&] { return arrived == 2; })) met = false;
    });
    CHECK(met);
  }
}

TEST_CASE("A pool of no thread is refused", "[execution][threads]") {
  for (int threads : {0, -3}) {
    ErrorCode code{};
    try {
      ThreadPool{threads};
    } catch (const Error& error) {
      code = error.code();
    }
    CHECK(code == ErrorCode::option);
  }
}

#if defined(__linux__) && !MOLE_TEST_THREAD_SANITIZER && !MOLE_TEST_ADDRESS_SANITIZER
// In a process of its own, as what it changes holds for all of it.
template <class F>
bool succeeds_in_a_fork(F f) {
  const pid_t child = ::fork();
  if (child == 0) ::_exit(f() ? 0 : 1);
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

TEST_CASE("A system that refuses a thread gives an exception, and no half of a pool", "[execution][threads]") {
  CHECK(succeeds_in_a_fork([] {
    struct rlimit limit {};
    ::getrlimit(RLIMIT_AS, &limit);
    limit.rlim_cur = rlim_t(1) << 30;  // a thread's stack takes 8 MiB of it
    if (::setrlimit(RLIMIT_AS, &limit) != 0) return false;
    try {
      const ThreadPool pool(5000);
    } catch (const std::system_error&) {
      return true;
    }
    return false;
  }));
}

TEST_CASE("A process that was forked from one with a pool goes on, and ends", "[execution][threads]") {
  const ThreadPool pool(3);
  Tally tally(40);
  pool.parallel_for(40, [&](Index i) { tally(i); });
  std::this_thread::sleep_for(std::chrono::milliseconds(20));  // its threads sleep by now
  CHECK(succeeds_in_a_fork([&] {
    for (int round = 0; round < 5; ++round) pool.parallel_for(40, [&](Index i) { tally(i); });
    {
      const ThreadPool copy = pool, another(2);
      another.parallel_for(40, [&](Index i) { tally(i); });
    }
    return tally.each(7);
  }));
  CHECK(tally.each(1));
}
#endif

#if defined(__SSE__)
TEST_CASE("Tasks have the floating-point environment of the caller", "[execution][threads]") {
  const ThreadPool pool(3);
  const unsigned before = _mm_getcsr();
  for (const unsigned mode : {0u, 0x8040u, 0x6000u, 0u}) {  // flush to zero, rounding towards zero
    _mm_setcsr(before | mode);
    std::vector<std::atomic<unsigned>> found(200);
    pool.parallel_for(200, [&](Index i) {
      found[std::size_t(i)] = _mm_getcsr() & 0xffc0u;
      if (i % 16 == 0) std::this_thread::yield();
    });
    const unsigned own = _mm_getcsr() & 0xffc0u;
    _mm_setcsr(before);
    for (const auto& of_task : found) CHECK(of_task == own);
  }
}
#endif

TEST_CASE("A pool without a number has a thread for each of the machine's", "[execution][threads]") {
  CHECK(ThreadPool().threads() == std::max(1, int(std::thread::hardware_concurrency())));
}
