// SPDX-License-Identifier: MIT
// self_contrast(): contrastive decoding of a model against itself under a weaker routing.
#pragma once

#include "mole/core/error.hpp"

#include <cmath>
#include <limits>
#include <span>
#include <type_traits>

#include "mole/core/macros_off.hpp"

namespace mole {

/// Options of self_contrast(); the defaults are those of the released code.
struct SelfContrastOptions {
  double alpha = 0.1;  ///< tokens with less than alpha times the probability of the likeliest one are excluded
  double beta = 0.5;   ///< weight of the contrast
};

/// Next-token logits, minus what the weak pass predicts as well.
///
///   contrasted_i = (1 + beta) strong_i - beta weak_i   if strong_i >= log(alpha) + max strong,   else -infinity
///
///   strong, weak [V]   ->   contrasted [V], which may be the memory of either
///
/// Both rows belong to one model and one position, in two passes with a cache each: the strong pass is routed as the
/// model was trained, the weak one by NthBest and Renormalized in every layer. Temperatures divide the logits before.
///
/// -infinity in `strong` stays -infinity, even if the whole row is. An infinite logit in `weak` was masked, not
/// predicted: strong_i is left unchanged there, and also if strong_i is infinite. NaN in `strong` gives NaN there, as
/// does NaN in `weak` if strong_i is not excluded; neither affects any other number.
///
/// Throws Error(shape) for rows of different sizes, Error(option) unless 0 < alpha <= 1 and 0 <= beta < infinity.
/// O(V), computed in double, no allocation.
/// Source: Shi et al. 2024 (SCMoE), arXiv:2405.14507; released code: github.com/DavidFanzz/SCMoE.
template <class T>
void self_contrast(std::span<const std::type_identity_t<T>> strong, std::span<const std::type_identity_t<T>> weak,
                   std::span<T> contrasted, const SelfContrastOptions& options = {}) {
  require_equal(ErrorCode::shape, "self_contrast: size of weak", strong.size(), weak.size());
  require_equal(ErrorCode::shape, "self_contrast: size of contrasted", strong.size(), contrasted.size());
  require(options.alpha > 0 && options.alpha <= 1, ErrorCode::option,
          "self_contrast: expected an alpha above 0 and up to 1, found ", options.alpha);
  require(options.beta >= 0 && std::isfinite(options.beta), ErrorCode::option,
          "self_contrast: expected a finite beta from 0 up, found ", options.beta);

  constexpr T out = -std::numeric_limits<T>::infinity();
  T largest = out;
  for (T logit : strong) largest = logit > largest ? logit : largest;  // ignores NaN
  const double least = std::log(options.alpha) + double(largest);
  for (std::size_t i = 0; i < strong.size(); ++i) {
    const double s = double(strong[i]), w = double(weak[i]);
    if (s < least)
      contrasted[i] = out;
    else if (std::isinf(s) || std::isinf(w))
      contrasted[i] = T(s);
    else
      contrasted[i] = T(s + options.beta * (s - w));  // exactly s if both agree, or beta is 0
  }
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
