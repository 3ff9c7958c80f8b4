// SPDX-License-Identifier: MIT
#include "mole/surgery/fold_gate.hpp"

#include "mole/surgery/merge.hpp"
#include "mole/surgery/prune_zero_ranks.hpp"
#include "support/catch.hpp"
#include "surgery/gated_layers.hpp"

using namespace mole;
using namespace mole::test;

TEMPLATE_TEST_CASE("A folded gate leaves a plain LoRA with the same output and the same update", "[surgery]", Reference,
                   Simd<>) {
  const auto weight = support::random_matrix<double>(13, 11, 6), x = support::random_matrix<double>(9, 11, 8);
  auto layer = gated_lora(weight, 6, TestType{});
  auto& gate = layer.experts().parameters().gate;
  gate(0, 0) = gate(0, 4) = 0;
  for (bool prune : {false, true}) {
    const LowRank<DenseFactors<double>> folded =
        prune ? fold_gate(prune_zero_ranks(layer.experts())) : fold_gate(layer.experts());
    const Index ranks = prune ? 4 : 6;
    CHECK(folded.blocks().ranks_up() == ranks);
    CHECK(folded.scale()[0] == layer.experts().scale()[0]);
    const MixtureLinear plain(layer.router(), layer.gating(), folded, layer.base(), TestType{});
    CHECK(support::largest_difference(output_of(plain, x), output_of(layer, x)) < 1e-13);
    Matrix<double> update(13, 11), expected(13, 11);
    merge_into(plain, update);
    merge_into(layer, expected);
    CHECK(support::largest_difference(update, expected) < 1e-13);
  }
}

TEST_CASE("Gates of experts that share A are folded, each into its own B", "[surgery]") {
  Rng rng(2);
  LowRank<GatedRanks<double>> experts({.in = 3, .out = 5, .experts = 2, .rank = 2, .shared_down = true}, rng);
  fill_uniform(experts.parameters().lora_B.view(), 1, rng);
  const auto folded = fold_gate(experts);
  CHECK(folded.blocks().shared_down());
  for (Index j = 0; j < 4; ++j)
    for (Index o = 0; o < 5; ++o)
      CHECK(folded.parameters().lora_B(j, o) == experts.parameters().gate(0, j) * experts.parameters().lora_B(j, o));
}
