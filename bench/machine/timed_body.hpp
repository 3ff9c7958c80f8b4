// SPDX-License-Identifier: MIT
// TimedBody: something that is timed in short slices, in turn with others.
#pragma once

#include "bench/machine/clock.hpp"

#include <algorithm>
#include <cmath>
#include <functional>
#include <utility>

namespace bench {

/// A body and how often it runs in one slice of time.
///
/// The machine's speed drifts with its neighbors. Two bodies that take turns, slice by slice, see the same drift, so
/// that the ratio of one round is worth more than that of two long runs.
class TimedBody {
 public:
  /// Runs `body` at least twice, to warm up and to see how long it takes.
  TimedBody(std::function<void()> body, double slice, Clock clock = thread_clock)
      : body_(std::move(body)), clock_(clock) {
    body_();
    const double once = std::max(seconds(), 1e-8);
    if (once >= slice) return;
    calls_ = int(std::min(slice / once, 1e3)) + 1;  // reading the clock may have been most of the first slice
    calls_ = std::max(1, int(std::ceil(slice / std::max(seconds(), 1e-9))));
  }

  /// Of one call: the mean of a slice. Where calls are short, one goes before that is not timed: what took its turn in
  /// between may have driven the operands out of a cache.
  double seconds() const {
    if (calls_ > 1) body_();
    const double begin = clock_();
    for (int i = 0; i < calls_; ++i) body_();
    return (clock_() - begin) / calls_;
  }

 private:
  std::function<void()> body_;
  Clock clock_;
  int calls_ = 1;
};

}  // namespace bench
