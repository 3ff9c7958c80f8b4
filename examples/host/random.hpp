// SPDX-License-Identifier: MIT
#pragma once

// Reproducible random numbers: integer arithmetic only, so that every standard library gives the same bits.

#include <cstdint>

namespace host {

/// The finalizer of splitmix64: a bijection that scatters neighboring counters.
/// Source: Steele, Lea and Flood 2014, doi:10.1145/2660193.2660195.
constexpr std::uint64_t mix(std::uint64_t z) {
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

/// splitmix64: the n-th number is a function of (seed, n) alone.
class Random {
 public:
  explicit constexpr Random(std::uint64_t seed) : state_(mix(seed)) {}

  constexpr std::uint64_t operator()() { return mix(state_ += 0x9e3779b97f4a7c15u); }

  /// Mean 0, variance 1, bell-shaped, within +-3.5: the sum of four uniform numbers of 16 bits each. Box-Muller would
  /// need log and cos, whose last bits differ between C libraries.
  constexpr double normal() {
    const std::uint64_t bits = (*this)();
    double sum = -2.0 * 65535.0;
    for (int shift = 0; shift < 64; shift += 16) sum += static_cast<double>((bits >> shift) & 0xffffu);
    return sum * (1.7320508075688772 / 65536.0);
  }

 private:
  std::uint64_t state_;
};

}  // namespace host
