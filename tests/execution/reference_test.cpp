// SPDX-License-Identifier: MIT
#include "mole/execution/reference.hpp"

#include "mole/testing/execution_laws.hpp"
#include "support/catch.hpp"

#include <vector>

using namespace mole;

// Whole numbers of two or three digits: every result below is exact, and written out from the formula, not computed.
namespace {

using Numbers = std::vector<double>;

View<const double> in(const Numbers& numbers, Index rows, Index cols) {
  return {numbers.data(), rows, cols};
}
View<double> out(Numbers& numbers, Index rows, Index cols) {
  return {numbers.data(), rows, cols};
}

/// Two tokens, three experts of 1, 2 and 0 ranks.   pairs: (0, e1, 2), (0, e0, 3), (1, e1, -1), (1, e2, 7)
struct TinyRouting {
  std::vector<int> ranks{1, 2, 0};
  RankBlocks blocks;
  Routing<double> routing;
  std::vector<int> begin{0, 2, 3, 5, 5};
  RankLayout<double> layout;

  Numbers x{1, 2, 3, 4};                 // [2 x 2]
  Numbers d_y{1, 10, 100};               // [2 x 3] below, token 0 ...
  Numbers b{1, 2, 3, 4, 5, 6, 7, 8, 9};  // [3 x 3]
  Numbers h{1, -1, 2, 3, 5};             // pair 0: 1, -1; pair 1: 2; pair 2: 3, 5; pair 3: nothing

  explicit TinyRouting(bool shared_down = false)
      : blocks(RankBlocks::ragged(ranks, shared_down)), layout{blocks, routing, begin} {
    d_y.insert(d_y.end(), {2, -3, 4});  // ... and token 1
    routing.start(3);
    routing.push(1, 2);
    routing.push(0, 3);
    routing.end_token();
    routing.push(1, -1);
    routing.push(2, 7);
    routing.end_token();
    routing.finish();
  }
};

}  // namespace

TEST_CASE("Reference: y = x w^T overwrites", "[execution]") {
  Numbers y(6, 99);
  Reference{}.product_nt(in({1, 2, 3, 4}, 2, 2), in({5, 6, 7, 8, 9, 10}, 3, 2), out(y, 2, 3));
  CHECK(y == Numbers{1 * 5 + 2 * 6, 1 * 7 + 2 * 8, 1 * 9 + 2 * 10, 3 * 5 + 4 * 6, 3 * 7 + 4 * 8, 3 * 9 + 4 * 10});
}

TEST_CASE("Reference: a product over no inputs is zero", "[execution]") {
  Numbers y(4, 99), nothing(1);
  Reference{}.product_nt(in(nothing, 2, 0), in(nothing, 2, 0), out(y, 2, 2));
  CHECK(y == Numbers(4, 0));
}

TEST_CASE("Reference: d_x += d_y w", "[execution]") {
  Numbers d_x{1000, 2000, 3000, 4000};
  Reference{}.product_nn(in({1, 2, 3, 4, 5, 6}, 2, 3), in({5, 6, 7, 8, 9, 10}, 3, 2), out(d_x, 2, 2));
  CHECK(d_x == Numbers{1000 + 1 * 5 + 2 * 7 + 3 * 9, 2000 + 1 * 6 + 2 * 8 + 3 * 10, 3000 + 4 * 5 + 5 * 7 + 6 * 9,
                       4000 + 4 * 6 + 5 * 8 + 6 * 10});
}

TEST_CASE("Reference: d_w += d_y^T x", "[execution]") {
  Numbers d_w{100, 200, 300, 400, 500, 600};
  Reference{}.product_tn(in({1, 2, 3, 4, 5, 6}, 2, 3), in({7, 8, 9, 10}, 2, 2), out(d_w, 3, 2));
  CHECK(d_w == Numbers{100 + 1 * 7 + 4 * 9, 200 + 1 * 8 + 4 * 10, 300 + 2 * 7 + 5 * 9, 400 + 2 * 8 + 5 * 10,
                       500 + 3 * 7 + 6 * 9, 600 + 3 * 8 + 6 * 10});
}

TEST_CASE("Reference: h_p = A_e x_n, in the order of the pairs", "[execution]") {
  const TinyRouting tiny;
  // Expert 0 owns row 0 of A, expert 1 rows 1 and 2.
  Numbers h(5, 99);
  Reference{}.routed_down(in(tiny.x, 2, 2), in({10, 20, 1, -1, 5, 6}, 3, 2), FactorSide::down, tiny.layout,
                          std::span(h));
  CHECK(h == Numbers{1 * 1 - 1 * 2, 5 * 1 + 6 * 2, 10 * 1 + 20 * 2, 1 * 3 - 1 * 4, 5 * 3 + 6 * 4});
}

TEST_CASE("Reference: experts that share A all read its first rows", "[execution]") {
  const TinyRouting tiny(true);
  Numbers h(5, 99);
  Reference{}.routed_down(in(tiny.x, 2, 2), in({10, 20, 1, -1}, 2, 2), FactorSide::down, tiny.layout, std::span(h));
  CHECK(h == Numbers{10 * 1 + 20 * 2, 1 * 1 - 1 * 2, 10 * 1 + 20 * 2, 10 * 3 + 20 * 4, 1 * 3 - 1 * 4});

  // d_a of a shared row collects the pairs of both experts: row 0 from pairs 1 (token 0), 0 (token 0) and 2 (token 1).
  Numbers d_a{1000, 2000, 3000, 4000};
  Reference{}.routed_outer(tiny.h, in(tiny.x, 2, 2), FactorSide::down, tiny.layout, out(d_a, 2, 2));
  CHECK(d_a == Numbers{1000 + 2 * 1 + 1 * 1 + 3 * 3, 2000 + 2 * 2 + 1 * 2 + 3 * 4, 3000 - 1 * 1 + 5 * 3,
                       4000 - 1 * 2 + 5 * 4});
}

TEST_CASE("Reference: y_n += B_e^T h_p", "[execution]") {
  const TinyRouting tiny;
  Numbers y{1, 2, 3, 4, 5, 6};
  Reference{}.routed_up(RankTerms<double>{tiny.layout, tiny.h, in(tiny.b, 3, 3), FactorSide::up}, out(y, 2, 3));
  // Token 0: 1 b_1 - 1 b_2 + 2 b_0.   Token 1: 3 b_1 + 5 b_2, and expert 2 is empty.
  CHECK(y == Numbers{1 + 4 - 7 + 2 * 1, 2 + 5 - 8 + 2 * 2, 3 + 6 - 9 + 2 * 3, 4 + 3 * 4 + 5 * 7, 5 + 3 * 5 + 5 * 8,
                     6 + 3 * 6 + 5 * 9});
}

TEST_CASE("Reference: experts that share A add its first rows to d_x", "[execution]") {
  const TinyRouting tiny(true);
  Numbers d_x{100, 200, 300, 400};
  const Numbers a{10, 20, 1, -1};
  Reference{}.routed_up(RankTerms<double>{tiny.layout, tiny.h, in(a, 2, 2), FactorSide::down}, out(d_x, 2, 2));
  CHECK(d_x == Numbers{100 + 1 * 10 - 1 * 1 + 2 * 10, 200 + 1 * 20 + 1 * 1 + 2 * 20, 300 + 3 * 10 + 5 * 1,
                       400 + 3 * 20 - 5 * 1});
}

TEST_CASE("Reference: d_b_e += h_p d_y_n^T", "[execution]") {
  const TinyRouting tiny;
  Numbers d_b(9, 0);
  d_b[0] = 7;
  Reference{}.routed_outer(tiny.h, in(tiny.d_y, 2, 3), FactorSide::up, tiny.layout, out(d_b, 3, 3));
  CHECK(d_b == Numbers{7 + 2 * 1, 2 * 10, 2 * 100,                       //
                       1 * 1 + 3 * 2, 1 * 10 + 3 * -3, 1 * 100 + 3 * 4,  //
                       -1 * 1 + 5 * 2, -1 * 10 + 5 * -3, -1 * 100 + 5 * 4});
}

TEST_CASE("Reference: a d_b of fewer rows than B is that of its last rows", "[execution]") {
  const TinyRouting tiny;
  Numbers all(9, 0);
  Reference{}.routed_outer(tiny.h, in(tiny.d_y, 2, 3), FactorSide::up, tiny.layout, out(all, 3, 3));
  for (Index rows : {1, 2}) {  // two rows: expert 1 alone; one: half of it
    Numbers last(std::size_t(3 * rows), 0);
    Reference{}.routed_outer(tiny.h, in(tiny.d_y, 2, 3), FactorSide::up, tiny.layout, out(last, rows, 3));
    CHECK(last == Numbers(all.end() - 3 * rows, all.end()));
  }
}

TEST_CASE("Reference: a linear map, its weight plain or in panels", "[execution]") {
  Numbers weight{5, 6, 7, 8, 9, 10}, bias{1000, 2000, 3000};
  const auto packed = WeightPanels<double>::of(in(weight, 3, 2));
  for (const LinearWeights<double>& w : {LinearWeights<double>{.weight = in(weight, 3, 2), .bias = in(bias, 1, 3)},
                                         LinearWeights<double>{.panels = packed.view(), .bias = in(bias, 1, 3)}}) {
    Numbers y(6, 99), d_x{1000, 2000, 3000, 4000};
    Reference{}.linear(in({1, 2, 3, 4}, 2, 2), w, out(y, 2, 3));
    CHECK(y == Numbers{1000 + 1 * 5 + 2 * 6, 2000 + 1 * 7 + 2 * 8, 3000 + 1 * 9 + 2 * 10, 1000 + 3 * 5 + 4 * 6,
                       2000 + 3 * 7 + 4 * 8, 3000 + 3 * 9 + 4 * 10});
    Reference{}.linear_backward(in({1, 2, 3, 4, 5, 6}, 2, 3), w, out(d_x, 2, 2));
    CHECK(d_x == Numbers{1000 + 1 * 5 + 2 * 7 + 3 * 9, 2000 + 1 * 6 + 2 * 8 + 3 * 10, 3000 + 4 * 5 + 5 * 7 + 6 * 9,
                         4000 + 4 * 6 + 5 * 8 + 6 * 10});
  }
}

TEST_CASE("Reference runs each task once, in order", "[execution]") {
  std::vector<Index> seen;
  Reference{}.parallel_for(3, [&](Index i) { seen.push_back(i); });
  CHECK(seen == std::vector<Index>{0, 1, 2});
  CHECK(Reference{}.threads() == 1);
}

TEMPLATE_TEST_CASE("Reference keeps the laws of executions", "[execution]", float, double) {
  CHECK(laws::broken_execution_law<TestType>(Reference{}) == "");
}
