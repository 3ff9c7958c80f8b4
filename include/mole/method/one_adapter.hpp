// SPDX-License-Identifier: MIT
// one_adapter(): a layer whose one expert serves every token: LoRA and its kin.
#pragma once

#include "mole/gating/gate.hpp"
#include "mole/gating/score/identity.hpp"
#include "mole/gating/select/all.hpp"
#include "mole/gating/weigh/unit.hpp"
#include "mole/layer/mixture_linear.hpp"
#include "mole/router/no_router.hpp"

#include <utility>

#include "mole/core/macros_off.hpp"

namespace mole {

/// y = W x + b + what the first of `experts` adds, under a gate of 1.
template <ExpertPolicy Experts, BasePolicy Base, class Execution>
auto one_adapter(Experts experts, Base base, Execution execution) {
  using T = typename Experts::Scalar;
  return MixtureLinear{NoRouter<T>(1), Gate{Identity{}, All{}, Unit{}}, std::move(experts), std::move(base),
                       std::move(execution)};
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
