// SPDX-License-Identifier: MIT
// FixedLinear: a trained layer of sizes known at compile time, for real-time and embedded programs; stands alone.
#pragma once

#include <array>
#include <cmath>
#include <cstddef>

#include "mole/core/macros_off.hpp"

namespace mole {

/// What a gate of FixedLinear makes of the logits of the K chosen experts.
enum class FixedGate {
  renormalized,  ///< their softmax: shares that add up to 1
  raw,           ///< their shares of the softmax over all experts
  unit           ///< 1
};

/// y = W x + b + sum over the K largest of R x + c of g_e B_e A_e x, one token at a time: what `freeze` makes of a LoRA
/// (one expert) or of a mixture with a linear router, forward alone.
///
///   In inputs, Out outputs, Rank ranks of each of Experts experts, K chosen; x In numbers, y Out numbers, apart from x
///
/// Holds its numbers itself: default-made it is all zeros, it is copied like a number, and it needs neither heap, nor
/// exceptions, nor run-time type information, nor threads. forward() takes the same time for every x, except for the
/// exponentials. Results differ from the layer's in rounding alone, by at most (In + K Rank + 8) times the machine's
/// epsilon times the sum of the terms' sizes. Of equal logits the lower expert is chosen; a logit that is NaN is below
/// all others.
///
/// A compiler makes vector instructions of the loops from -O2 (g++ 12: -O3) on; a multiple of 4 for Out and Rank suits
/// them best.
template <class T, std::size_t In, std::size_t Out, std::size_t Rank, std::size_t Experts = 1, std::size_t K = 1>
class FixedLinear {
  static_assert(In >= 1 && Out >= 1 && Rank >= 1 && Experts >= 1);
  static_assert(1 <= K && K <= Experts, "mole: FixedLinear: K from 1 to Experts");

 public:
  using Scalar = T;
  static constexpr std::size_t inputs = In, outputs = Out, rank = Rank, experts = Experts, chosen = K;

  template <std::size_t Rows, std::size_t Cols>
  using Table = std::array<std::array<T, Cols>, Rows>;

  /// All numbers, each table with a row per input, or per rank: transposed, so that sums run across the outputs.
  struct Numbers {
    Table<In, Out> weight{};                      ///< W^T
    std::array<T, Out> bias{};                    ///< b
    Table<In, Experts> router{};                  ///< R^T
    std::array<T, Experts> router_bias{};         ///< c
    std::array<Table<In, Rank>, Experts> down{};  ///< A_e^T
    std::array<Table<Rank, Out>, Experts> up{};   ///< s_e B_e^T
    FixedGate gate = Experts > 1 ? FixedGate::renormalized : FixedGate::unit;
  };
  Numbers numbers{};

  void forward(const T* x, T* y) const noexcept {
    std::array<T, Out> sum = numbers.bias;
    add_product(numbers.weight, x, sum);
    std::array<std::size_t, K> experts_of_x{};
    std::array<T, K> gates;
    gates.fill(T(1));
    if constexpr (Experts > 1) choose(x, experts_of_x, gates);
    for (std::size_t j = 0; j < K; ++j) {
      const auto e = experts_of_x[j];
      std::array<T, Rank> h{};
      add_product(numbers.down[e], x, h);
      for (T& number : h) number *= gates[j];
      add_product(numbers.up[e], h.data(), sum);
    }
    for (std::size_t o = 0; o < Out; ++o) y[o] = sum[o];
  }

 private:
  /// sum += table^T x, in tiles of columns that stay in registers.
  template <std::size_t Rows, std::size_t Cols>
  static void add_product(const std::array<std::array<T, Cols>, Rows>& table, const T* x, std::array<T, Cols>& sum) {
    constexpr std::size_t tile = 256 / sizeof(T), whole = Cols / tile * tile;
    for (std::size_t first = 0; first < whole; first += tile) add_tile<tile>(table, first, x, sum);
    if constexpr (whole < Cols) add_tile<Cols - whole>(table, whole, x, sum);
  }

  /// The columns from `first` on. Of few columns there are several sums of every so many rows, as the products of one
  /// wait for each other.
  template <std::size_t Width, std::size_t Rows, std::size_t Cols>
  static void add_tile(const std::array<std::array<T, Cols>, Rows>& table, std::size_t first, const T* x,
                       std::array<T, Cols>& sum) {
    constexpr std::size_t sums = Rows < 8 ? 1 : Width * sizeof(T) <= 64 ? 4 : Width * sizeof(T) <= 128 ? 2 : 1;
    for (std::size_t part = 0; part < sums; ++part) {
      std::array<T, Width> products{};
      for (std::size_t i = part; i < Rows; i += sums)
        for (std::size_t o = 0; o < Width; ++o) products[o] += table[i][first + o] * x[i];
      for (std::size_t o = 0; o < Width; ++o) sum[first + o] += products[o];
    }
  }

  void choose(const T* x, std::array<std::size_t, K>& best, std::array<T, K>& gates) const {
    std::array<T, Experts> logits = numbers.router_bias;
    add_product(numbers.router, x, logits);
    std::array<bool, Experts> taken{};
    for (std::size_t j = 0; j < K; ++j) {
      std::size_t found = Experts;
      for (std::size_t e = 0; e < Experts; ++e)
        if (!taken[e] && (found == Experts || logits[e] > logits[found] ||
                          (logits[found] != logits[found] && logits[e] == logits[e])))
          found = e;
      taken[found] = true;
      best[j] = found;
    }
    if (numbers.gate == FixedGate::unit) return;
    const T most = logits[best[0]];
    T total = 0;
    for (std::size_t j = 0; j < K; ++j) total += gates[j] = std::exp(logits[best[j]] - most);
    if (numbers.gate == FixedGate::raw)
      for (std::size_t e = 0; e < Experts; ++e)
        if (!taken[e] && logits[e] == logits[e]) total += std::exp(logits[e] - most);
    for (T& gate : gates) gate /= total;
  }
};

}  // namespace mole

#include "mole/core/macros_on.hpp"
