// SPDX-License-Identifier: MIT
#include "mole/router/no_router.hpp"

#include "mole/testing/router_laws.hpp"
#include "support/catch.hpp"
#include "support/random_matrix.hpp"

TEST_CASE("NoRouter keeps the laws of routers and gives zeros", "[router]") {
  const mole::NoRouter<double> router(3);
  CHECK(mole::laws::broken_router_law(router, 4) == "");
  CHECK(mole::laws::broken_trainable_router_law(router, 4) == "");
  const auto logits = mole::laws::logits_of(router, support::random_matrix<double>(5, 4, 1));
  CHECK(support::same_bits(logits, mole::Matrix<double>(5, 3)));
}
