// SPDX-License-Identifier: MIT
#include "mole/router/logit_offsets.hpp"

#include "core/error_code.hpp"
#include "mole/router/cosine_router.hpp"
#include "mole/router/latent_router.hpp"
#include "mole/router/linear_router.hpp"
#include "mole/testing/router_laws.hpp"
#include "support/catch.hpp"
#include "support/layers.hpp"

#include <limits>
#include <memory>

using namespace mole;
using support::random_matrix;

namespace {

/// A layer whose router has offsets, of sizes that are not those of its experts.
auto layer_with_offsets() {
  auto plain = support::routed_layer<double>({}, support::top_2());
  LogitOffsets router(plain.router());
  for (Index e = 0; e < 4; ++e) router.parameters().offsets(0, e) = 0.1 * double(e * e) - 0.3;
  return MixtureLinear(router, plain.gating(), plain.experts(), plain.base(), Reference{});
}

struct OnlyForward {
  using Scalar = double;
  Index outputs() const { return 2; }
  void forward(View<const double>, View<double> logits) const { fill(logits, 1.0); }
};

}  // namespace

static_assert(TrainableRouterPolicy<LogitOffsets<LinearRouter<float>>>);
static_assert(LinearlyReadingRouter<LogitOffsets<LinearRouter<float>>>);
static_assert(!LinearlyReadingRouter<LogitOffsets<CosineRouter<float>>>);
static_assert(reads_of<LogitOffsets<LatentRouter<float>>> == Reads::latent);
static_assert(RouterPolicy<LogitOffsets<OnlyForward>> && !TrainableRouterPolicy<LogitOffsets<OnlyForward>>);

TEMPLATE_TEST_CASE("LogitOffsets keeps the laws of routers, over any", "[router]", float, double) {
  Rng rng(1);
  const auto check = [&](auto router, Index features) {
    for (TestType& offset : router.parameters().offsets.elements()) offset = TestType(0.25);
    CHECK(laws::broken_router_law(router, features) == "");
    CHECK(laws::broken_trainable_router_law(router, features) == "");
  };
  check(LogitOffsets(LinearRouter<TestType>({.in = 13, .experts = 5, .bias = true}, rng)), 13);
  check(LogitOffsets(CosineRouter<TestType>({.in = 13, .experts = 3}, rng)), 13);
  check(LogitOffsets(LatentRouter<TestType>(4)), 4);
}

TEST_CASE("Offsets of 0 change nothing, others are added to every token, and -infinity stays", "[router]") {
  Rng rng(2);
  const LinearRouter<double> plain({.in = 6, .experts = 3}, rng);
  LogitOffsets router(plain);
  const auto x = random_matrix<double>(5, 6, 3), logits = laws::logits_of(plain, x);
  CHECK(support::same_bits(laws::logits_of(router, x), logits));
  router.parameters().offsets(0, 1) = 2;
  router.parameters().offsets(0, 2) = -std::numeric_limits<double>::infinity();
  const auto moved = laws::logits_of(router, x);
  for (Index n = 0; n < 5; ++n) {
    CHECK(moved(n, 0) == logits(n, 0));
    CHECK(moved(n, 1) == logits(n, 1) + 2);
    CHECK(moved(n, 2) == -std::numeric_limits<double>::infinity());
  }
}

TEST_CASE("The gradient of the offsets is the sum of d_logits, which softmax makes 0 in all", "[router]") {
  auto layer = layer_with_offsets();
  const auto x = random_matrix<double>(9, 11, 4), d_y = random_matrix<double>(9, 13, 5);
  Matrix<double> y(9, 13), d_x(9, 11);
  auto work = layer.workspace(9);
  auto gradients = layer.gradients();
  layer.forward(x, y, work);
  layer.backward(x, d_y, d_x, gradients, work);
  double all = 0;
  for (Index e = 0; e < 4; ++e) {
    double sum = 0;
    for (Index n = 0; n < 9; ++n) sum += work.d_logits()(n, e);
    CHECK(std::abs(gradients.router.offsets(0, e) - sum) < 1e-15);
    CHECK(std::abs(sum) > 1e-3);
    all += sum;
  }
  CHECK(std::abs(all) < 1e-14);
}

TEST_CASE("Gradients of a layer with offsets agree with central differences", "[router]") {
  auto layer = layer_with_offsets();
  const GradientReport report = check_gradients(layer);
  INFO(report.worst_tensor);
  CHECK(report.passed(1e-7));
}

TEST_CASE("Offsets that train alone leave every other parameter as it was", "[router]") {
  auto layer = layer_with_offsets();
  const auto before = layer;
  auto gradients = layer.gradients({.router = true, .experts = false});
  gradients.router.router = {};
  const auto x = random_matrix<double>(9, 11, 6), d_y = random_matrix<double>(9, 13, 7);
  Matrix<double> y(9, 13), d_x(9, 11);
  auto work = layer.workspace(9);
  Sgd<double> sgd({.learning_rate = 0.05});
  for (int step = 0; step < 5; ++step) {
    layer.forward(x, y, work);
    set_zero(gradients);
    layer.backward(x, d_y, d_x, gradients, work);
    sgd.step(layer, gradients);
  }
  CHECK(support::same_bits(layer.router().router().parameters().weight, before.router().router().parameters().weight));
  CHECK(support::same_bits(layer.experts().parameters().lora_A, before.experts().parameters().lora_A));
  CHECK(support::same_bits(layer.experts().parameters().lora_B, before.experts().parameters().lora_B));
  CHECK_FALSE(support::same_bits(Matrix<double>(layer.router().parameters().offsets),
                                 Matrix<double>(before.router().parameters().offsets)));
}

TEST_CASE("A token that is not routed reaches no offset, whatever it holds", "[router]") {
  auto layer = layer_with_offsets();
  auto x = random_matrix<double>(3, 11, 6);
  x(1, 4) = std::numeric_limits<double>::quiet_NaN();
  const std::vector<std::uint8_t> routed{1, 0, 1};
  Matrix<double> y(3, 13), d_x(3, 11);
  auto work = layer.workspace(3);
  auto gradients = layer.gradients();
  layer.forward(x, y, work, {.routed = routed});
  layer.backward(x, random_matrix<double>(3, 13, 7), d_x, gradients, work);
  CHECK(support::all_finite(std::as_const(gradients.router.offsets).elements()));
}

TEST_CASE("Offsets of another size are refused", "[router]") {
  auto layer = layer_with_offsets();
  layer.router().parameters().offsets = Matrix<double>(1, 3);
  auto x = random_matrix<double>(3, 11, 6);
  Matrix<double> y(3, 13);
  CHECK(test::code_of([&] { layer.workspace(3); }) == ErrorCode::shape);
}
