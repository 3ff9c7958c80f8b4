// SPDX-License-Identifier: MIT
#include "mole/execution/simd.hpp"

#include "mole/execution/thread_pool.hpp"
#include "mole/testing/execution_laws.hpp"
#include "support/catch.hpp"
#include "support/execution_checks.hpp"
#include "support/random_matrix.hpp"

#include <atomic>

using namespace mole;
using namespace mole::test;

TEMPLATE_TEST_CASE("Simd's dense products equal Reference's", "[execution]", float, double) {
  all_dense_products_equal_reference<TestType>(Simd<>{});
}

TEMPLATE_TEST_CASE("Simd's dense products equal Reference's beyond one panel, one block and one task", "[execution]",
                   float, double) {
  for (Index padding : {0, 1}) {
    dense_products_equal_reference<TestType>(Simd<>{}, 200, 333, 517, padding);
    dense_products_equal_reference<TestType>(Simd<>{}, 600, 70, 9, padding);
    dense_products_equal_reference<TestType>(Simd<>{}, 2, 50, 600, padding);
  }
  DenseCase<TestType> found(65, 600, 33, 0, Rng(1)), expected(65, 600, 33, 0, Rng(1));
  found.compute(Simd<>{});
  expected.compute(Reference{});
  CHECK(difference(found.y.view(), expected.y.view()) <= Tolerance<TestType>::sum(600));
}

TEMPLATE_TEST_CASE("Simd's dense products equal Reference's where a panel, or a piece of a long sum, ends",
                   "[execution]", float, double) {
  const Index deep = kernel::Panel<kernel::DefaultArchitecture, TestType>::depth;
  for (Index edge : {deep, SimdCosts::terms_of_a_sum, 2 * SimdCosts::terms_of_a_sum})
    for (Index terms : {edge - 1, edge, edge + 1})
      for (Index rows : {SimdCosts::rows_for_pieces - 1, SimdCosts::rows_for_pieces, SimdCosts::rows_for_pieces + 1}) {
        dense_products_equal_reference<TestType>(Simd<>{}, rows, terms, 40, 0);
        dense_products_equal_reference<TestType>(Simd<>{}, rows, 40, terms, 0);
      }
}

TEMPLATE_TEST_CASE("Simd's product over no inputs is zero, and its bias alone", "[execution]", float, double) {
  using T = TestType;
  for (Index tokens : {1, 7, 100}) {
    const Matrix<T> x(tokens, 0), weight(70, 0);
    const auto bias = support::random_matrix<T>(1, 70, 1);
    Matrix<T> y = support::random_matrix<T>(tokens, 70, 2);
    Simd<>{}.product_nt(View<const T>(x.data(), tokens, 0), View<const T>(weight.data(), 70, 0), y.view());
    CHECK(std::all_of(y.elements().begin(), y.elements().end(), [](T element) { return element == 0; }));
    y = support::random_matrix<T>(tokens, 70, 2);
    Simd<>{}.linear(View<const T>(x.data(), tokens, 0), {.weight = {bias.data(), 70, 0}, .bias = bias.view()},
                    y.view());
    CHECK(y(tokens - 1, 69) == bias(0, 69));
  }
}

TEMPLATE_TEST_CASE("Simd's sums of more terms than a panel has rows are whole", "[execution]", float, double) {
  // Small whole numbers: sums are exact in any order, so a term lost or counted twice shows.
  const Index depth = 5000, rows = 70, cols = 37;
  GuardedMatrix<TestType> tall(depth, cols, TestType(0)), taller(depth, rows, TestType(0));
  Rng rng(test_seed());
  for (auto* matrix : {&tall, &taller})
    for (Index r = 0; r < depth; ++r)
      for (TestType& element : matrix->view().row(r)) element = TestType(rng() % 5) - 2;
  GuardedMatrix<TestType> wide(rows, depth, TestType(0)), wider(cols, depth, TestType(0));
  for (Index k = 0; k < depth; ++k) {
    for (Index r = 0; r < rows; ++r) wide(r, k) = taller(k, r);
    for (Index c = 0; c < cols; ++c) wider(c, k) = tall(k, c);
  }
  using ViewOfConst = View<const TestType>;
  GuardedMatrix<TestType> expected(rows, cols, TestType(0)), nt = expected, nn = expected, tn = expected;
  Reference{}.product_nt(ViewOfConst(wide.view()), ViewOfConst(wider.view()), expected.view());
  Simd<>{}.product_nt(ViewOfConst(wide.view()), ViewOfConst(wider.view()), nt.view());
  Simd<>{}.product_nn(ViewOfConst(wide.view()), ViewOfConst(tall.view()), nn.view());
  Simd<>{}.product_tn(ViewOfConst(taller.view()), ViewOfConst(tall.view()), tn.view());
  CHECK(difference(nt.view(), expected.view()) == 0);
  CHECK(difference(nn.view(), expected.view()) == 0);
  CHECK(difference(tn.view(), expected.view()) == 0);
}

TEMPLATE_TEST_CASE("Simd's routed primitives equal Reference's", "[execution]", float, double) {
  all_routed_primitives_equal_reference<TestType>(Simd<>{});
}

TEMPLATE_TEST_CASE("Simd's routed primitives equal Reference's beyond one task", "[execution]", float, double) {
  large_primitives_equal_reference<TestType>(Simd<>{});
}

TEMPLATE_TEST_CASE("Simd's routed primitives equal Reference's where rows of a table compete for one set of the cache",
                   "[execution]", float, double) {
  // Rows whose distance is a multiple of 2 KiB are copied side by side, 128 at most.
  const Index far = 2048 / Index(sizeof(TestType));
  TestRng rng;
  const auto check = [&](const RankBlocks& blocks, Spread spread, Index width, Index padding) {
    const RoutedCase<TestType> c(blocks, random_routing<TestType>(spread, 60, blocks.experts(), rng), width, width,
                                 padding, rng);
    CAPTURE(blocks.max_size(), int(spread), width, padding);
    routed_primitives_equal_reference<TestType>(Simd<>{}, c, padding);
  };
  for (auto [width, padding] : {std::pair(far - 1, Index(0)),
                                {far - 1, Index(1)},
                                {far, Index(0)},
                                {far + 1, Index(0)},
                                {far + 1, far - 1},
                                {2 * far, Index(0)}}) {
    for (Spread spread : {Spread::random_pairs, Spread::everybody})
      check(RankBlocks::uniform(5, 17), spread, width, padding);
    for (Index ranks : {127, 128, 129, 200}) check(RankBlocks::uniform(2, ranks), Spread::all_to_one, width, padding);
  }
}

TEMPLATE_TEST_CASE("Simd's routed primitives equal Reference's where a run of pairs, or of a token's ranks, ends",
                   "[execution]", float, double) {
  TestRng rng;
  const auto check = [&](const RankBlocks& blocks, Routing<TestType> routing) {
    const RoutedCase<TestType> c(blocks, std::move(routing), 40, 30, 0, rng);
    CAPTURE(blocks.experts(), c.routing.tokens());
    routed_primitives_equal_reference<TestType>(Simd<>{}, c, 0);
  };
  for (Index count : {SimdCosts::run - 1, SimdCosts::run, SimdCosts::run + 1, 3 * SimdCosts::run / 2}) {
    check(RankBlocks::uniform(2, 8), random_routing<TestType>(Spread::all_to_one, count, 2, rng));
    Matrix<TestType> gates(3, count + 1);  // all experts but one: no matrix product
    fill(gates.view(), 1);
    for (Index n = 0; n < 3; ++n) gates(n, 10 * n) = 0;
    check(RankBlocks::uniform(count + 1, 1), Routing<TestType>::from_dense(gates));
  }
}

TEMPLATE_TEST_CASE("Simd of one element a vector equals Reference in every primitive", "[execution]", float, double) {
  using Plain = Simd<kernel::Scalar>;
  all_dense_products_equal_reference<TestType>(Plain{});
  dense_products_equal_reference<TestType>(Plain{}, 200, 333, 517, 1);
  all_routed_primitives_equal_reference<TestType>(Plain{});
  large_primitives_equal_reference<TestType>(Plain{});
}

TEMPLATE_TEST_CASE("Simd computes the same bits on any number of threads", "[execution][threads]", float, double) {
  TestRng rng;
  const Rng start(test_seed());
  for (const RoutedCase<TestType>& c : large_routed_cases<TestType>(rng)) {
    RoutedResults<TestType> alone(c, 0, start);
    alone.compute(Simd<>{}, c);
    for (int threads : {1, 2, 3, 5, 8}) {
      CAPTURE(c.blocks.experts(), c.blocks.max_size(), threads);
      RoutedResults<TestType> shared(c, 0, start);
      shared.compute(Simd{ThreadPool{threads}}, c);
      shared.compare(alone, c, [](std::string name, const auto& a, const auto& b, Index) {
        CAPTURE(name);
        CHECK(difference(a.view(), b.view()) == 0);
      });
    }
  }
  DenseCase<TestType> dense(200, 333, 517, 0, start), few(7, 333, 517, 0, start);
  dense.compute(Simd<>{});
  few.compute(Simd<>{});
  for (int threads : {1, 2, 3, 5, 8}) {
    const Simd execution{ThreadPool{threads}};
    REQUIRE(execution.threads() == threads);
    CAPTURE(threads);
    for (DenseCase<TestType>* expected : {&dense, &few}) {
      DenseCase<TestType> found(expected->x.view().rows(), 333, 517, 0, start);
      found.compute(execution);
      found.compare(*expected, [](std::string name, const auto& a, const auto& b, Index) {
        CAPTURE(name);
        CHECK(difference(a.view(), b.view()) == 0);
      });
    }
  }
}

TEMPLATE_TEST_CASE("A linear map of Simd with terms has the bits of the map and then its terms", "[execution]", float,
                   double) {
  using T = TestType;
  TestRng rng;
  for (const RankBlocks& blocks : {RankBlocks::uniform(5, 17), RankBlocks::uniform(5, 1), RankBlocks::uniform(5, 40)})
    for (Index tokens : {1, 3, 13, 200}) {
      const Index in = 200, out = 333;
      const RoutedCase<T> c(blocks, random_routing<T>(Spread::random_pairs, tokens, 5, rng), in, out, 3, rng);
      const auto weight = random_input<T>(out, in, rng), bias = random_input<T>(1, out, rng);
      const auto a = random_input<T>(tokens, 5, rng), w = random_input<T>(5, in, rng);
      const auto panels = WeightPanels<T>::of(weight.view()),
                 transposed = WeightPanels<T>::of_transposed(weight.view());
      const RankTerms<T> up{c.layout(), c.h.view().row(0), c.b.view(), FactorSide::up},
          down{c.layout(), c.h.view().row(0), c.a.view(), FactorSide::down};
      const LinearTerm<T> router{a.view(), w.view()};
      CAPTURE(blocks.max_size(), tokens);
      for (const LinearWeights<T>& weights :
           {LinearWeights<T>{.weight = weight.view(), .bias = bias.view()},
            LinearWeights<T>{.panels = panels.view(), .bias = bias.view()},
            LinearWeights<T>{.panels = panels.view(), .transposed_panels = transposed.view()}}) {
        const Rng start(test_seed() + 2);
        RoutedResults<T> mixed(c, 0, start), apart(c, 0, start);
        Simd<>{}.linear(c.x.view(), weights, mixed.y.view(), up);
        Simd<>{}.linear(c.x.view(), weights, apart.y.view());
        Simd<>{}.routed_up(up, apart.y.view());
        CHECK(difference(mixed.y.view(), apart.y.view()) == 0);
        CHECK(mixed.y.intact());

        Simd<>{}.linear_backward(c.d_y.view(), weights, mixed.d_x.view(), down, router);
        Simd<>{}.linear_backward(c.d_y.view(), weights, apart.d_x.view());
        Simd<>{}.routed_up(down, apart.d_x.view());
        CHECK(difference(mixed.d_x.view(), apart.d_x.view()) != 0);  // the router's share is still missing
        Reference{}.product_nn(a.view(), w.view(), apart.d_x.view());
        CHECK(difference(mixed.d_x.view(), apart.d_x.view()) <= Tolerance<T>::sum(out + 5 * blocks.max_size() + 5));
      }
    }
}

namespace {

/// Runs tasks last to first, and notes how many a loop had.
struct Backwards {
  std::vector<Index>* loops;

  template <class F>
  void parallel_for(Index tasks, F&& f) const {
    loops->push_back(tasks);
    for (Index i = tasks; i-- > 0;) f(i);
  }
  int threads() const { return 2; }
};

}  // namespace

TEST_CASE("Simd shares large work, keeps small work together, and minds no order of tasks", "[execution]") {
  std::vector<Index> loops;
  const Simd execution{Backwards{&loops}};
  const Rng start(test_seed());
  DenseCase<float> found(200, 333, 517, 0, start), expected(200, 333, 517, 0, start);
  found.compute(execution);
  expected.compute(Simd<>{});
  CHECK(difference(found.y.view(), expected.y.view()) == 0);
  CHECK(difference(found.d_x.view(), expected.d_x.view()) == 0);
  CHECK(difference(found.d_w.view(), expected.d_w.view()) == 0);
  REQUIRE(loops.size() == 8);
  for (Index tasks : loops) CHECK(tasks >= 4);  // 34 million multiply-adds are work for more than a few threads

  loops.clear();
  DenseCase<float>(4, 16, 16, 0, start).compute(execution);
  for (Index tasks : loops) CHECK(tasks == 1);
}

TEMPLATE_TEST_CASE("Simd keeps the laws of executions", "[execution]", float, double) {
  CHECK(laws::broken_execution_law<TestType>(Simd<>{}) == "");
  CHECK(laws::broken_execution_law<TestType>(Simd<kernel::Scalar>{}) == "");
}
