// SPDX-License-Identifier: MIT
#include "mole/surgery/arrow_prototypes.hpp"

#include "core/error_code.hpp"
#include "mole/expert/low_rank.hpp"
#include "mole/factors/dense_factors.hpp"
#include "mole/factors/gated_ranks.hpp"
#include "support/catch.hpp"
#include "surgery/adapters.hpp"

#include <limits>

using namespace mole;
using namespace mole::test;

namespace {

using ArrowExperts = LowRank<DenseFactors<double>>;

ArrowExperts arrow_experts(const std::vector<int>& ranks, bool shared_down = false) {
  Rng rng(3);
  ArrowExperts experts({.in = adapter_in,
                        .out = adapter_out,
                        .experts = Index(ranks.size()),
                        .ranks = ranks,
                        .shared_down = shared_down},
                       rng);
  fill_uniform(experts.parameters().lora_B.view(), 1, rng);
  return experts;
}

/// |W v| for W = the update of an expert.
double answer(const ArrowExperts& experts, Index e, std::span<const double> v) {
  Matrix<double> update(adapter_out, adapter_in);
  experts.add_delta(e, 1, update.view());
  double squares = 0;
  for (Index o = 0; o < adapter_out; ++o) {
    double sum = 0;
    for (Index i = 0; i < adapter_in; ++i) sum += update(o, i) * v[std::size_t(i)];
    squares += sum * sum;
  }
  return std::sqrt(squares);
}

}  // namespace

TEST_CASE("No direction is answered more strongly than an expert's prototype, which has length 1", "[surgery]") {
  for (const bool shared_down : {false, true}) {
    const ArrowExperts experts =
        arrow_experts(shared_down ? std::vector<int>{4, 4} : std::vector<int>{3, 1, 12}, shared_down);
    const Matrix<double> prototypes = arrow_prototypes(experts);
    REQUIRE(prototypes.rows() == experts.experts());
    for (Index e = 0; e < experts.experts(); ++e) {
      const std::span<const double> v = prototypes.view().row(e);
      double length = 0, largest = 0;
      for (double element : v) {
        length += element * element;
        if (std::abs(element) > std::abs(largest)) largest = element;
      }
      CHECK(std::abs(length - 1) < 1e-13);
      CHECK(largest > 0);
      const double most = answer(experts, e, v);
      Rng rng(9);
      for (int trial = 0; trial < 200; ++trial) {
        std::vector<double> w(v.begin(), v.end());
        double squares = 0;
        for (double& element : w) element += 0.1 * standard_normal(rng), squares += element * element;
        for (double& element : w) element /= std::sqrt(squares);
        CHECK(answer(experts, e, w) <= most * (1 + 1e-12));
      }
    }
  }
}

TEST_CASE("The prototype of one rank is the direction of its row of A", "[surgery]") {
  ArrowExperts experts = arrow_experts({1});
  experts.parameters().lora_A.set_zero();
  experts.parameters().lora_A(0, 2) = -3;
  experts.parameters().lora_A(0, 5) = -4;
  const Matrix<double> prototypes = arrow_prototypes(experts);
  for (Index i = 0; i < adapter_in; ++i) CHECK(std::abs(prototypes(0, i) - (i == 2 ? 0.6 : i == 5 ? 0.8 : 0)) < 1e-15);
}

TEST_CASE("Factors with the opposite sign, and other scales, have the same prototypes", "[surgery]") {
  ArrowExperts experts = arrow_experts({3, 2});
  const Matrix<double> before = arrow_prototypes(experts);
  for (double& a : experts.parameters().lora_A.elements()) a = -a;
  const Matrix<double> of_minus_a = arrow_prototypes(experts);
  for (double& b : experts.parameters().lora_B.elements()) b = -b;
  experts.scale()[1] = 7;
  CHECK(support::largest_difference(arrow_prototypes(experts), before) < 1e-13);
  CHECK(support::largest_difference(of_minus_a, before) < 1e-13);
}

TEST_CASE("An expert that adds nothing has a prototype of zeros, and one that is not finite is refused", "[surgery]") {
  ArrowExperts experts = arrow_experts({2, 2});
  for (Index j = 0; j < 2; ++j)
    for (double& b : experts.parameters().lora_B.view().row(j)) b = 0;
  const Matrix<double> prototypes = arrow_prototypes(experts);
  for (Index i = 0; i < adapter_in; ++i) CHECK(prototypes(0, i) == 0);
  CHECK(std::abs(answer(experts, 1, prototypes.view().row(1))) > 0.1);
  experts.parameters().lora_A(3, 0) = std::numeric_limits<double>::quiet_NaN();
  CHECK(code_of([&] { arrow_prototypes(experts); }) == ErrorCode::option);
}

TEST_CASE("A rank gate counts in a prototype", "[surgery]") {
  Rng rng(1);
  LowRank<GatedRanks<double>> experts({.in = adapter_in, .out = adapter_out, .rank = 2}, rng);
  auto& parameters = experts.parameters();
  parameters.lora_A.set_zero();
  parameters.lora_A(0, 1) = parameters.lora_A(1, 4) = 1;
  fill_uniform(parameters.lora_B.view(), 1, rng);
  parameters.gate(0, 0) = 0;
  parameters.gate(0, 1) = 1;
  CHECK(std::abs(arrow_prototypes(experts)(0, 4) - 1) < 1e-15);
}
