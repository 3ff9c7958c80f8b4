// SPDX-License-Identifier: MIT
// LowRank over factors that stream A, against LowRank over the same A as a matrix.
#include "mole/execution/thread_pool.hpp"
#include "mole/execution/through_eigen.hpp"
#include "mole/factors/sparse_projection.hpp"
#include "mole/gating/score/magnitude.hpp"
#include "mole/layer/check_gradients.hpp"
#include "mole/mole.hpp"
#include "mole/router/latent_router.hpp"
#include "support/catch.hpp"
#include "support/layers.hpp"
#include "support/tolerance.hpp"

using namespace mole;
using namespace mole::test;

namespace {

struct Sizes {
  Index in = 33, out = 21, experts = 12, rank = 1, nonzeros = 9, k = 3;
  double dropout = 0;
  bool detached = false;
};

template <class T>
LowRank<SparseProjection<T>> sparse_experts(const Sizes& sizes) {
  Rng rng(5);
  LowRank<SparseProjection<T>> experts({.in = sizes.in,
                                        .out = sizes.out,
                                        .experts = sizes.experts,
                                        .rank = sizes.rank,
                                        .nonzeros = sizes.nonzeros,
                                        .alpha = 6,
                                        .dropout = {.rate = sizes.dropout, .stream = 1},
                                        .detached = sizes.detached},
                                       rng);
  fill_uniform(experts.parameters().lora_B.view(), 1, rng);
  return experts;
}

/// The same experts, with zeros where A has nothing.
template <class T>
LowRank<DenseFactors<T>> dense_experts(const LowRank<SparseProjection<T>>& sparse, const Sizes& sizes) {
  Rng rng(5);
  LowRank<DenseFactors<T>> experts({.in = sizes.in,
                                    .out = sizes.out,
                                    .experts = sizes.experts,
                                    .rank = sizes.rank,
                                    .alpha = 6,
                                    .dropout = {.rate = sizes.dropout, .stream = 1}},
                                   rng);
  auto& p = experts.parameters();
  p.lora_A.set_zero();
  NoScratch none;
  for (Index j = 0; j < p.lora_A.rows(); ++j) sparse.factors().add_row(j, 1, p.lora_A.view().row(j), none);
  p.lora_B = sparse.parameters().lora_B;
  return experts;
}

/// Weights that depend on the latent, so that both of its gradients are there.
template <class T, class Experts, class Execution>
auto flylora(Experts experts, const Sizes& sizes, Execution execution) {
  LatentRouter<T> router(sizes.experts);
  router.bias()[1] = T(0.05);
  return MixtureLinear(std::move(router), Gate{Magnitude{}, TopK{sizes.k}, Raw{}}, std::move(experts),
                       DenseBase(support::random_matrix<T>(sizes.out, sizes.in, 6)), std::move(execution));
}

template <class T, class Experts, class Execution>
auto label_routed(Experts experts, const Sizes& sizes, Execution execution) {
  return ExpertLinear(std::move(experts), DenseBase(support::random_matrix<T>(sizes.out, sizes.in, 6)),
                      std::move(execution));
}

/// y, d_x and d_lora_B.
template <class Layer>
auto results(const Layer& layer, Index tokens) {
  using T = typename Layer::Scalar;
  const auto x = support::random_matrix<T>(tokens, layer.in(), 8),
             d_y = support::random_matrix<T>(tokens, layer.out(), 9);
  Matrix<T> y(tokens, layer.out()), d_x(tokens, layer.in());
  auto work = layer.workspace(tokens);
  auto gradients = layer.gradients();
  const Pass pass{.training = true, .seed = 3};
  if constexpr (!requires { layer.router(); }) {
    Routing<T> routing;
    routing.start(layer.experts().experts());
    for (Index n = 0; n < tokens; ++n) {
      for (Index j = 0; j < n % 4; ++j) routing.push(int((n + 2 * j) % layer.experts().experts()), T(j + 1) / 2);
      routing.end_token();
    }
    routing.finish();
    layer.apply(x, routing, y, work, pass);
    std::vector<T> d_gate(std::size_t(routing.pairs()));
    layer.apply_backward(x, routing, d_y, std::span<T>(d_gate), d_x, gradients, work);
  } else {
    layer.forward(x, y, work, pass);
    layer.backward(x, d_y, d_x, gradients, work);
  }
  return std::vector<Matrix<T>>{y, d_x, gradients.experts.lora_B};
}

template <class T>
void check_near(const std::vector<Matrix<T>>& found, const std::vector<Matrix<T>>& expected) {
  for (std::size_t i = 0; i < expected.size(); ++i) {
    double most = 1;
    for (T value : expected[i].elements()) most = std::max(most, std::abs(double(value)));
    CAPTURE(i);
    CHECK(support::largest_difference(found[i], expected[i]) <= Tolerance<T>::layer * most);
  }
}

}  // namespace

TEMPLATE_TEST_CASE("Experts over a sparse projection equal experts over the same A as a matrix", "[expert]", float,
                   double) {
  using T = TestType;
  const Sizes sizes = GENERATE(Sizes{}, Sizes{.in = 100, .out = 40, .experts = 32, .nonzeros = 25, .k = 8},
                               Sizes{.dropout = 0.3}, Sizes{.in = 3, .out = 5, .experts = 4, .nonzeros = 3, .k = 4});
  const auto sparse = sparse_experts<T>(sizes);
  const auto dense = dense_experts(sparse, sizes);
  for (Index tokens : {0, 1, 7, 64, 65}) {
    CAPTURE(sizes.in, tokens);
    const auto expected = results(flylora<T>(dense, sizes, Reference{}), tokens);
    check_near(results(flylora<T>(sparse, sizes, Reference{}), tokens), expected);
    check_near(results(flylora<T>(sparse, sizes, Simd<>{}), tokens), expected);
    check_near(results(flylora<T>(sparse, sizes, ThroughEigen{}), tokens), expected);
  }
}

TEMPLATE_TEST_CASE("Blocks of several sparse ranks serve a routing from outside", "[expert]", float, double) {
  using T = TestType;
  const Sizes sizes{.experts = 5, .rank = 4};
  const auto sparse = sparse_experts<T>(sizes);
  const auto expected = results(label_routed<T>(dense_experts(sparse, sizes), sizes, Reference{}), 23);
  check_near(results(label_routed<T>(sparse, sizes, Reference{}), 23), expected);
  check_near(results(label_routed<T>(sparse, sizes, Simd<>{}), 23), expected);
  check_near(results(label_routed<T>(sparse, sizes, ThroughEigen{}), 23), expected);
}

TEST_CASE("A layer of FlyLoRA passes the gradient check", "[expert]") {
  const Sizes sizes{.in = 11, .out = 7, .experts = 6, .nonzeros = 4, .dropout = GENERATE(0.0, 0.3)};
  const auto check = [&](auto weigh) {
    auto layer = support::with_random_b(MixtureLinear(LatentRouter<double>(6), Gate{Magnitude{}, TopK{2}, weigh},
                                                      sparse_experts<double>(sizes),
                                                      DenseBase(support::random_matrix<double>(7, 11, 6)), Simd<>{}));
    const GradientReport report = check_gradients(layer, {.pass = {.training = true}});
    INFO(report.worst_tensor);
    CHECK(report.worst < 1e-8);
    CHECK(report.checked > 150);
  };
  check(Unit{});
  check(Raw{});
}

TEST_CASE("A detached projection gives x the gradient of the base alone", "[expert]") {
  const Sizes sizes{.detached = true};
  const auto layer = flylora<double>(sparse_experts<double>(sizes), sizes, Simd<>{});
  const auto d_y = support::random_matrix<double>(7, 21, 9);
  Matrix<double> d_x(7, 33);
  Reference{}.product_nn(d_y, support::random_matrix<double>(21, 33, 6), d_x.view());
  CHECK(support::largest_difference(results(layer, 7)[1], d_x) < 1e-13);
}

TEST_CASE("Training changes no bit of a sparse A", "[expert]") {
  const Sizes sizes{};
  auto layer = flylora<float>(sparse_experts<float>(sizes), sizes, Simd<>{});
  const auto a = [&] {
    const auto& factors = layer.experts().factors();
    Matrix<float> dense(12, 33);
    NoScratch none;
    for (Index j = 0; j < 12; ++j) factors.add_row(j, 1, dense.view().row(j), none);
    return dense;
  };
  const auto before = a(), b = layer.experts().parameters().lora_B;
  const auto x = support::random_matrix<float>(20, 33, 1), d_y = support::random_matrix<float>(20, 21, 2);
  Matrix<float> y(20, 21);
  auto work = layer.workspace(20);
  AdamW<float> optimizer({.learning_rate = 0.1});
  for (int step = 0; step < 5; ++step) {
    auto gradients = layer.gradients();
    layer.forward(x, y, work);
    layer.backward(x, d_y, {}, gradients, work);
    optimizer.step([&](auto f) { layer.for_each_tensor(f, gradients); });
  }
  CHECK(support::same_bits(before, a()));
  CHECK_FALSE(support::same_bits(b, layer.experts().parameters().lora_B));
}

TEST_CASE("The bias changes who is chosen, never what the chosen add", "[expert]") {
  const Sizes sizes{};
  auto layer =
      MixtureLinear(LatentRouter<double>(12), Gate{Magnitude{}, TopK{3}, Unit{}}, sparse_experts<double>(sizes),
                    DenseBase(support::random_matrix<double>(21, 33, 6)), Simd<>{});
  const auto x = support::random_matrix<double>(9, 33, 1);
  Matrix<double> y(9, 21), same(9, 21);
  auto work = layer.workspace(9);
  layer.router().bias()[4] = 100;
  layer.forward(x, y, work);
  for (Index n = 0; n < 9; ++n) CHECK(work.routing.experts_of(n)[0] == 4);
  auto other = layer.workspace(9);
  layer.router().bias()[4] = 0;
  layer.apply(x, work.routing, same.view(), other);
  CHECK(support::largest_difference(y, same) < 1e-13);
}

TEST_CASE("A layer of FlyLoRA has the same bits on any number of threads", "[expert][threads]") {
  const Sizes sizes{.in = 300, .out = 100, .experts = 32, .nonzeros = 75, .k = 8};
  const auto experts = sparse_experts<float>(sizes);
  const auto expected = results(flylora<float>(experts, sizes, Simd<>{}), 333);
  for (int threads : {1, 2, 5}) {
    const auto found = results(flylora<float>(experts, sizes, Simd{ThreadPool(threads)}), 333);
    CAPTURE(threads);
    for (std::size_t i = 0; i < expected.size(); ++i) CHECK(support::same_bits(found[i], expected[i]));
  }
}

TEST_CASE("All sparse ranks together merge into one weight", "[expert]") {
  const Sizes sizes{};
  const auto sparse = sparse_experts<double>(sizes);
  const auto dense = dense_experts(sparse, sizes);
  Matrix<double> w(21, 33), expected(21, 33);
  sparse.add_delta(5, 0.5, w.view());
  dense.add_delta(5, 0.5, expected.view());
  CHECK(support::same_bits(w, expected));
}
