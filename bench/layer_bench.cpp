// SPDX-License-Identifier: MIT
// What adapters cost on top of a frozen linear layer, against its own plain layer, plain layers of other libraries and
// the machine; see bench/support/layer_row.hpp for what is printed.
//
// All sizes take minutes: choose with --benchmark_filter='forward/top2/.*/d:768'. Its smoke test takes d:768 and few
// tokens.
#include "bench/support/alternation.hpp"
#include "bench/support/layer_row.hpp"
#include "bench/support/plain_peers.hpp"

namespace {

using mole::Index;

void peer(benchmark::State& state, const support::PlainPeer& peer, Index tokens, Index d) {
  const auto body = peer.forward(tokens, d);
  const support::BenchLayer plain = bench_layer(support::layer_case("plain"), tokens, d);
  const double seconds = support::seconds_of(state, body, support::thread_clock);
  support::report_layer(state, plain.cost.forward(), seconds,
                        support::alternating_ratio(body, plain.forward, support::slice_of(state, seconds)), 1);
}

void add_cases() {
  for (const bool backward : {false, true})
    for (const support::LayerCase& one : support::layer_cases)
      for (const Index d : {768, 2048, 4096})
        for (const Index tokens : {1, 8, 16, 64, 512, 2048}) support::add_layer_row({one, tokens, d, 1, backward});
}

void add_peers() {
  for (const support::PlainPeer& one : support::plain_peers())
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
