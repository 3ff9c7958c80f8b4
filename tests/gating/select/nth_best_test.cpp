// SPDX-License-Identifier: MIT
#include "mole/gating/select/nth_best.hpp"

#include "mole/execution/simd.hpp"
#include "mole/gating/gate.hpp"
#include "mole/gating/score/softmax.hpp"
#include "mole/gating/select/top_k.hpp"
#include "mole/gating/weigh/raw.hpp"
#include "mole/gating/weigh/renormalized.hpp"
#include "mole/testing/gating_laws.hpp"
#include "mole/testing/select_laws.hpp"
#include "support/catch.hpp"
#include "support/random_matrix.hpp"
#include "support/seed.hpp"
#include "support/selected.hpp"

#include <limits>
#include <numeric>

using namespace mole;
using support::selected;
using Ints = std::vector<int>;

namespace {

/// Halves from -2 to 2: experts of a token often have the same.
template <class T>
Matrix<T> logits_with_ties(Index tokens, Index experts, Rng& rng) {
  Matrix<T> logits(tokens, experts);
  for (T& logit : logits.elements()) logit = T(rng() % 9) / 2 - 2;
  return logits;
}

/// d_logits of a gate for the upstream gradient that `seed` makes.
template <class Execution, class T, class Gating>
Matrix<T> gradient(const Gating& gate, Trace<T>& trace, std::uint64_t seed) {
  Rng upstream(seed);
  fill_uniform(View<T>(trace.d_gate(), 1, trace.routing.pairs()), 1, upstream);
  laws::Harness<Gating, Execution> harness(gate, trace.tokens());
  auto call = harness.call();
  gate.backward(trace, call);
  Matrix<T> d_logits(trace.tokens(), trace.experts());
  for (Index n = 0; n < trace.tokens(); ++n)
    std::copy_n(trace.d_logits().row_data(n), trace.experts(), d_logits.view().row_data(n));
  return d_logits;
}

/// Do two gates choose, weigh and differentiate with the same bits?
template <class Execution, class T, class One, class Other>
bool same(const One& one, const Other& other, const Matrix<T>& logits) {
  auto a = laws::routed<Execution>(one, logits, logits.cols()),
       b = laws::routed<Execution>(other, logits, logits.cols());
  bool equal = a.routing.pairs() == b.routing.pairs();
  for (Index p = 0; equal && p < a.routing.pairs(); ++p)
    equal = a.routing.token(p) == b.routing.token(p) && a.routing.expert(p) == b.routing.expert(p) &&
            a.routing.gate(p) == b.routing.gate(p);
  return equal && support::same_bits(gradient<Execution>(one, a, 5), gradient<Execution>(other, b, 5));
}

}  // namespace

TEST_CASE("NthBest keeps the experts at its places", "[gating]") {
  const std::vector<double> scores{0.1, 0.4, 0.2, 0.3};
  CHECK(selected(NthBest{}, scores) == Ints{3});
  CHECK(selected(NthBest{{0}}, scores) == Ints{1});
  CHECK(selected(NthBest{{3}}, scores) == Ints{0});
  CHECK(selected(NthBest{{0, 2}}, scores) == Ints{1, 2});
  CHECK(selected(NthBest{{1, 2, 3}}, scores) == Ints{3, 2, 0});
  CHECK(selected(NthBest{{2}}, std::vector<double>{1, 0, 2, 9}, 1) == Ints{1});  // the last column is no expert
}

TEST_CASE("NthBest orders ties by index and puts NaN last", "[gating]") {
  const double nan = std::numeric_limits<double>::quiet_NaN(), infinity = std::numeric_limits<double>::infinity();
  const std::vector<double> scores{nan, 1, -infinity, 1, nan, 2};
  const Ints order{5, 1, 3, 2, 0, 4};
  for (Index place = 0; place < 6; ++place)
    CHECK(selected(NthBest{{place}}, scores) == Ints{order[std::size_t(place)]});
  CHECK(selected(NthBest{{0, 1, 2, 3, 4, 5}}, scores) == order);
  CHECK(selected(NthBest{{1}}, std::vector<double>{nan, nan, nan}) == Ints{1});
}

TEMPLATE_TEST_CASE("The first k places are top-k: experts, weights and gradients", "[gating]", float, double) {
  using T = TestType;
  test::TestRng rng;
  for (Index experts : {2, 3, 8, 17, 64})
    for (Index tokens : {1, 7, 40}) {  // more than the lanes of a vector, which TopK uses under Simd
      const auto logits = logits_with_ties<T>(tokens, experts, rng);
      CAPTURE(experts, tokens);
      const Gate by_places{Softmax{}, NthBest{{0, 1}}, Renormalized{}};
      const Gate top_2{Softmax{}, TopK{2}, Renormalized{}};
      CHECK(same<Reference>(by_places, top_2, logits));
      CHECK(same<Simd<>>(by_places, top_2, logits));
      CHECK(same<Reference>(Gate{Softmax{}, NthBest{{0}}, Raw{}}, Gate{Softmax{}, TopK{1}, Raw{}}, logits));
      CHECK_FALSE(same<Reference>(Gate{Softmax{}, NthBest{{1}}, Raw{}}, Gate{Softmax{}, TopK{1}, Raw{}}, logits));
    }
}

TEMPLATE_TEST_CASE("The places of a token cover every expert once", "[gating]", float, double) {
  using T = TestType;
  test::TestRng rng;
  for (Index experts : {1, 2, 8, 129}) {
    const Index tokens = 9;
    const auto logits = logits_with_ties<T>(tokens, experts, rng);
    Matrix<int> times(tokens, experts);
    for (Index place = 0; place < experts; ++place) {
      const auto trace = laws::routed(Gate{Softmax{}, NthBest{{place}}, Raw{}}, logits, experts);
      REQUIRE(trace.routing.pairs() == tokens);
      for (Index n = 0; n < tokens; ++n) ++times(n, trace.routing.expert(n));
    }
    CAPTURE(experts);
    for (int count : times.elements()) REQUIRE(count == 1);
  }
}

TEST_CASE("A single expert has weight 1 renormalized, and its own probability raw", "[gating]") {
  Matrix<double> logits(1, 3);
  logits(0, 1) = std::log(3.0);
  logits(0, 2) = std::log(2.0);  // probabilities 1/6, 1/2, 1/3
  const auto one = laws::routed(Gate{Softmax{}, NthBest{}, Renormalized{}}, logits, 3);
  const auto own = laws::routed(Gate{Softmax{}, NthBest{}, Raw{}}, logits, 3);
  REQUIRE(one.routing.pairs() == 1);
  REQUIRE(own.routing.pairs() == 1);
  CHECK(one.routing.expert(0) == 2);
  CHECK(own.routing.expert(0) == 2);
  CHECK(one.routing.gate(0) == 1);
  CHECK(std::abs(own.routing.gate(0) - 1.0 / 3) < 1e-15);
}

TEMPLATE_TEST_CASE("A gate of NthBest keeps the laws of gatings", "[gating]", float, double) {
  using T = TestType;
  const Index experts = GENERATE(2, 3, 8, 129);
  SECTION("the second best") {
    CHECK(laws::broken_gating_law<T>(Gate{Softmax{}, NthBest{{1}}, Renormalized{}}, experts, {.of_equals = {1}}) == "");
  }
  SECTION("the best and the worst, beside vectors") {
    CHECK(laws::broken_gating_law<T, Simd<>>(Gate{Softmax{}, NthBest{{0, experts - 1}}, Raw{}}, experts,
                                             {.of_equals = {0, int(experts) - 1}}) == "");
  }
}

TEST_CASE("NthBest has room for no more experts than it has places", "[gating]") {
  CHECK(Gate{Softmax{}, NthBest{{7}}, Renormalized{}}.max_pairs(10, 8) == 10);
  CHECK(Gate{Softmax{}, NthBest{{1, 7}}, Renormalized{}}.max_pairs(10, 8) == 20);
}

TEST_CASE("NthBest takes all only where every place is listed", "[gating]") {
  CHECK(NthBest{{0, 1, 2}}.takes_all(3));
  CHECK_FALSE(NthBest{{0, 2}}.takes_all(3));
  CHECK_FALSE(NthBest{{0}}.takes_all(2));
}

TEST_CASE("NthBest refuses places that are none, or are not in order", "[gating]") {
  CHECK(support::refuses(NthBest{{}}, 4));
  CHECK(support::refuses(NthBest{{4}}, 4));
  CHECK(support::refuses(NthBest{{0, 4}}, 4));
  CHECK(support::refuses(NthBest{{-1}}, 4));
  CHECK(support::refuses(NthBest{{1, 0}}, 4));
  CHECK(support::refuses(NthBest{{1, 1}}, 4));
  CHECK(support::refuses(NthBest{}, 1));
  CHECK_FALSE(support::refuses(NthBest{{0, 3}}, 4));
  CHECK_FALSE(support::refuses(NthBest{}, 2));
}

TEMPLATE_TEST_CASE("NthBest keeps the laws of selections, of any place", "[gating]", float, double) {
  const Index experts = GENERATE(3, 7, 40);
  CHECK(laws::broken_select_law<TestType>(NthBest{{0, 2}}, experts, {.lower_of_equals = false}) == "");
  CHECK(laws::broken_select_law<TestType>(NthBest{{1}}, experts, {.lower_of_equals = false}) == "");
}
