// SPDX-License-Identifier: MIT
// NormalizedMaps: experts whose features are normalized over the tokens of each, and pass a nonlinearity.
#pragma once

#include "mole/core/activation.hpp"
#include "mole/core/dropout.hpp"
#include "mole/core/matrix.hpp"
#include "mole/core/parameters.hpp"
#include "mole/core/rank/scaling.hpp"
#include "mole/core/state.hpp"
#include "mole/maps/map_policy.hpp"
#include "mole/maps/running_moments.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <optional>
#include <string_view>
#include <utility>

#include "mole/core/macros_off.hpp"

namespace mole {

/// Of each expert:   f(x) = act(weight_e o (m_e(x) - mean_e) / sqrt(variance_e + eps) + bias_e),   m_e of `Maps`
///
///   weight and bias [E x O], from 1 and 0
///
/// In training mean and variance are those of the rows that the expert serves in the call, and backward is that of
/// these functions of all rows; a token that the expert does not serve, NaN even, counts for nothing. In evaluation
/// they are the running ones, and a token's result does not depend on its neighbors. A single row in training has no
/// variance: it gives act(bias_e), whatever it holds, and has no gradient. Masked tokens that are routed count: leave
/// them out by Pass::routed.
///
/// Forward leaves the moments of a training call in its scratch, and the caller adds them:
///
///     layer.experts().maps().running().update(work.experts_scratch.maps.batch);
///
/// before or after backward, once a step. They are no parameters: a checkpoint has them as "running.mean" and
/// "running.variance". Moments are summed in double. Scratch: [tokens x O] twice, [E x O] twice.
///
/// Throws Error(option) for an eps that is not positive, and for inner maps with an alpha or a dropout of their own,
/// which nobody would read.
/// Source: Wang et al. 2024 (HoME), arXiv:2408.05430: Swish(BatchNorm(MLP(x))); Ioffe and Szegedy 2015,
/// arXiv:1502.03167.
template <MapPolicy Maps, ActivationPolicy Activation = SiLU>
class NormalizedMaps {
 public:
  using Scalar = typename Maps::Scalar;
  using T = Scalar;
  static constexpr bool borrows = borrows_parameters<Maps>;

  struct Options {
    typename Maps::Options maps = {};  ///< without alpha, scaling and dropout, which are those of the whole expert
    double eps = 1e-5;
    double momentum = 0.1;  ///< of the running moments
    Activation activation = {};
    std::optional<double> alpha = {};  ///< unset: scale 1
    Scaling scaling = Scaling::fixed;
    Dropout dropout = {};  ///< on the experts' input
  };

  struct Parameters {
    ParametersOf<Maps> maps;
    Matrix<T> weight, bias;

    template <class F, class... P>
    static void for_each_tensor(F&& f, P&... p) {
      for_each_tensor_within<ParametersOf<Maps>>("maps", f, p.maps...);
      f("weight", p.weight...);
      f("bias", p.bias...);
    }
  };
  /// The parameters in place; converts to Parameters, to make gradients of the same shapes.
  template <class P, class M>
  struct Parts {
    P maps;
    M &weight, &bias;
    operator Parameters() const { return {maps, weight, bias}; }
    template <class F, class... All>
    static void for_each_tensor(F&& f, All&... all) {
      Parameters::for_each_tensor(f, all...);
    }
  };

  struct Scratch {
    View<T> normal, d;      // [tokens x O]: normalized features, and gradients
    BatchMoments<T> batch;  // of the last forward that trained
    View<T> used;           // mean and 1 / sqrt(variance + eps) of the expert at hand [2 x O]
    bool forward = false;   // does map() belong to a forward, or to its backward?
    ScratchOf<Maps> maps;
  };

  template <std::uniform_random_bit_generator Generator>
  NormalizedMaps(const Options& options, Generator& generator)
      : NormalizedMaps(Maps(options.maps, generator), options.eps, options.momentum, options.activation) {
    require(!options.maps.alpha && options.maps.dropout.rate == 0, ErrorCode::option,
            "NormalizedMaps: expected alpha and dropout of the whole expert, found those of its maps");
  }
  /// Around existing maps.
  explicit NormalizedMaps(Maps maps, double eps = 1e-5, double momentum = 0.1, Activation activation = {})
      : maps_(std::move(maps)),
        eps_(eps),
        activation_(activation),
        weight_(maps_.experts(), maps_.out()),
        bias_(maps_.experts(), maps_.out()),
        running_(maps_.experts(), maps_.out(), momentum) {
    require(eps > 0 && std::isfinite(eps), ErrorCode::option, "NormalizedMaps: expected a positive eps, found ", eps);
    fill(weight_.view(), T(1));
  }

  void check_sizes() const {
    detail::check_sizes(maps_);
    for (const Matrix<T>* tensor : {&weight_, &bias_})
      require(tensor->rows() == experts() && tensor->cols() == out(), ErrorCode::shape,
              "NormalizedMaps: expected a weight and a bias of [", experts(), " x ", out(), "], found [",
              tensor->rows(), " x ", tensor->cols(), "]");
  }
  void check_gradients(const Parameters& gradients) const { detail::check_gradients(maps_, gradients.maps); }

  Index experts() const { return maps_.experts(); }
  Index in() const { return maps_.in(); }
  Index out() const { return maps_.out(); }
  double scale(double alpha, Scaling scaling, Index expert) const { return maps_.scale(alpha, scaling, expert); }
  Maps& maps() { return maps_; }
  const Maps& maps() const { return maps_; }
  RunningMoments<T>& running() { return running_; }
  const RunningMoments<T>& running() const { return running_; }
  auto parameters() { return Parts<decltype(parameters_of(maps_)), Matrix<T>>{parameters_of(maps_), weight_, bias_}; }
  auto parameters() const {
    return Parts<decltype(parameters_of(maps_)), const Matrix<T>>{parameters_of(maps_), weight_, bias_};
  }

  /// Reinitializes, as the constructor does.
  template <std::uniform_random_bit_generator Generator>
  requires requires(Maps& maps, Generator& generator) { maps.reset(generator); }
  void reset(Generator& generator) {
    maps_.reset(generator);
    fill(weight_.view(), T(1));
    bias_.set_zero();
    running_.reset();
  }

  /// The running moments, and the state of the maps.
  template <class F>
  void for_each_state(F&& f) {
    for_each_state_within("running", running_, f);
    for_each_state_within("maps", maps_, f);
  }

  Scratch scratch(const CallSize& size, Arena& arena) const {
    const auto of_experts = [&](Index rows, Index cols) { return arena.matrix<T>(rows, cols); };
    return {arena.matrix<T>(size.tokens, out()),
            arena.matrix<T>(size.tokens, out()),
            {of_experts(1, experts()), of_experts(experts(), out()), of_experts(experts(), out())},
            of_experts(2, out()),
            false,
            scratch_for(maps_, size, arena)};
  }

  /// The first call of a forward, in which no expert has rows yet.
  void prepare(auto call) const {
    if constexpr (requires { maps_.prepare(call.with(call.scratch.maps)); })
      maps_.prepare(call.with(call.scratch.maps));
    call.scratch.forward = true;
    fill(call.scratch.batch.count, T(0));
  }

  void map(Index expert, View<const T> x, View<T> y, auto call) const {
    maps_.map(expert, x, y, call.with(call.scratch.maps));
    measure(expert, View<const T>(y), call);
    const View<const T> used = call.scratch.used;
    const std::span<const T> weight = weight_.view().row(expert), bias = bias_.view().row(expert);
    call.execution.parallel_for(y.rows(), [&](Index n) {
      const std::span<T> row = y.row(n);
      for (std::size_t o = 0; o < row.size(); ++o)
        row[o] = activation_.value(weight[o] * (row[o] - used.row(0)[o]) * used.row(1)[o] + bias[o]);
    });
  }

  void begin_backward(Parameters& gradients, auto call) const {
    call.scratch.forward = false;
    if constexpr (requires { maps_.begin_backward(gradients.maps, call.with(call.scratch.maps)); })
      maps_.begin_backward(gradients.maps, call.with(call.scratch.maps));
  }
  /// With u = (m(x) - mean) / root and d_v of the argument of act:   weight += sum d_v u, bias += sum d_v, and
  /// d_m = weight / root (d_v - (sum d_v + u sum d_v u) / n), the bracket being d_v alone in evaluation.
  void map_backward(Index expert, View<const T> x, View<const T> d_y, View<T> d_x, Parameters& gradients,
                    auto call) const {
    const View<T> normal = call.scratch.normal.top(x.rows()), d = call.scratch.d.top(x.rows());
    maps_.map(expert, x, normal, call.with(call.scratch.maps));
    measure(expert, View<const T>(normal), call);
    const View<const T> used = call.scratch.used;
    const bool of_batch = call.pass.training;
    for_each_chunk(call.execution, [&](Index first, Index end) {
      Sums of_d{}, of_product{};
      for (Index n = 0; n < x.rows(); ++n)
        for (Index o = first; o < end; ++o) {
          const T u = normal(n, o) = (normal(n, o) - used(0, o)) * used(1, o);
          d(n, o) = d_y(n, o) * activation_.derivative(weight_(expert, o) * u + bias_(expert, o));
          of_d[std::size_t(o - first)] += double(d(n, o));
          of_product[std::size_t(o - first)] += double(d(n, o)) * double(u);
        }
      for (Index o = first; o < end; ++o) {
        const double sum = of_d[std::size_t(o - first)], product = of_product[std::size_t(o - first)];
        if (!gradients.weight.empty()) gradients.weight(expert, o) += T(product);
        if (!gradients.bias.empty()) gradients.bias(expert, o) += T(sum);
        const T mean = of_batch ? T(sum / double(x.rows())) : T(0),
                slope = of_batch ? T(product / double(x.rows())) : T(0), factor = weight_(expert, o) * used(1, o);
        for (Index n = 0; n < x.rows(); ++n) d(n, o) = factor * (d(n, o) - mean - normal(n, o) * slope);
      }
    });
    maps_.map_backward(expert, x, View<const T>(d), d_x, gradients.maps, call.with(call.scratch.maps));
  }
  void contract(Parameters& gradients, auto call) const {
    if constexpr (requires { maps_.contract(gradients.maps, call.with(call.scratch.maps)); })
      maps_.contract(gradients.maps, call.with(call.scratch.maps));
  }

 private:
  static constexpr Index width = 64;  // features of one thread, so that sums over rows have one order
  using Sums = std::array<double, std::size_t(width)>;

  void for_each_chunk(const auto& execution, auto f) const {
    execution.parallel_for((out() + width - 1) / width,
                           [&](Index chunk) { f(chunk * width, std::min(out(), (chunk + 1) * width)); });
  }

  /// Leaves what the expert's rows z are normalized by in `used`, and in a forward that trains their moments.
  void measure(Index expert, View<const T> z, auto call) const {
    auto& s = call.scratch;
    const View<T> used = s.used;
    const bool training = call.pass.training, keeps = training && s.forward;
    const double rows = double(z.rows());
    for_each_chunk(call.execution, [&](Index first, Index end) {
      Sums means{}, variances{};
      if (training) {
        for (Index n = 0; n < z.rows(); ++n)
          for (Index o = first; o < end; ++o) means[std::size_t(o - first)] += double(z(n, o)) / rows;
        for (Index n = 0; n < z.rows(); ++n)
          for (Index o = first; o < end; ++o) {
            const double off = double(z(n, o)) - means[std::size_t(o - first)];
            variances[std::size_t(o - first)] += off * off / rows;
          }
      }
      for (Index o = first; o < end; ++o) {
        const auto at = std::size_t(o - first);
        const double mean = training ? means[at] : double(running_.mean()(expert, o)),
                     variance = training ? variances[at] : double(running_.variance()(expert, o));
        used(0, o) = T(mean), used(1, o) = T(1 / std::sqrt(variance + eps_));
        if (keeps) s.batch.mean(expert, o) = T(mean), s.batch.variance(expert, o) = T(variance);
      }
    });
    if (keeps) s.batch.count(0, expert) = T(z.rows());
  }

  Maps maps_;
  double eps_;
  [[no_unique_address]] Activation activation_;
  Matrix<T> weight_, bias_;
  RunningMoments<T> running_;
};

}  // namespace mole

#include "mole/core/macros_on.hpp"
