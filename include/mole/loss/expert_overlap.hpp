// SPDX-License-Identifier: MIT
// expert_overlap(): keeps experts from reading the same directions of their input.
#pragma once

#include "mole/core/error.hpp"
#include "mole/core/matrix.hpp"
#include "mole/core/rank/rank_blocks.hpp"
#include "mole/loss/coefficient.hpp"

#include <cmath>
#include <type_traits>

#include "mole/core/macros_off.hpp"

namespace mole {

/// Options of expert_overlap().
struct ExpertOverlapOptions {
  double coefficient = 1;
  bool absolute = false;  ///< sizes of the products, as O-LoRA's release has it, in place of their squares
  Index frozen = 0;       ///< the first experts, of earlier tasks: not compared with each other, without a gradient
};

/// coefficient * sum over experts e < f and their ranks j, k of   <a_ej, a_fk>^2
///
///   blocks   whose ranks are whose   a [ranks x I], such as lora_A   d_a [ranks x I], accumulated; empty = not wanted
///
/// 0 for one expert, and where the rows of different experts are orthogonal; products of 0 have no gradient. Throws
/// Error(shape) if sizes disagree; Error(option) for experts that share an A, `frozen` beyond the experts, or a
/// coefficient beyond float (in_float_range).  O(ranks^2 I), no allocation.
/// Source: Wang et al. 2023 (O-LoRA), arXiv:2310.14152, where the ranks of earlier tasks are frozen.
template <class T>
double expert_overlap(const RankBlocks& blocks, View<const T> a, View<std::type_identity_t<T>> d_a,
                      const ExpertOverlapOptions& options = {}) {
  detail::require_coefficient("expert_overlap", options.coefficient);
  require(!blocks.shared_down() || blocks.experts() <= 1, ErrorCode::option,
          "expert_overlap: expected experts with an A of their own, found one A for all");
  require(options.frozen >= 0 && options.frozen <= blocks.experts(), ErrorCode::option,
          "expert_overlap: expected from 0 to ", blocks.experts(), " frozen experts, found ", options.frozen);
  require_equal(ErrorCode::shape, "expert_overlap: ranks", blocks.ranks_down(), a.rows());
  require(!d_a || (d_a.rows() == a.rows() && d_a.cols() == a.cols()), ErrorCode::shape,
          "expert_overlap: expected gradients of [", a.rows(), " x ", a.cols(), "], found [", d_a.rows(), " x ",
          d_a.cols(), "]");
  double value = 0;
  const auto add_pair = [&](Index j, Index k, bool first_learns) {
    double product = 0;
    for (Index i = 0; i < a.cols(); ++i) product += double(a(j, i)) * double(a(k, i));
    value += options.coefficient * (options.absolute ? std::abs(product) : product * product);
    if (!d_a || product == 0) return;
    const double d = options.coefficient * (options.absolute ? std::copysign(1.0, product) : 2 * product);
    for (Index i = 0; i < a.cols(); ++i) {
      if (first_learns) d_a(j, i) += T(d * double(a(k, i)));
      d_a(k, i) += T(d * double(a(j, i)));
    }
  };
  for (Index f = options.frozen; f < blocks.experts(); ++f)
    for (Index e = 0; e < f; ++e)
      for (Index j = blocks.down(e); j < blocks.down(e) + blocks.size(e); ++j)
        for (Index k = blocks.down(f); k < blocks.down(f) + blocks.size(f); ++k) add_pair(j, k, e >= options.frozen);
  return value;
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
