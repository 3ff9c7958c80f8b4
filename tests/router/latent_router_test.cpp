// SPDX-License-Identifier: MIT
#include "mole/router/latent_router.hpp"

#include "mole/testing/router_laws.hpp"
#include "support/catch.hpp"
#include "support/random_matrix.hpp"

using namespace mole;

TEMPLATE_TEST_CASE("LatentRouter keeps the laws of routers, with a bias and without", "[router]", float, double) {
  LatentRouter<TestType> router(5);
  if (GENERATE(false, true)) router.bias()[2] = TestType(0.25);
  static_assert(reads_of<LatentRouter<TestType>> == Reads::latent);
  CHECK(laws::broken_router_law(router, 5) == "");
  CHECK(laws::broken_trainable_router_law(router, 5) == "");
}

TEST_CASE("LatentRouter's logits are the latent and the bias, and its gradient is the latent's", "[router]") {
  LatentRouter<double> router(3);
  const auto z = support::random_matrix<double>(4, 3, 1), d_logits = support::random_matrix<double>(4, 3, 2);
  CHECK(support::same_bits(laws::logits_of(router, z), z));
  router.bias()[1] = 2;
  const auto logits = laws::logits_of(router, z);
  for (Index n = 0; n < 4; ++n) {
    CHECK(logits(n, 0) == z(n, 0));
    CHECK(logits(n, 1) == z(n, 1) + 2);
  }
  laws::Harness harness(router, 4);
  auto call = harness.call();
  Matrix<double> d_z(4, 3);
  NoParameters none;
  router.backward(z, d_logits, d_z.view(), none, call);
  CHECK(support::same_bits(d_z, d_logits));
}

TEST_CASE("LatentRouter refuses no experts, and experts of more than one rank", "[router]") {
  CHECK_THROWS_AS(LatentRouter<float>(0), Error);
  const LatentRouter<float> router(3);
  Matrix<float> z(2, 6), logits(2, 3);
  CHECK_THROWS_AS(router.forward(z, logits.view()), Error);
}
