// SPDX-License-Identifier: MIT
// The preset is the composition that it says; what it computes is pinned by the golden test.
#include "mole/method/promoe.hpp"

#include "method/method_checks.hpp"
#include "support/catch.hpp"

using namespace mole;
using namespace method_checks;

TEST_CASE("promoe gives tokens without a condition the unconditional expert, and nobody else", "[method]") {
  Rng rng(1);
  const auto layer = promoe({.experts = 6, .shared = 1, .rank = 2, .k = 2}, DenseBase{weight, bias}, rng);
  CHECK(layer.router().first().outputs() == 4);
  std::vector<int> forced(40, -1);
  for (std::size_t n = 0; n < 40; n += 4) forced[n] = 4;
  auto work = layer.workspace(40);
  layer.route(tokens, work, {.forced = forced});
  CHECK(work.routing.load(4) == 10);
  CHECK(work.routing.load(5) == 40);
  for (Index n = 0; n < 40; ++n) {
    const auto experts = work.routing.experts_of(n);
    const auto gates = work.routing.gates_of(n);
    REQUIRE(experts.size() == (forced[std::size_t(n)] == 4 ? 2 : 3));
    CHECK((experts.back() == 5 && gates.back() == 1));
    if (forced[std::size_t(n)] == 4)
      CHECK((experts[0] == 4 && gates[0] == 1));
    else
      for (std::size_t j = 0; j < 2; ++j) CHECK(gates[j] == work.logits()(n, experts[j]));
  }
}

TEST_CASE("promoe has exact gradients, and refuses a mixture without prototypes", "[method]") {
  Rng rng(1);
  CHECK(gradient_error(promoe({.experts = 6, .rank = 2, .k = 2}, DenseBase{weight, bias}, rng)) < 1e-7);
  CHECK_THROWS_AS(promoe({.experts = 2}, DenseBase{weight, bias}, rng), Error);
  CHECK_THROWS_AS(promoe({.experts = 2, .shared = -1}, DenseBase{weight, bias}, rng), Error);
}
