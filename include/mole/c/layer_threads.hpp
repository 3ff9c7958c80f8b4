// SPDX-License-Identifier: MIT
// LayerThreads: the executor of a layer whose threads may be changed after it was made.
#pragma once

#include "mole/execution/executor_policy.hpp"
#include "mole/execution/host_executor.hpp"
#include "mole/execution/thread_pool.hpp"

#include <memory>
#include <utility>
#include <variant>

#include "mole/core/macros_off.hpp"

namespace mole::c {

/// A pool, or the threads of a host.
using Threads = std::variant<ThreadPool, HostExecutor>;

/// Copies share what set() gives one of them: until then, and after set(nullptr), tasks run on the caller's thread.
/// set() must not meet a loop that runs.
class LayerThreads {
 public:
  void set(std::shared_ptr<const Threads> threads) const { *threads_ = std::move(threads); }

  template <class F>
  void parallel_for(Index tasks, F&& f) const {
    const Threads* const threads = threads_->get();
    if (threads != nullptr && tasks > 1)
      return std::visit([&](const auto& executor) { executor.parallel_for(tasks, f); }, *threads);
    for (Index i = 0; i < tasks; ++i) f(i);
  }
  int threads() const {
    const Threads* const threads = threads_->get();
    return threads == nullptr ? 1 : std::visit([](const auto& executor) { return executor.threads(); }, *threads);
  }

 private:
  std::shared_ptr<std::shared_ptr<const Threads>> threads_ = std::make_shared<std::shared_ptr<const Threads>>();
};

static_assert(ExecutorPolicy<LayerThreads>);

}  // namespace mole::c

#include "mole/core/macros_on.hpp"
