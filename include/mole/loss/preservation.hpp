// SPDX-License-Identifier: MIT
// preservation(): keeps parameters near those that they started from.
#pragma once

#include "mole/core/error.hpp"
#include "mole/core/parameters.hpp"
#include "mole/core/view.hpp"
#include "mole/loss/coefficient.hpp"

#include <type_traits>

#include "mole/core/macros_off.hpp"

namespace mole {

/// coefficient * sum of (now - then)^2;   d_now += 2 coefficient (now - then)
///
///   now, then, d_now [rows x cols]; an empty d_now is not wanted. The rows of some experts alone: middle_rows()
///
/// Throws Error(shape) if sizes disagree, Error(option) for a coefficient beyond float (in_float_range).
/// Source: Li et al. 2025 (LoRA-Mixer), arXiv:2507.00029: experts that others have trained are to stay what they are.
template <class T>
double preservation(View<const T> now, View<const std::type_identity_t<T>> then, View<std::type_identity_t<T>> d_now,
                    double coefficient = 1) {
  detail::require_coefficient("preservation", coefficient);
  const auto require_size = [&](View<const T> other, const char* what) {
    require(other.rows() == now.rows() && other.cols() == now.cols(), ErrorCode::shape, "preservation: expected ", what,
            " of [", now.rows(), " x ", now.cols(), "], found [", other.rows(), " x ", other.cols(), "]");
  };
  require_size(then, "the start");
  if (d_now) require_size(d_now, "gradients");
  double sum = 0;
  for (Index r = 0; r < now.rows(); ++r)
    for (Index c = 0; c < now.cols(); ++c) {
      const double change = double(now(r, c)) - double(then(r, c));
      sum += change * change;
      if (d_now) d_now(r, c) += T(2 * coefficient * change);
    }
  return coefficient * sum;
}

/// The same for all tensors of a policy's parameters; empty gradients are frozen ones.
template <class Parameters>
requires requires(Parameters& p) {
  Parameters::for_each_tensor([](const auto&, auto&) {}, p);
}
double preservation(const Parameters& now, const Parameters& then, Parameters& gradients, double coefficient = 1) {
  double sum = 0;
  Parameters::for_each_tensor(
      [&](const auto&, const auto& tensor, const auto& start, auto& gradient) {
        sum += preservation(tensor.view(), start.view(), gradient.view(), coefficient);
      },
      now, then, gradients);
  return sum;
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
