// SPDX-License-Identifier: MIT
// set_roofline, set_counters: what a benchmark prints besides its time.
#pragma once

#include "bench/machine/peak.hpp"
#include "bench/machine/work.hpp"

#include <benchmark/benchmark.h>

namespace bench {

/// Sets the counters GFLOP/s, where there is arithmetic, and roofline, which is the least time that this machine could
/// take over the time taken.
/// Bandwidth is that of the cache that holds as many bytes as the run touches, since every run touches the same.
template <class T>
void set_roofline(benchmark::State& state, const Work& work, double seconds) {
  if (work.flops > 0) state.counters["GFLOP/s"] = 1e-9 * work.flops / seconds;
  state.counters["roofline"] = work.least_seconds(Peak<T>::flops(), Peak<T>::bandwidth(work.footprint())) / seconds;
}

/// The same, and tokens/s.
template <class T>
void set_counters(benchmark::State& state, const Work& work, double seconds) {
  state.counters["tokens/s"] = work.tokens / seconds;
  set_roofline<T>(state, work, seconds);
}

}  // namespace bench
