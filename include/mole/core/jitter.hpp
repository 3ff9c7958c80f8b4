// SPDX-License-Identifier: MIT
// Jitter: multiplies elements of tokens by random factors near 1, which are recomputed, never stored.
#pragma once

#include "mole/core/error.hpp"
#include "mole/core/token_random.hpp"
#include "mole/core/view.hpp"

#include <string_view>

#include "mole/core/macros_off.hpp"

namespace mole {

/// out = u x,   u ~ U(1 - amount, 1 + amount) for each element.
///
/// The factors depend on (seed, layer, step, token, stream, column) alone, as the masks of Dropout do, and act in
/// training only. Amount 0 is allowed and exact. In front of a router it belongs to JitteredRouter. Mixtral as in
/// huggingface/transformers overwrites the tokens of a block, so that its experts see the factors, too: for that, call
/// forward() on x, hand the result to the layer, and backward() on its d_x.
/// Source: Fedus et al. 2021 (Switch), arXiv:2101.03961: amount 0.01, for the router alone.
struct Jitter {
  double amount = 0;
  std::uint64_t stream = 0;

  void check(std::string_view owner) const {
    require(amount >= 0 && amount < 1, ErrorCode::option, owner, ": jitter expected in [0, 1), found ", amount);
  }

  bool acts(const Pass& pass) const { return pass.training && amount > 0; }

  /// x, out [N x I], may be the same
  template <class T>
  void forward(View<const T> x, View<T> out, const Pass& pass) const {
    for (Index n = 0; n < x.rows(); ++n) {
      const TokenRandom random(pass, stream, n);
      for (Index i = 0; i < x.cols(); ++i) out(n, i) = acts(pass) ? factor<T>(random, i) * x(n, i) : x(n, i);
    }
  }

  /// d_x += u d_out.   d_out, d_x [N x I]
  template <class T>
  void backward(View<const T> d_out, View<T> d_x, const Pass& pass) const {
    for (Index n = 0; n < d_out.rows(); ++n) {
      const TokenRandom random(pass, stream, n);
      for (Index i = 0; i < d_out.cols(); ++i)
        d_x(n, i) += acts(pass) ? factor<T>(random, i) * d_out(n, i) : d_out(n, i);
    }
  }

 private:
  template <class T>
  T factor(const TokenRandom& random, Index column) const {
    return T(1 + amount * (2 * random.uniform(column) - 1));
  }
};

}  // namespace mole

#include "mole/core/macros_on.hpp"
