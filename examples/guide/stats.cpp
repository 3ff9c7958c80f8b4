// SPDX-License-Identifier: MIT
// Who was routed where, and the same routing again.
#include <mole/mole.hpp>

#include <cstdio>

int main() {
  mole::Rng rng(1);
  mole::Matrix<float> weights(6, 5), x(64, 5), y(64, 6), again(64, 6);
  for (auto* matrix : {&weights, &x}) fill_uniform(matrix->view(), 1, rng);
  const auto layer = mole::mola({.experts = 4, .k = 2}, mole::DenseBase{weights}, rng);
  auto work = layer.workspace(64);

  mole::RoutingStats stats(4);
  mole::RoutingTrace<float> trace;
  layer.forward(x, y, work);
  stats.observe(work);
  trace.record(work.routing);
  for (mole::Index e = 0; e < 4; ++e)
    std::printf("expert %td: %lld tokens\n", e, (long long)stats.load()[std::size_t(e)]);
  std::printf("coefficient of variation %.3f\n", stats.load_cv());

  mole::Routing<float> replayed;
  trace.replay(0, replayed);
  layer.apply(x, replayed, again, work);
  std::printf("replayed to %s\n", std::ranges::equal(y.elements(), again.elements()) ? "the bit" : "other bits");
}
