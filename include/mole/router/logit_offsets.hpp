// SPDX-License-Identifier: MIT
// LogitOffsets: a router whose logits are moved by a trained vector, the same for every token.
#pragma once

#include "mole/core/error.hpp"
#include "mole/core/matrix.hpp"
#include "mole/core/state.hpp"
#include "mole/router/router_policy.hpp"

#include <utility>

#include "mole/core/macros_off.hpp"

namespace mole {

/// logits = those of the router + offsets.
///
///   logits [N x E] with the extra columns of the gate, if any, offsets [1 x E], 0 at first
///
/// What a few steps at test time can move without touching the model: freeze all else,
///     auto gradients = layer.gradients({.router = true, .experts = false});
///     gradients.router.router = {};
/// and start the next prompt with layer.router().parameters().offsets.set_zero(). An offset that is the same for all
/// experts changes no softmax, so their gradient sums to 0 there. Offsets act before the score, on selection and gates
/// alike: a bias of the selection alone is GroupedTopK's. They are parameters, unlike the bias of LatentRouter, which
/// is state. Fuses d_x where the router does. Throws Error(shape) for offsets of another size.
/// Source: Su et al. 2025 (Rewiring Experts on the Fly): z + delta in the layers that are adapted, some steps of which
/// move delta between stretches of generated text. Its code and full text were not at hand.
template <class Router>
class LogitOffsets {
  static_assert(RouterPolicy<Router>, "mole: Router must model RouterPolicy (mole/router/router_policy.hpp)");

 public:
  using Scalar = typename Router::Scalar;
  using T = Scalar;
  static constexpr Reads reads = reads_of<Router>;
  static constexpr bool borrows = borrows_parameters<Router>;

  struct Parameters {
    ParametersOf<Router> router;
    Matrix<T> offsets;

    template <class F, class... P>
    static void for_each_tensor(F&& f, P&... p) {
      for_each_tensor_within<ParametersOf<Router>>("router", f, p.router...);
      f("offsets", p.offsets...);
    }
  };

  /// The parameters in place; converts to Parameters, to make gradients of the same shapes.
  template <class Of, class Offsets>
  struct Parts {
    Of router;
    Offsets& offsets;
    operator Parameters() const { return {router, offsets}; }
  };

  struct Scratch {
    ScratchOf<Router> router;
  };

  explicit LogitOffsets(Router router) : router_(std::move(router)), offsets_(1, router_.outputs()) {}

  void check_sizes() const {
    detail::check_sizes(router_);
    require(offsets_.rows() == 1 && offsets_.cols() == outputs(), ErrorCode::shape,
            "LogitOffsets: expected offsets of [1 x ", outputs(), "], found [", offsets_.rows(), " x ", offsets_.cols(),
            "]");
  }
  void check_gradients(const Parameters& gradients) const { detail::check_gradients(router_, gradients.router); }

  Index outputs() const { return router_.outputs(); }
  Index in() const requires requires(const Router& router) { router.in(); }
  { return router_.in(); }

  Router& router() { return router_; }
  const Router& router() const { return router_; }
  auto parameters() { return Parts<decltype(parameters_of(router_)), Matrix<T>>{parameters_of(router_), offsets_}; }
  auto parameters() const {
    return Parts<decltype(parameters_of(router_)), const Matrix<T>>{parameters_of(router_), offsets_};
  }

  View<const T> input_weight() const requires LinearlyReadingRouter<Router> { return router_.input_weight(); }
  bool fuses_d_x(const Pass& pass) const requires LinearlyReadingRouter<Router> { return router_.fuses_d_x(pass); }

  template <class F>
  void for_each_state(F&& f) {
    for_each_state_within("router", router_, f);
  }

  Scratch scratch(const CallSize& size, Arena& arena) const { return {scratch_for(router_, size, arena)}; }

  void forward(View<const T> in, View<T> logits, auto call) const {
    forward_router(router_, in, logits, call.with(call.scratch.router));
    for (Index n = 0; n < logits.rows(); ++n)
      for (Index e = 0; e < logits.cols(); ++e) logits.row_data(n)[e] += offsets_.data()[e];
  }

  /// offsets += sum over tokens of d_logits in `gradients`;   d_in and the router's gradients are the router's
  void backward(View<const T> in, View<const T> d_logits, View<T> d_in, Parameters& gradients,
                auto call) const requires TrainableRouterPolicy<Router> {
    router_.backward(in, d_logits, d_in, gradients.router, call.with(call.scratch.router));
    if (gradients.offsets.empty()) return;
    for (Index e = 0; e < d_logits.cols(); ++e) {
      double sum = 0;  // it may be of many tokens
      for (Index n = 0; n < d_logits.rows(); ++n) sum += double(d_logits(n, e));
      gradients.offsets(0, e) += T(sum);
    }
  }

 private:
  Router router_;
  Matrix<T> offsets_;
};

}  // namespace mole

#include "mole/core/macros_on.hpp"
