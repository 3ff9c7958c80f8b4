// SPDX-License-Identifier: MIT
// deepseek_v3(): DeepSeek-V3's gate over LoRA experts, with groups and a bias that balances without a loss.
#pragma once

#include "mole/gating/score/sigmoid.hpp"
#include "mole/gating/select/grouped_top_k.hpp"
#include "mole/gating/weigh/renormalized.hpp"
#include "mole/method/lora_mixture.hpp"

#include "mole/core/macros_off.hpp"

namespace mole {

/// DeepSeek-AI 2024 (DeepSeek-V3), arXiv:2412.19437, 2.1.2; released as deepseek-ai/DeepSeek-V3 (inference). The bias
/// starts at 0 and is moved between steps, by 1e-3 times the sign of the missing load; the release has it only in its
/// largest model. 32 routed experts, of which 4 serve, are an eighth of the release's 256, of which 8 do, as a layer
/// has one pair for each; groups and route_scale are the release's. The value of a group is the sum of its two best experts with a bias, its best expert without one.
struct DeepseekV3Options {
  Index experts = 33;  ///< including the shared ones
  Index shared = 1;
  Index rank = 4;
  Index k = 4;
  Index groups = 8;
  Index kept_groups = 4;
  double route_scale = 2.5;
  double alpha = 8;
  Scaling scaling = Scaling::alpha_over_rank;
  double dropout = 0;  ///< on the adapters' input; the router sees x without dropout
};

/// y = W x + b + sum over the chosen of route_scale p_e / (their sum) s B_e A_e x + sum over the shared of s B_e A_e x,
///     p = sigmoid(R x), chosen by p + bias among the best groups.
template <BasePolicy Base, class Generator, class Execution = DefaultExecution>
auto deepseek_v3(const DeepseekV3Options& options, Base base, Generator& generator, Execution execution = {}) {
  using T = typename Base::Scalar;
  return lora_mixture(
      options,
      Gate{Sigmoid{},
           GroupedTopK<T>(options.k, options.groups, options.kept_groups,
                          std::vector<T>(std::size_t(std::max<Index>(0, options.experts - options.shared)))),
           Renormalized{options.route_scale}, options.shared},
      std::move(base), generator, std::move(execution));
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
