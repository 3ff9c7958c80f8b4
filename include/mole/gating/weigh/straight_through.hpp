// SPDX-License-Identifier: MIT
// StraightThrough: gates of 1 with the gradient of the scores.
#pragma once

#include "mole/gating/weigh/unit.hpp"

#include "mole/core/macros_off.hpp"

namespace mole {

/// gate = 1, with the gradient of gate = score:   1 - constant(score) + score.
///
/// Unlike Unit, it lets the gradient of the task reach the router.
/// Source: Bengio et al. 2013, arXiv:1308.3432; implemented, but not used, in forwchen/LLaVA-MoLE.
struct StraightThrough : Unit {
  template <class T>
  void backward(std::span<const T>, std::span<const int> chosen, std::span<const T>, std::span<const T> d_gates,
                std::span<T> d_scores) const {
    for (std::size_t j = 0; j < chosen.size(); ++j) d_scores[std::size_t(chosen[j])] += d_gates[j];
  }
};

static_assert(WeighPolicy<StraightThrough, float>);

}  // namespace mole

#include "mole/core/macros_on.hpp"
