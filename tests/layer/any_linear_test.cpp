// SPDX-License-Identifier: MIT
#include "mole/layer/any_linear.hpp"

#include "core/error_code.hpp"
#include "mole/mole.hpp"

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

struct SilentExpert {
  using Scalar = float;
  Index in() const { return 2; }
  Index out() const { return 2; }
  Index experts() const { return 1; }
  void forward(View<const float>, View<const float>, const Routing<float>&, View<float>, auto) const {}
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

TEST_CASE("Two layers behind AnyLinear share a routing, and its gradient reaches the router of the first", "[layer]") {
  auto first = support::routed_layer<float>({}, support::top_2());
  auto second = support::routed_layer<float>({.rank = 5}, support::top_2());
  const auto x = support::random_matrix<float>(9, 11, 1), d_y = support::random_matrix<float>(9, 13, 2);
  Matrix<float> y(9, 13), y_any(9, 13), d_x(9, 11), d_x_any(9, 11);

  auto first_work = first.workspace(9), second_work = second.workspace(9);
  auto first_gradients = first.gradients(), second_gradients = second.gradients();
  first.forward(x, y, first_work);
  second.apply(x, first_work.routing, y, second_work);
  second.apply_backward(x, first_work.routing, d_y, first_work.d_gate(), d_x, second_gradients, second_work);
  first.backward(x, d_y, d_x, first_gradients, first_work);

  AnyLinear<float> q(first, 9), k(second, 9);
  q.forward(x, y_any);
  k.apply(x, q.trace().routing, y_any);
  k.apply_backward(x, q.trace().routing, d_y, q.trace().d_gate(), d_x_any);
  q.backward(x, d_y, d_x_any);

  CHECK(same_bits(y, y_any));
  CHECK(same_bits(d_x, d_x_any));
  CHECK(same_bits(first_gradients.router.weight, q.gradients<decltype(first)>()->router.weight));
  CHECK(same_bits(second_gradients.experts.lora_B, k.gradients<decltype(second)>()->experts.lora_B));
  auto alone_work = first.workspace(9);
  auto alone = first.gradients();
  first.forward(x, y, alone_work);
  first.backward(x, d_y, {}, alone, alone_work);
  CHECK_FALSE(same_bits(alone.router.weight, first_gradients.router.weight));
}

TEST_CASE("AnyLinear holds experts that have no router, for routings from outside", "[layer]") {
  Rng rng(1);
  auto layer = support::with_random_b(
      ExpertLinear(LowRank<DenseFactors<float>>({.in = 11, .out = 13, .experts = 3, .rank = 2}, rng),
                   DenseBase(support::random_matrix<float>(13, 11, 6))));
  AnyLinear<float> any(layer, 4);
  const auto x = support::random_matrix<float>(4, 11, 1), d_y = support::random_matrix<float>(4, 13, 2);
  const std::vector<int> labels{2, 0, 1, 2};
  const auto routing = Routing<float>::from_labels(labels, 3);
  Matrix<float> y(4, 13), y_any(4, 13), d_x(4, 11), d_x_any(4, 11);
  std::vector<float> d_gate(4), d_gate_any(4);
  auto work = layer.workspace(4);
  auto gradients = layer.gradients();
  layer.apply(x, routing, y, work);
  layer.apply_backward(x, routing, d_y, d_gate, d_x, gradients, work);
  any.apply(x, routing, y_any);
  any.apply_backward(x, routing, d_y, d_gate_any, d_x_any);
  CHECK(same_bits(y, y_any));
  CHECK(same_bits(d_x, d_x_any));
  CHECK(d_gate == d_gate_any);
  CHECK(d_gate[0] != 0);
  CHECK(same_bits(gradients.experts.lora_A, any.gradients<decltype(layer)>()->experts.lora_A));
  CHECK_FALSE(any.can_merge());

  y_any = y;
  CHECK(test::code_of([&] { any.forward(x, y_any); }) == ErrorCode::order);
  CHECK(test::code_of([&] { any.backward(x, d_y, {}); }) == ErrorCode::order);
  CHECK(test::code_of([&] { any.trace(); }) == ErrorCode::order);
  CHECK(test::code_of([&] { any.router_scratch<LinearRouter<float>>(); }) == ErrorCode::option);
  CHECK(same_bits(y, y_any));
}

TEST_CASE("AnyLinear takes routings of more pairs than its gating has, where it was given room", "[layer]") {
  const auto layer = support::routed_layer<float>({}, support::top_2());
  AnyLinear<float> narrow(layer, 3), wide(layer, 3, {}, 12);
  Matrix<float> gates(3, 4);
  fill(gates.view(), 0.25f);
  const auto all = Routing<float>::from_dense(gates);
  const auto x = support::random_matrix<float>(3, 11, 1);
  Matrix<float> y(3, 13);
  CHECK(test::code_of([&] { narrow.apply(x, all, y); }) == ErrorCode::capacity);
  wide.apply(x, all, y);
  CHECK(y(0, 0) != 0);
}

TEST_CASE("AnyLinear refuses the backward of a routing that an inference-only layer applied", "[layer]") {
  AnyLinear<float> any(ExpertLinear(SilentExpert{}, DenseBase(Matrix<float>(2, 2))), 1);
  const auto routing = Routing<float>::from_labels(std::vector<int>{0}, 1);
  const auto x = support::random_matrix<float>(1, 2, 1);
  Matrix<float> y(1, 2);
  any.apply(x, routing, y);
  CHECK(test::code_of([&] { any.apply_backward(x, routing, y, {}, {}); }) == ErrorCode::not_trainable);
}

TEST_CASE("Recurrent routers behind AnyLinear carry their states from layer to layer and back", "[layer]") {
  using Router = RecurrentRouter<float>;
  Rng rng(1);
  GruCell<float> cell({.in = 5, .width = 4}, rng);
  const auto make = [&] {
    return support::with_random_b(MixtureLinear(
        Router({.in = 6, .experts = 3}, cell, rng), support::top_2(),
        LowRank<DenseFactors<float>>({.in = 6, .out = 6, .experts = 3, .rank = 2}, rng), NoBase<float>(6, 6)));
  };
  auto one = make(), two = make();
  const auto x = support::random_matrix<float>(5, 6, 1), d_y = support::random_matrix<float>(5, 6, 2);
  Matrix<float> h(5, 4), h_any(5, 4), d_h(5, 4), d_h_any(5, 4), y(5, 6), y_any(5, 6);
  auto d_cell = cell.gradients(), d_cell_any = cell.gradients();

  auto work_one = one.workspace(5), work_two = two.workspace(5);
  auto gradients_one = one.gradients(), gradients_two = two.gradients();
  work_one.router_scratch.carry = {.out = h, .d_out = d_h, .d_cell = &d_cell};
  work_two.router_scratch.carry = {.in = h, .d_in = d_h, .d_cell = &d_cell};
  one.forward(x, y, work_one);
  two.forward(x, y, work_two);
  two.backward(x, d_y, {}, gradients_two, work_two);
  one.backward(x, d_y, {}, gradients_one, work_one);

  std::vector<AnyLinear<float>> model;
  model.emplace_back(one, 5);
  model.emplace_back(two, 5);
  model[0].router_scratch<Router>().carry = {.out = h_any, .d_out = d_h_any, .d_cell = &d_cell_any};
  model[1].router_scratch<Router>().carry = {.in = h_any, .d_in = d_h_any, .d_cell = &d_cell_any};
  for (auto& layer : model) layer.forward(x, y_any);
  for (Index l = 1; l >= 0; --l) model[std::size_t(l)].backward(x, d_y, {});

  CHECK(same_bits(y, y_any));
  CHECK(same_bits(h, h_any));
  CHECK(same_bits(d_h, d_h_any));
  CHECK(d_h(0, 0) != 0);
  CHECK(same_bits(d_cell.input.weight, d_cell_any.input.weight));
  CHECK(same_bits(gradients_one.router.input.weight, model[0].gradients<decltype(one)>()->router.input.weight));
}

TEST_CASE("AnyLinear shows what a noisy router was made of, and refuses to show another router", "[layer]") {
  using Router = NoisyRouter<LinearRouter<float>>;
  Rng rng(1);
  AnyLinear<float> any(noisy_top_k({.experts = 4, .k = 2}, NoBase<float>(11, 13), rng), 6);
  const auto x = support::random_matrix<float>(6, 11, 1), noise = support::random_matrix<float>(6, 4, 2);
  Matrix<float> y(6, 13);
  any.router_scratch<Router>().carry = {.noise = noise};
  any.forward(x, y, {.training = true});
  const auto& scratch = any.router_scratch<Router>();
  for (Index n = 0; n < 6; ++n)
    for (Index e = 0; e < 4; ++e)
      CHECK(any.trace().logits()(n, e) == scratch.clean(n, e) + noise(n, e) * scratch.deviation(n, e));

  CHECK(test::code_of([&] { any.router_scratch<LinearRouter<float>>(); }) == ErrorCode::option);
  CHECK(test::code_of([&] { any.router_scratch<RecurrentRouter<float>>(); }) == ErrorCode::option);
}

TEST_CASE("An AnyLinear that was moved from says so", "[layer]") {
  AnyLinear<float> layer(support::routed_layer<float>({}, support::top_2()), 8);
  const auto taken = std::move(layer);
  CHECK(test::code_of([&] { layer.in(); }) == ErrorCode::order);
  CHECK(test::code_of([&] { layer.zero_gradients(); }) == ErrorCode::order);
  CHECK(test::code_of([&] { layer.can_merge(); }) == ErrorCode::order);
  CHECK(taken.in() == 11);
}

TEST_CASE("Calls of one AnyLinear in workspaces of their own do not disturb each other", "[layer][threads]") {
  auto layer = support::routed_layer<float>({}, support::top_2());
  const AnyLinear<float> any(layer, 1);
  constexpr int calls = 4;
  std::vector<Matrix<float>> xs, ys, d_xs;
  std::vector<AnyLinear<float>::Workspace> works;
  std::vector<AnyLinear<float>::Gradients> gradients;
  for (int c = 0; c < calls; ++c) {
    xs.push_back(support::random_matrix<float>(10, 11, std::uint64_t(c)));
    ys.emplace_back(10, 13), d_xs.emplace_back(10, 11);
    works.push_back(any.new_workspace(10)), gradients.push_back(any.new_gradients());
  }
  const auto d_y = support::random_matrix<float>(10, 13, 9);
  ThreadPool pool(3);
  pool.parallel_for(calls, [&](Index c) {
    const auto i = std::size_t(c);
    any.forward(xs[i], ys[i], works[i]);
  });
  pool.parallel_for(calls, [&](Index c) {  // all forwards came first
    const auto i = std::size_t(c);
    any.backward(xs[i], d_y, d_xs[i], gradients[i], works[i]);
  });
  for (int c = 0; c < calls; ++c) {
    const auto i = std::size_t(c);
    Matrix<float> y(10, 13), d_x(10, 11);
    auto work = layer.workspace(10);
    auto expected = layer.gradients();
    layer.forward(xs[i], y, work);
    layer.backward(xs[i], d_y, d_x, expected, work);
    CHECK(same_bits(ys[i], y));
    CHECK(same_bits(d_xs[i], d_x));
    CHECK(works[i].trace().routing.pairs() == 20);
  }
}

TEST_CASE("The patterns of an autograd host are right, or refused", "[layer]") {
  auto layer = support::routed_layer<float>({}, support::top_2());
  AnyLinear<float> any(layer, 10);
  const auto x = support::random_matrix<float>(10, 11, 1), other = support::random_matrix<float>(10, 11, 3),
             d_y = support::random_matrix<float>(10, 13, 2);
  Matrix<float> y(10, 13), y_other(10, 13), d_x(10, 11), expected(10, 11);
  any.forward(x, y);
  any.backward(x, d_y, expected);

  // backward twice; a forward of something else between forward and backward
  CHECK(test::code_of([&] { any.backward(x, d_y, d_x); }) == ErrorCode::order);
  any.forward(x, y);
  any.forward(other, y_other);
  CHECK(test::code_of([&] { any.backward(x, d_y, d_x); }) == ErrorCode::order);
  CHECK(std::ranges::count(d_x.elements(), 0.f) == d_x.size());

  // ... in a workspace of its own; and from x alone
  auto work = any.new_workspace(10);
  any.forward(x, y);
  any.forward(other, y_other, work);
  any.backward(x, d_y, d_x);
  CHECK(same_bits(d_x, expected));
  d_x.set_zero();
  any.forward(other, y_other);
  any.recompute(x);
  any.backward(x, d_y, d_x);
  CHECK(same_bits(d_x, expected));
  d_x.set_zero();
  auto gradients = any.new_gradients(), same = any.new_gradients();
  auto large = any.new_workspace(10);
  for (auto* g : {&gradients, &same}) {  // each graph node recomputes
    any.recompute(x, large);
    any.backward(x, d_y, d_x, *g, large);
  }
  std::vector<std::vector<float>> found(2);
  std::size_t which = 0;
  for (auto* g : {&gradients, &same}) {
    any.for_each_tensor(
        [&](std::string_view, View<float>, View<float> d) {
          for (Index r = 0; r < d.rows(); ++r)
            found[which].insert(found[which].end(), d.row_data(r), d.row_data(r) + d.cols());
        },
        *g);
    ++which;
  }
  CHECK((!found[0].empty() && found[0] == found[1]));
}

TEST_CASE("Backward in a workspace of one's own adds to the gradients inside, of the parts that learn", "[layer]") {
  AnyLinear<float> any(support::routed_layer<float>({}, support::top_2()), 10, {.router = false});
  CHECK((!any.trainable().router && any.trainable().experts && !any.trainable().base));
  const auto x = support::random_matrix<float>(10, 11, 1), d_y = support::random_matrix<float>(10, 13, 2);
  const auto gradients = [&] {
    std::vector<float> all;
    any.for_each_tensor([&](std::string_view, View<float>, View<float> gradient) {
      for (Index r = 0; r < gradient.rows(); ++r)
        all.insert(all.end(), gradient.row_data(r), gradient.row_data(r) + gradient.cols());
    });
    return all;
  };
  Matrix<float> y(10, 13), expected(10, 11), d_x(10, 11);
  any.forward(x, y);
  any.backward(x, d_y, expected);
  const std::vector<float> inside = gradients();
  any.zero_gradients();
  auto work = any.new_workspace(10);
  any.forward(x, y, work);
  any.backward(x, d_y, d_x, work);
  CHECK((!inside.empty() && gradients() == inside));
  CHECK(same_bits(d_x, expected));
}

TEST_CASE("What belongs to a layer of another type is refused", "[layer]") {
  Rng rng(1);
  AnyLinear<float> any(support::routed_layer<float>({}, support::top_2()), 10);
  const AnyLinear<float> other(lora({.rank = 2}, DenseBase(support::random_matrix<float>(13, 11, 1)), rng), 10);
  auto work = other.new_workspace(10);
  auto gradients = other.new_gradients();
  const auto x = support::random_matrix<float>(10, 11, 1);
  Matrix<float> y(10, 13);
  CHECK(test::code_of([&] { any.forward(x, y, work); }) == ErrorCode::order);
  CHECK(test::code_of([&] { any.recompute(x, work); }) == ErrorCode::order);
  auto own = any.new_workspace(10);
  any.forward(x, y, own);
  CHECK(test::code_of([&] { any.backward(x, y, {}, gradients, own); }) == ErrorCode::order);
  CHECK(test::code_of([&] { any.for_each_tensor([](auto...) {}, gradients); }) == ErrorCode::order);
}

TEST_CASE("A clone is a layer of its own, and a workspace grows when it is asked to", "[layer]") {
  AnyLinear<float> any(support::routed_layer<float>({}, support::top_2()), 4);
  AnyLinear<float> clone = any.clone();
  CHECK(clone.max_tokens() == 4);
  const auto x = support::random_matrix<float>(10, 11, 1);
  Matrix<float> y(10, 13), y_clone(10, 13);
  CHECK(test::code_of([&] { any.forward(x, y); }) == ErrorCode::capacity);
  any.reserve(10);
  any.forward(x, y);
  any.reserve(5);
  CHECK(any.max_tokens() == 10);
  any.forward(x, y);
  CHECK(test::code_of([&] { clone.forward(x, y_clone); }) == ErrorCode::capacity);
  clone.reserve(10);
  clone.forward(x, y_clone);
  CHECK(same_bits(y, y_clone));
  any.for_each_tensor([](std::string_view, View<float> tensor, View<float>) { tensor(0, 0) += 1; });
  clone.forward(x, y_clone);
  CHECK(same_bits(y, y_clone));  // not the original's new numbers
}

TEST_CASE("AnyLinear takes a new base of its type and sizes", "[layer]") {
  auto weight = support::random_matrix<float>(13, 11, 1), moved = support::random_matrix<float>(13, 11, 2);
  Rng rng(1);
  AnyLinear<float> any(lora({.rank = 2}, PackedBase<float>(weight), rng), 4);
  const auto x = support::random_matrix<float>(4, 11, 1);
  Matrix<float> y(4, 13), expected(4, 13);
  any.set_base(PackedBase<float>(moved));
  any.forward(x, y);
  Rng again(1);
  AnyLinear<float>(lora({.rank = 2}, PackedBase<float>(moved), again), 4).forward(x, expected);
  CHECK(same_bits(y, expected));
  CHECK(test::code_of([&] { any.set_base(DenseBase{weight}); }) == ErrorCode::option);
  const auto small = support::random_matrix<float>(12, 11, 2);
  CHECK(test::code_of([&] { any.set_base(PackedBase<float>(small)); }) == ErrorCode::shape);
  any.forward(x, y);
  CHECK(same_bits(y, expected));
}

TEST_CASE("A layer for inference alone gives the same bits, and has no backward", "[layer]") {
  auto layer = support::routed_layer<float>({}, support::top_2());
  AnyLinear<float> any(layer, 10), inference = AnyLinear<float>::for_inference(layer, 10);
  const auto x = support::random_matrix<float>(10, 11, 1);
  Matrix<float> y(10, 13), y_inference(10, 13);
  any.forward(x, y);
  inference.forward(x, y_inference);
  CHECK(same_bits(y, y_inference));
  CHECK(test::code_of([&] { inference.backward(x, y, {}); }) == ErrorCode::not_trainable);
  auto of_training = any.new_workspace(10);
  CHECK(test::code_of([&] { inference.forward(x, y, of_training); }) == ErrorCode::order);
  CHECK(test::code_of([&] { inference.recompute(x); }) == ErrorCode::not_trainable);
  CHECK(test::code_of([&] { inference.apply_backward(x, inference.trace().routing, y, {}, {}); }) ==
        ErrorCode::not_trainable);
}

TEST_CASE("An optimizer steps a layer of erased type as the layer inside", "[layer]") {
  auto layer = support::routed_layer<float>({}, support::top_2());
  AnyLinear<float> any(layer, 10);
  const auto x = support::random_matrix<float>(10, 11, 1), d_y = support::random_matrix<float>(10, 13, 2);
  Matrix<float> y(10, 13);
  auto work = layer.workspace(10);
  auto gradients = layer.gradients();
  AdamW adamw({.learning_rate = 1e-2}), adamw_any({.learning_rate = 1e-2});
  layer.forward(x, y, work);
  layer.backward(x, d_y, View<float>(), gradients, work);
  clip_norm(layer, gradients, 0.5);
  adamw.step(layer, gradients);
  any.forward(x, y);
  any.backward(x, d_y, {});
  clip_norm(any, 0.5);
  adamw_any.step(any);
  any.for_each_tensor([&](std::string_view name, View<float> found, View<float>) {
    layer.for_each_tensor([&](std::string_view own, View<float> expected) {
      if (own == name) CHECK(same_bits(found, expected));
    });
  });
}
