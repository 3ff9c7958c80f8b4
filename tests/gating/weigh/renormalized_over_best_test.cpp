// SPDX-License-Identifier: MIT
#include "mole/gating/weigh/renormalized_over_best.hpp"

#include "mole/gating/gate.hpp"
#include "mole/gating/score/softmax.hpp"
#include "mole/gating/select/expert_capacity.hpp"
#include "mole/gating/select/top_k.hpp"
#include "mole/gating/weigh/renormalized.hpp"
#include "mole/testing/gating_laws.hpp"
#include "mole/testing/weigh_laws.hpp"
#include "support/catch.hpp"
#include "support/random_matrix.hpp"

using namespace mole;

namespace {
std::vector<double> shares_of_best(const RenormalizedOverBest& weigh, const std::vector<double>& scores,
                                   const std::vector<int>& chosen) {
  std::vector<double> gates(chosen.size(), 99);
  weigh.forward(std::span<const double>(scores), std::span<const int>(chosen), std::span<double>(gates));
  return gates;
}
}  // namespace

TEST_CASE("RenormalizedOverBest divides by the best scores, also by those that do not serve", "[gating]") {
  CHECK(shares_of_best({.k = 2}, {0.5, 0.125, 0.375}, {0}) == std::vector<double>{0.5 / 0.875});
  CHECK(shares_of_best({.k = 2}, {0.5, 0.125, 0.375}, {2}) == std::vector<double>{0.375 / 0.875});
  CHECK(shares_of_best({.k = 2, .sum = 2}, {0.5, 0.125, 0.375}, {0, 2}) ==
        std::vector<double>{1 / 0.875, 0.75 / 0.875});
  CHECK(shares_of_best({.k = 1}, {0.25, 0.75}, {1}) == std::vector<double>{1});
  CHECK(shares_of_best({.k = 2}, {0.25, 0.25, 0.25}, {1}) == std::vector<double>{0.5});  // ties
}

TEST_CASE("RenormalizedOverBest counts neither NaN nor -infinity, and gives 0 where nothing is left", "[gating]") {
  const double nan = std::numeric_limits<double>::quiet_NaN(), none = -std::numeric_limits<double>::infinity();
  CHECK(shares_of_best({.k = 3}, {nan, 0.75, none, 0.25}, {1}) == std::vector<double>{0.75});
  CHECK(shares_of_best({.k = 3}, {nan, 0.75, none, 0.25}, {2, 3}) == std::vector<double>{0, 0.25});
  CHECK(shares_of_best({.k = 2}, {0, 0, 0}, {1}) == std::vector<double>{0});
  CHECK(shares_of_best({.k = 2}, {none, nan, none}, {0}) == std::vector<double>{0});
}

TEST_CASE("RenormalizedOverBest's gradient is its derivative, also by scores that do not serve", "[gating]") {
  CHECK(laws::broken_weigh_law(RenormalizedOverBest{.k = 3}, {.columns = 6, .chosen = {4, 0, 1}}) == "");
  for (Index k : {1, 2, 4, 6})
    for (const std::vector<int>& chosen : {std::vector<int>{2}, {5, 3}, {0, 1, 2, 3, 4, 5}, {}}) {
      CAPTURE(k, chosen);
      CHECK(laws::broken_weigh_law(RenormalizedOverBest{.k = k, .sum = 1.5}, {.columns = 6, .chosen = chosen}) == "");
    }
}

TEST_CASE("RenormalizedOverBest is Renormalized where nobody is dropped, and keeps its gates where some are",
          "[gating]") {
  const auto logits = support::random_matrix<double>(40, 6, 71, 2);
  const auto free = laws::routed(Gate{Softmax{}, TopK{3}, Renormalized{}}, logits, 6);
  const auto same = laws::routed(Gate{Softmax{}, TopK{3}, RenormalizedOverBest{.k = 3}}, logits, 6);
  REQUIRE(same.routing.pairs() == free.routing.pairs());
  for (Index p = 0; p < free.routing.pairs(); ++p) CHECK(std::abs(same.routing.gate(p) - free.routing.gate(p)) < 1e-15);

  const auto few = laws::routed(
      Gate{Softmax{}, ExpertCapacity{TopK{3}, CapacityOptions{.factor = 0.5}}, RenormalizedOverBest{.k = 3}}, logits,
      6);
  REQUIRE(few.routing.pairs() < free.routing.pairs());
  for (Index n = 0; n < 40; ++n)
    for (std::size_t i = 0; i < few.routing.experts_of(n).size(); ++i)
      for (std::size_t j = 0; j < 3; ++j)
        if (free.routing.experts_of(n)[j] == few.routing.experts_of(n)[i])
          CHECK(std::abs(few.routing.gates_of(n)[i] - free.routing.gates_of(n)[j]) < 1e-15);
}

TEST_CASE("RenormalizedOverBest refuses options that do not fit", "[gating]") {
  CHECK_THROWS_AS(RenormalizedOverBest{.k = 0}.check(4), Error);
  CHECK_THROWS_AS(RenormalizedOverBest{.k = 5}.check(4), Error);
  CHECK_THROWS_AS((RenormalizedOverBest{.k = 2, .sum = 0}.check(4)), Error);
}
