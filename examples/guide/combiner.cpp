// SPDX-License-Identifier: MIT
// A reward from the features of three frozen experts, trained to rank answers as people did.
#include <mole/mole.hpp>

#include <cstdio>
#include <vector>

int main() {
  mole::Rng rng(1);
  constexpr mole::Index answers = 6, experts = 3, features = 8;
  mole::Matrix<float> hidden(answers, experts * features), rewards(answers, 1), d_rewards(answers, 1);
  fill_uniform(hidden.view(), 1, rng);
  const std::vector<int> ranks{0, 1, 2, 3, 4, 5};  // the first answer is the best

  mole::MlpCombiner<float> combiner({.experts = experts, .features = features}, rng);
  mole::OwnedScratch scratch(combiner, mole::CallSize{.tokens = answers});
  const mole::Simd<> execution;
  const mole::Pass pass;
  mole::Call call{execution, pass, *scratch};
  auto gradients = combiner.gradients();
  mole::AdamW adamw({.learning_rate = 1e-2, .weight_decay = 0});

  for (int step = 0; step <= 40; ++step) {
    combiner.forward(hidden, rewards.view(), call);
    set_zero(gradients);
    fill(d_rewards.view(), 0);
    const double loss = mole::bradley_terry<float>(rewards.elements(), ranks, d_rewards.elements());
    combiner.backward(hidden, d_rewards, {}, gradients, call);  // no d_x: the experts are frozen
    adamw.step(combiner, gradients);
    if (step % 20 == 0) std::printf("step %2d  loss %.3f\n", step, loss);
  }
}
