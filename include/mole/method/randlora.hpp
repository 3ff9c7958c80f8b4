// SPDX-License-Identifier: MIT
// randlora(): RandLoRA, an update of full rank from random matrices that all layers share.
#pragma once

#include "mole/base/dense_base.hpp"
#include "mole/expert/map_experts.hpp"
#include "mole/maps/diagonal_mixture.hpp"
#include "mole/method/one_adapter.hpp"

#include <memory>

#include "mole/core/macros_off.hpp"

namespace mole {

/// Albert et al. 2025 (RandLoRA), arXiv:2502.00987; released as PaulAlbert31/RandLoRA and as huggingface/peft's
/// RandLoRA. Alpha is twice the rank in the paper's runs, and 20 times in peft, which has no root of n in its scale:
/// an alpha tuned for one does not fit the other. The releases draw their matrices with PyTorch's generator: to read
/// their checkpoints, make the bases from the A and B that they hold, with `flattened`.
struct RandloraOptions {
  double alpha = 64;
  bool over_root_of_bases = true;  ///< scale alpha / (r sqrt(n)); false: alpha / r
  BasisPairing pairing = BasisPairing::formula;
  double dropout = 0;  ///< on the adapter's input
};

/// y = W x + b + s sum_b B_b^T (lambda_b o (A (gamma_b o x))), or the transpose for fewer outputs than inputs, with A
/// and B_b of `bases`, whose sides must be as large as the base's. Layers of one model are given one:
///     std::make_shared<const DiagonalBases<float>>(...)
template <BasePolicy Base, class Generator, class Execution = DefaultExecution>
auto randlora(const RandloraOptions& options, std::shared_ptr<const DiagonalBases<typename Base::Scalar>> bases,
              Base base, Generator& generator, Execution execution = {}) {
  using T = typename Base::Scalar;
  MapExperts<DiagonalMixture<T>> experts({.in = base.in(),
                                          .out = base.out(),
                                          .bases = std::move(bases),
                                          .pairing = options.pairing,
                                          .alpha = options.alpha,
                                          .over_root_of_bases = options.over_root_of_bases,
                                          .dropout = {.rate = options.dropout, .stream = 1}},
                                         generator);
  return one_adapter(std::move(experts), std::move(base), std::move(execution));
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
