// SPDX-License-Identifier: MIT
// detail::for_each_state_of_cell(): the tokens of a recurrent cell, with the loops of an execution's vectors.
#pragma once

#include "mole/core/config.hpp"
#include "mole/kernel/architecture_of.hpp"
#include "mole/kernel/element_loops.hpp"
#include "mole/kernel/vector_loops.hpp"

#include <algorithm>
#include <type_traits>

#include "mole/core/macros_off.hpp"

namespace mole::detail {

/// Calls f(token, loops) for every token, `width` numbers each, in chunks worth a thread.
template <class T>
void for_each_state_of_cell(Index tokens, Index width, const auto& execution, auto f) {
  const Index chunk = std::max<Index>(1, 4096 / width);
  execution.parallel_for((tokens + chunk - 1) / chunk, [&](Index c) {
    for (Index token = c * chunk; token < std::min(tokens, (c + 1) * chunk); ++token) {
      using Arch = kernel::ArchitectureOf<decltype(execution)>;
      if constexpr (!std::is_void_v<Arch>) {
        if (width >= kernel::step_of<Arch, T>) {
          f(token, kernel::VectorLoops<Arch>{});
          continue;
        }
      }
      f(token, kernel::ElementLoops{});
    }
  });
}

}  // namespace mole::detail

#include "mole/core/macros_on.hpp"
