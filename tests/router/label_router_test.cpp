// SPDX-License-Identifier: MIT
#include "mole/router/label_router.hpp"

#include "core/error_code.hpp"
#include "mole/router/linear_router.hpp"
#include "mole/router/mlp_router.hpp"
#include "mole/router/modality_router.hpp"
#include "mole/router/noisy_router.hpp"
#include "mole/router/pooled_router.hpp"
#include "mole/testing/router_laws.hpp"
#include "support/catch.hpp"
#include "support/layers.hpp"

#include <limits>

using namespace mole;
using support::random_matrix;

namespace {

/// Three labels, four experts, embeddings of 5.
LabelRouter<MlpRouter<double>> label_router() {
  Rng rng(2);
  return {MlpRouter<double>({.in = 5, .hidden = 6, .experts = 4}, rng), 3, rng};
}

auto labeled_layer() {
  const auto plain = support::routed_layer<double>({}, Gate{Softmax{}, All{}, Raw{}});
  return MixtureLinear(label_router(), plain.gating(), plain.experts(), plain.base(), Reference{});
}

}  // namespace

static_assert(TrainableRouterPolicy<LabelRouter<LinearRouter<float>>>);

TEMPLATE_TEST_CASE("LabelRouter keeps the laws of routers, where all tokens have one label", "[router]", float,
                   double) {
  Rng rng(1);
  const LabelRouter router(LinearRouter<TestType>({.in = 6, .experts = 4}, rng), 1, rng);
  CHECK(laws::broken_router_law(router, 13) == "");
  CHECK(laws::broken_trainable_router_law(router, 13) == "");
}

TEST_CASE("Logits are the router's for the embedding of the label, whatever the token holds", "[router]") {
  const auto router = label_router();
  const auto of_labels = laws::logits_of(router.router(), Matrix<double>(router.parameters().embedding));
  const std::vector<int> labels{2, 0, 2, 1, 0};
  auto x = random_matrix<double>(5, 9, 1);
  x(3, 3) = std::numeric_limits<double>::quiet_NaN();
  Matrix<double> logits(5, 4);
  laws::Harness<LabelRouter<MlpRouter<double>>> harness(router, 5, 0, Pass{.labels = labels});
  router.forward(x, logits.view(), harness.call());
  for (Index n = 0; n < 5; ++n)
    for (Index e = 0; e < 4; ++e) CHECK(logits(n, e) == of_labels(labels[std::size_t(n)], e));
}

TEST_CASE("A layer that routes by labels has the right gradients, of the embedding, too", "[router]") {
  auto layer = labeled_layer();
  const std::vector<int> labels{2, 0, 2, 2, 0, 0, 2};
  CheckGradientsOptions options{.pass = {.labels = labels}};
  options.tokens = 7;
  const GradientReport report = check_gradients(layer, options);
  INFO(report.worst_tensor);
  CHECK(report.worst < 1e-7);
  CHECK(report.checked > 0);

  const auto x = random_matrix<double>(7, 11, 3), d_y = random_matrix<double>(7, 13, 4);
  Matrix<double> y(7, 13), d_x(7, 11);
  auto work = layer.workspace(7);
  auto gradients = layer.gradients();
  layer.forward(x, y, work, options.pass);
  layer.backward(x, d_y, d_x, gradients, work);
  for (double d : gradients.router.embedding.view().row(1)) CHECK(d == 0);  // nobody's label
  CHECK(support::largest_difference(gradients.router.embedding, Matrix<double>(3, 5)) > 1e-4);
}

TEST_CASE("Labels out of range, or none of several, are refused; those of unrouted tokens do not matter", "[router]") {
  const auto layer = labeled_layer();
  const auto x = random_matrix<double>(2, 11, 3);
  Matrix<double> y(2, 13);
  auto work = layer.workspace(2);
  const auto code = [&](const Pass& pass) { return test::code_of([&] { layer.forward(x, y, work, pass); }); };
  const std::vector<int> beyond{0, 3}, below{-1, 0}, fitting{0, 2}, too_many{0, 1, 2};
  const std::vector<std::uint8_t> first{1, 0}, second{0, 1};
  CHECK(code({.labels = beyond}) == ErrorCode::option);
  CHECK(code({.labels = below}) == ErrorCode::option);
  CHECK(code({}) == ErrorCode::option);
  CHECK(code({.labels = too_many}) == ErrorCode::shape);
  CHECK_FALSE(code({.labels = fitting}));
  CHECK_FALSE(code({.routed = first, .labels = beyond}));
  CHECK_FALSE(code({.routed = second, .labels = below}));
}

TEST_CASE("LabelRouter refuses no label, and an embedding that does not fit", "[router]") {
  Rng rng(1);
  const LinearRouter<double> linear({.in = 6, .experts = 4}, rng);
  CHECK(test::code_of([&] { LabelRouter(linear, 0, rng); }) == ErrorCode::option);
  auto layer = labeled_layer();
  layer.router().parameters().embedding = Matrix<double>(3, 4);
  CHECK(test::code_of([&] { layer.workspace(2); }) == ErrorCode::shape);
}

TEST_CASE("A router that looks at tokens of the pass sees none under LabelRouter, whose rows are labels", "[router]") {
  Rng rng(2);
  const LinearRouter<double> inner({.in = 5, .experts = 4}, rng);
  const PooledRouter pool(inner);
  const NoisyRouter noise(inner, {.floor = 1});
  const LabelRouter pooled(pool, 3, rng);
  const LabelRouter noisy(noise, 3, rng);
  const std::vector<int> labels{2, 0};
  const std::vector<std::uint8_t> routed{0, 1};
  const std::vector<Index> starts{0, 1};
  const auto x = random_matrix<double>(2, 11, 3), d_logits = random_matrix<double>(2, 4, 4);
  const auto logits_of = [&](const auto& router, const Pass& pass) {
    Matrix<double> logits(2, 4), d_x(2, 11);
    laws::Harness<std::remove_cvref_t<decltype(router)>> harness(router, 2, 0, pass);
    auto gradients = zeros_like(ParametersOf<std::remove_cvref_t<decltype(router)>>(parameters_of(router)));
    router.forward(x, logits.view(), harness.call());
    router.backward(x, d_logits, d_x.view(), gradients, harness.call());
    return logits;
  };
  const Pass pass{.training = true, .routed = routed, .labels = labels, .sequence_begin = starts};
  Pass later = pass;
  later.first_token = 40;
  const auto of_pool = logits_of(pooled, pass);  // the mean of all labels
  for (Index e = 0; e < 4; ++e) {
    double mean = 0;
    for (Index l = 0; l < 3; ++l)
      for (Index i = 0; i < 5; ++i) mean += pooled.parameters().embedding(l, i) * inner.parameters().weight(e, i) / 3;
    CHECK(std::abs(of_pool(1, e) - mean) < 1e-14);
  }
  CHECK(support::same_bits(logits_of(noisy, pass), logits_of(noisy, later)));  // noise of a label, in any piece
}

TEST_CASE("A batch of no tokens has no labels, and needs none", "[router]") {
  const auto layer = labeled_layer();
  auto work = layer.workspace(3);
  auto gradients = layer.gradients();
  Matrix<double> x(0, layer.in()), y(0, layer.out());
  layer.forward(x, y, work);
  layer.backward(x, y, x.view(), gradients, work);
  for (double d : gradients.router.embedding.elements()) CHECK(d == 0);
  Rng rng(1);
  const ModalityRouter modal(LinearRouter<double>({.in = 5, .experts = 4}, rng), {.in = 11, .modalities = 2}, rng);
  laws::Harness<std::remove_const_t<decltype(modal)>> harness(modal, 0);
  Matrix<double> logits(0, 4);
  CHECK_NOTHROW(modal.forward(x, logits.view(), harness.call()));
}
