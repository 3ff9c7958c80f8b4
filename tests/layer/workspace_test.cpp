// SPDX-License-Identifier: MIT
// Where a layer works: memory of the caller, shared or measured.
#include "mole/layer/workspace.hpp"

#include "support/catch.hpp"
#include "support/counting_memory.hpp"
#include "support/layers.hpp"

#include <memory_resource>

using namespace mole;
using support::output;
using support::random_matrix;
using support::same_bits;

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
