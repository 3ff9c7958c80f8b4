// SPDX-License-Identifier: MIT
#include "mole/loss/preservation.hpp"

#include "core/error_code.hpp"
#include "mole/factors/dense_factors.hpp"
#include "mole/testing/random_matrix.hpp"
#include "support/catch.hpp"

using namespace mole;

TEST_CASE("preservation is the squared distance from the start, with its gradient added", "[loss]") {
  const auto now = laws::random_matrix<double>(3, 5, 1), then = laws::random_matrix<double>(3, 5, 2);
  Matrix<double> d(3, 5);
  fill(d.view(), 1);
  double expected = 0;
  for (std::size_t i = 0; i < 15; ++i)
    expected += (now.elements()[i] - then.elements()[i]) * (now.elements()[i] - then.elements()[i]);
  CHECK(std::abs(preservation<double>(now, then, d, 0.3) - 0.3 * expected) < 1e-14);
  for (std::size_t i = 0; i < 15; ++i)
    CHECK(std::abs(d.elements()[i] - 1 - 0.6 * (now.elements()[i] - then.elements()[i])) < 1e-14);
  CHECK(preservation<double>(now, now, {}, 5) == 0);
}

TEST_CASE("preservation of parameters is the sum over their tensors, without gradients of frozen ones", "[loss]") {
  Rng rng(1);
  using Factors = DenseFactors<double>;
  const Factors now({.in = 5, .out = 4, .rank = 2}, rng), then({.in = 5, .out = 4, .rank = 2}, rng);
  auto gradients = zeros_like(now.parameters());
  gradients.lora_B = {};
  const double of_a = preservation<double>(now.parameters().lora_A, then.parameters().lora_A, {}, 2);
  const double of_b = preservation<double>(now.parameters().lora_B, then.parameters().lora_B, {}, 2);
  CHECK(of_a > 0);
  CHECK(std::abs(preservation(now.parameters(), then.parameters(), gradients, 2) - (of_a + of_b)) < 1e-14);
  CHECK(gradients.lora_B.empty());
  for (std::size_t i = 0; i < 10; ++i)
    CHECK(gradients.lora_A.elements()[i] ==
          4 * (now.parameters().lora_A.elements()[i] - then.parameters().lora_A.elements()[i]));
}

TEST_CASE("preservation refuses other sizes and coefficients beyond float", "[loss]") {
  Matrix<double> now(3, 5), other(5, 3);
  CHECK(test::code_of([&] { preservation<double>(now, other, {}); }) == ErrorCode::shape);
  CHECK(test::code_of([&] { preservation<double>(now, now, other); }) == ErrorCode::shape);
  CHECK(test::code_of([&] { preservation<double>(now, now, {}, 1e40); }) == ErrorCode::option);
}
