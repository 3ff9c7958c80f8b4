// SPDX-License-Identifier: MIT
// What adapters cost on top of a frozen linear layer, against its own plain layer, plain layers of other libraries and
// the machine; see bench/layers/layer_row.hpp for what is printed.
//
// All sizes take minutes: choose with --benchmark_filter='forward/top2/.*/d:768'. Its smoke test takes d:768 and few
// tokens.
#include "bench/layers/layer_row.hpp"
#include "bench/layers/plain_peers.hpp"
#include "bench/machine/alternation.hpp"

namespace {

using mole::Index;

void peer(benchmark::State& state, const bench::PlainPeer& peer, Index tokens, Index d) {
  const auto body = peer.forward(tokens, d);
  const bench::BenchLayer plain = bench_layer(bench::layer_case("plain"), tokens, d);
  const double seconds = bench::seconds_of(state, body, bench::thread_clock);
  bench::report_layer(state, plain.cost.forward(), seconds,
                      bench::alternating_ratio(body, plain.forward, bench::slice_of(state, seconds)), 1);
}

void add_cases() {
  for (const bool backward : {false, true})
    for (const bench::LayerCase& one : bench::layer_cases)
      for (const Index d : {768, 2048, 4096})
        for (const Index tokens : {1, 8, 16, 64, 512, 2048}) bench::add_layer_row({one, tokens, d, 1, backward});
}

void add_peers() {
  for (const bench::PlainPeer& one : bench::plain_peers())
    for (const Index d : {768, 2048, 4096})
      for (const Index tokens : {1, 8, 16, 64, 512, 2048}) {
        const std::string name =
            "forward/plain:" + std::string(one.name) + "/T:" + std::to_string(tokens) + "/d:" + std::to_string(d);
        benchmark::RegisterBenchmark(name.c_str(), peer, one, tokens, d);
      }
}

[[maybe_unused]] const bool registered = [] {
  add_cases();
  add_peers();
  return true;
}();

}  // namespace
