// SPDX-License-Identifier: MIT
#include "mole/surgery/deal_units.hpp"

#include "core/error_code.hpp"
#include "mole/mole.hpp"
#include "support/catch.hpp"
#include "support/layers.hpp"

#include <limits>
#include <set>

using namespace mole;
using Units = std::vector<int>;

TEST_CASE("Units are dealt out in rounds that turn, and ties go to the lower unit", "[surgery]") {
  const std::vector<double> falling{8, 7, 6, 5, 4, 3, 2, 1}, equal(6, 1.0), some{1, 9, 2, 8, 3, 7};
  CHECK(deal_units(falling, {.experts = 4}).experts == std::vector<Units>{{0, 7}, {1, 6}, {2, 5}, {3, 4}});
  CHECK(deal_units(equal, {.experts = 2}).experts == std::vector<Units>{{0, 3, 4}, {1, 2, 5}});
  const auto dealt = deal_units(some, {.experts = 2, .shared = 2});
  CHECK(dealt.shared == Units{1, 3});
  CHECK(dealt.experts == std::vector<Units>{{5, 0}, {4, 2}});
}

TEST_CASE("Every unit is dealt out once, and experts of an even number of units have the same sum of ranks",
          "[surgery]") {
  for (const Index experts : {1, 3, 5})
    for (const Index each : {2, 4, 6})
      for (const Index shared : {0, 4}) {
        const Index units = experts * each + shared;
        const auto numbers = support::random_matrix<double>(1, units, 3);
        const std::vector<double> importance(numbers.elements().begin(), numbers.elements().end());
        const auto dealt = deal_units(importance, {.experts = experts, .shared = shared});
        std::set<int> seen(dealt.shared.begin(), dealt.shared.end());
        std::set<Index> sums;
        for (const Units& expert : dealt.experts) {
          CHECK(Index(expert.size()) == each);
          Index sum = 0;
          for (const int unit : expert) {
            seen.insert(unit);
            sum += std::ranges::count_if(importance, [&](double v) { return v > importance[std::size_t(unit)]; });
          }
          sums.insert(sum);
        }
        CHECK(Index(seen.size()) == units);
        CHECK(sums.size() == 1);
      }
}

TEST_CASE("A dense block that is dealt out to experts, all of which serve, is the dense block", "[surgery]") {
  constexpr Index in = 5, hidden = 12, experts = 3;
  const auto gate = support::random_matrix<double>(hidden, in, 1), up = support::random_matrix<double>(hidden, in, 2),
             down = support::random_matrix<double>(in, hidden, 3), x = support::random_matrix<double>(7, in, 4),
             numbers = support::random_matrix<double>(1, hidden, 5);
  const auto dealt =
      deal_units(std::vector<double>(numbers.elements().begin(), numbers.elements().end()), {.experts = experts});
  Rng rng(1);
  const auto map = [&](Index from, Index to, auto weight_of) {
    MapExperts<DenseMaps<double>> maps({.in = from, .out = to, .experts = experts}, rng);
    for (Index e = 0; e < experts; ++e)
      for (Index o = 0; o < to; ++o)
        for (Index i = 0; i < from; ++i) maps.parameters().weight(e * to + o, i) = weight_of(e, o, i);
    return ExpertProjection{std::move(maps), NoBase<double>(from, to)};
  };
  const auto unit = [&](Index e, Index i) { return Index(dealt.experts[std::size_t(e)][std::size_t(i)]); };
  constexpr Index each = hidden / experts;
  LinearRouter<double> router({.in = in, .experts = experts}, rng);
  router.parameters().weight.set_zero();
  auto gate_map = map(in, each, [&](Index e, Index o, Index i) { return gate(unit(e, o), i); });
  auto up_map = map(in, each, [&](Index e, Index o, Index i) { return up(unit(e, o), i); });
  auto down_map = map(each, in, [&](Index e, Index o, Index i) { return down(o, unit(e, i)); });
  auto layer = MixtureLinear(router, Gate{Identity{}, TopK{experts}, Raw{.offset = 1}},
                             FeedForwardExperts{std::move(gate_map), std::move(up_map), std::move(down_map)},
                             NoBase<double>(in, in), Reference{});
  const auto y = support::output(layer, x);
  for (Index n = 0; n < 7; ++n)
    for (Index o = 0; o < in; ++o) {
      long double expected = 0;
      for (Index h = 0; h < hidden; ++h) {
        long double g = 0, u = 0;
        for (Index i = 0; i < in; ++i) g += gate(h, i) * x(n, i), u += up(h, i) * x(n, i);
        expected += down(o, h) * g / (1 + std::exp(-g)) * u;
      }
      CHECK(std::abs(y(n, o) - double(expected)) < 1e-14);
    }

  // Experts frozen: their gradients keep what is there, and a logit's is <expert(x), d_y>.
  auto work = layer.workspace(7);
  auto gradients = layer.gradients({.experts = false});
  Matrix<double> out(7, in), d_x(7, in);
  const auto d_y = support::random_matrix<double>(7, in, 6);
  layer.forward(x, out, work);
  layer.backward(x, d_y, d_x, gradients, work);
  for (Index e = 0; e < experts; ++e) {
    Matrix<double> alone(7, in);
    const std::vector<int> only(7, int(e));
    auto alone_work = layer.workspace(7);
    layer.apply(x, Routing<double>::from_labels(only, experts), alone, alone_work);
    for (Index i = 0; i < in; ++i) {
      double expected = 0;
      for (Index n = 0; n < 7; ++n)
        for (Index o = 0; o < in; ++o) expected += alone(n, o) * d_y(n, o) * x(n, i);
      CHECK(std::abs(gradients.router.weight(e, i) - expected) < 1e-13);
    }
  }
}

TEST_CASE("Units that cannot be dealt out evenly, and importances that are no numbers, are refused", "[surgery]") {
  const std::vector<double> six(6, 1.0), nan{1, std::numeric_limits<double>::quiet_NaN()};
  CHECK(test::code_of([&] { deal_units(six, {.experts = 0}); }) == ErrorCode::option);
  CHECK(test::code_of([&] { deal_units(six, {.experts = 4}); }) == ErrorCode::option);
  CHECK(test::code_of([&] { deal_units(six, {.experts = 2, .shared = 8}); }) == ErrorCode::option);
  CHECK(test::code_of([&] { deal_units(six, {.experts = 2, .shared = -2}); }) == ErrorCode::option);
  CHECK(test::code_of([&] { deal_units(nan, {.experts = 2}); }) == ErrorCode::option);
  CHECK(deal_units({}, {.experts = 2}).experts == std::vector<Units>(2));
}
