// SPDX-License-Identifier: MIT
#include "mole/router/mlp_router.hpp"

#include "core/error_code.hpp"
#include "laws/router_laws.hpp"
#include "mole/router/joined_router.hpp"
#include "mole/router/linear_router.hpp"
#include "mole/router/no_router.hpp"
#include "mole/router/repeated_router.hpp"

using namespace mole;

TEMPLATE_TEST_CASE("MlpRouter keeps the laws of routers", "[router]", float, double) {
  Rng rng(1);
  const MlpRouter<TestType> router({.in = 13, .hidden = 5, .experts = 3}, rng);
  laws::check_router(router, 13);
  laws::check_trainable_router(router, 13);
}

TEST_CASE("MlpRouter is two linear maps and a ramp", "[router]") {
  Rng rng(1);
  MlpRouter<double> router({.in = 2, .hidden = 2, .experts = 1}, rng);
  auto& p = router.parameters();
  const double w0[] = {1, -1, 2, 0}, w1[] = {3, -2};
  std::copy(std::begin(w0), std::end(w0), p.hidden.weight.data());
  std::copy(std::begin(w1), std::end(w1), p.output.weight.data());
  p.hidden.bias(0, 0) = 1, p.hidden.bias(0, 1) = -4;
  p.output.bias(0, 0) = 0.5;
  Matrix<double> x(2, 2);
  x(0, 0) = 1, x(0, 1) = 3;  // hidden -1, -2: none
  x(1, 0) = 4, x(1, 1) = 2;  // hidden 3, 4
  const auto logits = laws::detail::logits_of(router, x);
  CHECK(logits(0, 0) == 0.5);
  CHECK(logits(1, 0) == 9 - 8 + 0.5);
}

TEST_CASE("MlpRouter, JoinedRouter and RepeatedRouter refuse sizes that do not fit", "[router]") {
  Rng rng(1);
  CHECK(test::code_of([&] { MlpRouter<float>({.in = 3, .hidden = 0, .experts = 2}, rng); }) == ErrorCode::option);
  const LinearRouter<float> narrow({.in = 3, .experts = 2}, rng), wide({.in = 4, .experts = 2}, rng);
  CHECK(test::code_of([&] { JoinedRouter(narrow, wide); }) == ErrorCode::shape);
  CHECK(test::code_of([&] { RepeatedRouter(narrow, 0); }) == ErrorCode::option);
}

TEMPLATE_TEST_CASE("JoinedRouter keeps the laws of routers, and is both of its parts", "[router]", float, double) {
  using T = TestType;
  Rng rng(1);
  const LinearRouter<T> first({.in = 13, .experts = 3}, rng);
  const MlpRouter<T> second({.in = 13, .hidden = 5, .experts = 2}, rng);
  const JoinedRouter router(first, second);
  REQUIRE(router.outputs() == 5);
  laws::check_router(router, 13);
  laws::check_trainable_router(router, 13);
  const auto x = support::random_matrix<T>(6, 13, 3);
  const auto logits = laws::detail::logits_of(router, x), a = laws::detail::logits_of(first, x),
             b = laws::detail::logits_of(second, x);
  for (Index n = 0; n < 6; ++n) {
    for (Index e = 0; e < 3; ++e) CHECK(logits(n, e) == a(n, e));
    for (Index e = 0; e < 2; ++e) CHECK(logits(n, 3 + e) == b(n, e));
  }
  std::vector<std::string> names;
  auto own = router.parameters();
  ParametersOf<JoinedRouter<LinearRouter<T>, MlpRouter<T>>>::walk(
      [&](std::string_view name, auto&...) { names.emplace_back(name); }, own);
  CHECK(names == std::vector<std::string>{"first.weight", "first.bias", "second.hidden.weight", "second.hidden.bias",
                                          "second.output.weight", "second.output.bias"});
}

TEMPLATE_TEST_CASE("RepeatedRouter keeps the laws of routers, and repeats", "[router]", float, double) {
  using T = TestType;
  Rng rng(1);
  const LinearRouter<T> inner({.in = 13, .experts = 3}, rng);
  const RepeatedRouter router(inner, 2);
  laws::check_router(router, 13);
  laws::check_trainable_router(router, 13);
  const auto x = support::random_matrix<T>(6, 13, 3);
  const auto logits = laws::detail::logits_of(router, x), once = laws::detail::logits_of(inner, x);
  for (Index n = 0; n < 6; ++n)
    for (Index e = 0; e < 6; ++e) CHECK(logits(n, e) == once(n, e / 2));
}
