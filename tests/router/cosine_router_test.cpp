// SPDX-License-Identifier: MIT
#include "mole/router/cosine_router.hpp"

#include "core/error_code.hpp"
#include "loss/loss_trace.hpp"
#include "mole/testing/router_laws.hpp"
#include "support/catch.hpp"
#include "support/random_matrix.hpp"

using namespace mole;

namespace {

constexpr Index in = 6, experts = 4, tokens = 5;

/// With long prototypes, so that a step of central differences is small beside them.
template <class T = double>
CosineRouter<T> router(Index projection, bool learned_scale) {
  Rng rng(1);
  return {{.in = in, .experts = experts, .projection = projection, .learned_scale = learned_scale, .deviation = 1},
          rng};
}

struct Gradients {
  ParametersOf<CosineRouter<double>> parameters;
  Matrix<double> x;
};

/// Of sum(logits * d_logits).
Gradients gradients_of(const CosineRouter<double>& router, const Matrix<double>& x, const Matrix<double>& d_logits) {
  laws::Harness<CosineRouter<double>> harness(router, x.rows());
  auto call = harness.call();
  laws::logits_of(router, x, call);
  Gradients gradients{zeros_like(router.parameters()), Matrix<double>(x.rows(), x.cols())};
  router.backward(x, d_logits, gradients.x.view(), gradients.parameters, call);
  return gradients;
}

}  // namespace

TEMPLATE_TEST_CASE("CosineRouter keeps the laws of routers, with a projection and a learned scale and without",
                   "[router]", float, double) {
  const auto tested = router<TestType>(GENERATE(0, 3), GENERATE(false, true));
  CHECK(laws::broken_router_law(tested, in) == "");
  CHECK(laws::broken_trainable_router_law(tested, in) == "");
}

TEST_CASE("CosineRouter's logits are scaled cosines of the projected token and the prototypes", "[router]") {
  Rng rng(1);
  CosineRouter<double> tested({.in = 2, .experts = 3, .projection = 2, .learned_scale = true}, rng);
  auto& p = tested.parameters();
  CHECK(test::near(tested.scale(), 2));
  p.log_scale(0, 0) = std::log(10);
  p.projection.weight(0, 0) = 1, p.projection.weight(0, 1) = 2;
  p.projection.weight(1, 0) = 0, p.projection.weight(1, 1) = -1;
  p.projection.bias(0, 0) = -1, p.projection.bias(0, 1) = 6;
  const double prototypes[] = {0, 5, -2, 0, 0.03, 0.04};
  std::copy(std::begin(prototypes), std::end(prototypes), p.prototypes.data());
  Matrix<double> x(1, 2);
  x(0, 0) = 0, x(0, 1) = 2;  // projected: (3, 4), of length 5
  const auto logits = laws::logits_of(tested, x);
  CHECK(test::near(logits(0, 0), 8));
  CHECK(test::near(logits(0, 1), -6));
  CHECK(test::near(logits(0, 2), 10));
}

TEST_CASE("CosineRouter compares tokens themselves where it has no projection, and its scale is 1", "[router]") {
  const auto tested = router(0, false);
  CHECK(tested.in() == in);
  CHECK(tested.scale() == 1);
  CHECK(tested.parameters().projection.weight.empty());
  CHECK(tested.parameters().log_scale.empty());
  Matrix<double> x = tested.parameters().prototypes;
  for (double& element : x.elements()) element *= -3;
  const auto logits = laws::logits_of(tested, x);
  for (Index e = 0; e < experts; ++e) CHECK(test::near(logits(e, e), -1));
}

TEST_CASE("CosineRouter's logits do not change when a token or a prototype is scaled", "[router]") {
  for (double factor : {3.7, 1e-6, 1e6}) {
    auto tested = router(0, true);
    Matrix<double> x = support::random_matrix<double>(tokens, in, 2);
    const auto logits = laws::logits_of(tested, x);
    for (double& element : x.view().row(1)) element *= factor;
    for (double& element : tested.parameters().prototypes.view().row(2)) element *= factor;
    CHECK(support::largest_difference(laws::logits_of(tested, x), logits) < 1e-14);
  }
}

TEST_CASE("CosineRouter's gradients are those of its logits", "[router]") {
  auto tested = router(GENERATE(0, 3), GENERATE(false, true));
  Matrix<double> x = support::random_matrix<double>(tokens, in, 3);
  const auto d_logits = support::random_matrix<double>(tokens, experts, 4);
  const auto value = [&] {
    const auto logits = laws::logits_of(tested, x);
    double sum = 0;
    for (std::size_t i = 0; i < logits.elements().size(); ++i) sum += logits.elements()[i] * d_logits.elements()[i];
    return sum;
  };
  const Gradients found = gradients_of(tested, x, d_logits);
  CHECK(test::gradient_error(x.elements(), found.x.elements(), value) < test::gradient_tolerance);
  ParametersOf<CosineRouter<double>>::for_each_tensor(
      [&](std::string_view name, Matrix<double>& parameter, const Matrix<double>& gradient) {
        INFO(name);
        CHECK(parameter.size() == gradient.size());
        CHECK(test::gradient_error(parameter.elements(), gradient.elements(), value) < test::gradient_tolerance);
      },
      tested.parameters(), found.parameters);
}

TEST_CASE("No logit of CosineRouter is beyond its scale, also at the ends of float", "[router]") {
  Rng rng(2);
  CosineRouter<float> tested({.in = 6, .experts = 5, .learned_scale = true}, rng);
  for (const float size : {1e-18f, 1e-3f, 1.0f, 1e3f, 1e18f}) {
    Matrix<float> x = support::random_matrix<float>(7, 6, 3);
    for (float& number : x.elements()) number *= size;
    tested.parameters().prototypes = support::random_matrix<float>(5, 6, 4);
    for (float& number : tested.parameters().prototypes.elements()) number *= size;
    std::ranges::copy(x.view().row(0), tested.parameters().prototypes.view().row_data(0));
    const auto logits = laws::logits_of(tested, x);
    for (float logit : logits.elements()) CHECK(std::abs(logit) <= float(tested.scale()) * (1 + 1e-6f));
  }
}

TEST_CASE("CosineRouter's scale ends at 100, and so does its gradient", "[router]") {
  auto tested = router(0, true);
  const auto x = support::random_matrix<double>(tokens, in, 5),
             d_logits = support::random_matrix<double>(tokens, experts, 6);
  const auto at = [&](double log_scale) {
    tested.parameters().log_scale(0, 0) = log_scale;
    return laws::logits_of(tested, x);
  };
  const auto unscaled = at(0);
  const auto bounded = at(7);
  CHECK(tested.scale() == Approx(100).epsilon(1e-14));
  for (std::size_t i = 0; i < unscaled.elements().size(); ++i)
    CHECK(test::near(bounded.elements()[i], 100 * unscaled.elements()[i]));
  CHECK(gradients_of(tested, x, d_logits).parameters.log_scale(0, 0) == 0);
  CHECK_FALSE(test::all_zero(gradients_of(tested, x, d_logits).x.elements()));

  double sum = 0;
  for (std::size_t i = 0; i < unscaled.elements().size(); ++i)
    sum += 100 * unscaled.elements()[i] * d_logits.elements()[i];
  at(std::log(100));  // the bound itself still has a gradient
  CHECK(test::near(gradients_of(tested, x, d_logits).parameters.log_scale(0, 0), sum));
}

TEMPLATE_TEST_CASE("CosineRouter gives a token of zeros no logits and no gradient", "[router]", float, double) {
  using T = TestType;
  const auto tested = router<T>(0, true);
  auto x = support::random_matrix<T>(2, in, 7);
  for (T& element : x.view().row(1)) element = 0;
  laws::Harness<CosineRouter<T>> harness(tested, 2);
  auto call = harness.call();
  const auto logits = laws::logits_of(tested, x, call);
  for (T logit : logits.view().row(1)) CHECK(logit == 0);
  auto both = zeros_like(tested.parameters()), first = both;
  Matrix<T> d_x(2, in);
  const auto d_logits = support::random_matrix<T>(2, experts, 8);
  tested.backward(x, d_logits, d_x.view(), both, call);
  for (T d : d_x.view().row(1)) CHECK(d == 0);
  tested.backward(x.view().top(1), d_logits.view().top(1), {}, first, call);
  CHECK(support::same_bits(both.prototypes, first.prototypes));
  CHECK(support::same_bits(both.log_scale, first.log_scale));
}

TEMPLATE_TEST_CASE("CosineRouter's cosine with a prototype of zeros is 0, and gives it no gradient", "[router]", float,
                   double) {
  using T = TestType;
  auto tested = router<T>(0, false);
  for (T& element : tested.parameters().prototypes.view().row(2)) element = 0;
  const auto x = support::random_matrix<T>(tokens, in, 9), d_logits = support::random_matrix<T>(tokens, experts, 10);
  laws::Harness<CosineRouter<T>> harness(tested, tokens);
  auto call = harness.call();
  const auto logits = laws::logits_of(tested, x, call);
  auto gradients = zeros_like(tested.parameters());
  Matrix<T> d_x(tokens, in);
  tested.backward(x, d_logits, d_x.view(), gradients, call);
  for (Index n = 0; n < tokens; ++n) CHECK(logits(n, 2) == 0);
  for (T d : gradients.prototypes.view().row(2)) CHECK(d == 0);
  for (T d : gradients.prototypes.view().row(1)) CHECK((d != 0 && std::isfinite(d)));
  CHECK(support::all_finite(std::span<const T>(d_x.elements())));
}

TEST_CASE("CosineRouter divides a token shorter than 1e-12 by that", "[router]") {
  auto tested = router(0, false);
  for (double& element : tested.parameters().prototypes.elements()) element = 0;
  for (Index e = 0; e < experts; ++e) tested.parameters().prototypes(e, e) = 2;
  Matrix<double> x(1, in), d_logits(1, experts);
  x(0, 1) = 5e-13, x(0, 4) = 2e-13;
  d_logits(0, 1) = 1, d_logits(0, 3) = -2;
  CHECK(test::near(laws::logits_of(tested, x)(0, 1), 0.5));
  const Gradients found = gradients_of(tested, x, d_logits);
  for (Index i = 0; i < in; ++i) CHECK(test::near(found.x(0, i) * 1e-12, i == 1 ? 1 : i == 3 ? -2 : 0));
}

TEST_CASE("CosineRouter freezes its projection alone, or all but it", "[router]") {
  const auto tested = router(3, true);
  const auto x = support::random_matrix<double>(tokens, in, 11),
             d_logits = support::random_matrix<double>(tokens, experts, 12);
  const Gradients all = gradients_of(tested, x, d_logits);
  laws::Harness<CosineRouter<double>> harness(tested, tokens);
  auto call = harness.call();
  laws::logits_of(tested, x, call);
  ParametersOf<CosineRouter<double>> rest = zeros_like(tested.parameters()), projection;
  std::swap(rest.projection, projection.projection);
  tested.backward(x, d_logits, {}, rest, call);
  tested.backward(x, d_logits, {}, projection, call);
  CHECK(rest.projection.weight.empty());
  CHECK(support::same_bits(rest.prototypes, all.parameters.prototypes));
  CHECK(support::same_bits(rest.log_scale, all.parameters.log_scale));
  CHECK(projection.prototypes.empty());
  CHECK(support::same_bits(projection.projection.weight, all.parameters.projection.weight));
  CHECK(support::same_bits(projection.projection.bias, all.parameters.projection.bias));
}

TEST_CASE("CosineRouter's prototypes start normal, its projection uniform", "[router]") {
  Rng rng(3);
  const CosineRouter<double> tested({.in = 400, .experts = 100, .projection = 200, .deviation = 0.01}, rng);
  double square = 0, most = 0;
  for (double c : tested.parameters().prototypes.elements()) square += c * c;
  CHECK(square / 20000 == Approx(1e-4).epsilon(0.05));
  for (double w : tested.parameters().projection.weight.elements()) most = std::max(most, std::abs(w));
  CHECK(most <= 0.05);
  CHECK(most > 0.0499);
  for (double b : tested.parameters().projection.bias.elements()) CHECK((b != 0 && std::abs(b) <= 0.05));
}

TEST_CASE("CosineRouter refuses sizes and deviations out of range", "[router]") {
  const auto code = [](const CosineRouter<float>::Options& options) {
    Rng rng(4);
    return test::code_of([&] { CosineRouter<float>(options, rng); });
  };
  CHECK(code({.in = 0, .experts = 3}) == ErrorCode::option);
  CHECK(code({.in = 3, .experts = 0}) == ErrorCode::option);
  CHECK(code({.in = 3, .experts = 3, .projection = -1}) == ErrorCode::option);
  CHECK(code({.in = 3, .experts = 3, .deviation = 0}) == ErrorCode::option);
  CHECK(code({.in = 3, .experts = 3, .deviation = std::nan("")}) == ErrorCode::option);
  CHECK_FALSE(code({.in = 3, .experts = 3}));
}
