// SPDX-License-Identifier: MIT
#include "mole/gating/select/near_best.hpp"

#include "mole/gating/gate.hpp"
#include "mole/gating/score/softmax.hpp"
#include "mole/gating/weigh/unit.hpp"
#include "mole/testing/gating_laws.hpp"
#include "mole/testing/select_laws.hpp"
#include "support/catch.hpp"
#include "support/selected.hpp"

#include <limits>

using namespace mole;

namespace {
std::vector<int> near_best(const NearBest& select, const std::vector<double>& scores) {
  std::vector<int> chosen(scores.size());
  chosen.resize(std::size_t(select.select(std::span<const double>(scores), Index(scores.size()), std::span(chosen))));
  return chosen;
}
}  // namespace

TEST_CASE("NearBest keeps the best and what is within the tolerance of it, strictly", "[gating]") {
  CHECK(near_best({.tolerance = 0.25}, {0.5, 0.25, 0.75, 0.625}) == std::vector<int>{2, 3});
  CHECK(near_best({.tolerance = 0.26}, {0.5, 0.25, 0.75, 0.625}) == std::vector<int>{2, 3, 0});
  CHECK(near_best({.tolerance = 0}, {0.5, 0.75, 0.75}) == std::vector<int>{1, 2});
  CHECK(near_best({.tolerance = 1e-6}, {0.5, 0.5 + 5e-7, 0.5 - 1e-6}) == std::vector<int>{1, 0});
}

TEST_CASE("NearBest always keeps one: the best of infinities, the first where no score is a number", "[gating]") {
  const double nan = std::numeric_limits<double>::quiet_NaN(), inf = std::numeric_limits<double>::infinity();
  CHECK(near_best({}, {nan, nan}) == std::vector<int>{0});
  CHECK(near_best({}, {nan, 0.5, nan}) == std::vector<int>{1});
  CHECK(near_best({}, {1, inf, inf}) == std::vector<int>{1, 2});
  CHECK(near_best({}, {-inf, -inf}) == std::vector<int>{0, 1});
  CHECK(near_best({}, {1e30, 1e4}) == std::vector<int>{0});
}

TEST_CASE("NearBest adds up what two equal columns of a gate choose", "[gating]") {
  Matrix<double> logits(2, 3);
  logits(0, 0) = logits(0, 2) = 1, logits(1, 1) = 1;
  const auto trace = laws::routed(Gate{Softmax{}, NearBest{}, Unit{}}, logits, 3);
  using Choice = std::vector<std::pair<int, double>>;
  CHECK(laws::choices(trace) == std::vector<Choice>{{{0, 1.0}, {2, 1.0}}, {{1, 1.0}}});
}

TEST_CASE("NearBest keeps the laws of selections", "[gating]") {
  for (double tolerance : {0.0, 1e-6, 0.1}) {
    CHECK(laws::broken_select_law<double>(NearBest{tolerance}, 8) == "");
    CHECK(laws::broken_select_law<float>(NearBest{tolerance}, 1) == "");
  }
  CHECK(support::refuses(NearBest{-1e-6}, 4));
  CHECK(support::refuses(NearBest{std::numeric_limits<double>::infinity()}, 4));
}
