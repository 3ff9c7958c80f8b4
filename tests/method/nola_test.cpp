// SPDX-License-Identifier: MIT
#include "mole/method/nola.hpp"

#include "method/method_checks.hpp"
#include "mole/surgery/merge.hpp"
#include "support/catch.hpp"

using namespace mole;
using namespace method_checks;

TEST_CASE("nola is the LoRA of its mixed matrices, over the rank, and trains 2 m numbers", "[method]") {
  Rng rng(1);
  auto layer = support::with_random_b(nola({.rank = 3, .bases = 5, .alpha = 6}, DenseBase{weight, bias}, rng));
  CHECK(difference_from_lora(layer, tokens, 2) < 1e-12);
  CHECK(can_merge(layer));
  CHECK(layer.experts().parameters().coefficients_A.size() + layer.experts().parameters().coefficients_B.size() == 10);
  CHECK(gradient_error(layer) < 1e-8);
}

TEST_CASE("Layers of nola with one seed have one basis", "[method]") {
  Rng rng(1);
  const auto one = nola({.bases = 5, .seed = 3}, DenseBase{weight}, rng),
             two = nola({.bases = 5, .seed = 3}, DenseBase{weight}, rng);
  CHECK(one.experts().factors().seed() == two.experts().factors().seed());
  CHECK(support::same_bits(support::output(support::with_random_b(one), tokens),
                           support::output(support::with_random_b(two), tokens)));
}
