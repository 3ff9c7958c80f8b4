// SPDX-License-Identifier: MIT
#include "mole/surgery/merge_and_reset.hpp"

#include "core/error_code.hpp"
#include "mole/surgery/merge.hpp"
#include "support/catch.hpp"
#include "support/layers.hpp"
#include "surgery/gated_layers.hpp"

using namespace mole;
using namespace mole::test;

TEMPLATE_TEST_CASE("What a task learned joins the weight, and the layer's function is what it was", "[surgery]",
                   Reference, Simd<>) {
  Matrix<double> weight = support::random_matrix<double>(13, 11, 6);
  const Matrix<double> original = weight;
  const auto x = support::random_matrix<double>(9, 11, 8);
  auto layer = gated_lora(weight, 5, TestType{});
  layer.experts().parameters().gate(0, 2) = 0;
  Rng rng(9);
  for (int task = 0; task < 3; ++task) {
    const auto before = output_of(layer, x);
    const auto old_a = layer.experts().parameters().lora_A, old_gate = layer.experts().parameters().gate;
    merge_and_reset(layer, weight.view(), rng);
    const auto& p = layer.experts().parameters();
    CHECK(support::largest_difference(output_of(layer, x), before) < 1e-12);
    CHECK(support::same_bits(p.lora_B, Matrix<double>(5, 13)));
    CHECK_FALSE(support::same_bits(p.lora_A, old_a));
    CHECK_FALSE(support::same_bits(p.gate, old_gate));
    for (double g : p.gate.elements()) CHECK(g != 0);
    fill_uniform(layer.experts().parameters().lora_B.view(), 1, rng);  // the next task learns
  }
  CHECK(support::largest_difference(weight, original) > 0.1);
}

TEST_CASE("Experts that add something when they are fresh leave the layer's function as it was, too", "[surgery]") {
  const auto x = support::random_matrix<double>(9, 12, 8);
  Rng rng(9);
  const auto kept = [&](auto experts) {
    MixtureLinear layer(NoRouter<double>(1), Gate{Identity{}, All{}, Unit{}}, std::move(experts),
                        DenseBase(support::random_matrix<double>(8, 12, 6)), Reference{});
    layer = support::with_random_b(std::move(layer));
    const auto before = output_of(layer, x);
    const Matrix<double> weight = layer.base().parameters().weight;
    merge_and_reset(layer, layer.base().parameters().weight.view(), rng);
    CHECK(support::largest_difference(output_of(layer, x), before) < 1e-11);
    CHECK(support::largest_difference(layer.base().parameters().weight, weight) > 0.1);
    Matrix<double> fresh(8, 12);
    layer.experts().add_delta(0, 1, fresh.view());
    CHECK(support::largest_difference(fresh, Matrix<double>(8, 12)) > 1e-3);  // else there is nothing to test
  };
  const auto bank =
      std::make_shared<VectorBank<double>>(VectorBank<double>::Options{.vectors = 5, .length = 4, .bound = 1}, rng);
  kept(LowRank<BankMixture<double>>({.in = 12, .out = 8, .rank = 2, .bank = bank}, rng));
  kept(LowRank<RandomBasis<double>>({.in = 12, .out = 8, .rank = 2, .bases = 3, .variant = NolaVariant::vit}, rng));
}

TEST_CASE("A weight that the base owns is merged into, too", "[surgery]") {
  Rng rng(9);
  MixtureLinear layer(NoRouter<double>(1), Gate{Identity{}, All{}, Unit{}},
                      LowRank<DenseFactors<double>>({.in = 11, .out = 13}, rng),
                      DenseBase(support::random_matrix<double>(13, 11, 6)), Reference{});
  layer = support::with_random_b(std::move(layer));
  const auto x = support::random_matrix<double>(9, 11, 8);
  const auto before = output_of(layer, x);
  merge_and_reset(layer, layer.base().parameters().weight.view(), rng);
  CHECK(support::largest_difference(output_of(layer, x), before) < 1e-12);
  CHECK(support::same_bits(layer.experts().parameters().lora_B, Matrix<double>(8, 13)));
}

TEST_CASE("A weight that the base does not compute from is refused, and nothing changes", "[surgery]") {
  Rng rng(9);
  const Matrix<double> weight = support::random_matrix<double>(13, 11, 6);
  const auto refused = [&](auto layer) {
    Matrix<double> other = weight;
    const auto before = layer.experts().parameters();
    CHECK(code_of([&] { merge_and_reset(layer, other.view(), rng); }) == ErrorCode::not_mergeable);
    CHECK(support::same_bits(other, weight));
    CHECK(support::same_bits(layer.experts().parameters().lora_A, before.lora_A));
    CHECK(support::same_bits(layer.experts().parameters().lora_B, before.lora_B));
  };
  const LowRank<DenseFactors<double>> experts({.in = 11, .out = 13}, rng);
  const Gate gate{Identity{}, All{}, Unit{}};
  refused(support::with_random_b(MixtureLinear(NoRouter<double>(1), gate, experts, DenseBase(weight.view()))));
  refused(support::with_random_b(MixtureLinear(NoRouter<double>(1), gate, experts, DenseBase(Matrix<double>(weight)))));
  refused(support::with_random_b(MixtureLinear(NoRouter<double>(1), gate, experts, PackedBase(weight))));
}

TEST_CASE("A layer that cannot be merged is not reset either", "[surgery]") {
  Rng rng(9);
  auto layer = support::routed_layer<double>({}, support::top_2());
  const auto before = layer.experts().parameters();
  Matrix<double> weight = support::random_matrix<double>(13, 11, 6), wrong(13, 12);
  const Matrix<double> original = weight;
  CHECK(code_of([&] { merge_and_reset(layer, weight.view(), rng); }) == ErrorCode::not_mergeable);
  CHECK(text_of([&] { merge_and_reset(layer, weight.view(), rng); }).find(merge_obstacle(layer)) != std::string::npos);
  auto mergeable = gated_lora(weight, 5);
  CHECK(code_of([&] { merge_and_reset(mergeable, wrong.view(), rng); }) == ErrorCode::shape);
  CHECK(support::same_bits(weight, original));
  CHECK(support::same_bits(layer.experts().parameters().lora_A, before.lora_A));
  CHECK(support::same_bits(layer.experts().parameters().lora_B, before.lora_B));
}
