// SPDX-License-Identifier: MIT
// HostExecutor: the executor of a host that has its own parallel loop.
#pragma once

#include "mole/execution/executor_policy.hpp"

#include <functional>
#include <utility>

namespace mole {

/// Runs tasks through a callable `loop(tasks, f)` of the host, f being a std::function<void(Index)>. Converting f does
/// not allocate: it is a reference. A host to which the indirection matters models ExecutorPolicy itself.
class HostExecutor {
 public:
  using Loop = std::function<void(Index tasks, const std::function<void(Index)>& f)>;

  HostExecutor(int threads, Loop loop) : threads_(threads), loop_(std::move(loop)) {}

  template <class F>
  void parallel_for(Index tasks, F&& f) const {
    if (tasks == 1)
      f(Index(0));
    else if (tasks > 1)
      loop_(tasks, std::ref(f));
  }
  int threads() const { return threads_; }

 private:
  int threads_;
  Loop loop_;
};

static_assert(ExecutorPolicy<HostExecutor>);

}  // namespace mole
