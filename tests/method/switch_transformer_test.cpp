// SPDX-License-Identifier: MIT
// The preset is the composition that it says; what it computes is pinned by the golden test.
#include "mole/method/switch_transformer.hpp"

#include "method/method_checks.hpp"
#include "support/catch.hpp"

using namespace mole;
using namespace method_checks;

TEST_CASE("switch_transformer serves each token by its best expert, up to the capacity, and the rest by the base",
          "[method]") {
  Rng rng(1);
  const auto layer = support::with_random_b(switch_transformer(
      {.experts = 3, .rank = 2, .capacity = {.fixed = 2}, .dropout = 0}, DenseBase{weight, bias}, rng, Reference{}));
  Matrix<double> y(40, 13), base(40, 13);
  auto work = layer.workspace(40);
  layer.forward(tokens, y, work);
  Call<Reference, NoScratch> call{layer.execution(), work.pass, work.base_scratch};
  layer.base().forward(tokens, base, call);
  Index served[3] = {0, 0, 0};
  for (Index n = 0; n < 40; ++n) {
    const auto scores = std::as_const(work).scores().row(n);
    const auto best = int(std::ranges::max_element(scores) - scores.begin());
    const bool has_room = served[best]++ < 2;
    REQUIRE(work.routing.experts_of(n).size() == std::size_t(has_room));
    if (has_room)
      CHECK((work.routing.experts_of(n)[0] == best && work.routing.gates_of(n)[0] == scores[std::size_t(best)]));
    else
      CHECK(std::ranges::equal(y.view().row(n), base.view().row(n)));
  }
}

TEST_CASE("switch_transformer has the paper's capacity of a call, rounded down", "[method]") {
  Rng rng(1);
  auto layer = switch_transformer({.experts = 4, .rank = 2}, DenseBase{weight, bias}, rng);
  CHECK(layer.gating().select.capacity(37, 37, 4) == 11);  // 1.25 * 37 / 4 = 11.56
  CHECK(gradient_error(layer) < 1e-7);
}
