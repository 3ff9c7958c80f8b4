// SPDX-License-Identifier: MIT
// MlpRouter: a router with a hidden layer.
#pragma once

#include "mole/core/linear_parameters.hpp"
#include "mole/router/router_policy.hpp"

#include <cmath>

#include "mole/core/macros_off.hpp"

namespace mole {

/// logits = max(x W0^T + b0, 0) W1^T + b1.
///
///   x [N x I], hidden.weight W0 [H x I], output.weight W1 [E x H], both with a bias
///
/// Weights and biases start as U(-1/sqrt(f), 1/sqrt(f)), f their number of inputs. Throws Error(option) for sizes < 1.
/// Source: Zhuang et al. 2025 (LD-MoLE, one output), arXiv:2509.25684; DriftMoE, arXiv:2507.18464.
template <class T>
class MlpRouter {
 public:
  using Scalar = T;

  struct Options {
    Index in = 0;
    Index hidden = 64;
    Index experts = 0;  ///< including the extra columns of the gate, if any
  };

  struct Parameters {
    LinearParameters<T> hidden, output;

    template <class F, class... P>
    static void for_each_tensor(F&& f, P&... p) {
      for_each_tensor_within<LinearParameters<T>>("hidden", f, p.hidden...);
      for_each_tensor_within<LinearParameters<T>>("output", f, p.output...);
    }
  };

  struct Scratch {
    View<T> hidden, d_hidden;  // [tokens x H]
  };

  template <std::uniform_random_bit_generator Generator>
  MlpRouter(const Options& options, Generator& generator) {
    require(options.in >= 1 && options.hidden >= 1 && options.experts >= 1, ErrorCode::option,
            "MlpRouter: expected in, hidden and experts of at least 1, found ", options.in, ", ", options.hidden, ", ",
            options.experts);
    parameters_ = {{Matrix<T>(options.hidden, options.in), Matrix<T>(1, options.hidden)},
                   {Matrix<T>(options.experts, options.hidden), Matrix<T>(1, options.experts)}};
    for (LinearParameters<T>* layer : {&parameters_.hidden, &parameters_.output}) {
      const double bound = 1 / std::sqrt(double(layer->weight.cols()));
      fill_uniform(layer->weight.view(), bound, generator);
      fill_uniform(layer->bias.view(), bound, generator);
    }
  }

  void check_sizes() const {
    parameters_.hidden.check_sizes("MlpRouter: hidden");
    parameters_.output.check_sizes("MlpRouter: output");
    require_equal(ErrorCode::shape, "MlpRouter: columns of output.weight", hidden(), parameters_.output.weight.cols());
  }

  Index outputs() const { return parameters_.output.weight.rows(); }
  Index in() const { return parameters_.hidden.weight.cols(); }
  Parameters& parameters() { return parameters_; }
  const Parameters& parameters() const { return parameters_; }

  Scratch scratch(const CallSize& size, Arena& arena) const {
    return {arena.matrix<T>(size.tokens, hidden()), arena.matrix<T>(size.tokens, hidden())};
  }

  void forward(View<const T> x, View<T> logits, auto call) const {
    const View<T> h = call.scratch.hidden.top(x.rows());
    call.execution.linear(x, parameters_.hidden.weights(), h);
    for (Index n = 0; n < h.rows(); ++n)
      for (T& element : h.row(n)) element = std::max(element, T(0));
    call.execution.linear(h, parameters_.output.weights(), logits);
  }

  /// With h from forward():   d_h = d_logits W1 where h > 0;   gradients of two linear maps;   d_x += d_h W0
  void backward(View<const T> x, View<const T> d_logits, View<T> d_x, Parameters& gradients, auto call) const {
    const View<T> h = call.scratch.hidden.top(x.rows()), d_h = call.scratch.d_hidden.top(x.rows());
    fill(d_h, T(0));
    call.execution.product_nn(d_logits, parameters_.output.weight, d_h);
    for (Index n = 0; n < h.rows(); ++n)
      for (Index j = 0; j < h.cols(); ++j)
        if (!(h(n, j) > 0)) d_h(n, j) = 0;
    gradients.output.add_gradients(h, d_logits, call.execution);
    gradients.hidden.add_gradients(x, d_h, call.execution);
    if (d_x) call.execution.product_nn(View<const T>(d_h), parameters_.hidden.weight, d_x);
  }

 private:
  Index hidden() const { return parameters_.hidden.weight.rows(); }

  Parameters parameters_;
};

static_assert(TrainableRouterPolicy<MlpRouter<float>>);

}  // namespace mole

#include "mole/core/macros_on.hpp"
