// SPDX-License-Identifier: MIT
#include "mole/factors/dense_factors.hpp"

#include "mole/testing/factor_laws.hpp"
#include "support/catch.hpp"
#include "support/random_matrix.hpp"

using namespace mole;

TEST_CASE("DenseFactors start with a uniform A and a B of zeros", "[factors]") {
  Rng rng(1);
  const DenseFactors<double> factors({.in = 100, .out = 7, .experts = 4, .rank = 3}, rng);
  const auto& p = factors.parameters();
  CHECK(p.lora_A.rows() == 12);
  CHECK(p.lora_A.cols() == 100);
  CHECK(p.lora_B.rows() == 12);
  CHECK(p.lora_B.cols() == 7);
  CHECK(support::same_bits(p.lora_B, Matrix<double>(12, 7)));
  double most = 0, sum = 0;
  for (double a : p.lora_A.elements()) most = std::max(most, std::abs(a)), sum += a;
  CHECK(most <= 0.1);
  CHECK(most > 0.099);
  CHECK(std::abs(sum / 1200) < 0.01);
}

TEST_CASE("DenseFactors cut ranks into uniform, ragged and shared blocks", "[factors]") {
  Rng rng(2);
  const DenseFactors<float> ragged({.in = 5, .out = 6, .experts = 3, .ranks = {1, 0, 4}}, rng);
  CHECK(ragged.blocks().experts() == 3);
  CHECK(ragged.blocks().size(2) == 4);
  CHECK(ragged.blocks().up(2) == 1);
  CHECK(ragged.parameters().lora_A.rows() == 5);
  const DenseFactors<float> shared({.in = 5, .out = 6, .experts = 3, .rank = 2, .shared_down = true}, rng);
  CHECK(shared.parameters().lora_A.rows() == 2);
  CHECK(shared.parameters().lora_B.rows() == 6);
  CHECK(shared.blocks().down(2) == 0);
  CHECK(shared.blocks().up(2) == 4);
}

TEST_CASE("DenseFactors refuse sizes out of range", "[factors]") {
  Rng rng(3);
  using Factors = DenseFactors<float>;
  CHECK_THROWS_AS(Factors({.in = 0, .out = 6}, rng), Error);
  CHECK_THROWS_AS(Factors({.in = 5, .out = 0}, rng), Error);
  CHECK_THROWS_AS(Factors({.in = 5, .out = 6, .experts = 0}, rng), Error);
  CHECK_THROWS_AS(Factors({.in = 5, .out = 6, .experts = 2, .ranks = {1, 2, 3}}, rng), Error);
  CHECK_THROWS_AS(Factors({.in = 5, .out = 6, .experts = 2, .ranks = {1, -2}}, rng), Error);
}

TEST_CASE("The same seed gives the same factors", "[factors]") {
  Rng one(4), two(4);
  const DenseFactors<float> a({.in = 9, .out = 6}, one), b({.in = 9, .out = 6}, two);
  CHECK(support::same_bits(a.parameters().lora_A, b.parameters().lora_A));
}

TEMPLATE_TEST_CASE("DenseFactors keep the laws of factors", "[factors]", float, double) {
  Rng rng(6);
  for (bool shared_down : {false, true}) {
    DenseFactors<TestType> factors({.in = 11, .out = 6, .experts = 3, .ranks = {1, 0, 4}, .shared_down = shared_down},
                                   rng);
    fill_uniform(factors.parameters().lora_B.view(), 1, rng);
    CHECK(laws::broken_factor_law(factors) == "");
  }
}
