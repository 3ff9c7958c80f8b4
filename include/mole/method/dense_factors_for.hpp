// SPDX-License-Identifier: MIT
// dense_factors_for(): the options of a method as those of its factors.
#pragma once

#include "mole/factors/dense_factors.hpp"

namespace mole {

/// The factors for this base with those of `options` that methods share by name; what a method does not have takes its
/// default.
template <class Options, class Base>
typename DenseFactors<typename Base::Scalar>::Options dense_factors_for(const Options& options, const Base& base) {
  typename DenseFactors<typename Base::Scalar>::Options factors{.in = base.in(),
                                                                .out = base.out(),
                                                                .rank = options.rank,
                                                                .alpha = options.alpha,
                                                                .dropout = {.rate = options.dropout, .stream = 1}};
  if constexpr (requires { options.experts; }) factors.experts = options.experts;
  if constexpr (requires { options.scaling; }) factors.scaling = options.scaling;
  if constexpr (requires { options.shared_down; }) factors.shared_down = options.shared_down;
  return factors;
}

}  // namespace mole
