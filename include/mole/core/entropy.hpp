// SPDX-License-Identifier: MIT
// Entropy: the entropy of a token's probabilities, Shannon, Tsallis or Renyi.
#pragma once

#include "mole/core/config.hpp"

#include <cmath>
#include <span>

namespace mole {

/// The families of entropies; at order 1 both are Shannon's.
enum class EntropyFamily { tsallis, renyi };

/// The entropy of the probabilities of one token.
///
///   Tsallis   (1 - sum_e q_e^order) / (order - 1)            at most (1 - E^(1 - order)) / (order - 1)
///   Renyi     log(sum_e q_e^order + offset) / (1 - order)    at most log E
///   Shannon   -sum_e q_e log q_e                             at most log E
///   q_e = p_e + shift
///
/// A shift, as in DynMoLE's release, keeps gradients finite and lets the entropy of a uniform token exceed the maximum
/// slightly. Probabilities that are 0 after the shift add nothing. Order above 0. O(E) powers.
/// Source: Tsallis 1988; Renyi 1961; mikecovlee/DynMoLE for shift and offset.
struct Entropy {
  EntropyFamily family = EntropyFamily::tsallis;
  double order = 1;
  double shift = 0;
  double offset = 0;

  /// The maximum: the entropy of a uniform distribution over `experts`.
  double largest(Index experts) const {
    if (order == 1 || family == EntropyFamily::renyi) return std::log(double(experts));
    return (1 - std::pow(double(experts), 1 - order)) / (order - 1);
  }

  template <class T>
  double operator()(std::span<const T> p) const {
    if (order != 1) return of_powers(powers(p));
    double value = 0;
    for (T one : p)
      if (const double q = double(one) + shift; q > 0) value -= q * std::log(q);
    return value;
  }

  /// Calls f(e, d entropy / d p_e) for every expert with a probability above 0.
  template <class T, class F>
  void derivatives(std::span<const T> p, F f) const {
    // d entropy / d (sum of powers)
    const double outer = order == 1                         ? 0
                         : family == EntropyFamily::tsallis ? -1 / (order - 1)
                                                            : 1 / ((1 - order) * (powers(p) + offset));
    for (std::size_t e = 0; e < p.size(); ++e)
      if (const double q = double(p[e]) + shift; q > 0)
        f(e, order == 1 ? -std::log(q) - 1 : outer * order * std::pow(q, order - 1));
  }

 private:
  template <class T>
  double powers(std::span<const T> p) const {
    double sum = 0;
    for (T one : p)
      if (const double q = double(one) + shift; q > 0) sum += std::pow(q, order);
    return sum;
  }
  double of_powers(double sum) const {
    return family == EntropyFamily::tsallis ? (1 - sum) / (order - 1) : std::log(sum + offset) / (1 - order);
  }
};

}  // namespace mole
