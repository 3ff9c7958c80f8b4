// SPDX-License-Identifier: MIT
// The preset is the composition that it says; what it computes is pinned by the golden test.
#include "mole/method/sora.hpp"

#include "method/method_checks.hpp"
#include "mole/method/lora.hpp"
#include "mole/surgery/fold_gate.hpp"
#include "mole/surgery/merge.hpp"
#include "mole/surgery/prune_zero_ranks.hpp"
#include "support/catch.hpp"

using namespace mole;
using namespace method_checks;

TEMPLATE_TEST_CASE("sora gates its ranks, scales by alpha over all of them, and can be merged", "[method]", Reference,
                   Simd<>) {
  Rng rng(1);
  const auto layer = sora({.dropout = 0.2}, DenseBase{weight, bias}, rng, TestType{});
  CHECK(layer.experts().scale()[0] == 2);
  CHECK(layer.experts().parameters().gate.size() == 8);
  CHECK(layer.base().weight().data() == weight.data());
  CHECK(merge_obstacle(layer).empty());
  CHECK(gradient_error(layer) < 1e-8);
}

TEMPLATE_TEST_CASE("A gate of ones is a plain LoRA to the bit, and a unit vector one of its ranks", "[method]",
                   Reference, Simd<>) {
  Rng one(1), two(1);
  auto gated = support::with_random_b(sora({.start = GateStart::ones}, DenseBase{weight, bias}, one, TestType{}));
  auto plain = support::with_random_b(lora({.alpha = 16}, DenseBase{weight, bias}, two, TestType{}));
  const auto x = support::random_matrix<double>(5, 11, 2);
  const auto output = [&](const auto& layer) {
    auto work = layer.workspace(5);
    Matrix<double> y(5, 13);
    layer.forward(x, y, work);
    return y;
  };
  CHECK(support::same_bits(output(gated), output(plain)));

  gated.experts().parameters().gate.set_zero();
  gated.experts().parameters().gate(0, 3) = 1;
  const auto& p = gated.experts().parameters();
  Matrix<double> expected(5, 13);
  TestType{}.linear(View<const double>(x), LinearWeights<double>{.weight = weight, .bias = bias}, expected.view());
  for (Index n = 0; n < 5; ++n) {
    double z = 0;
    for (Index i = 0; i < 11; ++i) z += p.lora_A(3, i) * x(n, i);
    for (Index o = 0; o < 13; ++o) expected(n, o) += 2 * z * p.lora_B(3, o);
  }
  CHECK(support::largest_difference(output(gated), expected) < 1e-14);
}

TEST_CASE("Training with the threshold leaves a LoRA of fewer ranks that does the same", "[method]") {
  Rng rng(1);
  // What there is to learn has two ranks.
  const auto a = support::random_matrix<double>(2, 11, 3), b = support::random_matrix<double>(2, 13, 4);
  auto layer = sora({}, DenseBase{weight}, rng);
  auto work = layer.workspace(64);
  auto gradients = layer.gradients();
  AdamW<double> adamw({.learning_rate = 2e-2, .weight_decay = 0});
  Matrix<double> x(64, 11), y(64, 13);
  const auto gates_of_zero = [&] {
    const auto gate = layer.experts().parameters().gate.elements();
    return std::count(gate.begin(), gate.end(), 0.0);
  };
  CHECK(gates_of_zero() == 0);
  for (int step = 0; step < 400; ++step) {
    fill_uniform(x.view(), 1, rng);
    set_zero(gradients);
    layer.forward(x, y, work);
    for (Index n = 0; n < 64; ++n)
      for (Index o = 0; o < 13; ++o) {
        double goal = 0;
        for (Index i = 0; i < 11; ++i) goal += (weight(o, i) + b(0, o) * a(0, i) + b(1, o) * a(1, i)) * x(n, i);
        y(n, o) = (y(n, o) - goal) / 64;
      }
    layer.backward(x, y, {}, gradients, work);
    adamw.step(layer, gradients);
    soft_threshold(layer.experts().parameters().gate.elements(), 5e-3);
  }
  const auto zeros = gates_of_zero();
  CHECK(zeros > 0);
  CHECK(zeros <= 6);
  const auto folded = fold_gate(prune_zero_ranks(layer.experts()));
  CHECK(folded.blocks().ranks_up() == 8 - zeros);
  const MixtureLinear plain(layer.router(), layer.gating(), folded, layer.base());
  Matrix<double> small(13, 11), whole(13, 11);
  merge_into(plain, small);
  merge_into(layer, whole);
  CHECK(support::largest_difference(small, whole) < 1e-13);
}
