// SPDX-License-Identifier: MIT
#include "mole/expert/summed_experts.hpp"

#include "core/error_code.hpp"
#include "mole/mole.hpp"
#include "mole/testing/expert_laws.hpp"
#include "support/catch.hpp"
#include "support/layers.hpp"

using namespace mole;

namespace {

template <class T>
auto summed_experts(double dropout = 0) {
  Rng rng(1);
  MapExperts<DenseMaps<T>> matrices({.in = 6, .out = 5, .experts = 3}, rng);
  LowRank<DenseFactors<T>> lora(
      {.in = 6, .out = 5, .experts = 3, .rank = 2, .alpha = 4, .dropout = {.rate = dropout, .stream = 1}}, rng);
  fill_uniform(lora.parameters().lora_B.view(), 1, rng);
  return SummedExperts{std::move(matrices), std::move(lora)};
}

template <class Execution = Reference>
auto summed_layer(double dropout = 0, Execution execution = {}) {
  Rng rng(2);
  return MixtureLinear(LinearRouter<double>({.in = 6, .experts = 3}, rng), support::top_2(),
                       summed_experts<double>(dropout), NoBase<double>(6, 5), execution);
}

}  // namespace

TEMPLATE_TEST_CASE("Summed experts keep the laws of experts", "[expert]", float, double) {
  CHECK(laws::broken_expert_law(summed_experts<TestType>()) == "");
}

TEST_CASE("Summed experts are matrices with LoRA on them", "[expert]") {
  const auto layer = summed_layer();
  const auto x = support::random_matrix<double>(7, 6, 3);
  Matrix<double> y(7, 5);
  auto work = layer.workspace(7);
  layer.forward(x, y, work);
  const auto& w = layer.experts().first().parameters().weight;
  const auto& [a, b] = layer.experts().second().parameters();
  for (Index n = 0; n < 7; ++n)
    for (Index o = 0; o < 5; ++o) {
      long double expected = 0;
      for (Index p = work.routing.first_pair(n); p < work.routing.first_pair(n + 1); ++p)
        for (Index i = 0; i < 6; ++i) {
          const Index e = work.routing.expert(p);
          long double weight = w(e * 5 + o, i);
          for (Index j = 0; j < 2; ++j) weight += 2.0L * b(e * 2 + j, o) * a(e * 2 + j, i);
          expected += work.routing.gate(p) * weight * x(n, i);
        }
      CHECK(std::abs(double(y(n, o) - expected)) < 1e-14);
    }
}

TEST_CASE("Summed experts have exact gradients, and what is frozen gets none", "[expert]") {
  auto layer = summed_layer(0.3, Simd<>{});
  CHECK(check_gradients(layer, {.pass = {.training = true}}).passed(1e-8));
  const auto x = support::random_matrix<double>(7, 6, 3), d_y = support::random_matrix<double>(7, 5, 4);
  const auto backward = [&](bool frozen) {
    auto work = layer.workspace(7);
    auto gradients = layer.gradients();
    if (frozen) gradients.experts.first.weight = {};
    Matrix<double> y(7, 5), d_x(7, 6);
    layer.forward(x, y, work);
    layer.backward(x, d_y, d_x, gradients, work);
    return gradients;
  };
  const auto frozen = backward(true), trained = backward(false);
  CHECK(frozen.experts.first.weight.empty());
  CHECK(support::same_bits(frozen.experts.second.lora_A, trained.experts.second.lora_A));
  CHECK(support::same_bits(frozen.router.weight, trained.router.weight));
}

TEST_CASE("Experts that are not alike in number or size have no sum", "[expert]") {
  Rng rng;
  const LowRank<DenseFactors<double>> one({.in = 6, .out = 5, .experts = 3, .rank = 2}, rng);
  for (const auto& [in, out, experts] : {std::tuple{6, 5, 2}, std::tuple{6, 4, 3}, std::tuple{5, 5, 3}}) {
    const LowRank<DenseFactors<double>> other({.in = in, .out = out, .experts = experts, .rank = 2}, rng);
    CHECK(test::code_of([&, &second = other] { SummedExperts(one, second); }) == ErrorCode::shape);
  }
}
