// SPDX-License-Identifier: MIT
#include "mole/router/pooled_router.hpp"

#include "mole/mole.hpp"
#include "mole/testing/router_laws.hpp"
#include "support/catch.hpp"
#include "support/layers.hpp"

#include <limits>

using namespace mole;

static_assert(TrainableRouterPolicy<PooledRouter<LinearRouter<float>>>);

namespace {

auto pooled_router() {
  Rng rng(1);
  return PooledRouter(CosineRouter<double>({.in = 11, .experts = 4}, rng));
}

Matrix<double> pooled_logits(const Matrix<double>& x, const Pass& pass) {
  const auto router = pooled_router();
  laws::Harness<std::remove_cv_t<decltype(router)>> harness(router, x.rows(), 0, pass);
  return laws::logits_of(router, x, harness.call());
}

}  // namespace

TEST_CASE("PooledRouter's logits are the router's for the mean of each sequence", "[router]") {
  const auto x = support::random_matrix<double>(7, 11, 2);
  const std::vector<Index> starts{0, 0, 3, 7};  // the first and the last have no tokens
  const auto logits = pooled_logits(x, {.sequence_begin = starts});
  Matrix<double> means(2, 11);
  for (Index n = 0; n < 7; ++n)
    for (Index i = 0; i < 11; ++i) means(n < 3 ? 0 : 1, i) += x(n, i) / (n < 3 ? 3 : 4);
  const auto expected = laws::logits_of(pooled_router().router(), means);
  for (Index n = 0; n < 7; ++n)
    for (Index e = 0; e < 4; ++e) CHECK(std::abs(logits(n, e) - expected(n < 3 ? 0 : 1, e)) < 1e-14);
}

TEST_CASE("PooledRouter on sequences of one token is the router, and takes none", "[router]") {
  const auto x = support::random_matrix<double>(4, 11, 2);
  const std::vector<Index> starts{0, 1, 2, 3};
  CHECK(support::same_bits(pooled_logits(x, {.sequence_begin = starts}), laws::logits_of(pooled_router().router(), x)));
  CHECK(pooled_logits(Matrix<double>(0, 11), {}).rows() == 0);
}

TEST_CASE("PooledRouter leaves tokens that are not routed out of the mean, NaN or not", "[router]") {
  auto x = support::random_matrix<double>(5, 11, 2);
  for (double& value : x.view().row(2)) value = std::numeric_limits<double>::quiet_NaN();
  const std::uint8_t routed[] = {1, 1, 0, 1, 1};
  const auto logits = pooled_logits(x, {.routed = routed});
  Matrix<double> others(4, 11);
  for (Index n = 0; n < 4; ++n)
    copy<double>(x.view().middle_rows(n < 2 ? n : n + 1, 1), others.view().middle_rows(n, 1));
  const auto expected = pooled_logits(others, {});
  for (Index n = 0; n < 5; ++n)
    for (Index e = 0; e < 4; ++e) CHECK(logits(n, e) == expected(0, e));
}

TEST_CASE("A layer that decides for sequences has exact gradients", "[router]") {
  const auto plain = support::routed_layer<double>({}, Gate{Softmax{}, All{}, Renormalized{}});
  MixtureLinear layer(pooled_router(), plain.gating(), plain.experts(), plain.base(), Reference{});
  const std::vector<Index> starts{0, 2, 2};
  const std::uint8_t routed[] = {1, 1, 0, 1, 1, 1, 0};
  CHECK(check_gradients(layer, {.pass = {.routed = routed, .sequence_begin = starts}}).passed(1e-7));
}
