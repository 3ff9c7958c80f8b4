// SPDX-License-Identifier: MIT
#include "bench/layers/layer_row.hpp"

#include "bench/layers/last_made.hpp"
#include "bench/machine/alternation.hpp"
#include "bench/machine/shared_peak.hpp"

namespace bench {

std::string LayerRow::name() const {
  std::string name = (backward ? "forward_backward/" : "forward/") + std::string(one.name);
  const auto add = [&](const char* size, Index value) { name.append(size).append(":").append(std::to_string(value)); };
  if (one.routed != Routed::nobody) add("/E", one.experts);
  if (one.routed == Routed::top_k) add("/k", one.chosen);
  if (one.routed != Routed::nobody) add("/r", one.rank);
  add("/T", tokens);
  add("/d", d);
  if (threads > 1) add("/threads", threads);
  return name;
}

double seconds_of(benchmark::State& state, const std::function<void()>& body, Clock clock) {
  const double begin = clock();
  for (auto _ : state) body();
  return (clock() - begin) / double(state.iterations());
}

void report_layer(benchmark::State& state, const Work& work, double seconds, double over_plain, double ideal,
                  int threads) {
  const double flops = threads == 1 ? Peak<float>::flops() : SharedPeak<float>::flops(threads);
  const double bandwidth =
      threads == 1 ? Peak<float>::bandwidth(work.bytes) : SharedPeak<float>::bandwidth(threads, work.bytes);
  state.counters["tokens/s"] = work.tokens / seconds;
  state.counters["GFLOP/s"] = 1e-9 * work.flops / seconds;
  state.counters["roofline"] = work.least_seconds(flops, bandwidth) / seconds;
  state.counters["plain"] = over_plain;
  state.counters["ideal"] = ideal;
}

namespace {

void run(benchmark::State& state, const LayerRow& row) {
  static LastMade<BenchLayer> last, last_plain, last_rival;
  const BenchLayer& layer = last.get(row.name(), [&] {
    BenchLayer made = bench_layer(row.one, row.tokens, row.d, row.threads);
    row.body(made)();  // the first backward makes the gradients, which takes longer than many runs
    return made;
  });
  const double seconds = seconds_of(state, row.body(layer), row.clock());
  double over_plain = 1;
  if (row.one.routed != Routed::nobody) {
    const LayerRow plain{layer_case("plain"), row.tokens, row.d, row.threads};
    const BenchLayer& other =
        last_plain.get(plain.name(), [&] { return bench_layer(plain.one, plain.tokens, plain.d, plain.threads); });
    over_plain = alternating_ratio(row.body(layer), row.body(other), slice_of(state, seconds), row.clock());
  }
  report_layer(state, row.work(layer.cost), seconds, over_plain,
               row.work(layer.cost).flops / row.work(layer.cost.plain()).flops, row.threads);
  if (!row.rival) return;
  const LayerRow rival{*row.rival, row.tokens, row.d, row.threads, row.backward};
  const BenchLayer& other =
      last_rival.get(rival.name(), [&] { return bench_layer(rival.one, rival.tokens, rival.d, rival.threads); });
  state.counters["over_" + std::string(rival.one.name)] =
      alternating_ratio(row.body(layer), row.body(other), slice_of(state, seconds), row.clock());
}

}  // namespace

void add_layer_row(const LayerRow& row) {
  auto* one = benchmark::RegisterBenchmark(row.name().c_str(), run, row);
  if (row.threads > 1) one->UseRealTime();
}

}  // namespace bench
