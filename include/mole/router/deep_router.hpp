// SPDX-License-Identifier: MIT
// DeepRouter: a router with any number of hidden layers and dropout between them.
#pragma once

#include "mole/core/dropout.hpp"
#include "mole/core/linear_parameters.hpp"
#include "mole/router/router_policy.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <string_view>
#include <vector>

#include "mole/core/macros_off.hpp"

namespace mole {

/// What a DeepRouter applies to the elements of its hidden layers.
enum class RouterActivation { relu, tanh, none };

/// The sizes of a router of several layers.
struct DeepRouterOptions {
  Index in = 0;
  Index experts = 0;               ///< including the extra columns of the gate, if any
  std::vector<Index> widths = {};  ///< of the hidden layers, at most 7; none: one linear map with a bias
  RouterActivation activation = RouterActivation::relu;  ///< of each hidden layer
  Dropout dropout = {.rate = 0, .stream = 4000};  ///< of each hidden layer's outputs; layer l draws from stream + l
};

/// logits = h_L W_L^T + b_L,   h_l = dropout(act(h_(l-1) W_(l-1)^T + b_(l-1))),   h_0 = x.
///
///   x [N x I], layer l: weight [H_(l+1) x H_l], bias [1 x H_(l+1)], named "0.weight", "0.bias", "1.weight" ...
///
/// MlpRouter is that with one hidden layer and no dropout. Weights and biases start as U(-1/sqrt(f), 1/sqrt(f)), f
/// their number of inputs. Throws Error(option) for sizes below 1, more than 7 hidden layers, or a dropout rate out of
/// [0, 1).  Scratch: twice the widths for each token.
/// Source: X-LoRA 2024, arXiv:2402.07148, as released in huggingface/peft, tuners/xlora/classifier.py; DriftMoE 2025,
/// arXiv:2507.18464. With tanh: SMoRE, ZimpleX/SMoRE-LLM.
template <class T>
class DeepRouter {
 public:
  using Scalar = T;
  using Options = DeepRouterOptions;
  static constexpr std::size_t most_layers = 8;

  struct Parameters {
    std::array<LinearParameters<T>, most_layers> layers;  // as many as there are, then empty ones

    template <class F, class... P>
    static void for_each_tensor(F&& f, P&... p) {
      constexpr std::array<std::string_view, most_layers> names{"0", "1", "2", "3", "4", "5", "6", "7"};
      for (std::size_t l = 0; l < most_layers; ++l)
        for_each_tensor_within<LinearParameters<T>>(names[l], f, p.layers[l]...);
    }
  };

  struct Scratch {
    std::array<View<T>, most_layers - 1> h, d_h;  // [tokens x widths]
  };

  template <std::uniform_random_bit_generator Generator>
  DeepRouter(const Options& options, Generator& generator)
      : hidden_(options.widths.size()), activation_(options.activation), dropout_(options.dropout) {
    require(hidden_ < most_layers, ErrorCode::option, "DeepRouter: expected at most ", most_layers - 1,
            " hidden layers, found ", hidden_);
    dropout_.check("DeepRouter");
    std::vector<Index> sizes{options.in};
    sizes.insert(sizes.end(), options.widths.begin(), options.widths.end());
    sizes.push_back(options.experts);
    for (Index size : sizes)
      require(size >= 1, ErrorCode::option, "DeepRouter: expected in, widths and experts of at least 1, found ", size);
    for (std::size_t l = 0; l <= hidden_; ++l) {
      LinearParameters<T>& layer = parameters_.layers[l];
      layer = {Matrix<T>(sizes[l + 1], sizes[l]), Matrix<T>(1, sizes[l + 1])};
      const double bound = 1 / std::sqrt(double(sizes[l]));
      fill_uniform(layer.weight.view(), bound, generator);
      fill_uniform(layer.bias.view(), bound, generator);
    }
  }

  void check_sizes() const {
    for (std::size_t l = 0; l <= hidden_; ++l) {
      parameters_.layers[l].check_sizes("DeepRouter");
      if (l > 0)
        require_equal(ErrorCode::shape, "DeepRouter: columns of a weight", width(l - 1),
                      parameters_.layers[l].weight.cols());
    }
  }

  Index outputs() const { return parameters_.layers[hidden_].weight.rows(); }
  Index in() const { return parameters_.layers[0].weight.cols(); }
  Parameters& parameters() { return parameters_; }
  const Parameters& parameters() const { return parameters_; }

  Scratch scratch(const CallSize& size, Arena& arena) const {
    Scratch scratch;
    for (std::size_t l = 0; l < hidden_; ++l) {
      scratch.h[l] = arena.matrix<T>(size.tokens, width(l));
      scratch.d_h[l] = arena.matrix<T>(size.tokens, width(l));
    }
    return scratch;
  }

  void forward(View<const T> x, View<T> logits, auto call) const {
    for (std::size_t l = 0; l < hidden_; ++l) {
      const View<T> h = call.scratch.h[l].top(x.rows());
      call.execution.linear(input(l, x, call), parameters_.layers[l].weights(), h);
      for (Index n = 0; n < h.rows(); ++n)
        for (T& element : h.row(n)) element = activated(element);
      if (dropout_.acts(call.pass)) of_layer(l).forward(View<const T>(h), h, call.pass);
    }
    call.execution.linear(input(hidden_, x, call), parameters_.layers[hidden_].weights(), logits);
  }

  /// From the last layer to the first:   gradients of a linear map;   d_h_l = d_out W_l act' / (1 - rate);
  /// d_x += d_out W_0.   act' is 1 where h_l > 0 for a ReLU, 1 - a^2 for a = tanh, and 1 without one. A hidden element
  /// that was dropped is 0, as one below 0 of a ReLU is.
  void backward(View<const T> x, View<const T> d_logits, View<T> d_x, Parameters& gradients, auto call) const {
    View<const T> d_out = d_logits;
    for (std::size_t l = hidden_; l > 0; --l) {
      const View<const T> h = input(l, x, call);
      gradients.layers[l].add_gradients(h, d_out, call.execution);
      const View<T> d_h = call.scratch.d_h[l - 1].top(x.rows());
      fill(d_h, T(0));
      call.execution.product_nn(d_out, parameters_.layers[l].weight, d_h);
      const T factor = dropout_.acts(call.pass) ? T(1 / (1 - dropout_.rate)) : T(1);
      for (Index n = 0; n < h.rows(); ++n)
        for (Index j = 0; j < h.cols(); ++j) d_h(n, j) = through(h(n, j), d_h(n, j), factor);
      d_out = d_h;
    }
    gradients.layers[0].add_gradients(x, d_out, call.execution);
    if (d_x) call.execution.product_nn(d_out, parameters_.layers[0].weight, d_x);
  }

 private:
  T activated(T z) const {
    if (activation_ == RouterActivation::none) return z;
    return activation_ == RouterActivation::relu ? std::max(z, T(0)) : std::tanh(z);
  }
  /// The gradient before the activation, from that of an element h that the dropout multiplied by `factor`. 0 times
  /// NaN, of a token that is not routed, is 0.
  T through(T h, T d_h, T factor) const {
    if (activation_ == RouterActivation::relu) return h > 0 ? factor * d_h : T(0);
    if (d_h == 0 || (h == 0 && factor != 1)) return T(0);
    if (activation_ == RouterActivation::none) return factor * d_h;
    const T a = h / factor;
    return factor * (1 - a * a) * d_h;
  }
  Index width(std::size_t hidden) const { return parameters_.layers[hidden].weight.rows(); }
  Dropout of_layer(std::size_t l) const { return {dropout_.rate, dropout_.stream + l}; }
  View<const T> input(std::size_t l, View<const T> x, auto call) const {
    return l == 0 ? x : View<const T>(call.scratch.h[l - 1].top(x.rows()));
  }

  std::size_t hidden_;
  RouterActivation activation_;
  Dropout dropout_;
  Parameters parameters_;
};

static_assert(TrainableRouterPolicy<DeepRouter<float>>);

}  // namespace mole

#include "mole/core/macros_on.hpp"
