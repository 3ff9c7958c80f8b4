// SPDX-License-Identifier: MIT
// Where a layer works: memory of the caller, shared or measured.
#include "mole/layer/workspace.hpp"

#include "core/error_code.hpp"
#include "support/catch.hpp"
#include "support/counting_memory.hpp"
#include "support/layers.hpp"

#include <memory_resource>

using namespace mole;
using support::output;
using support::random_matrix;
using support::same_bits;
using test::code_of;

TEST_CASE("A workspace can live in memory of the caller, all of it", "[layer]") {
  const auto layer = support::routed_layer<float>({.dropout = 0.1}, support::top_2());
  std::vector<std::byte> memory(1 << 20);
  std::pmr::monotonic_buffer_resource arena(memory.data(), memory.size(), std::pmr::null_memory_resource());
  const auto x = random_matrix<float>(64, 11, 8);
  Matrix<float> y(64, 13);
  auto* const usual = std::pmr::set_default_resource(std::pmr::null_memory_resource());  // nothing else to live in
  {
    auto work = layer.workspace(64, 0, &arena);
    layer.forward(x, y, work);
  }
  std::pmr::set_default_resource(usual);
  CHECK(same_bits(y, output(layer, x)));
}

TEST_CASE("One workspace serves the backward of several layers, if each recomputes", "[layer]") {
  const auto first = support::routed_layer<float>({.dropout = 0.3}, support::top_2(), Simd<>{});
  const auto second = support::with_random_b(first, 99);
  const auto x = random_matrix<float>(40, 11, 8), d_y = random_matrix<float>(40, 13, 9);
  const Pass pass{.training = true, .layer = 3};
  const auto backward = [&](auto& work) {
    Matrix<float> d_x(40, 11);
    auto gradients = first.gradients();
    first.backward(x, d_y, d_x, gradients, work);
    return std::vector<Matrix<float>>{d_x, gradients.experts.lora_A, gradients.experts.lora_B, gradients.router.weight};
  };
  Matrix<float> y(40, 13);
  auto own = first.workspace(40), shared = first.workspace(40);
  first.forward(x, y, own, pass);
  const auto expected = backward(own);
  first.forward(x, y, shared, pass);
  second.forward(random_matrix<float>(25, 11, 5), y.view().top(25), shared, pass);
  first.recompute(x, shared, pass);
  const auto found = backward(shared);
  for (std::size_t i = 0; i < expected.size(); ++i) CHECK(same_bits(found[i], expected[i]));
}

TEST_CASE("A workspace has room for all pairs that its gating can choose, however few were asked for", "[layer]") {
  const auto layer = support::routed_layer<float>({}, support::top_2());  // 16 pairs for 8 tokens
  const auto x = random_matrix<float>(8, 11, 8);
  const auto dense = Routing<float>::from_dense(random_matrix<float>(8, 4, 3));  // 32 pairs
  Matrix<float> y(8, 13);
  for (Index pairs : {0, 1, 15, 16, 17, 31, 32, 33}) {
    auto work = layer.workspace(8, pairs);
    CAPTURE(pairs);
    CHECK_NOTHROW(layer.forward(x, y, work));
    CHECK(same_bits(y, output(layer, x)));
    CHECK(code_of([&] { layer.apply(x, dense, y, work); }) ==
          (pairs < 32 ? std::optional(ErrorCode::capacity) : std::nullopt));
  }
}

TEST_CASE("A routing of more pairs than a workspace has room for is refused before anything is written", "[layer]") {
  const auto routed = support::routed_layer<float>({}, support::top_2());
  const ExpertLinear layer(routed.experts(), NoBase<float>{11, 13});
  const auto x = random_matrix<float>(8, 11, 8), before = random_matrix<float>(8, 13, 9);
  const auto dense = Routing<float>::from_dense(random_matrix<float>(8, 4, 3));  // 32 pairs
  Matrix<float> y = before;
  auto work = layer.workspace(8, 31);
  CHECK(code_of([&] { layer.apply(x, dense, y, work); }) == ErrorCode::capacity);
  CHECK(same_bits(y, before));
}

TEST_CASE("A workspace takes exactly the bytes that the layer announced", "[layer]") {
  const auto check = [](const auto& layer, Index tokens, Index pairs = 0) {
    const std::size_t bytes = layer.workspace_bytes(tokens, pairs);
    support::CountingMemory counted;
    { const auto work = layer.workspace(tokens, pairs, &counted); }
    CAPTURE(tokens, pairs);
    CHECK(counted.bytes == bytes);

    MemoryBlock memory(bytes, std::pmr::get_default_resource());
    std::pmr::monotonic_buffer_resource arena(memory.bytes().data(), bytes, std::pmr::null_memory_resource());
    CHECK_NOTHROW(layer.workspace(tokens, pairs, &arena));
  };
  for (Index tokens : {0, 1, 7, 64, 513}) {
    check(support::routed_layer<float>({}, support::top_2()), tokens);
    check(support::routed_layer<double>({.dropout = 0.1}, support::top_2()), tokens, 5000);
    check(support::routed_layer<float>({.experts = 64, .rank = 1}, Gate{Softmax{}, All{}, Raw{}}, Simd<>{}), tokens);
    Rng rng(1);
    LinearRouter<float> dropping({.in = 11, .experts = 4, .dropout = {.rate = 0.5}}, rng);
    LowRank<DenseFactors<float>> experts({.in = 11, .out = 13, .experts = 4, .rank = 3}, rng);
    check(MixtureLinear(dropping, support::top_2(), experts, NoBase<float>{11, 13}), tokens);
    check(ExpertLinear(experts, NoBase<float>{11, 13}), tokens);
    check(ExpertLinear(experts, NoBase<float>{11, 13}), tokens, 3);
    LowRank<SparseProjection<float>> sparse({.in = 11, .out = 13, .experts = 8, .nonzeros = 3}, rng);
    check(MixtureLinear(LatentRouter<float>(8), Gate{Magnitude{}, TopK{2}, Unit{}}, sparse, NoBase<float>{11, 13}),
          tokens);
  }
}

TEST_CASE("A workspace made for few pairs serves another layer with as few", "[layer]") {
  Rng rng(1);
  const auto layer_of = [&](Index rank) {
    return ExpertLinear(LowRank<DenseFactors<float>>({.in = 11, .out = 13, .experts = 4, .rank = rank}, rng),
                        NoBase<float>{11, 13});
  };
  const auto first = layer_of(3), second = layer_of(2);
  const auto x = random_matrix<float>(8, 11, 8);
  Matrix<float> gates(8, 4), y(8, 13);
  for (Index n = 0; n < 8; ++n) gates(n, n % 4) = 1;
  const auto routing = Routing<float>::from_dense(gates);
  auto work = first.workspace(8, 8);  // of 32 possible ones
  CHECK_NOTHROW(first.apply(x, routing, y, work));
  CHECK_NOTHROW(second.apply(x, routing, y, work));
  CHECK_NOTHROW(first.apply(x, routing, y, work));
}

TEST_CASE("A workspace adapts to a router, a gating and experts that have changed", "[layer]") {
  const auto untouched = [] {
    const auto layer = support::routed_layer<float>({}, support::top_2(), Simd<>{});
    return MixtureLinear(layer.router(), layer.gating(), layer.experts(), layer.base(), layer.execution());
  };
  auto layer = untouched();
  const auto x = random_matrix<float>(8, 11, 8);
  const Pass pass{.training = true, .seed = 3};
  Matrix<float> y(8, 13);
  auto work = layer.workspace(8, 0, std::pmr::get_default_resource(), 1 << 16);  // with room for more
  layer.forward(x, y, work, pass);
  Rng rng(1);
  layer.router() = LinearRouter<float>({.in = 11, .experts = 4, .dropout = {.rate = 0.5}}, rng);
  layer.forward(x, y, work, pass);
  CHECK(same_bits(y, output(layer, x, pass)));
  layer = untouched();
  layer.forward(x, y, work, pass);
  layer.experts() = support::routed_layer<float>({.rank = 5, .dropout = 0.5}, support::top_2(), Simd<>{}).experts();
  layer.forward(x, y, work, pass);
  CHECK(same_bits(y, output(layer, x, pass)));
  layer = untouched();
  layer.forward(x, y, work, pass);
  layer.gating() = Gate{Softmax{}, TopK{4}, Renormalized{}};
  layer.forward(x, y, work, pass);
  CHECK(same_bits(y, output(layer, x, pass)));
}

TEST_CASE("A joint workspace serves layers that differ in the pairs of large calls only", "[layer]") {
  const auto layer_of = [](double factor) {
    return support::routed_layer<float>({}, Gate{Softmax{}, ExpertChoice{.factor = factor}, Raw{}}, Simd<>{});
  };
  const auto few = layer_of(1), many = layer_of(3);  // one token an expert of three tokens, both of them
  const auto x = random_matrix<float>(64, 11, 8);
  Matrix<float> y(64, 13);
  for (const auto* first : {&few, &many}) {
    auto work = joint_workspace(64, *first, first == &few ? many : few);
    for (const auto* layer : {&few, &many, &few}) {
      layer->forward(x, y, work);
      CHECK(same_bits(y, output(*layer, x)));
    }
  }
}

TEST_CASE("Nothing can be done with a workspace that was moved from", "[layer]") {
  const auto layer = support::routed_layer<float>({}, support::top_2(), Simd<>{});
  const auto x = random_matrix<float>(8, 11, 8), d_y = random_matrix<float>(8, 13, 9);
  Matrix<float> y(8, 13), d_x(8, 11);
  auto gradients = layer.gradients();
  auto work = layer.workspace(8);
  layer.forward(x, y, work);
  auto taken = std::move(work);
  CHECK(code_of([&] { layer.backward(x, d_y, d_x, gradients, work); }) == ErrorCode::order);
  CHECK(code_of([&] { layer.forward(x, y, work); }) == ErrorCode::capacity);
  CHECK(code_of([&] { layer.route(x, work); }) == ErrorCode::capacity);
  CHECK(load_balance(work) == 0);
  CHECK_NOTHROW(layer.backward(x, d_y, d_x, gradients, taken));
  work = layer.workspace(8);
  CHECK_NOTHROW(layer.forward(x, y, work));
}

TEST_CASE("A workspace that has adapted to a layer keeps what its first half left for the second", "[layer]") {
  const auto first = support::routed_layer<float>({.rank = 5}, support::top_2(), Simd<>{});
  const auto second = support::routed_layer<float>({}, support::top_2(), Simd<>{});
  const auto x = random_matrix<float>(8, 11, 8);
  Matrix<float> y(8, 13);
  auto work = joint_workspace(8, first, second);
  first.forward(x, y, work);
  second.route(x, work);
  second.apply(x, work.routing, y, work);
  CHECK(same_bits(y, output(second, x)));
}

TEST_CASE("A joint workspace serves layers of as many ranks, but other numbers of experts", "[layer]") {
  const auto layer_of = [](std::vector<int> ranks) {
    Rng rng(5);
    LowRank<DenseFactors<float>> experts(
        {.in = 11, .out = 13, .experts = Index(ranks.size()), .ranks = ranks, .alpha = 6}, rng);
    fill_uniform(experts.parameters().lora_B.view(), 1, rng);
    return ExpertLinear(std::move(experts), DenseBase(random_matrix<float>(13, 11, 6)), Simd<>{});
  };
  const auto two = layer_of({4, 4}), four = layer_of({4, 2, 1, 1});
  const auto x = random_matrix<float>(3, 11, 8);
  Matrix<float> y(3, 13);
  for (const auto* first : {&two, &four}) {
    auto work = joint_workspace(3, *first, first == &two ? four : two);
    for (const auto* layer : {&two, &four, &two})
      CHECK_NOTHROW(
          layer->apply(x, Routing<float>::from_dense(random_matrix<float>(3, layer->experts().experts(), 9)), y, work));
  }
}

TEST_CASE("Losses find nothing in a workspace that was moved from", "[layer]") {
  const auto layer = support::routed_layer<float>({}, support::top_2(), Simd<>{});
  auto work = layer.workspace(8);
  layer.route(random_matrix<float>(8, 11, 8), work);
  const auto taken = std::move(work);
  CHECK(load_balance(work) == 0);
  CHECK(importance_cv2(work) == 0);
  CHECK(router_z(work) == 0);
  CHECK(router_entropy(work) == 0);
}
