// SPDX-License-Identifier: MIT
// A user's own executor: a layer on the threads that a program already has.
#include <mole/mole.hpp>

#include <cstdio>
#include <thread>
#include <vector>

/// Starts a thread per task; a real host would hand the tasks to its pool.
struct ThreadPerTask {
  template <class F>
  void parallel_for(mole::Index tasks, F&& f) const {
    std::vector<std::thread> threads;
    for (mole::Index i = 1; i < tasks; ++i) threads.emplace_back([&f, i] { f(i); });
    if (tasks > 0) f(mole::Index(0));
    for (std::thread& thread : threads) thread.join();
  }
  int threads() const { return 4; }
};
static_assert(mole::ExecutorPolicy<ThreadPerTask>);

int main() {
  mole::Matrix<float> weights(256, 256), x(64, 256), alone(64, 256), together(64, 256);
  mole::Rng rng(1);
  for (auto* matrix : {&weights, &x}) fill_uniform(matrix->view(), 1, rng);
  const auto output = [&](auto execution, mole::Matrix<float>& y) {
    mole::Rng same(2);
    const auto layer = mole::mola({.experts = 4}, mole::DenseBase{weights}, same, execution);
    auto work = layer.workspace(64);
    layer.forward(x, y, work);
  };
  output(mole::Simd<>{}, alone);
  output(mole::Simd{ThreadPerTask{}}, together);
  const bool same = std::ranges::equal(alone.elements(), together.elements());
  std::printf("the bits of one thread and of four are %s\n", same ? "the same" : "different");
  return same ? 0 : 1;
}
