// SPDX-License-Identifier: MIT
#include "mole/router/joined_router.hpp"

#include "core/error_code.hpp"
#include "mole/router/linear_router.hpp"
#include "mole/router/mlp_router.hpp"
#include "mole/testing/router_laws.hpp"
#include "support/catch.hpp"
#include "support/random_matrix.hpp"

using namespace mole;

TEMPLATE_TEST_CASE("JoinedRouter keeps the laws of routers, and is both of its parts", "[router]", float, double) {
  using T = TestType;
  Rng rng(1);
  const LinearRouter<T> first({.in = 13, .experts = 3}, rng);
  const MlpRouter<T> second({.in = 13, .hidden = 5, .experts = 2}, rng);
  const JoinedRouter router(first, second);
  REQUIRE(router.outputs() == 5);
  CHECK(laws::broken_router_law(router, 13) == "");
  CHECK(laws::broken_trainable_router_law(router, 13) == "");
  const auto x = support::random_matrix<T>(6, 13, 3);
  const auto logits = laws::logits_of(router, x), a = laws::logits_of(first, x), b = laws::logits_of(second, x);
  for (Index n = 0; n < 6; ++n) {
    for (Index e = 0; e < 3; ++e) CHECK(logits(n, e) == a(n, e));
    for (Index e = 0; e < 2; ++e) CHECK(logits(n, 3 + e) == b(n, e));
  }
  std::vector<std::string> names;
  auto own = router.parameters();
  ParametersOf<JoinedRouter<LinearRouter<T>, MlpRouter<T>>>::for_each_tensor(
      [&](std::string_view name, auto&...) { names.emplace_back(name); }, own);
  CHECK(names == std::vector<std::string>{"first.weight", "first.bias", "second.hidden.weight", "second.hidden.bias",
                                          "second.output.weight", "second.output.bias"});
}

TEST_CASE("Joined routers are joined with others, and all are trained in place", "[router]") {
  Rng rng(1);
  const auto linear = [&](Index columns) { return LinearRouter<double>({.in = 13, .experts = columns}, rng); };
  JoinedRouter router(JoinedRouter(linear(2), linear(1)), JoinedRouter(linear(1), linear(3)));
  CHECK(laws::broken_router_law(router, 13) == "");
  CHECK(laws::broken_trainable_router_law(router, 13) == "");
  using Parameters = ParametersOf<decltype(router)>;
  auto own = router.parameters();
  Parameters::for_each_tensor([&](std::string_view, auto& tensor) { fill(tensor.view(), 0.5); }, own);
  CHECK(router.first().second().parameters().weight(0, 12) == 0.5);
  CHECK(router.second().first().parameters().weight(0, 0) == 0.5);
  const Parameters copies = std::as_const(router).parameters();
  CHECK(copies.second.second.weight.rows() == 3);
}

TEST_CASE("JoinedRouter refuses parts of different inputs", "[router]") {
  Rng rng(1);
  const LinearRouter<float> narrow({.in = 3, .experts = 2}, rng), wide({.in = 4, .experts = 2}, rng);
  CHECK(test::code_of([&] { JoinedRouter(narrow, wide); }) == ErrorCode::shape);
}
