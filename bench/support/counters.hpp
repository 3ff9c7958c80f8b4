// SPDX-License-Identifier: MIT
// What a benchmark says beside its time.
#pragma once

#include "bench/support/peak.hpp"

namespace support {

/// What one run has to do at least: every operand is read once, every result written once.
struct Work {
  double tokens = 0;
  double flops = 0;
  double bytes = 0;
};

/// Sets the counters tokens/s, GFLOP/s and roofline, which is the least time that this machine could take over the time
/// taken: max(flops / peak, bytes / bandwidth) / seconds. Bandwidth is that of memory, so a run of few tokens whose
/// weights stay in a cache may exceed 1.
template <class T>
void set_counters(benchmark::State& state, const Work& work, double seconds) {
  const Peak<T>& peak = Peak<T>::measured();
  const double least = std::max(work.flops / peak.flops, work.bytes / peak.bandwidth);
  state.counters["tokens/s"] = work.tokens / seconds;
  state.counters["GFLOP/s"] = 1e-9 * work.flops / seconds;
  state.counters["roofline"] = least / seconds;
}

}  // namespace support
