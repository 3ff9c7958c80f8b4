// SPDX-License-Identifier: MIT
// The threads that a program has already run a layer: OpenMP's, TBB's, those of Eigen's pool. Each in ten lines, beside
// the same layer on one thread, and called from inside of a parallel region of the host's own.
#include <mole/mole.hpp>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <vector>

#ifdef _OPENMP
#include <omp.h>

struct OpenMpExecutor {
  template <class F>
  void parallel_for(mole::Index tasks, F&& f) const {
#pragma omp parallel for schedule(dynamic) if (!omp_in_parallel())  // in a region of the host: on this thread
    for (mole::Index i = 0; i < tasks; ++i) f(i);
  }
  int threads() const {
    return omp_in_parallel() ? 1 : omp_get_max_threads();
  }
};
#endif

#ifdef HAS_TBB
#include <tbb/parallel_for.h>
#include <tbb/task_arena.h>

struct TbbExecutor {
  template <class F>
  void parallel_for(mole::Index tasks, F&& f) const {
    tbb::parallel_for(mole::Index(0), tasks, f);  // nested calls share the arena's threads
  }
  int threads() const { return tbb::this_task_arena::max_concurrency(); }
};
#endif

#if __has_include(<unsupported/Eigen/CXX11/ThreadPool>)
#define HAS_EIGEN_THREADS
#define EIGEN_USE_THREADS
#include <unsupported/Eigen/CXX11/ThreadPool>

class EigenExecutor {
 public:
  explicit EigenExecutor(Eigen::ThreadPoolInterface& pool) : pool_(&pool) {}

  template <class F>
  void parallel_for(mole::Index tasks, F&& f) const {
    if (tasks <= 1 || pool_->CurrentThreadId() >= 0) {  // a task that waits for tasks would block the pool
      for (mole::Index i = 0; i < tasks; ++i) f(i);
      return;
    }
    Eigen::Barrier done(unsigned(tasks - 1));
    for (mole::Index i = 1; i < tasks; ++i)
      pool_->Schedule([&f, &done, i] {
        f(i);
        done.Notify();
      });
    f(mole::Index(0));
    done.Wait();
  }
  int threads() const { return pool_->NumThreads() + 1; }

 private:
  Eigen::ThreadPoolInterface* pool_;
};
#endif

namespace {

constexpr mole::Index size = 256, tokens = 128;

/// y of a layer on the threads of `executor`.
template <class Executor>
class Program {
 public:
  explicit Program(Executor executor) : execution_(std::move(executor)) {
    mole::Rng rng(1);
    for (auto* matrix : {&weights_, &x_}) fill_uniform(matrix->view(), 1, rng);
  }
  mole::Matrix<float> run() const {
    mole::Rng rng(2);
    auto layer = mole::mola({.experts = 4}, mole::DenseBase{weights_}, rng, execution_);
    fill_uniform(layer.experts().parameters().lora_B.view(), 1, rng);
    auto work = layer.workspace(tokens);
    mole::Matrix<float> y(tokens, size);
    layer.forward(x_, y, work);
    return y;
  }
  /// Four calls at once, in a parallel loop of the host.
  std::vector<mole::Matrix<float>> run_inside_of_tasks() const {
    std::vector<mole::Matrix<float>> all(4);
    execution_.parallel_for(mole::Index(all.size()), [&](mole::Index i) { all[std::size_t(i)] = run(); });
    return all;
  }

 private:
  mole::Simd<mole::kernel::DefaultArchitecture, Executor> execution_;
  mole::Matrix<float> weights_{size, size}, x_{tokens, size};
};

bool same(const mole::Matrix<float>& a, const mole::Matrix<float>& b) {
  return std::ranges::equal(a.elements(), b.elements());
}

template <class Executor>
bool compare(const char* name, Executor executor) {
  const auto expected = Program<mole::Serial>(mole::Serial{}).run();
  const int threads = executor.threads();
  const Program<Executor> program(std::move(executor));
  bool all = same(program.run(), expected);
  for (const auto& y : program.run_inside_of_tasks()) all = all && same(y, expected);
  std::printf("%s, %d threads: %s\n", name, threads, all ? "the bits of one thread" : "other bits than one thread");
  return all;
}

}  // namespace

int main() {
  bool all = true;
#ifdef _OPENMP
  omp_set_num_threads(3);
  all = compare("OpenMP", OpenMpExecutor{}) && all;
#endif
#ifdef HAS_TBB
  all = compare("TBB", TbbExecutor{}) && all;
#endif
#ifdef HAS_EIGEN_THREADS
  Eigen::ThreadPool pool(2);
  all = compare("Eigen's pool", EigenExecutor(pool)) && all;
#endif
  // Whatever else the host has: a function that runs a loop.
  mole::ThreadPool own(3);
  const mole::HostExecutor::Loop loop = [&](mole::Index tasks, const auto& f) { own.parallel_for(tasks, f); };
  all = compare("a function of the host", mole::HostExecutor(3, loop)) && all;
  return all ? 0 : 1;
}
