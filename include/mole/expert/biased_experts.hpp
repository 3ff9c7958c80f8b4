// SPDX-License-Identifier: MIT
// BiasedExperts: experts that add a trained bias each.
#pragma once

#include "mole/core/matrix.hpp"
#include "mole/core/row.hpp"
#include "mole/expert/expert_policy.hpp"

#include <random>
#include <span>
#include <utility>

#include "mole/core/macros_off.hpp"

namespace mole {

/// y_n += sum over the chosen e of what `Experts` add, and scale_e gate_ne bias_e.
///
///   bias [E x O]
///
/// Over DenseFactors this is a LoRA whose B has a bias (peft's lora_bias). Any experts that have scales will do. The
/// bias starts at 0. The experts are no longer added in the base's pass, and the bias takes another over y; a router
/// cannot read their latent. merge_into() refuses them: merge unbiased(), and add gate scale_e bias_e to the bias of
/// the base.
template <ExpertPolicy Experts>
class BiasedExperts {
 public:
  using Scalar = typename Experts::Scalar;
  using T = Scalar;
  using Scratch = ScratchOf<Experts>;
  static constexpr bool borrows = borrows_parameters<Experts>;
  static constexpr bool pairs_interact = !pairs_add_up<Experts>;

  struct Parameters {
    ParametersOf<Experts> experts;
    Matrix<T> bias;

    template <class F, class... P>
    static void for_each_tensor(F&& f, P&... p) {
      ParametersOf<Experts>::for_each_tensor(f, p.experts...);
      f("bias", p.bias...);
    }
  };

  /// The parameters in place: for_each_tensor visits them through references. Converts to Parameters, which owns its
  /// tensors, to make gradients of the same shapes.
  template <class P, class M>
  struct Parts {
    P experts;
    M& bias;
    operator Parameters() const { return {experts, bias}; }
  };

  explicit BiasedExperts(Experts experts) : experts_(std::move(experts)), bias_(experts_.experts(), experts_.out()) {}

  void check_sizes() const {
    detail::check_sizes(experts_);
    require(bias_.rows() == experts() && bias_.cols() == out(), ErrorCode::shape, "BiasedExperts: expected a bias of [",
            experts(), " x ", out(), "], found [", bias_.rows(), " x ", bias_.cols(), "]");
  }
  void check_gradients(const Parameters& gradients) const { detail::check_gradients(experts_, gradients.experts); }

  Index experts() const { return experts_.experts(); }
  Index in() const { return experts_.in(); }
  Index out() const { return experts_.out(); }
  decltype(auto) scale() { return experts_.scale(); }
  decltype(auto) scale() const { return experts_.scale(); }
  Experts& unbiased() { return experts_; }
  const Experts& unbiased() const { return experts_; }
  Matrix<T>& bias() { return bias_; }
  const Matrix<T>& bias() const { return bias_; }
  auto parameters() { return Parts<decltype(parameters_of(experts_)), Matrix<T>>{parameters_of(experts_), bias_}; }
  auto parameters() const {
    return Parts<decltype(parameters_of(experts_)), const Matrix<T>>{parameters_of(experts_), bias_};
  }

  /// Reinitializes the experts, and sets the bias to 0.
  template <std::uniform_random_bit_generator Generator>
  requires requires(Experts& experts, Generator& generator) { experts.reset(generator); }
  void reset(Generator& generator) {
    experts_.reset(generator);
    bias_.set_zero();
  }

  template <class F>
  void for_each_state(F&& f) {
    if constexpr (requires { experts_.for_each_state(f); }) experts_.for_each_state(f);
  }

  Scratch scratch(const CallSize& size, Arena& arena) const { return scratch_for(experts_, size, arena); }

  void forward(View<const T> x, View<const T> latent, const Routing<T>& routing, View<T> y, auto call) const {
    experts_.forward(x, latent, routing, y, call);
    for (Index e = 0; e < experts(); ++e) {
      const std::span<const int> pairs = routing.pairs_of(e);
      call.execution.parallel_for(Index(pairs.size()), [&](Index i) {
        const int pair = pairs[std::size_t(i)];
        detail::add_scaled(scale()[std::size_t(e)] * routing.gate(pair), bias_row(e), y.row_data(routing.token(pair)),
                           out());
      });
    }
  }

  void backward(View<const T> x, const Routing<T>& routing, View<const T> d_y, std::span<T> d_gate, View<T> d_x,
                Parameters& gradients, auto call) const requires TrainableExpertPolicy<Experts> {
    experts_.backward(x, routing, d_y, d_gate, d_x, gradients.experts, call);
    call.execution.parallel_for(experts(), [&](Index e) {
      for (const int pair : routing.pairs_of(e)) {
        const T* const d_row = d_y.row_data(routing.token(pair));
        const T factor = scale()[std::size_t(e)];
        if (!d_gate.empty()) d_gate[std::size_t(pair)] += factor * detail::dot(d_row, bias_row(e), out());
        if (!gradients.bias.empty())
          detail::add_scaled(factor * routing.gate(pair), d_row, gradients.bias.view().row_data(e), out());
      }
    });
  }

 private:
  const T* bias_row(Index expert) const { return bias_.view().row_data(expert); }

  Experts experts_;
  Matrix<T> bias_;
};

}  // namespace mole

#include "mole/core/macros_on.hpp"
