// SPDX-License-Identifier: MIT
// add_outer_products(): the gradient of a weight from the tokens that have one.
#pragma once

#include "mole/core/view.hpp"

#include <algorithm>

#include "mole/core/macros_off.hpp"

namespace mole {

/// d_w += d_out^T in, without the tokens whose row of d_out is all zeros: those add nothing whatever `in` holds, where
/// 0 times NaN would be NaN.   d_out [N x O], in [N x I], d_w [O x I]
template <class T>
void add_outer_products(View<const T> d_out, View<const T> in, View<T> d_w, const auto& execution) {
  const auto is_zero = [&](Index n) { return std::ranges::all_of(d_out.row(n), [](T d) { return d == 0; }); };
  for (Index begin = 0, end; begin < d_out.rows(); begin = end + 1) {
    for (end = begin; end < d_out.rows() && !is_zero(end); ++end) continue;
    if (end > begin)
      execution.product_tn(d_out.middle_rows(begin, end - begin), in.middle_rows(begin, end - begin), d_w);
  }
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
