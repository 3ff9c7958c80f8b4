// SPDX-License-Identifier: MIT
// Next-token logits of a strong pass, contrasted with those of a weak one.
#include <mole/adapt/self_contrast.hpp>

#include <array>
#include <cstdio>

int main() {
  const std::array<float, 4> strong{2.0f, 1.9f, 0.5f, -3.0f};  // routed as the model was trained
  const std::array<float, 4> weak{1.8f, 0.2f, 0.4f, -1.0f};    // routed by Gate{Softmax{}, NthBest{}, Renormalized{}}
  std::array<float, 4> contrasted;
  mole::self_contrast(strong, weak, std::span<float>(contrasted), {.alpha = 0.1, .beta = 0.5});
  for (float logit : contrasted) std::printf("%.2f ", double(logit));
  std::printf("\n");
}
