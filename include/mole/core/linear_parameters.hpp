// SPDX-License-Identifier: MIT
// Weight and optional bias of a linear map.
#pragma once

#include "mole/core/matrix.hpp"

namespace mole {

/// weight [out x in], bias [1 x out] or empty.
template <class T>
struct LinearParameters {
  Matrix<T> weight, bias;

  template <class F, class... P>
  static void walk(F&& f, P&... p) {
    f("weight", p.weight...);
    f("bias", p.bias...);
  }
};

}  // namespace mole
