// SPDX-License-Identifier: MIT
// lora(): LoRA, one low-rank update that is the same for every token.
#pragma once

#include "mole/gating/score/identity.hpp"
#include "mole/gating/select/all.hpp"
#include "mole/gating/weigh/unit.hpp"
#include "mole/method/lora_mixture.hpp"
#include "mole/router/no_router.hpp"

#include "mole/core/macros_off.hpp"

namespace mole {

/// Hu et al. 2021 (LoRA), arXiv:2106.09685; Kalajdzievski 2023 (rsLoRA), arXiv:2312.03732.
struct LoraOptions {
  Index rank = 8;
  double alpha = 8;
  Scaling scaling = Scaling::alpha_over_rank;  ///< alpha_over_sqrt_rank: rsLoRA
  double dropout = 0;                          ///< on the adapter's input
};

/// y = W x + b + s B A x.
template <BasePolicy Base, class Generator, class Execution = DefaultExecution>
auto lora(const LoraOptions& options, Base base, Generator& generator, Execution execution = {}) {
  using T = typename Base::Scalar;
  return lora_mixture(options, NoRouter<T>(1), Gate{Identity{}, All{}, Unit{}}, std::move(base), generator,
                      std::move(execution));
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
