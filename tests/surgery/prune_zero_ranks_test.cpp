// SPDX-License-Identifier: MIT
#include "mole/surgery/prune_zero_ranks.hpp"

#include "core/error_code.hpp"
#include "mole/execution/through_eigen.hpp"
#include "mole/surgery/merge.hpp"
#include "support/catch.hpp"
#include "surgery/gated_layers.hpp"

using namespace mole;
using namespace mole::test;

namespace {

LowRank<GatedRanks<double>> gated_experts(const std::vector<int>& ranks, bool shared_down = false) {
  Rng rng(2);
  LowRank<GatedRanks<double>> experts({.in = 11,
                                       .out = 13,
                                       .experts = Index(ranks.size()),
                                       .ranks = ranks,
                                       .alpha = 16,
                                       .dropout = {.rate = 0.25, .stream = 3},
                                       .shared_down = shared_down},
                                      rng);
  fill_uniform(experts.parameters().lora_B.view(), 1, rng);
  return experts;
}

template <class Execution>
auto routed(const LowRank<GatedRanks<double>>& experts, Execution execution) {
  Rng rng(4);
  return MixtureLinear(LinearRouter<double>({.in = 11, .experts = experts.experts()}, rng),
                       Gate{Softmax{}, TopK{.k = 2}, Renormalized{}}, experts,
                       DenseBase(support::random_matrix<double>(13, 11, 6)), execution);
}

template <class Layer>
Matrix<double> trained_output(const Layer& layer, const Matrix<double>& x) {
  auto work = layer.workspace(x.rows());
  Matrix<double> y(x.rows(), layer.out());
  layer.forward(x, y, work, {.training = true, .seed = 7});
  return y;
}

}  // namespace

TEMPLATE_TEST_CASE("Without the ranks of gate 0 the experts do the same, trained or not", "[surgery]", Reference,
                   Simd<>, ThroughEigen) {
  auto experts = gated_experts({3, 5, 1, 4});
  for (Index j : {1, 2, 8, 9, 12}) experts.parameters().gate(0, j) = 0;  // of experts 0 (two), 2 (its only), 3 (two)
  const auto pruned = prune_zero_ranks(experts);
  CHECK(pruned.blocks().size(0) == 1);
  CHECK(pruned.blocks().size(1) == 5);
  CHECK(pruned.blocks().size(2) == 0);
  CHECK(pruned.blocks().size(3) == 2);
  CHECK(pruned.parameters().gate.size() == 8);  // the number of gates that are not 0
  CHECK(std::equal(pruned.scale().begin(), pruned.scale().end(), experts.scale().begin()));
  const auto x = support::random_matrix<double>(9, 11, 8);
  const auto before = routed(experts, TestType{}), after = routed(pruned, TestType{});
  CHECK(support::largest_difference(output_of(before, x), output_of(after, x)) < 1e-13);
  CHECK(support::largest_difference(trained_output(before, x), trained_output(after, x)) < 1e-13);
  CHECK(support::largest_difference(trained_output(before, x), output_of(before, x)) > 1e-3);
}

TEMPLATE_TEST_CASE("Experts of which every gate is 0 are left without ranks, and train on", "[surgery]", Reference,
                   Simd<>, ThroughEigen) {
  const auto weight = support::random_matrix<double>(13, 11, 6), x = support::random_matrix<double>(9, 11, 8);
  auto layer = gated_lora(weight, 4, TestType{});
  fill(layer.experts().parameters().gate.view(), 0);
  MixtureLinear pruned(layer.router(), layer.gating(), prune_zero_ranks(layer.experts()), layer.base(), TestType{});
  CHECK(pruned.experts().blocks().max_size() == 0);
  Matrix<double> y(9, 13), d_x(9, 11), expected(9, 13), expected_d_x(9, 11);
  auto work = pruned.workspace(9);
  auto gradients = pruned.gradients();
  pruned.forward(x, y, work);
  pruned.backward(x, y, d_x, gradients, work);
  TestType{}.product_nt(View<const double>(x), View<const double>(weight), expected.view());
  TestType{}.product_nn(View<const double>(y), View<const double>(weight), expected_d_x.view());
  CHECK(support::largest_difference(y, expected) < 1e-14);
  CHECK(support::largest_difference(d_x, expected_d_x) < 1e-13);
  Matrix<double> merged = weight;
  merge_into(pruned, merged);
  CHECK(support::same_bits(merged, weight));
}

TEST_CASE("What is left of pruned experts starts its gates as before", "[surgery]") {
  Rng rng(2);
  for (GateStart start : {GateStart::normal, GateStart::ones}) {
    LowRank<GatedRanks<double>> experts({.in = 11, .out = 13, .experts = 2, .rank = 3, .start = start}, rng);
    experts.parameters().gate(0, 1) = 0;
    const auto pruned = prune_zero_ranks(experts);
    CHECK(pruned.parameters().gate.size() == 5);
    CHECK(pruned.factors().start() == start);
  }
}

TEST_CASE("Without a gate of 0 nothing changes, and a shared down-projection is refused", "[surgery]") {
  const auto experts = gated_experts({3, 2});
  const auto pruned = prune_zero_ranks(experts);
  CHECK(support::same_bits(pruned.parameters().lora_A, experts.parameters().lora_A));
  CHECK(support::same_bits(pruned.parameters().lora_B, experts.parameters().lora_B));
  CHECK(support::same_bits(pruned.parameters().gate, experts.parameters().gate));
  CHECK(code_of([] { prune_zero_ranks(gated_experts({3, 3}, true)); }) == ErrorCode::option);
  CHECK(prune_zero_ranks(gated_experts({3}, true)).blocks().ranks_up() == 3);
}
