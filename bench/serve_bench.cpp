// SPDX-License-Identifier: MIT
// A batch whose rows have adapters of their own: MultiAdapterLinear beside the ways of others, all over one packed
// base.
//
//   serve/<mix>/r:<rank>/T:<rows>/d:<d>   one thread, float, 256 adapters of `rank`, a half and a quarter of it
//   mix   one: the same adapter in all rows; skewed: by Zipf's law; spread: all alike; hot_set: 9 in 10 rows have one
//         of 8 adapters
//
// Counters, all in alternating slices: the time over that of the base alone (plain), and that of others over ours:
//   rows     row by row with the matrices of its adapter where they are (as Punica's BGMV)
//   loop     adapter by adapter: rows gathered, multiplied, scattered (as peft)
//   gather   the matrices of each row copied side by side, then multiplied (as vLLM without a kernel of its own)
//   split    a call of base and adapter for the rows of each adapter (as llama.cpp)
#include "bench/layers/frozen_layer.hpp"
#include "bench/machine/alternation.hpp"
#include "bench/machine/seconds_per_run.hpp"
#include "examples/serve/peer_forms.hpp"
#include "mole/serve/multi_adapter_linear.hpp"

#include <benchmark/benchmark.h>

#include <algorithm>
#include <map>
#include <string>
#include <vector>

namespace {

using mole::Index;
using mole::Matrix;
using mole::View;

constexpr int adapters = 256;

enum class Mix { one, skewed, spread, hot_set };

/// An adapter for each row.
std::vector<int> ids_of(Mix mix, Index rows) {
  mole::Rng rng(7);
  std::vector<double> shares;
  double sum = 0;
  for (int k = 0; k < adapters; ++k) shares.push_back(sum += 1.0 / (k + 1));
  std::vector<int> ids;
  for (Index n = 0; n < rows; ++n) {
    const double u = mole::unit_interval(rng()), v = mole::unit_interval(rng());
    switch (mix) {
      case Mix::one:
        ids.push_back(0);
        break;
      case Mix::skewed:
        ids.push_back(int(std::lower_bound(shares.begin(), shares.end() - 1, u * sum) - shares.begin()));
        break;
      case Mix::spread:
        ids.push_back(int(u * adapters));
        break;
      case Mix::hot_set:
        ids.push_back(v < 0.9 ? int(u * 8) : int(u * adapters));
        break;
    }
  }
  return ids;
}

/// 256 adapters of one width; the last that was asked for is kept.
const mole::AdapterTable<float>& table_of(Index d, Index rank) {
  static std::unique_ptr<mole::AdapterTable<float>> table;
  static std::pair<Index, Index> made;
  if (made != std::pair(d, rank)) {
    table.reset();
    table = std::make_unique<mole::AdapterTable<float>>(
        mole::AdapterTable<float>::Options{.sites = {{d, d}}, .max_adapters = adapters, .max_rank = rank});
    for (int id = 0; id < adapters; ++id) {
      const Index ranks = std::max<Index>(1, rank >> (id % 3));
      table->add(id, mole::ServedAdapter<float>(mole::Adapter<float>{
                         support::random_matrix<float>(ranks, d, std::uint64_t(id)),
                         support::random_matrix<float>(ranks, d, std::uint64_t(id) + 1000), 0.01}));
    }
    made = {d, rank};
  }
  return *table;
}

void measure(benchmark::State& state, Mix mix, Index rank, Index rows, Index d) {
  const mole::AdapterTable<float>& table = table_of(d, rank);
  const mole::MultiAdapterLinear layer(bench::FrozenLayer::of(d).base);
  const mole::Simd<>& execution = layer.execution();
  auto work = layer.workspace(rows);
  const auto x = support::random_matrix<float>(rows, d, 1);
  Matrix<float> y(rows, d);
  const std::vector<int> ids = ids_of(mix, rows);
  mole::AdapterBatch<float> batch(rows);
  batch.begin(table, ids);
  serve::LoopOverAdapters loop(rows, d, d, rank);
  serve::GatherOfMatrices gather(rows, d, d, rank);
  serve::SplitByAdapter split(rows, d, d, rank);

  const auto ours = [&] { layer.forward(x, table, ids, y, work); };
  const auto plain = [&] { execution.linear(View<const float>(x), layer.base().weights(), y.view()); };
  const auto by_rows = [&] {
    plain();
    mole::AdapterRows<mole::Simd<>, float> one;
    for (Index n = 0; n < rows; ++n) {
      one.x[0] = x.view().row_data(n), one.y[0] = y.view().row_data(n);
      one.add(1, table.lease()->find(ids[std::size_t(n)])->site(0));
    }
  };
  const auto by_loop = [&] {
    plain();
    loop.add(x, batch, 0, y.view(), execution);
  };
  const auto by_gather = [&] {
    plain();
    gather.add(x, batch, 0, y.view(), execution);
  };
  const auto by_split = [&] { split.forward(x, batch, 0, layer.base().weights(), y.view(), execution); };

  bench::seconds_per_run(state, ours);
  const auto over_ours = [&](auto& other) { return 1 / bench::alternating_ratio(ours, other, 0.02); };
  state.counters["plain"] = bench::alternating_ratio(ours, plain, 0.02);
  state.counters["rows"] = over_ours(by_rows);
  state.counters["loop"] = over_ours(by_loop);
  state.counters["gather"] = over_ours(by_gather);
  state.counters["split"] = over_ours(by_split);
  state.counters["adapters"] = double(batch.runs().size());
}

const bool registered = [] {
  const std::pair<const char*, Mix> mixes[] = {
      {"one", Mix::one}, {"skewed", Mix::skewed}, {"spread", Mix::spread}, {"hot_set", Mix::hot_set}};
  const auto add = [&](Index rank, Index rows, Index d) {
    for (const auto& [name, mix] : mixes) {
      const std::string title = std::string("serve/") + name + "/r:" + std::to_string(rank) +
                                "/T:" + std::to_string(rows) + "/d:" + std::to_string(d);
      benchmark::RegisterBenchmark(title.c_str(), [mix = mix, rank, rows, d](benchmark::State& state) {
        measure(state, mix, rank, rows, d);
      })->Unit(benchmark::kMicrosecond);
    }
  };
  for (const Index d : {768, 2048})
    for (const Index rows : {1, 16, 64, 256}) add(16, rows, d);
  add(64, 256, 2048);  // an adapter does not stay in L2
  return true;
}();

}  // namespace
