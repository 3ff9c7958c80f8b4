// SPDX-License-Identifier: MIT
#include "mole/router/module_router.hpp"

#include "core/error_code.hpp"
#include "mole/testing/router_laws.hpp"
#include "support/catch.hpp"

#include <cmath>

using namespace mole;

TEST_CASE("ModuleRouter keeps the laws of routers, and gives its module's gate", "[router]") {
  const auto gates = std::make_shared<ModuleGates<double>>(ModuleGates<double>::Options{.layers = 2, .modules = 3});
  gates->parameters().alpha = laws::random_matrix<double>(2, 3, 3);
  const ModuleRouter<double> router(gates, 1, 2);
  CHECK(laws::broken_router_law(router, 7) == "");
  CHECK(laws::broken_trainable_router_law(router, 7) == "");
  const auto x = laws::random_matrix<double>(4, 7, 3);
  const Matrix<double> relaxed = laws::logits_of(router, x);
  for (double logit : relaxed.elements()) CHECK(logit == gates->gate(1, 2));
  for (double ratio : {1.0, 0.0}) {
    gates->discretize(ratio);
    const Matrix<double> discrete = laws::logits_of(router, x);
    for (double logit : discrete.elements()) CHECK((ratio == 1 ? logit == 1 : std::isinf(logit)));
  }
}

TEST_CASE("The gradient of a module's gate is the sum over tokens, added where the gradients point", "[router]") {
  const auto gates = std::make_shared<ModuleGates<double>>(ModuleGates<double>::Options{.layers = 2, .modules = 3});
  const ModuleRouter<double> router(gates, 0, 1);
  const auto x = laws::random_matrix<double>(4, 7, 3), d_logits = laws::random_matrix<double>(4, 1, 4);
  laws::Harness harness(router, 4);
  auto found = gates->gradients(), expected = found;
  ModuleRouter<double>::Parameters gradients{&found};
  double sum = 0;
  for (double d : d_logits.elements()) sum += d;
  gates->add_gradient(0, 1, sum, expected);
  router.backward(x, d_logits, {}, gradients, harness.call());
  for (Index j = 0; j < 3; ++j) CHECK(std::abs(found.alpha(0, j) - expected.alpha(0, j)) < 1e-15);
  Matrix<double> d_x(4, 7);
  gradients.gates = nullptr;
  router.backward(x, d_logits, d_x, gradients, harness.call());
  for (double d : d_x.elements()) CHECK(d == 0);
}

TEST_CASE("ModuleRouter refuses gates that are not there, and gradients that do not fit", "[router]") {
  const auto gates = std::make_shared<ModuleGates<float>>(ModuleGates<float>::Options{.layers = 2, .modules = 3});
  using Router = ModuleRouter<float>;
  CHECK(test::code_of([&] { Router(nullptr, 0, 0); }) == ErrorCode::option);
  CHECK(test::code_of([&] { Router(gates, 2, 0); }) == ErrorCode::option);
  CHECK(test::code_of([&] { Router(gates, 0, 3); }) == ErrorCode::option);
  CHECK(test::code_of([&] { Router(gates, -1, 0); }) == ErrorCode::option);
  CHECK(test::code_of([&] { Router(gates, 0, -1); }) == ErrorCode::option);
  const Router router(gates, 0, 0);
  ModuleGates<float>::Parameters other{Matrix<float>(3, 2)};
  CHECK(test::code_of([&] { router.check_gradients({&other}); }) == ErrorCode::shape);
  CHECK_NOTHROW(router.check_gradients({}));  // frozen
}
