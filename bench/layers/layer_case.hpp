// SPDX-License-Identifier: MIT
// LayerCase: the layers that are measured, apart from their size.
#pragma once

#include "mole/core/config.hpp"

#include <array>
#include <stdexcept>
#include <string>
#include <string_view>

namespace bench {

/// Who decides, and so of which policies the layer is made.
enum class Routed {
  nobody,      ///< no experts: the frozen layer alone
  always,      ///< one expert for all: LoRA
  top_k,       ///< LinearRouter, Gate{Softmax, TopK, Renormalized}
  externally,  ///< all experts, with weights from elsewhere, as in X-LoRA
  top_p,       ///< LinearRouter, Gate{Softmax, TopP, Raw}
  flylora,     ///< SparseProjection, LatentRouter, Gate{Magnitude, TopK, Unit}; chosen / experts of A is not 0
};

/// A layer apart from its d and T: scale 2, a packed base of floats.
struct LayerCase {
  std::string_view name;   ///< in names of benchmarks and in files
  std::string_view title;  ///< in tables
  Routed routed;
  mole::Index experts = 0, rank = 0, chosen = 0;
};

inline constexpr double top_p = 0.75;
inline constexpr double scale = 2;

inline constexpr std::array layer_cases{
    LayerCase{"plain", "plain", Routed::nobody},
    LayerCase{"lora", "one LoRA", Routed::always, 1, 16, 1},
    LayerCase{"top2", "top-2 of 8", Routed::top_k, 8, 16, 2},
    LayerCase{"dense8", "dense 8", Routed::externally, 8, 16, 8},
    LayerCase{"rankwise", "rank-wise 8 of 64", Routed::top_k, 64, 1, 8},
    LayerCase{"flylora", "FlyLoRA 8 of 32", Routed::flylora, 32, 1, 8},
    LayerCase{"topp", "top-p 0.75", Routed::top_p, 8, 16, 8},
};

/// Throws std::out_of_range for a name that no case has.
constexpr const LayerCase& layer_case(std::string_view name) {
  for (const LayerCase& one : layer_cases)
    if (one.name == name) return one;
  throw std::out_of_range("no layer case is called " + std::string(name));
}

}  // namespace bench
