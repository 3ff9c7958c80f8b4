// SPDX-License-Identifier: MIT
// AdamW: Adam with decoupled weight decay.
#pragma once

#include "mole/kernel/adamw_update.hpp"
#include "mole/optim/moments.hpp"
#include "mole/optim/parameter_group.hpp"

#include <cmath>
#include <type_traits>
#include <utility>

#include "mole/core/macros_off.hpp"

namespace mole {

/// Moves parameters by the running mean of their gradient over the root of its running mean square.
///
///   m = beta1 m + (1 - beta1) g      v = beta2 v + (1 - beta2) g^2      at step t = 1, 2, ...
///   p = p - rate ( (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + epsilon) + weight_decay p )
///
/// With epsilon_on_raw the epsilon of step t is epsilon / sqrt(1 - beta2^t): 32 times as large at first, for beta2 =
/// 0.999.
/// m and v are stored as State, in one buffer each, made by the first step or by reserve(); later steps allocate
/// nothing. Frozen tensors (an empty gradient) are neither read nor written. Equal inputs give equal bits.
/// Throws Error(option) for options out of range, and Error(shape), before anything changes, with the name of a tensor
/// that appears, vanishes or changes size between steps.  O(parameters) per step.
/// Source: Loshchilov and Hutter 2019, arXiv:1711.05101, algorithm 2.
template <class State = float, class Arch = kernel::DefaultArchitecture>
class AdamW : public MomentOptimizer<AdamW<State, Arch>, State, 2> {
 public:
  struct Options {
    double learning_rate = 1e-3;
    double beta1 = 0.9;
    double beta2 = 0.999;
    double epsilon = 1e-8;
    double weight_decay = 0.01;
    bool epsilon_on_raw = false;  ///< added before the bias correction of v: Hugging Face transformers
    bool bias_correction = true;  ///< false: neither m nor v is divided by 1 - beta^t, as in SoRA's release
    std::vector<ParameterGroup> groups = {};

    void check() const {
      detail::require_rate("AdamW", "learning_rate", learning_rate);
      require(beta1 >= 0 && beta1 < 1, ErrorCode::option, "AdamW: expected beta1 in [0, 1), found ", beta1);
      require(beta2 >= 0 && beta2 < 1, ErrorCode::option, "AdamW: expected beta2 in [0, 1), found ", beta2);
      require(epsilon >= 1e-37 && std::isfinite(epsilon), ErrorCode::option,
              "AdamW: expected an epsilon from 1e-37 up, found ", epsilon);
      detail::require_rate("AdamW", "weight_decay", weight_decay);
      detail::require_rates(groups);
    }
  };

  AdamW() = default;
  explicit AdamW(Options options) : options_(std::move(options)) { options_.check(); }

  double learning_rate() const { return options_.learning_rate; }
  void set_learning_rate(double rate) {
    detail::require_rate("AdamW", "learning_rate", rate);
    options_.learning_rate = rate;
  }
  std::span<const ParameterGroup> groups() const { return options_.groups; }
  /// The options that m and v depend on, and how they act.
  std::string kind() const {
    return AdamW::described("AdamW", {{"beta1", options_.beta1},
                                      {"beta2", options_.beta2},
                                      {"epsilon", options_.epsilon},
                                      {"epsilon_on_raw", options_.epsilon_on_raw},
                                      {"bias_correction", options_.bias_correction}});
  }

 private:
  friend MomentOptimizer<AdamW, State, 2>;

  template <class T>
  void update(std::string_view name, View<T> parameter, View<T> gradient, auto state) const;
  /// Everything that depends on the step alone is computed once, in double.
  template <class T>
  kernel::AdamWUpdate<Arch, T> update_for(std::string_view name) const;
  template <class T, class Work>
  static void update_mixed(const kernel::AdamWUpdate<Arch, Work>& u, std::span<T> parameter, std::span<T> gradient,
                           State* first, State* second);

  Options options_;
};

template <class State, class Arch>
template <class T>
void AdamW<State, Arch>::update(std::string_view name, View<T> parameter, View<T> gradient, auto state) const {
  const auto update = update_for<std::common_type_t<T, State>>(name);
  for (Index r = 0; r < parameter.rows(); ++r) {
    State* const first = state[0].data() + r * parameter.cols();
    State* const second = state[1].data() + r * parameter.cols();
    if constexpr (std::is_same_v<T, State>)
      update(parameter.row_data(r), gradient.row_data(r), first, second, parameter.cols());
    else
      update_mixed(update, parameter.row(r), gradient.row(r), first, second);
  }
}

template <class State, class Arch>
template <class T>
kernel::AdamWUpdate<Arch, T> AdamW<State, Arch>::update_for(std::string_view name) const {
  const ParameterGroup* const group = group_of(options_.groups, name);
  const double rate = options_.learning_rate * (group ? group->learning_rate_scale : 1);
  const double decay = group ? group->weight_decay.value_or(options_.weight_decay) : options_.weight_decay;
  const double power1 = options_.bias_correction ? std::pow(options_.beta1, double(this->steps())) : 0;
  const double power2 = options_.bias_correction ? std::pow(options_.beta2, double(this->steps())) : 0;
  const double correction1 = 1 - power1, correction2 = 1 - power2;
  return {.beta1 = T(options_.beta1),
          .rest1 = T(1 - options_.beta1),
          .beta2 = T(options_.beta2),
          .rest2 = T(1 - options_.beta2),
          .rate = T(rate / correction1),
          .decay = T(rate * decay),
          .root_scale = T(1 / std::sqrt(correction2)),
          .epsilon = T(options_.epsilon_on_raw ? options_.epsilon / std::sqrt(correction2) : options_.epsilon)};
}

/// Parameters of one type, state of another.
template <class State, class Arch>
template <class T, class Work>
void AdamW<State, Arch>::update_mixed(const kernel::AdamWUpdate<Arch, Work>& u, std::span<T> parameter,
                                      std::span<T> gradient, State* first, State* second) {
  for (std::size_t i = 0; i < parameter.size(); ++i) {
    const Work g = Work(gradient[i]), p = Work(parameter[i]);
    const Work m = u.beta1 * Work(first[i]) + u.rest1 * g;
    const Work v = u.beta2 * Work(second[i]) + u.rest2 * g * g;
    first[i] = State(m);
    second[i] = State(v);
    parameter[i] = T(p - (u.rate * m / (std::sqrt(v) * u.root_scale + u.epsilon) + u.decay * p));
  }
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
