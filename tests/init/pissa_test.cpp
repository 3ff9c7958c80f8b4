// SPDX-License-Identifier: MIT
#include "mole/init/pissa.hpp"

#include "init/init_checks.hpp"

using namespace mole;
using namespace init_checks;

TEST_CASE("pissa takes the best update of its rank from the weight, and gives it back", "[init]") {
  const auto sigma = svd(weight).s;
  for (Index ranks : {1, 3, 9})
    for (double alpha : {1.0, 6.0}) {
      auto experts = experts_of(ranks, alpha);
      Matrix<double> residual(out, in);
      pissa_init(experts, weight, residual.view());
      CHECK(support::largest_difference(weight_of(experts, residual), weight) < 1e-13);
      double rest = 0;
      for (std::size_t j = std::size_t(ranks); j < sigma.size(); ++j) rest += sigma[j] * sigma[j];
      CHECK(std::abs(norm(residual) - std::sqrt(rest)) < 1e-12);
      // A and B have equal shares of each direction
      for (Index j = 0; j < ranks; ++j) {
        double a = 0, b = 0;
        for (double element : experts.parameters().lora_A.view().row(j)) a += element * element;
        for (double element : experts.parameters().lora_B.view().row(j)) b += element * element;
        CHECK(a == Approx(b).epsilon(1e-12));
      }
    }
}

TEST_CASE("pissa may write its residual over the weight, or nowhere", "[init]") {
  auto one = experts_of(3), two = experts_of(3), three = experts_of(3);
  Matrix<double> residual(out, in), in_place = weight;
  pissa_init(one, weight, residual.view());
  pissa_init(two, in_place.view(), in_place.view());
  pissa_init(three, weight, {});
  CHECK(support::same_bits(residual, in_place));
  CHECK(support::same_bits(one.parameters().lora_A, three.parameters().lora_A));
}

TEST_CASE("pissa by random projection comes near the exact one", "[init]") {
  Matrix<double> decaying = weight, exact_rest(out, in), near_rest(out, in);
  const auto all = svd(weight);
  for (Index o = 0; o < out; ++o)
    for (Index i = 0; i < in; ++i) {
      decaying(o, i) = 0;
      for (Index j = 0; j < in; ++j) decaying(o, i) += all.u(o, j) * std::pow(0.3, double(j)) * all.v(i, j);
    }
  auto exact = experts_of(2), near = experts_of(2);
  pissa_init(exact, decaying, exact_rest.view());
  pissa_init(near, decaying, near_rest.view(), {.power_iterations = 3});
  CHECK(support::largest_difference(exact_rest, near_rest) < 1e-9);
}

TEST_CASE("Ranks beyond the weight's become 0 under pissa", "[init]") {
  auto experts = experts_of(11);
  Matrix<double> residual(out, in);
  pissa_init(experts, weight, residual.view());
  CHECK(norm(residual) < 1e-12);
  for (Index j = 9; j < 11; ++j) {
    for (double element : experts.parameters().lora_A.view().row(j)) CHECK(element == 0);
    for (double element : experts.parameters().lora_B.view().row(j)) CHECK(element == 0);
  }
}

TEST_CASE("pissa refuses what does not fit", "[init]") {
  const auto initialize = [](auto& experts, const Matrix<double>& from) { pissa_init(experts, from, {}); };
  check_refusals(initialize);
  auto experts = experts_of(2, 0);
  CHECK(test::code_of([&] { initialize(experts, weight); }) == ErrorCode::option);
  auto fine = experts_of(2);
  Matrix<double> small(out, in - 1);
  CHECK(test::code_of([&] { pissa_init(fine, weight, small.view()); }) == ErrorCode::shape);
  CHECK(test::code_of([&] { pissa_init(fine, weight, {}, {.expert = 1}); }) == ErrorCode::option);
  for (double scale : {std::numeric_limits<double>::infinity(), std::numeric_limits<double>::quiet_NaN()}) {
    fine.scale()[0] = scale;
    CHECK(test::code_of([&] { pissa_init(fine, weight, {}); }) == ErrorCode::option);
  }
}

TEST_CASE("pissa writes no residual over a part of the weight", "[init]") {
  Matrix<double> memory(out + 2, in + 2);
  copy(weight.view(), memory.view().top(out).middle_cols(0, in));
  const View<double> from = memory.view().top(out).middle_cols(0, in);
  const auto code_for = [&](View<double> residual) {
    auto experts = experts_of(2);
    return test::code_of([&] { pissa_init(experts, from, residual); });
  };
  CHECK(code_for(memory.view().middle_rows(1, out).middle_cols(0, in)) == ErrorCode::shape);
  CHECK(code_for(memory.view().top(out).middle_cols(1, in)) == ErrorCode::shape);
  CHECK(code_for(View<double>(memory.elements().data(), out, in)) == ErrorCode::shape);  // rows at another distance
  for (Index o = 0; o < out; ++o) CHECK(std::ranges::equal(from.row(o), weight.view().row(o)));
  auto experts = experts_of(2);
  pissa_init(experts, from, from);
}
