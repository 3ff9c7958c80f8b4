// SPDX-License-Identifier: MIT
// The preset is the composition that it says; what it computes is pinned by the golden test.
#include "mole/method/smora.hpp"

#include "method/method_checks.hpp"
#include "mole/method/lora.hpp"
#include "mole/surgery/merge.hpp"
#include "support/catch.hpp"

using namespace mole;
using namespace method_checks;

namespace {

const SmoraOptions options{.rank = 12, .k = 5, .alpha = 10};

/// y of a plain LoRA with the ranks of `layer`.
template <class Layer>
Matrix<double> plain_output(const Layer& layer, const Matrix<double>& x, double alpha) {
  Rng rng(1);
  auto lora_layer = lora({.rank = 12, .alpha = alpha}, DenseBase{weight, bias}, rng, layer.execution());
  lora_layer.experts().parameters() = layer.experts().parameters();
  Matrix<double> y(x.rows(), 13);
  auto work = lora_layer.workspace(x.rows());
  lora_layer.forward(x, y, work);
  return y;
}

}  // namespace

TEST_CASE("smora's weights sum to k, whatever the bias", "[method]") {
  Rng rng(1);
  auto layer = smora(options, DenseBase{weight, bias}, rng);
  CHECK(layer.experts().experts() == 12);
  CHECK(layer.experts().scale()[0] == 2);
  CHECK(gradient_error(layer) < 1e-7);
  const auto x = support::random_matrix<double>(9, 11, 3);
  auto work = layer.workspace(9), shifted = layer.workspace(9);
  layer.route(x, work);
  for (double& one : layer.gating().score.bias) one += 0.25;
  layer.route(x, shifted);
  for (Index n = 0; n < 9; ++n) {
    double sum = 0;
    for (double w : shifted.routing.gates_of(n)) sum += w;
    CHECK(std::abs(sum - 5) < 1e-12);
    // The same added to all keeps the choice, and moves the weights towards each other.
    CHECK(std::equal(work.routing.experts_of(n).begin(), work.routing.experts_of(n).end(),
                     shifted.routing.experts_of(n).begin()));
    CHECK(shifted.routing.gates_of(n)[0] < work.routing.gates_of(n)[0]);
  }
}

TEMPLATE_TEST_CASE("smora with all ranks and a router of zeros is plain LoRA to the bit", "[method]", Reference,
                   Simd<>) {
  Rng rng(1);
  auto layer =
      support::with_random_b(smora({.rank = 12, .k = 12, .alpha = 10}, DenseBase{weight, bias}, rng, TestType{}));
  layer.router().parameters().weight.set_zero();
  for (Index tokens : {1, 9, 70}) {
    const auto x = support::random_matrix<double>(tokens, 11, 3);
    Matrix<double> y(tokens, 13);
    auto work = layer.workspace(tokens);
    layer.forward(x, y, work);
    for (double w : work.routing.gates()) CHECK(w == 1);
    CHECK(support::same_bits(y, plain_output(layer, x, 10)));
  }
}

TEST_CASE("smora's partitions share a row of the router", "[method]") {
  Rng rng(1);
  auto layer = smora({.rank = 12, .k = 4, .rank_partition = 2}, DenseBase{weight, bias}, rng);
  CHECK(layer.router().parameters().weight.rows() == 6);
  CHECK(gradient_error(layer) < 1e-7);
  auto work = layer.workspace(7);
  layer.route(support::random_matrix<double>(7, 11, 3), work);
  for (Index n = 0; n < 7; ++n)
    for (Index e = 0; e < 12; e += 2) CHECK(work.scores()(n, e) == work.scores()(n, e + 1));
  CHECK_THROWS_AS(smora({.rank = 12, .rank_partition = 5}, DenseBase{weight}, rng), Error);
}

TEST_CASE("smora cannot be merged, and says why", "[method]") {
  Rng rng(1);
  const auto layer = smora(options, DenseBase{weight}, rng);
  CHECK_FALSE(merge_obstacle(layer).empty());
}

TEST_CASE("A step of balance lifts smora's unused ranks by the rate and lowers the overused ones by it", "[method]") {
  Rng rng(1);
  auto layer = smora({.rank = 12, .k = 3}, DenseBase{weight}, rng);
  auto& bias_of_rank = layer.gating().score.bias;
  for (std::size_t e : {2u, 5u, 7u}) bias_of_rank[e] = 10;  // every token goes there
  const std::vector<double> before = bias_of_rank;
  SignBiasBalancer balancer({.experts = 12, .rate = 0.5});
  auto work = layer.workspace(9);
  layer.route(support::random_matrix<double>(9, 11, 3), work, {.training = true});
  balancer.observe(work);
  balancer.update(bias_of_rank);
  for (std::size_t e = 0; e < 12; ++e) CHECK(bias_of_rank[e] - before[e] == (e == 2 || e == 5 || e == 7 ? -0.5 : 0.5));
}
