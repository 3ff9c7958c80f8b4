// SPDX-License-Identifier: MIT
#include "mole/gating/select/top_p.hpp"

#include "mole/gating/gate.hpp"
#include "mole/gating/score/softmax.hpp"
#include "mole/gating/weigh/raw.hpp"
#include "mole/testing/gating_laws.hpp"
#include "mole/testing/select_laws.hpp"
#include "support/catch.hpp"
#include "support/seed.hpp"

#include <numeric>

using namespace mole;

namespace {

using Ints = std::vector<int>;

template <class T>
Ints top_p(const TopP& select, const std::vector<T>& scores) {
  const Index experts = Index(scores.size());
  Ints chosen(std::size_t(select.max_chosen(experts)), -1);
  const Index count = select.select(std::span<const T>(scores), experts, std::span<int>(chosen));
  chosen.resize(std::size_t(count));
  return chosen;
}

/// By the definition: sort everything, sum, look for the crossing expert, then apply the bounds.
template <class T>
Ints by_definition(const TopP& select, const std::vector<T>& scores) {
  Ints order(scores.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](int a, int b) { return scores[std::size_t(a)] > scores[std::size_t(b)]; });
  Index kept = Index(order.size());
  T sum = 0;
  for (std::size_t j = 0; j < order.size(); ++j) {
    if (j == 0 && select.crossing && !select.strict && select.p == 0) {
      kept = 0;
      break;
    }
    sum += scores[std::size_t(order[j])];
    if (select.strict ? sum > T(select.p) : sum >= T(select.p)) {
      kept = Index(j) + (select.crossing ? 1 : 0);
      break;
    }
  }
  const Index most = select.max_k == 0 ? Index(order.size()) : select.max_k;
  order.resize(std::size_t(std::min(most, std::max(kept, select.min_k))));
  return order;
}

}  // namespace

TEST_CASE("TopP gives the published sets", "[gating]") {
  std::vector<double> scores(4);
  Softmax{}.forward(std::span<const double>(std::vector<double>{2, 1, 0, -1}), std::span<double>(scores));
  const auto dynamic_moe = [&](double p) { return top_p(TopP{.p = p}, scores); };
  CHECK(dynamic_moe(0.4) == Ints{0});
  CHECK(dynamic_moe(0.6) == Ints{0});
  CHECK(dynamic_moe(0.75) == Ints{0, 1});
  CHECK(dynamic_moe(0.9) == Ints{0, 1, 2});
  CHECK(dynamic_moe(0.95) == Ints{0, 1, 2});
  const auto dyn_mole = [&](double p, Index keep) {
    return top_p(TopP{.p = p, .crossing = false, .min_k = keep}, scores);
  };
  CHECK(dyn_mole(0.6, 1) == Ints{0});
  CHECK(dyn_mole(0.75, 1) == Ints{0});
  CHECK(dyn_mole(0.9, 1) == Ints{0, 1});
  for (double p : {0.6, 0.75, 0.9}) CHECK(dyn_mole(p, 2) == Ints{0, 1});
}

TEST_CASE("TopP's sum may or must pass p", "[gating]") {
  const std::vector<double> scores{0.25, 0.5, 0.25};
  CHECK(top_p(TopP{.p = 0.5}, scores) == Ints{1, 0});
  CHECK(top_p(TopP{.p = 0.5, .strict = false}, scores) == Ints{1});
  CHECK(top_p(TopP{.p = 0.5, .crossing = false}, scores) == Ints{1});
  CHECK(top_p(TopP{.p = 0.5, .crossing = false, .min_k = 0, .strict = false}, scores).empty());
}

TEST_CASE("TopP with p at its ends keeps min_k, or all", "[gating]") {
  const std::vector<float> scores{0.125f, 0.5f, 0.375f};
  CHECK(top_p(TopP{.p = 0}, scores) == Ints{1});
  CHECK(top_p(TopP{.p = 0, .min_k = 2}, scores) == Ints{1, 2});
  CHECK(top_p(TopP{.p = 0, .crossing = false, .min_k = 0}, scores).empty());
  CHECK(top_p(TopP{.p = 0, .min_k = 0, .strict = false}, scores).empty());
  CHECK(top_p(TopP{.p = 1}, scores) == Ints{1, 2, 0});
  CHECK(top_p(TopP{.p = 7, .crossing = false}, scores) == Ints{1, 2, 0});
  CHECK(top_p(TopP{.p = 7, .max_k = 2}, scores) == Ints{1, 2});
}

TEST_CASE("TopP ends at a NaN", "[gating]") {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  CHECK(top_p<double>(TopP{.p = 0.9}, {nan, 0.25, nan, 0.5}) == Ints{3, 1, 0});
  CHECK(top_p<double>(TopP{.p = 0.9, .crossing = false}, {nan, 0.25, nan, 0.5}) == Ints{3, 1});
  CHECK(top_p<double>(TopP{.p = 0.9}, {nan, nan}) == Ints{0});
}

TEMPLATE_TEST_CASE("TopP keeps what its definition says", "[gating]", float, double) {
  using T = TestType;
  test::TestRng rng;
  for (Index experts : {1, 2, 3, 7, 8, 9, 17, 64, 129})
    for (double p : {0.0, 0.25, 0.5, 0.9, 1.0})
      for (bool crossing : {false, true})
        for (bool strict : {false, true})
          for (Index min_k : {Index(0), Index(1), std::min<Index>(experts, 6)})
            for (Index max_k : {Index(0), std::min<Index>(experts, 6), experts}) {
              // Multiples of 1/1024: sums are exact, and there are ties.
              std::vector<T> scores(std::size_t(experts), T(0));
              for (int share = 0; share < 64; ++share) scores[rng() % scores.size()] += T(1) / 64;
              const TopP select{.p = p, .crossing = crossing, .min_k = min_k, .max_k = max_k, .strict = strict};
              select.check(experts);
              CAPTURE(experts, p, crossing, strict, min_k, max_k);
              CHECK(top_p(select, scores) == by_definition(select, scores));
            }
}

TEST_CASE("TopP refuses options that do not fit", "[gating]") {
  const auto code = [](const TopP& select) {
    try {
      select.check(4);
    } catch (const Error& error) {
      return error.code();
    }
    return ErrorCode{};
  };
  for (const TopP& wrong : {TopP{.p = -0.1}, TopP{.p = std::numeric_limits<double>::quiet_NaN()}, TopP{.min_k = -1},
                            TopP{.min_k = 5}, TopP{.max_k = -1}, TopP{.max_k = 5}, TopP{.min_k = 3, .max_k = 2}})
    CHECK(code(wrong) == ErrorCode::option);
  for (const TopP& right : {TopP{}, TopP{.p = 0}, TopP{.p = 2}, TopP{.min_k = 4}, TopP{.min_k = 3, .max_k = 3}})
    CHECK(code(right) == ErrorCode{});
}

TEMPLATE_TEST_CASE("A gate of TopP keeps the laws of gatings", "[gating]", float, double) {
  const Index experts = GENERATE(1, 2, 8, 129);
  SECTION("as Dynamic_MoE") {
    CHECK(laws::broken_gating_law<TestType>(Gate{Softmax{}, TopP{.p = 0.4}, Raw{}}, experts) == "");
  }
  SECTION("as DynMoLE") {
    const Index keep = std::min<Index>(2, experts);
    CHECK(laws::broken_gating_law<TestType>(Gate{Softmax{}, TopP{.p = 0.75, .crossing = false, .min_k = keep}, Raw{}},
                                            experts) == "");
  }
}

TEMPLATE_TEST_CASE("TopP keeps the laws of selections", "[gating]", float, double) {
  const Index experts = GENERATE(1, 2, 7, 40);
  for (bool crossing : {false, true})
    for (Index min_k : {Index(0), Index(1), experts})
      for (Index max_k : {Index(0), experts})
        CHECK(laws::broken_select_law<TestType>(TopP{.p = 0.4, .crossing = crossing, .min_k = min_k, .max_k = max_k},
                                                experts) == "");
}
