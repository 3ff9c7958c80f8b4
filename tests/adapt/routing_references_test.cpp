// SPDX-License-Identifier: MIT
#include "mole/adapt/routing_references.hpp"

#include "core/error_code.hpp"
#include "mole/core/matrix.hpp"
#include "mole/testing/harness.hpp"
#include "support/catch.hpp"
#include "support/layers.hpp"

#include <limits>
#include <vector>

namespace {

using namespace mole;
using test::code_of;
using References = RoutingReferences<double>;

/// One layer of two experts, embeddings in the plane.
References references_in_plane(Index neighbors, const std::vector<std::vector<double>>& embeddings,
                               const std::vector<std::vector<double>>& weights) {
  References references({.embedding = 2, .layers = 1, .experts = 2, .neighbors = neighbors});
  for (std::size_t i = 0; i < embeddings.size(); ++i)
    references.add(embeddings[i], View<const double>(weights[i].data(), 1, 2));
  return references;
}

}  // namespace

TEST_CASE("The regression of a reference with the query's embedding is that reference's routing", "[adapt]") {
  const References references = references_in_plane(1, {{1, 0}, {3, 4}}, {{0.5, 0.5}, {0.125, 0.875}});
  const auto nearest = references.nearest(std::vector{3.0, 4.0});
  REQUIRE(nearest.size() == 1);
  CHECK(nearest[0].reference == 1);
  CHECK(nearest[0].similarity == Approx(1).epsilon(1e-15));
  std::vector<double> weights(2);
  CHECK(references.regress(nearest, 0, weights));
  CHECK(weights == std::vector{0.125, 0.875});
}

TEST_CASE("Neighbors are sorted by cosine, whatever the lengths, and ties go to the earlier reference", "[adapt]") {
  const References references =
      references_in_plane(4, {{-1, 0}, {0, 5}, {1, 1}, {0, 0.1}, {0, 0}}, std::vector(5, std::vector{0.5, 0.5}));
  const auto nearest = references.nearest(std::vector{0.0, 2.0});
  std::vector<Index> order;
  for (const auto& neighbor : nearest) order.push_back(neighbor.reference);
  CHECK(order == std::vector<Index>{1, 3, 2, 0});  // of two cosines of 0 the earlier
  CHECK(nearest[3].similarity == 0);
}

TEST_CASE("A regression weighs routings by similarity, negative ones too, and adds up to 1", "[adapt]") {
  // cosines 0.8, 0.6 and -0.6: (0.8 a + 0.6 b - 0.6 c) / 0.8
  const References references =
      references_in_plane(3, {{4, 3}, {3, 4}, {-3, 4}}, {{0.75, 0.25}, {0.5, 0.5}, {0.25, 0.75}});
  std::vector<double> weights(2);
  CHECK(references.regress(references.nearest(std::vector{1.0, 0.0}), 0, weights));
  CHECK(weights[0] == Approx((0.8 * 0.75 + 0.6 * 0.5 - 0.6 * 0.25) / 0.8).epsilon(1e-15));
  CHECK(weights[0] + weights[1] == Approx(1).epsilon(1e-15));
}

TEST_CASE("A gate of identity scores routes the prompt's last token by its weights, negative ones too", "[adapt]") {
  References references({.embedding = 2, .layers = 1, .experts = 4, .neighbors = 2});
  const std::vector<double> near{0.5, 0.25, 0.25, 0}, far{0, 0, 0, 1};
  references.add(std::vector{4.0, 3.0}, View<const double>(near.data(), 1, 4));
  references.add(std::vector{-3.0, 4.0}, View<const double>(far.data(), 1, 4));
  std::vector<double> weights(4);
  REQUIRE(references.regress(references.nearest(std::vector{1.0, 0.0}), 0, weights));
  REQUIRE(weights[3] < 0);  // cosines 0.8 and -0.6

  const auto layer = support::routed_layer<double>({}, support::top_2());
  const Index tokens = 3;
  const auto x = support::random_matrix<double>(tokens, 11, 8);
  auto work = layer.workspace(tokens);
  layer.route(x, work);
  const Routing<double> own = work.routing;
  Matrix<double> y(tokens, 13), before(tokens, 13);
  layer.apply(x, own, before, work);
  std::copy(weights.begin(), weights.end(), work.logits().row(tokens - 1).begin());

  const Gate by_weights{Identity{}, TopK{2}, Raw{}};
  laws::Harness<std::remove_const_t<decltype(by_weights)>> harness(by_weights, tokens);
  auto call = harness.call();
  by_weights.choose(static_cast<Trace<double>&>(work), call);
  layer.apply(x, work.routing, y, work);
  const auto last = work.routing.experts_of(tokens - 1);
  REQUIRE(last.size() == 2);
  CHECK(last[0] == 0);
  CHECK(last[1] == 1);  // of two equal ones the earlier
  CHECK(work.routing.gates_of(tokens - 1)[0] == weights[0]);
  CHECK(work.routing.gates_of(tokens - 1)[1] == weights[1]);
  CHECK_FALSE(support::same_bits(y, before));
}

TEST_CASE("Layers of which the neighbors say nothing keep the prompt's own routing", "[adapt]") {
  std::vector<double> weights{0.25, 0.75};
  const References opposite = references_in_plane(3, {{-1, 0}, {-1, 1}}, {{1, 0}, {1, 0}});
  CHECK_FALSE(opposite.regress(opposite.nearest(std::vector{1.0, 0.0}), 0, weights));
  const References empty = references_in_plane(3, {}, {});
  CHECK(empty.nearest(std::vector{1.0, 0.0}).empty());
  CHECK_FALSE(empty.regress({}, 0, weights));

  References partial({.embedding = 1, .layers = 2, .experts = 2, .neighbors = 3});
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const std::vector<double> numbers{0.5, 0.5, nan, nan};
  const View<const double> both(numbers.data(), 2, 2);
  partial.add(std::vector{1.0}, both, std::vector<std::uint8_t>{1, 0});
  CHECK_FALSE(partial.regress(partial.nearest(std::vector{1.0}), 1, weights));
  CHECK(weights == std::vector{0.25, 0.75});
  CHECK(partial.regress(partial.nearest(std::vector{1.0}), 0, weights));
  CHECK(weights == std::vector{0.5, 0.5});
}

TEST_CASE("Routing references refuse what does not fit, and keep what they have", "[adapt]") {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  CHECK(code_of([&] { References({.embedding = 2, .layers = 1, .experts = 0}); }) == ErrorCode::option);
  CHECK(code_of([&] { References({.embedding = 2, .layers = 1, .experts = 2, .neighbors = 0}); }) == ErrorCode::option);
  References references = references_in_plane(1, {{1, 0}}, {{0.5, 0.5}});
  const std::vector<double> good{0.5, 0.5}, zero{0, 0}, bad{nan, 1};
  const auto add = [&](const std::vector<double>& embedding, const std::vector<double>& weights,
                       const std::vector<std::uint8_t>& has_layer = {}) {
    references.add(embedding, View<const double>(weights.data(), 1, Index(weights.size())), has_layer);
  };
  CHECK(code_of([&] { add({1, 0, 0}, good); }) == ErrorCode::shape);
  CHECK(code_of([&] { add({1, 0}, {1, 2, 3}); }) == ErrorCode::shape);
  CHECK(code_of([&] { add({1, 0}, good, {1, 1}); }) == ErrorCode::shape);
  CHECK(code_of([&] { add({1, nan}, good); }) == ErrorCode::option);
  CHECK(code_of([&] { add({1, 0}, zero); }) == ErrorCode::option);
  CHECK(code_of([&] { add({1, 0}, bad); }) == ErrorCode::option);
  CHECK(references.size() == 1);
  std::vector<double> weights(2);
  CHECK(code_of([&] { references.nearest(std::vector{1.0}); }) == ErrorCode::shape);
  CHECK(code_of([&] { references.nearest(std::vector{nan, 1.0}); }) == ErrorCode::option);
  CHECK(code_of([&] { references.regress({}, 1, weights); }) == ErrorCode::option);
  CHECK(code_of([&] { references.regress({}, 0, std::span(weights).first(1)); }) == ErrorCode::shape);
  const std::vector<References::Neighbor> strange{{1, 1.0}};
  CHECK(code_of([&] { references.regress(strange, 0, weights); }) == ErrorCode::option);
}
