// SPDX-License-Identifier: MIT
#include "mole/gating/select/relative_threshold.hpp"

#include "mole/gating/gate.hpp"
#include "mole/gating/score/softmax.hpp"
#include "mole/gating/weigh/renormalized.hpp"
#include "mole/testing/gating_laws.hpp"
#include "mole/testing/select_laws.hpp"
#include "support/catch.hpp"
#include "support/selected.hpp"

using namespace mole;
using support::selected;
using Ints = std::vector<int>;

TEST_CASE("RelativeThreshold drops whoever is far behind the best", "[gating]") {
  const std::vector<double> scores{0.125, 0.5, 0.25, 0.125};
  CHECK(selected(RelativeThreshold{.ratio = 0.5, .k = 3}, scores) == Ints{1, 2});
  CHECK(selected(RelativeThreshold{.ratio = 0.25, .k = 3}, scores) == Ints{1, 2, 0});
  CHECK(selected(RelativeThreshold{.ratio = 1, .k = 4}, scores) == Ints{1});
  CHECK(support::refuses(RelativeThreshold{.ratio = 1.5}, 4));
  CHECK(support::refuses(RelativeThreshold{.k = 5}, 4));
  CHECK(support::refuses(RelativeThreshold{.k = 0}, 4));
}

TEMPLATE_TEST_CASE("A gate of a relative threshold keeps the laws of gatings", "[gating]", float, double) {
  const Index experts = GENERATE(1, 2, 8, 129);
  const Index k = std::min<Index>(experts, 3);
  CHECK(laws::broken_gating_law<TestType>(Gate{Softmax{}, RelativeThreshold{.ratio = 0.7, .k = k}, Renormalized{}},
                                          experts) == "");
}

TEMPLATE_TEST_CASE("RelativeThreshold keeps the laws of selections", "[gating]", float, double) {
  const Index experts = GENERATE(1, 2, 7, 40);
  CHECK(laws::broken_select_law<TestType>(RelativeThreshold{.ratio = 0.7, .k = experts}, experts) == "");
}
