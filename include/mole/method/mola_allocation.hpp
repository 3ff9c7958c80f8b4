// SPDX-License-Identifier: MIT
// mola_allocation(): MoLA's number of experts for each layer of a model.
#pragma once

#include "mole/core/config.hpp"
#include "mole/core/error.hpp"

#include <array>
#include <vector>

#include "mole/core/macros_off.hpp"

namespace mole {

/// The distribution of experts over the layers of a model, bottom first.
enum class MolaShape {
  inverted_triangle,  ///< 2, 4, 6, 8: most at the top, the published best
  triangle,           ///< 8, 6, 4, 2
  hourglass,          ///< 8, 2, 2, 8
  rectangle,          ///< 5, 5, 5, 5
};

/// The number of experts of each of `layers` layers, bottom first, one value per quarter of the layers. All shapes have
/// equal totals if 4 divides `layers`; else the lower quarters have one layer less or more than the others.
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

#include "mole/core/macros_on.hpp"
