// SPDX-License-Identifier: MIT
#include "mole/factors/hadamard_factors.hpp"

#include "core/error_code.hpp"
#include "factors/adapter_checks.hpp"
#include "support/catch.hpp"

using namespace mole;
using namespace factor_checks;

namespace {

template <class T>
auto hadamard(Index experts, Index rank) {
  Rng rng(1);
  LowRank<HadamardFactors<T>> made({.in = in, .out = out, .experts = experts, .rank = rank, .alpha = 6}, rng);
  return made.with(randomized(made.factors()));
}

}  // namespace

TEST_CASE("HadamardFactors are the product of two low-rank matrices, element by element", "[factors]") {
  const auto experts = hadamard<double>(3, 2);
  const auto& p = experts.parameters();
  for (Index e = 0; e < 3; ++e) {
    Matrix<double> delta(out, in);
    experts.add_delta(e, 0.5, delta.view());
    for (Index o = 0; o < out; ++o)
      for (Index i = 0; i < in; ++i) {
        double one = 0, two = 0;
        for (Index j = 2 * e; j < 2 * e + 2; ++j) {
          one += p.hada_w1_a(j, o) * p.hada_w1_b(j, i);
          two += p.hada_w2_a(j, o) * p.hada_w2_b(j, i);
        }
        CHECK(std::abs(delta(o, i) - 0.5 * 3 * one * two) < 1e-14);  // alpha over the rank of one product
      }
  }
}

TEST_CASE("HadamardFactors keep the laws of factors, and have exact gradients", "[factors]") {
  for (Index experts : {1, 3})
    for (Index rank : {1, 3}) {
      CAPTURE(experts, rank);
      CHECK(broken(hadamard<double>(experts, rank)) == "");
    }
}

TEST_CASE("HadamardFactors of rank 1 are a LoRA of rank 1, to the bit", "[factors]") {
  const auto experts = hadamard<float>(2, 1);
  const auto x = support::random_matrix<float>(9, in, 3);
  CHECK(
      support::same_bits(support::output(layer_of(experts), x), support::output(layer_of(dense_experts(experts)), x)));
}

TEST_CASE("Fresh HadamardFactors leave the base as it is", "[factors]") {
  Rng rng(1);
  const LowRank<HadamardFactors<float>> fresh({.in = in, .out = out, .experts = 2, .rank = 3, .alpha = 6}, rng);
  Matrix<float> delta(out, in);
  fresh.add_delta(1, 1, delta.view());
  CHECK(support::same_bits(delta, Matrix<float>(out, in)));
  const auto& p = fresh.parameters();
  for (const Matrix<float>* table : {&p.hada_w1_a, &p.hada_w1_b, &p.hada_w2_a}) {
    const double bound = table->cols() == in ? 1 / std::sqrt(double(in)) : 1 / std::sqrt(3.0);
    double most = 0;
    for (float element : table->elements()) most = std::max(most, std::abs(double(element)));
    CHECK(most <= bound);
    CHECK(most > 0.8 * bound);
  }
}

TEST_CASE("HadamardFactors refuse sizes that are none, and parameters that do not fit", "[factors]") {
  Rng rng;
  using Factors = HadamardFactors<double>;
  CHECK(test::code_of([&] { Factors({.in = 0, .out = 3}, rng); }) == ErrorCode::option);
  CHECK(test::code_of([&] { Factors({.in = 3, .out = 3, .rank = 0}, rng); }) == ErrorCode::option);
  CHECK(test::code_of([&] { Factors({.in = 3, .out = 3, .rank = Index(1) << 20}, rng); }) == ErrorCode::option);
  Factors factors({.in = 3, .out = 4, .rank = 2}, rng);
  factors.parameters().hada_w2_a = Matrix<double>(2, 5);
  CHECK(test::code_of([&] { factors.check_sizes(); }) == ErrorCode::shape);
}

TEST_CASE("HadamardFactors have the numbers and the memory that they say", "[factors]") {
  Rng rng;
  const HadamardFactors<float> factors({.in = 4096, .out = 4096, .rank = 8}, rng);
  CHECK(numbers_in(factors.parameters()) == 131'072);
  CHECK(scratch_bytes(factors) == 4u << 20);
}
