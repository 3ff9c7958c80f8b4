// SPDX-License-Identifier: MIT
#include "mole/method/adalora.hpp"

#include "method/method_checks.hpp"
#include "mole/loss/orthogonality.hpp"
#include "mole/optim/rank_allocator.hpp"
#include "mole/optim/sgd.hpp"
#include "support/catch.hpp"

using namespace mole;
using namespace method_checks;

TEST_CASE("adalora adds triplets under alpha over the rank and 1e-5", "[method]") {
  Rng rng(1);
  auto layer = adalora({.rank = 3, .alpha = 6}, DenseBase{weight, bias}, rng);
  fill_uniform(layer.experts().parameters().lora_E.view(), 1, rng);
  const auto& p = layer.experts().parameters();
  const auto y = support::output(layer, tokens);
  for (Index n = 0; n < 5; ++n)
    for (Index o = 0; o < 13; ++o) {
      double expected = bias(0, o);
      for (Index i = 0; i < 11; ++i) expected += weight(o, i) * tokens(n, i);
      for (Index j = 0; j < 3; ++j) {
        double z = 0;
        for (Index i = 0; i < 11; ++i) z += p.lora_A(j, i) * tokens(n, i);
        expected += 6 / (3 + 1e-5) * p.lora_B(j, o) * p.lora_E(0, j) * z;
      }
      CHECK(std::abs(y(n, o) - expected) < 1e-12);
    }
  CHECK(gradient_error(layer) < 1e-8);
  CHECK(can_merge(layer));
}

TEST_CASE("Training of adalora ends with the budget of its allocator, and rows closer to orthonormal", "[method]") {
  Rng rng(1);
  auto layer = adalora({.rank = 6, .alpha = 6}, DenseBase{weight}, rng);
  auto gradients = layer.gradients();
  auto work = layer.workspace(tokens.rows());
  Sgd<double> optimizer({.learning_rate = 0.5});
  using Triplets = TripletFactors<double>::Parameters;
  const std::vector<const Triplets*> sizes{&layer.experts().parameters()};
  RankAllocator<Triplets> allocator({.target = 2, .steps = 40, .warmup = 4, .settling = 10}, sizes);
  const auto wanted = support::random_matrix<double>(tokens.rows(), 13, 9);
  Matrix<double> y(tokens.rows(), 13), d_y = y;
  double first = 0, last = 0;
  for (int step = 0; step < 40; ++step) {
    set_zero(gradients);
    layer.forward(tokens, y, work);
    for (Index i = 0; i < y.size(); ++i) {
      auto& d = d_y.elements()[std::size_t(i)];
      d = (y.elements()[std::size_t(i)] - wanted.elements()[std::size_t(i)]) / double(y.size());
    }
    layer.backward(tokens, d_y, {}, gradients, work);
    last = orthogonality(layer.experts().blocks(), layer.experts().parameters(), gradients.experts);
    if (step == 0) first = last;
    optimizer.step(layer, gradients);
    const std::vector<RankAllocator<Triplets>::Layer> layers{{&layer.experts().parameters(), &gradients.experts}};
    allocator.step(layers);
  }
  CHECK(std::ranges::count(layer.experts().parameters().lora_E.elements(), 0.0) == 4);
  CHECK(last < 0.9 * first);
}
