// SPDX-License-Identifier: MIT
// Backward where some of a layer does not learn, or cannot.
#include "mole/layer/mixture_linear.hpp"

#include "core/error_code.hpp"
#include "support/catch.hpp"
#include "support/layers.hpp"

using namespace mole;
using support::random_matrix;
using support::same_bits;
using test::code_of;

TEST_CASE("Frozen parts cost no gradient and change no other", "[layer]") {
  auto layer = support::routed_layer<double>({}, support::top_2());
  const auto x = random_matrix<double>(7, 11, 8), d_y = random_matrix<double>(7, 13, 9);
  const auto gradients_of = [&](TrainableParts trainable) {
    Matrix<double> y(7, 13), d_x(7, 11);
    auto work = layer.workspace(7);
    auto gradients = layer.gradients(trainable);
    layer.forward(x, y, work);
    layer.backward(x, d_y, d_x, gradients, work);
    return std::pair{gradients, d_x};
  };
  const auto [all, d_x] = gradients_of({.router = true, .experts = true, .base = true});
  for (int frozen = 0; frozen < 8; ++frozen) {
    const TrainableParts trainable{
        .router = (frozen & 1) == 0, .experts = (frozen & 2) == 0, .base = (frozen & 4) == 0};
    const auto [some, d_x_some] = gradients_of(trainable);
    CHECK(same_bits(d_x, d_x_some));
    CHECK(same_bits(some.router.weight, trainable.router ? all.router.weight : Matrix<double>{}));
    CHECK(same_bits(some.experts.lora_A, trainable.experts ? all.experts.lora_A : Matrix<double>{}));
    CHECK(same_bits(some.experts.lora_B, trainable.experts ? all.experts.lora_B : Matrix<double>{}));
    CHECK(same_bits(some.base.weight, trainable.base ? all.base.weight : Matrix<double>{}));
  }
}

TEST_CASE("A single tensor can be frozen by emptying its gradient", "[layer]") {
  auto layer = support::routed_layer<double>({}, support::top_2());
  const auto x = random_matrix<double>(7, 11, 8), d_y = random_matrix<double>(7, 13, 9);
  Matrix<double> y(7, 13);
  auto work = layer.workspace(7);
  auto gradients = layer.gradients();
  gradients.experts.lora_A = {};
  layer.forward(x, y, work);
  layer.backward(x, d_y, View<double>{}, gradients, work);
  CHECK(gradients.experts.lora_A.empty());
  CHECK(any_wanted(gradients.experts));
  CHECK_FALSE(same_bits(gradients.experts.lora_B, Matrix<double>(12, 13)));
}

TEST_CASE("A base without backward trains experts, as long as nobody asks for d_x", "[layer]") {
  Rng rng(5);
  const auto negated = [](View<const double> x, View<double> y) {
    for (Index n = 0; n < y.rows(); ++n)
      for (Index o = 0; o < y.cols(); ++o) y(n, o) = -x(n, 0);
  };
  const auto layer = support::with_random_b(MixtureLinear(
      LinearRouter<double>({.in = 11, .experts = 4}, rng), support::top_2(),
      LowRank<DenseFactors<double>>({.in = 11, .out = 13, .experts = 4}, rng), callable_base<double>(11, 13, negated)));
  const auto x = random_matrix<double>(7, 11, 8), d_y = random_matrix<double>(7, 13, 9);
  Matrix<double> y(7, 13), d_x(7, 11);
  auto work = layer.workspace(7);
  auto gradients = layer.gradients();
  layer.forward(x, y, work);
  CHECK(code_of([&] { layer.backward(x, d_y, d_x, gradients, work); }) == ErrorCode::not_trainable);
  CHECK(same_bits(gradients.experts.lora_B, Matrix<double>(32, 13)));  // refused before anything is added
  layer.backward(x, d_y, View<double>{}, gradients, work);
  CHECK_FALSE(same_bits(gradients.experts.lora_B, Matrix<double>(32, 13)));
}
