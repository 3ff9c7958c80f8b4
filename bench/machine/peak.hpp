// SPDX-License-Identifier: MIT
// Peak: arithmetic and read bandwidth of one thread of this machine, measured rather than looked up.
#pragma once

#include "bench/machine/clock.hpp"
#include "bench/machine/multiply_adds.hpp"
#include "bench/machine/read_buffer.hpp"

#include <algorithm>
#include <cmath>
#include <map>

namespace bench {

/// The limits of one thread, with the instruction set of the compiler's flags.
///
///   flops()            of multiply-adds held in registers, per second
///   bandwidth(bytes)   of reading as many bytes again and again, per second: from the cache that they stay in, or else
///                      from memory. Weights that fit a cache are as fast as that cache.
///
/// Each is the best of several runs in CPU time, as neighbors can only take away, and is measured once a process;
/// sizes are rounded down to one of sixteen steps between powers of two.
template <class T>
class Peak {
 public:
  static double flops() {
    static const double flops = [] {
      const MultiplyAdds<T> body{2'000'000};
      return body.flops() / best_seconds(15, body);
    }();
    return flops;
  }

  static double bandwidth(double bytes) {
    static std::map<double, double> known;
    const double size = rounded(bytes);
    const auto [found, unknown] = known.try_emplace(size);
    if (unknown) {
      const ReadBuffer<T> buffer{std::size_t(size)};
      const int reads = std::max(1, int(4e6 / size));  // of small buffers several, so that the clock does not count
      const double seconds = best_seconds(25, [&] {
        T sum = 0;
        for (int i = 0; i < reads; ++i) sum += buffer();
        return sum;
      });
      found->second = reads * buffer.bytes() / seconds;
    }
    return found->second;
  }

  /// The size that stands for `bytes`.
  static double rounded(double bytes) {
    const double size = std::max(bytes, 4096.0), grain = std::exp2(std::floor(std::log2(size)) - 4);
    return std::floor(size / grain) * grain;
  }

 private:
  template <class F>
  static double best_seconds(int runs, F f) {
    double best = 1e9;
    for (int r = 0; r < runs; ++r) {
      const double begin = thread_clock();
      const volatile T used = f();
      static_cast<void>(used);
      best = std::min(best, thread_clock() - begin);
    }
    return best;
  }
};

}  // namespace bench
