// SPDX-License-Identifier: MIT
// clip_norm(): an upper bound on the norm of the whole gradient.
#pragma once

#include "mole/core/error.hpp"
#include "mole/core/view.hpp"

#include <cmath>
#include <functional>
#include <string_view>

#include "mole/core/macros_off.hpp"

namespace mole {

/// Scales all gradients of `walk` (see Moments) by max_norm / norm if their common L2 norm exceeds max_norm, and
/// returns the norm before. Frozen tensors do not count.
///
/// The squares are summed in double in the order of the walk, so equal inputs give equal bits. If the norm is not
/// finite (an infinity, a NaN, or squares beyond double) the gradients stay unchanged, and the caller skips the step.
/// Throws Error(option) unless max_norm > 0.  O(parameters), no allocation.
/// Source: Pascanu et al. 2013, arXiv:1211.5063, algorithm 1.
template <class Walk>
double clip_norm(Walk&& walk, double max_norm) {
  require(max_norm > 0, ErrorCode::option, "clip_norm: expected a max_norm above 0, found ", max_norm);
  double sum = 0;
  walk([&]<class T>(std::string_view, View<T>, View<T> gradient) {
    for (Index r = 0; gradient && r < gradient.rows(); ++r)
      for (T g : gradient.row(r)) sum += double(g) * double(g);
  });
  const double norm = std::sqrt(sum);
  if (!std::isfinite(norm) || norm <= max_norm) return norm;
  walk([&]<class T>(std::string_view, View<T>, View<T> gradient) {
    for (Index r = 0; gradient && r < gradient.rows(); ++r)
      for (T& g : gradient.row(r)) g *= T(max_norm / norm);
  });
  return norm;
}

/// The same for the gradients of a layer.
template <class Layer, class Gradients>
double clip_norm(Layer& layer, Gradients& gradients, double max_norm) {
  return clip_norm([&](auto&& f) { layer.for_each_tensor(f, gradients); }, max_norm);
}
/// ... or of a layer that holds them, such as AnyLinear.
template <class Layer>
requires requires {
  typename Layer::Visitor;
}
double clip_norm(Layer& layer, double max_norm) {
  return clip_norm([&](auto&& f) { layer.for_each_tensor(std::ref(f)); }, max_norm);
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
