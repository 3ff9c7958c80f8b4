// SPDX-License-Identifier: MIT
// LinearRouter: the router of nearly every method, one linear map of the token.
#pragma once

#include "mole/core/dropout.hpp"
#include "mole/core/linear_parameters.hpp"
#include "mole/router/router_policy.hpp"

#include <cmath>
#include <utility>

#include "mole/core/macros_off.hpp"

namespace mole {

/// logits = x W^T (+ b).
///
///   x [N x I], weight [E x I], bias [1 x E], logits [N x E]
///
/// Starts at weight ~ U(-1/sqrt(I), 1/sqrt(I)), bias alike: the usual default of a linear layer. Dropout, if any, acts
/// on the router's own copy of x; with the dropout stream of the experts, both have the same mask.
/// Throws Error(option) for sizes below 1.
template <class T>
class LinearRouter {
 public:
  using Scalar = T;
  using Parameters = LinearParameters<T>;

  struct Options {
    Index in = 0;
    Index experts = 0;  ///< including the extra columns of the gate, if any
    bool bias = false;
    Dropout dropout = {};
  };

  struct Scratch {
    View<T> dropped;  // [tokens x I], only with dropout
  };

  template <std::uniform_random_bit_generator Generator>
  LinearRouter(const Options& options, Generator& generator) : dropout_(options.dropout) {
    require(options.in >= 1 && options.experts >= 1, ErrorCode::option,
            "LinearRouter: expected in and experts of at least 1, found in = ", options.in,
            ", experts = ", options.experts);
    dropout_.check("LinearRouter");
    parameters_.weight = Matrix<T>(options.experts, options.in);
    if (options.bias) parameters_.bias = Matrix<T>(1, options.experts);
    const double bound = 1 / std::sqrt(double(options.in));
    fill_uniform(parameters_.weight.view(), bound, generator);
    fill_uniform(parameters_.bias.view(), bound, generator);
  }

  /// From existing parameters.   weight [E x I], bias [1 x E] or empty.  Throws Error(shape) for no weight, or a bias
  /// that does not fit.
  explicit LinearRouter(Parameters parameters, Dropout dropout = {})
      : parameters_(std::move(parameters)), dropout_(dropout) {
    require(!parameters_.weight.empty(), ErrorCode::shape, "LinearRouter: expected a weight, found none");
    dropout_.check("LinearRouter");
    check_sizes();
  }

  void check_sizes() const { parameters_.check_sizes("LinearRouter"); }

  Index outputs() const { return parameters_.weight.rows(); }
  Index in() const { return parameters_.weight.cols(); }
  Parameters& parameters() { return parameters_; }
  const Parameters& parameters() const { return parameters_; }

  const Dropout& dropout() const { return dropout_; }

  View<const T> input_weight() const { return parameters_.weight; }
  bool fuses_d_x(const Pass& pass) const { return !dropout_.acts(pass); }

  Scratch scratch(const CallSize& size, Arena& arena) const { return {dropout_.scratch<T>(size, in(), arena)}; }

  void forward(View<const T> x, View<T> logits, auto call) const {
    call.execution.linear(seen(x, call), parameters_.weights(), logits);
  }

  /// weight += d_logits^T x and bias += sum over tokens of d_logits in `gradients`,  d_x += d_logits W
  void backward(View<const T> x, View<const T> d_logits, View<T> d_x, Parameters& gradients, auto call) const {
    if (any_wanted(gradients)) gradients.add_gradients(seen(x, call), d_logits, call.execution);
    dropout_.seen_backward(d_x, call.scratch.dropped, call.pass,
                           [&](View<T> d_seen) { call.execution.product_nn(d_logits, parameters_.weight, d_seen); });
  }

 private:
  View<const T> seen(View<const T> x, auto call) const { return dropout_.seen(x, call.scratch.dropped, call.pass); }

  Parameters parameters_;
  Dropout dropout_;
};

static_assert(TrainableRouterPolicy<LinearRouter<float>> && LinearlyReadingRouter<LinearRouter<float>>);

}  // namespace mole

#include "mole/core/macros_on.hpp"
