// SPDX-License-Identifier: MIT
// loftq_init(): an adapter that makes up for what a coded base loses.
#pragma once

#include "mole/init/leading_directions.hpp"
#include "mole/init/lora_experts.hpp"

#include <concepts>

#include "mole/core/macros_off.hpp"

namespace mole {

/// Which expert starts, and how well it fits.
struct LoftqOptions {
  Index expert = 0;
  int iterations = 1;
  std::optional<Index> power_iterations = {};  ///< of a random projection; unset: an exact decomposition
};

/// In turns:   coded = code(weight - s B A),   s B A = the best update of r ranks for weight - coded.
///
///   weight, coded [O x I], in different memory
///   code(from, to)   writes to `to` what a base of the codes of `from` computes with
///
/// A base of the codes, made from `coded`, is nearer to the weight with this adapter than without. After one iteration
/// the error is at most that of code(weight) alone, if the decomposition is exact; further ones mostly lower it,
/// without guarantee. The release leaves out s, which is right for s = 1 alone; here it is not left out. Throws
/// Error(shape) for other sizes, Error(option) for a scale that is not above 0 and finite, fewer than one iteration, or
/// numbers that are not finite. Cost: leading_directions() an iteration.
/// Source: Li et al. 2023 (LoftQ), arXiv:2310.08659; huggingface/peft, utils/loftq_utils.py.
template <LoraExperts Experts, class Code>
requires std::invocable<Code&, View<const typename Experts::Scalar>, View<typename Experts::Scalar>>
void loftq_init(Experts& experts, View<const typename Experts::Scalar> weight, View<typename Experts::Scalar> coded,
                Code&& code, const LoftqOptions& options = {}) {
  using T = typename Experts::Scalar;
  detail::require_fits("loftq_init", experts, options.expert, weight, coded);
  require(coded && !overlap(weight, View<const T>(coded)), ErrorCode::shape,
          "loftq_init: expected memory of its own for what the base computes with, found none, or the weight's");
  require(options.iterations >= 1, ErrorCode::option, "loftq_init: expected at least 1 iteration, found ",
          options.iterations);
  const double scale = detail::positive_scale("loftq_init", experts, options.expert);
  const Index ranks = experts.blocks().size(options.expert);
  Matrix<T> rest(weight.rows(), weight.cols());
  copy(weight, rest.view());
  for (int i = 0; i < options.iterations; ++i) {
    code(View<const T>(rest), coded);
    for (Index o = 0; o < weight.rows(); ++o)
      for (Index j = 0; j < weight.cols(); ++j) rest(o, j) = weight(o, j) - coded(o, j);
    if (ranks > 0)
      detail::set_directions(
          experts, options.expert,
          leading_directions(View<const T>(rest), {.count = ranks, .power_iterations = options.power_iterations}),
          scale);
    detail::write_residual(experts, options.expert, options.expert + 1, 1, weight, rest.view());
  }
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
