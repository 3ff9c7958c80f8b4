// SPDX-License-Identifier: MIT
// What a layer computes: plain LoRAs, and the same from every execution and number of threads.
#include "mole/layer/mixture_linear.hpp"

#include "mole/execution/through_eigen.hpp"
#include "support/catch.hpp"
#include "support/layers.hpp"

#include <algorithm>
#include <cmath>
#include <span>
#include <thread>

using namespace mole;
using support::output;
using support::random_matrix;
using support::same_bits;

TEMPLATE_TEST_CASE("One expert and no router are a plain LoRA, bit for bit", "[layer]", Reference, Simd<>,
                   ThroughEigen) {
  Rng rng(1);
  const Matrix<float> weight = random_matrix<float>(13, 11, 2), x = random_matrix<float>(70, 11, 3);
  LowRank<DenseFactors<float>> lora({.in = 11, .out = 13, .rank = 5, .alpha = 10}, rng);
  fill_uniform(lora.parameters().lora_B.view(), 1, rng);
  const MixtureLinear layer(NoRouter<float>(), Gate{Softmax{}, TopK{1}, Renormalized{}}, lora, DenseBase(weight.view()),
                            TestType{});

  // y = W x + s B (A x), from the same primitives, as a host without a mixture would write it.
  const TestType execution{};
  Matrix<float> plain(70, 13);
  execution.product_nt(x, weight, plain.view());
  Routing<float> everyone;
  everyone.start(1);
  for (Index n = 0; n < 70; ++n) {
    everyone.push(0, 1);
    everyone.end_token();
  }
  everyone.finish();
  std::vector<int> begin;
  for (int n = 0; n <= 70; ++n) begin.push_back(5 * n);
  const RankLayout<float> ranks{lora.blocks(), everyone, begin};
  std::vector<float> h(70 * 5);
  execution.routed_down(x, lora.parameters().lora_A, FactorSide::down, ranks, std::span<float>(h));
  for (float& number : h) number *= lora.scale()[0];
  execution.routed_up(RankTerms<float>{ranks, h, lora.parameters().lora_B, FactorSide::up}, plain.view());
  CHECK(same_bits(output(layer, x), plain));
}

TEST_CASE("Under Reference a layer of one expert is the loop of a plain LoRA, bit for bit", "[layer]") {
  Rng rng(1);
  const Matrix<double> weight = random_matrix<double>(6, 5, 2), x = random_matrix<double>(9, 5, 3);
  LowRank<DenseFactors<double>> lora({.in = 5, .out = 6, .rank = 3, .alpha = 12}, rng);
  fill_uniform(lora.parameters().lora_B.view(), 1, rng);
  const MixtureLinear layer(NoRouter<double>(), Gate{Identity{}, All{}, Unit{}}, lora, DenseBase(weight.view()),
                            Reference{});
  const auto& p = lora.parameters();
  Matrix<double> y(9, 6);
  for (Index n = 0; n < 9; ++n) {
    for (Index o = 0; o < 6; ++o)
      for (Index i = 0; i < 5; ++i) y(n, o) += x(n, i) * weight(o, i);
    for (Index j = 0; j < 3; ++j) {
      double h = 0;
      for (Index i = 0; i < 5; ++i) h += p.lora_A(j, i) * x(n, i);
      for (Index o = 0; o < 6; ++o) y(n, o) += 4 * h * p.lora_B(j, o);
    }
  }
  CHECK(same_bits(output(layer, x), y));
}

TEMPLATE_TEST_CASE("A layer whose B is zero gives its base's output bit for bit", "[layer]", Reference, Simd<>,
                   ThroughEigen) {
  Rng rng(1);
  const Matrix<float> weight = random_matrix<float>(33, 20, 2);
  const TestType execution{};
  for (Index tokens : {1, 7, 64, 130}) {
    const Matrix<float> x = random_matrix<float>(tokens, 20, 3);
    const MixtureLinear layer(LinearRouter<float>({.in = 20, .experts = 4}, rng), support::top_2(),
                              LowRank<DenseFactors<float>>({.in = 20, .out = 33, .experts = 4, .rank = 3}, rng),
                              DenseBase(weight.view()), execution);
    Matrix<float> base(tokens, 33);
    execution.product_nt(x, weight, base.view());
    CHECK(same_bits(output(layer, x), base));
  }
}

TEMPLATE_TEST_CASE("Executions agree with Reference in output and every gradient", "[layer]", float, double) {
  using T = TestType;
  const auto run = [](auto layer, Index tokens) {
    const auto x = random_matrix<T>(tokens, layer.in(), 8), d_y = random_matrix<T>(tokens, layer.out(), 9);
    Matrix<T> y(tokens, layer.out()), d_x(tokens, layer.in());
    auto work = layer.workspace(tokens);
    auto gradients = layer.gradients({.router = true, .experts = true, .base = true});
    layer.forward(x, y, work, {.training = true, .seed = 1});
    layer.backward(x, d_y, d_x, gradients, work);
    std::vector<Matrix<T>> all{y, d_x};
    layer.for_each_tensor(
        [&](std::string_view, View<T>, View<T> gradient) {
          Matrix<T> copy(gradient.rows(), gradient.cols());
          for (Index r = 0; r < copy.rows(); ++r)
            std::copy_n(gradient.row_data(r), copy.cols(), copy.view().row_data(r));
          all.push_back(copy);
        },
        gradients);
    return all;
  };
  const support::LayerSizes sizes =
      GENERATE(support::LayerSizes{}, support::LayerSizes{.in = 50, .out = 70, .experts = 8, .rank = 17, .bias = true},
               support::LayerSizes{.in = 33, .out = 34, .experts = 5, .dropout = 0.4, .ranks = {1, 9, 3, 17, 2}},
               support::LayerSizes{.in = 40, .out = 24, .experts = 64, .rank = 1},
               support::LayerSizes{.experts = 4, .rank = 8, .shared_down = true});
  for (Index tokens : {1, 7, 100}) {
    const auto expected = run(support::routed_layer<T>(sizes, support::top_2(), Reference{}), tokens);
    const auto compare = [&](const auto& found) {
      for (std::size_t i = 0; i < expected.size(); ++i) {
        double most = 1;
        for (T value : expected[i].elements()) most = std::max(most, std::abs(double(value)));
        CHECK(support::largest_difference(expected[i], found[i]) <
              100 * double(std::numeric_limits<T>::epsilon()) * most);
      }
    };
    compare(run(support::routed_layer<T>(sizes, support::top_2(), Simd<>{}), tokens));
    compare(run(support::routed_layer<T>(sizes, support::top_2(), Simd<kernel::Scalar>{}), tokens));
    compare(run(support::routed_layer<T>(sizes, support::top_2(), ThroughEigen{}), tokens));
  }
}

TEST_CASE("A layer gives the same bits on 1, 2 and 5 threads", "[layer][threads]") {
  const auto run = [](int threads) {
    auto layer = support::routed_layer<float>({.in = 100, .out = 120, .experts = 8, .rank = 8, .dropout = 0.1},
                                              support::top_2(), Simd{ThreadPool{threads}});
    const auto x = random_matrix<float>(700, 100, 8), d_y = random_matrix<float>(700, 120, 9);
    Matrix<float> y(700, 120), d_x(700, 100);
    auto work = layer.workspace(700);
    auto gradients = layer.gradients({.base = true});
    layer.forward(x, y, work, {.training = true});
    layer.backward(x, d_y, d_x, gradients, work);
    return std::vector<Matrix<float>>{
        y, d_x, gradients.router.weight, gradients.experts.lora_A, gradients.experts.lora_B, gradients.base.weight};
  };
  const auto one = run(1);
  for (int threads : {2, 5}) {
    const auto many = run(threads);
    for (std::size_t i = 0; i < one.size(); ++i) CHECK(same_bits(one[i], many[i]));
  }
}

TEST_CASE("Threads may share one layer, each with a workspace of its own", "[layer][threads]") {
  const auto layer = support::routed_layer<float>({}, support::top_2(), Simd<>{});
  const auto x = random_matrix<float>(64, 11, 8);
  const auto expected = output(layer, x);
  std::vector<Matrix<float>> found(4);
  std::vector<std::thread> threads;
  for (auto& y : found) threads.emplace_back([&] { y = output(layer, x); });
  for (auto& thread : threads) thread.join();
  for (const auto& y : found) CHECK(same_bits(y, expected));
}

TEST_CASE("An empty batch does nothing and breaks nothing", "[layer]") {
  auto layer = support::routed_layer<float>({}, support::top_2(), Simd<>{});
  auto work = layer.workspace(0);
  auto gradients = layer.gradients();
  Matrix<float> x(0, 11), y(0, 13), d_x(0, 11);
  layer.forward(x, y, work);
  CHECK(work.routing.pairs() == 0);
  CHECK(load_balance(work) == 0);
  layer.backward(x, y, d_x, gradients, work);
  CHECK(same_bits(gradients.experts.lora_A, Matrix<float>(12, 11)));
}

namespace {
/// A user's own straight-through gates.
struct DerivedFromUnit : Unit {
  template <class T>
  void backward(std::span<const T>, std::span<const int> chosen, std::span<const T>, std::span<const T> d_gates,
                std::span<T> d_scores) const {
    for (std::size_t j = 0; j < chosen.size(); ++j) d_scores[std::size_t(chosen[j])] += d_gates[j];
  }
};
}  // namespace

TEST_CASE("Gates that nothing learns from cost no gradient, others have theirs", "[layer]") {
  const auto largest_d_gate = [](auto weigh) {
    Rng rng(1);
    const auto layer = support::with_random_b(
        MixtureLinear(LinearRouter<float>({.in = 11, .experts = 4}, rng), Gate{Softmax{}, TopK{2}, weigh},
                      LowRank<DenseFactors<float>>({.in = 11, .out = 13, .experts = 4, .rank = 3}, rng),
                      DenseBase(random_matrix<float>(13, 11, 2))));
    const auto x = random_matrix<float>(9, 11, 3), d_y = random_matrix<float>(9, 13, 4);
    Matrix<float> y(9, 13), d_x(9, 11);
    auto work = layer.workspace(9);
    auto gradients = layer.gradients();
    layer.forward(x, y, work);
    layer.backward(x, d_y, d_x, gradients, work);
    float largest = 0;
    for (float d : work.d_gate()) largest = std::max(largest, std::abs(d));
    return largest;
  };
  CHECK(largest_d_gate(Unit{}) == 0);
  CHECK(largest_d_gate(StraightThrough{}) > 0.1f);
  CHECK(largest_d_gate(DerivedFromUnit{}) > 0.1f);
  CHECK(largest_d_gate(Raw{}) > 0.1f);
}
