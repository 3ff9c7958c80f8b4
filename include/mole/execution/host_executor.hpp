// SPDX-License-Identifier: MIT
// HostExecutor: the executor of a host that has its own parallel loop.
#pragma once

#include "mole/core/error.hpp"
#include "mole/execution/executor_policy.hpp"

#include <functional>
#include <utility>

#include "mole/core/macros_off.hpp"

namespace mole {

/// Runs tasks through a callable `loop(tasks, f)` of the host, f being a std::function<void(Index)>. Converting f does
/// not allocate: it is a reference. A host to which the indirection matters models ExecutorPolicy itself.
class HostExecutor {
 public:
  using Loop = std::function<void(Index tasks, const std::function<void(Index)>& f)>;

  /// Throws Error(option) for fewer than 1 thread, and for an empty `loop`.
  HostExecutor(int threads, Loop loop) : threads_(threads), loop_(std::move(loop)) {
    require(threads >= 1, ErrorCode::option, "HostExecutor: expected at least 1 thread, found ", threads);
    require(bool(loop_), ErrorCode::option, "HostExecutor: expected a loop, found an empty function");
  }

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

#include "mole/core/macros_on.hpp"
