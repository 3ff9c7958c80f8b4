// SPDX-License-Identifier: MIT
// oft(): OFT, a trained rotation of the input.
#pragma once

#include "mole/base/dense_base.hpp"
#include "mole/core/lasting_view.hpp"
#include "mole/expert/map_experts.hpp"
#include "mole/maps/block_rotation.hpp"
#include "mole/method/one_adapter.hpp"

#include "mole/core/macros_off.hpp"

namespace mole {

/// Qiu et al. 2023 (OFT), arXiv:2306.07280; released as huggingface/peft's OFT.
struct OftOptions {
  Index block = 32;           ///< inputs that are rotated together
  bool shared_block = false;  ///< one rotation for all blocks
  RotationForm form = RotationForm::neumann;
  Index terms = 5;     ///< of the series
  double dropout = 0;  ///< on the input that is rotated; the release drops whole blocks
};

/// y = W (R^T x) + b, with R of rotations of `block` inputs each.
///
///   weight [O x I]
///
/// `weight` is that of the base, in memory that outlives the layer. Throws Error(option) unless the inputs are a
/// multiple of the block.
template <BasePolicy Base, class Generator, class Execution = DefaultExecution>
auto oft(const OftOptions& options, LastingView<const typename Base::Scalar> weight, Base base, Generator& generator,
         Execution execution = {}) {
  using T = typename Base::Scalar;
  MapExperts<BlockRotation<T>> experts({.in = base.in(),
                                        .out = base.out(),
                                        .block = options.block,
                                        .shared_block = options.shared_block,
                                        .weight = weight,
                                        .form = options.form,
                                        .terms = options.terms,
                                        .dropout = {.rate = options.dropout, .stream = 1}},
                                       generator);
  return one_adapter(std::move(experts), std::move(base), std::move(execution));
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
