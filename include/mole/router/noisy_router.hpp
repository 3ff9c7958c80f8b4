// SPDX-License-Identifier: MIT
// NoisyRouter: a router whose logits get random noise in training, so that every expert is tried.
#pragma once

#include "mole/core/float_range.hpp"
#include "mole/core/linear_parameters.hpp"
#include "mole/core/state.hpp"
#include "mole/core/token_random.hpp"
#include "mole/router/router_policy.hpp"

#include <algorithm>
#include <cmath>
#include <utility>

#include "mole/core/macros_off.hpp"

namespace mole {

/// What the noise is drawn from: N(0, 1), or the Gumbel distribution, with which the best expert is a sample of the
/// softmax.
enum class LogitNoise { normal, gumbel };

/// The noise on the logits of a router.
struct NoisyRouterOptions {
  bool learned = false;
  double floor = 0;  ///< deviation of the noise, or what is added to the learned one
  LogitNoise noise = LogitNoise::normal;
  std::uint64_t stream = 2000;
};

/// logits = clean + noise * deviation in training, and clean otherwise, clean being the logits of the router:
///
///   deviation = floor + softplus(x W_noise^T)   learned, W_noise [E x I], 0 at first; or `floor` for all
///   x [N x I]   clean, noise, deviation, logits [N x E] with the extra columns of the gate, if any
///
///   Shazeer et al.     {.learned = true}, before Gate{Softmax{}, TopK{k}, Renormalized{}}
///   Tutel              {.floor = gate_noise / E}
///   DeepSpeed, NLLB    {.floor = 1, .noise = LogitNoise::gumbel}
///
/// Noise is a function of (seed, layer, step, token, stream, column): it is the same on any number of threads, and
/// drawn again for each step. After forward, router_scratch.clean and .deviation are what a load loss compares with
/// thresholds; the gradients that it has for them, and noise that is not to be drawn, are handed over before backward:
///     work.router_scratch.carry = {.noise = e, .d_clean = d_c, .d_deviation = d_s};
/// A logit of -infinity stays. Throws Error(option) for a floor that is not 0 or from 1e-30 to 1e30, or for a learned
/// deviation of a router that does not say how many inputs it has.  Scratch: 5 [tokens x E].
/// Source: Shazeer et al. 2017, arXiv:1701.06538, eq. 4-5, where floor = 0. The common port, davidmrau/
/// mixture-of-experts, has a floor of 0.01. Tutel, tutel/impls/moe_layer.py; DeepSpeed, moe/sharded_moe.py ("RSample").
template <class Router>
class NoisyRouter {
  static_assert(RouterPolicy<Router>, "mole: Router must model RouterPolicy (mole/router/router_policy.hpp)");

 public:
  using Scalar = typename Router::Scalar;
  using T = Scalar;
  static constexpr Reads reads = reads_of<Router>;
  static constexpr bool borrows = borrows_parameters<Router>;

  using Options = NoisyRouterOptions;

  struct Parameters {
    ParametersOf<Router> router;
    Matrix<T> noise;  // W_noise, empty if nothing is learned

    template <class F, class... P>
    static void for_each_tensor(F&& f, P&... p) {
      for_each_tensor_within<ParametersOf<Router>>("router", f, p.router...);
      f("noise", p.noise...);
    }
  };

  /// The parameters in place; converts to Parameters, to make gradients of the same shapes.
  template <class Of, class Noise>
  struct Parts {
    Of router;
    Noise& noise;
    operator Parameters() const { return {router, noise}; }
  };

  /// What a caller may hand over with a call [N x E]; any may be empty.
  struct Carry {
    View<const T> noise = {};        ///< in place of what would be drawn
    View<const T> d_clean = {};      ///< gradients of a loss of the clean logits
    View<const T> d_deviation = {};  ///< and of the deviations
  };

  struct Scratch {
    Carry carry;
    View<T> clean, noise, deviation;  // [tokens x E]
    View<T> slope;                    // d deviation / d (x W_noise^T)
    View<T> d;                        // of clean, then of x W_noise^T
    ScratchOf<Router> router;
  };

  NoisyRouter(Router router, const Options& options) : router_(std::move(router)), options_(options) {
    require(options.floor == 0 || (options.floor > 0 && in_float_range(options.floor)), ErrorCode::option,
            "NoisyRouter: expected a floor of 0 or from 1e-30 to 1e30, found ", options.floor);
    if (!options.learned) return;
    if constexpr (requires { router_.in(); })
      noise_ = Matrix<T>(router_.outputs(), router_.in());
    else
      detail::fail(ErrorCode::option,
                   {"NoisyRouter: expected a router with in() for learned noise, found one without"});
  }

  void check_sizes() const {
    detail::check_sizes(router_);
    const Index in = noise_.cols();
    require(!options_.learned || (noise_.rows() == outputs() && in == inputs(in)), ErrorCode::shape,
            "NoisyRouter: expected noise of [", outputs(), " x ", inputs(in), "], found [", noise_.rows(), " x ", in,
            "]");
  }
  void check_gradients(const Parameters& gradients) const { detail::check_gradients(router_, gradients.router); }

  Index outputs() const { return router_.outputs(); }
  Index in() const requires requires(const Router& router) { router.in(); }
  { return router_.in(); }

  const Options& options() const { return options_; }
  Router& router() { return router_; }
  const Router& router() const { return router_; }
  auto parameters() { return Parts<decltype(parameters_of(router_)), Matrix<T>>{parameters_of(router_), noise_}; }
  auto parameters() const {
    return Parts<decltype(parameters_of(router_)), const Matrix<T>>{parameters_of(router_), noise_};
  }

  /// Does this pass have noise?
  bool acts(const Pass& pass) const { return pass.training && (options_.learned || options_.floor > 0); }

  template <class F>
  void for_each_state(F&& f) {
    for_each_state_within("router", router_, f);
  }

  Scratch scratch(const CallSize& size, Arena& arena) const {
    const auto each = [&] { return arena.matrix<T>(size.tokens, outputs()); };
    return {{}, each(), each(), each(), each(), each(), scratch_for(router_, size, arena)};
  }

  void forward(View<const T> in, View<T> logits, auto call) const {
    Scratch& s = call.scratch;
    forward_router(router_, in, logits, call.with(s.router));
    if (!acts(call.pass)) return;
    check(s.carry, in.rows());
    copy<T>(logits, s.clean.top(in.rows()));
    if (options_.learned) call.execution.product_nt(in, noise_, s.deviation.top(in.rows()));
    const Index chunk = std::max<Index>(1, 256 / outputs());
    call.execution.parallel_for((in.rows() + chunk - 1) / chunk, [&](Index c) {
      for (Index n = c * chunk; n < std::min(in.rows(), (c + 1) * chunk); ++n) {
        const TokenRandom random(call.pass, options_.stream, n);
        for (Index e = 0; e < outputs(); ++e) {
          deviate(s.deviation(n, e), s.slope(n, e));
          s.noise(n, e) = s.carry.noise ? s.carry.noise(n, e) : T(drawn(random, e));
          logits(n, e) += s.noise(n, e) * s.deviation(n, e);
        }
      }
    });
  }

  /// With d = d_logits + d_clean:   d_in and the router's gradients are the router's, from d;
  ///   d_raw = (d_logits noise + d_deviation) sigmoid(raw), raw = x W_noise^T;   d_W_noise += d_raw^T x,
  ///   d_in += d_raw W_noise
  void backward(View<const T> in, View<const T> d_logits, View<T> d_in, Parameters& gradients,
                auto call) const requires TrainableRouterPolicy<Router> {
    Scratch& s = call.scratch;
    const auto of_router = call.with(s.router);
    if (!acts(call.pass)) return router_.backward(in, d_logits, d_in, gradients.router, of_router);
    check(s.carry, in.rows());
    const View<T> d = s.d.top(in.rows());
    copy(d_logits, d);
    if (s.carry.d_clean) for_each(d, [&](Index n, Index e) { d(n, e) += s.carry.d_clean(n, e); });
    router_.backward(in, View<const T>(d), d_in, gradients.router, of_router);
    if (!options_.learned || (!d_in && gradients.noise.empty())) return;
    for_each(d, [&](Index n, Index e) {
      const T of_loss = s.carry.d_deviation ? s.carry.d_deviation(n, e) : T(0);
      const T of_logit = d_logits(n, e) == 0 ? T(0) : d_logits(n, e) * s.noise(n, e);
      d(n, e) = of_logit + of_loss == 0 ? T(0) : (of_logit + of_loss) * s.slope(n, e);  // 0 times NaN is NaN
    });
    if (!gradients.noise.empty()) add_outer_products<T>(d, in, gradients.noise.view(), call.execution);
    if (d_in) call.execution.product_nn(View<const T>(d), noise_, d_in);
  }

 private:
  /// What x W_noise^T has as its columns, as far as is known.
  Index inputs(Index otherwise) const {
    if constexpr (requires { router_.in(); }) return router_.in();
    return otherwise;
  }

  template <class F>
  static void for_each(View<T> matrix, F f) {
    for (Index n = 0; n < matrix.rows(); ++n)
      for (Index e = 0; e < matrix.cols(); ++e) f(n, e);
  }

  /// raw -> deviation, and its slope.
  void deviate(T& deviation, T& slope) const {
    if (!options_.learned) return void(deviation = T(options_.floor));
    const T raw = deviation, small = std::exp(-std::abs(raw));
    slope = (raw > 0 ? T(1) : small) / (1 + small);
    deviation = T(options_.floor) + std::max(raw, T(0)) + std::log1p(small);
  }
  double drawn(const TokenRandom& random, Index column) const {
    return options_.noise == LogitNoise::normal ? random.normal(column) : random.gumbel(column);
  }

  void check(const Carry& carry, Index tokens) const {
    for (const View<const T>& matrix : {carry.noise, carry.d_clean, carry.d_deviation})
      require(!matrix || (matrix.rows() == tokens && matrix.cols() == outputs()), ErrorCode::shape,
              "NoisyRouter: expected a carry of [", tokens, " x ", outputs(), "], found [", matrix.rows(), " x ",
              matrix.cols(), "]");
  }

  Router router_;
  Options options_;
  Matrix<T> noise_;
};

}  // namespace mole

#include "mole/core/macros_on.hpp"
