// SPDX-License-Identifier: MIT
// ModuleGates: one trained gate for each adapted module of a model, which says whether it needs its adapter.
#pragma once

#include "mole/core/error.hpp"
#include "mole/core/matrix.hpp"
#include "mole/core/parameters.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <numeric>
#include <span>
#include <string_view>
#include <vector>

#include "mole/core/macros_off.hpp"

namespace mole {

/// What a module's gate is while it is trained: its share among the modules of its layer, or its own sigmoid.
enum class ModuleRelaxation { softmax, sigmoid };

/// The gates of N modules in each of L layers: softmax over a row of alpha, or sigmoid, or, once discretized, 0 or 1.
///
///   alpha [L x N], 0 at first: with softmax every gate starts at 1 / N
///
/// The layers of one row are coupled, so the gates are owned outside: trained once, by their owner, and borrowed by a
/// ModuleRouter in each layer. discretize(ratio) keeps the ceil(ratio N) largest alpha of each row, ties to the lower
/// module: their gates are 1, the others 0. No gradient moves alpha then. State: the choice.
///
/// This is a reconstruction. DiffoRA's abstract names a differential adaptation matrix in {0, 1}, its continuous
/// relaxation, bilevel optimization and a selection ratio; the paper's text and code were not at hand, so the kind of
/// relaxation is ours, after DARTS. Softmax is the default: modules of a layer compete for a budget, and that is what
/// the ratio keeps of each. Throws Error(option) for sizes below 1.
/// Source: DiffoRA 2025, arXiv:2502.08905, abstract; Liu et al. 2019 (DARTS), arXiv:1806.09055.
template <class T>
class ModuleGates {
 public:
  using Scalar = T;

  struct Options {
    Index layers = 0;   ///< L
    Index modules = 0;  ///< N, of each layer
    ModuleRelaxation relaxation = ModuleRelaxation::softmax;
  };

  struct Parameters {
    Matrix<T> alpha;

    template <class F, class... P>
    static void for_each_tensor(F&& f, P&... p) {
      f("alpha", p.alpha...);
    }
  };

  explicit ModuleGates(const Options& options) : options_(options) {
    require(options.layers >= 1 && options.modules >= 1, ErrorCode::option,
            "ModuleGates: expected layers and modules of at least 1, found ", options.layers, " and ", options.modules);
    parameters_.alpha = Matrix<T>(options.layers, options.modules);
    kept_.assign(std::size_t(parameters_.alpha.size()), 1);
  }

  /// Throws Error(shape) if `alpha` was replaced by one of another size.
  void check_sizes() const { check_gradients(parameters_, "ModuleGates"); }
  /// Throws Error(shape), naming `who`, unless `p` has the sizes of these gates, or is empty where it is frozen.
  void check_gradients(const Parameters& p, std::string_view who) const {
    require((p.alpha.empty() && &p != &parameters_) ||
                (p.alpha.rows() == options_.layers && p.alpha.cols() == options_.modules),
            ErrorCode::shape, who, ": expected an alpha of [", options_.layers, " x ", options_.modules, "], found [",
            p.alpha.rows(), " x ", p.alpha.cols(), "]");
  }

  const Options& options() const { return options_; }
  Parameters& parameters() { return parameters_; }
  const Parameters& parameters() const { return parameters_; }
  Parameters gradients() const { return zeros_like(parameters_); }

  /// Calls f(name, parameter, other...) with one View per tensor, for the parameters and each of `others`.
  template <class F, class... Others>
  void for_each_tensor(F&& f, Others&... others) {
    detail::for_each_view<Parameters>(f, parameters_, others...);
  }
  template <class F>
  void for_each_state(F&& f) {
    f("discrete", std::span<std::uint8_t>(&discrete_, 1));
    f("kept", std::span<std::uint8_t>(kept_));
  }

  bool discrete() const { return discrete_ != 0; }
  /// Is the module among those that discretize() kept? All are, before.
  bool keeps(Index layer, Index module) const { return kept_[std::size_t(layer * options_.modules + module)] != 0; }

  T gate(Index layer, Index module) const {
    if (discrete()) return keeps(layer, module) ? T(1) : T(0);
    const std::span<const T> alpha = parameters_.alpha.view().row(layer);
    const T own = alpha[std::size_t(module)];
    if (options_.relaxation == ModuleRelaxation::sigmoid) return 1 / (1 + std::exp(-own));
    const T most = *std::ranges::max_element(alpha);
    T sum = 0;
    for (T a : alpha) sum += std::exp(a - most);
    return std::exp(own - most) / sum;
  }

  /// gradients.alpha += what d_gate of one module says of its row:   g_i (delta_ij - g_j) d, or g_i (1 - g_i) d
  void add_gradient(Index layer, Index module, T d_gate, Parameters& gradients) const {
    if (discrete() || gradients.alpha.empty()) return;
    const T own = gate(layer, module);
    if (options_.relaxation == ModuleRelaxation::sigmoid) {
      gradients.alpha(layer, module) += own * (1 - own) * d_gate;
      return;
    }
    const std::span<const T> alpha = parameters_.alpha.view().row(layer);
    const T most = *std::ranges::max_element(alpha), own_exp = std::exp(alpha[std::size_t(module)] - most);
    T sum = 0;
    for (T a : alpha) sum += std::exp(a - most);
    for (Index j = 0; j < options_.modules; ++j)
      gradients.alpha(layer, j) +=
          own_exp / sum * ((j == module ? T(1) : T(0)) - std::exp(alpha[std::size_t(j)] - most) / sum) * d_gate;
  }

  /// Throws Error(option) unless the ratio is from 0 to 1. 0 keeps nothing, 1 everything.
  void discretize(double ratio) {
    require(ratio >= 0 && ratio <= 1, ErrorCode::option, "ModuleGates: expected a ratio from 0 to 1, found ", ratio);
    const Index count = kept_of(ratio);
    std::vector<Index> order(std::size_t(options_.modules));
    for (Index layer = 0; layer < options_.layers; ++layer) {
      std::iota(order.begin(), order.end(), Index(0));
      std::ranges::stable_sort(order, std::greater(), [&](Index i) { return parameters_.alpha(layer, i); });
      for (Index j = 0; j < options_.modules; ++j)
        kept_[std::size_t(layer * options_.modules + order[std::size_t(j)])] = j < count;
    }
    discrete_ = 1;
  }
  /// Back to relaxed gates, alpha being what it was.
  void relax() {
    std::ranges::fill(kept_, std::uint8_t(1));
    discrete_ = 0;
  }

 private:
  /// ceil(ratio N), where a product that is whole but for rounding is whole: 0.07 * 100 is 7.
  Index kept_of(double ratio) const { return Index(std::ceil(ratio * double(options_.modules) * (1 - 1e-12))); }

  Options options_;
  Parameters parameters_;
  std::vector<std::uint8_t> kept_;  // [L N]
  std::uint8_t discrete_ = 0;
};

}  // namespace mole

#include "mole/core/macros_on.hpp"
