// SPDX-License-Identifier: MIT
// Built with flags that let clang reassociate sums and products, which no macro shows: probabilities and capacities must
// be right all the same.
#include "mole/gating/score/softmax.hpp"
#include "mole/gating/select/expert_capacity.hpp"
#include "mole/gating/select/top_k.hpp"
#include "mole/kernel/vector_loops.hpp"

#include <cmath>
#include <cstdio>
#include <vector>

int main() {
  const std::vector<float> logits{0.176f, 0.182f, 0.104f, 0.344f, -3.0f, 2.0f, 0.5f, 0.0f, 1.0f};
  std::vector<float> scores(logits.size());
  mole::Softmax{}.forward(std::span<const float>(logits), std::span<float>(scores),
                          mole::kernel::VectorLoops<mole::kernel::DefaultArchitecture>{});
  double sum = 0, error = 0;
  for (float logit : logits) sum += std::exp(double(logit));
  for (std::size_t e = 0; e < logits.size(); ++e)
    error = std::fmax(error, std::fabs(double(scores[e]) - std::exp(double(logits[e])) / sum));
  std::printf("largest error of a probability: %.2g\n", error);
  // 100 / 10 * 1.1 = 11; with 1.1 / 10 first, a little more, and so 12.
  volatile double factor = 1.1;
  volatile mole::Index tokens = 100, experts = 10;
  const mole::ExpertCapacity select{mole::TopK{1}, {.factor = factor}};
  const mole::Index capacity = select.capacity(tokens, tokens, experts);
  std::printf("capacity of 100 tokens, 10 experts, factor 1.1: %td\n", capacity);
  return error < 1e-6 && capacity == 11 ? 0 : 1;
}
