// SPDX-License-Identifier: MIT
#include "mole/gating/score/masked.hpp"

#include "mole/gating/gate.hpp"
#include "mole/gating/score/identity.hpp"
#include "mole/gating/score/learned_sparsegen.hpp"
#include "mole/gating/score/masked_softmax.hpp"
#include "mole/gating/score/sigmoid.hpp"
#include "mole/gating/select/all.hpp"
#include "mole/gating/select/top_k.hpp"
#include "mole/gating/weigh/raw.hpp"
#include "mole/gating/weigh/renormalized.hpp"
#include "mole/testing/gating_laws.hpp"
#include "mole/testing/score_laws.hpp"
#include "support/catch.hpp"
#include "support/random_matrix.hpp"
#include "support/selected.hpp"

using namespace mole;

TEST_CASE("Masked lets no excluded expert serve, also where fewer are allowed than chosen", "[gating]") {
  Matrix<double> logits(1, 4);
  logits(0, 0) = 5, logits(0, 1) = -2, logits(0, 2) = 4, logits(0, 3) = -1;
  const auto trace = laws::routed(Gate{Masked{Identity{}, {0, 1, 0, 1}}, TopK{3}, Raw{}}, logits, 4);
  CHECK(laws::choices(trace)[0] == std::vector<std::pair<int, double>>{{1, -2.0}, {3, -1.0}});
  CHECK(laws::routed(Gate{Masked{Sigmoid{}, {0, 0, 0, 0}}, TopK{3}, Raw{}}, logits, 4).routing.pairs() == 0);
  CHECK(support::refuses(Masked{Identity{}, {1, 1}}, 4));
}

TEST_CASE("Masked Softmax is MaskedSoftmax in a gate", "[gating]") {
  const auto logits = support::random_matrix<double>(30, 5, 7, 2);
  const std::vector<std::uint8_t> allowed{1, 0, 1, 1, 0};
  const auto one = laws::routed(Gate{Masked{Softmax{}, allowed}, TopK{2}, Renormalized{}}, logits, 5);
  const auto other = laws::routed(Gate{MaskedSoftmax{allowed}, TopK{2}, Renormalized{}}, logits, 5);
  CHECK(laws::choices(one) == laws::choices(other));
}

TEST_CASE("Masked takes shares of vanished scores from logits, if its score has them", "[gating]") {
  Matrix<float> logits(1, 3);
  logits(0, 0) = 2000, logits(0, 1) = -1000, logits(0, 2) = -1001;  // sigmoids of 0 in float
  const auto trace = laws::routed(Gate{Masked{Sigmoid{}, {0, 1, 1}}, TopK{2}, Renormalized{}}, logits, 3);
  REQUIRE(trace.routing.pairs() == 2);
  CHECK(std::abs(trace.routing.gate(0) - 0.7310586f) < 1e-6f);
}

TEST_CASE("Masked hands on the columns, the gradient and the laws of its score", "[gating]") {
  STATIC_REQUIRE(Masked<LearnedSparsegen>::extra == 1);
  STATIC_REQUIRE(Masked<Sigmoid>::extra == 0);
  STATIC_REQUIRE(LoopedScorePolicy<Masked<Sigmoid>, double>);
  CHECK(laws::broken_score_law(Masked{Sigmoid{}, {1, 1, 1, 1, 1, 1}}, {.experts = 6}) == "");
  CHECK(laws::broken_gating_law<double>(Gate{Masked{Sigmoid{}, {1, 0, 1, 1}}, TopK{2}, Raw{}}, 4,
                                        {.first_of_equals = true, .of_equals = {0, 2}}) == "");
}
