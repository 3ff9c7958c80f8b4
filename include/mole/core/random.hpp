// SPDX-License-Identifier: MIT
// Rng: counter-based random numbers, the same bits on every platform, in any order, on any number of threads.
#pragma once

#include "mole/core/mix_bits.hpp"
#include "mole/core/view.hpp"

#include <cmath>
#include <cstdint>
#include <numbers>
#include <random>
#include <span>

#include "mole/core/macros_off.hpp"

namespace mole {

/// The top 53 bits of `bits` as a number in [0, 1).
constexpr double unit_interval(std::uint64_t bits) {
  return double(bits >> 11) * 0x1p-53;
}

/// A generator for initial values. Its whole state is one counter, so a checkpoint can hold it.
class Rng {
 public:
  using result_type = std::uint64_t;

  explicit Rng(std::uint64_t seed = 0) : counter_(mix_bits(seed)) {}

  static constexpr result_type min() { return 0; }
  static constexpr result_type max() { return ~result_type(0); }
  result_type operator()() { return mix_bits(counter_++); }

  std::uint64_t counter() const { return counter_; }
  void set_counter(std::uint64_t counter) { counter_ = counter; }

 private:
  std::uint64_t counter_;
};

/// Fills `view` with draws from U(-bound, bound). Written out because the distributions of `<random>` differ between
/// standard libraries.
template <class T, std::uniform_random_bit_generator Generator>
void fill_uniform(View<T> view, double bound, Generator& generator) {
  static_assert(Generator::max() - Generator::min() == ~std::uint64_t(0), "fill_uniform: expected a 64-bit generator");
  for (Index r = 0; r < view.rows(); ++r)
    for (T& element : view.row(r)) element = T((2 * unit_interval(generator()) - 1) * bound);
}

/// Fills `to` with draws from U(-bound, bound) for the columns from `first` on, an even one, of the row of this key.
/// Any part of a row, made at any time, has the same bits.
template <class T>
void fill_uniform_columns(std::uint64_t row, Index first, double bound, std::span<T> to) {
  const T factor = T(bound * 0x1p-31);
  for (std::size_t c = 0; c < to.size(); c += 2) {
    const std::uint64_t bits = mix_bits(row + (std::uint64_t(first) + c) / 2);
    to[c] = T(std::int32_t(bits)) * factor;
    if (c + 1 < to.size()) to[c + 1] = T(std::int32_t(bits >> 32)) * factor;
  }
}

/// A draw from N(0, 1) by the Box-Muller method, from two numbers of the generator.
template <std::uniform_random_bit_generator Generator>
double standard_normal(Generator& generator) {
  static_assert(Generator::max() - Generator::min() == ~std::uint64_t(0),
                "standard_normal: expected a 64-bit generator");
  const double radius = std::sqrt(-2 * std::log(1 - unit_interval(generator())));
  return radius * std::cos(2 * std::numbers::pi * unit_interval(generator()));
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
