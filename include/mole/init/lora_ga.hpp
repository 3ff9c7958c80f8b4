// SPDX-License-Identifier: MIT
// lora_ga_init(): an adapter whose first steps follow the gradient of the weight.
#pragma once

#include "mole/init/leading_directions.hpp"
#include "mole/init/lora_experts.hpp"

#include <cmath>

#include "mole/core/macros_off.hpp"

namespace mole {

/// Which of the first 2 r directions A and B take.
enum class LoraGaDirections {
  interleaved,  ///< A the odd right ones, B the even left ones ("ArBr")
  a_after_b,    ///< A right r .. 2 r - 1, B left 0 .. r - 1 ("A2rBr")
  b_after_a,    ///< A right 0 .. r - 1, B left r .. 2 r - 1 ("ArB2r")
};

/// What A and B are multiplied by.
enum class LoraGaScale {
  stable,      ///< B by O^(1/4) / sqrt(gamma)
  weight,      ///< B by sigma_1 of the weight over that of B's first direction ("weight_svd")
  over_scale,  ///< A and B by 1 / s ("gd_scale")
  unit,        ///< nothing
};

/// Which expert starts, from which directions of the gradient, at what scale.
struct LoraGaOptions {
  Index expert = 0;
  LoraGaDirections directions = LoraGaDirections::interleaved;
  LoraGaScale scale = LoraGaScale::stable;
  double gamma = 16;
  std::optional<Index> power_iterations = {};  ///< of a random projection, 4 in the release; unset: exact
};

/// From gradient = U diag(sigma) V^T, its first 2 r directions:   rows of A are right vectors, rows of B are left ones
/// times their sigma, as `directions` and `scale` say;   residual = weight - s B A.
///
///   weight, gradient, residual [O x I]; weight and residual may be the same memory, and an empty residual is not
///   wanted
///
/// The gradient is that of a loss by the weight, averaged over some batches. The vectors of a rank come from different
/// pairs, so that the sign of its product is arbitrary. A base of the residual, with this adapter, computes what a base
/// of the weight does, up to rounding. Ranks for which there is no direction become 0. Throws Error(shape) for other
/// sizes, Error(option) for a scale or gamma of 0 or less, or numbers that are not finite; then nothing has changed.
/// Cost: leading_directions() of the gradient, and of the weight for LoraGaScale::weight.
/// Source: Wang et al. 2024 (LoRA-GA), arXiv:2407.05000; huggingface/peft, tuners/lora/layer.py, lora_ga_init.
template <LoraExperts Experts>
void lora_ga_init(Experts& experts, View<const typename Experts::Scalar> weight,
                  View<const typename Experts::Scalar> gradient, View<typename Experts::Scalar> residual,
                  const LoraGaOptions& options = {}) {
  detail::require_fits("lora_ga_init", experts, options.expert, weight, residual);
  detail::require_fits("lora_ga_init: as a gradient", experts, options.expert, gradient, {});
  require(options.gamma > 0 && std::isfinite(options.gamma), ErrorCode::option,
          "lora_ga_init: expected a finite gamma above 0, found ", options.gamma);
  detail::exponent_of("lora_ga_init: weight", weight);  // throws unless all numbers are finite
  const double scale = detail::positive_scale("lora_ga_init", experts, options.expert);
  const Index ranks = experts.blocks().size(options.expert);
  if (ranks > 0) {
    const Svd<double> found =
        leading_directions(gradient, {.count = 2 * ranks, .power_iterations = options.power_iterations});
    const auto direction_of_a = [&](Index j) {
      return options.directions == LoraGaDirections::interleaved ? 2 * j + 1
             : options.directions == LoraGaDirections::a_after_b ? ranks + j
                                                                 : j;
    };
    const auto direction_of_b = [&](Index j) {
      return options.directions == LoraGaDirections::interleaved ? 2 * j
             : options.directions == LoraGaDirections::b_after_a ? ranks + j
                                                                 : j;
    };
    double of_a = 1, of_b = 1;
    switch (options.scale) {
      case LoraGaScale::stable:
        of_b = std::sqrt(std::sqrt(double(experts.out())) / options.gamma);
        break;
      case LoraGaScale::weight: {
        const auto first = std::size_t(direction_of_b(0));
        const double largest =
            leading_directions(weight, {.count = 1, .power_iterations = options.power_iterations}).s[0];
        of_b = first < found.s.size() && found.s[first] > 0 ? largest / found.s[first] : 0;
        break;
      }
      case LoraGaScale::over_scale:
        of_a = of_b = 1 / scale;
        break;
      case LoraGaScale::unit:
        break;
    }
    for (Index j = 0; j < ranks; ++j) {
      const Index a = direction_of_a(j), b = direction_of_b(j);
      if (std::max(a, b) < Index(found.s.size()))
        detail::set_rank(experts, options.expert, j, found.v, a, of_a, found.u, b, of_b * found.s[std::size_t(b)]);
      else
        detail::set_rank_to_zero(experts, options.expert, j);
    }
  }
  detail::write_residual(experts, options.expert, options.expert + 1, 1, weight, residual);
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
