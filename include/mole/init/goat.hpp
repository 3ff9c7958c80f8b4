// SPDX-License-Identifier: MIT
// goat_init(): each expert starts from singular directions of its own.
#pragma once

#include "mole/core/svd.hpp"
#include "mole/init/lora_experts.hpp"

#include <cmath>

#include "mole/core/macros_off.hpp"

namespace mole {

/// Which directions the experts take, of k = min(O, I) in descending order.
enum class GoatDirections {
  segments,      ///< the first r of each expert's segment of k / E ("goat")
  segment_ends,  ///< the last r of each expert's segment ("goat_mini")
  leading,       ///< the first E r, in order ("pissa")
  trailing,      ///< the last E r, in order ("milora")
  both_ends,     ///< the first E r / 2 and the last E r / 2 ("pissa_milora")
};

/// How the experts of a mixture share the directions of the weight.
struct GoatInitOptions {
  GoatDirections directions = GoatDirections::segments;
  double rho = 10;   ///< sigma is divided by s rho
  double share = 1;  ///< of the experts' updates that is taken from the weight ("init_cof")
};

/// With weight = U diag(sigma) V^T, and the directions of each expert e, of r ranks and scale s:   B_e = U_e
/// sqrt(sigma_e / (s rho)),   A_e = sqrt(sigma_e / (s rho)) V_e^T,   residual = weight - share s sum_e B_e A_e.
///
///   weight, residual [O x I]; they may be the same memory, and an empty residual is not wanted
///
/// With share = 1 and gates of 1, a base of the residual computes with these experts what a base of the weight does;
/// under gates that sum to 1 it is off by what the routing leaves out, as published. Throws Error(shape) for other
/// sizes, Error(option) for experts of different ranks or scales, a scale or rho that is not above 0, more ranks than
/// directions, or numbers that are not finite; then nothing has changed. Cost: svd().
/// Source: Fan et al. 2025 (GOAT), arXiv:2502.16894; Facico/GOAT-PEFT, goat/layer.py.
template <LoraExperts Experts>
void goat_init(Experts& experts, View<const typename Experts::Scalar> weight, View<typename Experts::Scalar> residual,
               const GoatInitOptions& options = {}) {
  detail::require_fits("goat_init", experts, 0, weight, residual);
  const Index count = experts.experts(), ranks = experts.blocks().size(0), all = count * ranks;
  const double scale = detail::positive_scale("goat_init", experts, 0);
  require(options.rho > 0 && std::isfinite(options.rho) && std::isfinite(options.share), ErrorCode::option,
          "goat_init: expected a finite rho above 0 and a finite share, found ", options.rho, " and ", options.share);
  for (Index e = 1; e < count; ++e)
    require(experts.blocks().size(e) == ranks && double(experts.scale()[std::size_t(e)]) == scale, ErrorCode::option,
            "goat_init: expected experts of one rank and scale, found ", experts.blocks().size(e), " and ",
            double(experts.scale()[std::size_t(e)]), " of expert ", e, ", ", ranks, " and ", scale, " of expert 0");
  const Index directions = std::min(experts.in(), experts.out()), segment = directions / count;
  const bool in_segments =
      options.directions == GoatDirections::segments || options.directions == GoatDirections::segment_ends;
  require(in_segments ? ranks <= segment : all <= directions, ErrorCode::option, "goat_init: expected at most ",
          in_segments ? segment : directions, " ranks of ", in_segments ? "an expert" : "all experts", ", found ",
          in_segments ? ranks : all);
  const auto direction_of = [&](Index e, Index j) {
    const Index number = e * ranks + j;
    switch (options.directions) {
      case GoatDirections::segments:
        return e * segment + j;
      case GoatDirections::segment_ends:
        return (e + 1) * segment - ranks + j;
      case GoatDirections::leading:
        return number;
      case GoatDirections::trailing:
        return directions - all + number;
      case GoatDirections::both_ends:
        break;
    }
    return number < all / 2 ? number : directions - all + number;
  };
  const Svd<double> found = svd(detail::converted<double>(weight));
  for (Index e = 0; e < count; ++e)
    for (Index j = 0; j < ranks; ++j) {
      const Index direction = direction_of(e, j);
      const double root = std::sqrt(found.s[std::size_t(direction)] / (scale * options.rho));
      detail::set_rank(experts, e, j, found.v, direction, root, found.u, direction, root);
    }
  detail::write_residual(experts, 0, count, options.share, weight, residual);
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
