// SPDX-License-Identifier: MIT
#include "mole/adapt/online_batch.hpp"

#include "mole/adapt/right_experts.hpp"
#include "mole/core/error.hpp"
#include "mole/loss/multi_hot_bce.hpp"
#include "mole/mole.hpp"
#include "support/catch.hpp"
#include "support/random_matrix.hpp"

using namespace mole;

TEST_CASE("A router learns when the last sample of an online batch arrives, and not before", "[adapt]") {
  Rng rng(1);
  MixtureLinear layer(LinearRouter<double>({.in = 5, .experts = 3, .bias = true}, rng), Gate{Softmax{}, TopK{1}, Raw{}},
                      LowRank<DenseFactors<double>>({.in = 5, .out = 4, .experts = 3, .rank = 1}, rng),
                      NoBase<double>(5, 4));
  OnlineBatch<double> batch({.in = 5, .experts = 3, .samples = 4});
  auto work = layer.workspace(4);
  AdamW adamw({.learning_rate = 1e-2});
  const auto x = support::random_matrix<double>(9, 5, 3);
  const auto start = layer.router().parameters().weight;
  Matrix<double> before = start;
  double losses[2] = {0, 0};
  for (Index n = 0; n < 8; ++n) {
    const double targets[] = {1, 0, double(n % 2)};
    if (batch.add(x.view().row(n % 4), targets)) {
      auto gradients = layer.gradients();
      layer.route(batch.x(), work);
      losses[n / 4] = multi_hot_bce<double>(work, batch.targets());
      layer.route_backward(batch.x(), {}, gradients, work);
      adamw.step(layer, gradients);
      batch.clear();
    }
    const bool changed = !std::ranges::equal(layer.router().parameters().weight.elements(), before.elements());
    CHECK(changed == (n % 4 == 3));
    before = layer.router().parameters().weight;
  }
  CHECK(losses[1] < losses[0]);
}

TEST_CASE("An online batch is state, and refuses what does not fit", "[adapt]") {
  OnlineBatch<float> batch({.in = 2, .experts = 3, .samples = 2}), restored({.in = 2, .experts = 3, .samples = 2});
  const float x[] = {1, 2}, targets[] = {0, 1, 0};
  CHECK_FALSE(batch.add(x, targets));
  std::vector<std::vector<double>> saved;
  batch.for_each_state([&](std::string_view, auto numbers) { saved.emplace_back(numbers.begin(), numbers.end()); });
  std::size_t part = 0;
  restored.for_each_state([&]<class U>(std::string_view, std::span<U> numbers) {
    std::ranges::transform(saved[part++], numbers.begin(), [](double number) { return U(number); });
  });
  REQUIRE(restored.size() == 1);
  CHECK(restored.x()(0, 1) == 2);
  CHECK(restored.targets()(0, 1) == 1);
  for (const double size : {-1.0, 3.0, 1e15}) {
    const auto broken = [&] {
      restored.for_each_state([&]<class U>(std::string_view name, std::span<U> numbers) {
        std::ranges::fill(numbers, name == "size" ? U(size) : U(7));
      });
    };
    CHECK_THROWS_AS(broken(), Error);
    CHECK(restored.size() == 1);
    CHECK(restored.x()(0, 1) == 2);
  }
  CHECK_THROWS_AS(batch.add(targets, targets), Error);
  CHECK_THROWS_AS(batch.add(x, x), Error);
  CHECK(batch.add(x, targets));
  CHECK_THROWS_AS(batch.add(x, targets), Error);
  CHECK(batch.size() == 2);
  CHECK_THROWS_AS(OnlineBatch<float>({.in = 0, .experts = 3}), Error);
}
