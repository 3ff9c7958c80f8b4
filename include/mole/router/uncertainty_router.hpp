// SPDX-License-Identifier: MIT
// UncertaintyRouter: a linear router that asks itself several times, with dropout, and trusts what does not waver.
#pragma once

#include "mole/core/dropout.hpp"
#include "mole/core/linear_parameters.hpp"
#include "mole/router/router_policy.hpp"
#include "mole/router/uncertainty_calibration.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>

#include "mole/core/macros_off.hpp"

namespace mole {

/// In training, M passes l_m = dropout_m(x) W^T + b, calibrated (UncertaintyCalibration); in evaluation one, without
/// dropout, and no random number is drawn.
///
///   x [N x I], weight [E x I], bias [1 x E]
///   Calibration::whitened   logits, of r_m = l_m, for any gate: Gate{Softmax{}, TopK{}, Renormalized{}}
///   Calibration::literal    weights, of r_m = softmax(l_m) over the k largest and all that tie with the last of them,
///                           for Gate{Identity{}, All{}, Raw{}}; experts that no pass keeps get -infinity: nobody
///
/// `whitened` is the default. With its epsilon of 1 the logits of a router without dropout are those of LinearRouter,
/// bit for bit, in training too; those that waver are drawn to 0. `literal` is the published formula: its gates are
/// centered, so the experts' mean is lost in training and is there in evaluation, and without dropout they are all 0.
/// The release has no dropout in its router, contracts the wrong axes, and keeps the samples of earlier layers.
///
/// Pass m draws from stream + m. Scratch: 2 M [tokens x E], with dropout [tokens x I], and 3 M E + E^2 + E doubles.
/// Throws Error(option) for sizes and samples below 1, a k beyond the experts, and options out of range.
/// Source: Zhang et al. 2024 (MoFME), arXiv:2312.16610; Gal and Ghahramani 2016, arXiv:1506.02142.
template <class T>
class UncertaintyRouter {
 public:
  using Scalar = T;
  using Parameters = LinearParameters<T>;

  struct Options {
    Index in = 0;
    Index experts = 0;
    Index samples = 5;                                ///< M, of the release
    Dropout dropout = {.rate = 0.1, .stream = 1000};  ///< ours: the release has none
    Calibration form = Calibration::whitened;
    Index k = 0;                         ///< of literal: experts that a pass keeps; 0: all
    std::optional<double> epsilon = {};  ///< unset: 1 for whitened, 1e-5, the release's, for literal
    bool full_gradient = false;          ///< through mean and covariance, too
  };

  struct Scratch {
    View<T> dropped;             // [tokens x I]
    View<T> samples, d_samples;  // r_m, one pass below the other [M tokens x E]
    UncertaintyCalibration::Scratch calibration;
  };

  template <std::uniform_random_bit_generator Generator>
  UncertaintyRouter(const Options& options, Generator& generator)
      : options_(options),
        calibration_{options.form, options.epsilon.value_or(options.form == Calibration::whitened ? 1 : 1e-5),
                     options.full_gradient} {
    require(options.in >= 1 && options.experts >= 1 && options.samples >= 1, ErrorCode::option,
            "UncertaintyRouter: expected in, experts and samples of at least 1, found ", options.in, ", ",
            options.experts, ", ", options.samples);
    require(options.k >= 0 && options.k <= options.experts, ErrorCode::option,
            "UncertaintyRouter: expected k from 0 to ", options.experts, ", found ", options.k);
    options.dropout.check("UncertaintyRouter");
    calibration_.check();
    parameters_ = {Matrix<T>(options.experts, options.in), Matrix<T>(1, options.experts)};
    const double bound = 1 / std::sqrt(double(options.in));
    fill_uniform(parameters_.weight.view(), bound, generator);
    fill_uniform(parameters_.bias.view(), bound, generator);
  }

  void check_sizes() const { parameters_.check_sizes("UncertaintyRouter"); }

  Index outputs() const { return parameters_.weight.rows(); }
  Index in() const { return parameters_.weight.cols(); }
  const Options& options() const { return options_; }
  Parameters& parameters() { return parameters_; }
  const Parameters& parameters() const { return parameters_; }

  Scratch scratch(const CallSize& size, Arena& arena) const {
    const Index rows = checked_product("UncertaintyRouter: samples", size.tokens, options_.samples);
    const Dropout dropout = options_.dropout;
    return {dropout.scratch<T>(size, in(), arena), arena.matrix<T>(rows, outputs()), arena.matrix<T>(rows, outputs()),
            UncertaintyCalibration::scratch(options_.samples, outputs(), arena)};
  }

  void forward(View<const T> x, View<T> logits, auto call) const {
    if (!call.pass.training) {
      call.execution.linear(x, parameters_.weights(), logits);
      for (Index n = 0; literal() && n < x.rows(); ++n) {
        weigh(logits.row(n));
        for (T& weight : logits.row(n))
          if (weight == 0) weight = nobody;
      }
      return;
    }
    for (Index m = 0; m < options_.samples; ++m) {
      const View<T> r = of_sample(call.scratch.samples, m, x.rows());
      call.execution.linear(seen(m, x, call), parameters_.weights(), r);
      for (Index n = 0; literal() && n < x.rows(); ++n) weigh(r.row(n));
    }
    for (Index n = 0; n < x.rows(); ++n) {
      const auto sample = [&](Index m) { return View<const T>(call.scratch.samples).row(m * x.rows() + n); };
      calibration_.forward(options_.samples, sample, logits.row(n), call.scratch.calibration);
      for (Index e = 0; literal() && e < outputs(); ++e)
        if (!kept_by_any(sample, e)) logits(n, e) = nobody;
    }
  }

  /// With the r_m of forward(): their gradients are those of the calibration, then of a softmax in literal, then of M
  /// linear maps, each with its own dropout.
  void backward(View<const T> x, View<const T> d_logits, View<T> d_x, Parameters& gradients, auto call) const {
    const Index tokens = x.rows();
    if (!call.pass.training) {
      if (!literal()) return linear_backward(x, d_logits, d_x, gradients, call);
      const View<T> r = call.scratch.samples.top(tokens), d = call.scratch.d_samples.top(tokens);
      call.execution.linear(x, parameters_.weights(), r);
      copy(d_logits, d);
      for (Index n = 0; n < tokens; ++n) weigh(r.row(n)), weigh_backward(r.row(n), d.row(n));
      return linear_backward(x, View<const T>(d), d_x, gradients, call);
    }
    const View<T> all = call.scratch.d_samples.top(options_.samples * tokens);
    fill(all, T(0));
    for (Index n = 0; n < tokens; ++n)
      if (std::ranges::any_of(d_logits.row(n), [](T d) { return d != 0; }))  // else x may hold NaN
        calibration_.backward(
            options_.samples, [&](Index m) { return View<const T>(call.scratch.samples).row(m * tokens + n); },
            d_logits.row(n), [&](Index m) { return all.row(m * tokens + n); }, call.scratch.calibration);
    for (Index m = 0; m < options_.samples; ++m) {
      const View<T> d = of_sample(all, m, tokens), r = of_sample(call.scratch.samples, m, tokens);
      for (Index n = 0; literal() && n < tokens; ++n) weigh_backward(r.row(n), d.row(n));
      if (any_wanted(gradients)) gradients.add_gradients(seen(m, x, call), View<const T>(d), call.execution);
      dropout_of(m).seen_backward(d_x, call.scratch.dropped, call.pass, [&](View<T> d_seen) {
        call.execution.product_nn(View<const T>(d), parameters_.weight, d_seen);
      });
    }
  }

 private:
  static constexpr T nobody = -std::numeric_limits<T>::infinity();

  bool literal() const { return options_.form == Calibration::literal; }
  Dropout dropout_of(Index m) const { return {options_.dropout.rate, options_.dropout.stream + std::uint64_t(m)}; }
  View<const T> seen(Index m, View<const T> x, auto call) const {
    return dropout_of(m).seen(x, call.scratch.dropped, call.pass);
  }
  static View<T> of_sample(View<T> all, Index m, Index tokens) { return all.middle_rows(m * tokens, tokens); }

  bool kept_by_any(auto sample, Index e) const {
    for (Index m = 0; m < options_.samples; ++m)
      if (sample(m)[std::size_t(e)] != 0) return true;
    return false;
  }

  /// The softmax over the k largest logits and all that tie with the last of them, in their place; 0 for the others.
  void weigh(std::span<T> logits) const {
    if (std::ranges::any_of(logits, [](T logit) { return std::isnan(logit); }))  // for the gate to count
      return std::ranges::fill(logits, std::numeric_limits<T>::quiet_NaN()), void();
    const T most = *std::ranges::max_element(logits), least = options_.k == 0 ? nobody : kth_largest(logits);
    T sum = 0;
    for (T& logit : logits) {
      logit = logit >= least ? std::max(std::exp(logit - most), std::numeric_limits<T>::min()) : T(0);  // 0: not kept
      sum += logit;
    }
    for (T& weight : logits) weight = weight == 0 ? T(0) : std::max(weight / sum, std::numeric_limits<T>::min());
  }
  T kth_largest(std::span<const T> logits) const {
    for (T candidate : logits) {
      Index larger = 0, equal = 0;
      for (T logit : logits) larger += logit > candidate, equal += logit == candidate;
      if (larger < options_.k && options_.k <= larger + equal) return candidate;
    }
    return nobody;
  }
  /// d = r o (d - <r, d>);   zeros stay, whatever r holds
  static void weigh_backward(std::span<const T> r, std::span<T> d) {
    if (std::ranges::all_of(d, [](T element) { return element == 0; })) return;
    T mean = 0;
    for (std::size_t e = 0; e < r.size(); ++e) mean += r[e] == 0 ? T(0) : r[e] * d[e];
    for (std::size_t e = 0; e < r.size(); ++e) d[e] = r[e] == 0 ? T(0) : r[e] * (d[e] - mean);
  }

  void linear_backward(View<const T> x, View<const T> d_logits, View<T> d_x, Parameters& gradients, auto call) const {
    if (any_wanted(gradients)) gradients.add_gradients(x, d_logits, call.execution);
    if (d_x) call.execution.product_nn(d_logits, parameters_.weight, d_x);
  }

  Options options_;
  UncertaintyCalibration calibration_;
  Parameters parameters_;
};

static_assert(TrainableRouterPolicy<UncertaintyRouter<float>>);

}  // namespace mole

#include "mole/core/macros_on.hpp"
