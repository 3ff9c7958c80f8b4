// SPDX-License-Identifier: MIT
// Scaling: the factor that multiplies a LoRA product, from alpha and the rank.
#pragma once

#include "mole/core/config.hpp"
#include "mole/core/error.hpp"
#include "mole/core/float_range.hpp"

#include <cmath>
#include <optional>
#include <string_view>

#include "mole/core/macros_off.hpp"

namespace mole {

/// How an expert's scale follows from alpha and its rank r.
enum class Scaling {
  alpha_over_rank,       ///< alpha / r: Hu et al. 2021, arXiv:2106.09685
  alpha_over_sqrt_rank,  ///< alpha / sqrt(r): Kalajdzievski 2023 (rsLoRA), arXiv:2312.03732
  fixed,                 ///< alpha itself
};

/// The scale of an expert of `rank` ranks; 0 for an expert without ranks.
inline double scale_of(double alpha, Index rank, Scaling scaling) {
  if (rank == 0) return 0;
  switch (scaling) {
    case Scaling::alpha_over_rank:
      return alpha / double(rank);
    case Scaling::alpha_over_sqrt_rank:
      return alpha / std::sqrt(double(rank));
    case Scaling::fixed:
      break;
  }
  return alpha;
}

namespace detail {
/// Throws Error(option), naming `who`, unless an alpha that is set is 0, or of size 1e-30 to 1e30.
inline void require_alpha(std::string_view who, std::optional<double> alpha) {
  require(!alpha || *alpha == 0 || in_float_range(*alpha), ErrorCode::option, who,
          ": expected an alpha of 0, or of size 1e-30 to 1e30, found ", alpha.value_or(1));
}
}  // namespace detail

}  // namespace mole

#include "mole/core/macros_on.hpp"
