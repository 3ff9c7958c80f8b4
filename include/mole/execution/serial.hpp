// SPDX-License-Identifier: MIT
// Serial: the executor that runs everything on the caller's thread.
#pragma once

#include "mole/execution/executor_policy.hpp"

#include "mole/core/macros_off.hpp"

namespace mole {

/// The executor that has no threads: tasks one after the other, on the thread that calls.
struct Serial {
  template <class F>
  void parallel_for(Index tasks, F&& f) const {
    for (Index i = 0; i < tasks; ++i) f(i);
  }
  int threads() const { return 1; }
};

static_assert(ExecutorPolicy<Serial>);

}  // namespace mole

#include "mole/core/macros_on.hpp"
