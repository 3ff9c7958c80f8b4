// SPDX-License-Identifier: MIT
// LoraParameters: the two trained matrices of a LoRA.
#pragma once

#include "mole/core/matrix.hpp"

#include "mole/core/macros_off.hpp"

namespace mole {

/// lora_A [ranks x I], lora_B [ranks x O], rank-major: row i of both is one rank-1 expert
template <class T>
struct LoraParameters {
  Matrix<T> lora_A, lora_B;

  template <class F, class... P>
  static void for_each_tensor(F&& f, P&... p) {
    f("lora_A", p.lora_A...);
    f("lora_B", p.lora_B...);
  }
};

}  // namespace mole

#include "mole/core/macros_on.hpp"
