// SPDX-License-Identifier: MIT
// A LoRA joins its weight, and leaves it again to the bit; the experts of a mixture become one LoRA, in two ways.
#include <mole/mole.hpp>

#include <cstdio>

int main() {
  mole::Rng rng(1);
  mole::Matrix<float> weights(6, 5), x(3, 5), y(3, 6), merged_y(3, 6);
  for (auto* matrix : {&weights, &x}) fill_uniform(matrix->view(), 1, rng);
  auto layer = mole::lora({.rank = 2}, mole::DenseBase{weights}, rng);
  fill_uniform(layer.experts().parameters().lora_B.view(), 1, rng);  // as if it had been trained
  auto work = layer.workspace(3);
  layer.forward(x, y, work);

  const mole::Matrix<float> original = weights;
  mole::MergedWeight merged(weights.view());
  merged.merge(layer);
  mole::Simd<>{}.product_nt(x, weights, merged_y.view());  // the host's own linear layer now does what `layer` did
  merged.unmerge();

  const auto mixture = mole::mola({.experts = 4, .k = 2}, mole::DenseBase{weights}, rng);
  std::printf("merged: %.4f for %.4f; restored: %s\n", merged_y(0, 0), y(0, 0),
              std::ranges::equal(original.elements(), weights.elements()) ? "every bit" : "not");
  std::printf("a mixture cannot be merged: %s\n", merge_obstacle(mixture).c_str());

  auto trained = mixture;
  fill_uniform(trained.experts().parameters().lora_B.view(), 1, rng);
  auto routed = trained.workspace(3);
  trained.route(x, routed);

  const auto experts = adapters_of(trained.experts());
  const std::vector<mole::WeightedAdapter<float>> all(experts.begin(), experts.end());
  const auto ties = merge_updates(
      all, {.rank = 2,
            .combination = {.pruning = mole::Pruning::magnitude, .density = 0.5, .signs = mole::SignElection::total}});
  mole::RoutingStats stats(trained.experts().experts());
  stats.observe(routed);
  const auto distilled = distill_mixture(trained, stats, {.rank = 2});
  std::printf("one LoRA of rank 2: %.0f %% away from the sum by TIES, %.0f %% from the mean mixture distilled\n",
              100 * ties.error, 100 * distilled.error);
}
