// SPDX-License-Identifier: MIT
// ExpertLinear: a linear layer with experts that serve a routing from the caller.
#pragma once

#include "mole/base/base_policy.hpp"
#include "mole/core/state.hpp"
#include "mole/execution/default_execution.hpp"
#include "mole/expert/expert_policy.hpp"
#include "mole/layer/layer_parameters.hpp"
#include "mole/layer/workspace.hpp"

#include <utility>

namespace mole {

/// y = base(x) + sum_e s_e g_e B_e (A_e x), with the gates g of a routing from outside: of another layer (k and v reuse
/// q's), from labels, from a classifier over the whole model (X-LoRA), or a replayed trace.
///
///   x, d_x [N x I]   y, d_y [N x O]   d_gate [pairs]
///
/// The layer is const in both directions: all that a call needs or leaves is in the caller's workspace, so threads may
/// share a layer if each has its own workspace. Gradients accumulate, d_x too; an empty d_x or d_gate is not wanted.
/// Calls throw Error(shape) or Error(capacity) for tensors and passes that do not fit, before anything is written.
/// Allocates in workspace() and gradients() only.
template <class Experts, class Base, class Execution = DefaultExecution>
class ExpertLinear {
 public:
  using Scalar = typename Experts::Scalar;
  using T = Scalar;
  using Gradients = ExpertParameters<Experts, Base>;
  using Workspace = ExpertWorkspace<Experts, Base>;

  static_assert(ExpertPolicy<Experts, Execution>,
                "mole: Experts do not model ExpertPolicy (mole/expert/expert_policy.hpp)");
  static_assert(BasePolicy<Base, Execution>, "mole: Base does not model BasePolicy (mole/base/base_policy.hpp)");
  static_assert(ExecutionPolicy<Execution, T>,
                "mole: Execution does not model ExecutionPolicy (mole/execution/execution_policy.hpp)");
  static_assert(std::is_same_v<T, typename Base::Scalar>, "mole: Experts and Base have different Scalars");

  /// Throws Error(shape) when the roles do not fit each other.
  ExpertLinear(Experts experts, Base base, Execution execution = {})
      : experts_(std::move(experts)), base_(std::move(base)), execution_(std::move(execution)) {
    require_equal(ErrorCode::shape, "layer: inputs of the base", Index(experts_.in()), Index(base_.in()));
    require_equal(ErrorCode::shape, "layer: outputs of the base", Index(experts_.out()), Index(base_.out()));
  }

  Index in() const { return experts_.in(); }
  Index out() const { return experts_.out(); }
  Experts& experts() { return experts_; }
  Base& base() { return base_; }
  const Experts& experts() const { return experts_; }
  const Base& base() const { return base_; }
  const Execution& execution() const { return execution_; }

  /// Memory for calls of up to `max_tokens` tokens and `max_pairs` pairs of token and expert; 0 stands for the largest
  /// possible number.
  Workspace workspace(Index max_tokens, Index max_pairs = 0,
                      std::pmr::memory_resource* memory = std::pmr::get_default_resource()) const {
    return detail::workspace_in(memory, make_workspace(max_tokens, max_pairs));
  }
  /// Bytes that such a workspace takes from `memory`, known before it is made: a buffer of this size, aligned to
  /// Arena::line, holds it all.
  std::size_t workspace_bytes(Index max_tokens, Index max_pairs = 0) const {
    return bytes_of(make_workspace(max_tokens, max_pairs));
  }

  /// Zero gradients for the parts that learn, empty ones for the others.
  Gradients gradients(TrainableParts trainable = {}) const {
    Gradients gradients;
    if (trainable.experts) gradients.experts = zeros_like(ParametersOf<Experts>(parameters_of(experts_)));
    if (trainable.base) gradients.base = zeros_like(ParametersOf<Base>(parameters_of(base_)));
    return gradients;
  }

  /// Calls f(name, parameter, other...) with one View per tensor of the layer, for its parameters and each of `others`:
  /// gradients, moments.
  template <class F, class... Others>
  void for_each_tensor(F&& f, Others&... others) {
    struct Own {
      decltype(parameters_of(std::declval<Experts&>())) experts;
      decltype(parameters_of(std::declval<Base&>())) base;
    } own{parameters_of(experts_), parameters_of(base_)};
    detail::for_each_view<Gradients>(f, own, others...);
  }

  /// Calls f(name, span) for all state that is no parameter: scales, frozen atoms and projections. A checkpoint holds
  /// both.
  template <class F>
  void for_each_state(F&& f) {
    for_each_state_within("experts", experts_, f);
    for_each_state_within("base", base_, f);
  }

  /// y = base(x) + what the experts of `routing` add.
  void apply(View<const T> x, const Routing<T>& routing, View<T> y, Workspace& work, const Pass& pass = {}) const {
    check_tokens(x, work);
    pass.check(x.rows(), experts_.experts());
    work.pass = pass;
    add_experts(x, {}, routing, y, work);
  }

  /// After apply() on the same workspace, with the same x. Several layers that share a routing add to one d_gate.
  void apply_backward(View<const T> x, const Routing<T>& routing, View<const T> d_y, std::span<T> d_gate, View<T> d_x,
                      Gradients& gradients, Workspace& work) const requires TrainableExpertPolicy<Experts, Execution> {
    if constexpr (!TrainableBasePolicy<Base, Execution>)
      require(!d_x, ErrorCode::not_trainable, "backward: this base has no backward, so d_x must be an empty view");
    check_output("backward: rows of d_y", "backward: columns of d_y", d_y, x.rows());
    check_gradient(x, d_x);
    require_equal(ErrorCode::shape, "backward: tokens of the routing", x.rows(), routing.tokens());
    if (!d_gate.empty())
      require_equal(ErrorCode::shape, "backward: size of d_gate", routing.pairs(), Index(d_gate.size()));
    const bool fused = d_x && fuses_d_x(work.pass);
    experts_.backward(x, routing, d_y, d_gate, fused ? View<T>{} : d_x, gradients.experts, experts_call(work));
    if constexpr (TrainableBasePolicy<Base, Execution>)
      base_.backward(x, d_y, fused ? View<T>{} : d_x, gradients.base, base_call(work));
    if (fused) add_d_x(d_y, routing, d_x, work);
  }

 protected:
  /// The execution adds the ranks of the experts while a tile of a linear base's result is in cache.
  static constexpr bool fuses = LinearBasePolicy<Base> && RankedExpertPolicy<Experts, Execution>;

  auto experts_call(Workspace& work) const {
    return Call<Execution, ScratchOf<Experts>>{execution_, work.pass, work.experts_scratch};
  }
  auto base_call(Workspace& work) const {
    return Call<Execution, ScratchOf<Base>>{execution_, work.pass, work.base_scratch};
  }

  /// apply() after its checks; a `latent` that is not empty belongs to this x.
  void add_experts(View<const T> x, View<const T> latent, const Routing<T>& routing, View<T> y, Workspace& work) const {
    check_output("apply: rows of y", "apply: columns of y", y, x.rows());
    require_equal(ErrorCode::shape, "apply: tokens of the routing", x.rows(), routing.tokens());
    require_equal(ErrorCode::shape, "apply: experts of the routing", Index(experts_.experts()), routing.experts());
    require(routing.finished(), ErrorCode::shape, "apply: expected a routing after finish(), found one before");
    if constexpr (fuses) {
      execution_.linear(x, base_.weights(), y, experts_.down(x, latent, routing, experts_call(work)));
    } else {
      base_.forward(x, y, base_call(work));
      experts_.forward(x, latent, routing, y, experts_call(work));
    }
  }

  /// May base, experts and a router add their shares of d_x in one pass over it? This saves one read and one write of
  /// d_x for each of them.
  bool fuses_d_x(const Pass& pass) const {
    if constexpr (fuses) return experts_.fuses_d_x(pass);
    return false;
  }
  /// If fuses_d_x(), after the backward of base and experts without d_x:   d_x += all shares
  void add_d_x(View<const T> d_y, const Routing<T>& routing, View<T> d_x, Workspace& work,
               const auto&... router) const {
    if constexpr (fuses)
      execution_.linear_backward(d_y, base_.weights(), d_x, experts_.d_x_terms(routing, experts_call(work)), router...);
  }

  void check_tokens(View<const T> x, const Workspace& work) const {
    require_equal(ErrorCode::shape, "forward: columns of x", in(), x.cols());
    require(x.rows() <= work.max_tokens, ErrorCode::capacity, "forward: workspace made for ", work.max_tokens,
            " tokens, x has ", x.rows());
    require_equal(ErrorCode::capacity, "forward: experts of the workspace", Index(experts_.experts()),
                  work.made_for_experts);
  }
  void check_output(std::string_view rows, std::string_view columns, View<const T> y, Index tokens) const {
    require_equal(ErrorCode::shape, rows, tokens, y.rows());
    require_equal(ErrorCode::shape, columns, out(), y.cols());
  }
  static void check_gradient(View<const T> x, View<T> d_x) {
    if (!d_x) return;
    require_equal(ErrorCode::shape, "backward: rows of d_x", x.rows(), d_x.rows());
    require_equal(ErrorCode::shape, "backward: columns of d_x", x.cols(), d_x.cols());
  }

 private:
  auto make_workspace(Index max_tokens, Index max_pairs) const {
    CallSize::check(max_tokens, max_pairs);
    const CallSize size{.tokens = max_tokens,
                        .pairs = max_pairs > 0 ? max_pairs : max_tokens * experts_.experts(),
                        .experts = experts_.experts()};
    return [this, size](Arena& arena) { return Workspace(experts_, base_, size, arena); };
  }

  Experts experts_;
  Base base_;
  [[no_unique_address]] Execution execution_;
};

}  // namespace mole
