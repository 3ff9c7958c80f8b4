// SPDX-License-Identifier: MIT
// The preset is the composition that it says; what it computes is pinned by the golden test.
#include "mole/method/lora.hpp"

#include "method/method_checks.hpp"
#include "mole/surgery/merge.hpp"
#include "support/catch.hpp"

using namespace mole;
using namespace method_checks;

TEST_CASE("lora scales by alpha over rank, or over its root", "[method]") {
  Rng rng(1);
  CHECK(lora({.rank = 4, .alpha = 8}, DenseBase{weight}, rng).experts().scale()[0] == 2);
  CHECK(lora({.rank = 4, .alpha = 8, .scaling = Scaling::alpha_over_sqrt_rank}, DenseBase{weight}, rng)
            .experts()
            .scale()[0] == 4);
  CHECK(merge_obstacle(lora({}, DenseBase{weight}, rng)).empty());
  CHECK(gradient_error(lora({.dropout = 0.2}, DenseBase{weight, bias}, rng)) < 1e-8);
}

TEST_CASE("Partial LoRA: only tokens of the new modality meet the adapter, the others the base alone, to the bit",
          "[method]") {
  Rng rng(1);
  const auto layer = support::with_random_b(lora({.rank = 4}, DenseBase{weight, bias}, rng, Reference{}));
  const auto d_y = support::random_matrix<double>(tokens.rows(), layer.out(), 5);
  struct Results {
    Matrix<double> y, d_x, d_a, d_b;
  };
  const auto results = [&](const Pass& pass, const Matrix<double>& x) {
    Matrix<double> y(x.rows(), layer.out()), d_x(x.rows(), layer.in());
    auto work = layer.workspace(x.rows());
    auto gradients = layer.gradients();
    layer.forward(x, y, work, pass);
    layer.backward(x, d_y, d_x, gradients, work);
    return Results{y, d_x, gradients.experts.lora_A, gradients.experts.lora_B};
  };
  const std::vector<std::uint8_t> all(std::size_t(tokens.rows()), 1), none(std::size_t(tokens.rows()), 0);
  const Results plain = results({}, tokens), masked = results({.routed = all}, tokens);
  for (auto member : {&Results::y, &Results::d_x, &Results::d_a, &Results::d_b})
    CHECK(support::same_bits(plain.*member, masked.*member));

  const Results base = results({.routed = none}, tokens);
  Matrix<double> y(tokens.rows(), layer.out()), d_x(tokens.rows(), layer.in());
  Reference{}.linear(tokens, layer.base().weights(), y.view());
  Reference{}.linear_backward(d_y, layer.base().weights(), d_x.view());
  CHECK(support::same_bits(base.y, y));
  CHECK(support::same_bits(base.d_x, d_x));
  for (double d : base.d_a.elements()) CHECK(d == 0);
  for (double d : base.d_b.elements()) CHECK(d == 0);

  std::vector<std::uint8_t> some = all;
  some[1] = 0;
  const Results mixed = results({.routed = some}, tokens);
  for (Index n = 0; n < tokens.rows(); ++n) {
    const Results& expected = n == 1 ? base : plain;
    CHECK(support::same_bits(mixed.y.view().middle_rows(n, 1), expected.y.view().middle_rows(n, 1)));
    CHECK(support::same_bits(mixed.d_x.view().middle_rows(n, 1), expected.d_x.view().middle_rows(n, 1)));
  }
}
