// SPDX-License-Identifier: MIT
// The preset is the composition that it says; what it computes is pinned by the golden test.
#include "mole/method/dynamic_moe.hpp"

#include "method/method_checks.hpp"
#include "support/catch.hpp"

using namespace mole;
using namespace method_checks;

TEST_CASE("dynamic_moe keeps experts until their probabilities pass p, unscaled", "[method]") {
  Rng rng(1);
  auto layer = dynamic_moe({.experts = 6, .rank = 2, .p = 0.6}, DenseBase{weight, bias}, rng);
  CHECK(layer.gating().select.p == 0.6);
  CHECK(layer.gating().select.crossing);
  CHECK(layer.gating().select.strict);
  CHECK(gradient_error(layer) < 1e-7);
}

TEST_CASE("dynamic_moe's experts are the fewest whose probabilities pass p, and a larger p takes none away",
          "[method]") {
  Rng rng(1);
  auto layer = dynamic_moe({.experts = 6, .rank = 2}, DenseBase{weight}, rng);
  for (double& w : layer.router().parameters().weight.elements()) w *= 4;
  const auto x = support::random_matrix<double>(60, 11, 3);
  auto work = layer.workspace(60);
  std::vector<std::vector<int>> kept(60);
  for (double p : {0.1, 0.3, 0.4, 0.7, 0.95}) {
    layer.gating().select.p = p;
    layer.route(x, work);
    for (Index n = 0; n < 60; ++n) {
      const auto experts = work.routing.experts_of(n);
      double sum = 0;
      for (double w : work.routing.gates_of(n)) sum += w;
      CHECK(sum > p);
      CHECK(sum - work.routing.gates_of(n).back() <= p);
      auto& smaller = kept[std::size_t(n)];
      CHECK(std::equal(smaller.begin(), smaller.end(), experts.begin()));
      smaller.assign(experts.begin(), experts.end());
    }
  }
}
