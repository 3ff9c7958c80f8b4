// SPDX-License-Identifier: MIT
// CosineRouter: the router that compares the direction of a token with a prototype per expert.
#pragma once

#include "mole/core/linear_parameters.hpp"
#include "mole/core/random.hpp"
#include "mole/core/unit_vector.hpp"
#include "mole/router/router_policy.hpp"

#include <algorithm>
#include <cmath>

#include "mole/core/macros_off.hpp"

namespace mole {

/// logits_e = scale * cos(h, c_e),   h = x P^T + b, or x itself without a projection.
///
///   x [N x I], projection.weight P [H x I], projection.bias b [1 x H], prototypes c [E x H], logits [N x E]
///   scale = exp(min(log_scale, log 100)), log_scale [1 x 1], or 1 without a learned scale
///
/// Logits lie in [-scale, scale] and do not change when h or a prototype is scaled. Norms are at least 1e-12
/// (UnitVector): an h or a prototype of zeros has cosines of 0 and gets no gradient from them. A log_scale above its
/// bound gets no gradient either.
/// Prototypes start as N(0, deviation^2), the projection as that of a LinearRouter, log_scale at log 2.
/// Throws Error(option) for sizes below 1, a negative projection, and unless deviation is from 1e-10 to 1e10.
/// Scratch: 2 N (E + H) numbers with a projection, 2 N E without, and 2 E H.
/// Source: ProMoE, ali-vilab/ProMoE, models/models_ProMoE_TC.py: no projection, no learned scale. Tutel,
/// microsoft/Tutel, tutel/gates/cosine_top.py: a projection of 256, a learned scale (there "temperature", with the
/// prototypes as the columns of "sim_matrix"), deviation 0.01.
template <class T>
class CosineRouter {
 public:
  using Scalar = T;

  struct Options {
    Index in = 0;
    Index experts = 0;     ///< including the extra columns of the gate, if any
    Index projection = 0;  ///< width H; 0: no projection, H = I
    bool learned_scale = false;
    double deviation = 0.02;  ///< standard deviation of the initial prototypes
  };

  struct Parameters {
    LinearParameters<T> projection;
    Matrix<T> prototypes, log_scale;

    template <class F, class... P>
    static void for_each_tensor(F&& f, P&... p) {
      for_each_tensor_within<LinearParameters<T>>("projection", f, p.projection...);
      f("prototypes", p.prototypes...);
      f("log_scale", p.log_scale...);
    }
  };

  struct Scratch {
    View<T> projected, d_projected;    // h [tokens x H], only with a projection
    View<T> cosines, d_cosines;        // [tokens x E]
    View<T> directions, d_directions;  // of the prototypes [E x H]
    std::span<double> token_lengths, prototype_lengths;
  };

  template <std::uniform_random_bit_generator Generator>
  CosineRouter(const Options& options, Generator& generator) {
    check(options);
    if (options.projection > 0) {
      parameters_.projection = {Matrix<T>(options.projection, options.in), Matrix<T>(1, options.projection)};
      const double bound = 1 / std::sqrt(double(options.in));
      fill_uniform(parameters_.projection.weight.view(), bound, generator);
      fill_uniform(parameters_.projection.bias.view(), bound, generator);
    }
    parameters_.prototypes = Matrix<T>(options.experts, options.projection > 0 ? options.projection : options.in);
    for (T& c : parameters_.prototypes.elements()) c = T(options.deviation * standard_normal(generator));
    if (!options.learned_scale) return;
    parameters_.log_scale = Matrix<T>(1, 1);
    parameters_.log_scale(0, 0) = T(std::log(2));
  }

  void check_sizes() const {
    parameters_.projection.check_sizes("CosineRouter: projection");
    if (projects())
      require_equal(ErrorCode::shape, "CosineRouter: columns of the prototypes", parameters_.projection.weight.rows(),
                    width());
    require(parameters_.log_scale.size() <= 1, ErrorCode::shape, "CosineRouter: expected one log_scale, found ",
            parameters_.log_scale.size());
  }

  Index outputs() const { return parameters_.prototypes.rows(); }
  Index in() const { return projects() ? parameters_.projection.weight.cols() : width(); }
  Parameters& parameters() { return parameters_; }
  const Parameters& parameters() const { return parameters_; }
  /// The factor of the cosines.
  double scale() const {
    return parameters_.log_scale.empty() ? 1 : std::exp(double(std::min(parameters_.log_scale(0, 0), most_log_scale)));
  }

  Scratch scratch(const CallSize& size, Arena& arena) const {
    const Index tokens = size.tokens, projected = projects() ? tokens : 0;
    return {arena.matrix<T>(projected, width()), arena.matrix<T>(projected, width()),
            arena.matrix<T>(tokens, outputs()),  arena.matrix<T>(tokens, outputs()),
            arena.matrix<T>(outputs(), width()), arena.matrix<T>(outputs(), width()),
            arena.array<double>(tokens),         arena.array<double>(outputs())};
  }

  void forward(View<const T> x, View<T> logits, auto call) const {
    point_prototypes(call.scratch);
    project(x, call);
    const View<const T> h = features(x, call.scratch);
    const View<T> cosines = call.scratch.cosines.top(x.rows());
    call.execution.product_nt(h, call.scratch.directions, cosines);
    const T scale = T(this->scale());
    for (Index n = 0; n < cosines.rows(); ++n) {
      const UnitVector token = UnitVector::of(h.row(n));
      call.scratch.token_lengths[std::size_t(n)] = token.length;
      for (Index e = 0; e < cosines.cols(); ++e) {
        cosines(n, e) *= T(token.scale());
        logits(n, e) = scale * cosines(n, e);
      }
    }
  }

  /// With the results of forward() in the scratch, u_n and v_e the directions of h_n and c_e, d_cos = scale d_logits:
  ///   d_h_n = (sum_e d_cos_ne v_e - <d_cos_n, cos_n> u_n) / ||h_n||,   d_c_e alike;   d_log_scale += <d_cos, cos>
  void backward(View<const T> x, View<const T> d_logits, View<T> d_x, Parameters& gradients, auto call) const {
    const View<const T> h = features(x, call.scratch);
    weigh_by_length(d_logits, call.scratch);
    if (!gradients.prototypes.empty()) add_prototype_gradient(h, gradients.prototypes, call);
    if (!gradients.log_scale.empty()) add_log_scale_gradient(d_logits, gradients.log_scale, call.scratch);
    if (!projects()) {
      if (d_x) add_feature_gradient(h, d_logits, d_x, call);
      return;
    }
    if (!d_x && !any_wanted(gradients.projection)) return;
    const View<T> d_h = call.scratch.d_projected.top(x.rows());
    fill(d_h, T(0));
    add_feature_gradient(h, d_logits, d_h, call);
    gradients.projection.add_gradients(x, d_h, call.execution);
    if (d_x) call.execution.product_nn(d_h, parameters_.projection.weight, d_x);
  }

 private:
  static constexpr T most_log_scale = T(4.60517018598809137);  // log 100

  static void check(const Options& options) {
    require(options.in >= 1 && options.experts >= 1 && options.projection >= 0, ErrorCode::option,
            "CosineRouter: expected in and experts of at least 1 and a projection of at least 0, found ", options.in,
            ", ", options.experts, ", ", options.projection);
    require(options.deviation >= 1e-10 && options.deviation <= 1e10, ErrorCode::option,
            "CosineRouter: expected a deviation from 1e-10 to 1e10, found ", options.deviation);
  }

  bool projects() const { return !parameters_.projection.weight.empty(); }
  Index width() const { return parameters_.prototypes.cols(); }

  View<const T> features(View<const T> x, const Scratch& scratch) const {
    return projects() ? scratch.projected.top(x.rows()) : x;
  }

  void project(View<const T> x, auto call) const {
    if (!projects()) return;
    call.execution.linear(x, parameters_.projection.weights(), call.scratch.projected.top(x.rows()));
  }

  void point_prototypes(Scratch& scratch) const {
    const View<const T> prototypes = parameters_.prototypes;
    for (Index e = 0; e < prototypes.rows(); ++e) {
      const UnitVector direction = UnitVector::of(prototypes.row(e));
      scratch.prototype_lengths[std::size_t(e)] = direction.length;
      const T scale = T(direction.scale());
      for (Index j = 0; j < prototypes.cols(); ++j)
        scratch.directions.row_data(e)[j] = scale * prototypes.row_data(e)[j];
    }
  }

  /// d_cosines_ne = scale d_logits_ne / ||h_n||
  void weigh_by_length(View<const T> d_logits, Scratch& scratch) const {
    const double scale = this->scale();
    for (Index n = 0; n < d_logits.rows(); ++n) {
      const T factor = T(scale * UnitVector{scratch.token_lengths[std::size_t(n)]}.d_scale());
      for (Index e = 0; e < d_logits.cols(); ++e)
        scratch.d_cosines(n, e) = d_logits(n, e) == 0 ? T(0) : factor * d_logits(n, e);
    }
  }

  /// Sum over experts of d_logits times the cosine.
  static double radial_of_token(View<const T> d_logits, const Scratch& scratch, Index n) {
    double sum = 0;
    for (Index e = 0; e < d_logits.cols(); ++e)
      if (d_logits(n, e) != 0) sum += double(d_logits(n, e)) * double(scratch.cosines(n, e));
    return sum;
  }

  void add_feature_gradient(View<const T> h, View<const T> d_logits, View<T> d_h, auto call) const {
    call.execution.product_nn(call.scratch.d_cosines.top(h.rows()), call.scratch.directions, d_h);
    const double scale = this->scale();
    for (Index n = 0; n < h.rows(); ++n) {
      const UnitVector token{call.scratch.token_lengths[std::size_t(n)]};
      const double radial = token.inward(radial_of_token(d_logits, call.scratch, n));
      if (radial == 0) continue;
      const T factor = T(scale * token.d_scale() * radial * token.scale());
      for (Index j = 0; j < h.cols(); ++j) d_h.row_data(n)[j] -= factor * h.row_data(n)[j];
    }
  }

  void add_prototype_gradient(View<const T> h, Matrix<T>& gradient, auto call) const {
    const View<T> d_v = call.scratch.d_directions;
    fill(d_v, T(0));
    add_outer_products<T>(call.scratch.d_cosines.top(h.rows()), h, d_v, call.execution);
    for (Index e = 0; e < d_v.rows(); ++e) {
      const UnitVector prototype{call.scratch.prototype_lengths[std::size_t(e)]};
      const T scale = T(prototype.d_scale()),
              inward = T(prototype.inward(radial_of_prototype(call.scratch, e, h.rows())));
      const T* const v = call.scratch.directions.row_data(e);
      for (Index j = 0; j < d_v.cols(); ++j)
        gradient.view().row_data(e)[j] += scale * (d_v.row_data(e)[j] - inward * v[j]);
    }
  }
  /// <v_e, d_v_e> = sum over tokens of d_cosine <v_e, h_n>
  static double radial_of_prototype(const Scratch& scratch, Index e, Index tokens) {
    double sum = 0;
    for (Index n = 0; n < tokens; ++n)
      if (scratch.d_cosines(n, e) != 0)
        sum += double(scratch.d_cosines(n, e)) * double(scratch.cosines(n, e)) /
               UnitVector{scratch.token_lengths[std::size_t(n)]}.scale();
    return sum;
  }

  void add_log_scale_gradient(View<const T> d_logits, Matrix<T>& gradient, const Scratch& scratch) const {
    if (parameters_.log_scale(0, 0) > most_log_scale) return;
    double sum = 0;
    for (Index n = 0; n < d_logits.rows(); ++n) sum += radial_of_token(d_logits, scratch, n);
    gradient(0, 0) += T(scale() * sum);
  }

  Parameters parameters_;
};

static_assert(TrainableRouterPolicy<CosineRouter<float>>);

}  // namespace mole

#include "mole/core/macros_on.hpp"
