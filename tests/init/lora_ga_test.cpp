// SPDX-License-Identifier: MIT
#include "mole/init/lora_ga.hpp"

#include "init/init_checks.hpp"

using namespace mole;
using namespace init_checks;

TEST_CASE("lora_ga gives back the weight, and its factors are directions of the gradient", "[init]") {
  const auto gradient = support::random_matrix<double>(out, in, 4);
  const auto found = svd(gradient);
  using D = LoraGaDirections;
  using S = LoraGaScale;
  for (D directions : {D::interleaved, D::a_after_b, D::b_after_a})
    for (S scale : {S::stable, S::weight, S::over_scale, S::unit}) {
      auto experts = experts_of(3);
      Matrix<double> residual(out, in);
      lora_ga_init(experts, weight, gradient, residual.view(), {.directions = directions, .scale = scale});
      CHECK(support::largest_difference(weight_of(experts, residual), weight) < 1e-12);
      for (Index j = 0; j < 3; ++j) {
        const Index a = directions == D::interleaved ? 2 * j + 1 : directions == D::a_after_b ? 3 + j : j;
        const Index b = directions == D::interleaved ? 2 * j : directions == D::b_after_a ? 3 + j : j;
        const Index first_b = directions == D::b_after_a ? 3 : 0;
        const double of_a = scale == S::over_scale ? 0.5 : 1;
        const double of_b = scale == S::over_scale ? 0.5
                            : scale == S::unit     ? 1
                            : scale == S::stable   ? std::pow(double(out), 0.25) / 4
                                                   : svd(weight).s[0] / found.s[std::size_t(first_b)];
        double along_a = 0, along_b = 0;
        for (Index i = 0; i < in; ++i) along_a += experts.parameters().lora_A(j, i) * found.v(i, a);
        for (Index o = 0; o < out; ++o) along_b += experts.parameters().lora_B(j, o) * found.u(o, b);
        CHECK(std::abs(along_a) == Approx(of_a).epsilon(1e-11));
        CHECK(std::abs(along_b) == Approx(of_b * found.s[std::size_t(b)]).epsilon(1e-11));
      }
    }
}

TEST_CASE("lora_ga refuses what does not fit", "[init]") {
  const auto gradient = support::random_matrix<double>(out, in, 4);
  check_refusals([&](auto& experts, const Matrix<double>& from) {
    lora_ga_init(experts, from.rows() == out && from.cols() == in ? weight : from, from, {});
  });
  auto experts = experts_of(2);
  CHECK(test::code_of([&] { lora_ga_init(experts, weight, Matrix<double>(in, in), {}); }) == ErrorCode::shape);
  CHECK(test::code_of([&] { lora_ga_init(experts, weight, gradient, {}, {.gamma = 0}); }) == ErrorCode::option);
  const double infinity = std::numeric_limits<double>::infinity();
  CHECK(test::code_of([&] { lora_ga_init(experts, weight, gradient, {}, {.gamma = infinity}); }) == ErrorCode::option);
  check_refusals([&](auto& refusing, const Matrix<double>& from) { lora_ga_init(refusing, from, gradient, {}); });
}
