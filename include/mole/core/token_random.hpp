// SPDX-License-Identifier: MIT
// TokenRandom: random numbers of one token of a pass, the same on any number of threads and in batches of any size.
#pragma once

#include "mole/core/pass.hpp"
#include "mole/core/random.hpp"

#include <cmath>
#include <numbers>

#include "mole/core/macros_off.hpp"

namespace mole {

/// A function of (seed, layer, step, token, stream) and of the number of a draw, hashed once for the token: each draw
/// costs one more hash. Draws of other numbers, tokens or streams look independent of each other.
/// Source: counter-based keys as in Salmon et al. 2011.
class TokenRandom {
 public:
  TokenRandom(const Pass& pass, std::uint64_t stream, Index token)
      : key_(mix_bits(mix_bits(mix_bits(mix_bits(pass.seed) ^ pass.layer) ^ pass.step) ^ stream)) {
    key_ = mix_bits(key_ ^ (pass.first_token + std::uint64_t(token)));
  }

  std::uint64_t bits(Index draw) const { return mix_bits(key_ ^ std::uint64_t(draw)); }
  /// From U(0, 1), neither 0 nor 1.
  double uniform(Index draw) const { return (double(bits(draw) >> 11) + 0.5) * 0x1p-53; }
  /// From N(0, 1) by the Box-Muller method; takes the uniform draws 2 draw and 2 draw + 1.
  double normal(Index draw) const {
    return std::sqrt(-2 * std::log(uniform(2 * draw))) * std::cos(2 * std::numbers::pi * uniform(2 * draw + 1));
  }
  /// From the standard Gumbel distribution: the argmax of logits with such noise is a sample of their softmax.
  double gumbel(Index draw) const { return -std::log(-std::log(uniform(draw))); }

 private:
  std::uint64_t key_;
};

}  // namespace mole

#include "mole/core/macros_on.hpp"
