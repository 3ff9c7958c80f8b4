// SPDX-License-Identifier: MIT
// ExecutorPolicy: the contract of executors: who runs the tasks of a kernel?
#pragma once

#include "mole/core/config.hpp"

#include <concepts>

#include "mole/core/macros_off.hpp"

namespace mole {

/// Satisfied by a copyable handle whose parallel_for(tasks, f) calls f(i) once for each i in [0, tasks), in any order,
/// and returns when all calls have returned; threads() is the number of calls that may run at once. A host's own pool
/// needs no more than this.
template <class X>
concept ExecutorPolicy = std::copyable<X> && requires(const X& executor, void (*task)(Index)) {
  executor.parallel_for(Index(1), task);
  { executor.threads() } -> std::convertible_to<int>;
};

}  // namespace mole

#include "mole/core/macros_on.hpp"
