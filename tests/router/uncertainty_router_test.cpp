// SPDX-License-Identifier: MIT
#include "mole/router/uncertainty_router.hpp"

#include "core/error_code.hpp"
#include "mole/execution/thread_pool.hpp"
#include "mole/layer/check_gradients.hpp"
#include "mole/mole.hpp"
#include "mole/testing/router_laws.hpp"
#include "support/catch.hpp"
#include "support/layers.hpp"

using namespace mole;

namespace {

template <class T>
auto uncertain(Calibration form, double rate, Index k = 0, bool full = false) {
  Rng rng(1);
  return UncertaintyRouter<T>({.in = 7,
                               .experts = 4,
                               .samples = 5,
                               .dropout = {.rate = rate, .stream = 9},
                               .form = form,
                               .k = k,
                               .epsilon = 0.05,
                               .full_gradient = full},
                              rng);
}

template <class Router>
auto logits_in(const Router& router, const Matrix<double>& x, const Pass& pass) {
  laws::Harness<Router> harness(router, x.rows(), 0, pass);
  return laws::logits_of(router, x, harness.call());
}

template <class Gating, class Execution = Simd<>>
auto uncertain_layer(UncertaintyRouter<double> router, Gating gating, Execution execution = {}) {
  Rng rng(5);
  return support::with_random_b(
      MixtureLinear(std::move(router), gating,
                    LowRank<DenseFactors<double>>({.in = 7, .out = 6, .experts = 4, .rank = 2, .alpha = 4}, rng),
                    DenseBase(support::random_matrix<double>(6, 7, 6)), std::move(execution)));
}

const Gate literal_gate{Identity{}, All{}, Raw{}};

}  // namespace

TEMPLATE_TEST_CASE("UncertaintyRouter keeps the laws of routers", "[router]", float, double) {
  CHECK(laws::broken_router_law(uncertain<TestType>(Calibration::whitened, 0.3), 7) == "");
  CHECK(laws::broken_router_law(uncertain<TestType>(Calibration::literal, 0.3), 7) == "");
  CHECK(laws::broken_trainable_router_law(uncertain<TestType>(Calibration::whitened, 0.3), 7) == "");
  CHECK(laws::broken_trainable_router_law(uncertain<TestType>(Calibration::literal, 0.3, 2), 7) == "");
}

TEST_CASE("In evaluation, and without dropout, a whitened router with an epsilon of 1 is linear to the bit",
          "[router]") {
  Rng rng(1), same(1);
  const auto x = support::random_matrix<double>(9, 7, 3);
  const LinearRouter<double> linear({.in = 7, .experts = 4, .bias = true}, same);
  for (double rate : {0.0, 0.4}) {
    rng = Rng(1);
    const UncertaintyRouter<double> router({.in = 7, .experts = 4, .dropout = {.rate = rate}}, rng);
    const auto expected = laws::logits_of(linear, x);
    CHECK(support::same_bits(logits_in(router, x, {.seed = 5}), expected));
    CHECK(support::same_bits(logits_in(router, x, {.training = true}), expected) == (rate == 0));
  }
}

TEST_CASE("In training, a router calibrates passes whose dropout differs", "[router]") {
  const auto x = support::random_matrix<double>(3, 7, 3);
  const Pass pass{.training = true, .seed = 4};
  for (Calibration form : {Calibration::whitened, Calibration::literal}) {
    const auto router = uncertain<double>(form, 0.4);
    const auto found = logits_in(router, x, pass);
    CHECK_FALSE(support::same_bits(found, logits_in(router, x, {.training = true, .seed = 5})));
    for (Index n = 0; n < 3; ++n) {
      Matrix<double> r(5, 4);
      for (Index m = 0; m < 5; ++m) {
        Matrix<double> dropped(3, 7);
        Dropout{.rate = 0.4, .stream = 9 + std::uint64_t(m)}.forward(x.view(), dropped.view(), pass);
        double sum = 0;
        for (Index e = 0; e < 4; ++e) {
          r(m, e) = router.parameters().bias(0, e);
          for (Index i = 0; i < 7; ++i) r(m, e) += router.parameters().weight(e, i) * dropped(n, i);
          sum += std::exp(r(m, e));
        }
        if (form == Calibration::literal)
          for (double& weight : r.view().row(m)) weight = std::exp(weight) / sum;
      }
      MemoryBlock memory(bytes_of([](Arena& arena) { return UncertaintyCalibration::scratch(5, 4, arena); }),
                         std::pmr::get_default_resource());
      Arena arena(memory.bytes());
      auto scratch = UncertaintyCalibration::scratch(5, 4, arena);
      std::vector<double> expected(4);
      UncertaintyCalibration{form, 0.05}.forward(
          5, [&](Index m) { return r.view().row(m); }, std::span<double>(expected), scratch);
      for (Index e = 0; e < 4; ++e) CHECK(std::abs(found(n, e) - expected[std::size_t(e)]) < 1e-11);
    }
  }
}

TEST_CASE("Literal weights are the softmax of the k best and of all that tie, or all 0 without noise", "[router]") {
  auto router = uncertain<double>(Calibration::literal, 0, 2);
  router.parameters().weight.set_zero();
  const double biases[] = {1, 3, 1, 0};
  std::ranges::copy(biases, router.parameters().bias.elements().begin());
  const auto x = support::random_matrix<double>(1, 7, 3);
  const auto weights = logits_in(router, x, {});
  const double sum = std::exp(3) + 2 * std::exp(1);
  CHECK(std::abs(weights(0, 0) - std::exp(1) / sum) < 1e-15);
  CHECK(std::abs(weights(0, 1) - std::exp(3) / sum) < 1e-15);
  CHECK(weights(0, 2) == weights(0, 0));
  CHECK(weights(0, 3) == -std::numeric_limits<double>::infinity());
  const auto none = logits_in(router, x, {.training = true});
  for (Index e : {0, 1, 2}) CHECK(none(0, e) == 0);
  CHECK(none(0, 3) == -std::numeric_limits<double>::infinity());

  const auto layer = uncertain_layer(router, literal_gate);
  auto work = layer.workspace(1);
  layer.route(x, work);
  CHECK(work.routing.pairs() == 3);
  CHECK(work.nan_tokens == 0);
}

TEST_CASE("UncertaintyRouter has exact gradients where it says so", "[router]") {
  for (bool training : {false, true})
    for (double rate : {0.0, 0.4}) {
      const CheckGradientsOptions check{.pass = {.training = training, .seed = 3}};
      auto whitened = uncertain_layer(uncertain<double>(Calibration::whitened, rate, 0, true), support::top_2());
      CHECK(check_gradients(whitened, check).passed(1e-8));
      if (training && rate == 0) continue;  // literal weights are 0, whatever x is
      auto literal = uncertain_layer(uncertain<double>(Calibration::literal, rate, 0, true), literal_gate, Reference{});
      const auto report = check_gradients(literal, check);
      INFO(report.worst_tensor << " " << report.worst);
      CHECK(report.passed(1e-7));
    }
}

TEST_CASE("A layer with an UncertaintyRouter has the same bits on threads", "[router]") {
  const auto x = support::random_matrix<double>(9, 7, 3), d_y = support::random_matrix<double>(9, 6, 4);
  for (Calibration form : {Calibration::whitened, Calibration::literal}) {
    const auto results = [&](auto execution) {
      const auto layer = uncertain_layer(uncertain<double>(form, 0.3), literal_gate, execution);
      auto work = layer.workspace(9);
      auto gradients = layer.gradients();
      Matrix<double> y(9, 6), d_x(9, 7);
      layer.forward(x, y, work, {.training = true});
      layer.backward(x, d_y, d_x, gradients, work);
      return std::vector<Matrix<double>>{y, d_x, gradients.router.weight, gradients.router.bias};
    };
    const auto one = results(Simd<>{}), three = results(Simd(ThreadPool(3)));
    for (std::size_t i = 0; i < one.size(); ++i) CHECK(support::same_bits(one[i], three[i]));
  }
}

TEST_CASE("What an unrouted token holds reaches no gradient of an UncertaintyRouter", "[router]") {
  auto x = support::random_matrix<double>(3, 7, 3);
  const auto d_y = support::random_matrix<double>(3, 6, 4);
  const std::uint8_t routed[] = {1, 0, 1};
  constexpr double infinity = std::numeric_limits<double>::infinity();
  for (const auto& [form, junk] : {std::pair{Calibration::whitened, std::nan("")},
                                   {Calibration::literal, std::nan("")},
                                   {Calibration::whitened, infinity},
                                   {Calibration::literal, infinity},
                                   {Calibration::literal, -infinity}})
    for (bool training : {false, true}) {
      x(1, 2) = junk;
      const auto layer = uncertain_layer(uncertain<double>(form, 0.3), literal_gate);
      auto work = layer.workspace(3);
      auto gradients = layer.gradients();
      Matrix<double> y(3, 6), d_x(3, 7);
      layer.forward(x, y, work, {.training = training, .routed = routed});
      layer.backward(x, d_y, d_x, gradients, work);
      for (const auto* tensor : {&gradients.router.weight, &gradients.router.bias, &d_x})
        for (double d : tensor->elements()) CHECK(std::isfinite(d));
    }
}

TEST_CASE("A routed token with NaN is counted, whatever the form", "[router]") {
  auto x = support::random_matrix<double>(3, 7, 3);
  x(1, 2) = std::nan("");
  for (Calibration form : {Calibration::whitened, Calibration::literal})
    for (bool training : {false, true}) {
      const auto layer = uncertain_layer(uncertain<double>(form, 0.3), literal_gate);
      auto work = layer.workspace(3);
      layer.route(x, work, {.training = training});
      CHECK(work.nan_tokens == 1);
    }
}

TEST_CASE("UncertaintyRouter refuses options out of range", "[router]") {
  Rng rng;
  using Router = UncertaintyRouter<float>;
  CHECK(test::code_of([&] { Router({.in = 0, .experts = 2}, rng); }) == ErrorCode::option);
  CHECK(test::code_of([&] { Router({.in = 3, .experts = 0}, rng); }) == ErrorCode::option);
  CHECK(test::code_of([&] { Router({.in = 3, .experts = 2, .samples = 0}, rng); }) == ErrorCode::option);
  CHECK(test::code_of([&] { Router({.in = 3, .experts = 2, .k = 3}, rng); }) == ErrorCode::option);
  CHECK(test::code_of([&] { Router({.in = 3, .experts = 2, .epsilon = 0}, rng); }) == ErrorCode::option);
  CHECK(test::code_of([&] { Router({.in = 3, .experts = 2, .dropout = {.rate = 1}}, rng); }) == ErrorCode::option);
}
