// SPDX-License-Identifier: MIT
// Dropout: inverted dropout whose mask is recomputed, never stored.
#pragma once

#include "mole/core/scratch.hpp"
#include "mole/core/token_random.hpp"

#include <string_view>

#include "mole/core/macros_off.hpp"

namespace mole {

/// Drops elements of a token matrix with probability `rate` and divides the kept ones by 1 - rate.
///
/// The mask depends on (seed, layer, step, token, stream, column) alone: equal streams have the same mask, so a router
/// and the experts can share one dropped x without knowing each other. LowRank and MapExperts apply it to the x
/// that their experts see, LinearRouter to its own x. Rate 0 is allowed and exact.
/// Source: Srivastava et al. 2014; counter-based keys as in Salmon et al. 2011.
struct Dropout {
  double rate = 0;
  std::uint64_t stream = 0;

  void check(std::string_view owner) const {
    require(rate >= 0 && rate < 1, ErrorCode::option, owner, ": dropout rate expected in [0, 1), found ", rate);
  }

  bool acts(const Pass& pass) const { return pass.training && rate > 0; }

  /// out = mask * x / (1 - rate).   x, out [N x I], may be the same
  template <class T>
  void forward(View<const T> x, View<T> out, const Pass& pass) const {
    for (Index n = 0; n < x.rows(); ++n) {
      const Row row(*this, pass, n);
      for (Index i = 0; i < x.cols(); ++i) out(n, i) = row.kept(i) ? x(n, i) * T(1 / (1 - rate)) : T(0);
    }
  }

  /// d_x += mask * d_out / (1 - rate).   d_out, d_x [N x I]
  template <class T>
  void backward(View<const T> d_out, View<T> d_x, const Pass& pass) const {
    for (Index n = 0; n < d_out.rows(); ++n) {
      const Row row(*this, pass, n);
      for (Index i = 0; i < d_out.cols(); ++i)
        if (row.kept(i)) d_x(n, i) += d_out(n, i) * T(1 / (1 - rate));
    }
  }

  /// Room for the dropped copy of x [tokens x in]; none if nothing is ever dropped.
  template <class T>
  View<T> scratch(const CallSize& size, Index in, Arena& arena) const {
    return rate > 0 ? arena.matrix<T>(size.tokens, in) : View<T>();
  }

  /// The input behind the mask: x itself, or a dropped copy in `scratch`.
  template <class T>
  View<const T> seen(View<const T> x, View<T> scratch, const Pass& pass) const {
    if (!acts(pass)) return x;
    const View<T> dropped = scratch.top(x.rows());
    forward(x, dropped, pass);
    return dropped;
  }

  /// Lets add(d_seen) accumulate the gradient of seen(), and passes it through the mask to d_x, which may be empty.
  template <class T, class Add>
  void seen_backward(View<T> d_x, View<T> scratch, const Pass& pass, Add add) const {
    if (!d_x) return;
    if (!acts(pass)) return add(d_x);
    const View<T> d_dropped = scratch.top(d_x.rows());
    fill(d_dropped, T(0));
    add(d_dropped);
    backward(View<const T>(d_dropped), d_x, pass);
  }

 private:
  /// The mask of one token.
  class Row {
   public:
    Row(const Dropout& dropout, const Pass& pass, Index token)
        : random_(pass, dropout.stream, token), threshold_(std::uint64_t(dropout.rate * 0x1p53)) {}
    bool kept(Index column) const { return (random_.bits(column) >> 11) >= threshold_; }

   private:
    TokenRandom random_;
    std::uint64_t threshold_;
  };
};

}  // namespace mole

#include "mole/core/macros_on.hpp"
