// SPDX-License-Identifier: MIT
// expert_choice(): LoRA experts that choose their tokens.
#pragma once

#include "mole/gating/score/softmax.hpp"
#include "mole/gating/select/expert_choice.hpp"
#include "mole/gating/weigh/raw.hpp"
#include "mole/method/lora_mixture.hpp"

#include "mole/core/macros_off.hpp"

namespace mole {

/// Zhou et al. 2022, arXiv:2202.09368; its experts are feed-forward networks, here LoRA pairs. All experts have the
/// same load, so that there is no loss. What a token gets depends on tokens after it: not for models that generate.
struct ExpertChoiceOptions {
  Index experts = 8;
  Index rank = 8;
  double factor = 2;  ///< mean number of experts per token
  bool per_sequence = false;
  double alpha = 16;
  Scaling scaling = Scaling::alpha_over_rank;
  double dropout = 0.05;  ///< on the adapters' input; the router sees x without dropout
};

/// y = W x + b + sum of p_e s B_e A_e x over the experts for which x is among the T factor / E tokens of the largest
/// p_e,  p = softmax(R x).
template <BasePolicy Base, class Generator, class Execution = DefaultExecution>
auto expert_choice(const ExpertChoiceOptions& options, Base base, Generator& generator, Execution execution = {}) {
  const ExpertChoice select{.factor = options.factor, .per_sequence = options.per_sequence};
  return lora_mixture(options, Gate{Softmax{}, select, Raw{}}, std::move(base), generator, std::move(execution));
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
