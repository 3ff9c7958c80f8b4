// SPDX-License-Identifier: MIT
// alternating_ratio: the time of one body over that of another, robust against other load on the machine.
#pragma once

#include "bench/machine/quantile.hpp"
#include "bench/machine/timed_body.hpp"

#include <functional>
#include <vector>

namespace bench {

/// Time of `body` over that of `other`: the median of five rounds, in which each takes its turn for a slice of time.
inline double alternating_ratio(const std::function<void()>& body, const std::function<void()>& other, double slice,
                                Clock clock = thread_clock) {
  const TimedBody a(body, slice, clock), b(other, slice, clock);
  std::vector<double> ratios;
  for (int round = 0; round < 5; ++round) {
    const double first = a.seconds();
    ratios.push_back(first / b.seconds());
  }
  return median(ratios);
}

}  // namespace bench
