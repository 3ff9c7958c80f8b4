// SPDX-License-Identifier: MIT
#include "mole/factors/gated_ranks.hpp"

#include "mole/execution/simd.hpp"
#include "mole/testing/expert_laws.hpp"
#include "mole/testing/factor_laws.hpp"
#include "support/catch.hpp"
#include "support/layers.hpp"

using namespace mole;

namespace {

template <class T, class Execution = Reference>
auto gated_layer(typename GatedRanks<T>::Options options, Execution execution = {}) {
  Rng rng(5);
  options.in = 11, options.out = 13, options.alpha = 6;
  LowRank<GatedRanks<T>> experts(options, rng);
  fill_uniform(experts.parameters().lora_B.view(), 1, rng);
  const Index count = experts.experts();
  return MixtureLinear(LinearRouter<T>({.in = 11, .experts = count}, rng),
                       Gate{Softmax{}, TopK{std::min<Index>(count, 2)}, Renormalized{}}, std::move(experts),
                       DenseBase(support::random_matrix<T>(13, 11, 6)), std::move(execution));
}

/// The experts with g o B for B and no gate.
template <class T>
LowRank<DenseFactors<T>> ungated(const LowRank<GatedRanks<T>>& experts, const typename DenseFactors<T>::Options& o) {
  Rng rng(1);
  LowRank<DenseFactors<T>> plain(o, rng);
  const auto& p = experts.parameters();
  plain.parameters() = {p.lora_A, p.lora_B};
  for (Index j = 0; j < p.lora_B.rows(); ++j)
    for (T& b : plain.parameters().lora_B.view().row(j)) b *= p.gate(0, j);
  return plain;
}

}  // namespace

TEST_CASE("GatedRanks start with a uniform A, a B of zeros, and normal gates or ones", "[factors]") {
  Rng rng(1);
  const GatedRanks<double> factors({.in = 100, .out = 7, .experts = 400, .rank = 25}, rng);
  const auto& p = factors.parameters();
  CHECK(support::same_bits(p.lora_B, Matrix<double>(10'000, 7)));
  double most = 0, sum = 0, square = 0, beyond = 0;
  for (double a : p.lora_A.elements()) most = std::max(most, std::abs(a));
  for (double g : p.gate.elements()) sum += g, square += g * g, beyond += std::abs(g) > 1;
  CHECK(most <= 0.1);
  CHECK(most > 0.099);
  CHECK(p.gate.cols() == 10'000);
  CHECK(std::abs(sum / 1e4) < 0.04);
  CHECK(std::abs(square / 1e4 - 1) < 0.06);
  CHECK(std::abs(beyond / 1e4 - 0.3173) < 0.02);

  GatedRanks<double> ones({.in = 5, .out = 7, .start = GateStart::ones}, rng);
  const auto all_ones = [&] {
    const auto gate = ones.parameters().gate.elements();
    return std::count(gate.begin(), gate.end(), 1.0) == 8;
  };
  CHECK(all_ones());
  fill(ones.parameters().gate.view(), 3);
  fill(ones.parameters().lora_B.view(), 3);
  ones.reset(rng);
  CHECK(all_ones());
  CHECK(support::same_bits(ones.parameters().lora_B, Matrix<double>(8, 7)));
}

TEST_CASE("Equal generators give equal gated ranks, made or reset", "[factors]") {
  Rng one(4), two(4), three(4);
  const GatedRanks<float> a({.in = 9, .out = 6}, one);
  GatedRanks<float> b({.in = 9, .out = 6}, two);
  b.reset(one);
  b.reset(three);
  CHECK(support::same_bits(a.parameters().lora_A, b.parameters().lora_A));
  CHECK(support::same_bits(a.parameters().gate, b.parameters().gate));
}

TEST_CASE("GatedRanks refuse sizes out of range", "[factors]") {
  Rng rng(3);
  using Factors = GatedRanks<float>;
  CHECK_THROWS_AS(Factors({.in = 0, .out = 6}, rng), Error);
  CHECK_THROWS_AS(Factors({.in = 5, .out = 0}, rng), Error);
  CHECK_THROWS_AS(Factors({.in = 5, .out = 6, .experts = 0}, rng), Error);
  CHECK_THROWS_AS(Factors({.in = 5, .out = 6, .experts = 2, .ranks = {1, 2, 3}}, rng), Error);
  CHECK_THROWS_AS(Factors({.in = 5, .out = 6, .experts = 2, .ranks = {1, -2}}, rng), Error);
}

TEMPLATE_TEST_CASE("Gated experts keep the laws of experts", "[factors]", float, double) {
  CHECK(laws::broken_expert_law(gated_layer<TestType>({.experts = 4, .ranks = {1, 5, 2, 3}}).experts()) == "");
  CHECK(laws::broken_expert_law(gated_layer<TestType>({.experts = 4, .rank = 3, .shared_down = true}).experts()) == "");
}

TEMPLATE_TEST_CASE("Gated experts are those of g o B, and so are their gradients", "[factors]", Reference, Simd<>) {
  const Index tokens = 9;
  for (bool shared : {false, true})
    for (const std::vector<int>& ranks : {std::vector<int>{3, 3, 3}, {1, 0, 4}, {1, 1, 1}}) {
      auto gated = gated_layer<double>({.experts = 3, .ranks = ranks, .shared_down = shared}, TestType{});
      MixtureLinear plain(
          gated.router(), gated.gating(),
          ungated(gated.experts(),
                  {.in = 11, .out = 13, .experts = 3, .ranks = ranks, .alpha = 6, .shared_down = shared}),
          gated.base(), TestType{});
      const auto x = support::random_matrix<double>(tokens, 11, 1), d_y = support::random_matrix<double>(tokens, 13, 2);
      const auto run = [&](const auto& layer, Matrix<double>& y, Matrix<double>& d_x) {
        auto work = layer.workspace(tokens);
        auto gradients = layer.gradients();
        layer.forward(x, y, work);
        layer.backward(x, d_y, d_x, gradients, work);
        return gradients;
      };
      Matrix<double> y(tokens, 13), d_x(tokens, 11), plain_y(tokens, 13), plain_d_x(tokens, 11);
      const auto found = run(gated, y, d_x);
      const auto expected = run(plain, plain_y, plain_d_x);
      CAPTURE(shared, ranks);
      CHECK(support::largest_difference(y, plain_y) < 1e-13);
      CHECK(support::largest_difference(d_x, plain_d_x) < 1e-12);
      CHECK(support::largest_difference(found.experts.lora_A, expected.experts.lora_A) < 1e-12);
      CHECK(support::largest_difference(found.router.weight, expected.router.weight) < 1e-12);

      // d_B = g o d_B',  d_g = sum over columns of d_B' o B
      const auto& p = gated.experts().parameters();
      Matrix<double> d_b = expected.experts.lora_B, d_gate(1, d_b.rows());
      for (Index j = 0; j < d_b.rows(); ++j)
        for (Index o = 0; o < 13; ++o) {
          d_gate(0, j) += d_b(j, o) * p.lora_B(j, o);
          d_b(j, o) *= p.gate(0, j);
        }
      CHECK(support::largest_difference(found.experts.lora_B, d_b) < 1e-12);
      CHECK(support::largest_difference(found.experts.gate, d_gate) < 1e-12);
    }
}

TEMPLATE_TEST_CASE("The gradients of gated experts are exact for blocks of every kind", "[factors]", Reference,
                   Simd<>) {
  for (bool shared : {false, true})
    for (const std::vector<int>& ranks : {std::vector<int>{3}, {2, 2, 2}, {1, 5, 0}, {1, 1, 1, 1}}) {
      auto layer =
          gated_layer<double>({.experts = Index(ranks.size()), .ranks = ranks, .shared_down = shared}, TestType{});
      layer.experts().parameters().gate(0, 0) = 0;
      const auto report = check_gradients(layer);
      CAPTURE(shared, ranks, report.worst_tensor);
      CHECK(report.worst < 1e-8);
      CHECK(report.checked > 0);
    }
}

TEST_CASE("A frozen gate, a frozen B or a frozen A gets no gradient, and the others the same", "[factors]") {
  const auto layer = gated_layer<double>({.experts = 3, .rank = 2});
  const auto x = support::random_matrix<double>(5, 11, 1), d_y = support::random_matrix<double>(5, 13, 2);
  auto work = layer.workspace(5);
  Matrix<double> y(5, 13);
  const auto backward = [&](auto freeze) {
    auto gradients = layer.gradients();
    freeze(gradients.experts);
    layer.forward(x, y, work);
    layer.backward(x, d_y, {}, gradients, work);
    return gradients.experts;
  };
  using Gradients = GatedRanks<double>::Parameters;
  const auto all = backward([](Gradients&) {}), no_gate = backward([](Gradients&g) { g.gate = {}; }),
             no_b = backward([](Gradients&g) { g.lora_B = {}; }), no_a = backward([](Gradients&g) { g.lora_A = {}; });
  CHECK(no_gate.gate.empty());
  CHECK(no_b.lora_B.empty());
  CHECK(no_a.lora_A.empty());
  for (const Gradients* some : {&no_gate, &no_b}) CHECK(support::same_bits(some->lora_A, all.lora_A));
  for (const Gradients* some : {&no_gate, &no_a}) CHECK(support::same_bits(some->lora_B, all.lora_B));
  for (const Gradients* some : {&no_a, &no_b}) CHECK(support::same_bits(some->gate, all.gate));
}

TEST_CASE("A gate of zero closes its rank, and learns how to open it", "[factors]") {
  auto layer = gated_layer<double>({.experts = 1, .rank = 3});
  auto& p = layer.experts().parameters();
  p.gate(0, 1) = 0;
  const auto x = support::random_matrix<double>(5, 11, 1), d_y = support::random_matrix<double>(5, 13, 2);
  auto work = layer.workspace(5);
  auto gradients = layer.gradients();
  Matrix<double> y(5, 13), without(5, 13);
  layer.forward(x, y, work);
  layer.backward(x, d_y, {}, gradients, work);
  const auto is_zero = [](std::span<const double> row) {
    return std::all_of(row.begin(), row.end(), [](double g) { return g == 0; });
  };
  CHECK(is_zero(gradients.experts.lora_A.view().row(1)));
  CHECK(is_zero(gradients.experts.lora_B.view().row(1)));
  CHECK_FALSE(is_zero(gradients.experts.lora_B.view().row(0)));
  CHECK(gradients.experts.gate(0, 1) != 0);
  fill(p.lora_B.view().middle_rows(1, 1), 0);
  layer.forward(x, without, work);
  CHECK(support::same_bits(y, without));
}

TEMPLATE_TEST_CASE("GatedRanks keep the laws of factors", "[factors]", float, double) {
  Rng rng(6);
  GatedRanks<TestType> factors({.in = 11, .out = 6, .experts = 3, .ranks = {1, 0, 4}}, rng);
  fill_uniform(factors.parameters().lora_B.view(), 1, rng);
  CHECK(laws::broken_factor_law(factors) == "");
}
