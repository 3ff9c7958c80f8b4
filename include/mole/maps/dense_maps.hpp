// SPDX-License-Identifier: MIT
// DenseMaps: experts that are whole matrices, as those of a mixture without LoRA.
#pragma once

#include "mole/core/add_outer_products.hpp"
#include "mole/core/dropout.hpp"
#include "mole/core/linear_weights.hpp"
#include "mole/core/matrix.hpp"
#include "mole/core/random.hpp"
#include "mole/core/rank/scaling.hpp"
#include "mole/core/row.hpp"
#include "mole/maps/map_policy.hpp"

#include <cmath>
#include <optional>
#include <string_view>

#include "mole/core/macros_off.hpp"

namespace mole {

/// Of each expert:   f(x) = W_e x (+ b_e).
///
///   weight [E O x I], the O rows of an expert one below the other   bias [E x O], or none
///
/// The full experts of pretrained mixtures, projection by projection; a feed-forward block of several experts takes a
/// pass per expert, as its nonlinearity is not of their sum. Starts as U(-1/sqrt(I), 1/sqrt(I)), or at 0 if `zero`, so
/// that a fresh layer equals its base; a bias starts as the weight does. At I = O = 4,096: 16,777,216 trained numbers
/// an expert. No scratch. Throws Error(option) for sizes below 1, and from add_delta() where there is a bias: a matrix
/// alone is not the expert then.
template <class T>
class DenseMaps {
 public:
  using Scalar = T;

  struct Options {
    Index in = 0;
    Index out = 0;
    Index experts = 1;
    bool zero = false;                 ///< start at 0
    bool bias = false;                 ///< with a bias of each expert
    std::optional<double> alpha = {};  ///< unset: scale 1
    Scaling scaling = Scaling::fixed;
    Dropout dropout = {};  ///< on the experts' input
  };

  struct Parameters {
    Matrix<T> weight, bias;

    template <class F, class... P>
    static void for_each_tensor(F&& f, P&... p) {
      f("weight", p.weight...);
      f("bias", p.bias...);
    }
  };

  template <std::uniform_random_bit_generator Generator>
  DenseMaps(const Options& options, Generator& generator) : options_(options) {
    require(options.in >= 1 && options.out >= 1 && options.experts >= 1, ErrorCode::option,
            "DenseMaps: expected in, out and experts of at least 1, found ", options.in, ", ", options.out, ", ",
            options.experts);
    parameters_.weight = Matrix<T>(checked_product("DenseMaps: rows", options.experts, options.out), options.in);
    if (options.bias) parameters_.bias = Matrix<T>(options.experts, options.out);
    reset(generator);
  }

  void check_sizes() const {
    require(parameters_.weight.rows() == experts() * out() && parameters_.weight.cols() == in(), ErrorCode::shape,
            "DenseMaps: expected a weight of [", experts() * out(), " x ", in(), "], found [",
            parameters_.weight.rows(), " x ", parameters_.weight.cols(), "]");
    const Matrix<T>& bias = parameters_.bias;
    require(options_.bias ? bias.rows() == experts() && bias.cols() == out() : bias.empty(), ErrorCode::shape,
            "DenseMaps: expected a bias of [", options_.bias ? experts() : 0, " x ", options_.bias ? out() : 0,
            "], found [", bias.rows(), " x ", bias.cols(), "]");
  }

  Index experts() const { return options_.experts; }
  Index in() const { return options_.in; }
  Index out() const { return options_.out; }
  /// As of one rank: there are no others.
  double scale(double alpha, Scaling scaling, Index) const { return scale_of(alpha, 1, scaling); }
  Parameters& parameters() { return parameters_; }
  const Parameters& parameters() const { return parameters_; }

  /// Reinitializes, as the constructor does.
  template <std::uniform_random_bit_generator Generator>
  void reset(Generator& generator) {
    for (Matrix<T>* tensor : {&parameters_.weight, &parameters_.bias})
      fill_uniform(tensor->view(), options_.zero ? 0 : 1 / std::sqrt(double(in())), generator);
  }

  void map(Index expert, View<const T> x, View<T> y, auto call) const {
    const View<const T> bias = options_.bias ? parameters_.bias.view().middle_rows(expert, 1) : View<const T>();
    call.execution.linear(x, LinearWeights<T>{.weight = of_expert(parameters_.weight.view(), expert), .bias = bias}, y);
  }

  /// weight_e += d_y^T x,   bias_e += sum over the rows of d_y,   d_x += d_y W_e
  void map_backward(Index expert, View<const T> x, View<const T> d_y, View<T> d_x, Parameters& gradients,
                    auto call) const {
    if (!gradients.weight.empty())
      add_outer_products(d_y, x, of_expert(gradients.weight.view(), expert), call.execution);
    if (!gradients.bias.empty())
      for (Index n = 0; n < d_y.rows(); ++n)
        detail::add_scaled(1, d_y.row_data(n), gradients.bias.view().row_data(expert), out());
    if (d_x) call.execution.product_nn(d_y, of_expert(parameters_.weight.view(), expert), d_x);
  }

  void add_delta(Index expert, T factor, View<T> w, auto) const {
    require(!options_.bias, ErrorCode::option, "DenseMaps: expected experts without a bias to merge, found one");
    for (Index o = 0; o < out(); ++o)
      for (Index i = 0; i < in(); ++i) w(o, i) += factor * parameters_.weight(expert * out() + o, i);
  }

 private:
  template <class U>
  View<U> of_expert(View<U> all, Index expert) const {
    return all.middle_rows(expert * out(), out());
  }

  Options options_;
  Parameters parameters_;
};

static_assert(TrainableMapPolicy<DenseMaps<float>> && LinearMapPolicy<DenseMaps<float>>);

}  // namespace mole

#include "mole/core/macros_on.hpp"
