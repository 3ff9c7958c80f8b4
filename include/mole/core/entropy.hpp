// SPDX-License-Identifier: MIT
// Entropy: the entropy of a token's probabilities, Shannon, Tsallis or Renyi.
#pragma once

#include "mole/core/config.hpp"
#include "mole/core/error.hpp"

#include <cmath>
#include <span>
#include <string_view>

#include "mole/core/macros_off.hpp"

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
/// slightly. Probabilities that are 0 after the shift add nothing. O(E) powers.
/// Source: Tsallis 1988; Renyi 1961; mikecovlee/DynMoLE for shift and offset.
struct Entropy {
  EntropyFamily family = EntropyFamily::tsallis;
  double order = 1;
  double shift = 0;
  double offset = 0;

  /// Throws Error(option) unless the order is 1, or from 1e-3 to 1e3 and 1e-3 away from it, where differences of powers
  /// of float have digits, and shift and offset are from 0 to 1.
  void check(std::string_view who) const {
    require(order == 1 || (order >= 1e-3 && order <= 1e3 && std::abs(order - 1) >= 1e-3), ErrorCode::option, who,
            ": expected an entropy of order 1, or from 0.001 to 0.999 or 1.001 to 1000, found ", order);
    require(shift >= 0 && shift <= 1 && offset >= 0 && offset <= 1, ErrorCode::option, who,
            ": expected a shift and an offset of the entropy from 0 to 1, found ", shift, " and ", offset);
  }

  /// The maximum: the entropy of a uniform distribution over `experts`.
  double largest(Index experts) const {
    if (order == 1 || family == EntropyFamily::renyi) return std::log(double(experts));
    return (1 - std::pow(double(experts), 1 - order)) / (order - 1);
  }

  template <class T>
  double operator()(std::span<const T> p) const {
    return (*this)(p, [](std::size_t) { return true; });
  }
  /// Of the experts that take_part(e) alone.
  template <class T, class TakePart>
  double operator()(std::span<const T> p, TakePart take_part) const {
    if (order != 1) return of_powers(powers(p, take_part));
    return -sum_of(p, take_part, [](double q) { return q * std::log(q); });
  }

  /// Calls f(e, d entropy / d p_e) for every expert with a probability above 0 ...
  template <class T, class F>
  void derivatives(std::span<const T> p, F f) const {
    derivatives(
        p, [](std::size_t) { return true; }, f);
  }
  /// ... that takes part.
  template <class T, class TakePart, class F>
  void derivatives(std::span<const T> p, TakePart take_part, F f) const {
    // d entropy / d (sum of powers)
    const double outer = order == 1                         ? 0
                         : family == EntropyFamily::tsallis ? -1 / (order - 1)
                                                            : 1 / ((1 - order) * (powers(p, take_part) + offset));
    for (std::size_t e = 0; e < p.size(); ++e)
      if (const double q = double(p[e]) + shift; q > 0 && take_part(e))
        f(e, order == 1 ? -std::log(q) - 1 : outer * order * std::pow(q, order - 1));
  }

 private:
  /// The sum of f(q_e) over those above 0 that take part.
  template <class T, class TakePart, class F>
  double sum_of(std::span<const T> p, TakePart take_part, F f) const {
    double sum = 0;
    for (std::size_t e = 0; e < p.size(); ++e)
      if (const double q = double(p[e]) + shift; q > 0 && take_part(e)) sum += f(q);
    return sum;
  }
  template <class T, class TakePart>
  double powers(std::span<const T> p, TakePart take_part) const {
    return sum_of(p, take_part, [&](double q) { return std::pow(q, order); });
  }
  double of_powers(double sum) const {
    return family == EntropyFamily::tsallis ? (1 - sum) / (order - 1) : std::log(sum + offset) / (1 - order);
  }
};

}  // namespace mole

#include "mole/core/macros_on.hpp"
