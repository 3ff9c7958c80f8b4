// SPDX-License-Identifier: MIT
#include "mole/method/vera.hpp"

#include "method/method_checks.hpp"
#include "support/catch.hpp"

using namespace mole;
using namespace method_checks;

TEST_CASE("vera trains two vectors around the pair of all layers", "[method]") {
  Rng rng(1);
  const auto pair = FrozenPair<double>::random(4, 20, 15, rng);
  auto layer = support::with_random_b(vera({}, pair, DenseBase{weight, bias}, rng));
  const auto& p = layer.experts().parameters();
  const auto y = support::output(layer, tokens);
  for (Index n = 0; n < 5; ++n)
    for (Index o = 0; o < 13; ++o) {
      double expected = bias(0, o);
      for (Index i = 0; i < 11; ++i) expected += weight(o, i) * tokens(n, i);
      for (Index j = 0; j < 4; ++j) {
        double z = 0;
        for (Index i = 0; i < 11; ++i) z += pair->a(j, i) * tokens(n, i);
        expected += p.lambda_b(0, o) * pair->b(j, o) * p.lambda_d(0, j) * z;
      }
      CHECK(std::abs(y(n, o) - expected) < 1e-12);
    }
  CHECK(gradient_error(layer) < 1e-8);
  CHECK(can_merge(layer));
}
