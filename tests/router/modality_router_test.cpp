// SPDX-License-Identifier: MIT
#include "mole/router/modality_router.hpp"

#include "core/error_code.hpp"
#include "mole/router/cosine_router.hpp"
#include "mole/router/linear_router.hpp"
#include "mole/testing/router_laws.hpp"
#include "support/catch.hpp"
#include "support/layers.hpp"

#include <limits>

using namespace mole;
using support::random_matrix;

namespace {

/// Three modalities, 11 inputs, a router of 5 inputs and 4 experts.
ModalityRouter<LinearRouter<double>> modality_router() {
  Rng rng(2);
  return {LinearRouter<double>({.in = 5, .experts = 4}, rng), {.in = 11, .modalities = 3}, rng};
}

template <class Router>
Matrix<double> logits_with(const Router& router, const Matrix<double>& x, const Pass& pass) {
  laws::Harness<Router> harness(router, x.rows(), 0, pass);
  return laws::logits_of(router, x, harness.call());
}

}  // namespace

static_assert(TrainableRouterPolicy<ModalityRouter<LinearRouter<float>>>);

TEMPLATE_TEST_CASE("ModalityRouter keeps the laws of routers, where all tokens have one modality", "[router]", float,
                   double) {
  Rng rng(1);
  const ModalityRouter router(CosineRouter<TestType>({.in = 6, .experts = 4}, rng), {.in = 13}, rng);
  CHECK(laws::broken_router_law(router, 13) == "");
  CHECK(laws::broken_trainable_router_law(router, 13) == "");
}

TEST_CASE("Each token goes through the map of its modality, whatever its neighbors are", "[router]") {
  const auto router = modality_router();
  const auto& projection = router.parameters().projection;
  const auto x = random_matrix<double>(7, 11, 1);
  const std::vector<int> labels{2, 2, 0, 1, 1, 1, 2};
  const auto logits = logits_with(router, x, {.labels = labels});
  for (Index n = 0; n < 7; ++n) {
    Matrix<double> u(1, 5);
    for (Index j = 0; j < 5; ++j) {
      const Index row = 5 * labels[std::size_t(n)] + j;
      u(0, j) = projection.bias(0, row);
      for (Index i = 0; i < 11; ++i) u(0, j) += projection.weight(row, i) * x(n, i);
    }
    const auto expected = laws::logits_of(router.router(), u);
    for (Index e = 0; e < 4; ++e) CHECK(std::abs(logits(n, e) - expected(0, e)) < 1e-14);
  }
}

TEST_CASE("Maps that are identities leave the router as it is", "[router]") {
  Rng rng(1);
  const LinearRouter<double> plain({.in = 6, .experts = 4}, rng);
  const ModalityRouter router(plain, {.in = 6, .modalities = 2, .identity = true}, rng);
  const auto x = random_matrix<double>(3, 6, 1);
  const std::vector<int> labels{1, 0, 1};
  CHECK(support::same_bits(logits_with(router, x, {.labels = labels}), laws::logits_of(plain, x)));
}

TEST_CASE("A layer has the right gradients through the maps, and its experts see x itself", "[router]") {
  const auto plain = support::routed_layer<double>({}, Gate{Softmax{}, All{}, Raw{}});
  MixtureLinear layer(modality_router(), plain.gating(), plain.experts(), plain.base(), Reference{});
  const std::vector<int> labels{2, 2, 0, 2, 0};
  CheckGradientsOptions options{.pass = {.labels = labels}};
  options.tokens = 5;
  const GradientReport report = check_gradients(layer, options);
  INFO(report.worst_tensor);
  CHECK(report.worst < 1e-7);

  layer.router().router().parameters().weight.set_zero();  // equal gates, whatever the maps do
  auto equal = plain;
  equal.router().parameters().weight.set_zero();
  const auto x = random_matrix<double>(5, 11, 3);
  CHECK(support::same_bits(support::output(layer, x, {.labels = labels}), support::output(equal, x)));
}

TEST_CASE("A token that is not routed reaches no map, whatever it and its label are", "[router]") {
  const auto plain = support::routed_layer<double>({}, support::top_2());
  const MixtureLinear layer(modality_router(), plain.gating(), plain.experts(), plain.base(), Reference{});
  auto x = random_matrix<double>(3, 11, 6);
  x(1, 4) = std::numeric_limits<double>::quiet_NaN();
  const std::vector<std::uint8_t> routed{1, 0, 1};
  const std::vector<int> labels{1, -5, 1};
  const auto d_y = random_matrix<double>(3, 13, 7);
  Matrix<double> y(3, 13), d_x(3, 11);
  auto work = layer.workspace(3);
  auto gradients = layer.gradients();
  layer.forward(x, y, work, {.routed = routed, .labels = labels});
  layer.backward(x, d_y, d_x, gradients, work);
  CHECK(support::all_finite(std::as_const(gradients.router.projection.weight).elements()));
  CHECK(support::all_finite(std::as_const(d_x).elements()));
  for (Index row = 0; row < 15; ++row) CHECK((gradients.router.projection.weight(row, 0) != 0) == (row / 5 == 1));
}

TEST_CASE("ModalityRouter refuses sizes below 1, identities that are not square, and labels out of range", "[router]") {
  Rng rng(1);
  const LinearRouter<double> plain({.in = 6, .experts = 4}, rng);
  const auto code = [&](const ModalityRouterOptions& options) {
    return test::code_of([&] { ModalityRouter(plain, options, rng); });
  };
  CHECK(code({.in = 0}) == ErrorCode::option);
  CHECK(code({.in = 6, .modalities = 0}) == ErrorCode::option);
  CHECK(code({.in = 5, .identity = true}) == ErrorCode::option);
  auto router = modality_router();
  const auto x = random_matrix<double>(2, 11, 3);
  const std::vector<int> beyond{0, 3};
  CHECK(test::code_of([&] { logits_with(router, x, {.labels = beyond}); }) == ErrorCode::option);
  CHECK(test::code_of([&] { logits_with(router, x, {}); }) == ErrorCode::option);
  router.parameters().projection.weight = Matrix<double>(14, 11);
  router.parameters().projection.bias = Matrix<double>(1, 14);
  CHECK(test::code_of([&] { router.check_sizes(); }) == ErrorCode::shape);
}
