// SPDX-License-Identifier: MIT
// LayerRow: a row of a table of layers, one layer at one size next to the plain layer.
#pragma once

#include "bench/layers/bench_layer.hpp"
#include "bench/machine/clock.hpp"

#include <benchmark/benchmark.h>

#include <functional>
#include <optional>
#include <string>

namespace bench {

/// What is timed, and on how many threads.
struct LayerRow {
  LayerCase one;
  Index tokens, d;
  int threads = 1;
  bool backward = false;                ///< forward and backward, else forward alone
  std::optional<LayerCase> rival = {};  ///< another layer to compare with

  std::string name() const;
  Clock clock() const { return threads == 1 ? thread_clock : wall_clock; }
  Work work(const LayerCost& cost) const { return backward ? cost.forward_backward() : cost.forward(); }
  const std::function<void()>& body(const BenchLayer& layer) const {
    return backward ? layer.forward_backward : layer.forward;
  }
};

/// Registers a benchmark with counters
///
///   tokens/s, GFLOP/s   of one thread's CPU time; of wall time where there are several
///   roofline            the least time that so many threads of this machine could take, over the time taken
///   plain               the time over that of the plain layer of the same T, d and threads, in alternating slices
///   ideal               what `plain` would be, were both as fast as the machine at arithmetic
///   over_<rival>        the time over that of the rival, where there is one, in alternating slices
void add_layer_row(const LayerRow& row);

/// Sets those counters from the seconds of one run. The roofline is that of one thread unless there are more.
void report_layer(benchmark::State& state, const Work& work, double seconds, double over_plain, double ideal,
                  int threads = 1);

/// The loop of Google Benchmark; seconds of one call.
double seconds_of(benchmark::State& state, const std::function<void()>& body, Clock clock);

/// How long a slice of each of two bodies is, where both together shall take about as long as the loop did.
inline double slice_of(const benchmark::State& state, double seconds) {
  return seconds * double(state.iterations()) / 5;
}

}  // namespace bench
