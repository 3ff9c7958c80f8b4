// SPDX-License-Identifier: MIT
// MultiplyAdds: as many multiply-adds as the machine can do.
#pragma once

#include "mole/kernel/vector.hpp"

#include <algorithm>
#include <numeric>

namespace bench {

/// Chains of multiply-adds held in registers, with the instruction set of the compiler's flags.
template <class T>
struct MultiplyAdds {
  int rounds;

  double flops() const { return 2.0 * double(Vector::size) * chains * double(rounds); }

  T operator()() const {
    // Not DoNotOptimize(half): in 1.7.1 with g++ 12 it leaves a float unset, and denormals are 250 times slower.
    const volatile T half = T(0.5);
    const Vector factor(half), term(half);
    Vector sums[chains];
    std::fill_n(sums, chains, term);
    for (int r = 0; r < rounds; ++r)
      for (Vector& sum : sums) sum = mole::kernel::multiply_add(sum, factor, term);
    return mole::kernel::sum(std::accumulate(sums + 1, sums + chains, sums[0]));
  }

 private:
  using Vector = xsimd::batch<T>;
  static constexpr int chains = 12;  // enough to hide the latency of two units; with both factors, 14 of 16 registers
};

}  // namespace bench
