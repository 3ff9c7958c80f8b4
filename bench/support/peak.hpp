// SPDX-License-Identifier: MIT
// What this machine can do at most, measured rather than looked up.
#pragma once

#include "mole/kernel/simd.hpp"

#include <benchmark/benchmark.h>

#include <algorithm>
#include <ctime>
#include <numeric>
#include <type_traits>
#include <vector>

namespace support {

/// The limits of one thread, with the instruction set of the compiler's flags.
///
///   flops      of multiply-adds held in registers, per second
///   bandwidth  of reading a buffer that fits no cache, bytes per second
///
/// Each is the best of several runs in CPU time, as neighbours can only take away. Measured once a process, which takes
/// about a second and up to 512 MiB. Where the last cache is larger than 128 MiB, some of the buffer stays in it.
template <class T>
class Peak {
 public:
  static const Peak& measured() {
    static const Peak peak;
    return peak;
  }

  double flops = 0;
  double bandwidth = 0;

 private:
  using Batch = xsimd::batch<T>;
  static constexpr std::size_t step = Batch::size;

  Peak();
  static T multiply_adds(int rounds);
  static T read(const std::vector<T>& buffer);

  static constexpr int chains = 12;  // enough to hide the latency of two units; with both factors, 14 of 16 registers

  template <class F>
  static double best_seconds(int runs, F f) {
    double best = 1e9;
    for (int r = 0; r < runs; ++r) {
      const std::clock_t begin = std::clock();
      benchmark::DoNotOptimize(f());
      best = std::min(best, double(std::clock() - begin) / CLOCKS_PER_SEC);
    }
    return best;
  }

  static std::size_t buffer_bytes() {
    std::size_t largest = 0;
    for (const auto& cache : benchmark::CPUInfo::Get().caches) largest = std::max(largest, std::size_t(cache.size));
    return std::clamp<std::size_t>(4 * largest, std::size_t(64) << 20, std::size_t(512) << 20);
  }
};

template <class T>
Peak<T>::Peak() {
  constexpr int rounds = 4'000'000;
  flops = 2.0 * double(step) * chains * rounds / best_seconds(7, [] { return multiply_adds(rounds); });
  const std::vector<T> buffer(buffer_bytes() / sizeof(T), T(1));
  bandwidth = double(buffer.size() * sizeof(T)) / best_seconds(7, [&] { return read(buffer); });
}

template <class T>
T Peak<T>::multiply_adds(int rounds) {
  // Not DoNotOptimize(half): in 1.7.1 with g++ 12 it leaves a float unset, and denormals are 250 times slower.
  const volatile T half = T(0.5);
  const Batch factor(half), term(half);
  Batch sums[chains];
  std::fill_n(sums, chains, term);
  for (int r = 0; r < rounds; ++r)
    for (Batch& sum : sums) sum = mole::kernel::multiply_add(sum, factor, term);
  return mole::kernel::sum(std::accumulate(sums + 1, sums + chains, sums[0]));
}

template <class T>
T Peak<T>::read(const std::vector<T>& buffer) {
  constexpr std::size_t streams = 8;
  Batch sums[streams];
  std::fill_n(sums, streams, Batch(T(0)));
  for (std::size_t i = 0; i + streams * step <= buffer.size(); i += streams * step)
    for (std::size_t s = 0; s < streams; ++s) sums[s] += Batch::load_unaligned(buffer.data() + i + s * step);
  return mole::kernel::sum(std::accumulate(sums + 1, sums + streams, sums[0]));
}

}  // namespace support
