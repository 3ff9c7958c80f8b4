// SPDX-License-Identifier: MIT
#include "mole/router/repeated_router.hpp"

#include "core/error_code.hpp"
#include "mole/router/linear_router.hpp"
#include "mole/testing/router_laws.hpp"
#include "support/catch.hpp"
#include "support/random_matrix.hpp"

using namespace mole;

TEMPLATE_TEST_CASE("RepeatedRouter keeps the laws of routers, and repeats", "[router]", float, double) {
  using T = TestType;
  Rng rng(1);
  const LinearRouter<T> inner({.in = 13, .experts = 3}, rng);
  const RepeatedRouter router(inner, 2);
  CHECK(laws::broken_router_law(router, 13) == "");
  CHECK(laws::broken_trainable_router_law(router, 13) == "");
  const auto x = support::random_matrix<T>(6, 13, 3);
  const auto logits = laws::logits_of(router, x), once = laws::logits_of(inner, x);
  for (Index n = 0; n < 6; ++n)
    for (Index e = 0; e < 6; ++e) CHECK(logits(n, e) == once(n, e / 2));
}

TEST_CASE("RepeatedRouter refuses to repeat an answer less than once", "[router]") {
  Rng rng(1);
  const LinearRouter<float> inner({.in = 3, .experts = 2}, rng);
  CHECK(test::code_of([&] { RepeatedRouter(inner, 0); }) == ErrorCode::option);
}
