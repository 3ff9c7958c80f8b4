// SPDX-License-Identifier: MIT
// UncertaintyCalibration: what several random outputs of a router say together, by their mean and covariance.
#pragma once

#include "mole/core/error.hpp"
#include "mole/core/float_range.hpp"
#include "mole/core/scratch.hpp"

#include <algorithm>
#include <cmath>
#include <span>
#include <type_traits>

#include "mole/core/macros_off.hpp"

namespace mole {

/// How an uncertain expert loses weight.
///     literal    gate = mean over m of v_m / (|v_m| + epsilon),  v_m = (Sigma + epsilon 1)^-1 (r_m - mu)
///     whitened   logit_e = mu_e / sqrt(Sigma_ee + epsilon)
/// `literal` is the paper's formula, as a summary of it and the release have it, with the release's two epsilons: what
/// the release would compute if its axes were right. Its gates are centered: they have both signs and no particular
/// sum. `whitened` is ours, for the same statistics: logits for a softmax, each drawn to 0, towards indifference, by
/// its own deviation.
enum class Calibration { literal, whitened };

/// Of M outputs r_m of a router for one token, mu their mean, Sigma their covariance (over M - 1; 0 for M = 1).
///
///   r_m, result [E], in T; computed in double
///
/// Differences are taken from r_0 first, so that equal outputs have exactly no covariance, whatever M is. In the
/// release their mean is off by rounding, which (epsilon 1)^-1 and the norm blow up to weights of length 1; here such a
/// token has `literal` gates of exactly 0, and its outputs no gradient.
///
/// backward() takes mu and Sigma as constants in `literal`, and Sigma in `whitened`, unless `full_gradient`.
/// Cost per token: `literal` O(E^3 + M E^2), twice in backward, which with `full_gradient` takes O(M^2 E) more;
/// `whitened` O(M E). No allocation.
/// Source: Zhang et al. 2024 (MoFME), arXiv:2312.16610; RoyZry98/MoFME-Pytorch, models/moe/film.py.
struct UncertaintyCalibration {
  Calibration form = Calibration::whitened;
  double epsilon = 1;
  bool full_gradient = false;

  struct Scratch {
    View<double> centered, whitened, adjoint;  // r_m - mu, v_m, and (Sigma + epsilon 1)^-1 d_v_m [M x E]
    View<double> factor;                       // of Sigma + epsilon 1 = L L^T [E x E]
    std::span<double> mean;                    // mu [E]
  };

  /// Throws Error(option) unless epsilon is from 1e-30 to 1e30.
  void check() const {
    require(epsilon > 0 && in_float_range(epsilon), ErrorCode::option,
            "UncertaintyCalibration: expected an epsilon from 1e-30 to 1e30, found ", epsilon);
  }

  static Scratch scratch(Index samples, Index experts, Arena& arena) {
    return {arena.matrix<double>(samples, experts), arena.matrix<double>(samples, experts),
            arena.matrix<double>(samples, experts), arena.matrix<double>(experts, experts),
            arena.array<double>(experts)};
  }

  /// sample(m) -> r_m, of `samples` many. Leaves mu in scratch.mean.
  template <class T, class Sample>
  void forward(Index samples, Sample sample, std::span<T> result, Scratch& s) const {
    const Index experts = Index(result.size());
    const bool certain = center(samples, sample, experts, s);
    if (form == Calibration::whitened) {
      for (Index e = 0; e < experts; ++e)
        result[std::size_t(e)] = T(s.mean[std::size_t(e)] / std::sqrt(variance(samples, e, s) + epsilon));
      return;
    }
    std::fill(result.begin(), result.end(), T(0));
    if (certain) return;
    whiten(samples, experts, s);
    for (Index e = 0; e < experts; ++e) {
      double sum = 0;
      for (Index m = 0; m < samples; ++m) sum += s.whitened(m, e) / (length(s.whitened.row(m)) + epsilon);
      result[std::size_t(e)] = T(sum / double(samples));
    }
  }

  /// d_sample(m) += what d_result says of r_m. With u = v / (|v| + epsilon), n = |v|:
  ///   d_v = (d_u - u <u, d_u> (n + epsilon) / n) / (n + epsilon),   a_m = (Sigma + epsilon 1)^-1 d_v_m,   d_r_m = a_m;
  ///   in full, with c_m = r_m - mu:   d_c_k = a_k - sum over m of (<v_m, c_k> a_m + <a_m, c_k> v_m) / (M - 1),
  ///   and d_r_m = d_c_m - their mean
  template <class T, class Sample, class DSample>
  void backward(Index samples, Sample sample, std::span<const T> d_result, DSample d_sample, Scratch& s) const {
    const Index experts = Index(d_result.size());
    const bool certain = center(samples, sample, experts, s);
    if (form == Calibration::whitened) return whitened_backward<T>(samples, d_result, d_sample, s);
    if (certain) return;
    whiten(samples, experts, s);
    for (Index m = 0; m < samples; ++m) {
      const std::span<const double> v = s.whitened.row(m);
      const double n = length(v), scale = 1 / ((n + epsilon) * double(samples));
      double along = 0;
      for (Index e = 0; e < experts; ++e) along += v[std::size_t(e)] * double(d_result[std::size_t(e)]);
      const double inward = n > 0 ? along / (n * (n + epsilon)) : 0;
      for (Index e = 0; e < experts; ++e)
        s.adjoint(m, e) = scale * (double(d_result[std::size_t(e)]) - inward * v[std::size_t(e)]);
      solve(s.factor, s.adjoint.row(m));
    }
    if (!full_gradient) {
      for (Index m = 0; m < samples; ++m)
        for (Index e = 0; e < experts; ++e) d_sample(m)[std::size_t(e)] += T(s.adjoint(m, e));
      return;
    }
    for (Index k = 0; k < samples; ++k) add_full(k, samples, experts, d_sample, s);
  }

 private:
  /// r_m - mu and mu; are all samples equal?
  template <class Sample>
  static bool center(Index samples, Sample sample, Index experts, Scratch& s) {
    bool certain = true;
    for (Index e = 0; e < experts; ++e) {
      const double first = double(sample(0)[std::size_t(e)]);
      double mean = 0;
      for (Index m = 0; m < samples; ++m) {
        s.centered(m, e) = double(sample(m)[std::size_t(e)]) - first;
        certain = certain && s.centered(m, e) == 0;
        mean += s.centered(m, e);
      }
      mean /= double(samples);
      for (Index m = 0; m < samples; ++m) s.centered(m, e) -= mean;
      s.mean[std::size_t(e)] = first + mean;
    }
    return certain;
  }

  static double variance(Index samples, Index e, const Scratch& s) {
    double sum = 0;
    for (Index m = 0; m < samples; ++m) sum += s.centered(m, e) * s.centered(m, e);
    return samples > 1 ? sum / double(samples - 1) : 0;
  }

  /// v_m of all samples.
  void whiten(Index samples, Index experts, Scratch& s) const {
    for (Index i = 0; i < experts; ++i)
      for (Index j = 0; j <= i; ++j) {
        double sum = 0;
        for (Index m = 0; m < samples; ++m) sum += s.centered(m, i) * s.centered(m, j);
        sum = sum / double(samples - 1) + (i == j ? epsilon : 0);
        for (Index q = 0; q < j; ++q) sum -= s.factor(i, q) * s.factor(j, q);
        s.factor(i, j) = i == j ? std::sqrt(std::max(sum, epsilon * 1e-6)) : sum / s.factor(j, j);  // rounding
      }
    copy(View<const double>(s.centered.top(samples)), s.whitened.top(samples));
    for (Index m = 0; m < samples; ++m) solve(s.factor, s.whitened.row(m));
  }
  /// b = (L L^T)^-1 b
  static void solve(View<const double> l, std::span<double> b) {
    const auto size = Index(b.size());
    for (Index i = 0; i < size; ++i) {
      for (Index j = 0; j < i; ++j) b[std::size_t(i)] -= l(i, j) * b[std::size_t(j)];
      b[std::size_t(i)] /= l(i, i);
    }
    for (Index i = size - 1; i >= 0; --i) {
      for (Index j = i + 1; j < size; ++j) b[std::size_t(i)] -= l(j, i) * b[std::size_t(j)];
      b[std::size_t(i)] /= l(i, i);
    }
  }

  static double product(std::span<const double> one, std::span<const double> two) {
    double sum = 0;
    for (std::size_t i = 0; i < one.size(); ++i) sum += one[i] * two[i];
    return sum;
  }
  static double length(std::span<const double> v) { return std::sqrt(product(v, v)); }

  /// What d_c_k gives: all of it to r_k, and its mean is taken from every sample.
  template <class DSample>
  static void add_full(Index k, Index samples, Index experts, DSample d_sample, Scratch& s) {
    const std::span<double> d = s.mean;  // mu is not needed any more
    std::ranges::copy(s.adjoint.row(k), d.begin());
    for (Index m = 0; m < samples; ++m) {
      const double v = product(s.whitened.row(m), s.centered.row(k)) / double(samples - 1);
      const double a = product(s.adjoint.row(m), s.centered.row(k)) / double(samples - 1);
      for (Index e = 0; e < experts; ++e) d[std::size_t(e)] -= v * s.adjoint(m, e) + a * s.whitened(m, e);
    }
    for (Index e = 0; e < experts; ++e) {
      using T = std::remove_reference_t<decltype(d_sample(0)[0])>;
      d_sample(k)[std::size_t(e)] += T(d[std::size_t(e)]);
      for (Index m = 0; m < samples; ++m) d_sample(m)[std::size_t(e)] -= T(d[std::size_t(e)] / double(samples));
    }
  }

  /// d_mu = d / sqrt(Sigma + epsilon);   in full also d_Sigma = -mu d / 2 (Sigma + epsilon)^(-3/2)
  template <class T, class DSample>
  void whitened_backward(Index samples, std::span<const T> d_result, DSample d_sample, Scratch& s) const {
    for (std::size_t e = 0; e < d_result.size(); ++e) {
      const double spread = variance(samples, Index(e), s) + epsilon, d = double(d_result[e]);
      const double d_mean = d / std::sqrt(spread) / double(samples);
      const double d_variance = full_gradient && samples > 1 ? -s.mean[e] * d / (2 * spread * std::sqrt(spread)) : 0;
      for (Index m = 0; m < samples; ++m)
        d_sample(m)[e] +=
            T(d_mean + (d_variance == 0 ? 0 : 2 * d_variance * s.centered(m, Index(e)) / double(samples - 1)));
    }
  }
};

}  // namespace mole

#include "mole/core/macros_on.hpp"
