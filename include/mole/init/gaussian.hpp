// SPDX-License-Identifier: MIT
// gaussian_init(): A from a normal distribution, B of zeros.
#pragma once

#include "mole/core/random.hpp"
#include "mole/init/lora_experts.hpp"

#include "mole/core/macros_off.hpp"

namespace mole {

/// A ~ N(0, 1/r^2) for an expert of r ranks, B = 0: the layer's output equals its base's. Throws Error(shape) unless A
/// and B have a row for each rank.
/// Source: huggingface/peft, init_lora_weights = "gaussian"; a standard deviation of 1/r, whatever I.
template <LoraExperts Experts, std::uniform_random_bit_generator Generator>
void gaussian_init(Experts& experts, Generator& generator) {
  using T = typename Experts::Scalar;
  detail::require_tables("gaussian_init", experts);
  for (Index e = 0; e < experts.experts(); ++e)
    for (Index j = 0; j < experts.blocks().size(e); ++j)
      for (T& a : experts.parameters().lora_A.view().row(experts.blocks().down(e) + j))
        a = T(standard_normal(generator) / double(experts.blocks().size(e)));
  experts.parameters().lora_B.set_zero();
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
