// SPDX-License-Identifier: MIT
#include "mole/factors/triplet_factors.hpp"

#include "core/error_code.hpp"
#include "factors/adapter_checks.hpp"
#include "support/catch.hpp"

using namespace mole;
using namespace factor_checks;

namespace {

template <class T>
auto triplets(std::vector<int> ranks) {
  Rng rng(1);
  LowRank<TripletFactors<T>> made({.in = in, .out = out, .experts = Index(ranks.size()), .ranks = ranks, .alpha = 6},
                                  rng);
  return made.with(randomized(made.factors()));
}

}  // namespace

TEST_CASE("TripletFactors have a singular value between A and B, and the release's scale", "[factors]") {
  const auto experts = triplets<double>({2, 3});
  const auto& p = experts.parameters();
  CHECK(std::abs(experts.scale()[0] - 6 / (2 + 1e-5)) < 1e-15);
  Matrix<double> delta(out, in);
  experts.add_delta(1, 1, delta.view());
  for (Index o = 0; o < out; ++o)
    for (Index i = 0; i < in; ++i) {
      double sum = 0;
      for (Index j = 2; j < 5; ++j) sum += p.lora_B(j, o) * p.lora_E(0, j) * p.lora_A(j, i);
      CHECK(std::abs(delta(o, i) - 6 / (3 + 1e-5) * sum) < 1e-14);
    }
  Rng rng;
  const LowRank<TripletFactors<double>> fixed(
      {.in = in, .out = out, .rank = 2, .alpha = 6, .scaling = Scaling::alpha_over_sqrt_rank}, rng);
  CHECK(std::abs(fixed.scale()[0] - 6 / std::sqrt(2.0)) < 1e-15);
}

TEST_CASE("TripletFactors keep the laws of factors, and have exact gradients", "[factors]") {
  CHECK(broken(triplets<double>({4})) == "");
  CHECK(broken(triplets<double>({2, 1, 3})) == "");
}

TEST_CASE("TripletFactors with singular values of 1 are a LoRA, to the bit", "[factors]") {
  auto experts = triplets<float>({2, 3});
  fill(experts.parameters().lora_E.view(), 1);
  const auto x = support::random_matrix<float>(9, in, 3);
  CHECK(
      support::same_bits(support::output(layer_of(experts), x), support::output(layer_of(dense_experts(experts)), x)));
}

TEST_CASE("Fresh TripletFactors are normal, and leave the base as it is", "[factors]") {
  Rng rng(1);
  const TripletFactors<double> fresh({.in = 200, .out = 300, .rank = 20}, rng);
  CHECK(support::same_bits(fresh.parameters().lora_E, Matrix<double>(1, 20)));
  for (const Matrix<double>* table : {&fresh.parameters().lora_A, &fresh.parameters().lora_B}) {
    double square = 0;
    for (double element : table->elements()) square += element * element;
    CHECK(std::abs(std::sqrt(square / double(table->size())) - 0.02) < 1e-3);
  }
  CHECK(numbers_in(fresh.parameters()) == 20 * 501);
}

TEST_CASE("TripletFactors refuse sizes that are none, and parameters that do not fit", "[factors]") {
  Rng rng;
  using Factors = TripletFactors<double>;
  CHECK(test::code_of([&] { Factors({.in = 0, .out = 3}, rng); }) == ErrorCode::option);
  CHECK(test::code_of([&] { Factors({.in = 3, .out = 3, .ranks = {1, 2}}, rng); }) == ErrorCode::option);
  Factors factors({.in = 3, .out = 4, .rank = 2}, rng);
  factors.parameters().lora_E = Matrix<double>(1, 3);
  CHECK(test::code_of([&] { factors.check_sizes(); }) == ErrorCode::shape);
}
