// SPDX-License-Identifier: MIT
// Random layers, calls and routings: every execution and base computes what Reference does. MOLE_PROPERTY_CASES=1000
// for more.
#include "mole/execution/through_eigen.hpp"
#include "mole/mole.hpp"
#include "support/catch.hpp"
#include "support/random_matrix.hpp"

#include <cstdlib>

using namespace mole;

namespace {

/// A layer and a call, all drawn from one seed.
struct Drawn {
  explicit Drawn(std::uint64_t seed_) : seed(seed_) {
    Rng rng(seed);
    const auto one_of = [&](std::initializer_list<Index> sizes) { return sizes.begin()[rng() % sizes.size()]; };
    in = one_of({1, 3, 15, 16, 17, 33, 70, 130}), out = one_of({1, 2, 16, 31, 32, 33, 90, 129});
    experts = one_of({1, 2, 3, 8, 31, 33, 65}), rank = one_of({0, 1, 3, 4, 5, 16, 17, 33});
    k = std::min(experts, one_of({1, 2, 3, 8})), tokens = one_of({0, 1, 2, 7, 31, 32, 33, 65, 127, 129});
    threads = int(one_of({1, 2, 3}));
    dropout = one_of({0, 0, 1}) != 0 ? 0.3 : 0;
    shared_down = one_of({0, 0, 0, 1}) != 0, bias = one_of({0, 1}) != 0, latent = one_of({0, 0, 1}) != 0;
    if (latent) rank = 1, shared_down = false;
    const bool masks = one_of({0, 1}) != 0, forces = one_of({0, 0, 1}) != 0;
    for (Index n = 0; n < tokens; ++n) {
      if (masks) routed.push_back(rng() % 4 != 0), mask.push_back(rng() % 5 != 0);
      if (forces) forced.push_back(rng() % 3 == 0 ? int(rng() % std::uint64_t(experts)) : -1);
    }
  }

  Pass pass() const { return {.training = true, .seed = seed, .token_mask = mask, .routed = routed, .forced = forced}; }

  std::uint64_t seed;
  Index in, out, experts, rank, k, tokens;
  int threads;
  double dropout;
  bool shared_down, bias, latent;
  std::vector<std::uint8_t> routed, mask;
  std::vector<int> forced;
};

/// y, d_x, gradients, the losses, and who was chosen.
struct Outcome {
  std::vector<Matrix<float>> tensors;
  std::vector<int> chosen;
};

template <class Layer>
Outcome outcome_of(Layer layer, const Drawn& drawn) {
  Rng rng(drawn.seed + 1);
  layer.for_each_tensor([&](std::string_view, View<float> parameter) { fill_uniform(parameter, 0.5, rng); });
  const auto x = support::random_matrix<float>(drawn.tokens, drawn.in, drawn.seed + 2),
             d_y = support::random_matrix<float>(drawn.tokens, drawn.out, drawn.seed + 3);
  Matrix<float> y(drawn.tokens, drawn.out), d_x(drawn.tokens, drawn.in);
  fill(d_x.view(), 1);  // accumulates
  auto work = layer.workspace(drawn.tokens);
  auto gradients = layer.gradients({.base = Layer::has_trainable_base});
  layer.for_each_tensor([](std::string_view, View<float>, View<float> gradient) { fill(gradient, 1); }, gradients);
  const Pass pass = drawn.pass();
  layer.forward(x, y, work, pass);
  load_balance(work, {.coefficient = 0.1});
  router_z(work, {0.01});
  layer.backward(x, d_y, d_x, gradients, work);
  Outcome outcome{{y, d_x}, {}};
  layer.for_each_tensor(
      [&](std::string_view, View<float>, View<float> gradient) {
        if (!gradient) return;
        outcome.tensors.emplace_back(gradient.rows(), gradient.cols());
        copy(gradient, outcome.tensors.back().view());
      },
      gradients);
  for (Index n = 0; n < drawn.tokens; ++n) {
    const auto experts = std::as_const(work.routing).experts_of(n);
    outcome.chosen.push_back(-1);
    outcome.chosen.insert(outcome.chosen.end(), experts.begin(), experts.end());
    std::sort(outcome.chosen.end() - Index(experts.size()), outcome.chosen.end());
  }
  return outcome;
}

template <class Base, class Execution>
Outcome run(const Drawn& drawn, Base base, Execution execution) {
  Rng rng(drawn.seed);
  const Gate gate{Softmax{}, TopK{drawn.k}, Renormalized{}};
  LowRank<DenseFactors<float>> experts({.in = drawn.in,
                                        .out = drawn.out,
                                        .experts = drawn.experts,
                                        .rank = drawn.rank,
                                        .alpha = 2,
                                        .dropout = {.rate = drawn.dropout, .stream = 1},
                                        .shared_down = drawn.shared_down},
                                       rng);
  if (drawn.latent)
    return outcome_of(MixtureLinear(LatentRouter<float>(drawn.experts), gate, experts, std::move(base), execution),
                      drawn);
  LinearRouter<float> router(
      {.in = drawn.in, .experts = drawn.experts, .bias = drawn.bias, .dropout = {.rate = drawn.dropout, .stream = 2}},
      rng);
  return outcome_of(MixtureLinear(router, gate, experts, std::move(base), execution), drawn);
}

/// False where rounding chose other experts, so that numbers cannot be compared.
bool agree(const Outcome& expected, const Outcome& found, const char* what) {
  if (expected.chosen != found.chosen) return false;
  REQUIRE(expected.tensors.size() == found.tensors.size());
  for (std::size_t i = 0; i < expected.tensors.size(); ++i) {
    double most = 1;
    for (float number : expected.tensors[i].elements()) most = std::max(most, std::abs(double(number)));
    CAPTURE(what, i, most);
    CHECK(support::largest_difference(expected.tensors[i], found.tensors[i]) < 3e-5 * most);
  }
  return true;
}

}  // namespace

TEST_CASE("Random layers compute what Reference computes, whatever execution and base", "[composition]") {
  const char* const asked = std::getenv("MOLE_PROPERTY_CASES");
  const int cases = asked != nullptr ? std::atoi(asked) : 60;
  int compared = 0;
  for (int i = 0; i < cases; ++i) {
    const Drawn drawn(1000 + std::uint64_t(i));
    CAPTURE(drawn.seed, drawn.in, drawn.out, drawn.experts, drawn.rank, drawn.k, drawn.tokens, drawn.latent);
    const auto weight = support::random_matrix<float>(drawn.out, drawn.in, drawn.seed + 4),
               bias = support::random_matrix<float>(1, drawn.out, drawn.seed + 5);
    const Simd<kernel::DefaultArchitecture, ThreadPool> simd{ThreadPool(drawn.threads)};
    const Outcome expected = run(drawn, DenseBase{weight, bias}, Reference{});
    compared += agree(expected, run(drawn, DenseBase{weight, bias}, simd), "Simd");
    compared += agree(expected, run(drawn, PackedBase(weight, bias), simd), "Simd, packed");
    compared +=
        agree(expected, run(drawn, PackedBase<float>(weight, bias, {.backward = false}), simd), "Simd, packed once");
    compared += agree(expected, run(drawn, DenseBase{weight, bias}, ThroughEigen{}), "ThroughEigen");
    const Bf16Base coded(weight, bias);
    compared += agree(run(drawn, coded, Reference{}), run(drawn, coded, simd), "Simd, bf16");
  }
  CHECK(compared > 5 * cases * 9 / 10);
}
