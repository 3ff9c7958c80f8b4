// SPDX-License-Identifier: MIT
#include "mole/method/goat.hpp"

#include "core/error_code.hpp"
#include "method/method_checks.hpp"
#include "support/catch.hpp"

using namespace mole;
using namespace method_checks;

TEST_CASE("goat shares its ranks among its experts, and has four scales", "[method]") {
  Rng rng(1);
  const auto scale_of_layer = [&](GoatScale scale) {
    const auto layer =
        goat({.experts = 2, .total_rank = 4, .scale = scale, .alpha = 6, .eta = 3}, DenseBase{weight}, rng);
    CHECK(layer.experts().blocks().size(1) == 2);
    return layer.experts().scale()[1];
  };
  CHECK(scale_of_layer(GoatScale::alpha_over_rank) == 3);
  CHECK(scale_of_layer(GoatScale::alpha_over_sqrt_rank) == Approx(6 / std::sqrt(2.0)));
  CHECK(scale_of_layer(GoatScale::as_full_training) == Approx(std::sqrt(3.0 * 3 * 11 / 2)));
  CHECK(scale_of_layer(GoatScale::two) == 2);
  CHECK(test::code_of([&] { goat({.experts = 3, .total_rank = 4}, DenseBase{weight}, rng); }) == ErrorCode::option);
}

TEST_CASE("goat's layer is a base of what its init leaves, and its experts", "[method]") {
  Rng rng(1);
  Matrix<double> residual(13, 11);
  auto layer = goat({.experts = 2, .total_rank = 4, .k = 1}, DenseBase{residual}, rng);
  goat_init(layer.experts(), weight, residual.view());
  auto work = layer.workspace(40);
  Matrix<double> y(40, 13);
  layer.forward(tokens, y, work);
  for (Index n = 0; n < 40; ++n) {
    Matrix<double> merged = residual;
    layer.experts().add_delta(work.routing.experts_of(n)[0], 1, merged.view());
    for (Index o = 0; o < 13; ++o) {
      double expected = 0;
      for (Index i = 0; i < 11; ++i) expected += merged(o, i) * tokens(n, i);
      CHECK(std::abs(y(n, o) - expected) < 1e-12);
    }
  }
  CHECK(gradient_error(layer) < 1e-8);
}
