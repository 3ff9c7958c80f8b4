// SPDX-License-Identifier: MIT
// Sgd: stochastic gradient descent with momentum.
#pragma once

#include "mole/optim/moments.hpp"
#include "mole/optim/parameter_group.hpp"

#include <type_traits>
#include <utility>

#include "mole/core/macros_off.hpp"

namespace mole {

/// Moves parameters by their gradient, or by its decaying sum.
///
///   g = g + weight_decay p      u = momentum u + g      p = p - rate u      (nesterov: p - rate (g + momentum u))
///
/// u is stored as State, in one buffer made by the first step or by reserve(), even if momentum is 0; later steps
/// allocate nothing. Frozen tensors (an empty gradient) are neither read nor written. Equal inputs give equal bits.
/// Throws as AdamW does.  O(parameters) per step.
/// Source: Sutskever et al. 2013, in the form of PyTorch's SGD, where the rate multiplies the velocity.
template <class State = float>
class Sgd : public MomentOptimizer<Sgd<State>, State, 1> {
 public:
  struct Options {
    double learning_rate = 1e-2;
    double momentum = 0;
    bool nesterov = false;    ///< look ahead by one more step of the velocity
    double weight_decay = 0;  ///< added to the gradient as weight_decay * p
    std::vector<ParameterGroup> groups = {};

    void check() const {
      detail::require_rate("Sgd", "learning_rate", learning_rate);
      require(momentum >= 0 && momentum < 1, ErrorCode::option, "Sgd: expected a momentum in [0, 1), found ", momentum);
      detail::require_rate("Sgd", "weight_decay", weight_decay);
      detail::require_rates(groups);
      require(!nesterov || momentum > 0, ErrorCode::option, "Sgd: expected a momentum above 0 with nesterov, found ",
              momentum);
    }
  };

  Sgd() = default;
  explicit Sgd(Options options) : options_(std::move(options)) { options_.check(); }

  double learning_rate() const { return options_.learning_rate; }
  void set_learning_rate(double rate) {
    detail::require_rate("Sgd", "learning_rate", rate);
    options_.learning_rate = rate;
  }
  std::span<const ParameterGroup> groups() const { return options_.groups; }
  /// The options that u depends on, and how it acts.
  std::string kind() const {
    return Sgd::described("Sgd", {{"momentum", options_.momentum}, {"nesterov", options_.nesterov}});
  }

 private:
  friend MomentOptimizer<Sgd, State, 1>;

  template <class T>
  void update(std::string_view name, View<T> parameter, View<T> gradient, auto state) const {
    const auto update = update_for<std::common_type_t<T, State>>(name);
    for (Index r = 0; r < parameter.rows(); ++r)
      update(parameter.row(r), gradient.row(r), state[0].data() + r * parameter.cols());
  }

  /// The coefficients of one tensor's step.
  template <class Work>
  struct Update {
    Work rate, momentum, decay, gradient_share, velocity_share;  // p -= rate (gradient_share g + velocity_share u)

    template <class T>
    void operator()(std::span<T> parameter, std::span<T> gradient, State* velocity) const;
  };
  template <class Work>
  Update<Work> update_for(std::string_view name) const;

  Options options_;
};

template <class State>
template <class Work>
typename Sgd<State>::template Update<Work> Sgd<State>::update_for(std::string_view name) const {
  const ParameterGroup* const group = group_of(options_.groups, name);
  const double decay = group ? group->weight_decay.value_or(options_.weight_decay) : options_.weight_decay;
  return {.rate = Work(options_.learning_rate * (group ? group->learning_rate_scale : 1)),
          .momentum = Work(options_.momentum),
          .decay = Work(decay),
          .gradient_share = options_.nesterov ? Work(1) : Work(0),
          .velocity_share = options_.nesterov ? Work(options_.momentum) : Work(1)};
}

template <class State>
template <class Work>
template <class T>
void Sgd<State>::Update<Work>::operator()(std::span<T> parameter, std::span<T> gradient, State* velocity) const {
  for (std::size_t i = 0; i < parameter.size(); ++i) {
    const Work p = Work(parameter[i]), g = Work(gradient[i]) + decay * p;
    const Work u = momentum * Work(velocity[i]) + g;
    velocity[i] = State(u);
    parameter[i] = T(p - rate * (gradient_share * g + velocity_share * u));
  }
}

}  // namespace mole

#include "mole/core/macros_on.hpp"
