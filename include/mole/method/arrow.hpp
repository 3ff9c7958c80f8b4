// SPDX-License-Identifier: MIT
// arrow(): Arrow, trained adapters behind a router that is computed from them.
#pragma once

#include "mole/base/base_policy.hpp"
#include "mole/gating/gate.hpp"
#include "mole/gating/score/magnitude.hpp"
#include "mole/gating/select/top_k.hpp"
#include "mole/gating/weigh/softmax_over_chosen.hpp"
#include "mole/layer/mixture_linear.hpp"
#include "mole/router/linear_router.hpp"
#include "mole/surgery/arrow_prototypes.hpp"

#include <utility>

#include "mole/core/macros_off.hpp"

namespace mole {

/// Ostapenko et al. 2024 (Arrow), arXiv:2405.11157; released in huggingface/peft, tuners/lora/arrow.py.
///
/// The router scores by magnitude, because a singular vector has no sign. It is a constant in the release: leave it out
/// of what trains, layer.gradients({.router = false}). When the experts have trained further,
/// layer.router().parameters().weight = arrow_prototypes(layer.experts()).
struct ArrowOptions {
  Index k = 3;
  double temperature = 1;
};

/// y = W x + b + sum over the k largest |v_e x| of softmax_e(|v x| / temperature) s_e B_e A_e x,  v_e the first right
/// singular vector of B_e A_e.  Experts: LowRank, of any factors; they may have scales and ranks of their own.
template <class Experts, BasePolicy Base, class Execution = DefaultExecution>
auto arrow(const ArrowOptions& options, Experts experts, Base base, Execution execution = {}) {
  using T = typename Base::Scalar;
  LinearRouter<T> router({arrow_prototypes(experts), {}});
  return MixtureLinear{std::move(router),
                       Gate{Magnitude{}, TopK{.k = options.k}, SoftmaxOverChosen{.temperature = options.temperature}},
                       std::move(experts), std::move(base), std::move(execution)};
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
