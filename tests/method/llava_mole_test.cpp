// SPDX-License-Identifier: MIT
// The preset is the composition that it says; what it computes is pinned by the golden test.
#include "mole/method/llava_mole.hpp"

#include "method/method_checks.hpp"
#include "support/catch.hpp"

using namespace mole;
using namespace method_checks;

TEST_CASE("llava_mole adds one whole expert, whatever the size of the logits", "[method]") {
  Rng rng(1);
  auto layer = support::with_random_b(llava_mole({.rank = 4}, DenseBase{weight}, rng));
  const auto x = support::random_matrix<double>(9, 11, 3);
  Matrix<double> y(9, 13), larger(9, 13);
  auto work = layer.workspace(9);
  layer.forward(x, y, work);
  CHECK(work.routing.pairs() == 9);
  for (double w : work.routing.gates()) CHECK(w == 1);
  for (double& w : layer.router().parameters().weight.elements()) w *= 3;
  for (double& b : layer.router().parameters().bias.elements()) b *= 3;
  layer.forward(x, larger, work);
  CHECK(support::same_bits(y, larger));
}

TEST_CASE("llava_mole is the base and the LoRA of the most probable expert", "[method]") {
  Rng rng(1);
  auto layer = support::with_random_b(llava_mole({.rank = 4}, DenseBase{weight, bias}, rng));
  const auto x = support::random_matrix<double>(9, 11, 3);
  auto work = layer.workspace(9);
  Matrix<double> y(9, 13);
  layer.forward(x, y, work);
  for (Index n = 0; n < 9; ++n) {
    const auto logits = work.logits().row(n);
    const auto best = Index(std::max_element(logits.begin(), logits.end()) - logits.begin());
    Matrix<double> merged = weight;
    layer.experts().add_delta(best, 1, merged.view());
    for (Index o = 0; o < 13; ++o) {
      double expected = bias(0, o);
      for (Index i = 0; i < 11; ++i) expected += merged(o, i) * x(n, i);
      CHECK(std::abs(y(n, o) - expected) < 1e-13);
    }
  }
}

TEST_CASE("No gradient of llava_mole's task reaches its router, unless straight through", "[method]") {
  Rng rng(1);
  const auto layer = support::with_random_b(llava_mole({.rank = 4}, DenseBase{weight}, rng));
  const MixtureLinear straight(layer.router(), Gate{Softmax{}, TopK{1}, StraightThrough{}}, layer.experts(),
                               layer.base());
  const auto x = support::random_matrix<double>(9, 11, 3), d_y = support::random_matrix<double>(9, 13, 4);
  const auto largest_gradient_of_router = [&](const auto& trained) {
    Matrix<double> y(9, 13);
    auto work = trained.workspace(9);
    auto gradients = trained.gradients();
    trained.forward(x, y, work);
    trained.backward(x, d_y, {}, gradients, work);
    return support::largest_difference(gradients.router.weight, Matrix<double>(3, 11));
  };
  CHECK(largest_gradient_of_router(layer) == 0);
  CHECK(largest_gradient_of_router(straight) > 0.01);
}
