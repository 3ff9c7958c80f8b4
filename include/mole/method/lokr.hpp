// SPDX-License-Identifier: MIT
// lokr(): LoKr, an update that is a Kronecker product.
#pragma once

#include "mole/base/dense_base.hpp"
#include "mole/expert/map_experts.hpp"
#include "mole/maps/kronecker_maps.hpp"
#include "mole/method/one_adapter.hpp"

#include "mole/core/macros_off.hpp"

namespace mole {

/// Yeh et al. 2024 (LyCORIS), arXiv:2309.14859; released as huggingface/peft's LoKr.
struct LokrOptions {
  Index rank = 8;  ///< of W2, and of W1 with decompose_both, where that is less than half of its size
  double alpha = 8;
  Index factor = 0;             ///< most rows and columns of W1; 0: near to square roots
  bool decompose_both = false;  ///< W1, too, may be a product
  double dropout = 0;           ///< on the adapter's input; peft has none
};

/// y = W x + b + (alpha / rank) kron(W1, W2) x.
template <BasePolicy Base, class Generator, class Execution = DefaultExecution>
auto lokr(const LokrOptions& options, Base base, Generator& generator, Execution execution = {}) {
  using T = typename Base::Scalar;
  MapExperts<KroneckerMaps<T>> experts({.in = base.in(),
                                        .out = base.out(),
                                        .rank = options.rank,
                                        .factor = options.factor,
                                        .decompose_both = options.decompose_both,
                                        .alpha = options.alpha,
                                        .dropout = {.rate = options.dropout, .stream = 1}},
                                       generator);
  return one_adapter(std::move(experts), std::move(base), std::move(execution));
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
