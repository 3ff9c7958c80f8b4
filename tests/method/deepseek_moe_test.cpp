// SPDX-License-Identifier: MIT
// The preset is the composition that it says; what it computes is pinned by the golden test.
#include "mole/method/deepseek_moe.hpp"

#include "method/method_checks.hpp"
#include "support/catch.hpp"

using namespace mole;
using namespace method_checks;

TEST_CASE("deepseek_moe has 64 routed experts and 2 shared ones, of which 6 and 2 serve", "[method]") {
  Rng rng(1);
  const auto layer = deepseek_moe({}, DenseBase{weight, bias}, rng);
  CHECK(layer.experts().experts() == 66);
  CHECK(layer.router().outputs() == 64);
  auto work = layer.workspace(1);
  layer.route(support::random_matrix<double>(1, layer.in(), 3), work);
  CHECK(work.routing.pairs() == 8);
}

TEST_CASE("deepseek_moe has shared experts behind the routed ones", "[method]") {
  Rng rng(1);
  auto layer = deepseek_moe({.experts = 9, .shared = 2, .rank = 2, .k = 3}, DenseBase{weight, bias}, rng);
  CHECK(layer.router().outputs() == 7);
  CHECK(gradient_error(layer) < 1e-7);
  auto work = layer.workspace(5);
  layer.route(support::random_matrix<double>(5, 11, 3), work);
  CHECK(work.routing.pairs() == 5 * 5);
  for (Index e : {7, 8}) CHECK(work.routing.load(e) == 5);
}

TEST_CASE("deepseek_moe renormalizes several gates on request, and never a single one", "[method]") {
  Rng rng(1);
  const auto layer = deepseek_moe<DeepseekMoeGates::renormalized>({.experts = 9, .shared = 2, .rank = 2, .k = 3},
                                                                  DenseBase{weight, bias}, rng);
  auto work = layer.workspace(40);
  layer.route(tokens, work);
  for (Index n = 0; n < 40; ++n) {
    const auto gates = work.routing.gates_of(n);
    CHECK(std::abs(gates[0] + gates[1] + gates[2] - 1) < 1e-14);
    CHECK((gates[3] == 1 && gates[4] == 1));
  }
  CHECK(gradient_error(layer) < 1e-7);
  CHECK_THROWS_AS(deepseek_moe<DeepseekMoeGates::renormalized>({.k = 1}, DenseBase{weight, bias}, rng), Error);
}

TEST_CASE("Parts of an expert, all of them chosen alike, are the expert", "[method]") {
  // One expert of rank 6, and six of rank 1 with the same ranks: alpha keeps the scale of a rank.
  Rng rng(1);
  auto coarse = support::with_random_b(deepseek_moe({.experts = 2, .shared = 1, .rank = 6, .k = 1, .alpha = 12},
                                                    DenseBase{weight, bias}, rng, Reference{}));
  auto fine = deepseek_moe({.experts = 12, .shared = 6, .rank = 1, .k = 6, .alpha = 2}, DenseBase{weight, bias}, rng,
                           Reference{});
  fine.experts().parameters() = coarse.experts().parameters();
  coarse.router().parameters().weight.set_zero();
  fine.router().parameters().weight.set_zero();
  const auto x = support::random_matrix<double>(8, 11, 3);
  Matrix<double> y(8, 13), z(8, 13);
  auto coarse_work = coarse.workspace(8);
  auto fine_work = fine.workspace(8);
  coarse.forward(x, y, coarse_work);
  fine.forward(x, z, fine_work);
  // A softmax gives each of six parts a sixth of the weight of the whole.
  Matrix<double> expected(8, 13);
  auto shared_only = coarse_work.routing;
  for (Index p = 0; p < shared_only.pairs(); ++p)
    if (shared_only.expert(p) == 0) shared_only.gates()[std::size_t(p)] = 1.0 / 6;
  coarse.apply(x, shared_only, expected, coarse_work);
  CHECK(support::largest_difference(z, expected) < 1e-12);
}
