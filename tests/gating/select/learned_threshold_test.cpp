// SPDX-License-Identifier: MIT
#include "mole/gating/select/learned_threshold.hpp"

#include "mole/gating/gate.hpp"
#include "mole/gating/score/softmax_with_threshold.hpp"
#include "mole/gating/weigh/shifted.hpp"
#include "mole/testing/gating_laws.hpp"
#include "mole/testing/select_laws.hpp"
#include "support/catch.hpp"
#include "support/selected.hpp"

using namespace mole;
using support::selected;
using Ints = std::vector<int>;

TEST_CASE("LearnedThreshold keeps whoever reaches the token's own", "[gating]") {
  CHECK(selected(LearnedThreshold{}, std::vector<double>{0.125, 0.5, 0.25, 0.125, 0.25}, 1) == Ints{1, 2});
  CHECK(selected(LearnedThreshold{}, std::vector<double>{0.125, 0.5, 0.25, 0.125, 0.6}, 1).empty());
}

TEMPLATE_TEST_CASE("A gate of a learned threshold keeps the laws of gatings", "[gating]", float, double) {
  const Index experts = GENERATE(1, 2, 8, 129);
  CHECK(laws::broken_gating_law<TestType>(Gate{SoftmaxWithThreshold{}, LearnedThreshold{}, Shifted{}}, experts) == "");
}

TEMPLATE_TEST_CASE("LearnedThreshold keeps the laws of selections", "[gating]", float, double) {
  const Index experts = GENERATE(1, 2, 7, 40);
  CHECK(laws::broken_select_law<TestType>(LearnedThreshold{}, experts, {.columns = 1}) == "");
}
