// SPDX-License-Identifier: MIT
#include "mole/router/no_router.hpp"

#include "laws/router_laws.hpp"

TEST_CASE("NoRouter keeps the laws of routers and gives zeros", "[router]") {
  const mole::NoRouter<double> router(3);
  laws::check_router(router, 4);
  laws::check_trainable_router(router, 4);
  const auto logits = laws::detail::logits_of(router, support::random_matrix<double>(5, 4, 1));
  CHECK(support::same_bits(logits, mole::Matrix<double>(5, 3)));
}
