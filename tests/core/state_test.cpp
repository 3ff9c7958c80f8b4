// SPDX-License-Identifier: MIT
#include "mole/core/state.hpp"

#include "support/catch.hpp"
#include "support/layers.hpp"

using namespace mole;

namespace {

/// The names and sizes of all state of `object`, in order.
template <class Object>
std::vector<std::pair<std::string, std::size_t>> state_of(Object& object) {
  std::vector<std::pair<std::string, std::size_t>> found;
  object.for_each_state([&](std::string_view name, auto numbers) { found.emplace_back(name, numbers.size()); });
  return found;
}
using Found = std::vector<std::pair<std::string, std::size_t>>;

/// A router of a user's, with state of every type.
struct Remembering {
  using Scalar = float;
  float a[1] = {1};
  double b[2] = {2, 2};
  std::int32_t c[3] = {3, 3, 3};
  std::int64_t d[4] = {4, 4, 4, 4};
  std::uint8_t e[5] = {5, 5, 5, 5, 5};

  Index outputs() const { return 4; }
  void forward(View<const float>, View<float> logits) const { fill(logits, 0); }

  template <class F>
  void for_each_state(F&& f) {
    f("a", std::span<float>(a));
    f("b", std::span<double>(b));
    f("c", std::span<std::int32_t>(c));
    f("d", std::span<std::int64_t>(d));
    f("e", std::span<std::uint8_t>(e));
  }
};
static_assert(RouterPolicy<Remembering>);

/// A layer of that router, with a bias in score and selection.
auto layer_with_state() {
  Rng rng(5);
  return MixtureLinear(
      Remembering{}, Gate{BiasedSigmoid<float>(4), GroupedTopK<float>(2, 1, 1, std::vector<float>(4)), Raw{}},
      LowRank<DenseFactors<float>>({.in = 6, .out = 5, .experts = 4, .rank = 2}, rng), NoBase<float>(6, 5));
}
const Found all_of_layer{{"router.a", 1},           {"router.b", 2},      {"router.c", 3},
                         {"router.d", 4},           {"router.e", 5},      {"gating.score.bias", 4},
                         {"gating.select.bias", 4}, {"experts.ranks", 4}, {"experts.scale", 4}};

}  // namespace

TEST_CASE("Policies with a bias show it as state, and the numbers are theirs", "[core]") {
  LatentRouter<double> router(3);
  CHECK(state_of(router) == Found{{"bias", 3}});
  router.for_each_state([](std::string_view, std::span<double> bias) { bias[1] = 7; });
  CHECK(router.bias()[1] == 7);
}

TEST_CASE("Policies that wrap others show their state", "[core]") {
  Gate gate{BiasedSigmoid<float>(4), ExpertCapacity(GroupedTopK<float>(2, 1, 1, std::vector<float>(4))), Raw{}};
  CHECK(state_of(gate) == Found{{"score.bias", 4}, {"select.select.bias", 4}});
  JoinedRouter routers(LatentRouter<float>(3), LatentRouter<float>(1));
  CHECK(state_of(routers) == Found{{"first.bias", 3}, {"second.bias", 1}});
}

TEST_CASE("A bias that is switched off is no state", "[core]") {
  Gate gate{Sigmoid{}, GroupedTopK<float>(2), Raw{}};
  CHECK(state_of(gate).empty());
}

TEST_CASE("A layer shows the state of its roles by qualified names", "[core]") {
  auto layer = layer_with_state();
  CHECK(state_of(layer) == all_of_layer);
  layer.for_each_state([](std::string_view name, auto numbers) {
    if (name == "gating.select.bias") numbers[3] = 2;
  });
  CHECK(layer.gating().select.bias[3] == 2);
  auto without = support::routed_layer<float>({}, support::top_2());
  CHECK(state_of(without) == Found{{"experts.ranks", 4}, {"experts.scale", 4}});
}

TEST_CASE("A layer of erased type shows the same state", "[core]") {
  AnyLinear<float> any(layer_with_state(), 4);
  CHECK(state_of(any) == all_of_layer);
  std::size_t types = 0;
  any.for_each_state([&]<class U>(std::string_view name, std::span<U> numbers) {
    types += name == "router.c" && std::is_same_v<U, std::int32_t>;
    types += name == "router.e" && std::is_same_v<U, std::uint8_t> && numbers[4] == 5;
  });
  CHECK(types == 2);
}
