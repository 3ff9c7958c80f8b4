// SPDX-License-Identifier: MIT
// promoe(): ProMoE, LoRA experts by prototypes, and one for tokens without a condition.
#pragma once

#include "mole/core/error.hpp"
#include "mole/gating/score/identity.hpp"
#include "mole/gating/score/masked.hpp"
#include "mole/gating/select/top_k.hpp"
#include "mole/gating/weigh/raw_unless_forced.hpp"
#include "mole/method/lora_mixture.hpp"
#include "mole/router/cosine_router.hpp"
#include "mole/router/joined_router.hpp"
#include "mole/router/no_router.hpp"

#include <cstdint>
#include <vector>

#include "mole/core/macros_off.hpp"

namespace mole {

/// ProMoE, of diffusion transformers; released as ali-vilab/ProMoE (models_ProMoE_TC.py). Its experts are feed-forward
/// networks, here LoRA pairs.
///
/// Experts are, in this order, those with a prototype, the unconditional one, and the shared ones. Scores do not choose
/// the unconditional one: the caller sends it the tokens of samples without a condition, by
/// Pass::forced = experts - shared - 1. Gates are the cosines themselves, as in all released configurations, and may be
/// negative.
/// Its loss: routing_contrastive with first_choice, coefficient 1, temperature 0.07.
struct PromoeOptions {
  Index experts = 14;  ///< including the unconditional one and the shared ones
  Index shared = 1;
  Index rank = 8;
  Index k = 1;
  double alpha = 16;
  Scaling scaling = Scaling::alpha_over_rank;
  double dropout = 0;  ///< on the adapters' input; the router sees x without dropout
};

/// y = W x + b + sum over the k largest cos(x, c_e) of cos(x, c_e) s B_e A_e x + sum over the shared of s B_e A_e x;
/// for a token without a condition, the unconditional expert with gate 1 takes the place of the first sum.
template <BasePolicy Base, class Generator, class Execution = DefaultExecution>
auto promoe(const PromoeOptions& options, Base base, Generator& generator, Execution execution = {}) {
  using T = typename Base::Scalar;
  const Index prototypes = options.experts - options.shared - 1;
  require(options.shared >= 0 && prototypes >= 1, ErrorCode::option,
          "promoe: expected an expert with a prototype besides the unconditional one and ", options.shared,
          " shared ones, found ", options.experts, " experts in all");
  JoinedRouter router(CosineRouter<T>({.in = base.in(), .experts = prototypes}, generator), NoRouter<T>(1));
  std::vector<std::uint8_t> allowed(std::size_t(prototypes), 1);
  allowed.push_back(0);
  const Gate gate{Masked{Identity{}, allowed}, TopK{.k = options.k}, RawUnlessForced{}, options.shared};
  return lora_mixture(options, std::move(router), gate, std::move(base), generator, std::move(execution));
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
