// SPDX-License-Identifier: MIT
// seconds_per_run: the loop of every benchmark.
#pragma once

#include <benchmark/benchmark.h>

#include <ctime>

namespace bench {

/// Runs `body` as often as `state` asks for, and returns its seconds of CPU time, from which counters are made: those
/// that Google Benchmark divides by the time itself are printed as "0.9/s", which a fraction is not.
template <class F>
double seconds_per_run(benchmark::State& state, F body) {
  const std::clock_t begin = std::clock();
  for (auto _ : state) {
    body();
    benchmark::ClobberMemory();
  }
  return double(std::clock() - begin) / CLOCKS_PER_SEC / double(state.iterations());
}

}  // namespace bench
