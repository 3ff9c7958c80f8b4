// SPDX-License-Identifier: MIT
#include "mole/method/dora.hpp"

#include "method/method_checks.hpp"
#include "mole/surgery/merge.hpp"
#include "support/catch.hpp"

using namespace mole;
using namespace method_checks;

TEST_CASE("dora is a weight and its LoRA with rows of trained lengths; the bias stays", "[method]") {
  Rng rng(1);
  auto layer = support::with_random_b(
      dora({.rank = 4, .alpha = 8, .exact_norm = true}, weight, DenseBase{weight, bias}, rng));
  const auto& [a, b, m] = layer.experts().parameters();
  const auto y = support::output(layer, tokens);
  for (Index n = 0; n < 5; ++n)
    for (Index o = 0; o < 13; ++o) {
      double product = 0, squares = 0;
      for (Index i = 0; i < 11; ++i) {
        double v = weight(o, i);
        for (Index k = 0; k < 4; ++k) v += 2 * b(k, o) * a(k, i);
        product += v * tokens(n, i), squares += v * v;
      }
      CHECK(std::abs(y(n, o) - (bias(0, o) + m(0, o) / std::sqrt(squares) * product)) < 1e-11);
    }
  CHECK(gradient_error(layer) < 1e-7);
  CHECK(can_merge(layer));
}
