// SPDX-License-Identifier: MIT
#include "mole/layer/any_linear.hpp"

#include "core/error_code.hpp"
#include "mole/method/lora.hpp"
#include "mole/method/mos.hpp"

#include "support/catch.hpp"
#include "support/layers.hpp"

using namespace mole;
using support::same_bits;

namespace {
/// Inference only.
struct FirstColumns {
  using Scalar = float;
  Index outputs() const { return 4; }
  void forward(View<const float> x, View<float> logits) const {
    for (Index n = 0; n < x.rows(); ++n)
      for (Index e = 0; e < 4; ++e) logits(n, e) = x(n, e);
  }
};
}  // namespace

TEST_CASE("AnyLinear does what the layer inside does", "[layer]") {
  auto layer = support::routed_layer<float>({}, support::top_2());
  AnyLinear<float> any(layer, 10);
  const auto x = support::random_matrix<float>(10, 11, 1), d_y = support::random_matrix<float>(10, 13, 2);
  Matrix<float> y(10, 13), d_x(10, 11), y_any(10, 13), d_x_any(10, 11);
  auto work = layer.workspace(10);
  auto gradients = layer.gradients();
  layer.forward(x, y, work);
  layer.backward(x, d_y, d_x, gradients, work);
  any.forward(x, y_any);
  any.backward(x, d_y, d_x_any);
  CHECK(any.in() == 11);
  CHECK(any.out() == 13);
  CHECK(same_bits(y, y_any));
  CHECK(same_bits(d_x, d_x_any));
  CHECK(any.trace().routing.pairs() == 20);

  std::vector<std::string> names;
  layer.for_each_tensor([&](std::string_view name, View<float>, View<float>) { names.emplace_back(name); }, gradients);
  std::size_t next = 0;
  std::vector<std::string> state;
  any.for_each_state([&](std::string_view name, auto) { state.emplace_back(name); });
  CHECK(state == std::vector<std::string>{"experts.ranks", "experts.scale"});
  any.for_each_tensor([&](std::string_view name, View<float>, View<float> gradient) {
    REQUIRE(next < names.size());
    CHECK(name == names[next++]);
    CHECK(bool(gradient) == (name != "base.weight"));
  });
  CHECK(names == std::vector<std::string>{"router.weight", "experts.lora_A", "experts.lora_B", "base.weight"});
}

TEST_CASE("AnyLinear hands the pass on to its layer", "[layer]") {
  const auto layer = support::routed_layer<float>({.dropout = 0.5}, support::top_2());
  AnyLinear<float> any(layer, 10);
  const auto x = support::random_matrix<float>(10, 11, 1);
  const Pass pass{.training = true, .seed = 3};
  Matrix<float> y(10, 13);
  any.forward(x, y, pass);
  CHECK(same_bits(y, support::output(layer, x, pass)));
  CHECK_FALSE(same_bits(y, support::output(layer, x)));
}

TEST_CASE("AnyLinear freezes and clears gradients", "[layer]") {
  AnyLinear<float> any(support::routed_layer<float>({}, support::top_2()), 10, {.router = false});
  const auto x = support::random_matrix<float>(10, 11, 1), d_y = support::random_matrix<float>(10, 13, 2);
  Matrix<float> y(10, 13);
  any.forward(x, y);
  any.backward(x, d_y, View<float>{});
  const auto sum_of = [&](std::string_view wanted) {
    double sum = -1;
    any.for_each_tensor([&](std::string_view name, View<float>, View<float> gradient) {
      if (name != wanted || !gradient) return;
      sum = 0;
      for (Index r = 0; r < gradient.rows(); ++r)
        for (float g : gradient.row(r)) sum += std::abs(double(g));
    });
    return sum;
  };
  CHECK(sum_of("router.weight") == -1);
  CHECK(sum_of("experts.lora_A") > 0);
  any.zero_gradients();
  CHECK(sum_of("experts.lora_A") == 0);
  any.set_trainable({.router = true, .experts = false});
  CHECK(sum_of("router.weight") == 0);
  CHECK(sum_of("experts.lora_A") == -1);
}

TEST_CASE("AnyLinear holds layers of different kinds, inference-only ones too", "[layer]") {
  Rng rng(1);
  std::vector<AnyLinear<float>> model;
  model.emplace_back(support::routed_layer<float>({}, support::top_2()), 4);
  model.emplace_back(MixtureLinear(FirstColumns{}, support::top_2(),
                                   LowRank<DenseFactors<float>>({.in = 11, .out = 13, .experts = 4}, rng),
                                   DenseBase(Matrix<float>(13, 11))),
                     4);
  const auto x = support::random_matrix<float>(4, 11, 1);
  Matrix<float> y(4, 13);
  for (auto& layer : model) layer.forward(x, y);
  try {
    model[1].backward(x, y, View<float>{});
    FAIL("expected an Error");
  } catch (const Error& error) {
    CHECK(error.code() == ErrorCode::not_trainable);
  }
  CHECK_FALSE(model[0].merge_obstacle().empty());
  CHECK_FALSE(model[0].can_merge());
  Matrix<float> weight(13, 11);
  CHECK_THROWS_AS(model[0].merge_into(weight), Error);
  const AnyLinear<float> plain(lora({}, DenseBase{weight}, rng), 4);
  CHECK(plain.can_merge());
  CHECK(plain.merge_obstacle().empty());
}

TEST_CASE("AnyLinear gives its layer back under its own type, and under no other", "[layer]") {
  auto layer = support::routed_layer<float>({}, support::top_2());
  using Layer = decltype(layer);
  AnyLinear<float> any(layer, 4);
  REQUIRE(any.target<Layer>() != nullptr);
  any.target<Layer>()->experts().scale()[0] = 3;
  any.for_each_state([](std::string_view name, auto numbers) {
    if (name == "experts.scale") CHECK(double(numbers[0]) == 3);
  });
  Rng rng(1);
  using Other = decltype(lora({}, NoBase<float>(11, 13), rng));
  CHECK(any.target<Other>() == nullptr);
}

TEST_CASE("Layers behind AnyLinear train a pool that they share, until set_trainable() forgets it", "[layer]") {
  Rng rng(1);
  using Pool = ShardPool<float>;
  const auto pool = std::make_shared<Pool>(
      Pool::Options{.in = 12, .out = 8, .layers = 2, .pool_rank = 4, .rank = 4, .private_rank = 1, .shards = 2}, rng);
  fill_uniform(pool->parameters().pool_B.view(), 1, rng);
  auto gradients = pool->gradients();
  auto one = mos({}, pool, NoBase<float>(12, 8), rng);
  using Layer = decltype(one);
  AnyLinear<float> any(std::move(one), 3);
  REQUIRE(any.gradients<Layer>() != nullptr);
  CHECK(any.gradients<decltype(lora({}, NoBase<float>(12, 8), rng))>() == nullptr);
  const auto x = support::random_matrix<float>(3, 12, 2), d_y = support::random_matrix<float>(3, 8, 3);
  Matrix<float> y(3, 8);
  const auto step = [&] {
    set_zero(gradients);
    any.forward(x, y.view(), {.training = true});
    any.backward(x, d_y, {});
    double sum = 0;
    for (float d : gradients.pool_B.elements()) sum += std::abs(double(d));
    return sum;
  };
  CHECK(step() == 0);  // frozen, until the gradients say where
  any.gradients<Layer>()->experts.pool = &gradients;
  CHECK(step() > 0);
  any.set_trainable({});
  CHECK(step() == 0);
}

TEST_CASE("An AnyLinear that was moved from says so", "[layer]") {
  AnyLinear<float> layer(support::routed_layer<float>({}, support::top_2()), 8);
  const auto taken = std::move(layer);
  CHECK(test::code_of([&] { layer.in(); }) == ErrorCode::order);
  CHECK(test::code_of([&] { layer.zero_gradients(); }) == ErrorCode::order);
  CHECK(test::code_of([&] { layer.can_merge(); }) == ErrorCode::order);
  CHECK(taken.in() == 11);
}
