// SPDX-License-Identifier: MIT
// RepeatedRouter: a router in which several experts share each logit.
#pragma once

#include "mole/core/error.hpp"
#include "mole/router/linear_router.hpp"

#include <utility>

#include "mole/core/macros_off.hpp"

namespace mole {

/// logit_e = the linear router's logit number e / times, rounded down.
///
///   x [N x I], weight [E / times x I], logits [N x E]
///
/// SMoRA's rank_partition: neighboring ranks share a row of the router; only a balancing bias tells them apart.
/// Throws Error(option) for times below 1. Source: StyxXuan/smora.
template <class T>
class RepeatedRouter {
 public:
  using Scalar = T;
  using Parameters = typename LinearRouter<T>::Parameters;

  struct Scratch {
    typename LinearRouter<T>::Scratch router;
    View<T> logits, d_logits;  // [tokens x E / times]
  };

  RepeatedRouter(LinearRouter<T> router, Index times) : router_(std::move(router)), times_(times) {
    require(times >= 1, ErrorCode::option, "RepeatedRouter: expected times of at least 1, found ", times);
  }

  void check_sizes() const { router_.check_sizes(); }

  Index outputs() const { return router_.outputs() * times_; }
  Index in() const { return router_.in(); }
  const LinearRouter<T>& router() const { return router_; }
  Index times() const { return times_; }
  Parameters& parameters() { return router_.parameters(); }
  const Parameters& parameters() const { return router_.parameters(); }

  Scratch scratch(const CallSize& size, Arena& arena) const {
    return {router_.scratch(size, arena), arena.matrix<T>(size.tokens, router_.outputs()),
            arena.matrix<T>(size.tokens, router_.outputs())};
  }

  void forward(View<const T> x, View<T> logits, auto call) const {
    const View<T> own = call.scratch.logits.top(x.rows());
    router_.forward(x, own, call.with(call.scratch.router));
    for (Index n = 0; n < logits.rows(); ++n)
      for (Index e = 0; e < logits.cols(); ++e) logits(n, e) = own(n, e / times_);
  }

  /// The d_logits of experts that share a row are summed.
  void backward(View<const T> x, View<const T> d_logits, View<T> d_x, Parameters& gradients, auto call) const {
    const View<T> own = call.scratch.d_logits.top(x.rows());
    fill(own, T(0));
    for (Index n = 0; n < d_logits.rows(); ++n)
      for (Index e = 0; e < d_logits.cols(); ++e) own(n, e / times_) += d_logits(n, e);
    router_.backward(x, View<const T>(own), d_x, gradients, call.with(call.scratch.router));
  }

 private:
  LinearRouter<T> router_;
  Index times_;
};

static_assert(TrainableRouterPolicy<RepeatedRouter<float>>);

}  // namespace mole

#include "mole/core/macros_on.hpp"
