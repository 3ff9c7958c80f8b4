// SPDX-License-Identifier: MIT
// mofme_uar(): MoFME with its uncertainty-aware router.
#pragma once

#include "mole/gating/score/identity.hpp"
#include "mole/gating/select/all.hpp"
#include "mole/method/mofme.hpp"
#include "mole/router/uncertainty_router.hpp"

#include <utility>

#include "mole/core/macros_off.hpp"

namespace mole {

/// What mofme_uar() has besides MofmeOptions. In evaluation its gates are those of mofme(), in training they are
/// calibrated: see UncertaintyRouter for what paper, release and library each do.
struct MofmeUarOptions {
  MofmeOptions mofme = {};
  Index samples = 5;           ///< passes of the router
  double dropout = 0.1;        ///< of each pass; ours, the release has none
  bool full_gradient = false;  ///< through mean and covariance of the passes, too
};

/// `whitened`, the default, works: gates are shares of the k best in training and evaluation. `literal` is the paper's
/// formula, under which the gates of a token in training have both signs and do not sum to 1.
template <Calibration form = Calibration::whitened, BasePolicy Base, class Generator,
          class Execution = DefaultExecution>
auto mofme_uar(const MofmeUarOptions& options, Base base, Generator& generator, Execution execution = {}) {
  using T = typename Base::Scalar;
  const Index in = base.in(), out = base.out();
  const MofmeOptions& mofme = options.mofme;
  const bool literal = form == Calibration::literal;
  UncertaintyRouter<T> router({.in = in,
                               .experts = mofme.experts,
                               .samples = options.samples,
                               .dropout = {.rate = options.dropout, .stream = 1000},
                               .form = form,
                               .k = literal ? mofme.k : 0,
                               .full_gradient = options.full_gradient},
                              generator);
  const auto with_gate = [&](auto gate) {
    return MixtureLinear{std::move(router), gate,
                         detail::modulations_behind<MofmeLoop::repaired>(mofme, std::move(base), generator),
                         NoBase<T>(in, out), std::move(execution)};
  };
  if constexpr (form == Calibration::literal)
    return with_gate(Gate{Identity{}, All{}, Raw{}});
  else
    return with_gate(Gate{Softmax{}, TopK{.k = mofme.k == 0 ? mofme.experts : mofme.k}, Renormalized{}});
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
