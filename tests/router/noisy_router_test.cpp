// SPDX-License-Identifier: MIT
#include "mole/router/noisy_router.hpp"

#include "core/error_code.hpp"
#include "mole/execution/thread_pool.hpp"
#include "mole/router/latent_router.hpp"
#include "mole/router/linear_router.hpp"
#include "mole/testing/router_laws.hpp"
#include "support/catch.hpp"
#include "support/central_differences.hpp"
#include "support/layers.hpp"

#include <limits>

using namespace mole;
using support::random_matrix;

namespace {

template <class T>
NoisyRouter<LinearRouter<T>> noisy_router(typename NoisyRouter<LinearRouter<T>>::Options options) {
  Rng rng(1);
  NoisyRouter router(LinearRouter<T>({.in = 13, .experts = 5}, rng), options);
  fill_uniform(router.parameters().noise.view(), 1, rng);
  return router;
}

auto noisy_layer(double floor = 0.1) {
  auto plain = support::routed_layer<double>({}, support::top_2());
  NoisyRouter router(plain.router(), {.learned = true, .floor = floor});
  router.parameters().noise = random_matrix<double>(4, 11, 8);
  return MixtureLinear(router, plain.gating(), plain.experts(), plain.base(), Reference{});
}

const Pass in_training{.training = true, .seed = 3, .layer = 1, .step = 9};

template <class Router>
Matrix<typename Router::Scalar> training_logits(const Router& router, const Matrix<typename Router::Scalar>& x,
                                                const Pass& pass = in_training) {
  laws::Harness<Router> harness(router, x.rows(), 0, pass);
  return laws::logits_of(router, x, harness.call());
}

}  // namespace

static_assert(TrainableRouterPolicy<NoisyRouter<LinearRouter<float>>>);

TEMPLATE_TEST_CASE("NoisyRouter keeps the laws of routers", "[router]", float, double) {
  for (bool learned : {false, true}) {
    const auto router = noisy_router<TestType>({.learned = learned, .floor = 0.5});
    CHECK(laws::broken_router_law(router, 13) == "");
    CHECK(laws::broken_trainable_router_law(router, 13) == "");
  }
}

TEST_CASE("Outside of training, and with a deviation of 0, logits are the router's to the bit", "[router]") {
  const auto router = noisy_router<double>({.learned = true, .floor = 0.5});
  const auto x = random_matrix<double>(6, 13, 2), clean = laws::logits_of(router.router(), x);
  CHECK(support::same_bits(laws::logits_of(router, x), clean));
  CHECK_FALSE(support::same_bits(training_logits(router, x), clean));
  CHECK(support::same_bits(training_logits(noisy_router<double>({}), x), clean));
}

TEST_CASE("Noise is what is drawn for the token, times floor + softplus(x W_noise^T)", "[router]") {
  for (const LogitNoise noise : {LogitNoise::normal, LogitNoise::gumbel}) {
    const auto router = noisy_router<double>({.learned = true, .floor = 0.25, .noise = noise, .stream = 6});
    const auto x = random_matrix<double>(6, 13, 2), clean = laws::logits_of(router.router(), x);
    const auto logits = training_logits(router, x);
    for (Index n = 0; n < 6; ++n) {
      const TokenRandom random(in_training, 6, n);
      for (Index e = 0; e < 5; ++e) {
        long double raw = 0;
        for (Index i = 0; i < 13; ++i) raw += router.parameters().noise(e, i) * x(n, i);
        const long double deviation = 0.25L + std::log(1 + std::exp(raw)),
                          drawn = noise == LogitNoise::normal ? random.normal(e) : random.gumbel(e);
        CHECK(std::abs(logits(n, e) - double(clean(n, e) + drawn * deviation)) < 1e-13);
      }
    }
  }
}

TEST_CASE("Noise of a token is the same in a batch of any size, and on any number of threads", "[router]") {
  const auto router = noisy_router<float>({.learned = true});
  const auto x = random_matrix<float>(300, 13, 2);
  const auto logits = training_logits(router, x);
  Matrix<float> last(1, 13);
  copy(x.view().middle_rows(299, 1), last.view());
  Pass pass = in_training;
  pass.first_token = 299;
  const auto alone = training_logits(router, last, pass);
  CHECK(support::same_bits(alone.view(), logits.view().middle_rows(299, 1)));

  const auto on = [&](auto execution) {
    laws::Harness<NoisyRouter<LinearRouter<float>>, decltype(execution)> harness(router, 300, 0, in_training,
                                                                                 execution);
    Matrix<float> result(300, 5);
    router.forward(x, result.view(), harness.call());
    return result;
  };
  CHECK(support::same_bits(on(Simd<>{}), on(Simd(ThreadPool(3)))));
}

TEST_CASE("A raw deviation of 1e4 is itself, and one of -1e4 is the floor", "[router]") {
  auto router = noisy_router<double>({.learned = true, .floor = 0.25});
  router.parameters().noise.set_zero();
  router.parameters().noise(0, 0) = 1e4;
  router.parameters().noise(1, 0) = -1e4;
  Matrix<double> x(1, 13);
  x(0, 0) = 1;
  laws::Harness<NoisyRouter<LinearRouter<double>>> harness(router, 1, 0, in_training);
  Matrix<double> logits(1, 5);
  router.forward(x, logits.view(), harness.call());
  CHECK(harness.scratch().deviation(0, 0) == 1e4 + 0.25);
  CHECK(harness.scratch().deviation(0, 1) == 0.25);
  CHECK(std::abs(harness.scratch().deviation(0, 2) - (0.25 + std::log(2.0))) < 1e-15);
}

TEST_CASE("A layer with learned noise has the right gradients in training", "[router]") {
  auto layer = noisy_layer();
  const GradientReport report = check_gradients(layer, {.pass = in_training});
  INFO(report.worst_tensor);
  CHECK(report.passed(1e-7));
  CHECK(report.checked > report.moved);
}

TEST_CASE("Gradients of clean logits and deviations that a loss hands over reach both weights and x", "[router]") {
  const auto c = random_matrix<double>(6, 5, 4), s = random_matrix<double>(6, 5, 5);
  auto router = noisy_router<double>({.learned = true});
  auto x = random_matrix<double>(6, 13, 2);
  laws::Harness<NoisyRouter<LinearRouter<double>>> harness(router, 6, 0, in_training);
  const auto value = [&] {  // <c, clean> + <s, deviation>
    Matrix<double> logits(6, 5);
    router.forward(x, logits.view(), harness.call());
    double sum = 0;
    for (Index n = 0; n < 6; ++n)
      for (Index e = 0; e < 5; ++e)
        sum += c(n, e) * harness.scratch().clean(n, e) + s(n, e) * harness.scratch().deviation(n, e);
    return sum;
  };
  value();
  harness.scratch().carry = {.d_clean = c, .d_deviation = s};
  Matrix<double> d_logits(6, 5), d_x(6, 13);
  ParametersOf<NoisyRouter<LinearRouter<double>>> gradients =
      zeros_like(ParametersOf<NoisyRouter<LinearRouter<double>>>(router.parameters()));
  router.backward(x, d_logits, d_x.view(), gradients, harness.call());
  harness.scratch().carry = {};
  CHECK(test::gradient_error(x.elements(), d_x.elements(), value) < test::gradient_tolerance);
  CHECK(test::gradient_error(router.parameters().noise.elements(), gradients.noise.elements(), value) <
        test::gradient_tolerance);
  CHECK(test::gradient_error(router.router().parameters().weight.elements(), gradients.router.weight.elements(),
                             value) < test::gradient_tolerance);
}

TEST_CASE("Noise that the caller brings is used as it is", "[router]") {
  auto router = noisy_router<double>({.floor = 2});
  const auto x = random_matrix<double>(3, 13, 2), noise = random_matrix<double>(3, 5, 6);
  laws::Harness<NoisyRouter<LinearRouter<double>>> harness(router, 3, 0, in_training);
  harness.scratch().carry.noise = noise;
  Matrix<double> logits(3, 5);
  router.forward(x, logits.view(), harness.call());
  const auto clean = laws::logits_of(router.router(), x);
  for (Index n = 0; n < 3; ++n)
    for (Index e = 0; e < 5; ++e) CHECK(logits(n, e) == clean(n, e) + 2 * noise(n, e));
}

TEST_CASE("A token that is not routed reaches no gradient of the noise, whatever it holds", "[router]") {
  const auto layer = noisy_layer();
  auto x = random_matrix<double>(3, 11, 6);
  x(1, 4) = std::numeric_limits<double>::quiet_NaN();
  const std::vector<std::uint8_t> routed{1, 0, 1};
  const auto d_y = random_matrix<double>(3, 13, 7);
  Matrix<double> y(3, 13), d_x(3, 11);
  auto work = layer.workspace(3);
  auto gradients = layer.gradients();
  Pass pass = in_training;
  pass.routed = routed;
  layer.forward(x, y, work, pass);
  layer.backward(x, d_y, d_x, gradients, work);
  CHECK(support::all_finite(std::as_const(gradients.router.noise).elements()));
  CHECK(support::all_finite(std::as_const(gradients.router.router.weight).elements()));
}

TEST_CASE("NoisyRouter refuses a floor below 0, noise of another size, and a carry that does not fit", "[router]") {
  CHECK(test::code_of([] { noisy_router<double>({.floor = -1}); }) == ErrorCode::option);
  CHECK(test::code_of([] { NoisyRouter(LatentRouter<double>(3), {.learned = true}); }) == ErrorCode::option);
  CHECK_NOTHROW(NoisyRouter(LatentRouter<double>(3), {.floor = 1}));
  auto layer = noisy_layer();
  const auto x = random_matrix<double>(3, 11, 6);
  Matrix<double> y(3, 13), narrow(3, 3);
  auto work = layer.workspace(3);
  for (const NoisyRouter<LinearRouter<double>>::Carry& carry :
       {NoisyRouter<LinearRouter<double>>::Carry{.noise = narrow}, {.d_clean = narrow}, {.d_deviation = narrow}}) {
    work.router_scratch.carry = carry;
    CHECK(test::code_of([&] { layer.forward(x, y, work, in_training); }) == ErrorCode::shape);
  }
  layer.router().parameters().noise = Matrix<double>(4, 10);
  CHECK(test::code_of([&] { layer.workspace(3); }) == ErrorCode::shape);
}
