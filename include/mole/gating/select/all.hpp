// SPDX-License-Identifier: MIT
// All: the selection of every expert, for dense mixing.
#pragma once

#include "mole/gating/select/select_policy.hpp"

#include <numeric>

#include "mole/core/macros_off.hpp"

namespace mole {

/// Chooses every expert, in the order of their indices.
struct All {
  Index max_chosen(Index experts) const { return experts; }
  bool takes_all(Index) const { return true; }

  template <class T>
  Index select(std::span<const T>, Index experts, std::span<int> chosen) const {
    std::iota(chosen.begin(), chosen.begin() + experts, 0);
    return experts;
  }
};

static_assert(SelectPolicy<All, float>);

}  // namespace mole

#include "mole/core/macros_on.hpp"
