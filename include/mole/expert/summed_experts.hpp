// SPDX-License-Identifier: MIT
// SummedExperts: experts of two kinds in one, such as whole matrices and LoRA on each of them.
#pragma once

#include "mole/core/pair_parameters.hpp"
#include "mole/core/state.hpp"
#include "mole/expert/expert_policy.hpp"

#include <utility>

#include "mole/core/macros_off.hpp"

namespace mole {

/// y_n += what First add + what Second add, under one routing: expert e is the sum of both experts e.
///
///   x [N x I], y [N x O]
///
/// LoRA on the full experts of a mixture that is trained: SummedExperts{MapExperts<DenseMaps>, LowRank}, with an empty
/// gradient of what is frozen (Uni-MoE, peft's target_parameters). Parameters are named "first..." and "second...".
/// Throws Error(shape) unless both have the same numbers of experts, inputs and outputs.
/// Source: Li et al. 2024 (Uni-MoE), arXiv:2405.11273.
template <ExpertPolicy First, ExpertPolicy Second>
class SummedExperts {
 public:
  using Scalar = typename First::Scalar;
  using T = Scalar;
  static constexpr bool borrows = borrows_parameters<First> || borrows_parameters<Second>;
  static constexpr bool pairs_interact = !pairs_add_up<First> || !pairs_add_up<Second>;

  using Parameters = PairParameters<First, Second>;

  struct Scratch {
    ScratchOf<First> first;
    ScratchOf<Second> second;
  };

  SummedExperts(First first, Second second) : first_(std::move(first)), second_(std::move(second)) { check_sizes(); }

  void check_sizes() const {
    detail::check_sizes(first_);
    detail::check_sizes(second_);
    require_equal(ErrorCode::shape, "SummedExperts: number of the second", Index(first_.experts()),
                  Index(second_.experts()));
    require_equal(ErrorCode::shape, "SummedExperts: inputs of the second", Index(first_.in()), Index(second_.in()));
    require_equal(ErrorCode::shape, "SummedExperts: outputs of the second", Index(first_.out()), Index(second_.out()));
  }
  void check_gradients(const Parameters& gradients) const {
    detail::check_gradients(first_, gradients.first);
    detail::check_gradients(second_, gradients.second);
  }

  Index experts() const { return first_.experts(); }
  Index in() const { return first_.in(); }
  Index out() const { return first_.out(); }
  First& first() { return first_; }
  Second& second() { return second_; }
  const First& first() const { return first_; }
  const Second& second() const { return second_; }
  auto parameters() { return detail::pair_in_place(first_, second_); }
  auto parameters() const { return detail::pair_in_place(first_, second_); }

  template <class F>
  void for_each_state(F&& f) {
    for_each_state_within("first", first_, f);
    for_each_state_within("second", second_, f);
  }

  Scratch scratch(CallSize size, Arena& arena) const {
    size.latent = false;  // of which of them?
    return {scratch_for(first_, size, arena), scratch_for(second_, size, arena)};
  }

  void forward(View<const T> x, View<const T>, const Routing<T>& routing, View<T> y, auto call) const {
    first_.forward(x, {}, routing, y, call.with(call.scratch.first));
    second_.forward(x, {}, routing, y, call.with(call.scratch.second));
  }

  void backward(View<const T> x, const Routing<T>& routing, View<const T> d_y, std::span<T> d_gate, View<T> d_x,
                Parameters& gradients,
                auto call) const requires TrainableExpertPolicy<First> && TrainableExpertPolicy<Second> {
    first_.backward(x, routing, d_y, d_gate, d_x, gradients.first, call.with(call.scratch.first));
    second_.backward(x, routing, d_y, d_gate, d_x, gradients.second, call.with(call.scratch.second));
  }

  /// w += weight * the sum of both matrices of the expert.   w [O x I].  Offline.
  void add_delta(Index expert, double weight,
                 View<T> w) const requires MergeableExpertPolicy<First> && MergeableExpertPolicy<Second> {
    first_.add_delta(expert, weight, w);
    second_.add_delta(expert, weight, w);
  }

 private:
  First first_;
  Second second_;
};

}  // namespace mole

#include "mole/core/macros_on.hpp"
