// SPDX-License-Identifier: MIT
// Every kernel against its plain loop, and against Eigen if Eigen has an expression for it; one thread, float.
//
//   GFLOP/s, GB/s   arithmetic that must be done, and numbers that must be read or written, by CPU time
//   roofline        the least time that this machine could take, over the time taken
//   vs_plain        the plain loop's time over this one's, in alternating slices
//
// The plain loop is compiled with the same flags, and vectorized if the compiler can.
// Choose with --benchmark_filter='^dot_products/.*d:768'; all rows take some minutes.
#include "bench/kernels/kernel_case.hpp"
#include "bench/layers/counters.hpp"
#include "bench/layers/last_made.hpp"
#include "bench/machine/alternation.hpp"

namespace {

using bench::KernelBodies;
using bench::KernelCase;

enum class Way { kernel, eigen, plain };

const std::function<void()>& body_of(const KernelBodies& bodies, Way way) {
  return way == Way::kernel ? bodies.kernel : way == Way::eigen ? bodies.eigen : bodies.plain;
}

void run(benchmark::State& state, const KernelCase& one, Way way) {
  static bench::LastMade<KernelBodies> last;
  const KernelBodies& bodies = last.get(one.name + one.sizes, one.make);
  const std::function<void()>& body = body_of(bodies, way);
  const double begin = bench::thread_clock();
  for (auto _ : state) body();
  const double seconds = (bench::thread_clock() - begin) / double(state.iterations());
  bench::set_roofline<float>(state, bodies.work, seconds);
  state.counters["GB/s"] = 1e-9 * bodies.work.bytes / seconds;
  state.counters["vs_plain"] =
      way == Way::plain
          ? 1
          : bench::alternating_ratio(bodies.plain, body, std::min(0.02, seconds * double(state.iterations()) / 5));
}

void add(const KernelCase& one) {
  const auto row = [&](const char* name, Way way) {
    benchmark::RegisterBenchmark((one.name + "/" + name + one.sizes).c_str(), run, one, way);
  };
  row("kernel", Way::kernel);
  if (one.has_eigen) row("eigen", Way::eigen);
  row("plain", Way::plain);
}

[[maybe_unused]] const bool registered = [] {
  for (const auto cases : {bench::product_cases, bench::rank_cases, bench::layout_cases, bench::coded_cases,
                           bench::row_cases, bench::update_cases})
    for (const KernelCase& one : cases()) add(one);
  return true;
}();

}  // namespace
