// SPDX-License-Identifier: MIT
#include "mole/gating/select/grouped_top_k.hpp"

#include "mole/gating/gate.hpp"
#include "mole/gating/score/sigmoid.hpp"
#include "mole/gating/select/top_k.hpp"
#include "mole/gating/weigh/renormalized.hpp"
#include "mole/testing/gating_laws.hpp"
#include "mole/testing/select_laws.hpp"
#include "support/catch.hpp"
#include "support/seed.hpp"
#include "support/selected.hpp"

using namespace mole;
using support::selected;
using Ints = std::vector<int>;

namespace {

/// The expected weights of the published example, whatever their order.
void check_example(std::vector<double> bias, const Ints& experts, const std::vector<double>& weights) {
  Matrix<double> logits(1, 8);
  const double row[] = {2, -1, 0.5, 0.4, 1.5, 1.4, -2, 0};
  std::copy(std::begin(row), std::end(row), logits.data());
  const Gate gate{Sigmoid{}, GroupedTopK<double>(3, 4, 2, std::move(bias)), Renormalized{2.5}};
  const auto trace = laws::routed(gate, logits, 8);
  const auto chosen = trace.routing.experts_of(0);
  REQUIRE(Ints(chosen.begin(), chosen.end()) == experts);
  for (Index j = 0; j < 3; ++j) CHECK(std::abs(trace.routing.gate(j) - weights[std::size_t(j)]) < 1e-6);
}

}  // namespace

TEST_CASE("GroupedTopK gives DeepSeek-V3's published example", "[gating]") {
  check_example(std::vector<double>(8, 0.0), {4, 5, 2}, {0.911569, 0.894409, 0.694022});
  check_example({0, 0, 0, 0, 0, 0, 0.6, 0.9}, {7, 4, 5}, {0.589690, 0.964231, 0.946079});
}

TEST_CASE("GroupedTopK of one group is TopK, its bias a shift of the choice", "[gating]") {
  test::TestRng rng;
  for (Index experts : {1, 3, 8, 64, 129})
    for (Index k : {Index(1), std::min<Index>(experts, 5), experts}) {
      std::vector<double> scores(std::size_t(experts), 0), bias(scores.size()), biased(scores.size());
      for (std::size_t e = 0; e < scores.size(); ++e) {
        scores[e] = double(rng() % 32) / 32;
        bias[e] = double(rng() % 32) / 32;
        biased[e] = scores[e] + bias[e];
      }
      CHECK(selected(GroupedTopK<double>(k), scores) == selected(TopK{k}, scores));
      CHECK(selected(GroupedTopK<double>(k, 1, 1, bias), scores) == selected(TopK{k}, biased));
    }
}

TEST_CASE("GroupedTopK without a bias values a group by its best", "[gating]") {
  const std::vector<float> scores{0.5f, 0.4f, 0.6f, 0.1f, 0.3f, 0.3f};
  CHECK(selected(GroupedTopK<float>(2, 3, 1), scores) == Ints{2, 3});
  CHECK(selected(GroupedTopK<float>(2, 3, 1, std::vector<float>(6)), scores) == Ints{0, 1});
  CHECK(selected(GroupedTopK<float>(3, 3, 2), scores) == Ints{2, 0, 1});
}

TEST_CASE("GroupedTopK refuses options that do not fit", "[gating]") {
  using G = GroupedTopK<float>;
  for (const G& wrong : {G(0), G(9), G(1, 3), G(1, 0), G(1, 4, 5), G(1, 4, 0), G(3, 4, 1), G(1, 1, 1, {1, 2})})
    CHECK(support::refuses(wrong, 8));
  for (const G& right : {G(8), G(2, 4, 1), G(1, 8, 1), G(1, 1, 1, std::vector<float>(8))})
    CHECK_FALSE(support::refuses(right, 8));
}

TEMPLATE_TEST_CASE("A gate of GroupedTopK keeps the laws of gatings", "[gating]", float, double) {
  CHECK(laws::broken_gating_law<TestType>(Gate{Sigmoid{}, GroupedTopK<TestType>(3, 4, 2), Renormalized{2.5}}, 8) == "");
}

TEMPLATE_TEST_CASE("GroupedTopK keeps the laws of selections but those of one order", "[gating]", float, double) {
  using Select = GroupedTopK<TestType>;
  const laws::SelectLawOptions of_groups{.best_first = false, .lower_of_equals = false};
  CHECK(laws::broken_select_law<TestType>(Select(3), 8) == "");
  CHECK(laws::broken_select_law<TestType>(Select(8), 8) == "");
  CHECK(laws::broken_select_law<TestType>(Select(3, 4, 2), 8, of_groups) == "");
  CHECK(laws::broken_select_law<TestType>(Select(2, 1, 1, {3, 0, 0, 1, 0, 0, 2, 0}), 8, of_groups) == "");
}

TEST_CASE("To GroupedTopK a NaN is no better than an expert of another group, and no worse", "[gating]") {
  const double nan = std::nan("");
  CHECK(selected(GroupedTopK<double>(2, 2, 1), std::vector<double>{1, nan, .5, .4}) == Ints{0, 1});
  CHECK(selected(GroupedTopK<double>(2, 2, 1), std::vector<double>{.5, .4, nan, 1}) == Ints{3, 2});
}

TEST_CASE("The value of a group of one expert is that expert's, with a bias or without", "[gating]") {
  const std::vector<double> scores{.1, .2, .3, .4};
  CHECK(selected(GroupedTopK<double>(1, 4, 2), scores) == Ints{3});
  CHECK(selected(GroupedTopK<double>(1, 4, 2, {0, 0, 0, 1}), scores) == Ints{3});
  CHECK(selected(GroupedTopK<double>(2, 4, 2, {1, 0, 0, 0}), scores) == Ints{0, 3});
  // Of two experts each: 0.1 + 0.9 and 0.3 + 0.4 with the bias, 0.2 and 0.4 without.
  CHECK(selected(GroupedTopK<double>(1, 2, 1, {0, .7, 0, 0}), scores) == Ints{1});
  CHECK(selected(GroupedTopK<double>(1, 2, 1), scores) == Ints{3});
}

TEST_CASE("Of a group with one expert that may serve, it does, before groups of none", "[gating]") {
  const double none = -std::numeric_limits<double>::infinity(), nan = std::numeric_limits<double>::quiet_NaN();
  for (double excluded : {none, nan})
    for (Index allowed = 0; allowed < 4; ++allowed)
      for (const std::vector<double>& bias : {std::vector<double>{}, {0, 0, 0, 0}, {3, 2, 1, 0}}) {
        std::vector<double> scores(4, excluded);
        scores[std::size_t(allowed)] = -2;
        CHECK(selected(GroupedTopK<double>(1, 2, 1, bias), scores) == Ints{int(allowed)});
      }
  CHECK_THROWS_AS(GroupedTopK<double>(1, 2, 1, {0, none, 0, 0}).check(4), Error);
}
