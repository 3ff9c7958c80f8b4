// SPDX-License-Identifier: MIT
// The preset is the composition that it says; what it computes is pinned by the golden test.
#include "mole/method/mole_threshold.hpp"

#include "method/method_checks.hpp"
#include "support/catch.hpp"

using namespace mole;
using namespace method_checks;

TEST_CASE("mole_threshold gives a token for which nobody is probable enough the base's output", "[method]") {
  Rng rng(1);
  auto layer = support::with_random_b(
      mole_threshold({.experts = 4, .rank = 2, .threshold = 0.99}, DenseBase{weight, bias}, rng, Reference{}));
  const auto x = support::random_matrix<double>(6, 11, 3);
  Matrix<double> y(6, 13), base(6, 13);
  auto work = layer.workspace(6);
  layer.forward(x, y, work);
  CHECK(work.routing.pairs() == 0);
  Call<Reference, NoScratch> call{layer.execution(), work.pass, work.base_scratch};
  layer.base().forward(x, base, call);
  CHECK(support::same_bits(y, base));
}

TEST_CASE("mole_threshold has exact gradients", "[method]") {
  Rng rng(1);
  CHECK(gradient_error(mole_threshold({.experts = 6, .rank = 2}, DenseBase{weight, bias}, rng)) < 1e-7);
}
