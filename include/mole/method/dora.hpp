// SPDX-License-Identifier: MIT
// dora(): DoRA, a LoRA under which the weight keeps rows of trained lengths.
#pragma once

#include "mole/base/dense_base.hpp"
#include "mole/core/lasting_view.hpp"
#include "mole/expert/map_experts.hpp"
#include "mole/maps/weight_decomposition.hpp"
#include "mole/method/one_adapter.hpp"

#include "mole/core/macros_off.hpp"

namespace mole {

/// Liu et al. 2024 (DoRA), arXiv:2402.09353; released as NVlabs/DoRA and in huggingface/peft as LoRA with use_dora.
struct DoraOptions {
  Index rank = 8;
  double alpha = 8;
  Scaling scaling = Scaling::alpha_over_rank;
  bool exact_norm = false;  ///< gradients through the lengths, which the release takes as constants
  double dropout = 0;       ///< on the x of the adapter, and of the W x in its formula; the base sees x itself
};

/// y = m / n o ((W + s B A) x) + b, with n the lengths of the rows of W + s B A.
///
///   weight [O x I]
///
/// `weight` is that of the base, in memory that outlives the layer; what the base adds to it is W x + b. Throws
/// Error(shape) unless both have equal sizes.
template <BasePolicy Base, class Generator, class Execution = DefaultExecution>
auto dora(const DoraOptions& options, LastingView<const typename Base::Scalar> weight, Base base, Generator& generator,
          Execution execution = {}) {
  using T = typename Base::Scalar;
  MapExperts<WeightDecomposition<T>> experts({.in = base.in(),
                                              .out = base.out(),
                                              .rank = options.rank,
                                              .weight = weight,
                                              .exact_norm = options.exact_norm,
                                              .alpha = options.alpha,
                                              .scaling = options.scaling,
                                              .dropout = {.rate = options.dropout, .stream = 1}},
                                             generator);
  return one_adapter(std::move(experts), std::move(base), std::move(execution));
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
