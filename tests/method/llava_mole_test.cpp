// SPDX-License-Identifier: MIT
// The preset is the composition that it says; what it computes is pinned by the golden test.
#include "mole/method/llava_mole.hpp"

#include "method/method_checks.hpp"
#include "support/catch.hpp"

using namespace mole;
using namespace method_checks;

TEST_CASE("llava_mole adds one whole expert, whatever the size of the logits", "[method]") {
  Rng rng(1);
  auto layer = support::with_random_b(llava_mole<double>({.in = 11, .out = 13, .rank = 4}, weight, rng));
  const auto x = support::random_matrix<double>(9, 11, 3);
  Matrix<double> y(9, 13), larger(9, 13);
  auto work = layer.workspace(9);
  layer.forward(x, y, work);
  CHECK(work.routing.pairs() == 9);
  for (double w : work.routing.weights()) CHECK(w == 1);
  for (double& w : layer.router().parameters().weight.elements()) w *= 3;
  for (double& b : layer.router().parameters().bias.elements()) b *= 3;
  layer.forward(x, larger, work);
  CHECK(support::same_bits(y, larger));
}
