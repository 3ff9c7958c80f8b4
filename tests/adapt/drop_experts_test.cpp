// SPDX-License-Identifier: MIT
#include "mole/adapt/drop_experts.hpp"

#include "mole/gating/gate.hpp"
#include "mole/gating/score/softmax.hpp"
#include "mole/gating/select/relative_threshold.hpp"
#include "mole/gating/select/top_k.hpp"
#include "mole/gating/weigh/renormalized.hpp"
#include "mole/testing/gating_laws.hpp"
#include "support/catch.hpp"
#include "support/random_matrix.hpp"

#include <limits>

using namespace mole;

namespace {

using Token = std::vector<std::pair<int, double>>;

Routing<double> routing_of(const std::vector<Token>& tokens, Index experts) {
  Routing<double> routing;
  routing.start(experts);
  for (const Token& token : tokens) {
    for (const auto& [expert, gate] : token) routing.push(expert, gate);
    routing.end_token();
  }
  routing.finish();
  return routing;
}

std::vector<Token> dropped(const std::vector<Token>& tokens, const std::vector<double>& importance,
                           const DropExpertsOptions& options) {
  Routing<double> kept;
  drop_experts(routing_of(tokens, 4), std::span<const double>(importance), kept, options);
  std::vector<Token> all;
  for (Index n = 0; n < kept.tokens(); ++n) {
    all.emplace_back();
    for (std::size_t j = 0; j < kept.experts_of(n).size(); ++j)
      all.back().emplace_back(kept.experts_of(n)[j], kept.gates_of(n)[j]);
  }
  return all;
}

const std::vector<Token> four_tokens{{{0, 0.75}, {1, 0.25}}, {{2, 0.625}, {0, 0.375}}, {{1, 0.5}, {3, 0.5}}, {}};

}  // namespace

TEST_CASE("drop_experts keeps experts that are not far behind the best, and the sum of gates", "[adapt]") {
  CHECK(dropped(four_tokens, {}, {.ratio = 0.5}) ==
        std::vector<Token>{{{0, 1}}, {{2, 0.625}, {0, 0.375}}, {{1, 0.5}, {3, 0.5}}, {}});
  CHECK(dropped(four_tokens, {}, {.ratio = 0}) == four_tokens);
  CHECK(dropped(four_tokens, {}, {.ratio = 1}) == std::vector<Token>{{{0, 1}}, {{2, 1}}, {{1, 0.5}, {3, 0.5}}, {}});
  CHECK(dropped({{{0, 1.5}, {1, 0.5}}}, {}, {.ratio = 0.5}) == std::vector<Token>{{{0, 2}}});
}

TEST_CASE("drop_experts takes all from the least important and nothing from the most important", "[adapt]") {
  const DropExpertsOptions options{.ratio = 1, .lowest = 0.5, .highest = 0.25};
  CHECK(dropped(four_tokens, {3, 2, 1, 0}, options) == std::vector<Token>{four_tokens[0], {{2, 1}}, {}, {}});
  CHECK(dropped(four_tokens, {0, 1, 2, 3}, options) == std::vector<Token>{{}, {}, four_tokens[2], {}});
  CHECK(dropped(four_tokens, {1, 1, 1, 1}, options) == std::vector<Token>{four_tokens[0], {{2, 1}}, {}, {}});  // ties
  const double nan = std::numeric_limits<double>::quiet_NaN();
  CHECK(dropped(four_tokens, {nan, nan, 1, 2}, options) == std::vector<Token>{{}, {}, four_tokens[2], {}});
  // Both rules take all tokens: the most important win. A share of less than a token is none.
  CHECK(dropped(four_tokens, {1, 2, 3, 4}, {.ratio = 0, .lowest = 1, .highest = 1}) == four_tokens);
  CHECK(dropped(four_tokens, {1, 2, 3, 4}, {.ratio = 0, .lowest = 0.24, .highest = 0}) == four_tokens);
}

TEST_CASE("drop_experts leaves shared experts alone", "[adapt]") {
  const std::vector<Token> shared{{{0, 0.75}, {1, 0.25}, {3, 1}}, {{2, 1}, {3, 1}}};
  CHECK(dropped(shared, {2, 1}, {.ratio = 0.5, .lowest = 0.5, .highest = 0, .shared = 1}) ==
        std::vector<Token>{{{0, 1}, {3, 1}}, {{3, 1}}});
}

TEST_CASE("drop_experts by the ratio alone is RelativeThreshold", "[adapt]") {
  const auto logits = support::random_matrix<double>(50, 6, 8, 2);
  const auto free = laws::routed(Gate{Softmax{}, TopK{3}, Renormalized{}}, logits, 6);
  const auto expected =
      laws::routed(Gate{Softmax{}, RelativeThreshold{.ratio = 0.6, .k = 3}, Renormalized{}}, logits, 6);
  Routing<double> kept;
  drop_experts(free.routing, {}, kept, {.ratio = 0.6});
  REQUIRE(kept.pairs() == expected.routing.pairs());
  REQUIRE(kept.pairs() < free.routing.pairs());
  for (Index p = 0; p < kept.pairs(); ++p) {
    CHECK(kept.expert(p) == expected.routing.expert(p));
    CHECK(std::abs(kept.gate(p) - expected.routing.gate(p)) < 1e-15);
  }
}

TEST_CASE("drop_experts refuses what does not fit", "[adapt]") {
  Routing<double> kept;
  const auto routing = routing_of(four_tokens, 4);
  const std::vector<double> three(3), four(4);
  CHECK_THROWS_AS(drop_experts(routing, std::span<const double>(three), kept), Error);
  CHECK_THROWS_AS(drop_experts(routing, std::span<const double>(four), kept, {.ratio = 1.5}), Error);
  CHECK_THROWS_AS(drop_experts(routing, std::span<const double>(four), kept, {.lowest = -0.1}), Error);
  CHECK_THROWS_AS(drop_experts(routing, std::span<const double>(four), kept, {.shared = 5}), Error);
  CHECK_NOTHROW(drop_experts(routing_of({}, 4), std::span<const double>(), kept));
  CHECK(kept.tokens() == 0);
}
