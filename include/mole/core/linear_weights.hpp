// SPDX-License-Identifier: MIT
// LinearWeights: read-only weights of a linear layer, row-major, packed, or both.
#pragma once

#include "mole/core/weight_panels.hpp"

#include "mole/core/macros_off.hpp"

namespace mole {

/// The weights of y = x W^T + b, as an execution takes them.   weight [O x I], bias [1 x O]
///
/// At least one of `weight` and `panels` is present. Panels save an execution the packing: those of W serve y, those of
/// its transpose serve d_x.
template <class T>
struct LinearWeights {
  View<const T> weight = {};
  PanelView<const T> panels = {};             // of W
  PanelView<const T> transposed_panels = {};  // of W^T
  View<const T> bias = {};

  const T& operator()(Index o, Index i) const { return weight ? weight(o, i) : panels(o, i); }
};

}  // namespace mole

#include "mole/core/macros_on.hpp"
