// SPDX-License-Identifier: MIT
#include "mole/expert/biased_experts.hpp"

#include "core/error_code.hpp"
#include "mole/execution/thread_pool.hpp"
#include "mole/layer/check_gradients.hpp"
#include "mole/mole.hpp"
#include "support/catch.hpp"
#include "support/layers.hpp"

using namespace mole;

namespace {

constexpr Index biased_in = 11, biased_out = 13;

template <class T, class Inner>
auto biased(Inner inner) {
  Rng rng(9);
  BiasedExperts experts(std::move(inner));
  fill_uniform(experts.bias().view(), 1, rng);
  ParametersOf<Inner>::for_each_tensor([&](std::string_view, auto& tensor) { fill_uniform(tensor.view(), 1, rng); },
                                       experts.unbiased().parameters());
  return experts;
}

template <class T>
auto lora_with_bias(Index experts) {
  Rng rng(1);
  return biased<T>(
      LowRank<DenseFactors<T>>({.in = biased_in, .out = biased_out, .experts = experts, .rank = 3, .alpha = 6}, rng));
}

template <class Experts, class Execution = Simd<>>
auto biased_layer(const Experts& experts, Execution execution = {}) {
  using T = typename Experts::Scalar;
  Rng rng(5);
  const Index count = experts.experts();
  return MixtureLinear(LinearRouter<T>({.in = biased_in, .experts = count}, rng),
                       Gate{Softmax{}, TopK{std::min<Index>(2, count)}, Renormalized{}}, experts,
                       DenseBase(support::random_matrix<T>(biased_out, biased_in, 6)), execution);
}

}  // namespace

TEST_CASE("BiasedExperts add a bias under the scale and gate of their expert", "[expert]") {
  const auto experts = lora_with_bias<double>(3);
  const auto x = support::random_matrix<double>(7, biased_in, 3);
  auto layer = biased_layer(experts), plain_layer = biased_layer(experts);
  fill(plain_layer.experts().bias().view(), 0.0);
  auto work = layer.workspace(7);
  Matrix<double> y(7, biased_out);
  layer.forward(x, y, work);
  const auto without = support::output(plain_layer, x);
  for (Index n = 0; n < 7; ++n)
    for (Index o = 0; o < biased_out; ++o) {
      double expected = without(n, o);
      const auto chosen = work.routing.experts_of(n);
      for (std::size_t j = 0; j < chosen.size(); ++j)
        expected += 2 * std::as_const(work.routing).gates_of(n)[j] * experts.bias()(chosen[j], o);
      CHECK(std::abs(y(n, o) - expected) < 1e-13);
    }
}

TEST_CASE("BiasedExperts have exact gradients over ranks and maps, under every execution", "[expert]") {
  for (Index count : {1, 3}) {
    auto layer = biased_layer(lora_with_bias<double>(count), Reference{});
    CHECK(check_gradients(layer, {.pass = {.training = true}}).worst < 1e-8);
    auto by_simd = biased_layer(lora_with_bias<double>(count));
    CHECK(check_gradients(by_simd).worst < 1e-8);
  }
  Rng rng(1);
  auto over_maps = biased_layer(biased<double>(MapExperts<KroneckerMaps<double>>(
      {.in = biased_in, .out = biased_out, .experts = 3, .rank = 2, .alpha = 6}, rng)));
  CHECK(check_gradients(over_maps).worst < 1e-8);
}

TEST_CASE("A fresh bias changes nothing, to the bit, and is trained, saved and reset", "[expert]") {
  Rng rng(1);
  const LowRank<DenseFactors<float>> plain({.in = biased_in, .out = biased_out, .experts = 2, .rank = 3}, rng);
  auto layer = biased_layer(BiasedExperts(plain));
  const auto x = support::random_matrix<float>(7, biased_in, 3);
  CHECK(support::same_bits(support::output(layer, x), support::output(biased_layer(plain), x)));
  std::vector<std::string> names;
  layer.for_each_tensor([&](std::string_view name, auto) { names.emplace_back(name); });
  CHECK(std::ranges::count(names, "experts.bias") == 1);
  CHECK(std::ranges::count(names, "experts.lora_B") == 1);
  CHECK_FALSE(can_merge(layer));
  fill(layer.experts().bias().view(), 1.0f);
  layer.experts().reset(rng);
  CHECK(support::same_bits(layer.experts().bias(), Matrix<float>(2, biased_out)));
}

TEST_CASE("BiasedExperts have the same bits on any number of threads", "[expert]") {
  const auto results = [&](auto execution) {
    auto layer = biased_layer(lora_with_bias<float>(3), execution);
    const auto x = support::random_matrix<float>(9, biased_in, 3),
               d_y = support::random_matrix<float>(9, biased_out, 4);
    auto work = layer.workspace(9);
    auto gradients = layer.gradients();
    Matrix<float> y(9, biased_out), d_x(9, biased_in);
    layer.forward(x, y, work);
    layer.backward(x, d_y, d_x, gradients, work);
    return std::vector<Matrix<float>>{y, d_x, gradients.experts.bias, gradients.router.weight};
  };
  const auto one = results(Simd<>{}), three = results(Simd(ThreadPool(3)));
  for (std::size_t i = 0; i < one.size(); ++i) CHECK(support::same_bits(one[i], three[i]));
}

TEST_CASE("A bias of another size is refused", "[expert]") {
  auto layer = biased_layer(lora_with_bias<double>(3));
  layer.experts().bias() = Matrix<double>(2, biased_out);
  CHECK(test::code_of([&] { layer.workspace(3); }) == ErrorCode::shape);
}
