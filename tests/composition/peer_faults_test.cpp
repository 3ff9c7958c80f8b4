// SPDX-License-Identifier: MIT
// Faults of other libraries for which no other test stands; tests/README.md lists all.
#include "mole/mole.hpp"
#include "mole/testing/gating_laws.hpp"
#include "mole/testing/score_laws.hpp"
#include "support/catch.hpp"
#include "support/layers.hpp"

#include <numeric>
#include <thread>

using namespace mole;

namespace {

/// Softmax, whose derivative lacks the share of the other scores: the sum of its gradient is that of d_scores.
struct SoftmaxWithoutSum : Softmax {
  template <class V, class Loops = kernel::ElementLoops>
  void backward(std::span<const V>, std::span<const V> scores, std::span<const V> d_scores, std::span<V> d_logits,
                const Loops& = {}) const {
    for (std::size_t e = 0; e < d_scores.size(); ++e) d_logits[e] += scores[e] * d_scores[e];
  }
};

/// Chosen by sigmoid + bias with a stable sort, weighed by the sigmoid alone.
std::vector<std::pair<int, double>> biased_choice(std::span<const float> logits, const std::vector<float>& bias,
                                                  Index k) {
  const auto score = [&](int e) { return 1 / (1 + std::exp(-double(logits[std::size_t(e)]))); };
  std::vector<int> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int i, int j) {
    return score(i) + double(bias[std::size_t(i)]) > score(j) + double(bias[std::size_t(j)]);
  });
  double sum = 0;
  for (Index j = 0; j < k; ++j) sum += score(order[std::size_t(j)]);
  std::vector<std::pair<int, double>> chosen;
  for (Index j = 0; j < k; ++j) chosen.emplace_back(order[std::size_t(j)], score(order[std::size_t(j)]) / sum);
  return chosen;
}

}  // namespace

TEST_CASE("Balanced traffic leaves every bias at 0, however many tokens an expert has; skewed traffic lowers the hot",
          "[composition]") {
  SignBiasBalancer balancer({.experts = 4, .rate = 0.5});
  std::vector<float> bias(4);
  const auto observe = [&](const std::vector<int>& experts) {
    const auto layer = support::routed_layer<float>({}, Gate{Softmax{}, TopK{1}, Raw{}});
    auto work = layer.workspace(Index(experts.size()));
    layer.route(support::random_matrix<float>(Index(experts.size()), layer.in(), 3), work,
                {.training = true, .forced = experts});
    balancer.observe(work);
  };
  for (int call = 0; call < 20; ++call) {
    std::vector<int> even(400);
    for (std::size_t n = 0; n < even.size(); ++n) even[n] = int(n % 4);
    observe(even);
    balancer.update(bias);
    CHECK(bias == std::vector<float>(4));
  }
  observe({0, 0, 0, 0, 0, 1, 1, 2, 2, 3, 3});  // the mean is 2.75
  balancer.update(bias);
  CHECK(bias == std::vector<float>{-0.5f, 0.5f, 0.5f, 0.5f});
}

TEST_CASE("The base is not multiplied by alpha over the rank: merged and unmerged outputs agree", "[composition]") {
  Rng rng(1);
  const auto weight = support::random_matrix<double>(13, 11, 2), x = support::random_matrix<double>(9, 11, 3);
  const auto layer = support::with_random_b(lora({.rank = 2, .alpha = 14}, DenseBase(weight.view()), rng));
  Matrix<double> merged = weight, y(9, 13);
  merge_into(layer, merged.view());
  Reference{}.product_nt(x, merged, y.view());
  CHECK(support::largest_difference(y, support::output(layer, x)) < 1e-12);
}

TEST_CASE("One adapter of weight 1 is itself when combined, under the scale of rsLoRA, too", "[composition]") {
  for (const Scaling scaling : {Scaling::alpha_over_rank, Scaling::alpha_over_sqrt_rank}) {
    Rng rng(1);
    LowRank<DenseFactors<double>> experts(
        {.in = 11, .out = 9, .experts = 1, .rank = 16, .alpha = 8, .scaling = scaling}, rng);
    fill_uniform(experts.parameters().lora_B.view(), 1, rng);
    Matrix<double> expected(9, 11);
    experts.add_delta(0, 1, expected.view());
    const auto adapters = adapters_of(experts);
    const auto of = [&](const Adapter<double>& merged) {
      Matrix<double> update(9, 11);
      for (Index o = 0; o < 9; ++o)
        for (Index i = 0; i < 11; ++i)
          for (Index r = 0; r < merged.rank(); ++r) update(o, i) += merged.scale * merged.b(r, o) * merged.a(r, i);
      return update;
    };
    const std::vector<WeightedAdapter<double>> one{{adapters[0], 1}};
    CHECK(support::largest_difference(of(concatenate_adapters(one).adapter), expected) < 1e-13);
    CHECK(support::largest_difference(of(merge_factors(one).adapter), expected) < 1e-13);
    CHECK(support::largest_difference(of(merge_updates(one, {.rank = 16}).adapter), expected) < 1e-13);
  }
}

TEST_CASE("A biased choice of k among powers of two of experts weighs without the bias, at 128 experts as elsewhere",
          "[composition]") {
  for (const Index experts : {2, 4, 8, 16, 32, 64, 127, 128, 129, 256})
    for (const Index k : {1, 2, 4, 8}) {
      if (k > experts) continue;
      INFO("experts " << experts << ", chosen " << k);
      const auto logits = support::random_matrix<float>(17, experts, std::uint64_t(experts + k));
      const auto numbers = support::random_matrix<float>(1, experts, 9);
      const std::vector<float> bias(numbers.elements().begin(), numbers.elements().end());
      const auto check = [&]<class Execution>(Execution) {
        const auto trace = laws::routed<Execution>(Gate{Sigmoid{}, GroupedTopK<float>(k, 1, 1, bias), Renormalized{}},
                                                   logits, experts);
        for (Index n = 0; n < logits.rows(); ++n) {
          const auto expected = biased_choice(logits.view().row(n), bias, k);
          for (std::size_t j = 0; j < expected.size(); ++j) {
            CHECK(trace.routing.experts_of(n)[j] == expected[j].first);
            CHECK(std::abs(double(trace.routing.gates_of(n)[j]) - expected[j].second) < 1e-6);
          }
        }
      };
      check(Reference{}), check(Simd<>{});
    }
}

TEST_CASE("A softmax whose backward lacks the sum over the other scores is found", "[composition]") {
  CHECK(laws::broken_score_law(Softmax{}) == "");
  CHECK(laws::broken_score_law(SoftmaxWithoutSum{}).find("deriv") != std::string::npos);
  auto right = support::routed_layer<double>({}, Gate{Softmax{}, All{}, Raw{}});
  auto wrong = support::routed_layer<double>({}, Gate{SoftmaxWithoutSum{}, All{}, Raw{}});
  CHECK(check_gradients(right).passed(1e-7));
  CHECK_FALSE(check_gradients(wrong).passed(1e-2));
}

TEST_CASE("Losses of two layers on two threads are those of each layer alone", "[composition][threads]") {
  const auto layers = [](Index experts) {
    return support::routed_layer<float>({.experts = experts}, support::top_2(), Simd<>{});
  };
  const auto losses = [&](Index experts) {
    const auto layer = layers(experts);
    auto work = layer.workspace(64);
    std::vector<double> found;
    for (std::uint64_t call = 0; call < 40; ++call) {
      layer.route(support::random_matrix<float>(64, 11, call), work);
      found.push_back(load_balance(work) + router_z(work) + importance_cv2(work));
    }
    return found;
  };
  const std::vector<double> four = losses(4), seven = losses(7);
  std::vector<double> four_beside, seven_beside;
  std::thread one([&] { four_beside = losses(4); }), two([&] { seven_beside = losses(7); });
  one.join(), two.join();
  CHECK(four_beside == four);
  CHECK(seven_beside == seven);
}

TEST_CASE("Steps far below the resolution of bfloat16 add up", "[composition]") {
  // From 1 the next bfloat16 is 1 + 2^-7: 4,000 steps of 1e-5 would all round away.
  Matrix<float> p(1, 8), d_p(1, 8);
  fill(p.view(), 1.0f), fill(d_p.view(), 1.0f);
  AdamW<float> adamw({.learning_rate = 1e-5, .weight_decay = 0});
  for (int step = 0; step < 4000; ++step) adamw.step([&](auto&& f) { f("p", p.view(), d_p.view()); });
  for (float number : p.elements()) CHECK(std::abs(double(number) - 0.96) < 1e-4);
}
