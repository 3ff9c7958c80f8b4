// SPDX-License-Identifier: MIT
#include "mole/method/one_adapter.hpp"

#include "method/method_checks.hpp"
#include "mole/method/lora.hpp"
#include "support/catch.hpp"

using namespace mole;
using namespace method_checks;

TEST_CASE("one_adapter gives every token the one expert, as lora does, to the bit", "[method]") {
  Rng rng(1);
  const auto plain = support::with_random_b(lora({.rank = 3, .alpha = 6}, DenseBase{weight, bias}, rng));
  const auto layer = one_adapter(plain.experts(), DenseBase{weight, bias}, plain.execution());
  CHECK(support::same_bits(support::output(layer, tokens), support::output(plain, tokens)));
  auto work = layer.workspace(5);
  layer.route(tokens.view().top(5), work);
  for (Index p = 0; p < 5; ++p) CHECK(work.routing.gate(p) == 1);
}
