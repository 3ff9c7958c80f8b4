// SPDX-License-Identifier: MIT
#include "mole/combiner/mlp_combiner.hpp"

#include "combiner/combiner_checks.hpp"

using namespace mole;
using namespace combiner_checks;

namespace {

MlpCombiner<double> reward_head(Index experts = 3) {
  Rng rng(1);
  return {{.experts = experts, .features = 4, .hidden = 5, .out = 2}, rng};
}

}  // namespace

TEST_CASE("MlpCombiner is two linear maps with a PReLU between them", "[combiner]") {
  const auto combiner = reward_head();
  const auto x = support::random_matrix<double>(6, 12, 2);
  const auto y = combined(combiner, x);
  const auto& p = combiner.parameters();
  for (Index n = 0; n < 6; ++n)
    for (Index o = 0; o < 2; ++o) {
      long double expected = p.head2.bias(0, o);
      for (Index h = 0; h < 5; ++h) {
        long double z = p.head1.bias(0, h);
        for (Index i = 0; i < 12; ++i) z += (long double)(p.head1.weight(h, i)) * x(n, i);
        expected += p.head2.weight(o, h) * (z > 0 ? z : z * 0.25L);
      }
      CHECK(std::abs(double(y(n, o) - expected)) < 1e-14);
    }
}

TEST_CASE("MlpCombiner has exact gradients, with experts ruled out, too", "[combiner]") {
  CHECK(worst_gradient(reward_head(), {}) < 1e-8);
  CHECK(worst_gradient(reward_head(), {.allowed = some_allowed}) < 1e-8);
}

TEST_CASE("An expert that is ruled out reaches neither MlpCombiner's result nor a gradient", "[combiner]") {
  CHECK(excluded_reaches_nothing(reward_head()));
}

TEST_CASE("With frozen experts, MlpCombiner alone gets a gradient, and the same one", "[combiner]") {
  const auto combiner = reward_head();
  const auto x = support::random_matrix<double>(4, 12, 2), d_y = support::random_matrix<double>(4, 2, 3);
  const auto gradients = [&](bool frozen) {
    laws::Harness<MlpCombiner<double>> harness(combiner, 4);
    auto found = zeros_like(combiner.parameters());
    Matrix<double> y(4, 2), d_x(4, 12);
    combiner.forward(x, y.view(), harness.call());
    combiner.backward(x, d_y, frozen ? View<double>() : d_x.view(), found, harness.call());
    return found;
  };
  CHECK(support::same_bits(gradients(true).head1.weight, gradients(false).head1.weight));
}

TEST_CASE("One expert behind a first map that changes nothing keeps its own reward: DMoERM", "[combiner]") {
  Rng rng(1);
  MlpCombiner<double> combiner({.experts = 1, .features = 4}, rng);
  auto& p = combiner.parameters();
  p.head1.weight.set_zero(), p.head1.bias.set_zero(), p.slope(0, 0) = 1;
  for (Index i = 0; i < 4; ++i) p.head1.weight(i, i) = 1;
  const auto x = support::random_matrix<double>(6, 4, 2);
  const auto y = combined(combiner, x);
  for (Index n = 0; n < 6; ++n) {
    double own = p.head2.bias(0, 0);
    for (Index i = 0; i < 4; ++i) own += p.head2.weight(0, i) * x(n, i);
    CHECK(std::abs(y(n, 0) - own) < 1e-14);
  }
}

TEST_CASE("MlpCombiner refuses sizes of nothing", "[combiner]") {
  Rng rng;
  CHECK_THROWS_AS(MlpCombiner<float>({.experts = 0, .features = 4}, rng), Error);
  CHECK_THROWS_AS(MlpCombiner<float>({.experts = 2, .features = 0}, rng), Error);
}

TEST_CASE("MlpCombiner refuses calls that do not fit, and a backward without a forward", "[combiner]") {
  refuses_calls_that_do_not_fit(reward_head());
}

TEST_CASE("An optimizer steps every tensor of MlpCombiner", "[combiner]") {
  CHECK(a_step_moves_all(reward_head()));
}
