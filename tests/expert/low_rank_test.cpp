// SPDX-License-Identifier: MIT
#include "mole/expert/low_rank.hpp"

#include "core/error_code.hpp"
#include "mole/factors/dense_factors.hpp"
#include "mole/factors/sparse_projection.hpp"
#include "mole/testing/expert_laws.hpp"
#include "support/catch.hpp"
#include "support/random_matrix.hpp"

using namespace mole;

namespace {

template <class T>
LowRank<DenseFactors<T>> random_experts(typename DenseFactors<T>::Options options) {
  Rng rng(1);
  LowRank<DenseFactors<T>> experts(options, rng);
  fill_uniform(experts.parameters().lora_B.view(), 1, rng);
  return experts;
}

}  // namespace

TEMPLATE_TEST_CASE("LowRank keeps the laws of experts for blocks of every kind", "[expert]", float, double) {
  using T = TestType;
  SECTION("LoRA experts") {
    CHECK(laws::broken_expert_law(random_experts<T>({.in = 11, .out = 9, .experts = 4, .rank = 3})) == "");
  }
  SECTION("rank-wise experts") {
    CHECK(laws::broken_expert_law(random_experts<T>({.in = 11, .out = 9, .experts = 8, .rank = 1})) == "");
  }
  SECTION("ragged ranks") {
    CHECK(laws::broken_expert_law(random_experts<T>({.in = 11, .out = 9, .experts = 3, .ranks = {1, 5, 2}})) == "");
  }
  SECTION("a shared down-projection") {
    CHECK(laws::broken_expert_law(
              random_experts<T>({.in = 11, .out = 9, .experts = 4, .rank = 3, .shared_down = true})) == "");
  }
  SECTION("one expert") {
    CHECK(laws::broken_expert_law(random_experts<T>({.in = 11, .out = 9})) == "");
  }
  SECTION("a sparse projection") {
    const Index rank = GENERATE(1, 3);
    Rng rng(1);
    LowRank<SparseProjection<T>> experts({.in = 11, .out = 9, .experts = 4, .rank = rank, .nonzeros = 3, .alpha = 9},
                                         rng);
    fill_uniform(experts.parameters().lora_B.view(), 1, rng);
    CHECK(laws::broken_expert_law(experts) == "");
  }
}

TEST_CASE("LowRank adds scale times weight times B A x", "[expert]") {
  Rng rng(2);
  LowRank<DenseFactors<double>> experts({.in = 2, .out = 2, .experts = 2, .rank = 1, .alpha = 3}, rng);
  auto& p = experts.parameters();
  p.lora_A(1, 0) = 1, p.lora_A(1, 1) = 10;
  p.lora_B(1, 0) = 2, p.lora_B(1, 1) = -1;
  Matrix<double> x(1, 2), y(1, 2);
  x(0, 0) = 4, x(0, 1) = 5;
  y(0, 0) = 1000;
  Routing<double> routing;
  routing.start(2);
  routing.push(1, 0.5);
  routing.end_token();
  routing.finish();
  y = laws::added(experts, x, routing, y);
  CHECK(y(0, 0) == 1000 + 3 * 0.5 * 2 * 54);
  CHECK(y(0, 1) == 3 * 0.5 * -1 * 54);
}

TEST_CASE("The scale of an expert follows alpha, its rank and the rule", "[expert]") {
  const auto scales = [](Scaling scaling, std::optional<double> alpha) {
    const auto experts = random_experts<double>(
        {.in = 3, .out = 3, .experts = 3, .ranks = {1, 4, 0}, .alpha = alpha, .scaling = scaling});
    return std::vector<double>(experts.scale().begin(), experts.scale().end());
  };
  CHECK(scales(Scaling::alpha_over_rank, 8) == std::vector<double>{8, 2, 0});
  CHECK(scales(Scaling::alpha_over_sqrt_rank, 8) == std::vector<double>{8, 4, 0});
  CHECK(scales(Scaling::fixed, 8) == std::vector<double>{8, 8, 0});
  CHECK(scales(Scaling::alpha_over_rank, {}) == std::vector<double>{1, 1, 1});
}

TEST_CASE("The latent of a router gives the same experts as a projection of their own", "[expert]") {
  const auto experts = random_experts<double>({.in = 11, .out = 9, .experts = 4, .rank = 3});
  const auto x = support::random_matrix<double>(6, 11, 3);
  const auto routing = laws::some_routing<double>(6, 4, {2, 1});
  laws::Harness harness(experts, 6, routing.pairs());
  auto call = harness.call();
  const View<const double> latent = experts.project(x, call);
  Matrix<double> with_latent(6, 9);
  experts.forward(x, latent, routing, with_latent.view(), call);
  CHECK(support::largest_difference(with_latent, laws::added(experts, x, routing, Matrix<double>(6, 9))) < 1e-14);
}

TEST_CASE("Dropout of rate 0 is legal and changes no bit, in training too", "[expert]") {
  const auto plain = random_experts<float>({.in = 11, .out = 9, .experts = 4, .rank = 3});
  const auto dropped =
      random_experts<float>({.in = 11, .out = 9, .experts = 4, .rank = 3, .dropout = {.rate = 0, .stream = 3}});
  const auto x = support::random_matrix<float>(6, 11, 3);
  const auto routing = laws::some_routing<float>(6, 4, {2, 1});
  laws::Harness harness(dropped, 6, routing.pairs(), {.training = true, .seed = 4});
  auto call = harness.call();
  Matrix<float> y(6, 9);
  dropped.forward(x, {}, routing, y.view(), call);
  CHECK(support::same_bits(y, laws::added(plain, x, routing, Matrix<float>(6, 9))));
  Rng rng(1);
  CHECK_THROWS_AS((LowRank<DenseFactors<float>>({.in = 3, .out = 3, .dropout = {.rate = 1}}, rng)), Error);
}

TEST_CASE("A routing larger than the workspace is refused", "[expert]") {
  const auto experts = random_experts<float>({.in = 11, .out = 9, .experts = 4, .rank = 3});
  const auto x = support::random_matrix<float>(6, 11, 3);
  const auto routing = laws::some_routing<float>(6, 4, {4});
  const auto of_fewer_ranks = random_experts<float>({.in = 11, .out = 9, .experts = 4, .rank = 2});
  laws::Harness too_few(experts, 6, routing.pairs() - 1), too_narrow(of_fewer_ranks, 6, routing.pairs());
  Matrix<float> y(6, 9);
  for (auto* harness : {&too_few, &too_narrow}) {
    auto call = harness->call();
    CHECK_THROWS_AS(experts.forward(x, {}, routing, y.view(), call), Error);
  }
}

TEST_CASE("The delta of an expert is its scaled B A", "[expert]") {
  for (bool shared : {false, true}) {
    const auto experts =
        random_experts<double>({.in = 3, .out = 2, .experts = 2, .rank = 2, .alpha = 4, .shared_down = shared});
    Matrix<double> w(2, 3);
    experts.add_delta(1, 0.5, w.view());
    const auto& p = experts.parameters();
    const Index a = shared ? 0 : 2;
    for (Index o = 0; o < 2; ++o)
      for (Index i = 0; i < 3; ++i) {
        const double expected = 0.5 * 2 * (p.lora_B(2, o) * p.lora_A(a, i) + p.lora_B(3, o) * p.lora_A(a + 1, i));
        CHECK(std::abs(w(o, i) - expected) < 1e-15);
      }
  }
}

TEST_CASE("An alpha that is no ordinary number of float is refused", "[expert]") {
  Rng rng;
  for (double alpha : {1e39, -1e39, 1e-39, std::numeric_limits<double>::infinity(), std::nan("")})
    CHECK(test::code_of([&] { LowRank<DenseFactors<float>>({.in = 3, .out = 4, .alpha = alpha}, rng); }) ==
          ErrorCode::option);
  CHECK_NOTHROW(LowRank<DenseFactors<float>>({.in = 3, .out = 4, .alpha = 0}, rng));
}

TEST_CASE("The tables of experts are their A and B, wherever A is", "[expert]") {
  Rng rng(1);
  LowRank<DenseFactors<float>> dense({.in = 6, .out = 4, .experts = 3, .rank = 2, .shared_down = true}, rng);
  fill_uniform(dense.parameters().lora_B.view(), 1, rng);
  CHECK(support::same_bits(dense.tables().a, dense.parameters().lora_A));
  CHECK(support::same_bits(dense.tables().b, dense.parameters().lora_B));
  const LowRank<SparseProjection<float>> sparse({.in = 6, .out = 4, .experts = 3, .nonzeros = 2}, rng);
  const auto a = sparse.tables().a;
  const auto projection = sparse.factors().projection();
  for (Index j = 0; j < 3; ++j) {
    CHECK(std::ranges::count(a.view().row(j), 0.0f) == 4);
    for (Index k = 0; k < 2; ++k) CHECK(a(j, projection.columns(j, k)) == projection.values(j, k));
  }
}
