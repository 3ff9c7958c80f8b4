// SPDX-License-Identifier: MIT
// MlpCombiner: two linear maps with a PReLU between them, over the experts' outputs side by side.
#pragma once

#include "mole/combiner/combiner_policy.hpp"
#include "mole/core/linear_parameters.hpp"
#include "mole/core/random.hpp"

#include <algorithm>
#include <cmath>

#include "mole/core/macros_off.hpp"

namespace mole {

/// y = W2 prelu(W1 x + b1) + b2,   prelu(h) = h for h > 0, else slope h
///
///   x [N x E F]   head1.weight [H x E F]   slope, named prelu.weight [1 x 1]   head2.weight [O x H]   y [N x O]
///
/// What DMoERM makes of a reward of its experts' last hidden states, which stay frozen (an empty d_x). An expert that
/// is ruled out has features of 0. Linear maps start as U(-1/sqrt(f), 1/sqrt(f)), f their inputs; the slope at 0.25, as
/// in PyTorch. Throws Error(option) for sizes below 1.  Scratch: [tokens x E F] and 2 [tokens x H].
/// Source: Quan 2024 (DMoERM), arXiv:2403.01197; quanshr/DMoERM, innermoe/modeling.py.
template <class T>
class MlpCombiner {
 public:
  using Scalar = T;

  struct Options {
    Index experts = 0;
    Index features = 0;  ///< of each expert
    Index hidden = 0;    ///< 0: as many as features, as in the release
    Index out = 1;       ///< a reward
  };

  struct Parameters {
    LinearParameters<T> head1, head2;
    Matrix<T> slope;

    template <class F, class... P>
    static void for_each_tensor(F&& f, P&... p) {
      for_each_tensor_within<LinearParameters<T>>("head1", f, p.head1...);
      f("prelu.weight", p.slope...);
      for_each_tensor_within<LinearParameters<T>>("head2", f, p.head2...);
    }
  };

  struct Scratch {
    View<T> seen;     // [tokens x E F], where experts are ruled out
    View<T> h, d_h;   // [tokens x H]; d_h first holds prelu(h)
    Index rows = -1;  // of the forward that has no backward yet
  };

  template <std::uniform_random_bit_generator Generator>
  MlpCombiner(const Options& options, Generator& generator) : experts_(options.experts) {
    require(options.experts >= 1 && options.features >= 1 && options.hidden >= 0 && options.out >= 1, ErrorCode::option,
            "MlpCombiner: expected experts, features and out of at least 1, found ", options.experts, ", ",
            options.features, ", ", options.out);
    const Index hidden = options.hidden > 0 ? options.hidden : options.features;
    parameters_.head1 = {Matrix<T>(hidden, checked_product("MlpCombiner", options.experts, options.features)),
                         Matrix<T>(1, hidden)};
    parameters_.head2 = {Matrix<T>(options.out, hidden), Matrix<T>(1, options.out)};
    parameters_.slope = Matrix<T>(1, 1);
    parameters_.slope(0, 0) = T(0.25);
    for (LinearParameters<T>* map : {&parameters_.head1, &parameters_.head2}) {
      const double bound = 1 / std::sqrt(double(map->weight.cols()));
      fill_uniform(map->weight.view(), bound, generator);
      fill_uniform(map->bias.view(), bound, generator);
    }
  }

  Index experts() const { return experts_; }
  Index features() const { return parameters_.head1.weight.cols() / experts_; }
  Index out() const { return parameters_.head2.weight.rows(); }
  Parameters& parameters() { return parameters_; }
  const Parameters& parameters() const { return parameters_; }
  Parameters gradients() const { return zeros_like(parameters_); }
  /// Calls f(name, parameter, other...) with one View per tensor, for the parameters and each of `others`.
  template <class F, class... Others>
  void for_each_tensor(F&& f, Others&... others) {
    detail::for_each_view<Parameters>(f, parameters_, others...);
  }

  Scratch scratch(const CallSize& size, Arena& arena) const {
    return {arena.matrix<T>(size.tokens, parameters_.head1.weight.cols()), arena.matrix<T>(size.tokens, hidden()),
            arena.matrix<T>(size.tokens, hidden())};
  }

  void forward(View<const T> x, View<T> y, auto call) const {
    detail::check_combiner_call("MlpCombiner", *this, x, y, call.pass, call.scratch.h.rows());
    call.scratch.rows = x.rows();
    const View<T> h = call.scratch.h.top(x.rows());
    call.execution.linear(seen(x, call), parameters_.head1.weights(), h);
    call.execution.linear(activated(h, call), parameters_.head2.weights(), y);
  }

  void backward(View<const T> x, View<const T> d_y, View<T> d_x, Parameters& gradients, auto call) const {
    detail::check_combiner_backward("MlpCombiner", *this, x, d_y, d_x, call.pass, call.scratch.h.rows(),
                                    call.scratch.rows);
    call.scratch.rows = -1;
    const View<T> h = call.scratch.h.top(x.rows());
    gradients.head2.add_gradients(activated(h, call), d_y, call.execution);
    const View<T> d_h = call.scratch.d_h.top(x.rows());
    fill(d_h, T(0));
    call.execution.product_nn(d_y, parameters_.head2.weight, d_h);
    T d_slope = 0;
    for (Index n = 0; n < h.rows(); ++n)
      for (Index i = 0; i < h.cols(); ++i)
        if (!(h(n, i) > 0)) {
          d_slope += d_h(n, i) * h(n, i);
          d_h(n, i) *= slope();
        }
    if (!gradients.slope.empty()) gradients.slope(0, 0) += d_slope;
    const View<T> features = call.scratch.seen.top(x.rows());
    gradients.head1.add_gradients(call.pass.allowed.empty() ? x : View<const T>(features), d_h, call.execution);
    if (!d_x) return;
    if (call.pass.allowed.empty()) return call.execution.product_nn(View<const T>(d_h), parameters_.head1.weight, d_x);
    fill(features, T(0));
    call.execution.product_nn(View<const T>(d_h), parameters_.head1.weight, features);
    for_each_allowed(call.pass, x.rows(), [&](Index n, Index column) { d_x(n, column) += features(n, column); });
  }

 private:
  Index hidden() const { return parameters_.head1.weight.rows(); }
  T slope() const { return parameters_.slope(0, 0); }

  View<const T> seen(View<const T> x, auto call) const {
    if (call.pass.allowed.empty()) return x;
    const View<T> seen = call.scratch.seen.top(x.rows());
    fill(seen, T(0));
    for_each_allowed(call.pass, x.rows(), [&](Index n, Index column) { seen(n, column) = x(n, column); });
    return seen;
  }
  View<const T> activated(View<const T> h, auto call) const {
    const View<T> a = call.scratch.d_h.top(h.rows());
    for (Index n = 0; n < h.rows(); ++n)
      std::ranges::transform(h.row(n), a.row(n).begin(), [s = slope()](T z) { return z > 0 ? z : s * z; });
    return a;
  }
  /// f(token, column) for the features of experts that are not ruled out.
  template <class F>
  void for_each_allowed(const Pass& pass, Index tokens, F f) const {
    for (Index n = 0; n < tokens; ++n)
      for (Index e = 0; e < experts_; ++e)
        if (detail::is_allowed(pass, n, e, experts_))
          for (Index i = 0; i < features(); ++i) f(n, e * features() + i);
  }

  Index experts_;
  Parameters parameters_;
};

static_assert(TrainableCombinerPolicy<MlpCombiner<float>>);

}  // namespace mole

#include "mole/core/macros_on.hpp"
