// SPDX-License-Identifier: MIT
#include "mole/method/loha.hpp"

#include "method/method_checks.hpp"
#include "support/catch.hpp"

using namespace mole;
using namespace method_checks;

TEST_CASE("loha adds the element-wise product of two low-rank updates, over the rank of one", "[method]") {
  Rng rng(1);
  auto layer = support::with_random_b(loha({.rank = 3, .alpha = 6}, DenseBase{weight, bias}, rng));
  const auto& p = layer.experts().parameters();
  const auto y = support::output(layer, tokens);
  for (Index n = 0; n < 5; ++n)
    for (Index o = 0; o < 13; ++o) {
      double expected = bias(0, o);
      for (Index i = 0; i < 11; ++i) {
        double one = 0, two = 0;
        for (Index j = 0; j < 3; ++j)
          one += p.hada_w1_a(j, o) * p.hada_w1_b(j, i), two += p.hada_w2_a(j, o) * p.hada_w2_b(j, i);
        expected += (weight(o, i) + 2 * one * two) * tokens(n, i);
      }
      CHECK(std::abs(y(n, o) - expected) < 1e-12);
    }
  CHECK(gradient_error(layer) < 1e-8);
  CHECK(can_merge(layer));
}
