// SPDX-License-Identifier: MIT
// ReadBuffer: reads memory as fast as the machine can.
#pragma once

#include "bench/machine/clock.hpp"
#include "mole/kernel/vector.hpp"

#include <algorithm>
#include <vector>

namespace bench {

/// A buffer that is read from begin to end, again and again: from the cache that holds it, or from memory.
///
/// In four streams, which were up to 12 % faster than one, and as fast as eight or sixteen. Whether asking ahead helps
/// differs from machine to machine, and is found out at construction.
template <class T>
class ReadBuffer {
 public:
  explicit ReadBuffer(std::size_t bytes) : numbers_(std::max(bytes / sizeof(T), 8 * step), T(1)) {
    double seconds[2] = {1e9, 1e9};
    for (int run = 0; run < 3; ++run)
      for (const bool asks : {false, true}) {
        asks_ahead_ = asks;
        const double begin = thread_clock();
        const volatile T used = (*this)();
        static_cast<void>(used);
        seconds[asks] = std::min(seconds[asks], thread_clock() - begin);
      }
    asks_ahead_ = seconds[1] < seconds[0];
  }

  double bytes() const { return double(numbers_.size() * sizeof(T)); }

  /// Reads all; returns a number that depends on it.
  T operator()() const { return asks_ahead_ ? read<true>() : read<false>(); }

 private:
  using Vector = xsimd::batch<T>;
  static constexpr std::size_t step = Vector::size;

  template <bool Asks>
  T read() const {
    constexpr std::size_t streams = 4, vectors = 2;  // of a stream at once
    const std::size_t length = numbers_.size() / streams / (vectors * step) * (vectors * step);
    Vector sums[streams * vectors];
    std::fill_n(sums, streams * vectors, Vector(T(0)));
    for (std::size_t i = 0; i < length; i += vectors * step)
      for (std::size_t s = 0; s < streams; ++s) {
        const T* const at = numbers_.data() + s * length + i;
        if constexpr (Asks)
          for (std::size_t v = 0; v < vectors; ++v) mole::kernel::prefetch(at + 512 + v * step);
        for (std::size_t v = 0; v < vectors; ++v) sums[s * vectors + v] += Vector::load_unaligned(at + v * step);
      }
    for (std::size_t i = 1; i < streams * vectors; ++i) sums[0] += sums[i];
    return mole::kernel::sum(sums[0]);
  }

  std::vector<T> numbers_;
  bool asks_ahead_ = false;
};

}  // namespace bench
