// SPDX-License-Identifier: MIT
// OffByOneModulation: the experts that MoFME's released loop really runs.
#pragma once

#include "mole/maps/feature_modulation.hpp"

#include <cmath>
#include <numbers>
#include <utility>

#include "mole/core/macros_off.hpp"

namespace mole {

/// f_0(u) = GELU(u), and f_e = the modulation e - 1 of E; modulation E - 1 is never used, nor trained.
///
/// The release keeps norm, base, GELU and experts in one list and counts from one place too low. For its checkpoints
/// only: FeatureModulation is what its authors describe. The GELU is the exact one, u Phi(u).
/// Source: RoyZry98/MoFME-Pytorch, models/moe/film.py.
template <class T>
class OffByOneModulation {
 public:
  using Scalar = T;
  using Modulation = FeatureModulation<T>;
  using Options = typename Modulation::Options;
  using Parameters = typename Modulation::Parameters;
  using Scratch = typename Modulation::Scratch;

  template <std::uniform_random_bit_generator Generator>
  OffByOneModulation(const Options& options, Generator& generator) : modulation_(options, generator) {}
  explicit OffByOneModulation(Modulation modulation) : modulation_(std::move(modulation)) {}

  void check_sizes() const { modulation_.check_sizes(); }
  Index experts() const { return modulation_.experts(); }
  Index in() const { return modulation_.in(); }
  Index out() const { return modulation_.out(); }
  double scale(double alpha, Scaling scaling, Index expert) const { return modulation_.scale(alpha, scaling, expert); }
  Parameters& parameters() { return modulation_.parameters(); }
  const Parameters& parameters() const { return modulation_.parameters(); }
  const Modulation& modulation() const { return modulation_; }
  template <std::uniform_random_bit_generator Generator>
  void reset(Generator& generator) {
    modulation_.reset(generator);
  }

  Scratch scratch(const CallSize& size, Arena& arena) const { return modulation_.scratch(size, arena); }

  void map(Index expert, View<const T> u, View<T> y, auto call) const {
    if (expert > 0) return modulation_.map(expert - 1, u, y, call);
    call.execution.parallel_for(u.rows(), [&](Index n) {
      for (Index i = 0; i < u.cols(); ++i) y.row_data(n)[i] = u.row_data(n)[i] * normal_share(u.row_data(n)[i]);
    });
  }

  /// d_u += d_y o (Phi(u) + u phi(u)) of expert 0
  void map_backward(Index expert, View<const T> u, View<const T> d_y, View<T> d_u, Parameters& gradients,
                    auto call) const {
    if (expert > 0) return modulation_.map_backward(expert - 1, u, d_y, d_u, gradients, call);
    if (!d_u) return;
    constexpr T density_at_0 = T(1 / std::numbers::sqrt2 * std::numbers::inv_sqrtpi);
    call.execution.parallel_for(u.rows(), [&](Index n) {
      for (Index i = 0; i < u.cols(); ++i) {
        const T x = u.row_data(n)[i];
        d_u.row_data(n)[i] += d_y.row_data(n)[i] * (normal_share(x) + x * density_at_0 * std::exp(-x * x / 2));
      }
    });
  }

 private:
  /// Phi, of the standard normal distribution.
  static T normal_share(T x) { return T(0.5) * std::erfc(-x / std::numbers::sqrt2_v<T>); }

  Modulation modulation_;
};

static_assert(TrainableMapPolicy<OffByOneModulation<float>>);

}  // namespace mole

#include "mole/core/macros_on.hpp"
