// SPDX-License-Identifier: MIT
// The parts of a layer that compiles: each program next to this file breaks one of them.
#pragma once

#include "mole/mole.hpp"

namespace parts {

inline mole::Rng rng(1);
inline mole::Matrix<float> weight(2, 3);

inline auto router() {
  return mole::LinearRouter<float>({.in = 3, .experts = 2}, rng);
}
inline auto gate() {
  return mole::Gate{mole::Softmax{}, mole::TopK{.k = 1}, mole::Raw{}};
}
inline auto experts() {
  return mole::LowRank<mole::DenseFactors<float>>({.in = 3, .out = 2, .experts = 2, .rank = 1}, rng);
}
inline auto base() {
  return mole::DenseBase{weight.view()};
}

/// Scores, and does not learn.
struct InferenceRouter {
  using Scalar = float;
  mole::Index outputs() const { return 2; }
  void forward(mole::View<const float>, mole::View<float> logits) const { mole::fill(logits, 0); }
};

}  // namespace parts
