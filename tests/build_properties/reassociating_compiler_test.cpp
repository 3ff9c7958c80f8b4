// SPDX-License-Identifier: MIT
// Built with flags that let clang reassociate sums, which no macro shows: probabilities must be right all the same.
#include "mole/gating/score/softmax.hpp"
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
  return error < 1e-6 ? 0 : 1;
}
