// SPDX-License-Identifier: MIT
// MoLA's other half: how many experts each layer of a model has.
#pragma once

#include "mole/core/config.hpp"
#include "mole/core/error.hpp"

#include <array>
#include <vector>

namespace mole {

/// How experts are spread from the bottom of a model to its top.
enum class MolaShape {
  inverted_triangle,  ///< 2, 4, 6, 8: most at the top, the published best
  triangle,           ///< 8, 6, 4, 2
  hourglass,          ///< 8, 2, 2, 8
  rectangle,          ///< 5, 5, 5, 5
};

/// The experts of each of `layers` layers, bottom first: a quarter of the layers after the other. Equal totals for all
/// shapes where 4 divides `layers`; else the lower quarters have one layer less or more than the others.
/// Throws Error(option) for less than 0 layers. Source: Gao et al. 2024 (MoLA), arXiv:2402.08562, 3.2.
inline std::vector<int> mola_allocation(MolaShape shape, Index layers) {
  require(layers >= 0, ErrorCode::option, "mola_allocation: expected at least 0 layers, found ", layers);
  constexpr std::array<std::array<int, 4>, 4> quarters{{{2, 4, 6, 8}, {8, 6, 4, 2}, {8, 2, 2, 8}, {5, 5, 5, 5}}};
  std::vector<int> experts;
  for (Index layer = 0; layer < layers; ++layer)
    experts.push_back(quarters[std::size_t(shape)][std::size_t(layer * 4 / layers)]);
  return experts;
}

}  // namespace mole
