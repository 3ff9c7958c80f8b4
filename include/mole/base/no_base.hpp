// SPDX-License-Identifier: MIT
// NoBase: the base of a layer that consists of its experts alone.
#pragma once

#include "mole/base/base_policy.hpp"

#include "mole/core/macros_off.hpp"

namespace mole {

/// y = 0.
template <class T>
class NoBase {
 public:
  using Scalar = T;

  NoBase(Index in, Index out) : in_(in), out_(out) {}

  Index in() const { return in_; }
  Index out() const { return out_; }

  void forward(View<const T>, View<T> y, auto) const { fill(y, T(0)); }
  void backward(View<const T>, View<const T>, View<T>, NoParameters&, auto) const {}

 private:
  Index in_, out_;
};

static_assert(TrainableBasePolicy<NoBase<float>>);

}  // namespace mole

#include "mole/core/macros_on.hpp"
