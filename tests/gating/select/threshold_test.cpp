// SPDX-License-Identifier: MIT
#include "mole/gating/select/threshold.hpp"

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

TEST_CASE("Threshold keeps whoever reaches it, best first", "[gating]") {
  const std::vector<double> scores{0.125, 0.5, 0.25, 0.125};
  CHECK(selected(Threshold{.threshold = 0.125}, scores) == Ints{1, 2, 0, 3});
  CHECK(selected(Threshold{.threshold = 0.125, .strict = true}, scores) == Ints{1, 2});
  CHECK(selected(Threshold{.threshold = 0.6}, scores).empty());
  CHECK(selected(Threshold{.threshold = 0.6, .min_k = 3}, scores) == Ints{1, 2, 0});
  const double nan = std::numeric_limits<double>::quiet_NaN();
  CHECK(selected(Threshold{.threshold = 0.1}, std::vector<double>{nan, 0.5}) == Ints{1});
  CHECK(support::refuses(Threshold{.min_k = 5}, 4));
  CHECK(support::refuses(Threshold{.min_k = -1}, 4));
  CHECK(support::refuses(Threshold{.threshold = nan}, 4));
}

TEMPLATE_TEST_CASE("A gate of a threshold keeps the laws of gatings", "[gating]", float, double) {
  const Index experts = GENERATE(1, 2, 8, 129);
  CHECK(laws::broken_gating_law<TestType>(
            Gate{Softmax{}, Threshold{.threshold = 1.0 / double(experts)}, Renormalized{}}, experts) == "");
}

TEMPLATE_TEST_CASE("Threshold keeps the laws of selections", "[gating]", float, double) {
  const Index experts = GENERATE(1, 2, 7, 40);
  for (Index min_k : {Index(0), Index(1), experts})
    CHECK(laws::broken_select_law<TestType>(Threshold{.threshold = 1.0 / double(experts), .min_k = min_k}, experts) ==
          "");
}
