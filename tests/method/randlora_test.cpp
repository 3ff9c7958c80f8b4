// SPDX-License-Identifier: MIT
#include "mole/method/randlora.hpp"

#include "method/method_checks.hpp"
#include "mole/surgery/merge.hpp"
#include "support/catch.hpp"

using namespace mole;
using namespace method_checks;

TEST_CASE("randlora's scale is the paper's, or peft's without the root of the bases", "[method]") {
  Rng rng(1);
  const auto bases = std::make_shared<const DiagonalBases<double>>(
      DiagonalBases<double>::Options{.rank = 4, .small_side = 11, .large_side = 13});
  for (bool root : {true, false}) {
    auto layer = randlora({.alpha = 8, .over_root_of_bases = root}, bases, DenseBase{weight}, rng);
    CHECK(layer.experts().scale()[0] == Approx(2 / (root ? std::sqrt(3.0) : 1)).epsilon(1e-15));
    CHECK(gradient_error(support::with_random_b(layer)) < 1e-7);
    CHECK(can_merge(layer));
  }
}
